//! Last uses on their way into the ApiKeys' status: which are worth a write, in which order, and how fast. Pure: `now` is an argument.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use kube::ResourceExt;
use tokio::time::Instant;

use crate::api::{ApiKey, GRANULARITY, KeyUse};

/// How far a gate's clock may be ahead of ours, in seconds.
pub(super) const TOLERANCE: i64 = 60;
/// The time between two writes: five a second at most, or 18,000 keys an hour, for all gates together.
pub(super) const SPACING: Duration = Duration::from_millis(200);
/// The longest pause after writes that failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long our own write is trusted while the watch has not shown it.
const UNSEEN: Duration = Duration::from_secs(30);

/// Above so many gates, those with no advance are forgotten.
const MANY_GATES: usize = 100;

/// Uses that wait for their write, and those that were written and not shown yet.
#[derive(Debug, Default)]
pub(super) struct Folding {
    /// By UID. Only uses of ApiKeys that exist come here, so they bound it.
    waiting: HashMap<String, Waiting>,
    /// The order: gates take turns, and those of one gate are in the order in which they were told. No time that a gate tells counts
    /// here: one that makes them up would come first for ever.
    order: BTreeSet<(u64, String)>,
    /// The turn of the last write that ended.
    turn: u64,
    /// By gate: the turn of what it told last.
    turns: HashMap<String, u64>,
    /// By UID: what was written, and when.
    written: HashMap<String, (i64, Instant)>,
    next: Option<Instant>,
    failures: u32,
}

#[derive(Debug)]
struct Waiting {
    namespace: String,
    name: String,
    turn: u64,
    latest: i64,
}

/// A write to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    /// Where the ApiKey is.
    pub(super) namespace: String,
    /// Its name.
    pub(super) name: String,
    /// Its UID, as precondition.
    pub(super) uid: String,
    /// When it was used last, in seconds since 1970.
    pub(super) used_at: i64,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was carried out.
    Done,
    /// The ApiKey is gone, is another, or says something later: nothing is to be written.
    Moot,
    /// It may go better later.
    Failed,
}

impl Folding {
    /// A gate tells a use; `apikey` is what has its namespace and name, and `clock` ours in seconds since 1970. Returns whether the use
    /// waits for a write from now on: not where it is no news, cannot be, or is of another ApiKey.
    pub(super) fn told(
        &mut self,
        gate: &str,
        used: &KeyUse,
        apikey: Option<&ApiKey>,
        clock: i64,
        now: Instant,
    ) -> bool {
        let used_at = used.used_at.0.as_second();
        let Some(apikey) =
            apikey.filter(|apikey| apikey.metadata.uid.as_deref() == Some(&used.uid))
        else {
            return false;
        };
        if apikey.metadata.deletion_timestamp.is_some() || used_at > clock.saturating_add(TOLERANCE)
        {
            return false;
        }
        // No key is used before there is one.
        if begun(apikey).is_some_and(|begun| used_at < begun.saturating_sub(TOLERANCE)) {
            return false;
        }
        if !is_news(
            used_at,
            last_used(apikey).max(self.written_of(&used.uid, now)),
        ) {
            return false;
        }
        if let Some(waiting) = self.waiting.get_mut(&used.uid) {
            waiting.latest = waiting.latest.max(used_at);
        } else {
            let (namespace, name) = (apikey.namespace().unwrap_or_default(), apikey.name_any());
            let turn = self.next_turn(gate);
            self.order.insert((turn, used.uid.clone()));
            self.waiting.insert(
                used.uid.clone(),
                Waiting {
                    namespace,
                    name,
                    turn,
                    latest: used_at,
                },
            );
        }
        true
    }

    /// The watch has shown an ApiKey.
    pub(super) fn seen(&mut self, apikey: &ApiKey) {
        let Some(uid) = apikey.metadata.uid.as_deref() else {
            return;
        };
        let last = last_used(apikey);
        if self
            .written
            .get(uid)
            .is_some_and(|(written, _)| last >= Some(*written))
        {
            self.written.remove(uid);
        }
        if self
            .waiting
            .get(uid)
            .is_some_and(|waiting| !is_news(waiting.latest, last))
        {
            self.forget(uid);
        }
    }

