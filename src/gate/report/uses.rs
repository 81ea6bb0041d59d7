//! Last uses, until the ApiKeys' status shows them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{GRANULARITY, KeyUse, MAX_USES};

/// How many ApiKeys may have a use that is not in their status yet; uses of further ones are dropped and counted.
pub const MAX_PENDING: usize = 10_000;

/// The last use of one ApiKey that was noted, in seconds since 1970. An entry that replaces another goes
/// on with what that one noted.
#[derive(Debug)]
pub struct Noted(AtomicI64);

/// Which ApiKey was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// Last uses that the ApiKeys' status does not show yet.
#[derive(Debug, Default)]
pub struct Uses {
    pending: Mutex<HashMap<String, Pending>>,
    dropped: AtomicU64,
}

#[derive(Clone, Debug)]
struct Pending {
    namespace: String,
    name: String,
    used_at: i64,
}

impl Noted {
    /// As the status says: `lastUsedAt` in seconds since 1970, or `None`.
    #[must_use]
    pub fn new(last_used_at: Option<i64>) -> Self {
        Self(AtomicI64::new(last_used_at.unwrap_or(i64::MIN)))
    }

    /// The status was seen to say this. Another gate may have noted a later use.
    pub fn seen(&self, last_used_at: Option<i64>) {
        if let Some(moment) = last_used_at {
            self.0.fetch_max(moment, Ordering::Relaxed);
        }
    }

