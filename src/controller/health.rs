//! What the admin server tells about the controller.

use std::sync::{Arc, OnceLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::clock::Clock;
use super::context::Context;
use crate::api::ConditionType;
use crate::api::conditions;
use crate::telemetry::{Health, Metrics, Snapshot};

/// What the admin server tells.
pub(super) struct State {
    /// What is counted.
    pub(super) metrics: Arc<Metrics>,
    /// What works, once it does.
    pub(super) context: OnceLock<Arc<Context>>,
    /// Set when the start is complete.
    pub(super) ready: OnceLock<()>,
    /// Our clock.
    pub(super) clock: Arc<dyn Clock>,
}

impl Health for State {
    fn live(&self) -> Result<(), String> {
        // That this is answered is the point: a part that ends takes the process along.
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        self.ready
            .get()
            .copied()
            .ok_or_else(|| "waiting for the API server and the CustomResourceDefinition".to_owned())
    }

    fn metrics(&self) -> String {
        let snapshot = self
            .context
            .get()
            .map(|context| context.snapshot(self.clock.now()))
            .unwrap_or_default();
        self.metrics.render(&snapshot)
    }
}

impl Context {
    fn snapshot(&self, now: jiff::Timestamp) -> Snapshot {
        let mut snapshot = Snapshot {
            gates: self.reports.counts(),
            waiting: i64::try_from(self.memory.failing() + self.pending.len()).unwrap_or(i64::MAX),
            ..Snapshot::default()
        };
        for object in self.apikeys.state() {
            let Ok(apikey) = &object.0 else {
                snapshot.undecodable += 1;
                continue;
            };
            let phase = apikey
                .status
                .as_ref()
                .and_then(|status| status.phase)
                .unwrap_or(crate::api::Phase::Pending);
            for (count, counted) in snapshot.by_phase.iter_mut().zip(crate::api::Phase::ALL) {
                *count += i64::from(counted == phase);
            }
            let Some(status) = apikey.status.as_ref().filter(|status| !status.is_final()) else {
                continue;
            };
            soonest(&mut snapshot.next_expiry, status.expires_at.as_ref(), now);
            soonest(&mut snapshot.next_rotation, status.rotates_at.as_ref(), now);
            let is = |type_, holds: &str| {
                conditions::find(&status.conditions, type_).is_some_and(|one| one.status == holds)
            };
            snapshot.stalled += i64::from(is(ConditionType::Stalled, "True"));
            snapshot.noncompliant += i64::from(is(ConditionType::Compliant, "False"));
        }
        snapshot
    }
}

/// Keeps the shorter of the times until a moment.
fn soonest(kept: &mut Option<i64>, moment: Option<&Time>, now: jiff::Timestamp) {
    if let Some(moment) = moment {
        let left = moment.0.duration_since(now).as_secs().max(0);
        *kept = Some(kept.map_or(left, |soonest| soonest.min(left)));
    }
}
