//! Where every protocol asks: the index of now, the clock, and what is counted and written down of each answer.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use super::answer::Unable;
use super::decide::{Ask, Needs, Shown, Verdict, decide};
use super::freshness::Freshness;
use super::index::{Holder, Index};
use super::metrics::{Metrics, Protocol};
use super::quote::quotable;
use super::route::Routes;

/// Which verdicts are written into the log. A line names the key's ID, never the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AccessLog {
    /// None.
    Off,
    /// Refusals.
    Refused,
    /// All.
    All,
}

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
    /// May the key that is shown do what is needed?
    ///
    /// # Errors
    /// [`Unable`] where the gate does not know enough to say.
    pub fn ask(
        &self,
        protocol: Protocol,
        shown: Shown<'_>,
        needs: Needs<'_>,
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
        match self.access_log {
            AccessLog::Off => {}
            AccessLog::Refused if verdict.is_valid() => {}
            AccessLog::Refused | AccessLog::All => write_down(protocol, &verdict, &needs),
        }
        Ok(verdict)
    }
}

/// The clock of this machine.
#[must_use]
pub fn wall_clock() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A service that mistakes one field for another asks for an audience that is a key. Those of routes were written by who runs the proxy.
fn told_audience<'a>(protocol: Protocol, verdict: &Verdict, audience: &'a str) -> &'a str {
    if protocol == Protocol::Verify && !verdict.is_valid() {
        quotable(audience)
    } else {
        audience
    }
}

fn write_down(protocol: Protocol, verdict: &Verdict, needs: &Needs<'_>) {
    let audience = needs
        .audience
        .map_or("-", |audience| told_audience(protocol, verdict, audience));
    let (protocol, code) = (protocol.as_str(), verdict.code.as_str());
    if let Some(holder) = &verdict.holder {
        tracing::info!(
            target: "claviger::access",
            protocol,
            code,
            audience,
            key_id = holder.entry().key_id().as_str(),
            namespace = holder.entry().profile().namespace(),
            name = holder.entry().name(),
            version = holder.version().number(),
        );
    } else {
        tracing::info!(target: "claviger::access", protocol, code, audience);
    }
}