    /// Takes the place of `earlier`: what was noted there needs no noting again.
    pub fn succeed(&self, earlier: &Self) {
        self.0
            .fetch_max(earlier.0.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether a use at `now` is worth noting; true once for each use that is.
    fn take(&self, now: i64) -> bool {
        let noted = self.0.load(Ordering::Relaxed);
        now.saturating_sub(noted) >= GRANULARITY
            && self
                .0
                .compare_exchange(noted, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

impl Uses {
    /// A key was valid at `now`, in seconds since 1970. One comparison, unless the last use noted is an hour old.
    pub fn record(&self, noted: &Noted, now: i64, subject: impl FnOnce() -> Subject) {
        if noted.take(now) {
            self.keep(now, subject());
        }
    }

    /// The watch has shown an ApiKey with this `status.lastUsedAt`: a use that is in it needs no telling any more.
    pub fn seen(&self, uid: &str, last_used_at: Option<i64>) {
        let Some(moment) = last_used_at else { return };
        let mut pending = self.lock();
        // One that came shortly after would never be written.
        if pending
            .get(uid)
            .is_some_and(|waiting| waiting.used_at.saturating_sub(moment) < GRANULARITY)
        {
            pending.remove(uid);
        }
    }

    /// The watch has shown that an ApiKey is gone.
    pub fn gone(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// How many ApiKeys have a use that is not in their status yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.lock().len()
    }

    /// How many uses were dropped because too many were waiting.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Whether so little of what was told is still pending that there is something else to tell: less than half of it. A list that
    /// changed with every write of the controller would be written as often.
    pub(super) fn is_spent(&self, told: &[KeyUse]) -> bool {
        let pending = self.lock();
        let left = told.iter().filter(|used| {
            let waiting = pending.get(&used.uid);
            waiting.is_some_and(|waiting| waiting.used_at == used.used_at.0.as_second())
        });
        left.count() * 2 <= told.len()
    }

    /// The oldest uses, as many as a `Gate` lists.
    pub(super) fn oldest(&self) -> Vec<KeyUse> {
        let pending = self.lock();
        let mut all: Vec<_> = pending.iter().collect();
        // By UID, too: what is told must not depend on the order of a map.
        let order = |(uid, waiting): &(&String, &Pending)| (waiting.used_at, String::clone(uid));
        if all.len() > MAX_USES {
            all.select_nth_unstable_by_key(MAX_USES, order);
            all.truncate(MAX_USES);
        }
        all.sort_unstable_by_key(order);
        let told = all.into_iter().filter_map(|(uid, waiting)| {
            Some(KeyUse {
                namespace: waiting.namespace.clone(),
                name: waiting.name.clone(),
                uid: uid.clone(),
                used_at: Time(Timestamp::from_second(waiting.used_at).ok()?),
            })
        });
        told.collect()
    }

    fn keep(
        &self,
        used_at: i64,
        Subject {
            namespace,
            name,
            uid,
        }: Subject,
    ) {
        let mut pending = self.lock();
        if pending.len() >= MAX_PENDING && !pending.contains_key(&uid) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        pending.insert(
            uid,
            Pending {
                namespace,
                name,
                used_at,
            },
        );
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_795_262_400;

    fn subject(number: usize) -> Subject {
        Subject {
            namespace: "team".to_owned(),
            name: format!("k{number}"),
            uid: format!("uid-{number:05}"),
        }
    }

    fn told(uses: &Uses) -> Vec<(String, i64)> {
        uses.oldest()
            .into_iter()
            .map(|used| (used.name, used.used_at.0.as_second() - NOON))
            .collect()
    }

    #[test]
    fn a_use_is_noted_once_an_hour() {
        let (uses, noted) = (Uses::default(), Noted::new(None));
        let mut asked = 0;
        for (now, noted_so_far) in [
            (0, 1),
            (0, 1),
            (1, 1),
            (3_599, 1),
            (3_600, 2),
            (3_601, 2),
            (-9_000, 2),
            (10_000, 3),
        ] {
            uses.record(&noted, NOON + now, || {
                asked += 1;
                subject(1)
            });
            assert_eq!(asked, noted_so_far, "at {now}");
        }
        assert_eq!(
            told(&uses),
            [("k1".to_owned(), 10_000)],
            "the latest is told"
        );
    }

    #[test]
    fn what_the_status_says_already_is_not_noted() {
        let uses = Uses::default();
        let noted = Noted::new(Some(NOON));
        uses.record(&noted, NOON + 3_599, || subject(1));
        assert_eq!(uses.pending(), 0);
        noted.seen(Some(NOON + 3_000));
        noted.seen(Some(NOON));
        noted.seen(None);
        uses.record(&noted, NOON + 3_600, || subject(1));
        assert_eq!(uses.pending(), 0, "another gate has told a later use");
        uses.record(&noted, NOON + 6_600, || subject(1));
        assert_eq!(uses.pending(), 1);
    }

    #[test]
    fn a_use_is_told_until_the_status_shows_it() {
        let uses = Uses::default();
        uses.record(&Noted::new(None), NOON, || subject(1));
        for earlier in [None, Some(NOON - 3_600), Some(NOON - 86_400)] {
            uses.seen("uid-00001", earlier);
            uses.seen("uid-00002", Some(NOON));
            uses.gone("uid-00002");
            assert_eq!(uses.pending(), 1, "{earlier:?}");
        }
        uses.seen("uid-00001", Some(NOON - 3_599));
        assert_eq!(
            uses.pending(),
            0,
            "what is within the hour is never written"
        );

        uses.record(&Noted::new(None), NOON, || subject(1));
        uses.gone("uid-00001");
        assert_eq!(uses.pending(), 0, "nor is what is gone");
    }

    #[test]
    fn the_oldest_are_told_first_and_no_more_than_fit() {
        let uses = Uses::default();
        for number in 0..600 {
            uses.record(
                &Noted::new(None),
                NOON - i64::try_from(number).unwrap(),
                || subject(number),
            );
        }
        let told = told(&uses);
        assert_eq!(told.len(), MAX_USES);
        assert_eq!(told.first(), Some(&("k599".to_owned(), -599)));
        assert_eq!(told.last(), Some(&("k550".to_owned(), -550)));
        assert!(told.is_sorted_by_key(|(_, used_at)| *used_at));
    }

    #[test]
    fn what_is_told_stays_until_half_of_it_was_written() {
        let uses = Uses::default();
        assert!(uses.is_spent(&[]), "the first use is told at once");
        for number in 0..100 {
            uses.record(
                &Noted::new(None),
                NOON + i64::try_from(number).unwrap(),
                || subject(number),
            );
        }
        let told = uses.oldest();
        for used in &told[..24] {
            uses.seen(&used.uid, Some(NOON));
        }
        assert!(!uses.is_spent(&told));
        uses.gone(&told[40].uid);
        assert!(uses.is_spent(&told));
        assert_eq!(uses.oldest().first(), Some(&told[24]), "then come others");
    }

    #[test]
    fn beyond_the_bound_uses_are_dropped_and_counted() {
        let uses = Uses::default();
        for number in 0..MAX_PENDING + 3 {
            uses.record(&Noted::new(None), NOON, || subject(number));
        }
        assert_eq!((uses.pending(), uses.dropped()), (MAX_PENDING, 3));
        uses.record(&Noted::new(None), NOON + 1, || subject(0));
        assert_eq!(
            (uses.pending(), uses.dropped()),
            (MAX_PENDING, 3),
            "one that waits already takes no more room"
        );
        uses.gone("uid-00000");
        uses.record(&Noted::new(None), NOON, || subject(MAX_PENDING));
        assert_eq!((uses.pending(), uses.dropped()), (MAX_PENDING, 3));
    }

    #[test]
    fn of_many_who_see_one_use_one_notes_it() {
        let noted = Noted::new(None);
        let hours: Vec<_> = (0..1_000_000).map(|_| AtomicU64::new(0)).collect();
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    start.wait();
                    for (hour, taken) in (0..).zip(&hours) {
                        taken.fetch_add(
                            u64::from(noted.take(NOON + hour * GRANULARITY)),
                            Ordering::Relaxed,
                        );
                    }
                });
            }
        });
        assert!(hours.iter().all(|taken| taken.load(Ordering::Relaxed) <= 1));
    }
}
