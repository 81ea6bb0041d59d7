//! The gate's numbers for Prometheus. What is counted at each request was made before the first: no map is searched there.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::SignedDuration;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::answer::{MISCONFIGURED, UNAVAILABLE};
use super::code::Code;
use super::freshness::Watched;
use super::report::Uses;
use super::server::Counters;
use crate::telemetry::log_lines_dropped;

/// By which way the gate was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `POST /v1/verify`.
    Verify,
    /// Envoy's `ext_authz` over gRPC.
    Grpc,
    /// Envoy's `ext_authz` over HTTP.
    Envoy,
    /// nginx's `auth_request`.
    Nginx,
    /// Traefik's `ForwardAuth`.
    Traefik,
    /// Caddy's `forward_auth`.
    Caddy,
    /// HAProxy.
    Haproxy,
}

impl Protocol {
    const ALL: [Self; 7] = [
        Self::Verify,
        Self::Grpc,
        Self::Envoy,
        Self::Nginx,
        Self::Traefik,
        Self::Caddy,
        Self::Haproxy,
    ];

    /// As it stands in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Grpc => "grpc",
            Self::Envoy => "envoy",
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::Haproxy => "haproxy",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    protocol: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProtocolLabels {
    protocol: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    resource: &'static str,
}

/// What the gate counts of one protocol.
#[derive(Debug)]
struct OfProtocol {
    by_code: Vec<Counter>,
    misconfigured: Counter,
    unavailable: Counter,
    took: Histogram,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    protocols: Vec<OfProtocol>,
    changes: Family<WatchLabels, Counter>,
    index_lag: Histogram,
    watch_restarts: Family<WatchLabels, Counter>,
    undecodable: Counter,
    keys: Gauge,
    roles: Gauge,
    ages: Family<WatchLabels, Gauge<f64, AtomicU64>>,
    clock_skew: Gauge<f64, AtomicU64>,
    ready: Gauge,
}

/// What is so now, read when it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Present {
    /// ApiKeys in the index.
    pub keys: usize,
    /// Roles in the index.
    pub roles: usize,
    /// Since the API server was last heard of, for ApiKeys and for roles; `None` before the first list.
    pub ages: [Option<Duration>; 2],
    /// How far the clock is ahead of the API server's; `None` while that is not known.
    pub clock_skew: Option<SignedDuration>,
    /// Whether verdicts are given.
    pub ready: bool,
}

/// What other parts of the gate count by themselves, read when it is asked for.
#[derive(Debug)]
struct CountedElsewhere(Arc<Uses>);

impl Collector for CountedElsewhere {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let gauge = ConstGauge::new(i64::try_from(self.0.pending()).unwrap_or(i64::MAX));
        let (name, help) = (
            "uses_pending",
            "ApiKeys whose last use is not in their status yet",
        );
        gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        let mut counter = |name, help, count: u64| {
            let counter = ConstCounter::new(count);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
        };
        counter(
            "uses_dropped",
            "Last uses that were not kept because too many were waiting",
            self.0.dropped(),
        )?;
        counter(
            "log_lines_dropped",
            "Log lines that were dropped because too many were waiting",
            log_lines_dropped(),
        )
    }
}

fn register_server(registry: &mut Registry, counters: &Counters) {
    registry.register(
        "connections",
        "Connections that are open",
        counters.open.clone(),
    );
    let counters = [
        (
            "connections_accepted",
            "Connections that were accepted",
            &counters.accepted,
        ),
        (
            "accept_errors",
            "Connections that could not be accepted",
            &counters.accept_errors,
        ),
        (
            "refused_handshakes",
            "TLS handshakes that failed or took too long",
            &counters.refused_handshakes,
        ),
        (
            "slow_heads",
            "Connections cut off because a request did not come to its end",
            &counters.slow_heads,
        ),
        (
            "stalled_connections",
            "Connections cut off because nothing moved",
            &counters.stalled,
        ),
        (
            "waited_connections",
            "Connections that had to wait for others to end",
            &counters.waited,
        ),
        (
            "connections_evicted",
            "Connections cut off because others needed their place",
            &counters.evicted,
        ),
        (
            "refused_requests",
            "Requests refused because too many were in flight",
            &counters.refused_requests,
        ),
    ];
    for (name, help, counter) in counters {
        registry.register(name, help, counter.clone());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(&Arc::default(), &Arc::default())
    }
}

