//! What one peer may take of what all share.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

/// A portion for each address, as long as it is in use.
#[derive(Debug)]
pub struct Portions {
    portion: usize,
    table: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

impl Portions {
    /// Each address may take so much.
    #[must_use]
    pub fn new(portion: usize) -> Self {
        Self {
            portion: portion.clamp(1, Semaphore::MAX_PERMITS),
            table: Mutex::default(),
        }
    }

    /// The portion of an address.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Arc<Semaphore> {
        let address = peer(address);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(portion) = table.get(&address).and_then(Weak::upgrade) {
            return portion;
        }
        if table.len() == table.capacity() {
            table.retain(|_, portion| portion.strong_count() > 0);
        }
        let portion = Arc::new(Semaphore::new(self.portion));
        table.insert(address, Arc::downgrade(&portion));
        portion
    }
}

/// One peer, whichever of its addresses it uses: of IPv6 addresses the first half counts, for it commonly has all of the second.
pub(super) fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_is_one_whichever_of_its_addresses_it_uses() {
        let of = |text: &str| peer(text.parse().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn a_portion_is_kept_while_it_is_in_use_and_no_longer() {
        let portions = Portions::new(2);
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        let first = portions.of(address(1));
        let taken = first.clone().try_acquire_many_owned(2).unwrap();
        drop(first);
        assert!(
            portions.of(address(1)).try_acquire().is_err(),
            "what is taken stays taken"
        );
        assert!(
            portions.of(address(2)).try_acquire().is_ok(),
            "from others, nothing is"
        );
        for number in 3..10_000 {
            drop(portions.of(address(number)));
        }
        assert!(
            portions.table.lock().unwrap().capacity() < 100,
            "who is gone is forgotten"
        );
        assert!(portions.of(address(1)).try_acquire().is_err());
        drop(taken);
        assert!(portions.of(address(1)).try_acquire().is_ok());
    }
}
