//! Numbers for Prometheus. What describes the present (keys by phase and the like) is read when it is asked for, so that no
//! series outlives what it counts; no series is labelled with an object's name.

use std::fmt::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric as _,
};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::api::Phase;

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ReconcileLabels, Counter>,
    durations: Histogram,
    errors: Family<ErrorLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    writes: Family<WriteLabels, Counter>,
    events_dropped: Counter,
    last_use_writes: Counter,
    watch_restarts: Family<WatchLabels, Counter>,
    working: Gauge,
    leading: Gauge,
    /// Held while the gauges of the present are set and written out, so that two scrapes do not mix.
    present: Mutex<Present>,
}

/// Counted where lines are dropped, read when it is asked for.
#[derive(Debug)]
struct LogLinesDropped;

impl Collector for LogLinesDropped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counter = ConstCounter::new(super::log_lines_dropped());
        counter.encode(encoder.encode_descriptor(
            "log_lines_dropped",
            "Log lines that were dropped because too many were waiting",
            None,
            counter.metric_type(),
        )?)
    }
}

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// Something was written, and the object is settled.
    Changed,
    /// There was nothing to do.
    Unchanged,
    /// The object waits for something.
    Waiting,
    /// A step failed.
    Failed,
}

/// What describes the present, taken when somebody asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// ApiKeys by phase, in the order of [`Phase::ALL`].
    pub by_phase: [i64; 4],
    /// Stored objects that cannot be read.
    pub undecodable: i64,
    /// Objects that wait: for their turn, or in back-off.
    pub waiting: i64,
    /// Seconds until the next key expires; `None` when none will.
    pub next_expiry: Option<i64>,
    /// Seconds until the next version is due by a declared rotation; `None` when none is.
    pub next_rotation: Option<i64>,
    /// ApiKeys in which only a person can help.
    pub stalled: i64,
    /// ApiKeys that violate a policy or are in the wrong organization.
    pub noncompliant: i64,
    /// Gates that are current, behind and silent.
    pub gates: [i64; 3],
}

#[derive(Debug, Default)]
struct Present {
    keys: Family<PhaseLabels, Gauge>,
    undecodable: Gauge,
    waiting: Gauge,
    next_expiry: Gauge,
    next_rotation: Gauge,
    stalled: Gauge,
    noncompliant: Gauge,
    gates: Family<GateLabels, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    resource: String,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    verb: &'static str,
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    resource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GateLabels {
    state: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("claviger");
        let mut metrics = Self {
            reconciles: Family::default(),
            durations: Histogram::new([
                0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0,
            ]),
            errors: Family::default(),
            requests: Family::default(),
            writes: Family::default(),
            events_dropped: Counter::default(),
            last_use_writes: Counter::default(),
            watch_restarts: Family::default(),
            working: Gauge::default(),
            leading: Gauge::default(),
            present: Mutex::default(),
            registry: Registry::default(),
        };
        registry.register_collector(Box::new(LogLinesDropped));
        registry.register(
            "reconciles",
            "Reconciliations by outcome",
            metrics.reconciles.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "How long reconciliations took",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Failed reconciliations by kind of error",
            metrics.errors.clone(),
        );
        registry.register(
            "api_requests",
            "Requests to the API server by verb, resource and answer",
            metrics.requests.clone(),
        );
        registry.register(
            "api_writes",
            "Requests to the API server that change something, by verb and resource",
            metrics.writes.clone(),
        );
        registry.register(
            "events_dropped",
            "Events that could not be published",
            metrics.events_dropped.clone(),
        );
        registry.register(
            "watch_restarts",
            "Watches that ended with an error and were begun anew",
            metrics.watch_restarts.clone(),
        );
        registry.register(
            "objects_working",
            "ApiKeys that are being worked on",
            metrics.working.clone(),
        );
        registry.register(
            "leading",
            "Whether this process leads (1) or stands by (0)",
            metrics.leading.clone(),
        );
        metrics
            .present
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .register(&mut registry);
        registry.register(
            "last_use_writes",
            "Last uses written into ApiKeys",
            metrics.last_use_writes.clone(),
        );
        metrics.registry = registry;
        metrics
    }
}

