//! Stands between a proxy and the gate, counts connections, and can cut them or fall silent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::support::cluster::runtime;

/// A running relay. Dropping it is as if the gate had died.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    silence: CancellationToken,
    task: JoinHandle<()>,
}

impl Relay {
    pub(super) fn to(gate: SocketAddr) -> Self {
        let listener = runtime()
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let silence = CancellationToken::new();
        let silent = silence.clone();
        let task = runtime().spawn(async move {
            // They end with the set.
            let mut pairs = JoinSet::new();
            loop {
                let Ok((mut near, _)) = listener.accept().await else {
                    continue;
                };
                counted.fetch_add(1, Ordering::Relaxed);
                let silent = silent.clone();
                pairs.spawn(async move {
                    let mut far = TcpStream::connect(gate).await?;
                    tokio::select! {
                        biased;
                        () = silent.cancelled() => std::future::pending().await,
                        copied = copy_bidirectional(&mut near, &mut far) => copied,
                    }
                });
            }
        });
        Self {
            address,
            connections,
            silence,
            task,
        }
    }

    /// From now on nothing passes, as if all packets were dropped; connections stay open.
    pub(super) fn fall_silent(&self) {
        self.silence.cancel();
    }

    /// How many connections there were.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Cuts everything, and waits until nobody listens any more.
    pub(super) fn cut(self) {
        let Self { task, .. } = self;
        task.abort();
        let _ = runtime().block_on(task);
    }
}
