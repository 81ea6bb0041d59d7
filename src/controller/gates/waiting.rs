//! ApiKeys whose new key is not sent before gates know it. Pure: `now` is an argument.
//!
//! A client that is given a key uses it at once, and a gate refuses what it has not heard of. What is announced reaches gates within
//! milliseconds, and mostly before the key is anywhere; here that is made sure of where gates say how far they are. It is no
//! condition: whoever may write a `Gate` can hold a key up for some seconds, and nothing else.

use std::collections::HashMap;

use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

use crate::api::ApiKey;

/// Which ApiKey waits.
pub(in crate::controller) type Key = ObjectRef<DeserializeGuard<ApiKey>>;

/// The ApiKeys that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting(HashMap<Key, (u128, Instant)>);

impl Waiting {
    /// One waits until gates have reached `version`, or `until` has come: then it is looked at without us.
    pub(super) fn begin(&mut self, key: Key, version: u128, until: Instant) {
        self.0.insert(key, (version, until));
    }

    /// One waits no longer.
    pub(super) fn end(&mut self, key: &Key) {
        self.0.remove(key);
    }

    /// Takes out those for which `reached`, asked for a namespace and a version, is so.
    pub(super) fn released(
        &mut self,
        now: Instant,
        reached: impl Fn(&str, u128) -> bool,
    ) -> Vec<Key> {
        if self.0.is_empty() {
            return Vec::new();
        }
        self.0.retain(|_, (_, until)| *until > now);
        let is_reached = |key: &Key, (version, _): &mut (u128, Instant)| {
            reached(key.namespace.as_deref().unwrap_or_default(), *version)
        };
        self.0.extract_if(is_reached).map(|(key, _)| key).collect()
    }
}

/// Its key.
pub(super) fn key(apikey: &ApiKey) -> Key {
    ObjectRef::new(&apikey.name_any()).within(&apikey.namespace().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn named(name: &str) -> Key {
        ObjectRef::new(name).within("team")
    }

    #[test]
    fn what_waits_is_released_once_and_when_its_own_version_is_reached() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let later = now + Duration::from_secs(3);
        for (name, version) in [
            ("a", 10),
            ("b", 11),
            ("gone", 10),
            ("again", 10),
            ("again", 12),
        ] {
            waiting.begin(named(name), version, later);
        }
        waiting.end(&named("gone"));
        let reached = |most| move |namespace: &str, version| namespace == "team" && version <= most;
        assert_eq!(waiting.released(now, reached(9)), []);
        assert_eq!(waiting.released(now, reached(10)), [named("a")]);
        assert_eq!(waiting.released(now, reached(11)), [named("b")]);
        assert_eq!(
            waiting.released(later, reached(12)),
            [],
            "it is looked at by then"
        );
        assert!(waiting.0.is_empty());
    }
}
