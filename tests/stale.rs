//! Watches that lag, lose events or break, reads that fail, API servers and controllers that restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use claviger::api::{ConditionType, Phase};
use kube::ResourceExt as _;
use serde_json::Value;

use crate::stories;
use crate::support::cluster::Cluster;
use crate::support::leaks;
use crate::support::proxy::{Call, Fault, Hold, Matcher, Proxy, Rule, Verb, When};
use crate::support::stage::Stage;
use crate::support::wait::{self, LIMIT};

stories![
    a_key_is_issued_once_while_the_watches_show_nothing,
    what_is_written_from_a_stale_view_is_refused,
    keys_that_wait_for_the_first_list_of_secrets_all_go_on,
    events_that_are_lost_until_a_relist_mint_nothing_twice,
    a_secret_that_went_before_the_watch_ever_showed_it_is_missed,
    watches_that_break_again_and_again_mint_nothing_twice,
    a_key_made_anew_within_one_blink_of_the_watch_gets_its_own,
    a_key_made_anew_behind_a_stale_controller_is_left_alone,
    an_api_server_that_crashes_under_load_loses_no_key,
    a_secret_that_cannot_be_read_mints_nothing,
    an_apikey_that_cannot_be_read_mints_nothing,
    a_list_or_a_watch_that_is_never_answered_is_asked_for_anew,
];

/// Incidents 14: both watches are frozen from the finalizer on, and everything that follows is written meanwhile.
fn a_key_is_issued_once_while_the_watches_show_nothing() {
    // Where the finalizer is the controller's first request.
    let stage = Stage::on(&Cluster::own_without_finalizer_policy(), "held");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let _operator = stage.operator_via(&proxy).start_ready();
    let hold = Hold::new();
    proxy.on(
        Matcher::call(Verb::Patch, "apikeys"),
        When::Before,
        Fault::Delay(hold.clone()),
    );
    stage.declare("key", "{}");
    assert!(hold.reached(LIMIT), "it has seen the key");
    proxy.hold_watches("apikeys");
    proxy.hold_watches("secrets");
    hold.release();
    let issued = stage.wait_issued("key");
    // The Secret shows up first, so that the key is looked at again while its own watch still shows it without a status.
    assert!(proxy.wait_stopped_events("secrets", 1, LIMIT));
    proxy.release_watches("secrets");
    rest(&proxy);
    proxy.release_watches("apikeys");
    rest(&proxy);
    assert_eq!(stage.status("key"), issued);
    let wrote = writes(&proxy);
    let expected = [
        ("patch apikeys", 1),
        ("update apikeys/status", 2),
        ("create secrets", 1),
    ]
    .map(|(kind, n)| (kind.to_owned(), n));
    assert_eq!(wrote, BTreeMap::from(expected), "each step once");
    history.check();
}

/// Incidents 14: somebody edits an ApiKey that the frozen watch still shows as it was: what the controller writes from that view
/// is refused until it sees the edit, and nothing is minted for it.
fn what_is_written_from_a_stale_view_is_refused() {
    // Where the finalizer is the controller's first request.
    let stage = Stage::on(&Cluster::own_without_finalizer_policy(), "edited");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let _operator = stage.operator_via(&proxy).start_ready();
    let hold = Hold::new();
    proxy.on(
        Matcher::call(Verb::Patch, "apikeys"),
        When::Before,
        Fault::Delay(hold.clone()),
    );
    stage.declare("key", "{}");
    assert!(hold.reached(LIMIT), "it has seen the key");
    proxy.hold_watches("apikeys");
    stage.patch(
        "apikey/key",
        "{\"spec\": {\"description\": \"edited behind its back\"}}",
    );
    hold.release();
    let refused = |count: usize| {
        let conflicts = || {
            proxy
                .calls()
                .iter()
                .filter(|record| record.upstream == Some(409))
                .count()
        };
        wait::until_true("writes are refused", || conflicts() >= count);
    };
    refused(2);
    let status = stage.find("key").unwrap().status;
    assert_eq!(status, None, "nothing was announced from a stale view");
    proxy.release_watches("apikeys");
    assert_eq!(stage.wait_issued("key").version, Some(1));
    assert_eq!(accepted(&proxy, "create secrets"), 1);
    history.check();
}

