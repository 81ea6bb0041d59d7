//! What is worth an event: told from the status before and after a write, so that each is told once.

use crate::api::conditions::{self, ConditionType, reason};
use crate::api::{ApiKey, ApiKeyStatus, Phase, Version, VersionPhase};

/// One thing to tell people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whether somebody should act.
    pub tone: Tone,
    /// One CamelCase word.
    pub reason: String,
    /// At most 1,000 bytes; never holds a key.
    pub note: String,
}

/// Whether somebody should act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As asked.
    Normal,
    /// Not as asked.
    Warning,
}

/// What a write of the status changed that people want to know.
#[must_use]
pub fn news(apikey: &ApiKey, before: Option<&ApiKeyStatus>, after: &ApiKeyStatus) -> Vec<News> {
    let mut all = Vec::new();
    let mut tell = |tone, reason: &str, note: String| {
        all.push(News {
            tone,
            reason: reason.to_owned(),
            note: clip(note),
        });
    };
    let phase = |status: Option<&ApiKeyStatus>| status.and_then(|status| status.phase);
    if phase(before) != after.phase {
        match after.phase {
            Some(Phase::Active) => tell(Tone::Normal, reason::ISSUED, issued(apikey, after)),
            Some(Phase::Expired) => tell(
                Tone::Normal,
                reason::EXPIRED,
                "the key has expired".to_owned(),
            ),
            _ => {}
        }
    }
    if let Some(before) = before {
        if let Some(note) = rotated(apikey, before, after) {
            tell(Tone::Normal, reason::ROTATED, note);
        }
        for version in after
            .versions
            .iter()
            .filter(|version| has_retired(before, version))
        {
            tell(
                Tone::Normal,
                reason::RETIRED,
                format!("version {} does not pass any more", version.version),
            );
        }
    }
    if before.is_none_or(|before| before.revoked_at.is_none()) && after.revoked_at.is_some() {
        let who = apikey
            .spec
            .revoked_by
            .as_deref()
            .map(|who| format!(" by {who}"))
            .unwrap_or_default();
        let why = apikey
            .spec
            .revocation_reason
            .as_deref()
            .map(|why| format!(": {why}"))
            .unwrap_or_default();
        tell(
            Tone::Normal,
            reason::REVOKED,
            format!("the key was revoked{who}{why}"),
        );
    }
    let old = before
        .map(|before| before.conditions.as_slice())
        .unwrap_or_default();
    for type_ in [
        ConditionType::Delivered,
        ConditionType::Ready,
        ConditionType::Usable,
        ConditionType::Compliant,
    ] {
        let (Some(new), before) = (
            conditions::find(&after.conditions, type_),
            conditions::find(old, type_),
        ) else {
            continue;
        };
        let turned = before
            .is_none_or(|before| before.reason != new.reason || before.message != new.message);
        let said = all.iter().any(|said: &News| said.reason == new.reason);
        let tone = match new.reason.as_str() {
            _ if !turned || said => None,
            reason::EXPIRING_SOON => Some(Tone::Warning),
            reason::COLLECTED | reason::REMOVED => Some(Tone::Normal),
            reason::PENDING
            | reason::ISSUING
            | reason::ROTATING
            | reason::EXPIRED
            | reason::REVOKED => None,
            _ => (new.status == "False" && type_ != ConditionType::Usable).then_some(Tone::Warning),
        };
        all.extend(tone.map(|tone| News {
            tone,
            reason: new.reason.clone(),
            note: clip(new.message.clone()),
        }));
    }
    all
}

fn issued(apikey: &ApiKey, status: &ApiKeyStatus) -> String {
    let version = status.version.unwrap_or_default();
    match (&status.secret_ref, &apikey.spec.source) {
        (None, _) => format!("version {version} taken over by its hash"),
        (Some(_), Some(_)) => format!(
            "version {version} taken over and delivered into Secret {}",
            apikey.secret_name()
        ),
        (Some(_), None) => format!(
            "version {version} delivered into Secret {}",
            apikey.secret_name()
        ),
    }
}

fn rotated(apikey: &ApiKey, before: &ApiKeyStatus, after: &ApiKeyStatus) -> Option<String> {
    let (old, new) = (before.version?, after.version?);
    let replaced = after
        .versions
        .iter()
        .find(|version| version.version == old)
        .filter(|_| new > old)?;
    let retires = replaced
        .retires_at
        .as_ref()
        .map(|time| time.0.to_string())
        .unwrap_or_default();
    let secret = apikey.secret_name();
    Some(match replaced.phase {
        VersionPhase::Retired => format!(
            "version {new} delivered into Secret {secret}; version {old} does not pass any more"
        ),
        _ => format!(
            "version {new} delivered into Secret {secret}; version {old} passes until {retires}"
        ),
    })
}

/// Whether a version has just stopped passing that passed beside another one.
fn has_retired(before: &ApiKeyStatus, version: &Version) -> bool {
    let was_retiring =
        |old: &&Version| old.version == version.version && old.phase == VersionPhase::Retiring;
    version.phase == VersionPhase::Retired && before.versions.iter().any(|old| was_retiring(&old))
}

/// Cuts a text to what fits: an event's note has at most 1,024 bytes.
#[must_use]
pub fn clip(mut note: String) -> String {
    if note.len() > 1_000 {
        let end = (0..=1_000)
            .rev()
            .find(|at| note.is_char_boundary(*at))
            .unwrap_or(0);
        note.truncate(end);
    }
    note
}
