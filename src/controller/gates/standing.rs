//! How gates stand: current, behind, or silent. Pure: `now` is an argument, by our monotonic clock; no clock of a gate is looked at.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use kube::ResourceExt;
use kube::api::ObjectMeta;
use tokio::time::Instant;

use crate::api::conditions::reason;
use crate::api::{Gate, GateSpec, GateState, resource_version_number};
use crate::lifecycle::{News, Tone};

/// A gate whose object has not changed for longer is silent. Three heartbeats.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// A gate that has not reached what we saw so long ago is behind.
pub(super) const LAG: Duration = Duration::from_secs(10);
/// After an error of our own watch, nobody is called silent for so long and [`SILENCE`], or until it shows something: its pauses and
/// time-outs are no gate's fault.
const BLIND: Duration = Duration::from_secs(60);
/// No more gates are looked at: whoever may write one may write many.
const MAX_GATES: usize = 1_000;

/// How a gate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It reports, and knows what we know.
    Current,
    /// It reports, and does not know what we have known for a while, or answers nobody.
    Behind,
    /// It does not report.
    Silent,
}

/// Namespace and name.
type Name = (String, String);

/// All gates that the watch shows.
#[derive(Debug)]
pub(super) struct Gates {
    known: HashMap<Name, Known>,
    /// What we saw of ApiKeys, in all namespaces and in those that gates are limited to.
    everywhere: Marks,
    within: HashMap<String, Marks>,
    /// Nobody is taken to be silent for longer than from here.
    watching: Instant,
    /// The names of a list that is under way.
    listed: Option<HashSet<Name>>,
    /// A list has ended, or could not be had.
    looked: bool,
}

#[derive(Debug)]
struct Known {
    meta: ObjectMeta,
    changed: Instant,
    reached: u128,
    /// What it says of itself, and since when.
    state: (Option<GateState>, Instant),
    scope: Option<String>,
    standing: Standing,
}

/// What is to be told about a gate.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    /// The gate: its name and no more.
    pub(super) gate: Gate,
    /// What to tell.
    pub(super) news: News,
}

impl Gates {
    pub(super) fn new(now: Instant) -> Self {
        let everywhere = Marks::default();
        Self {
            known: HashMap::new(),
            everywhere,
            within: HashMap::new(),
            watching: now,
            listed: None,
            looked: false,
        }
    }

    /// The watch has shown a gate, changed or in a list; `false` where there are too many already.
    pub(super) fn shown(&mut self, gate: &Gate, now: Instant) -> bool {
        self.heard(now);
        let name = name_of(gate);
        if let Some(listed) = &mut self.listed {
            listed.insert(name.clone());
        }
        if self.known.len() >= MAX_GATES && !self.known.contains_key(&name) {
            return false;
        }
        let ObjectMeta {
            uid,
            resource_version,
            ..
        } = &gate.metadata;
        let before = self.known.get(&name).filter(|known| known.meta.uid == *uid);
        // A list shows again what was shown before.
        let changed = match before {
            Some(known) if known.meta.resource_version == *resource_version => known.changed,
            _ => now,
        };
        let standing = before.map_or(Standing::Current, |known| known.standing);
        let meta = ObjectMeta {
            name: gate.metadata.name.clone(),
            namespace: gate.metadata.namespace.clone(),
            uid: uid.clone(),
            resource_version: resource_version.clone(),
            ..ObjectMeta::default()
        };
        let reached = gate
            .spec
            .reached_resource_version
            .as_deref()
            .and_then(resource_version_number)
            .unwrap_or(0);
        let scope = gate.spec.namespace.clone();
        let state = match before {
            Some(known) if known.state.0 == gate.spec.state => known.state,
            _ => (gate.spec.state, now),
        };
        let moved = before.is_none_or(|known| known.scope != scope);
        if let Some(scope) = &scope {
            self.within.entry(scope.clone()).or_default();
        }
        self.known.insert(
            name,
            Known {
                meta,
                changed,
                reached,
                state,
                scope,
                standing,
            },
        );
        if moved {
            self.forget_scopes();
        }
        true
    }

