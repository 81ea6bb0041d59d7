//! What deployment tools make of an object: the rules of kstatus (sigs.k8s.io/cli-utils), by which Argo CD, Flux, Helm and
//! `kubectl wait` decide whether something is done.

use serde_json::Value;

/// Terminating, `InProgress`, Failed or Current.
pub(crate) fn kstatus(object: &Value) -> &'static str {
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return "Terminating";
    }
    let status = &object["status"];
    if status["observedGeneration"].is_i64()
        && status["observedGeneration"] != object["metadata"]["generation"]
    {
        return "InProgress";
    }
    let conditions = status["conditions"].as_array();
    let is = |type_: &str| {
        conditions
            .into_iter()
            .flatten()
            .find(|one| one["type"] == type_)
            .and_then(|one| one["status"].as_str())
    };
    match (is("Reconciling"), is("Stalled"), is("Ready")) {
        (Some("True"), _, _) => "InProgress",
        (_, Some("True"), _) => "Failed",
        (_, _, Some("False" | "Unknown")) => "InProgress",
        _ => "Current",
    }
}
