//! A cluster with one `ApiKey` and room for the Secret of its name, and a controller that does what plans say.
//!
//! The controller looks and acts as the real one does. The API server is perfect, but its answers can get lost, and it may
//! have reasons to refuse a Secret. Whatever it would refuse because of the resource's own rules fails the test at once.

mod minting;
mod people;
mod promises;
mod writes;

use std::collections::BTreeSet;

use minting::mint;
use promises::admit;
pub(super) use promises::overlapping;

use super::*;
use crate::api::names::{ANNOTATION_ENDED_AT, ANNOTATION_EXPIRES_AT, FINALIZER, LABEL_APIKEY};
use crate::api::{ApiKey, Phase, Retention, VersionPhase, whole_second};

/// What a person can ask of an `ApiKey` later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Another template.
    Template(&'static str),
    /// The next version, now.
    Raise,
    /// Another interval and overlap.
    Rotate(Option<&'static str>, Option<&'static str>),
    /// Another retention.
    Retain(Retention),
    /// To take over the Secret that has the name.
    Adopt,
    /// The end.
    Revoke,
    /// `kubectl delete`.
    Delete,
}

/// What becomes of a write whose answer never arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It was carried out.
    AnswerLost,
    /// It was not.
    RequestLost,
    /// A delivery that is carried out later; other writes were not carried out.
    Late,
}

/// A write had no answer: the reconciliation ends here, and another one follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interrupted;

/// A delivery that may still be carried out.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    /// The Secret as it would be.
    secret: SecretFacts,
    /// The resourceVersion that it replaces; `None` for a create.
    replaces: Option<String>,
}

/// The cluster and the controller.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// What the controller sees. The `ApiKey` in it is always as stored.
    pub(super) world: World,
    /// The Secret, as stored.
    pub(super) there: Option<SecretFacts>,
    /// The hash of the key in the other Secret that `spec.source` names.
    pub(super) elsewhere: Option<Hash>,
    /// The key ID of another `ApiKey` that has the same key.
    pub(super) twin: Option<String>,
    /// A copy of the Secret that somebody kept.
    pub(super) copy: Option<SecretFacts>,
    /// A finalizer of somebody else's is on the Secret.
    pub(super) held_by_others: bool,
    /// Why the API server would refuse a Secret.
    pub(super) refuses: Option<&'static str>,
    /// What becomes of the answer to a write, and how many writes go well before.
    pub(super) fault: Option<(u8, Fault)>,
    /// Deliveries that may still be carried out.
    pub(super) flying: Vec<Flight>,
    /// By how much the controller's clock is ahead.
    pub(super) ahead: SignedDuration,
    /// The `ApiKey` is no more.
    pub(super) gone: bool,
    /// Events, in order.
    pub(super) told: Vec<News>,
    /// Somebody else wrote the Secret after our last delivery.
    pub(super) tampered: bool,
    time: Timestamp,
    made: u32,
    held: Option<(i64, Hash, bool)>,
    stood: Option<(Vec<String>, bool)>,
    refused: Option<Refusal>,
    delivered: Option<String>,
    given: BTreeSet<String>,
    highest: i64,
    acted: Option<i64>,
    ended: Option<Phase>,
}

impl Model {
    pub(super) fn new(spec: ApiKeySpec, time: Timestamp) -> Self {
        let mut apikey = ApiKey::new("billing", spec);
        apikey.metadata.namespace = Some("team-a".to_owned());
        apikey.metadata.uid = Some("apikey-1".to_owned());
        apikey.metadata.generation = Some(1);
        let rules = Rules {
            finalizer: true,
            principal_domain: "keys.example.com".to_owned(),
            hold_minting: false,
        };
        let world = World {
            apikey: apikey.into(),
            secret: SecretView::Unknown,
            outstanding: Outstanding::Settled,
            delivery: Delivery::Untried,
            gates: GateView::Ready,
            clock: Clock::Agrees,
            may_mend: true,
            surroundings: Surroundings::default(),
            source: SourceView::NotAsked,
            duplicate: None,
            since: time,
            rules: rules.into(),
        };
        Self::of(world, time)
    }

