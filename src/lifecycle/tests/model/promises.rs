//! What must hold at every instant.

use super::*;
use crate::api::Version;

/// The versions that pass, the current one among them.
pub(in super::super) fn overlapping(status: &ApiKeyStatus) -> Vec<i64> {
    let pass = |version: &&Version| {
        matches!(
            version.phase,
            VersionPhase::Current | VersionPhase::Retiring
        )
    };
    status
        .versions
        .iter()
        .filter(pass)
        .map(|version| version.version)
        .collect()
}

impl Model {
    /// Fails where one of the promises is broken.
    pub(in super::super) fn check(&mut self) {
        let status = self.world.status();
        let current: Vec<_> = status
            .versions
            .iter()
            .filter(|version| version.phase == VersionPhase::Current)
            .collect();
        assert!(current.len() <= 1, "at most one version is Current");
        let current = current.first().map(|version| (*version).clone());
        let hash = current.as_ref().map(|version| version.hash.clone());
        if hash != self.delivered {
            let current = current.expect("a key that was delivered stays in use until another is");
            assert!(
                !self.given.contains(&current.hash),
                "a replaced value never comes back"
            );
            assert!(
                status.newest_announced().is_none(),
                "what lost is dropped at the activation"
            );
            assert!(current.version > self.highest, "numbers only grow");
            assert!(status.revision >= self.acted, "a revision is acted on once");
            (self.highest, self.acted) = (current.version, status.revision);
            self.given.insert(current.hash);
        }
        self.delivered = hash;
        if self.ended.is_some() {
            assert_eq!(status.phase, self.ended, "an ended key stays ended");
        }
        self.ended = status.phase.filter(|phase| phase.is_final());
        let usable = status
            .conditions
            .iter()
            .any(|one| one.type_ == "Usable" && one.status == "True");
        assert!(
            !usable || status.phase == Some(Phase::Active),
            "only a key in use passes"
        );
        assert!(
            overlapping(&status).len() <= 8,
            "at most eight versions overlap"
        );
        if let Some(secret) = self.there.as_ref().filter(|_| !self.tampered) {
            let newest = |hash: Hash| status.version_of(hash).map(|version| version.phase);
            let phase = secret.key.and_then(newest);
            assert!(
                matches!(phase, Some(VersionPhase::Announced | VersionPhase::Current)),
                "what was delivered last is the newest version that the status lists"
            );
        }
        for flight in self.flying.iter().filter(|flight| self.fits(flight)) {
            let known = flight
                .secret
                .key
                .is_some_and(|hash| status.version_of(hash).is_some());
            assert!(
                known,
                "no Secret can come to hold a key that the status does not list"
            );
        }
    }

    /// Whether a Secret is ours, by the status alone.
    pub(super) fn is_ours(&self, secret: &SecretFacts) -> bool {
        let hash = secret.key.map(|hash| hash.to_string());
        self.world.apikey.status.as_ref().is_some_and(|status| {
            status
                .secret_ref
                .as_ref()
                .is_some_and(|recorded| recorded.uid == secret.uid)
                || status
                    .versions
                    .iter()
                    .any(|listed| Some(&listed.hash) == hash.as_ref())
        })
    }

    /// Whether another version may be minted beside the one in use: by a revision that was not acted on, by the interval, or because
    /// what was begun is not finished.
    pub(super) fn is_rotation_asked_for(&self, status: &ApiKeyStatus) -> bool {
        let spec = &self.world.apikey.spec;
        let raised = spec
            .revision
            .is_some_and(|wanted| self.acted.is_none_or(|acted| wanted > acted));
        let since = status
            .current()
            .and_then(|current| current.activated_at.as_ref())
            .map(|time| time.0);
        let every = spec.rotation.as_ref().and_then(Rotation::interval);
        let due = every.zip(since).is_some_and(|(every, since)| {
            let age = self
                .true_time()
                .duration_since(since)
                .saturating_add(Clock::TOLERANCE);
            age >= every - every / 10
        });
        raised || due || status.newest_announced().is_some()
    }

