//! How old the index may be: when the API server was last heard of.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::answer::Unable;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// ApiKeys.
    ApiKeys,
    /// ApiKeyRoles.
    Roles,
}

impl Watched {
    /// The plural, as the API server has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiKeys => "apikeys",
            Self::Roles => "apikeyroles",
        }
    }
}

/// When each watch last showed a sign: a list, an answer to a watch, an event, a bookmark, or an end at its time.
#[derive(Debug)]
pub struct Freshness {
    since: Instant,
    /// Milliseconds since `since`, plus one; zero before the first list.
    apikeys: AtomicU64,
    roles: AtomicU64,
    /// Where roles are not watched, they are no reason to wait.
    with_roles: bool,
    max_staleness: Option<Duration>,
}

impl Freshness {
    /// Nothing was heard yet. `max_staleness` is how long a silent API server is lived with; `None` is for ever.
    #[must_use]
    pub fn new(with_roles: bool, max_staleness: Option<Duration>) -> Self {
        Self {
            since: Instant::now(),
            apikeys: AtomicU64::default(),
            roles: AtomicU64::default(),
            with_roles,
            max_staleness,
        }
    }

    /// Everything there is was listed.
    pub fn listed(&self, watched: Watched) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.moment(watched).store(now + 1, Ordering::Release);
    }

    /// A watch shows that it lives. `false` where that comes too late: a watch does not say when it has shown everything that happened
    /// meanwhile, so that only a list makes good for it.
    #[must_use]
    pub fn heard(&self, watched: Watched) -> bool {
        let in_time = self.check_one(watched).is_ok();
        if in_time {
            self.listed(watched);
        }
        in_time
    }

    /// How long ago a watch last showed that it lives; `None` before it has shown everything there is.
    #[must_use]
    pub fn age(&self, watched: Watched) -> Option<Duration> {
        let then = self
            .moment(watched)
            .load(Ordering::Acquire)
            .checked_sub(1)?;
        Some(
            self.since
                .elapsed()
                .saturating_sub(Duration::from_millis(then)),
        )
    }

    /// Whether verdicts can be given now.
    ///
    /// # Errors
    /// [`Unable`] says why not.
    pub fn check(&self) -> Result<(), Unable> {
        self.check_one(Watched::ApiKeys)?;
        if self.with_roles {
            self.check_one(Watched::Roles)
        } else {
            Ok(())
        }
    }

    /// Whether a watch has been silent for longer than may be.
    #[must_use]
    pub fn is_overdue(&self, watched: Watched) -> bool {
        self.check_one(watched) == Err(Unable::Stale)
    }

    /// How long a watch may still be silent; `None` where that is not bounded, or nothing was listed yet.
    #[must_use]
    pub fn left(&self, watched: Watched) -> Option<Duration> {
        Some(self.max_staleness?.saturating_sub(self.age(watched)?))
    }

    /// The same for all that is watched.
    #[must_use]
    pub fn left_of_all(&self) -> Option<Duration> {
        let roles = if self.with_roles {
            self.left(Watched::Roles)
        } else {
            None
        };
        self.left(Watched::ApiKeys).into_iter().chain(roles).min()
    }

    fn check_one(&self, watched: Watched) -> Result<(), Unable> {
        let Some(max) = self.max_staleness else {
            // No clock is read where none is needed.
            let loaded = self.moment(watched).load(Ordering::Acquire) > 0;
            return if loaded { Ok(()) } else { Err(Unable::Loading) };
        };
        match self.age(watched) {
            None => Err(Unable::Loading),
            Some(age) if age > max => Err(Unable::Stale),
            Some(_) => Ok(()),
        }
    }

    fn moment(&self, watched: Watched) -> &AtomicU64 {
        match watched {
            Watched::ApiKeys => &self.apikeys,
            Watched::Roles => &self.roles,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_gate_waits_for_both_lists_and_then_serves_on_for_as_long_as_it_may() {
        let fresh = Freshness::new(true, Some(Duration::from_secs(60)));
        assert_eq!(fresh.check(), Err(Unable::Loading));
        assert!(!fresh.heard(Watched::ApiKeys), "it has shown nothing yet");
        assert_eq!(fresh.left(Watched::ApiKeys), None);
        fresh.listed(Watched::ApiKeys);
        assert_eq!(fresh.left(Watched::ApiKeys), Some(Duration::from_secs(60)));
        assert_eq!(
            fresh.check(),
            Err(Unable::Loading),
            "roles are still missing"
        );
        fresh.listed(Watched::Roles);
        assert_eq!(fresh.check(), Ok(()));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(fresh.check(), Ok(()));
        assert!(fresh.heard(Watched::ApiKeys));
        tokio::time::advance(Duration::from_secs(1)).await;
        let left = [Watched::ApiKeys, Watched::Roles].map(|watched| fresh.left(watched));
        assert_eq!(left, [Some(Duration::from_secs(59)), Some(Duration::ZERO)]);
        assert_eq!(
            fresh.check(),
            Err(Unable::Stale),
            "roles may have lost permissions since"
        );
        assert!(
            !fresh.heard(Watched::Roles),
            "a sign does not say what happened meanwhile"
        );
        assert_eq!(fresh.check(), Err(Unable::Stale));
        fresh.listed(Watched::Roles);
        assert_eq!(fresh.check(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_without_a_bound_serves_on() {
        let fresh = Freshness::new(false, None);
        assert_eq!(fresh.check(), Err(Unable::Loading));
        fresh.listed(Watched::ApiKeys);
        tokio::time::advance(Duration::from_secs(1_000_000)).await;
        assert_eq!(fresh.check(), Ok(()));
        assert!(fresh.heard(Watched::ApiKeys));
        assert_eq!(fresh.left(Watched::ApiKeys), None);
    }
}