    /// The watch has shown that a gate is gone.
    pub(super) fn gone(&mut self, gate: &Gate, now: Instant) {
        self.heard(now);
        self.known.remove(&name_of(gate));
        self.forget_scopes();
    }

    /// A list begins.
    pub(super) fn list_begins(&mut self, now: Instant) {
        self.heard(now);
        self.listed = Some(HashSet::new());
    }

    /// A list has ended: what is not in it is gone.
    pub(super) fn list_ends(&mut self, now: Instant) {
        self.heard(now);
        self.looked = true;
        if let Some(listed) = self.listed.take() {
            self.known.retain(|name, _| listed.contains(name));
            self.forget_scopes();
        }
    }

    /// Our own watch of gates has failed.
    pub(super) fn blinded(&mut self, now: Instant) {
        self.watching = now + BLIND;
        self.looked = true;
    }

    /// The watch has shown an event of an ApiKey, its deletion, too.
    pub(super) fn apikey(&mut self, namespace: &str, resource_version: &str, now: Instant) {
        let Some(number) = resource_version_number(resource_version) else {
            return;
        };
        self.everywhere.saw(number, now);
        if let Some(marks) = self.within.get_mut(namespace) {
            marks.saw(number, now);
        }
    }

    /// A list of ApiKeys begins: an API server that was restored may count from lower again.
    pub(super) fn apikeys_listed_anew(&mut self) {
        self.everywhere = Marks::default();
        self.within
            .values_mut()
            .for_each(|marks| *marks = Marks::default());
    }

    /// Whether all gates that know a namespace and are not known to be silent, or to answer nobody, have reached `version` there. Not before
    /// it was seen, or tried to see, which gates there are.
    /// Of gates that cannot be seen at the moment nothing is to be learnt.
    pub(super) fn have_reached(&self, namespace: &str, version: u128, now: Instant) -> bool {
        self.watching > now
            || self.looked
                && self.known.values().all(|known| {
                    known.is_silent(self.watching, now)
                        || known.state.0 == Some(GateState::Stale)
                        || known
                            .scope
                            .as_deref()
                            .is_some_and(|scope| scope != namespace)
                        || known.reached >= version
                })
    }

    /// How gates stand by `now`, and what has changed since this was last asked.
    pub(super) fn judge(&mut self, now: Instant) -> Vec<Change> {
        let everywhere = self.everywhere.before(now, LAG);
        let within: HashMap<&str, u128> = self
            .within
            .iter_mut()
            .map(|(scope, marks)| (scope.as_str(), marks.before(now, LAG)))
            .collect();
        let watching = self.watching;
        let mut changes = Vec::new();
        for known in self.known.values_mut() {
            let due = match &known.scope {
                Some(scope) => within.get(scope.as_str()).copied().unwrap_or(0),
                None => everywhere,
            };
            let standing = if known.is_silent(watching, now) {
                Standing::Silent
            } else if known.is_late(due) || known.idle(now).is_some() {
                Standing::Behind
            } else {
                Standing::Current
            };
            if standing != known.standing {
                known.standing = standing;
                changes.push(known.change(due, now, known.unheard(watching, now)));
            }
        }
        changes.sort_by(|one, other| one.gate.metadata.name.cmp(&other.gate.metadata.name));
        changes
    }

    /// How many are current, behind and silent.
    pub(super) fn counts(&self) -> [i64; 3] {
        [Standing::Current, Standing::Behind, Standing::Silent].map(|wanted| {
            let count = self
                .known
                .values()
                .filter(|known| known.standing == wanted)
                .count();
            i64::try_from(count).unwrap_or(i64::MAX)
        })
    }

    fn heard(&mut self, now: Instant) {
        if self.watching > now {
            // It can show again how gates stand; they have as long as ever to tell.
            self.watching = now;
        }
    }

