//! Where every protocol asks: the index of now, the clock, and what is counted and written down of each answer.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use super::access_log::{AccessLog, Origin};
use super::answer::Unable;
use super::decide::{Ask, Needs, Shown, Verdict, decide};
use super::freshness::Freshness;
use super::index::{Holder, Index};
use super::metrics::{Metrics, Protocol};
use super::route::Routes;

/// Hears of the use of a valid key, at a moment in seconds since 1970.
pub type Used = dyn Fn(&Holder, i64) + Send + Sync;

/// Answers questions.
pub struct Desk {
    /// The index, as it was last published.
    pub index: Arc<ArcSwap<Index>>,
    /// How old it may be.
    pub freshness: Arc<Freshness>,
    /// What proxies' routes need.
    pub routes: Routes,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Seconds since 1970.
    pub clock: fn() -> i64,
    /// Hears of each use of a valid key, at this moment.
    pub used: Box<Used>,
    /// What is written down.
    pub access_log: AccessLog,
}

impl Desk {
    /// May the key that is shown do what is needed? `origin` is for the access log.
    ///
    /// # Errors
    /// [`Unable`] where the gate does not know enough to say.
    pub fn ask(
        &self,
        protocol: Protocol,
        shown: Shown<'_>,
        needs: Needs<'_>,
        origin: impl FnOnce() -> Origin,
    ) -> Result<Verdict, Unable> {
        let begun = Instant::now();
        if let Err(unable) = self.freshness.check() {
            self.metrics.unavailable(protocol);
            return Err(unable);
        }
        let now = (self.clock)();
        let verdict = decide(&self.index.load(), &Ask { shown, needs }, now);
        if let Some(holder) = verdict.holder.as_ref().filter(|_| verdict.is_valid()) {
            (self.used)(holder, now);
        }
        self.metrics
            .decided(protocol, verdict.code, begun.elapsed());
        self.access_log.write(protocol, &verdict, &needs, origin);
        Ok(verdict)
    }
}

/// The clock of this machine.
#[must_use]
pub fn wall_clock() -> i64 {
    jiff::Timestamp::now().as_second()
}