impl Present {
    fn register(&self, registry: &mut Registry) {
        registry.register("keys", "ApiKeys by phase", self.keys.clone());
        registry.register(
            "undecodable_objects",
            "Stored ApiKeys that cannot be read",
            self.undecodable.clone(),
        );
        registry.register(
            "objects_waiting",
            "ApiKeys that wait for their turn or in back-off",
            self.waiting.clone(),
        );
        registry.register_with_unit(
            "next_expiry",
            "Time until the next key expires; -1 when none will",
            Unit::Seconds,
            self.next_expiry.clone(),
        );
        registry.register_with_unit(
            "next_rotation",
            "Time until the next version is due by a declared rotation; -1 when none is",
            Unit::Seconds,
            self.next_rotation.clone(),
        );
        registry.register(
            "stalled_keys",
            "ApiKeys in which only a person can help",
            self.stalled.clone(),
        );
        registry.register(
            "noncompliant_keys",
            "ApiKeys that violate a policy or are in the wrong organization",
            self.noncompliant.clone(),
        );
        registry.register(
            "gates",
            "Gates by how they stand: current, behind or silent",
            self.gates.clone(),
        );
    }
}

impl Metrics {
    /// A reconciliation has ended.
    pub fn reconciled(&self, outcome: Outcome, took: Duration) {
        self.reconciles
            .get_or_create(&ReconcileLabels { outcome })
            .inc();
        self.durations.observe(took.as_secs_f64());
    }

    /// A reconciliation has failed.
    pub fn failed(&self, kind: &'static str) {
        self.errors.get_or_create(&ErrorLabels { kind }).inc();
    }

    /// An event could not be published.
    pub fn event_dropped(&self) {
        self.events_dropped.inc();
    }

    /// A last use was written.
    pub fn last_use_written(&self) {
        self.last_use_writes.inc();
    }

    /// A watch ended with an error.
    pub fn watch_restarted(&self, resource: &'static str) {
        self.watch_restarts
            .get_or_create(&WatchLabels { resource })
            .inc();
    }

    /// Work on an object has begun (`1`) or ended (`-1`).
    pub fn working(&self, change: i64) {
        self.working.inc_by(change);
    }

    /// Whether this process leads.
    pub fn leading(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }

    /// A request to the API server was answered; `code` is the HTTP status, or what kept it from coming.
    pub(super) fn requested(&self, verb: &'static str, resource: &str, code: &str, writes: bool) {
        self.requests
            .get_or_create(&RequestLabels {
                verb,
                resource: resource.to_owned(),
                code: code.to_owned(),
            })
            .inc();
        if writes {
            self.writes
                .get_or_create(&WriteLabels {
                    verb,
                    resource: resource.to_owned(),
                })
                .inc();
        }
    }

    /// Everything in the OpenMetrics text format.
    #[must_use]
    pub fn render(&self, now: &Snapshot) -> String {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        for (phase, count) in Phase::ALL.iter().zip(now.by_phase) {
            present
                .keys
                .get_or_create(&PhaseLabels {
                    phase: phase.as_str(),
                })
                .set(count);
        }
        present.undecodable.set(now.undecodable);
        present.waiting.set(now.waiting);
        present.next_expiry.set(now.next_expiry.unwrap_or(-1));
        present.next_rotation.set(now.next_rotation.unwrap_or(-1));
        present.stalled.set(now.stalled);
        present.noncompliant.set(now.noncompliant);
        for (state, count) in ["current", "behind", "silent"].into_iter().zip(now.gates) {
            present
                .gates
                .get_or_create(&GateLabels { state })
                .set(count);
        }
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            // Writing into a String fails only where an encoder is wrong; say so instead of serving half a page.
            text.clear();
            let _ = writeln!(text, "# the metrics could not be encoded");
        }
        text
    }
}
