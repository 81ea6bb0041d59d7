//! What happens to the cluster: time, accidents, and what people do.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};

use super::super::*;
use super::{Model, Wish};
use crate::api::ApiKey;
use crate::api::names::{ANNOTATION_ADOPT, ANNOTATION_COLLECTED, ANNOTATION_TEMPLATE};

/// No request is under way for longer.
const LONGEST_FLIGHT: SignedDuration = SignedDuration::from_secs(100);

impl Model {
    pub(in super::super) fn pass(&mut self, time: SignedDuration) {
        self.time = self.time.checked_add(time).unwrap_or(Timestamp::MAX);
        self.used();
        if time >= LONGEST_FLIGHT {
            self.flying.clear();
        }
    }

    /// Somebody uses the key, and the status comes to show it.
    pub(in super::super) fn used(&mut self) {
        let now = crate::api::whole_second(self.time);
        if let Some(status) = &mut self.apikey().status {
            status.last_used_at = Some(Time(now));
        }
    }

    /// The controller dies, and the next one knows only what is stored.
    pub(in super::super) fn crash(&mut self) {
        (self.held, self.stood, self.refused) = (None, None, None);
    }

    /// No request from before can still be under way.
    pub(in super::super) fn grace_passes(&mut self) {
        self.pass(LONGEST_FLIGHT);
        if let Some((_, long)) = &mut self.stood {
            *long = true;
        }
    }

    /// What was refused may be asked again.
    pub(in super::super) fn back_off_passes(&mut self) {
        self.pass(SignedDuration::from_secs(300));
        self.refused = None;
    }

    /// Deliveries that were under way arrive. Each finds what it was sent for, or is refused.
    pub(in super::super) fn lands(&mut self) {
        for flight in std::mem::take(&mut self.flying) {
            if self.fits(&flight) {
                self.land(flight.secret);
            }
        }
    }

    /// Somebody puts a Secret of theirs there. A cunning one claims to be ours.
    pub(in super::super) fn plant_foreign(&mut self, cunning: bool) {
        let mut secret = self.create(Hash::of(b"somebody else's"));
        if !cunning {
            secret.labels.clear();
            secret.annotations.clear();
            secret.owner_references = vec![OwnerReference {
                api_version: "apps/v1".to_owned(),
                kind: "Deployment".to_owned(),
                name: "shop".to_owned(),
                uid: "deployment-1".to_owned(),
                controller: Some(true),
                block_owner_deletion: None,
            }];
        }
        self.there = Some(secret);
        self.held_by_others = false;
        self.tampered = true;
    }

    /// Somebody changes the Secret.
    pub(in super::super) fn edit(&mut self, change: impl FnOnce(&mut SecretFacts)) {
        let resource_version = self.next("");
        if let Some(secret) = &mut self.there {
            let held = secret.key;
            change(secret);
            secret.resource_version = resource_version;
            self.tampered |= secret.key != held;
        }
    }

    /// Somebody puts the Secret back from a copy, which has no owner.
    pub(in super::super) fn replace_by_copy(&mut self) {
        let uid = self.next("secret-");
        self.edit(|secret| {
            (secret.uid, secret.deleting, secret.owner_references) = (uid, false, Vec::new());
        });
    }

    /// A person changes the `ApiKey`, unless it is too late.
    pub(in super::super) fn wish(&mut self, wish: Wish) {
        let now = self.time;
        let apikey = self.apikey();
        match wish {
            Wish::Template(word) => {
                apikey.spec.secret.get_or_insert_default().template = Some(template(word));
            }
            Wish::Raise => apikey.spec.revision = Some(apikey.spec.revision.unwrap_or(0) + 1),
            Wish::Rotate(every, overlap) => apikey.spec.rotation = Some(rotation(every, overlap)),
            Wish::Retain(retention) => {
                apikey.spec.secret.get_or_insert_default().retention = Some(retention);
            }
            Wish::Adopt => {
                apikey
                    .metadata
                    .annotations
                    .get_or_insert_default()
                    .insert(ANNOTATION_ADOPT.to_owned(), "true".to_owned());
                return;
            }
            Wish::Revoke => apikey.spec.revoked = Some(true),
            Wish::Delete => {
                apikey.metadata.deletion_timestamp.get_or_insert(Time(now));
                self.gone |= self
                    .world
                    .apikey
                    .metadata
                    .finalizers
                    .iter()
                    .flatten()
                    .count()
                    == 0;
                return;
            }
        }
        apikey.metadata.generation = apikey.metadata.generation.map(|generation| generation + 1);
    }

    pub(in super::super) fn apikey(&mut self) -> &mut ApiKey {
        std::sync::Arc::make_mut(&mut self.world.apikey)
    }

    /// Somebody writes nonsense into the annotation that says which template was applied: nothing can be told from it.
    pub(in super::super) fn spoil_template(&mut self) {
        self.edit(|secret| {
            secret
                .annotations
                .insert(ANNOTATION_TEMPLATE.to_owned(), "not JSON".to_owned());
            secret.edited_entries.clear();
        });
    }

    /// Somebody who collected the Secret marks it.
    pub(in super::super) fn collect(&mut self) {
        self.edit(|secret| {
            secret
                .annotations
                .insert(ANNOTATION_COLLECTED.to_owned(), "true".to_owned());
        });
    }

    /// Somebody keeps a copy of the Secret.
    pub(in super::super) fn keep_a_copy(&mut self) {
        self.copy.clone_from(&self.there);
    }

    /// Somebody puts it back.
    pub(in super::super) fn put_back(&mut self) {
        if self.copy.is_some() {
            self.there.clone_from(&self.copy);
            (self.tampered, self.held_by_others) = (true, false);
            self.replace_by_copy();
        }
    }
}
