//! Who may take the lease: pure, so that every interleaving can be tried.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::time::Instant;

use super::Timing;

/// The parts of a Lease an election turns on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; `None` when it was released (`holderIdentity` empty or absent).
    pub holder: Option<String>,
    /// `leaseDurationSeconds`, the holder's own promise; `None` when absent or not positive.
    pub duration: Option<Duration>,
    /// `leaseTransitions`.
    pub transitions: i32,
    /// `renewTime` by the holder's wall clock: only ever compared for having changed.
    pub renewed: Option<Timestamp>,
    /// The version a replacement must name.
    pub resource_version: Option<String>,
}

/// What a candidate may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nobody holds it: try to take it.
    Acquire,
    /// It names us: renew it.
    Renew,
    /// Another holds it at least until then, by our clock, unless the record changes.
    Wait(Instant),
}

/// Decides from what we saw and when we saw it change.
///
/// The holder's term counts from `observed_at`, the instant (after the answer arrived) at which *we* first saw this
/// record: that is never earlier than its commit, so no clock of the holder's is compared with ours.
/// The term is what the holder promised in the record, which during a rollout may differ from our own `timing`.
///
/// Both instants are of `CLOCK_MONOTONIC`: it runs on while a process is stopped (SIGSTOP, cgroup freezer) and stands
/// still while the whole machine is suspended. Against the latter only guarded writes help (uid, resourceVersion).
#[must_use]
pub fn evaluate(
    observed: Option<&Record>,
    observed_at: Instant,
    now: Instant,
    me: &str,
    timing: &Timing,
) -> Decision {
    let Some((record, holder)) =
        observed.and_then(|record| Some((record, record.holder.as_deref()?)))
    else {
        return Decision::Acquire;
    };
    if holder == me {
        return Decision::Renew;
    }
    let term = record.duration.unwrap_or(timing.lease_duration());
    match observed_at.checked_add(term) {
        Some(expiry) if now >= expiry => Decision::Acquire,
        Some(expiry) => Decision::Wait(expiry),
        None => Decision::Wait(now + timing.lease_duration()),
    }
}

impl Record {
    /// Reads a Lease.
    #[must_use]
    pub fn of(lease: &Lease) -> Self {
        let spec = lease.spec.as_ref();
        Self {
            holder: spec
                .and_then(|s| s.holder_identity.clone())
                .filter(|holder| !holder.is_empty()),
            duration: spec
                .and_then(|s| s.lease_duration_seconds)
                .and_then(|seconds| u64::try_from(seconds).ok())
                .filter(|seconds| *seconds > 0)
                .map(Duration::from_secs),
            transitions: spec.and_then(|s| s.lease_transitions).unwrap_or(0),
            renewed: spec.and_then(|s| s.renew_time.as_ref()).map(|time| time.0),
            resource_version: lease.metadata.resource_version.clone(),
        }
    }

    /// Whether the holder has said nothing new: a label put on the Lease changes its version, not the claim.
    #[must_use]
    pub fn same_claim(&self, other: &Self) -> bool {
        (&self.holder, self.duration, self.transitions, self.renewed)
            == (
                &other.holder,
                other.duration,
                other.transitions,
                other.renewed,
            )
    }
}

/// The spec with which `me` takes or renews what `previous` says, as client-go writes it.
pub(super) fn claimed(
    previous: Option<&LeaseSpec>,
    me: &str,
    timing: &Timing,
    wall: Timestamp,
) -> LeaseSpec {
    let mut spec = previous.cloned().unwrap_or_default();
    let renewed = stamp(previous, wall);
    if previous.is_none() {
        spec.lease_transitions = Some(0);
    } else if spec.holder_identity.as_deref() != Some(me) {
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
    }
    if spec.holder_identity.as_deref() != Some(me) || spec.acquire_time.is_none() {
        spec.acquire_time = Some(renewed.clone());
    }
    spec.holder_identity = Some(me.to_owned());
    spec.lease_duration_seconds = Some(timing.lease_seconds());
    spec.renew_time = Some(renewed);
    spec
}

/// The spec that gives the lease back: no holder, and a term of one second for readers which insist on one.
pub(super) fn released(previous: Option<&LeaseSpec>, wall: Timestamp) -> LeaseSpec {
    let mut spec = previous.cloned().unwrap_or_default();
    spec.renew_time = Some(stamp(previous, wall));
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    spec
}

/// A `renewTime` that differs from the one before even when the wall clock was set back onto it: others tell a renewal
/// by the change.
fn stamp(previous: Option<&LeaseSpec>, wall: Timestamp) -> MicroTime {
    let microsecond = Duration::from_micros(1);
    let wall = Timestamp::from_microsecond(wall.as_microsecond()).unwrap_or(wall);
    let before = previous
        .and_then(|spec| spec.renew_time.as_ref())
        .map(|time| time.0);
    let changed = if before == Some(wall) {
        wall.checked_add(microsecond).unwrap_or(wall)
    } else {
        wall
    };
    MicroTime(changed)
}

#[cfg(test)]
mod tests;
