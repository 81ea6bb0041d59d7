//! A cluster with one `ApiKey` and room for the Secret of its name, and a controller that does what plans say.
//!
//! The controller looks and acts as the real one does. The API server is perfect, but its answers can get lost, and it may
//! have reasons to refuse a Secret. Whatever it would refuse because of the resource's own rules fails the test at once.

mod minting;
mod people;
mod promises;

use minting::mint;
use promises::admit;

use super::*;
use crate::api::names::{FINALIZER, LABEL_APIKEY};
use crate::api::{ApiKey, Phase, VersionPhase, whole_second};

/// What a person can ask of an `ApiKey` later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Another template.
    Template(&'static str),
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
    /// A create that is carried out later; other writes were not carried out.
    Late,
}

/// A write had no answer: the reconciliation ends here, and another one follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interrupted;

/// The cluster and the controller.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// What the controller sees. The `ApiKey` in it is always as stored.
    pub(super) world: World,
    /// The Secret, as stored.
    pub(super) there: Option<SecretFacts>,
    /// A finalizer of somebody else's is on the Secret.
    pub(super) held_by_others: bool,
    /// Why the API server would refuse a Secret.
    pub(super) refuses: Option<&'static str>,
    /// What becomes of the answer to a write, and how many writes go well before.
    pub(super) fault: Option<(u8, Fault)>,
    /// A create that may still be carried out.
    pub(super) flying: Option<SecretFacts>,
    /// By how much the controller's clock is ahead.
    pub(super) ahead: SignedDuration,
    /// The `ApiKey` is no more.
    pub(super) gone: bool,
    /// Events, in order.
    pub(super) told: Vec<News>,
    time: Timestamp,
    made: u32,
    held: Option<(i64, Hash, bool)>,
    stood: Option<(Vec<String>, bool)>,
    refused: Option<Refusal>,
    delivered: Option<String>,
    ended: Option<Phase>,
}

impl Model {
    pub(super) fn new(spec: ApiKeySpec, time: Timestamp) -> Self {
        let mut apikey = ApiKey::new("billing", spec);
        apikey.metadata.namespace = Some("team-a".to_owned());
        apikey.metadata.uid = Some("apikey-1".to_owned());
        apikey.metadata.generation = Some(1);
        let rules = Rules { finalizer: true, principal_domain: "keys.example.com".to_owned() };
        let world = World {
            apikey: apikey.into(),
            secret: SecretView::Unknown,
            outstanding: Outstanding::Settled,
            delivery: Delivery::Untried,
            clock: Clock::Agrees,
            may_mend: true,
            rules: rules.into(),
        };
        Self::of(world, time)
    }

    /// A cluster as `world` shows it, right or wrong.
    pub(super) fn of(world: World, time: Timestamp) -> Self {
        let there = if let SecretView::Present(secret) = &world.secret { Some(secret.clone()) } else { None };
        let held = match (world.outstanding, world.status().newest_announced()) {
            (Outstanding::Held { version, ambiguous }, Some(listed)) => Some((version, listed.hash.parse().unwrap(), ambiguous)),
            _ => None,
        };
        let refused = if let Delivery::Refused(refusal) = &world.delivery { Some(refusal.clone()) } else { None };
        let ahead = if let Clock::AheadBy(ahead) = world.clock { ahead } else { SignedDuration::ZERO };
        Self {
            there,
            held_by_others: false,
            refuses: None,
            fault: None,
            flying: None,
            ahead,
            gone: false,
            told: Vec::new(),
            time: time - ahead,
            made: 0,
            held,
            stood: None,
            refused,
            delivered: world.status().current().map(|current| current.hash.clone()),
            ended: None,
            world,
        }
    }

    /// The moment, by the controller's clock.
    pub(super) fn now(&self) -> Timestamp {
        whole_second(self.time + self.ahead)
    }

