//! What becomes of a write: what the API server stores, and what the controller learns of it.

use std::collections::BTreeMap;

use super::*;

impl Model {
    /// Asks with a dry run.
    pub(super) fn ask(&mut self) {
        let replaces = self
            .there
            .as_ref()
            .is_some_and(|secret| self.is_ours(secret));
        match self.refuses.filter(|_| replaces || self.there.is_none()) {
            Some(reason) => self.refuse(reason),
            None if !replaces && self.there.is_some() => self.taken(),
            None => self.world.delivery = Delivery::Possible,
        }
    }

    pub(super) fn announce(&mut self, announcement: &Announcement) -> Result<(), Interrupted> {
        let status = self.world.status();
        assert!(
            !self.world.rules.hold_minting,
            "nothing is minted while minting is held"
        );
        assert!(announcement.version > self.highest, "no number comes back");
        assert!(
            status.current().is_none() || self.is_rotation_asked_for(&status),
            "no other value unless somebody asked for one"
        );
        self.made += 1;
        let (hash, tail, held) = match &announcement.taken {
            None => {
                let key = mint(self.made);
                (key.hash(), key.tail().to_string(), true)
            }
            Some(taken) => (
                taken.hash,
                taken.tail.clone(),
                taken.place == FoundIn::Source,
            ),
        };
        assert!(
            announcement.taken.is_none() || status.current().is_none(),
            "a rotation mints"
        );
        let id = announcement
            .needs_key_id()
            .then(|| format!("{:032x}", self.made));
        let version = announcement.version;
        let written = self.write_status(&announcement.status(hash, &tail, id));
        if held {
            self.held = Some((version, hash, false));
        }
        written?;
        self.world.outstanding = self.outstanding();
        Ok(())
    }

    pub(super) fn deliver(&mut self, version: i64) -> Result<(), Interrupted> {
        let (held, hash, earlier) = self.held.expect("only a held key can be delivered");
        assert_eq!(held, version);
        assert!(
            self.world.status().announced_of(hash).is_some(),
            "gates know a key before it is delivered"
        );
        let finalizers = self.world.apikey.metadata.finalizers.iter().flatten();
        assert!(
            !self.world.rules.finalizer || finalizers.into_iter().any(|name| name == FINALIZER),
            "the finalizer comes first"
        );
        self.held = Some((held, hash, true));
        let seen = if let SecretView::Present(secret) = &self.world.secret {
            Some(secret.clone())
        } else {
            None
        };
        let flight = match seen.filter(|secret| self.world.owns(secret)) {
            Some(secret) => {
                let replaces = Some(secret.resource_version.clone());
                Flight {
                    secret: self.replaced(secret, hash),
                    replaces,
                }
            }
            None => Flight {
                secret: self.create(hash),
                replaces: None,
            },
        };
        let lost = match self.fails() {
            Some(Fault::RequestLost) => return Err(Interrupted),
            Some(Fault::Late) => {
                self.flying.push(flight);
                return Err(Interrupted);
            }
            lost => lost.is_some(),
        };
        let fits = self.fits(&flight);
        if fits
            && self.refuses.is_none()
            && !self.there.as_ref().is_some_and(|secret| secret.immutable)
        {
            self.world.secret = SecretView::Present(flight.secret.clone());
            self.land(flight.secret);
            return if lost { Err(Interrupted) } else { Ok(()) };
        }
        if lost {
            return Err(Interrupted);
        }
        self.held = Some((held, hash, earlier));
        if flight.replaces.is_some() && !fits {
            // It was changed or deleted by somebody since.
            return Err(Interrupted);
        }
        self.world.outstanding = Outstanding::Held {
            version,
            ambiguous: earlier,
        };
        let landed = self
            .there
            .as_ref()
            .and_then(|secret| secret.key)
            .is_some_and(|hash| earlier && self.world.status().announced_of(hash).is_some());
        if landed || !fits {
            self.taken();
        } else {
            self.refuse(self.refuses.unwrap_or(reason::DELIVERY_REFUSED));
        }
        Ok(())
    }

    /// Whether a delivery finds what it was sent for.
    pub(super) fn fits(&self, flight: &Flight) -> bool {
        self.there.as_ref().map(|secret| &secret.resource_version) == flight.replaces.as_ref()
    }

    /// A delivery is carried out.
    pub(super) fn land(&mut self, secret: SecretFacts) {
        if self
            .there
            .as_ref()
            .is_none_or(|there| there.uid != secret.uid)
        {
            self.held_by_others = false;
        }
        // One that arrives after another was delivered, and after somebody removed that, holds what was replaced.
        let phase = secret.key.and_then(|hash| {
            self.world
                .status()
                .version_of(hash)
                .map(|version| version.phase)
        });
        self.tampered = !matches!(phase, Some(VersionPhase::Announced | VersionPhase::Current));
        self.there = Some(secret);
    }