    fn forget_scopes(&mut self) {
        let scopes: HashSet<_> = self
            .known
            .values()
            .filter_map(|known| known.scope.as_ref())
            .collect();
        self.within.retain(|scope, _| scopes.contains(scope));
    }
}

impl Known {
    /// For how long nothing was heard of it by who watches since then.
    fn unheard(&self, watching: Instant, now: Instant) -> Duration {
        now.saturating_duration_since(self.changed.max(watching))
    }

    /// Whether it does not report. One that did not before has to be heard of again.
    fn is_silent(&self, watching: Instant, now: Instant) -> bool {
        self.unheard(watching, now) > SILENCE
            || (self.standing == Standing::Silent && self.changed < watching)
    }

    /// Whether it answers, and does not know what it should. One that loads knows nothing yet, and answers nobody.
    fn is_late(&self, due: u128) -> bool {
        self.reached < due && self.state.0 != Some(GateState::Loading)
    }

    /// Why it answers nobody, where it says so. Loading takes its time.
    fn idle(&self, now: Instant) -> Option<&'static str> {
        match self.state {
            (Some(GateState::Stale), _) => {
                Some("Stale: it has not heard the API server for longer than --max-staleness")
            }
            (Some(GateState::Loading), since) if now.saturating_duration_since(since) > LAG => {
                Some("Loading: it could not list all ApiKeys and ApiKeyRoles yet")
            }
            _ => None,
        }
    }

    fn change(&self, due: u128, now: Instant, silent: Duration) -> Change {
        let reached = self.reached;
        let (tone, reason, note) = match self.standing {
            Standing::Current => (
                Tone::Normal,
                reason::GATE_CURRENT,
                format!("the gate reports, and has reached resourceVersion {reached}"),
            ),
            Standing::Behind => (
                Tone::Warning,
                reason::GATE_BEHIND,
                match self.idle(now) {
                    Some(why) => format!(
                        "the gate says that it is {why}, and answers nobody; its log and /readyz say why"
                    ),
                    None => format!(
                        "the gate has reached resourceVersion {reached} of ApiKeys, and {due} is more than {} s old: keys that were \
                         revoked since may still pass there",
                        LAG.as_secs()
                    ),
                },
            ),
            Standing::Silent => (
                Tone::Warning,
                reason::GATE_SILENT,
                format!(
                    "the gate has not reported for {} s; it had reached resourceVersion {reached} of ApiKeys: it has ended, or does \
                     not reach the API server, and keys that were revoked since may still pass there",
                    silent.as_secs()
                ),
            ),
        };
        let gate = Gate {
            metadata: self.meta.clone(),
            spec: GateSpec::default(),
        };
        Change {
            gate,
            news: News {
                tone,
                reason: reason.to_owned(),
                note,
            },
        }
    }
}

fn name_of(gate: &Gate) -> Name {
    (gate.namespace().unwrap_or_default(), gate.name_any())
}

/// Which resourceVersions were seen when.
#[derive(Debug, Default)]
struct Marks {
    /// The highest that is old enough.
    old: u128,
    /// The highest of each second since, by when that second began.
    recent: VecDeque<(Instant, u128)>,
}

impl Marks {
    fn saw(&mut self, number: u128, now: Instant) {
        match self.recent.back_mut() {
            Some((since, highest))
                if now.saturating_duration_since(*since) < Duration::from_secs(1) =>
            {
                *highest = number.max(*highest);
            }
            _ => self.recent.push_back((now, number)),
        }
        // Kept short also where nobody asks.
        let _ = self.before(now, LAG);
    }

    /// The highest that was seen more than `age` ago.
    fn before(&mut self, now: Instant, age: Duration) -> u128 {
        // What was seen last in a second was seen up to a second after it began.
        let age = age + Duration::from_secs(1);
        while let Some((_, number)) = self
            .recent
            .front()
            .filter(|(since, _)| now.saturating_duration_since(*since) > age)
        {
            self.old = self.old.max(*number);
            self.recent.pop_front();
        }
        self.old
    }
}

#[cfg(test)]
mod tests;
