//! What is worth an event: told from the status before and after a write, so that each is told once.

use crate::api::conditions::{self, ConditionType, reason};
use crate::api::{ApiKey, ApiKeyStatus, Phase};

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
    let mut tell = |tone, reason: &str, note: String| all.push(News { tone, reason: reason.to_owned(), note: clip(note) });
    let phase = |status: Option<&ApiKeyStatus>| status.and_then(|status| status.phase);
    if phase(before) != after.phase {
        match after.phase {
            Some(Phase::Active) => tell(
                Tone::Normal,
                reason::ISSUED,
                format!("version {} delivered into Secret {}", after.version.unwrap_or_default(), apikey.secret_name()),
            ),
            Some(Phase::Expired) => tell(Tone::Normal, reason::EXPIRED, "the key has expired".to_owned()),
            _ => {}
        }
    }
    if before.is_none_or(|before| before.revoked_at.is_none()) && after.revoked_at.is_some() {
        let why = apikey.spec.revocation_reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        tell(Tone::Normal, reason::REVOKED, format!("the key was revoked{why}"));
    }
    let old = before.map(|before| before.conditions.as_slice()).unwrap_or_default();
    for type_ in [ConditionType::Delivered, ConditionType::Ready, ConditionType::Usable] {
        let (Some(new), before) = (conditions::find(&after.conditions, type_), conditions::find(old, type_)) else { continue };
        let turned = before.is_none_or(|before| before.reason != new.reason || before.message != new.message);
        let trouble = new.status == "False"
            && !matches!(new.reason.as_str(), reason::PENDING | reason::ISSUING | reason::EXPIRED | reason::REVOKED);
        let said = all.iter().any(|said: &News| said.reason == new.reason);
        if turned && !said && (trouble || new.reason == reason::EXPIRING_SOON) {
            all.push(News { tone: Tone::Warning, reason: new.reason.clone(), note: clip(new.message.clone()) });
        }
    }
    all
}

/// Cuts a text to what fits: an event's note has at most 1,024 bytes.
#[must_use]
pub fn clip(mut note: String) -> String {
    if note.len() > 1_000 {
        let end = (0..=1_000).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
        note.truncate(end);
    }
    note
}
