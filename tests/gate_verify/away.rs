//! The API server is away: keys are known without it, callers for a while.

use serde_json::json;

use super::{AUDIENCE, May, ask, caller, issued, told, verdict, wait_admitted};
use crate::stories;
use crate::support::client::Question;
use crate::support::gate::Gate;
use crate::support::stage::Stage;
use crate::support::wait;

stories![without_the_api_server_known_callers_go_on_for_the_stated_time];

fn without_the_api_server_known_callers_go_on_for_the_stated_time() {
    let stage = Stage::new("verify-away");
    let _operator = stage.operator().start_ready();
    let key = issued(&stage, "k", &format!("{{audiences: [{AUDIENCE}]}}"));
    let (known, unknown) = (
        caller(&stage, "proxy", May::Everywhere),
        caller(&stage, "late", May::Everywhere),
    );
    let proxy = stage.cluster.proxy();
    let patient = Gate::builder(&stage.cluster)
        .via(&proxy)
        .args(&["--token-cache=5m"])
        .start_ready();
    let strict = Gate::builder(&stage.cluster)
        .via(&proxy)
        .args(&["--token-cache=1s"])
        .start_ready();
    wait_admitted(&patient, &known, None);
    wait_admitted(&strict, &known, None);
    proxy.set_upstream_down(true);

    let question = json!({ "key": key, "audience": AUDIENCE });
    let unavailable = |gate: &Gate, token: &str| {
        let answer = ask(gate, "/v1/verify", Some(token), &question);
        if answer.status == 503 {
            Ok(answer)
        } else {
            Err(format!("{answer:?}"))
        }
    };
    let turned_away = unavailable(&patient, &unknown).expect("it cannot be known");
    assert_eq!(turned_away.header("retry-after"), Some("1"));
    assert!(
        turned_away
            .body
            .contains("who asks cannot be found out now"),
        "{turned_away:?}"
    );
    wait::until("the stated time is over", || unavailable(&strict, &known));
    // The other's is not.
    assert_eq!(verdict(&patient, &known, &key)["code"], "VALID");
    // Proxies need nobody's word for it.
    for gate in [&patient, &strict] {
        let asked = Question::get(&format!("/v1/auth/envoy/audience={AUDIENCE}/-/"))
            .bearer(&key)
            .ask(gate.plain_address());
        assert_eq!(asked.expect("an answer").status, 200);
        assert_eq!(gate.get("/readyz").map(|(status, _)| status), Some(200));
    }

    proxy.set_upstream_down(false);
    wait_admitted(&strict, &known, None);
    wait_admitted(&patient, &unknown, None);
    assert_eq!(
        told(&ask(&strict, "/v1/verify", Some(&known), &question))["code"],
        "VALID"
    );
    for gate in [patient, strict] {
        assert!(gate.stop().success());
        let logs = gate.logs();
        assert!(
            [&key, &known, &unknown]
                .iter()
                .all(|secret| !logs.contains(secret.as_str())),
            "the log holds a key or a token"
        );
    }
}
