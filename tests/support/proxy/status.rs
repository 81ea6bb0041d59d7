//! Refusals worded as the API server words them: clients branch on `code` and `reason`.

use super::call::{Call, Verb};
use serde_json::{Value, json};

/// Seconds that a 429 asks the client to wait.
pub(super) const RETRY_AFTER: u64 = 1;

/// The `Status` object that goes with `code`.
pub(super) fn status(code: u16, call: &Call) -> Value {
    let mut status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message(code, call),
        "reason": reason(code, call),
        "code": code,
    });
    if code == 410 {
        return status; // the one without details
    }
    status["details"] = json!({"group": call.group, "kind": call.resource});
    if let Some(name) = &call.name {
        status["details"]["name"] = json!(name);
    }
    if code == 429 {
        status["details"]["retryAfterSeconds"] = json!(RETRY_AFTER);
    }
    status
}

fn reason(code: u16, call: &Call) -> &'static str {
    match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        409 if call.verb == Verb::Create => "AlreadyExists",
        409 => "Conflict",
        410 => "Expired",
        413 => "RequestEntityTooLarge",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "",
    }
}

fn message(code: u16, call: &Call) -> String {
    let Call {
        verb,
        group,
        resource,
        ..
    } = call;
    let kind = match group.as_str() {
        "" => resource.clone(),
        group => format!("{resource}.{group}"),
    };
    let name = call.name.as_deref().unwrap_or_default();
    match code {
        403 => format!(
            "{kind} \"{name}\" is forbidden: User \"system:serviceaccount:fault:proxy\" cannot {verb} \
             resource \"{resource}\" in API group \"{group}\""
        ),
        404 => format!("{kind} \"{name}\" not found"),
        409 if *verb == Verb::Create => format!("{kind} \"{name}\" already exists"),
        409 => format!(
            "Operation cannot be fulfilled on {kind} \"{name}\": the object has been modified; please \
             apply your changes to the latest version and try again"
        ),
        410 => "too old resource version: 1 (2)".to_owned(),
        429 => "too many requests, please try again later".to_owned(),
        500 => "Internal error occurred: injected by the fault proxy".to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => "Timeout: request did not complete within the allotted timeout".to_owned(),
        _ => format!("status {code} injected by the fault proxy"),
    }
}