/// Incidents 14: the first list of the Secrets comes late. Every key that waits for it goes on when it comes, and one that was
/// deleted while it waited for its turn does not count as waiting for ever.
fn keys_that_wait_for_the_first_list_of_secrets_all_go_on() {
    // Without a finalizer, which only the controller would take off that is held here.
    let stage = Stage::on(&Cluster::own_without_finalizer_policy(), "listing");
    let proxy = stage.cluster.proxy();
    let hold = Hold::new();
    let list =
        Matcher::call(Verb::List, "secrets").filter(|call| call.parameter("limit") != Some("1"));
    proxy
        .on(list, When::Before, Fault::Delay(hold.clone()))
        .always();
    stage.declare_many("early", 4, "{}");
    let times = [
        "--concurrency=4",
        "--request-timeout=30s",
        "--announce-grace=31s",
    ];
    let operator = stage.operator_via(&proxy).args(&times).start_ready();
    assert!(hold.reached(LIMIT));
    wait::until_true("all places are taken", || {
        operator.metric("claviger_objects_working") == Some(4.0)
    });
    stage.declare_many("late", 4, "{}");
    wait::until_true("the others wait for theirs", || {
        operator.metric("claviger_objects_waiting") == Some(4.0)
    });
    stage.kubectl(&["delete", "apikey", "late-0", "late-2"]);
    hold.release();
    stage.wait_many(6, Phase::Active);
    wait::until("nobody waits any more", || {
        match operator.metric("claviger_objects_waiting") {
            Some(0.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// Incidents 14: bookmarks and all other events are dropped until a 410 makes the controller list anew: what was declared,
/// revoked and deleted meanwhile is made good, once.
fn events_that_are_lost_until_a_relist_mint_nothing_twice() {
    let stage = Stage::new("lost");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let _operator = stage.operator_via(&proxy).start_ready();
    stage.apply(
        &["kept", "revoked", "deleted"]
            .map(|name| crate::support::stage::manifest(name, "{}"))
            .concat(),
    );
    stage.wait_many(3, Phase::Active);
    rest(&proxy);
    let kept = stage.apikey("kept");
    proxy.swallow_watch_events("apikeys");
    proxy.swallow_watch_events("secrets");
    stage.declare("declared", "{}");
    stage.patch("apikey/revoked", "{\"spec\": {\"revoked\": true}}");
    stage.kubectl(&["delete", "apikey", "deleted", "--wait=false"]);
    stage.kubectl(&["delete", "secret", "kept"]);
    assert!(
        proxy.wait_stopped_events("apikeys", 3, LIMIT),
        "all three are lost"
    );
    assert!(
        proxy.wait_stopped_events("secrets", 1, LIMIT),
        "and so is the Secret's end"
    );
    assert_eq!(stage.find("declared").unwrap().status, None);
    proxy.expire_watches("apikeys");
    proxy.expire_watches("secrets");
    stage.wait_issued("declared");
    stage.wait_phase("revoked", Phase::Revoked);
    stage.wait_gone("deleted");
    let status = stage.wait_reason("kept", ConditionType::Delivered, "SecretMissing");
    assert_eq!(
        status.hash,
        kept.status.unwrap().hash,
        "its key is not replaced"
    );
    rest(&proxy);
    assert!(stage.secret("kept").is_none());
    assert!(stage.secret("deleted").is_none());
    assert_eq!(accepted(&proxy, "create secrets"), 4, "one for each key");
    history.check();
}

/// Incidents 14 and 6: a Secret whose coming and going are both lost: nothing ever shows it, and that is noticed.
fn a_secret_that_went_before_the_watch_ever_showed_it_is_missed() {
    let stage = Stage::new("unseen");
    let proxy = stage.cluster.proxy();
    let _operator = stage.operator_via(&proxy).start_ready();
    wait::until_true("it watches", || proxy.open_watches("secrets") > 0);
    proxy.swallow_watch_events("secrets");
    stage.declare("key", "{}");
    let issued = stage.wait_issued("key");
    stage.kubectl(&["delete", "secret", "key"]);
    assert!(
        proxy.wait_stopped_events("secrets", 2, LIMIT),
        "both are lost"
    );
    proxy.expire_watches("secrets");
    let status = stage.wait_reason("key", ConditionType::Delivered, "SecretMissing");
    assert_eq!(status.hash, issued.hash, "its key is not replaced");
}

/// Incidents 14: the watches are cut, and now and then expired, as fast as they are begun anew while keys are issued.
fn watches_that_break_again_and_again_mint_nothing_twice() {
    const KEYS: usize = 60;
    let stage = Stage::new("cut");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let _operator = stage.operator_via(&proxy).start_ready();
    let (done, mut cuts) = (Arc::new(AtomicBool::new(false)), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stage.declare_many("key", KEYS, "{}");
            stage.wait_many(KEYS, Phase::Active);
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) || cuts < 10 {
            let open = || proxy.open_watches("apikeys") > 0 && proxy.open_watches("secrets") > 0;
            wait::until_true("it watches again", open);
            for resource in ["apikeys", "secrets"] {
                if cuts % 4 == 3 {
                    proxy.expire_watches(resource);
                } else {
                    proxy.cut_watches(resource);
                }
            }
            cuts += 1;
        }
    });
    rest(&proxy);
    println!("{cuts} cuts");
    assert_eq!(stage.secrets_agree(), KEYS);
    assert_eq!(accepted(&proxy, "create secrets"), KEYS, "one for each key");
    history.check();
}

/// Incidents 15 and 10: deleted and created again between two looks: the controller sees only the last state, under a new UID.
fn a_key_made_anew_within_one_blink_of_the_watch_gets_its_own() {
    // Without a finalizer: it goes while the controller sees nothing.
    let stage = Stage::on(&Cluster::own_without_finalizer_policy(), "blink");
    let proxy = stage.cluster.proxy();
    let _operator = stage
        .operator_via(&proxy)
        .args(&["--finalizer=false"])
        .start_ready();
    stage.declare("known", "{}");
    let first = stage.wait_issued("known");
    rest(&proxy);
    proxy.swallow_watch_events("apikeys");
    proxy.swallow_watch_events("secrets");
    // One that it knew, and one that it never saw: ADDED, DELETED, ADDED.
    stage.declare("unknown", "{}");
    stage.kubectl(&["delete", "apikey", "known", "unknown"]);
    wait::until_true("the Secret is collected with its owner", || {
        stage.secret("known").is_none()
    });
    stage.declare("known", "{}");
    stage.declare("unknown", "{}");
    assert!(
        proxy.wait_stopped_events("apikeys", 5, LIMIT),
        "all of it is lost"
    );
    proxy.expire_watches("apikeys");
    proxy.expire_watches("secrets");
    let second = stage.wait_issued("known");
    assert_eq!(second.version, Some(1), "a new ApiKey counts from 1");
    assert_ne!(
        second.hash, first.hash,
        "and the old key does not come back"
    );
    assert_ne!(second.key_id, first.key_id);
    stage.wait_issued("unknown");
    rest(&proxy);
    assert_eq!(
        accepted(&proxy, "create secrets"),
        3,
        "one for each ApiKey that lived to see it"
    );
}

/// Incidents 10: a controller on an old snapshot still believes in an ApiKey whose name another has by now: it touches neither
/// the new one's Secret nor its status.
fn a_key_made_anew_behind_a_stale_controller_is_left_alone() {
    let stage = Stage::new("snapshot");
    let proxy = stage.cluster.proxy();
    let old = stage
        .operator_via(&proxy)
        .args(&["--finalizer=false"])
        .start_ready();
    stage.declare("key", "{}");
    let first = stage.wait_issued("key");
    rest(&proxy);
    proxy.hold_watches("apikeys");
    let _fresh = stage.operator().args(&["--finalizer=false"]).start_ready();
    stage.kubectl(&["delete", "apikey", "key"]);
    wait::until_true("the Secret is collected with its owner", || {
        stage.secret("key").is_none()
    });
    stage.declare("key", "{}");
    let second = stage.wait_issued("key");
    let secret = stage.secret("key").unwrap();
    // It sees the Secrets come and go and takes them for the old ApiKey's.
    let refused = || {
        proxy
            .calls()
            .iter()
            .any(|r| r.call.target() == "apikeys/status" && r.upstream == Some(409))
    };
    wait::until("its report about the old ApiKey is refused", || {
        if refused() { Ok(()) } else { Err(old.logs()) }
    });
    assert_eq!(
        accepted(&proxy, "delete secrets") + accepted(&proxy, "patch secrets"),
        0
    );
    proxy.release_watches("apikeys");
    rest(&proxy);
    assert_eq!(
        stage.secret("key").unwrap().resource_version(),
        secret.resource_version(),
        "the new Secret is untouched"
    );
    assert_eq!(stage.status("key"), second);
    assert_ne!(
        second.hash, first.hash,
        "and the old key does not come back"
    );
}

/// Incidents 14 and 1: the API server crashes and comes back, twice, while keys are issued.
fn an_api_server_that_crashes_under_load_loses_no_key() {
    const KEYS: usize = 150;
    let cluster = Cluster::own();
    cluster.deprive("an API server that has just started may not have read its roles yet, and denies what they allow");
    let stage = Stage::on(&cluster, "crash");
    let operator = stage.operator().start_ready();
    stage.declare_many("key", KEYS, "{}");
    for part in [1, 2] {
        wait::until_true("some are issued", || {
            stage.secrets().len() >= part * KEYS / 4
        });
        cluster.control_plane.kill_api_server().unwrap();
        cluster.control_plane.start_api_server().unwrap();
    }
    stage.wait_many(KEYS, Phase::Active);
    assert!(operator.runs());
    assert!(operator.stop().success());
    assert_eq!(stage.secrets_agree(), KEYS);
    // The audit log knows every Secret that ever came into being.
    let mut created: BTreeMap<String, usize> = BTreeMap::new();
    for line in std::fs::read_to_string(cluster.control_plane.audit_log())
        .unwrap()
        .lines()
    {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let object = &event["objectRef"];
        if object["resource"] != "secrets" || object["namespace"] != stage.namespace.as_str() {
            continue;
        }
        let carried_out =
            event["stage"] == "ResponseComplete" && event["responseStatus"]["code"] == 201;
        if event["verb"] == "create" && carried_out {
            *created
                .entry(object["name"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
        assert!(
            matches!(
                event["verb"].as_str(),
                Some("create" | "get" | "list" | "watch")
            ),
            "{event}"
        );
    }
    assert!(created.values().all(|times| *times == 1), "{created:?}");
    assert!(
        leaks::audit(&cluster).keys == KEYS,
        "no other key was ever in a Secret"
    );
}

/// Incidents 4: after a crash between announcing and delivering, only a typed 404 lets the next version be minted.
fn a_secret_that_cannot_be_read_mints_nothing() {
    let faults = [
        ("500", Fault::Respond(500)),
        ("403", Fault::Respond(403)),
        ("hang", Fault::Hang),
        ("drop", Fault::Drop),
    ];
    for (name, fault) in faults {
        let stage = Stage::new(&format!("unreadable-{name}"));
        let history = stage.history();
        let proxy = stage.cluster.proxy();
        let operator = stage.operator_via(&proxy).start_ready();
        let announced = Matcher::call(Verb::Update, "apikeys/status");
        let killed = proxy.on(announced, When::After, Fault::call(operator.killer()));
        stage.declare("key", "{}");
        assert!(killed.fired(LIMIT), "it is killed when it has announced");
        let before = stage.status("key");
        let fault = proxy
            .on(Matcher::call(Verb::Get, "secrets"), When::Before, fault)
            .always();
        proxy.reset();
        let _operator = stage.operator_via(&proxy).start_ready();
        assert!(fault.fired_times(3, LIMIT), "it asks again and again");
        let versions = stage.status("key").versions;
        assert_eq!(versions, before.versions, "{name}: nothing is minted");
        assert_eq!(accepted(&proxy, "create secrets"), 0, "{name}");
        fault.remove();
        assert_eq!(
            stage.wait_issued("key").version,
            Some(2),
            "{name}: a 404 decides"
        );
        history.check();
    }
}

/// Incidents 3 and 4: a delivery without an answer asks first whether its announcement still stands; where that cannot be told,
/// nothing new is minted.
fn an_apikey_that_cannot_be_read_mints_nothing() {
    let stage = Stage::new("unasked");
    let history = stage.history();
    let proxy = stage.cluster.proxy();
    let _operator = stage.operator_via(&proxy).start_ready();
    proxy.on(
        Matcher::call(Verb::Create, "secrets"),
        When::Before,
        Fault::Drop,
    );
    let failing = |code| -> Rule {
        proxy
            .on(
                Matcher::call(Verb::Get, "apikeys"),
                When::Before,
                Fault::Respond(code),
            )
            .times(2)
    };
    let faults = [failing(500), failing(403), failing(503)];
    stage.declare("key", "{}");
    assert!(
        faults.iter().all(|fault| fault.fired_times(2, LIMIT)),
        "it asks until it knows"
    );
    let status = stage.wait_issued("key");
    assert_eq!(
        status.version,
        Some(1),
        "the key in its hands is delivered, no other minted"
    );
    assert_eq!(status.versions.len(), 1);
    assert_eq!(accepted(&proxy, "update apikeys/status"), 2);
    history.check();
}

/// A list or a watch that is never answered, at the start and later, does not keep the controller waiting for ever.
fn a_list_or_a_watch_that_is_never_answered_is_asked_for_anew() {
    let stage = Stage::new("unanswered");
    let proxy = stage.cluster.proxy();
    // What is asked before it is ready has an end of its own.
    let working = |call: &Call| call.verb != Verb::List || call.parameter("limit") == Some("500");
    let hangs = |verb: Verb, resource: &'static str| -> Rule {
        proxy.on(
            Matcher::call(verb, resource).filter(working),
            When::Before,
            Fault::Hang,
        )
    };
    let faults = [
        hangs(Verb::List, "secrets"),
        hangs(Verb::Watch, "apikeys"),
        hangs(Verb::List, "apikeypolicies"),
        hangs(Verb::Watch, "secrets"),
    ];
    let _operator = stage
        .operator_via(&proxy)
        .args(&["--request-timeout=1s"])
        .start_ready();
    assert!(
        faults.iter().all(|fault| fault.fired(LIMIT)),
        "none of them is answered"
    );
    stage.declare("k", "{}");
    stage.wait_issued("k");
    let again = hangs(Verb::Watch, "apikeys");
    proxy.cut_watches("apikeys");
    assert!(again.fired(LIMIT), "nor this one, later");
    stage.declare("later", "{}");
    stage.wait_issued("later");
}

/// Waits until the controller has come to rest.
fn rest(proxy: &Proxy) {
    assert!(
        proxy.wait_quiet(Duration::from_millis(700), LIMIT, Call::is_mutation),
        "the controller comes to rest"
    );
}

/// What the API server has carried out, events left aside.
fn writes(proxy: &Proxy) -> BTreeMap<String, usize> {
    let mut writes = BTreeMap::new();
    for record in proxy
        .mutations()
        .iter()
        .filter(|record| record.accepted() && record.call.resource != "events")
    {
        *writes
            .entry(format!("{} {}", record.call.verb, record.call.target()))
            .or_default() += 1;
    }
    writes
}

fn accepted(proxy: &Proxy, kind: &str) -> usize {
    writes(proxy).get(kind).copied().unwrap_or_default()
}
