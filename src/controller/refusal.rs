//! What a refusal of the API server means, and what of its words may be passed on.

use k8s_openapi::ByteString;

use super::error::describe;
use crate::api::conditions::reason;
use crate::lifecycle::Refusal;

/// Characters of a refusal that are passed on.
const MAX_WORDS: usize = 512;

/// Why the API server would not have the Secret, and what to do about it.
pub(super) fn explain(error: &kube::Error) -> Refusal {
    let kube::Error::Api(status) = error else {
        return Refusal { reason: reason::DELIVERY_REFUSED, message: describe(error) };
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let terminating = causes.clone().any(|cause| cause.reason == "NamespaceTerminating");
    let (reason, advice) = if terminating || status.is_not_found() {
        (reason::NAMESPACE_TERMINATING, "the namespace is going away")
    } else if status.message.contains("exceeded quota") {
        (reason::QUOTA_EXCEEDED, "raise the quota or remove other Secrets")
    } else if status.is_forbidden() {
        (reason::DELIVERY_REFUSED, "grant the controller this right with RBAC, or ask whoever runs the admission policy")
    } else {
        (reason::DELIVERY_REFUSED, "correct spec.secret")
    };
    // The words are the API server's, or some webhook's: as long as they like.
    let words: String = status.message.chars().take(MAX_WORDS).collect();
    Refusal { reason, message: format!("the API server refuses the Secret: {words} ({advice})") }
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
    let kube::Error::Api(status) = error else { return };
    let encoded = serde_json::to_string(&ByteString(sent.to_vec())).unwrap_or_default();
    // Without the quotes, and without the last digits, which depend on what follows.
    let encoded = encoded.trim_matches('"').trim_end_matches('=');
    let encoded = encoded.get(..encoded.len().saturating_sub(2)).unwrap_or_default();
    let words = format!("{} {:?}", status.message, status.details);
    let quotes = |text: &str| text.len() >= 8 && words.contains(text);
    if quotes(encoded) || std::str::from_utf8(sent).is_ok_and(quotes) {
        "the answer is withheld: it quotes the key".clone_into(&mut status.message);
        status.details = None;
    }
}
