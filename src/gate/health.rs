//! What the admin server and the `Gate` object say of this gate.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::answer::Unable;
use super::freshness::{Freshness, Watched};
use super::index::Index;
use super::index_updater::IndexUpdater;
use super::metrics::{Metrics, Present};
use super::report::GateFacts;
use crate::api::GateState;
use crate::lifecycle::Clock;
use crate::telemetry::{Health, ServerClock};

/// What can be asked about a gate.
pub(super) struct State {
    pub(super) index: Arc<ArcSwap<Index>>,
    pub(super) freshness: Arc<Freshness>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) updater: Arc<IndexUpdater>,
    pub(super) server_clock: ServerClock,
    pub(super) stopping: CancellationToken,
}

impl State {
    /// For the `Gate` object.
    pub(super) fn facts(&self) -> GateFacts {
        let state = match self.freshness.check() {
            Ok(()) => GateState::Current,
            Err(Unable::Loading) => GateState::Loading,
            Err(Unable::Stale) => GateState::Stale,
        };
        let reached = self.updater.reached();
        let known = |version: String| Some(version).filter(|version| !version.is_empty());
        GateFacts {
            state,
            keys: u64::try_from(self.index.load().keys()).unwrap_or(u64::MAX),
            reached: known(reached.apikeys),
            roles_reached: known(reached.roles),
        }
    }

    /// How far the clock of this machine is ahead of the API server's.
    fn clock_skew(&self) -> Option<SignedDuration> {
        self.server_clock.skew(Timestamp::now())
    }
}

/// How often is looked whether verdicts are given.
const LOOK: Duration = Duration::from_secs(1);

/// When to look next. Not after they may have ended: a moment without them is told, too.
fn next_look(freshness: &Freshness) -> Duration {
    match freshness.left_of_all() {
        Some(left) if !left.is_zero() => LOOK.min(left + Duration::from_millis(1)),
        _ => LOOK,
    }
}

/// Whether the clocks agreed when that was last looked at.
struct ClockWatch {
    agreed: bool,
}

impl ClockWatch {
    /// Logs when the clock begins to disagree with the API server's, and when it agrees again: keys
    /// expire and overlaps end by it.
    fn look(&mut self, skew: Option<SignedDuration>) {
        let Some(skew) = skew else {
            return;
        };
        let agrees = Clock::judge(skew) == Clock::Agrees;
        if agrees == self.agreed {
            return;
        }
        self.agreed = agrees;
        let ahead_seconds = skew.as_secs();
        if agrees {
            tracing::info!(
                ahead_seconds,
                "the clock agrees with the API server's again"
            );
        } else {
            tracing::warn!(
                ahead_seconds,
                "the clock disagrees with the API server's: keys expire too early or too late \
                 here, so synchronize the clock of this machine"
            );
        }
    }
}

/// Tells in the log when verdicts begin, end, and begin again, and whether the clock is right,
/// until `stop` is cancelled.
pub(super) async fn tell(state: Arc<State>, stop: CancellationToken) {
    let mut before = GateState::Loading;
    let mut clock = ClockWatch { agreed: true };
    while stop
        .run_until_cancelled(tokio::time::sleep(next_look(&state.freshness)))
        .await
        .is_some()
    {
        clock.look(state.clock_skew());
        let facts = state.facts();
        if facts.state == before {
            continue;
        }
        before = facts.state;
        match (facts.state, state.ready()) {
            (GateState::Current, _) => tracing::info!(keys = facts.keys, "verdicts are given"),
            (_, Err(why)) => {
                tracing::warn!(why, "no verdict is given any more: nothing passes here");
            }
            (_, Ok(())) => {}
        }
    }
}

impl Health for State {
    /// A gate that waits for the API server is alive: a restart would cost it its index.
    fn live(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        if self.stopping.is_cancelled() {
            return Err("stopping".to_owned());
        }
        self.freshness
            .check()
            .map_err(|unable| match self.updater.trouble() {
                Some(trouble) => format!("{unable} ({trouble})"),
                None => unable.to_string(),
            })
    }

    fn metrics(&self) -> String {
        let index = self.index.load();
        self.metrics.render(&Present {
            keys: index.keys(),
            roles: index.roles(),
            ages: [
                self.freshness.age(Watched::ApiKeys),
                self.freshness.age(Watched::Roles),
            ],
            clock_skew: self.clock_skew(),
            ready: self.ready().is_ok(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_end_of_verdicts_is_looked_at_when_it_comes() {
        let (bound, roles_too) = (Duration::from_secs(7), true);
        let fresh = Freshness::new(roles_too, Some(bound));
        assert_eq!(next_look(&fresh), LOOK, "nothing is known yet");
        fresh.listed(Watched::ApiKeys);
        fresh.listed(Watched::Roles);
        assert_eq!(next_look(&fresh), LOOK);
        tokio::time::advance(Duration::from_millis(6_400)).await;
        fresh.listed(Watched::ApiKeys);
        let look = next_look(&fresh);
        assert_eq!(look, Duration::from_millis(601), "roles come first");
        tokio::time::advance(look).await;
        assert_eq!(fresh.check(), Err(Unable::Stale));
        assert_eq!(next_look(&fresh), LOOK);
        assert_eq!(next_look(&Freshness::new(roles_too, None)), LOOK);
    }
}
