//! A key is issued once, and what happens to it after.

use claviger::api::{ConditionType, Phase};

use crate::stories;
use crate::support::stage::{Stage, condition};

stories![a_key_is_issued_once_expires_is_revoked_and_deleted];

fn a_key_is_issued_once_expires_is_revoked_and_deleted() {
    let stage = Stage::new("issuing");
    let history = stage.history();
    let operator = stage.operator().start_ready();
    stage.declare("plain", "{}");
    stage.declare("short", "{expiry: {after: 3s}}");
    let status = stage.wait_issued("plain");
    assert_eq!(condition(&status, ConditionType::Ready), "True/Issued");
    assert_eq!(condition(&status, ConditionType::Usable), "True/Active");
    let status = stage.wait_phase("short", Phase::Expired);
    assert_eq!(condition(&status, ConditionType::Ready), "True/Expired");
    let late = status
        .expired_at
        .unwrap()
        .0
        .duration_since(status.expires_at.unwrap().0);
    assert!(late.as_secs() >= 0, "never early");
    stage.patch(
        "apikey/plain",
        "{\"spec\": {\"revoked\": true, \"revocationReason\": \"a leak\"}}",
    );
    stage.wait_phase("plain", Phase::Revoked);
    stage.kubectl(&["delete", "apikey", "plain", "--timeout=60s"]);
    assert!(stage.secret("plain").is_none(), "the Secret went first");
    stage.wait_event("plain", "Issued");
    stage.wait_event("plain", "Revoked");
    stage.wait_event("short", "Expired");
    assert!(operator.stop().success());
    assert!(history.check() > 5);
}
