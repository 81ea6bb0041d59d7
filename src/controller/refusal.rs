//! What a refusal of the API server means, and what of its words may be passed on.

use k8s_openapi::ByteString;

use crate::api::ApiKeyStatus;
use crate::api::conditions::reason;
use crate::key::{self, Hash};
use crate::lifecycle::Refusal;
use crate::telemetry::describe;

/// Characters of a refusal that are passed on.
const MAX_WORDS: usize = 512;

/// Why the API server would not have the Secret, and what to do about it.
pub(super) fn explain(error: &kube::Error) -> Refusal {
    let kube::Error::Api(status) = error else {
        return Refusal {
            reason: reason::DELIVERY_REFUSED,
            message: describe(error),
        };
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let terminating = causes
        .clone()
        .any(|cause| cause.reason == "NamespaceTerminating");
    let (reason, advice) = if terminating || status.is_not_found() {
        (reason::NAMESPACE_TERMINATING, "the namespace is going away")
    } else if status.message.contains("exceeded quota") {
        (
            reason::QUOTA_EXCEEDED,
            "raise the quota or remove other Secrets",
        )
    } else if status.is_forbidden() {
        (
            reason::DELIVERY_REFUSED,
            "grant the controller this right with RBAC, or ask whoever runs the admission policy",
        )
    } else {
        (reason::DELIVERY_REFUSED, "correct spec.secret")
    };
    // The words are the API server's, or some webhook's: as long as they like.
    let words: String = status.message.chars().take(MAX_WORDS).collect();
    Refusal {
        reason,
        message: format!("the API server refuses the Secret: {words} ({advice})"),
    }
}

/// A refusal that is final for this request: nothing was written. Time-outs, throttling and faults of the server are not.
pub(super) fn is_typed_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && !matches!(status.code, 401 | 408 | 429) && !is_plain_conflict(status))
}

/// A dry run that was refused because a webhook has side effects (KEP-576), which says nothing about the Secret.
pub(super) fn knows_no_dry_run(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 400 && status.message.contains("does not support dry run"))
}

/// A 409 that is not "already exists" asks for another try.
fn is_plain_conflict(status: &kube::core::Status) -> bool {
    status.code == 409 && !status.is_already_exists()
}

/// Answers that come before anything is done.
pub(super) fn was_not_carried_out(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 409 | 429))
}

/// Takes the words out of an answer that quotes what was sent, as some admission policies do: a key must not get any further.
pub(super) fn withhold(error: &mut kube::Error, sent: &[u8]) {
    let kube::Error::Api(status) = error else {
        return;
    };
    let encoded = serde_json::to_string(&ByteString(sent.to_vec())).unwrap_or_default();
    // Without the quotes, and without the last digits, which depend on what follows.
    let encoded = encoded.trim_matches('"').trim_end_matches('=');
    let encoded = encoded
        .get(..encoded.len().saturating_sub(2))
        .unwrap_or_default();
    let words = format!("{} {:?}", status.message, status.details);
    let quotes = |text: &str| text.len() >= 8 && words.contains(text);
    if quotes(encoded) || std::str::from_utf8(sent).is_ok_and(quotes) {
        "the answer is withheld: it quotes the key".clone_into(&mut status.message);
        status.details = None;
    }
}

/// The same where it quotes a key that a Secret of ours holds already, as a policy may that looks at the object as it was: as it is or
/// in base64, alone or among other words.
pub(super) fn withhold_listed(error: &mut kube::Error, status: &ApiKeyStatus) {
    let kube::Error::Api(answer) = error else {
        return;
    };
    let words = format!("{} {:?}", answer.message, answer.details);
    if quotes_a_key(&words, status) {
        "the answer is withheld: it quotes a key".clone_into(&mut answer.message);
        answer.details = None;
    }
}

fn quotes_a_key(words: &str, status: &ApiKeyStatus) -> bool {
    let is_key = |text: &str| {
        key::check(text).is_ok() || status.version_of(Hash::of(text.as_bytes())).is_some()
    };
    // What may stand around a key in a sentence.
    let around = |c: char| c.is_whitespace() || "\"'`,;()[]{}<>\\".contains(c);
    let pieces = |text: &str| -> Vec<String> {
        let parts = text
            .split(around)
            .chain(text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
        parts
            .map(|part| part.trim_matches(['.', ':', '!', '?']).to_owned())
            .filter(|part| part.len() >= 16)
            .collect()
    };
    let decoded = |piece: &str| {
        let bytes = serde_json::from_value::<ByteString>(piece.into()).ok()?;
        String::from_utf8(bytes.0).ok()
    };
    words
        .split(around)
        .filter_map(decoded)
        .chain([words.to_owned()])
        .any(|text| pieces(&text).iter().any(|piece| is_key(piece)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Version, VersionPhase};
    use crate::key::{Key, OsRandom, Prefix};

    fn listing(key: &str) -> ApiKeyStatus {
        let moment = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            "2026-11-21T12:00:00Z".parse().unwrap(),
        );
        let version = Version {
            version: 1,
            hash: Hash::of(key.as_bytes()).to_string(),
            tail: String::new(),
            phase: VersionPhase::Current,
            announced_at: moment,
            activated_at: None,
            revision: None,
            replaced_at: None,
            retires_at: None,
            collected_at: None,
            discarded_at: None,
        };
        ApiKeyStatus {
            versions: vec![version],
            ..ApiKeyStatus::default()
        }
    }

    #[test]
    fn a_key_is_found_in_whatever_words_it_stands() {
        let (ours, imported) = (
            Key::mint(&Prefix::default(), &mut OsRandom).unwrap(),
            "legacy-5Zq8.Rk2mWv7Yx3Lc9+Tn4Hd6",
        );
        let base64 = |text: &str| {
            serde_json::to_value(ByteString(text.as_bytes().to_vec()))
                .unwrap()
                .as_str()
                .unwrap()
                .to_owned()
        };
        for key in [ours.expose(), imported] {
            let status = listing(key);
            let header = format!("Bearer {key}");
            for words in [
                format!("it was {key}"),
                format!("it was {key}."),
                format!("no \"{key}\" here"),
                format!("data: {{api-key: {}}}", base64(key)),
                format!("it was '{}', and is not", base64(&header)),
            ] {
                assert!(quotes_a_key(&words, &status), "{words}");
            }
        }
        let harmless = "secrets \"billing-export\" is forbidden: exceeded quota: one, requested: secrets=1, used: secrets=1";
        assert!(!quotes_a_key(harmless, &listing(imported)));
    }
}