    /// A cluster as `world` shows it, right or wrong.
    pub(super) fn of(world: World, time: Timestamp) -> Self {
        let there = if let SecretView::Present(secret) = &world.secret {
            Some(secret.clone())
        } else {
            None
        };
        let status = world.status();
        let held = match (world.outstanding, status.newest_announced()) {
            (Outstanding::Held { version, ambiguous }, Some(listed)) => {
                Some((version, listed.hash.parse().unwrap(), ambiguous))
            }
            _ => None,
        };
        let refused = if let Delivery::Refused(refusal) = &world.delivery {
            Some(refusal.clone())
        } else {
            None
        };
        let ahead = if let Clock::AheadBy(ahead) = world.clock {
            ahead
        } else {
            SignedDuration::ZERO
        };
        let delivered = status
            .versions
            .iter()
            .filter(|version| version.phase != VersionPhase::Announced);
        Self {
            there,
            elsewhere: None,
            twin: world.duplicate.clone(),
            copy: None,
            held_by_others: false,
            refuses: None,
            fault: None,
            flying: Vec::new(),
            ahead,
            gone: false,
            told: Vec::new(),
            tampered: true,
            time: time - ahead,
            made: 0,
            held,
            stood: None,
            refused,
            delivered: status.current().map(|current| current.hash.clone()),
            given: delivered
                .clone()
                .map(|version| version.hash.clone())
                .collect(),
            highest: delivered.map(|version| version.version).max().unwrap_or(0),
            acted: status.revision,
            ended: None,
            world,
        }
    }

    /// The moment, by the controller's clock.
    pub(super) fn now(&self) -> Timestamp {
        whole_second(self.time + self.ahead)
    }

    /// The moment, by the API server's clock.
    pub(super) fn true_time(&self) -> Timestamp {
        whole_second(self.time)
    }

    /// Looks at the world anew.
    pub(super) fn look(&mut self) {
        self.world.clock = if clock_matters(&self.world.apikey, self.now()) {
            Clock::judge(self.ahead)
        } else {
            Clock::Agrees
        };
        let status = self.world.status();
        self.drop_lost_key(&status);
        self.world.source = self.source();
        self.world.outstanding = self.outstanding();
        let watched = self.there.as_ref().is_some_and(|secret| {
            secret
                .labels
                .get(LABEL_APIKEY)
                .is_some_and(|name| name == "billing")
        });
        let adopting =
            self.world.source != SourceView::NotAsked && self.world.apikey.spec.source.is_none();
        let worth_a_read = needs_secret(&self.world.apikey, self.world.outstanding, watched);
        self.world.secret = match self.read() {
            present @ SecretView::Present(_) if adopting => present,
            read if worth_a_read => read,
            _ => SecretView::Unknown,
        };
        self.world.delivery = self
            .refused
            .clone()
            .map_or(Delivery::Untried, Delivery::Refused);
        self.world.duplicate = self
            .twin
            .clone()
            .filter(|_| needs_duplicates(&self.world.apikey));
    }

    /// The key that is to be taken over. One that stands announced is held again, be it after a restart.
    fn source(&mut self) -> SourceView {
        let found = |hash, place, ends| {
            SourceView::Found(FoundKey {
                hash,
                tail: "tail00".to_owned(),
                place,
                ends,
            })
        };
        let unfit = |reason| {
            SourceView::Unfit(Unfit {
                reason,
                message: "what is wrong".to_owned(),
            })
        };
        if !needs_source(&self.world.apikey) {
            return SourceView::NotAsked;
        }
        let Some(source) = &self.world.apikey.spec.source else {
            return self.adoptable();
        };
        if let Some(hash) = &source.hash {
            return found(hash.parse().unwrap(), FoundIn::Elsewhere, None);
        }
        if let Some((_, hash, _)) = self.held {
            return found(hash, FoundIn::Source, None);
        }
        let Some(hash) = self.elsewhere else {
            return unfit(reason::SOURCE_MISSING);
        };
        let status = self.world.status();
        if let Some(announced) = status
            .newest_announced()
            .filter(|announced| announced.hash == hash.to_string())
        {
            self.held = Some((announced.version, hash, true));
        }
        found(hash, FoundIn::Source, None)
    }

    fn adoptable(&self) -> SourceView {
        let unfit = || {
            SourceView::Unfit(Unfit {
                reason: reason::ADOPTION_REFUSED,
                message: "what is wrong".to_owned(),
            })
        };
        let Some(secret) = &self.there else {
            return unfit();
        };
        let foreign = secret
            .owner_references
            .iter()
            .any(|owner| owner.controller == Some(true) && owner.kind != "ApiKey");
        let ends = secret
            .annotations
            .get(ANNOTATION_EXPIRES_AT)
            .map(|text| at(text));
        match secret
            .key
            .filter(|_| !foreign && !secret.annotations.contains_key(ANNOTATION_ENDED_AT))
        {
            Some(hash) => SourceView::Found(FoundKey {
                hash,
                tail: "tail00".to_owned(),
                place: FoundIn::OwnSecret,
                ends,
            }),
            None => unfit(),
        }
    }

