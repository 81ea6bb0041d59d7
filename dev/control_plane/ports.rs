//! Ports nobody else uses.
//!
//! They lie below the range from which systems pick the local ports of outgoing connections (32768 and up on Linux):
//! a component that is stopped and started again must find its port free.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};

use super::Error;

const FIRST: u16 = 20_000;
const COUNT: u64 = 12_000;
const TRIES: usize = 100;

/// Picks `N` different ports of 127.0.0.1, from 20000 to 31999, that are free now.
///
/// Another process may take one before it is used: whoever uses them has to be ready to ask again.
///
/// # Errors
/// [`Error::NoFreePort`] if a hundred random tries find too few.
pub(super) fn pick<const N: usize>() -> Result<[u16; N], Error> {
    // Held until all are found, so that no port is found twice.
    let mut listeners: Vec<(u16, TcpListener)> = Vec::with_capacity(N);
    for _ in 0..TRIES {
        if listeners.len() == N {
            break;
        }
        let port = u16::try_from(random() % COUNT).map_or(FIRST, |offset| FIRST + offset);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            listeners.push((port, listener));
        }
    }
    let ports: Vec<u16> = listeners.iter().map(|(port, _)| *port).collect();
    ports.try_into().map_err(|_| Error::NoFreePort)
}

/// A random number good enough to stay out of each other's way; the standard library seeds its hashers randomly.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    #[test]
    fn ports_are_different_and_below_the_ephemeral_range() {
        let mut ports = super::pick::<20>().unwrap_or([0; 20]).to_vec();
        assert!(
            ports.iter().all(|port| (20_000..32_000).contains(port)),
            "{ports:?}"
        );
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }
}