impl Metrics {
    /// Tells also what the server's counters and the last uses say.
    #[must_use]
    pub fn new(counters: &Arc<Counters>, uses: &Arc<Uses>) -> Self {
        let mut registry = Registry::with_prefix("claviger_gate");
        registry.register_collector(Box::new(CountedElsewhere(uses.clone())));
        register_server(&mut registry, counters);
        let verdicts = Family::<VerdictLabels, Counter>::default();
        let took = Family::<ProtocolLabels, Histogram>::new_with_constructor(|| {
            Histogram::new([
                0.000_001, 0.000_002, 0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_5,
                0.001, 0.01, 0.1, 1.0,
            ])
        });
        let of_protocol = |protocol: &Protocol| {
            let counter = |code| {
                verdicts.get_or_create_owned(&VerdictLabels {
                    protocol: protocol.as_str(),
                    code,
                })
            };
            OfProtocol {
                by_code: Code::ALL
                    .iter()
                    .map(|code| counter(code.as_str()))
                    .collect(),
                misconfigured: counter(MISCONFIGURED),
                unavailable: counter(UNAVAILABLE),
                took: took.get_or_create_owned(&ProtocolLabels {
                    protocol: protocol.as_str(),
                }),
            }
        };
        let metrics = Self {
            protocols: Protocol::ALL.iter().map(of_protocol).collect(),
            changes: Family::default(),
            index_lag: Histogram::new([
                0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 1.0,
            ]),
            watch_restarts: Family::default(),
            undecodable: Counter::default(),
            keys: Gauge::default(),
            roles: Gauge::default(),
            ages: Family::default(),
            clock_skew: Gauge::default(),
            ready: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("verdicts", "Answers by protocol and code", verdicts);
        registry.register_with_unit(
            "decision_duration",
            "From the whole request to its verdict",
            Unit::Seconds,
            took,
        );
        registry.register(
            "changes",
            "Changes taken into the index",
            metrics.changes.clone(),
        );
        registry.register_with_unit(
            "index_lag",
            "From the arrival of a change's resourceVersion to the index that has it",
            Unit::Seconds,
            metrics.index_lag.clone(),
        );
        registry.register(
            "watch_restarts",
            "Watches that ended other than in order",
            metrics.watch_restarts.clone(),
        );
        registry.register(
            "undecodable_objects",
            "Objects that could not be read and count for nothing",
            metrics.undecodable.clone(),
        );
        registry.register("keys", "ApiKeys in the index", metrics.keys.clone());
        registry.register("roles", "Roles in the index", metrics.roles.clone());
        registry.register_with_unit(
            "last_event_age",
            "Since the API server was last heard of; -1 before the first list",
            Unit::Seconds,
            metrics.ages.clone(),
        );
        registry.register_with_unit(
            "clock_skew",
            "How far the clock is ahead of the API server's; 0 while that is not known",
            Unit::Seconds,
            metrics.clock_skew.clone(),
        );
        registry.register(
            "ready",
            "Whether verdicts are given (1)",
            metrics.ready.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }

    /// A verdict was given.
    pub fn decided(&self, protocol: Protocol, code: Code, took: Duration) {
        if let Some(of) = self.of(protocol) {
            if let Some(counter) = Code::ALL
                .iter()
                .position(|other| *other == code)
                .and_then(|at| of.by_code.get(at))
            {
                counter.inc();
            }
            of.took.observe(took.as_secs_f64());
        }
    }

    /// A route was not understood.
    pub fn misconfigured(&self, protocol: Protocol) {
        if let Some(of) = self.of(protocol) {
            of.misconfigured.inc();
        }
    }

    /// No verdict could be given.
    pub fn unavailable(&self, protocol: Protocol) {
        if let Some(of) = self.of(protocol) {
            of.unavailable.inc();
        }
    }

    /// Changes are in the index.
    pub fn changed(&self, watched: Watched, changes: u64, took: Duration) {
        self.changes.get_or_create(&labels(watched)).inc_by(changes);
        if changes > 0 {
            self.index_lag.observe(took.as_secs_f64());
        }
    }

    /// A watch has ended other than in order.
    pub fn watch_restarted(&self, watched: Watched) {
        self.watch_restarts.get_or_create(&labels(watched)).inc();
    }

    /// An object could not be read.
    pub fn undecodable(&self) {
        self.undecodable.inc();
    }

    /// Everything in the OpenMetrics text format.
    #[must_use]
    pub fn render(&self, now: &Present) -> String {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.keys.set(gauge(now.keys));
        self.roles.set(gauge(now.roles));
        self.ready.set(i64::from(now.ready));
        self.clock_skew
            .set(now.clock_skew.map_or(0.0, |skew| skew.as_secs_f64()));
        for (watched, age) in [Watched::ApiKeys, Watched::Roles].into_iter().zip(now.ages) {
            self.ages
                .get_or_create(&labels(watched))
                .set(age.map_or(-1.0, |age| age.as_secs_f64()));
        }
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            // Writing into a String fails only where an encoder is wrong; say so instead of serving half a page.
            text.clear();
            let _ = writeln!(text, "# the metrics could not be encoded");
        }
        text
    }

    fn of(&self, protocol: Protocol) -> Option<&OfProtocol> {
        self.protocols
            .get(Protocol::ALL.iter().position(|other| *other == protocol)?)
    }
}

fn labels(watched: Watched) -> WatchLabels {
    WatchLabels {
        resource: watched.as_str(),
    }
}
