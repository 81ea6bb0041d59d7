//! What must hold at every instant.

use super::super::*;
use super::Model;
use crate::api::{Phase, VersionPhase};

impl Model {
    /// Fails where one of the promises is broken.
    pub(in super::super) fn check(&mut self) {
        let status = self.world.status();
        let current: Vec<_> = status.versions.iter().filter(|version| version.phase == VersionPhase::Current).collect();
        assert!(current.len() <= 1, "at most one version is Current");
        let current = current.first().map(|version| version.hash.clone());
        let activated = self.delivered.is_none() && current.is_some();
        assert!(!activated || status.newest_announced().is_none(), "what lost is dropped at the activation");
        if self.delivered.is_some() {
            assert_eq!(current, self.delivered, "no other value is delivered in its place");
        }
        self.delivered = current;
        if self.ended.is_some() {
            assert_eq!(status.phase, self.ended, "an ended key stays ended");
        }
        self.ended = status.phase.filter(|phase| phase.is_final());
        let usable = status.conditions.iter().any(|one| one.type_ == "Usable" && one.status == "True");
        assert!(!usable || status.phase == Some(Phase::Active), "only a key in use passes");
        for secret in [&self.there, &self.flying].into_iter().flatten() {
            let pristine = secret.uid.starts_with("secret-") && secret.edited_entries.is_empty();
            let foreign = secret.key.is_none_or(|hash| hash == Hash::of(b"somebody else's"));
            let known = secret.key.is_some_and(|hash| status.version_of(hash).is_some());
            assert!(!pristine || foreign || known, "no Secret holds a key that the status does not list");
        }
    }

    /// Whether a Secret is ours, by the status alone.
    pub(super) fn is_ours(&self, secret: &SecretFacts) -> bool {
        let hash = secret.key.map(|hash| hash.to_string());
        self.world.apikey.status.as_ref().is_some_and(|status| {
            status.secret_ref.as_ref().is_some_and(|recorded| recorded.uid == secret.uid)
                || status.versions.iter().any(|listed| Some(&listed.hash) == hash.as_ref())
        })
    }
}

/// What the API server makes of a status: the rules at the root of the resource, its bounds, and how it is stored.
pub(super) fn admit(old: Option<&ApiKeyStatus>, new: &ApiKeyStatus) {
    assert_ne!(old, Some(new), "a status is written only when it changes");
    let stored = serde_json::to_value(new).unwrap();
    assert_eq!(&serde_json::from_value::<ApiKeyStatus>(stored).unwrap(), new, "times are whole seconds");
    assert!(new.versions.len() <= 16 && new.conditions.len() <= 8, "lists have bounds");
    let mut numbers: Vec<_> = new.versions.iter().map(|version| version.version).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), new.versions.len(), "a version number stands once");
    let Some(old) = old else { return };
    assert!(old.key_id.is_none() || new.key_id == old.key_id, "status.keyId is set once and stays");
    assert!(!old.phase.is_some_and(Phase::is_final) || new.phase == old.phase, "Expired and Revoked are final");
    assert!(old.expires_at.is_none() || new.expires_at == old.expires_at, "status.expiresAt is fixed");
    assert!(old.expired_at.is_none() || new.expired_at == old.expired_at, "status.expiredAt is set once and stays");
    assert!(old.revoked_at.is_none() || new.revoked_at == old.revoked_at, "status.revokedAt is set once and stays");
    for was in old.versions.iter().filter(|version| version.phase != VersionPhase::Announced) {
        let stays = new.versions.iter().any(|is| is.version == was.version && is.hash == was.hash && is.phase == was.phase);
        assert!(stays, "a delivered version stays listed, and its hash stays as it is");
    }
}