    fn replaced(&mut self, mut secret: SecretFacts, hash: Hash) -> SecretFacts {
        let mending = replacement(&self.world, &secret);
        patch(&mut secret, mending);
        secret.key = Some(hash);
        secret.resource_version = self.next("");
        secret
    }

    pub(super) fn create(&mut self, hash: Hash) -> SecretFacts {
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

    pub(super) fn write_status(&mut self, status: &ApiKeyStatus) -> Result<(), Interrupted> {
        let before = self.world.apikey.status.clone();
        admit(before.as_ref(), status);
        self.admit_times(before.as_ref(), status);
        let fault = self.fails();
        if fault.is_none_or(|fault| fault == Fault::AnswerLost) {
            self.apikey().status = Some(status.clone());
        }
        if fault.is_some() {
            return Err(Interrupted);
        }
        self.told
            .extend(news(&self.world.apikey, before.as_ref(), status));
        self.drop_lost_key(status);
        self.world.outstanding = self.outstanding();
        Ok(())
    }

    pub(super) fn mend(&mut self, mending: Mending) -> Result<(), Interrupted> {
        let mut secret = self
            .there
            .clone()
            .expect("only what is there can be mended");
        assert!(
            self.is_ours(&secret) && secret.uid == mending.uid,
            "a Secret that is not ours is never touched"
        );
        assert!(
            !secret.immutable || mending.data.is_none(),
            "the API server keeps what is immutable"
        );
        let current = self
            .world
            .status()
            .current()
            .map(|current| current.hash.clone());
        let held = secret.key.map(|hash| hash.to_string());
        assert!(
            mending.data.is_none() || held == current,
            "entries are expanded from the key that is there"
        );
        if self.fails().is_some_and(|fault| fault != Fault::AnswerLost) {
            return Err(Interrupted);
        }
        patch(&mut secret, mending);
        secret.resource_version = self.next("");
        self.there = Some(secret.clone());
        self.world.secret = SecretView::Present(secret);
        Ok(())
    }

    pub(super) fn delete_secret(&mut self, uid: &str) -> Result<(), Interrupted> {
        let secret = self
            .there
            .as_ref()
            .expect("only what is there can be deleted");
        assert!(
            self.is_ours(secret) && secret.uid == uid,
            "a Secret that is not ours is never deleted"
        );
        let status = self.world.status();
        let shown = status.current().is_some_and(|current| {
            current.collected_at.is_some() || current.discarded_at.is_some()
        });
        let allowed = match self.world.apikey.retention() {
            Retention::Always => false,
            Retention::WhileActive => status.is_final(),
            Retention::UntilCollected => status.is_final() || shown,
        };
        assert!(
            self.world.apikey.is_deleting() || allowed,
            "and one of ours only with its ApiKey, or as its retention asks"
        );
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

    pub(super) fn finalizers(
        &mut self,
        change: impl FnOnce(&mut Vec<String>),
    ) -> Result<(), Interrupted> {
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
        if secret
            .key
            .is_some_and(|hash| self.world.status().version_of(hash).is_some())
        {
            self.world.secret = SecretView::Present(secret);
        } else {
            let refusal = Refusal::conflict(&self.world.apikey, &secret);
            self.refused = Some(refusal.clone());
            self.world.delivery = Delivery::Refused(refusal);
        }
    }

    fn refuse(&mut self, reason: &'static str) {
        let refusal = Refusal {
            reason,
            message: "the API server refuses the Secret".to_owned(),
        };
        self.refused = Some(refusal.clone());
        self.world.delivery = Delivery::Refused(refusal);
    }
}

/// Changes on a Secret besides its key.
fn patch(secret: &mut SecretFacts, mending: Mending) {
    let patch = |map: &mut BTreeMap<String, String>, changes| {
        for (name, value) in changes {
            match value {
                Some(value) => map.insert(name, value),
                None => map.remove(&name),
            };
        }
    };
    patch(&mut secret.labels, mending.labels);
    patch(&mut secret.annotations, mending.annotations);
    secret.owner_references = mending
        .owner_references
        .unwrap_or(std::mem::take(&mut secret.owner_references));
    let applied = applied_template(&secret.annotations);
    let anew = mending.data.is_some();
    secret
        .edited_entries
        .retain(|name| !anew && applied.data.contains_key(name));
}