    /// Looks, plans and acts until nothing is left to do.
    pub(super) fn reconcile(&mut self) -> Result<(Wake, Option<Timestamp>), Interrupted> {
        self.look();
        self.finish()
    }

    /// Plans and acts until nothing is left to do, from what was seen last.
    pub(super) fn finish(&mut self) -> Result<(Wake, Option<Timestamp>), Interrupted> {
        let mut steps = Vec::new();
        while steps.len() < 16 {
            let step = plan(&self.world, self.now()).step;
            if let Step::Settled { wake, at } = step {
                if wake == Wake::OnEvent {
                    self.refused = None;
                }
                return Ok((wake, at));
            }
            steps.push(step.name());
            let done = self.apply(step);
            self.check();
            done?;
        }
        panic!("no end after 16 steps: {steps:?}");
    }

    pub(super) fn apply(&mut self, step: Step) -> Result<(), Interrupted> {
        match step {
            Step::Settled { .. } => Ok(()),
            Step::AddFinalizer => {
                assert!(
                    !self.world.apikey.is_deleting(),
                    "the API server takes no new finalizers during deletion"
                );
                self.finalizers(|all| all.push(FINALIZER.to_owned()))
            }
            Step::RemoveFinalizer => {
                assert!(self.world.apikey.is_deleting());
                assert!(
                    !self
                        .there
                        .as_ref()
                        .is_some_and(|secret| self.is_ours(secret)),
                    "the Secret goes before the finalizer"
                );
                let known = |flight: &Flight| {
                    flight
                        .secret
                        .key
                        .is_some_and(|hash| self.given.contains(&hash.to_string()))
                };
                let lost = self
                    .flying
                    .iter()
                    .any(|flight| flight.replaces.is_none() && !known(flight));
                assert!(!lost, "and cannot come into being afterwards");
                self.finalizers(|all| all.retain(|name| name != FINALIZER))
            }
            Step::AskDelivery => {
                self.ask();
                Ok(())
            }
            Step::Announce(announcement) => self.announce(&announcement),
            Step::Deliver { version } => self.deliver(version),
            Step::WriteStatus(status) => self.write_status(&status),
            Step::MendSecret(mending) => self.mend(*mending),
            Step::DeleteSecret { uid } => self.delete_secret(&uid),
        }
    }

    /// Wipes a held key that can no longer be delivered.
    fn drop_lost_key(&mut self, status: &ApiKeyStatus) {
        let stands = |listed: &crate::api::Version| {
            self.held.is_some_and(|(version, hash, _)| {
                listed.version == version && listed.hash == hash.to_string()
            })
        };
        let ambiguous = self.held.is_some_and(|(_, _, ambiguous)| ambiguous);
        // Nobody delivers for an ApiKey that has ended or is being deleted, so what is in the dark has to settle.
        let given_up = status.is_final() || self.world.apikey.is_deleting() && ambiguous;
        if given_up || !status.newest_announced().is_some_and(stands) {
            self.held = None;
            if ambiguous {
                self.stood = None;
            }
        }
    }

    fn outstanding(&mut self) -> Outstanding {
        if let Some((version, _, ambiguous)) = self.held {
            return Outstanding::Held { version, ambiguous };
        }
        let status = self.world.status();
        let announced = status
            .versions
            .iter()
            .filter(|version| version.phase == VersionPhase::Announced);
        let announced: Vec<_> = announced.map(|version| version.hash.clone()).collect();
        if announced.is_empty() {
            self.stood = None;
            return Outstanding::Settled;
        }
        let long = self
            .stood
            .take()
            .is_some_and(|(seen, long)| seen == announced && long);
        self.stood = Some((announced, long));
        if long {
            Outstanding::Settled
        } else {
            Outstanding::Unsettled
        }
    }

    fn read(&self) -> SecretView {
        self.there
            .clone()
            .map_or(SecretView::Absent, SecretView::Present)
    }

    fn next(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what}{}", self.made)
    }
}
