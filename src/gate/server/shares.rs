//! Who holds how many connections: while there is no room for others, nobody keeps more than a quarter of it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::portions::peer;

/// The connections of all peers.
pub(super) struct Shares {
    share: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    holders: HashMap<IpAddr, BTreeMap<u64, CancellationToken>>,
    next: u64,
}

impl Shares {
    /// For so many connections.
    pub(super) fn new(connections: u32) -> Arc<Self> {
        let share = usize::try_from(connections / 4)
            .unwrap_or(usize::MAX)
            .max(1);
        Arc::new(Self {
            share,
            table: Mutex::default(),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that is open from now on.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Place {
        let (address, leave) = (peer(address), CancellationToken::new());
        let mut table = self.table();
        let number = table.next;
        table.next += 1;
        table
            .holders
            .entry(address)
            .or_default()
            .insert(number, leave.clone());
        drop(table);
        Place {
            shares: self.clone(),
            address,
            number,
            leave,
        }
    }

    /// Whether this address has as much as it may keep when there is no room.
    pub(super) fn is_full(&self, address: IpAddr) -> bool {
        self.table()
            .holders
            .get(&peer(address))
            .is_some_and(|held| held.len() >= self.share)
    }

    /// Asks what is beyond its address's share to leave, the newest first.
    pub(super) fn thin_out(&self) {
        for held in self.table().holders.values() {
            for leave in held
                .values()
                .rev()
                .take(held.len().saturating_sub(self.share))
            {
                leave.cancel();
            }
        }
    }
}

/// The place of an open connection, until it is dropped.
pub(super) struct Place {
    shares: Arc<Shares>,
    address: IpAddr,
    number: u64,
    leave: CancellationToken,
}

impl Place {
    /// Cancelled when it is to make way.
    pub(super) fn leave(&self) -> &CancellationToken {
        &self.leave
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.shares.table();
        if let Some(held) = table.holders.get_mut(&self.address) {
            held.remove(&self.number);
            if held.is_empty() {
                table.holders.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_more_than_a_quarter_is_asked_to_leave_with_the_rest() {
        let shares = Shares::new(8);
        let (greedy, modest) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let mut places: Vec<Place> = (0..7).map(|_| shares.enter(greedy)).collect();
        let other = shares.enter(modest);
        assert!(shares.is_full(greedy) && !shares.is_full(modest));
        shares.thin_out();
        let left = |places: &[Place]| {
            places
                .iter()
                .filter(|place| place.leave().is_cancelled())
                .count()
        };
        assert_eq!((left(&places), other.leave().is_cancelled()), (5, false));
        assert!(!places[1].leave().is_cancelled(), "the oldest stay");
        places.truncate(1);
        assert!(!shares.is_full(greedy));
        drop((places, other));
        assert!(shares.table().holders.is_empty());
    }
}