    /// The watch has shown that an ApiKey is gone.
    pub(super) fn gone(&mut self, uid: &str) {
        self.written.remove(uid);
        self.forget(uid);
    }

    /// What to write `now`, or when to ask again; `None` where nothing waits.
    pub(super) fn next(&mut self, now: Instant) -> Option<Result<Write, Instant>> {
        let (_, uid) = self.order.first()?;
        if let Some(next) = self.next.filter(|next| *next > now) {
            return Some(Err(next));
        }
        let waiting = self.waiting.get(uid)?;
        self.next = Some(now + SPACING);
        let Waiting {
            namespace,
            name,
            latest,
            ..
        } = waiting;
        Some(Ok(Write {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: uid.clone(),
            used_at: *latest,
        }))
    }

    /// A write has ended.
    pub(super) fn ended(&mut self, write: &Write, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Done => {
                self.failures = 0;
                self.written
                    .retain(|_, (_, when)| now.saturating_duration_since(*when) < UNSEEN);
                self.written.insert(write.uid.clone(), (write.used_at, now));
                self.had_turn(&write.uid);
            }
            Outcome::Moot => {
                self.failures = 0;
                self.had_turn(&write.uid);
            }
            Outcome::Failed => {
                let pause = Duration::from_secs(1)
                    .saturating_mul(2_u32.saturating_pow(self.failures.min(20)));
                self.failures = self.failures.saturating_add(1);
                self.next = Some(now + pause.min(LONGEST_PAUSE));
                // The others have their turn before it is tried again.
                let last = self.order.last().map_or(self.turn, |(turn, _)| *turn);
                if let Some(waiting) = self.waiting.get_mut(&write.uid) {
                    self.order.remove(&(waiting.turn, write.uid.clone()));
                    waiting.turn = last.saturating_add(1);
                    self.order.insert((waiting.turn, write.uid.clone()));
                }
            }
        }
    }

    fn forget(&mut self, uid: &str) {
        if let Some(waiting) = self.waiting.remove(uid) {
            self.order.remove(&(waiting.turn, uid.to_owned()));
        }
    }

    fn next_turn(&mut self, gate: &str) -> u64 {
        let turn = self
            .turns
            .get(gate)
            .copied()
            .unwrap_or(0)
            .max(self.turn)
            .saturating_add(1);
        if self.turns.len() >= MANY_GATES {
            self.turns.retain(|_, last| *last > self.turn);
        }
        self.turns.insert(gate.to_owned(), turn);
        turn
    }

    /// What waits has had its turn.
    fn had_turn(&mut self, uid: &str) {
        if let Some(waiting) = self.waiting.get(uid) {
            self.turn = self.turn.max(waiting.turn);
        }
        self.forget(uid);
    }

    fn written_of(&self, uid: &str, now: Instant) -> Option<i64> {
        let (written, when) = self.written.get(uid)?;
        (now.saturating_duration_since(*when) < UNSEEN).then_some(*written)
    }
}

/// Since when there is a key, in seconds since 1970; where nobody says, since when there is an ApiKey.
fn begun(apikey: &ApiKey) -> Option<i64> {
    let issued = apikey
        .status
        .as_ref()
        .and_then(|status| status.issued_at.as_ref());
    issued
        .or(apikey.metadata.creation_timestamp.as_ref())
        .map(|time| time.0.as_second())
}

/// What the status says, in seconds since 1970.
fn last_used(apikey: &ApiKey) -> Option<i64> {
    Some(apikey.status.as_ref()?.last_used_at.as_ref()?.0.as_second())
}

/// Whether a use is worth a write where `last` is known.
fn is_news(used_at: i64, last: Option<i64>) -> bool {
    last.is_none_or(|last| used_at.saturating_sub(last) >= GRANULARITY)
}

#[cfg(test)]
mod tests;