    /// Nothing ends before its time by the API server's clock, however wrong the controller's is.
    pub(super) fn admit_times(&self, old: Option<&ApiKeyStatus>, new: &ApiKeyStatus) {
        let has_come = |time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
            time.is_some_and(|time| {
                time.0 <= self.true_time().saturating_add(Clock::TOLERANCE).unwrap()
            })
        };
        let expires = new.expired_at.is_some() && old.is_none_or(|old| old.expired_at.is_none());
        assert!(
            !expires || has_come(new.expires_at.as_ref()),
            "a wrong clock expires nothing"
        );
        let was_retired = |number| {
            old.is_some_and(|old| {
                old.versions
                    .iter()
                    .any(|v| v.version == number && v.phase == VersionPhase::Retired)
            })
        };
        for version in new.versions.iter().filter(|version| {
            version.phase == VersionPhase::Retired && !was_retired(version.version)
        }) {
            assert!(has_come(version.retires_at.as_ref()), "and retires nothing");
        }
    }
}

/// What the API server makes of a status: the rules at the root of the resource, its bounds, and how it is stored.
pub(super) fn admit(old: Option<&ApiKeyStatus>, new: &ApiKeyStatus) {
    assert_ne!(old, Some(new), "a status is written only when it changes");
    let stored = serde_json::to_value(new).unwrap();
    assert_eq!(
        &serde_json::from_value::<ApiKeyStatus>(stored).unwrap(),
        new,
        "times are whole seconds"
    );
    assert!(
        new.versions.len() <= 24 && new.conditions.len() <= 8,
        "lists have bounds"
    );
    let mut numbers: Vec<_> = new.versions.iter().map(|version| version.version).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(
        numbers.len(),
        new.versions.len(),
        "a version number stands once"
    );
    let Some(old) = old else { return };
    assert!(
        old.key_id.is_none() || new.key_id == old.key_id,
        "status.keyId is set once and stays"
    );
    assert!(
        !old.phase.is_some_and(Phase::is_final) || new.phase == old.phase,
        "Expired and Revoked are final"
    );
    let fixed = old.key_id.is_some() || old.expires_at.is_some();
    let nearer = old.issued_at.is_none()
        && new
            .expires_at
            .as_ref()
            .is_some_and(|new| old.expires_at.as_ref().is_none_or(|old| new.0 < old.0));
    assert!(
        !fixed || new.expires_at == old.expires_at || nearer,
        "status.expiresAt only comes nearer until the key is issued"
    );
    assert!(
        old.expired_at.is_none() || new.expired_at == old.expired_at,
        "status.expiredAt is set once and stays"
    );
    assert!(
        old.revoked_at.is_none() || new.revoked_at == old.revoked_at,
        "status.revokedAt is set once and stays"
    );
    assert!(
        old.organization.is_none() || new.organization == old.organization,
        "status.organization is set once and stays"
    );
    assert_eq!(
        old.last_used_at, new.last_used_at,
        "when the key was last used is for gates to say, and stays in every write"
    );
    assert!(
        old.revision.is_none() || new.revision >= old.revision,
        "status.revision can only grow"
    );
    for was in &old.versions {
        let is = new.versions.iter().find(|is| is.version == was.version);
        let same = is.is_some_and(|is| is.hash == was.hash);
        if matches!(was.phase, VersionPhase::Current | VersionPhase::Retiring) {
            let delivered = is.is_some_and(|is| is.phase != VersionPhase::Announced);
            assert!(
                same && delivered,
                "a delivered version stays listed until it is retired, and its hash stays as it is"
            );
        }
        if let Some(is) =
            is.filter(|_| matches!(was.phase, VersionPhase::Retiring | VersionPhase::Retired))
        {
            let nearer = match (&is.retires_at, &was.retires_at) {
                (Some(is), Some(was)) => is.0 <= was.0,
                (None, None) => true,
                _ => false,
            };
            let onwards = is.phase == VersionPhase::Retired || is.phase == was.phase && nearer;
            assert!(
                same && onwards,
                "a version that was replaced never becomes current again, and its end only comes nearer"
            );
        }
    }
}
