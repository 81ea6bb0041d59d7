//! Room for bytes that all share, and of which one peer gets no more than a quarter.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::portions::Portions;

/// Room that can be taken, by everybody or for one peer.
#[derive(Clone, Debug)]
pub(super) struct Room {
    all: Arc<Semaphore>,
    portions: Arc<Portions>,
    /// Of the peer for whom it is taken.
    portion: Option<Arc<Semaphore>>,
}

/// Room that is taken, until it is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    of_peer: Option<OwnedSemaphorePermit>,
    of_all: OwnedSemaphorePermit,
}

impl Taken {
    /// Adds what the same peer has taken.
    pub(super) fn merge(&mut self, more: Self) {
        self.of_all.merge(more.of_all);
        match (&mut self.of_peer, more.of_peer) {
            (Some(taken), Some(more)) => taken.merge(more),
            (taken @ None, more) => *taken = more,
            (Some(_), None) => {}
        }
    }
}

impl Room {
    /// Room for so many bytes.
    pub(super) fn new(bytes: u32) -> Self {
        let bytes = usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS);
        Self {
            all: Arc::new(Semaphore::new(bytes)),
            portions: Arc::new(Portions::new(bytes / 4)),
            portion: None,
        }
    }

    /// The same room, for one peer.
    pub(super) fn of(&self, peer: IpAddr) -> Self {
        Self {
            portion: Some(self.portions.of(peer)),
            ..self.clone()
        }
    }

    /// Takes room, if there is some.
    pub(super) fn now(&self, bytes: u32) -> Option<Taken> {
        let of_peer = self
            .portion
            .as_ref()
            .map(|portion| portion.clone().try_acquire_many_owned(bytes))
            .transpose()
            .ok()?;
        Some(Taken {
            of_peer,
            of_all: self.all.clone().try_acquire_many_owned(bytes).ok()?,
        })
    }

    /// Takes room when there is some. Who waits for their own portion does not stand before others meanwhile.
    pub(super) async fn later(&self, bytes: u32) -> Option<Taken> {
        let of_peer = match &self.portion {
            Some(portion) => Some(portion.clone().acquire_many_owned(bytes).await.ok()?),
            None => None,
        };
        Some(Taken {
            of_peer,
            of_all: self.all.clone().acquire_many_owned(bytes).await.ok()?,
        })
    }
}