    /// Looks at the world anew.
    pub(super) fn look(&mut self) {
        let status = self.world.status();
        self.drop_lost_key(&status);
        self.world.outstanding = self.outstanding();
        let matters = match (&status.key_id, &status.expires_at) {
            _ if status.is_final() => false,
            (None, _) => self.world.apikey.spec.expiry.is_some(),
            (Some(_), Some(end)) => end.0 <= self.now(),
            (Some(_), None) => false,
        };
        self.world.clock = if matters { Clock::judge(self.ahead) } else { Clock::Agrees };
        let watched =
            self.there.as_ref().is_some_and(|secret| secret.labels.get(LABEL_APIKEY).is_some_and(|name| name == "billing"));
        let worth_a_read = match self.world.outstanding {
            _ if status.current().is_some() => true,
            _ if self.world.apikey.is_deleting() => status.key_id.is_some() || watched,
            _ if status.versions.is_empty() || status.is_final() => false,
            Outstanding::Held { .. } => false,
            Outstanding::Unsettled => watched,
            Outstanding::Settled => true,
        };
        self.world.secret = if worth_a_read { self.read() } else { SecretView::Unknown };
        self.world.delivery = self.refused.clone().map_or(Delivery::Untried, Delivery::Refused);
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
                assert!(!self.world.apikey.is_deleting(), "the API server takes no new finalizers during deletion");
                self.finalizers(|all| all.push(FINALIZER.to_owned()))
            }
            Step::RemoveFinalizer => {
                assert!(self.world.apikey.is_deleting());
                assert!(!self.there.as_ref().is_some_and(|secret| self.is_ours(secret)), "the Secret goes before the finalizer");
                let lost = self.flying.as_ref().filter(|flying| self.delivered != flying.key.map(|hash| hash.to_string()));
                assert_eq!(lost, None, "and cannot come into being afterwards");
                self.finalizers(|all| all.retain(|name| name != FINALIZER))
            }
            Step::AskDelivery => {
                if let Some(reason) = self.refuses.filter(|_| self.there.is_none()) {
                    self.refuse(reason);
                } else if self.there.is_some() {
                    self.taken();
                } else {
                    self.world.delivery = Delivery::Possible;
                }
                Ok(())
            }
            Step::Announce(announcement) => self.announce(&announcement),
            Step::Deliver { version } => self.deliver(version),
            Step::WriteStatus(status) => self.write_status(&status),
            Step::MendSecret(mending) => self.mend(*mending),
            Step::DeleteSecret { uid } => self.delete_secret(&uid),
        }
    }

    fn announce(&mut self, announcement: &Announcement) -> Result<(), Interrupted> {
        assert!(self.world.status().current().is_none(), "no other value once one was delivered");
        assert!(self.delivered.is_none(), "no other value once one was delivered");
        self.made += 1;
        let key = mint(self.made);
        let id = announcement.needs_key_id().then(|| format!("{:032x}", self.made));
        let version = announcement.version;
        let written = self.write_status(&announcement.status(key.hash(), &key.tail(), id));
        self.held = Some((version, key.hash(), false));
        written?;
        self.world.outstanding = Outstanding::Held { version, ambiguous: false };
        Ok(())
    }

    fn deliver(&mut self, version: i64) -> Result<(), Interrupted> {
        let (held, hash, earlier) = self.held.expect("only a held key can be delivered");
        assert_eq!(held, version);
        assert!(self.world.status().version_of(hash).is_some(), "gates know a key before it is delivered");
        assert!(self.world.status().current().is_none(), "no other value once one was delivered");
        let finalizers = self.world.apikey.metadata.finalizers.iter().flatten();
        assert!(!self.world.rules.finalizer || finalizers.into_iter().any(|name| name == FINALIZER), "the finalizer comes first");
        self.held = Some((held, hash, true));
        let created = self.create(hash);
        match self.fails() {
            Some(Fault::RequestLost) => return Err(Interrupted),
            Some(Fault::Late) => {
                self.flying = Some(created);
                return Err(Interrupted);
            }
            lost if self.there.is_none() && self.refuses.is_none() => {
                self.there = Some(created.clone());
                self.held_by_others = false;
                if lost.is_some() {
                    return Err(Interrupted);
                }
                self.world.secret = SecretView::Present(created);
                return Ok(());
            }
            Some(_) => return Err(Interrupted),
            None => {}
        }
        self.held = Some((held, hash, earlier));
        self.world.outstanding = Outstanding::Held { version, ambiguous: earlier };
        if self.there.is_some() {
            self.taken();
        } else {
            self.refuse(self.refuses.unwrap());
        }
        Ok(())
    }

    fn write_status(&mut self, status: &ApiKeyStatus) -> Result<(), Interrupted> {
        let before = self.world.apikey.status.clone();
        admit(before.as_ref(), status);
        let newly_expired = status.expired_at.is_some() && before.as_ref().is_none_or(|before| before.expired_at.is_none());
        assert!(!newly_expired || self.world.clock == Clock::Agrees, "a wrong clock expires nothing");
        let fault = self.fails();
        if fault.is_none_or(|fault| fault == Fault::AnswerLost) {
            self.apikey().status = Some(status.clone());
        }
        if fault.is_some() {
            return Err(Interrupted);
        }
        self.told.extend(news(&self.world.apikey, before.as_ref(), status));
        self.drop_lost_key(status);
        if status.current().is_some() || status.is_final() || status.newest_announced().is_none() {
            self.stood = None;
        }
        self.world.outstanding = self.outstanding();
        Ok(())
    }

    fn mend(&mut self, mending: Mending) -> Result<(), Interrupted> {
        let mut secret = self.there.clone().expect("only what is there can be mended");
        assert!(self.is_ours(&secret) && secret.uid == mending.uid, "a Secret that is not ours is never touched");
        assert!(!secret.immutable || mending.data.is_none(), "the API server keeps what is immutable");
        if self.fails().is_some_and(|fault| fault != Fault::AnswerLost) {
            return Err(Interrupted);
        }
        let patch = |map: &mut std::collections::BTreeMap<String, String>, changes| {
            for (name, value) in changes {
                match value {
                    Some(value) => map.insert(name, value),
                    None => map.remove(&name),
                };
            }
        };
        patch(&mut secret.labels, mending.labels);
        patch(&mut secret.annotations, mending.annotations);
        secret.owner_references = mending.owner_references.unwrap_or(secret.owner_references);
        let applied = applied_template(&secret.annotations);
        let anew = mending.data.is_some();
        secret.edited_entries.retain(|name| !anew && applied.data.contains_key(name));
        secret.resource_version = self.next("");
        self.there = Some(secret.clone());
        self.world.secret = SecretView::Present(secret);
        Ok(())
    }

    fn delete_secret(&mut self, uid: &str) -> Result<(), Interrupted> {
        let secret = self.there.as_ref().expect("only what is there can be deleted");
        assert!(self.is_ours(secret) && secret.uid == uid, "a Secret that is not ours is never deleted");
        assert!(self.world.apikey.is_deleting(), "and one of ours only with its ApiKey");
        let fault = self.fails();
        if fault.is_some_and(|fault| fault != Fault::AnswerLost) {
            return Err(Interrupted);
        }
        self.there = self.there.take().filter(|_| self.held_by_others);
        if let Some(secret) = &mut self.there {
            secret.deleting = true;
        }
        if fault.is_some() {
            return Err(Interrupted);
        }
        self.world.secret = self.read();
        Ok(())
    }

    /// Whether this write has no answer.
    fn fails(&mut self) -> Option<Fault> {
        let (before, fault) = self.fault.take()?;
        if before == 0 {
            return Some(fault);
        }
        self.fault = Some((before - 1, fault));
        None
    }

    /// The name of the Secret is taken: by whom?
    fn taken(&mut self) {
        let secret = self.there.clone().unwrap();
        if secret.key.is_some_and(|hash| self.world.status().version_of(hash).is_some()) {
            self.world.secret = SecretView::Present(secret);
        } else {
            let refusal = Refusal::conflict(&self.world.apikey, &secret);
            self.refused = Some(refusal.clone());
            self.world.delivery = Delivery::Refused(refusal);
        }
    }

    fn refuse(&mut self, reason: &'static str) {
        let refusal = Refusal { reason, message: "the API server refuses the Secret".to_owned() };
        self.refused = Some(refusal.clone());
        self.world.delivery = Delivery::Refused(refusal);
    }

    /// Wipes a held key that can no longer be delivered.
    fn drop_lost_key(&mut self, status: &ApiKeyStatus) {
        let stands = |listed: &crate::api::Version| {
            self.held.is_some_and(|(version, hash, _)| listed.version == version && listed.hash == hash.to_string())
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
        let announced = status.versions.iter().filter(|version| version.phase == VersionPhase::Announced);
        let announced: Vec<_> = announced.map(|version| version.hash.clone()).collect();
        if announced.is_empty() {
            self.stood = None;
            return Outstanding::Settled;
        }
        let long = self.stood.take().is_some_and(|(seen, long)| seen == announced && long);
        self.stood = Some((announced, long));
        if long { Outstanding::Settled } else { Outstanding::Unsettled }
    }

    fn read(&self) -> SecretView {
        self.there.clone().map_or(SecretView::Absent, SecretView::Present)
    }

    fn finalizers(&mut self, change: impl FnOnce(&mut Vec<String>)) -> Result<(), Interrupted> {
        let fault = self.fails();
        if fault.is_some_and(|fault| fault != Fault::AnswerLost) {
            return Err(Interrupted);
        }
        let finalizers = self.apikey().metadata.finalizers.get_or_insert_default();
        change(finalizers);
        let left = finalizers.len();
        self.gone |= left == 0 && self.world.apikey.is_deleting();
        fault.map_or(Ok(()), |_| Err(Interrupted))
    }

    fn create(&mut self, hash: Hash) -> SecretFacts {
        let shape = shape(&self.world.apikey, &self.world.status());
        SecretFacts {
            uid: self.next("secret-"),
            resource_version: self.next(""),
            deleting: false,
            immutable: false,
            key: Some(hash),
            edited_entries: Vec::new(),
            labels: shape.labels,
            annotations: shape.annotations,
            owner_references: shape.owner.into_iter().collect(),
        }
    }

    fn next(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what}{}", self.made)
    }
}
