//! What a gate answers while it is cut off from the API server, sees an old state of it, or has to begin anew.

mod many;

use std::sync::Arc;

use claviger::api::Phase;

use crate::support::Story;
use crate::support::client::Question;
use crate::support::cluster::Cluster;
use crate::support::gate::Gate;
use crate::support::operator::Operator;
use crate::support::proxy::{Fault, Gone, Matcher, Proxy, Verb, When};
use crate::support::stage::Stage;
use crate::support::wait::{self, LIMIT};

crate::stories![
    a_gate_that_is_cut_off_goes_by_its_own_clock,
    a_gate_that_may_be_no_older_refuses_all_until_it_knows_better,
    a_watch_that_died_silently_is_found_out,
    what_went_while_no_watch_ran_is_refused,
    what_happened_while_it_was_cut_off_takes_effect_afterwards,
    an_api_server_that_crashes_is_waited_for,
    a_gate_that_starts_without_an_api_server_says_so_and_waits,
    a_gate_without_a_right_says_which,
    definitions_that_come_later_are_waited_for,
];

/// The stories of all files.
pub(crate) fn all() -> Vec<Story> {
    [stories(), many::stories()].concat()
}

const ROUTE: &str = "audience=invoices-api";
const SPEC: &str = "{audiences: [invoices-api]}";

/// A namespace with a controller that works, and a proxy for the gate alone.
struct Room {
    stage: Stage,
    proxy: Proxy,
    _operator: Operator,
}

impl Room {
    fn new(name: &str) -> Self {
        Self::on(&Cluster::shared(), name)
    }

    fn on(cluster: &Arc<Cluster>, name: &str) -> Self {
        let stage = Stage::on(cluster, name);
        let operator = stage.operator().start_ready();
        Self {
            proxy: cluster.proxy(),
            stage,
            _operator: operator,
        }
    }

    /// A gate behind the proxy.
    fn gate(&self, arguments: &[&str]) -> Gate {
        Gate::builder(&self.stage.cluster)
            .via(&self.proxy)
            .args(arguments)
            .start()
    }

    /// Issues keys for the protected API.
    fn issue<const N: usize>(&self, names: [&str; N]) -> [String; N] {
        names.map(|name| self.issue_one(name, SPEC))
    }

    fn issue_one(&self, name: &str, spec: &str) -> String {
        self.stage.declare(name, spec);
        self.stage.wait_issued(name);
        self.key(name)
    }

    fn key(&self, name: &str) -> String {
        let apikey = self.stage.apikey(name);
        self.stage.mounted(&apikey.secret_name())[apikey.data_key()].clone()
    }

    fn revoke(&self, name: &str) {
        self.stage
            .patch(&format!("apikey/{name}"), "{\"spec\": {\"revoked\": true}}");
        self.stage.wait_phase(name, Phase::Revoked);
    }

    fn delete(&self, name: &str) {
        self.stage.kubectl(&["delete", "apikey", name]);
    }
}

fn wait_code(gate: &Gate, key: &str, code: &str) {
    wait_route(gate, ROUTE, key, code);
}

