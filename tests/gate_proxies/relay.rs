//! Stands between a proxy and the gate, counts connections, and can cut them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::cluster::runtime;

/// A running relay. Dropping it is as if the gate had died.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
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
        let task = runtime().spawn(async move {
            // They end with the set.
            let mut pairs = JoinSet::new();
            loop {
                let Ok((mut near, _)) = listener.accept().await else {
                    continue;
                };
                counted.fetch_add(1, Ordering::Relaxed);
                pairs.spawn(async move {
                    let mut far = TcpStream::connect(gate).await?;
                    copy_bidirectional(&mut near, &mut far).await
                });
            }
        });
        Self {
            address,
            connections,
            task,
        }
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
