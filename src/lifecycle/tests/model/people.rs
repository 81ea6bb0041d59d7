//! What happens to the cluster: time, accidents, and what people do.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};

use super::super::*;
use super::{Model, Wish};
use crate::api::ApiKey;
use crate::api::names::ANNOTATION_TEMPLATE;

impl Model {
    pub(in super::super) fn pass(&mut self, time: SignedDuration) {
        self.time = self.time.checked_add(time).unwrap_or(Timestamp::MAX);
    }

    /// The controller dies, and the next one knows only what is stored.
    pub(in super::super) fn crash(&mut self) {
        (self.held, self.stood, self.refused) = (None, None, None);
    }

    /// No request from before can still be under way.
    pub(in super::super) fn grace_passes(&mut self) {
        self.pass(SignedDuration::from_secs(100));
        self.flying = None;
        if let Some((_, long)) = &mut self.stood {
            *long = true;
        }
    }

    /// What was refused may be asked again.
    pub(in super::super) fn back_off_passes(&mut self) {
        self.pass(SignedDuration::from_secs(300));
        self.refused = None;
    }

    /// The create that was under way arrives.
    pub(in super::super) fn lands(&mut self) {
        if let Some(secret) = self.flying.take().filter(|_| self.there.is_none()) {
            self.there = Some(secret);
            self.held_by_others = false;
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
    }

    /// Somebody changes the Secret.
    pub(in super::super) fn edit(&mut self, change: impl FnOnce(&mut SecretFacts)) {
        let resource_version = self.next("");
        if let Some(secret) = &mut self.there {
            change(secret);
            secret.resource_version = resource_version;
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
            Wish::Template(word) => apikey.spec.secret = with_template(word).secret,
            Wish::Revoke => apikey.spec.revoked = Some(true),
            Wish::Delete => {
                apikey.metadata.deletion_timestamp.get_or_insert(Time(now));
                self.gone |= self.world.apikey.metadata.finalizers.iter().flatten().count() == 0;
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
            secret.annotations.insert(ANNOTATION_TEMPLATE.to_owned(), "not JSON".to_owned());
            secret.edited_entries.clear();
        });
    }
}