fn wait_route(gate: &Gate, settings: &str, key: &str, code: &str) {
    wait::until(&format!("the answer is {code}"), || {
        match gate.ask(settings, key) {
            (_, answer) if answer == code => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// Waits until it is not ready, for a reason with these words.
fn wait_unready(gate: &Gate, words: &[&str]) {
    wait::until(
        &format!("it is not ready and says {words:?}"),
        || match gate.get("/readyz") {
            Some((503, reason)) if words.iter().all(|word| reason.contains(word)) => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
    // A load balancer is told the same at the public address.
    let health = Question::get("/healthz").ask(gate.plain_address());
    assert_eq!(health.map(|answer| answer.status), Ok(503));
}

/// Incidents 16, 17, 22: during a rotation with an overlap both keys pass. Then the gate is cut off: what lasts goes on, and what
/// ends by time ends at its time.
fn a_gate_that_is_cut_off_goes_by_its_own_clock() {
    let room = Room::new("cut-off");
    let gate = room.gate(&[]);
    gate.wait_ready();
    let [lasting] = room.issue(["lasting"]);
    let old = room.issue_one(
        "turned",
        "{audiences: [invoices-api], rotation: {overlap: 20s}}",
    );
    let short = room.issue_one("short", "{audiences: [invoices-api], expiry: {after: 20s}}");
    for key in [&lasting, &old, &short] {
        wait_code(&gate, key, "VALID");
    }
    room.stage.raise("turned", 1);
    room.stage.wait_rotated("turned", 1);
    let new = room.key("turned");
    assert_ne!(old, new);
    wait_code(&gate, &new, "VALID");
    assert_eq!(
        gate.ask(ROUTE, &old),
        (200, "VALID".to_owned()),
        "within the overlap"
    );
    room.proxy.set_upstream_down(true);
    wait::until_true("it knows that it is cut off", || {
        gate.logs()
            .contains("the list or watch has failed and is retried")
    });
    assert_eq!(gate.ask(ROUTE, &lasting), (200, "VALID".to_owned()));
    wait_code(&gate, &short, "EXPIRED");
    wait_code(&gate, &old, "ROTATED");
    for key in [&lasting, &new] {
        assert_eq!(gate.ask(ROUTE, key), (200, "VALID".to_owned()));
    }
    assert_eq!(
        gate.get("/readyz").map(|(code, _)| code),
        Some(200),
        "it was told to serve on, however old it is"
    );
}

/// Incidents 16: an installation that would rather refuse than be late with a revocation.
fn a_gate_that_may_be_no_older_refuses_all_until_it_knows_better() {
    let room = Room::new("staleness");
    let [revoked, kept] = room.issue(["revoked", "kept"]);
    // Long enough that it is never too old before the API server is away, on a busy machine either.
    let gate = room.gate(&["--watch-timeout=1s", "--max-staleness=15s"]);
    gate.wait_ready();
    for key in [&revoked, &kept] {
        assert_eq!(gate.ask(ROUTE, key), (200, "VALID".to_owned()));
    }
    room.proxy.set_upstream_down(true);
    room.revoke("revoked");
    wait_code(&gate, &revoked, "UNAVAILABLE");
    assert_eq!(gate.ask(ROUTE, &kept), (503, "UNAVAILABLE".to_owned()));
    wait_unready(&gate, &["--max-staleness", "apikeys: "]);
    assert_eq!(
        gate.get("/healthz").map(|(code, _)| code),
        Some(200),
        "a restart would not help"
    );
    room.proxy.set_upstream_down(false);
    let first = wait::until("it answers again", || match gate.ask(ROUTE, &revoked) {
        (503, code) => Err(code),
        answer => Ok(answer),
    });
    assert_eq!(
        first,
        (401, "REVOKED".to_owned()),
        "nothing passes before what has happened is known"
    );
    wait_code(&gate, &kept, "VALID");
    gate.wait_ready();
    wait::until("the log tells both", || {
        let log = gate.logs();
        let (ended, begun) = (
            log.find("no verdict is given any more"),
            log.rfind("verdicts are given"),
        );
        if ended.is_some() && ended < begun {
            Ok(())
        } else {
            Err(log)
        }
    });
}

/// Nothing comes out of the connection any more, not even its end.
fn a_watch_that_died_silently_is_found_out() {
    let room = Room::new("silent");
    let [key] = room.issue(["key"]);
    let gate = room.gate(&["--watch-timeout=1s"]);
    gate.wait_ready();
    assert_eq!(gate.ask(ROUTE, &key), (200, "VALID".to_owned()));
    wait::until_true("it watches", || room.proxy.open_watches("apikeys") > 0);
    room.proxy.deaden_watches("apikeys");
    room.revoke("key");
    wait_code(&gate, &key, "REVOKED");
}

/// Incidents 14: events are lost until a 410 makes the gate list anew.
fn what_went_while_no_watch_ran_is_refused() {
    for gone in [Gone::Event, Gone::Status] {
        let room = Room::new("expired");
        let reader = format!("{}-reader", room.stage.namespace);
        room.stage.role(&reader, &["read"]);
        let [deleted, revoked, kept] = room.issue(["deleted", "revoked", "kept"]);
        let granted = room.issue_one(
            "granted",
            &format!("{{audiences: [invoices-api], roles: [{reader}]}}"),
        );
        let gate = room.gate(&[]);
        gate.wait_ready();
        let reading = format!("{ROUTE}&permissions=read");
        for (settings, key) in [
            (ROUTE, &deleted),
            (ROUTE, &revoked),
            (ROUTE, &kept),
            (&reading, &granted),
        ] {
            assert_eq!(gate.ask(settings, key), (200, "VALID".to_owned()));
        }
        let watches = ["apikeys", "apikeyroles"];
        wait::until_true("it watches", || {
            watches
                .iter()
                .all(|resource| room.proxy.open_watches(resource) > 0)
        });
        for resource in watches {
            room.proxy.swallow_watch_events(resource);
        }
        room.delete("deleted");
        room.revoke("revoked");
        room.stage.role(&reader, &["write"]);
        assert!(
            room.proxy.wait_stopped_events("apikeys", 2, LIMIT)
                && room.proxy.wait_stopped_events("apikeyroles", 1, LIMIT)
        );
        assert_eq!(
            gate.ask(ROUTE, &deleted),
            (200, "VALID".to_owned()),
            "it cannot know"
        );
        for resource in watches {
            room.proxy.expire_watches_as(resource, gone);
        }
        wait_code(&gate, &deleted, "NOT_FOUND");
        wait_code(&gate, &revoked, "REVOKED");
        wait_route(&gate, &reading, &granted, "INSUFFICIENT_PERMISSIONS");
        assert_eq!(gate.ask(ROUTE, &kept), (200, "VALID".to_owned()));
        room.stage.kubectl(&["delete", "apikeyrole", &reader]);
    }
}

fn what_happened_while_it_was_cut_off_takes_effect_afterwards() {
    let room = Room::new("reconnected");
    let reader = format!("{}-reader", room.stage.namespace);
    room.stage.role(&reader, &["read"]);
    let [deleted, revoked] = room.issue(["deleted", "revoked"]);
    let granted = room.issue_one(
        "granted",
        &format!("{{audiences: [invoices-api], roles: [{reader}]}}"),
    );
    let gate = room.gate(&[]);
    gate.wait_ready();
    let reading = format!("{ROUTE}&permissions=read");
    for (settings, key) in [(ROUTE, &deleted), (ROUTE, &revoked), (&reading, &granted)] {
        assert_eq!(gate.ask(settings, key), (200, "VALID".to_owned()));
    }
    room.proxy.set_upstream_down(true);
    room.delete("deleted");
    room.revoke("revoked");
    room.stage.kubectl(&["delete", "apikeyrole", &reader]);
    let [new] = room.issue(["new"]);
    assert_eq!(
        gate.ask(ROUTE, &new),
        (401, "NOT_FOUND".to_owned()),
        "it cannot know"
    );
    assert_eq!(
        gate.ask(ROUTE, &revoked),
        (200, "VALID".to_owned()),
        "nor this: --max-staleness is for those who mind"
    );
    room.proxy.set_upstream_down(false);
    wait_code(&gate, &deleted, "NOT_FOUND");
    wait_code(&gate, &revoked, "REVOKED");
    wait_code(&gate, &new, "VALID");
    wait_route(&gate, &reading, &granted, "INSUFFICIENT_PERMISSIONS");
}

fn an_api_server_that_crashes_is_waited_for() {
    let cluster = Cluster::own();
    cluster.deprive("an API server that has just started may not know yet what rights there are");
    let room = Room::on(&cluster, "crashed");
    let [key] = room.issue(["key"]);
    let gate = Gate::builder(&cluster).start_ready();
    assert_eq!(gate.ask(ROUTE, &key), (200, "VALID".to_owned()));
    for _ in 0..2 {
        let noticed = || {
            gate.logs()
                .matches("the list or watch has failed and is retried")
                .count()
        };
        let before = noticed();
        cluster.control_plane.kill_api_server().unwrap();
        wait::until_true("it has noticed", || noticed() > before);
        assert_eq!(gate.ask(ROUTE, &key), (200, "VALID".to_owned()));
        cluster.control_plane.start_api_server().unwrap();
    }
    // An API server that has just started does not take ApiKeys yet.
    cluster.await_policies();
    let [late] = room.issue(["late"]);
    wait_code(&gate, &late, "VALID");
    room.revoke("key");
    wait_code(&gate, &key, "REVOKED");
}

/// A gate that restarts while the API server is away knows no key, and refuses to guess.
fn a_gate_that_starts_without_an_api_server_says_so_and_waits() {
    let room = Room::new("alone");
    let [key] = room.issue(["key"]);
    let before = room.gate(&[]);
    before.wait_ready();
    room.proxy.set_upstream_down(true);
    assert!(before.stop().success(), "it ends in order");
    let gate = room.gate(&[]);
    wait_unready(&gate, &["still loading", "apikeys: ", "apikeyroles: "]);
    assert_eq!(gate.ask(ROUTE, &key), (503, "UNAVAILABLE".to_owned()));
    assert_eq!(gate.get("/healthz").map(|(code, _)| code), Some(200));
    room.proxy.set_upstream_down(false);
    gate.wait_ready();
    assert_eq!(gate.ask(ROUTE, &key), (200, "VALID".to_owned()));
}

fn a_gate_without_a_right_says_which() {
    let room = Room::new("rightless");
    let [key] = room.issue(["key"]);
    let deny = |resource| {
        room.proxy
            .on(
                Matcher::call(Verb::List, resource),
                When::Before,
                Fault::Respond(403),
            )
            .always()
    };
    let denied = [deny("apikeys"), deny("apikeyroles")];
    let gate = room.gate(&[]);
    let words = [
        "cannot list",
        "grant this right with RBAC",
        "list and watch on apikeys.claviger.dev",
        "--cluster-objects=false",
    ];
    wait_unready(&gate, &words);
    wait::until_true("the log says it, too", || {
        words.iter().all(|word| gate.logs().contains(word))
    });
    denied[0].remove();
    wait_unready(&gate, &["list and watch on apikeyroles.claviger.dev"]);
    assert_eq!(
        gate.ask(ROUTE, &key),
        (503, "UNAVAILABLE".to_owned()),
        "what its roles allow is not known"
    );
    denied[1].remove();
    gate.wait_ready();
    assert_eq!(gate.ask(ROUTE, &key), (200, "VALID".to_owned()));
}

fn definitions_that_come_later_are_waited_for() {
    let cluster = Cluster::without_definitions();
    let gate = Gate::builder(&cluster).start();
    wait_unready(
        &gate,
        &[
            "apikeys.claviger.dev is not known",
            "CustomResourceDefinition",
            "claviger manifests",
        ],
    );
    cluster.install_definitions();
    gate.wait_ready();
}
