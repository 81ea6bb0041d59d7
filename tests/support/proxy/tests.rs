//! The proxy's own tests, as named functions: a harness without `#[test]` can run them too.

mod fake;

use super::call::Call;
use super::{Fault, Gone, Hold, Matcher, Record, Verb, When};
use fake::{LIMIT, MOMENT, Next, Stage};
use futures::{StreamExt, TryStreamExt};
use hyper::{Method, StatusCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// All tests of this room, for the harness to list.
pub(crate) fn trials() -> Vec<(&'static str, fn())> {
    vec![
        ("proxy::reads_paths", reads_paths),
        ("proxy::counts_and_records", counts_and_records),
        ("proxy::acts_before_and_after", acts_before_and_after),
        (
            "proxy::stops_a_process_at_a_request",
            stops_a_process_at_a_request,
        ),
        (
            "proxy::refuses_as_the_api_server",
            refuses_as_the_api_server,
        ),
        ("proxy::holds_and_hangs", holds_and_hangs),
        ("proxy::delivers_the_late_write", delivers_the_late_write),
        ("proxy::nth_and_times", nth_and_times),
        ("proxy::streams_watches", streams_watches),
        ("proxy::holds_watches", holds_watches),
        ("proxy::swallows_and_expires", swallows_and_expires),
        ("proxy::expires_each_watch_once", expires_each_watch_once),
        (
            "proxy::an_expired_watcher_lists_again",
            an_expired_watcher_lists_again,
        ),
        (
            "proxy::goes_down_and_shifts_dates",
            goes_down_and_shifts_dates,
        ),
        ("proxy::drops_inside_async", drops_inside_async),
    ]
}

const KEYS: &str = "/apis/claviger.dev/v1/namespaces/a/apikeys";
const STATUS: &str = "/apis/claviger.dev/v1/namespaces/a/apikeys/k/status";
const WATCH: &str = "/api/v1/configmaps?watch=1&resourceVersion=5";

fn update_status() -> Matcher {
    Matcher::call(Verb::Update, "apikeys/status")
}

fn reads_paths() {
    let table = [
        ("GET", "/api/v1/secrets", "", "list secrets #0"),
        ("GET", "/api/v1/secrets?watch=true", "", "watch secrets #0"),
        ("GET", "/api/v1/secrets?watch=false", "", "list secrets #0"),
        (
            "GET",
            "/api/v1/watch/namespaces/a/secrets",
            "",
            "watch secrets a #0",
        ),
        ("GET", "/api/v1/namespaces", "", "list namespaces #0"),
        ("GET", "/api/v1/namespaces/a", "", "get namespaces a/a #0"),
        (
            "PUT",
            "/api/v1/namespaces/a/finalize",
            "",
            "update namespaces/finalize a/a #0",
        ),
        (
            "GET",
            "/api/v1/namespaces/a/secrets/s",
            "",
            "get secrets a/s #0",
        ),
        (
            "GET",
            "/api/v1/namespaces/a/secrets/s%2Dt",
            "",
            "get secrets a/s-t #0",
        ),
        (
            "DELETE",
            "/api/v1/namespaces/a/secrets",
            "",
            "deletecollection secrets a #0",
        ),
        (
            "DELETE",
            "/api/v1/namespaces/a/secrets/s",
            "",
            "delete secrets a/s #0",
        ),
        (
            "DELETE",
            "/api/v1/namespaces/a/secrets/s",
            r#"{"dryRun":["All"]}"#,
            "delete secrets a/s #0 (dry run)",
        ),
        (
            "POST",
            KEYS,
            r#"{"metadata":{"name":"k"}}"#,
            "create apikeys a/k #0",
        ),
        (
            "POST",
            KEYS,
            r#"{"metadata":{"generateName":"k-"}}"#,
            "create apikeys a #0",
        ),
        ("PUT", STATUS, "", "update apikeys/status a/k #0"),
        (
            "PATCH",
            &format!("{STATUS}?fieldManager=c&dryRun=All"),
            "",
            "patch apikeys/status a/k #0 (dry run)",
        ),
        (
            "GET",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/r",
            "",
            "get clusterroles r #0",
        ),
        (
            "GET",
            "/apis/claviger.dev/v1",
            "",
            "get /apis/claviger.dev/v1",
        ),
        ("GET", "/apis", "", "get /apis"),
        ("GET", "/api/v1", "", "get /api/v1"),
        ("GET", "/healthz", "", "get /healthz"),
    ];
    for (method, uri, body, expected) in table {
        let (method, uri) = (method.parse().expect("method"), uri.parse().expect("uri"));
        let call = Call::parse(&method, &uri, body.as_bytes());
        assert_eq!(call.to_string(), expected, "{method} {uri}");
    }
    let uri = "/api/v1/pods?labelSelector=app%3Dx%2Cy+in+%28z%29".parse();
    let call = Call::parse(&Method::GET, &uri.expect("uri"), b"");
    assert_eq!(call.parameter("labelSelector"), Some("app=x,y in (z)"));
    let call = Call::parse(&Method::PUT, &STATUS.parse().expect("uri"), b"");
    assert_eq!(call.group, "claviger.dev");
}

fn counts_and_records() {
    let stage = Stage::new();
    stage.proxy.record_bodies(true);
    stage.request(Method::PUT, STATUS, r#"{"a":1}"#);
    stage.request(Method::PUT, STATUS, r#"{"a":2}"#);
    stage.request(Method::PUT, STATUS.trim_end_matches("/status"), "{}");
    stage.request(Method::GET, KEYS, "");
    let shown: Vec<_> = stage
        .proxy
        .calls()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        shown,
        [
            "update apikeys/status a/k #1 -> 200",
            "update apikeys/status a/k #2 -> 200",
            "update apikeys a/k #1 -> 200",
            "list apikeys a #1 -> 200",
        ]
    );
    let second = &stage.proxy.mutations()[1];
    assert_eq!(second.request_json().expect("recorded")["a"], 2);
    assert_eq!(second.response_json().expect("recorded")["a"], 2);
    assert_eq!(stage.proxy.mutations().len(), 3);
    assert_eq!(stage.proxy.count(|call| call.verb == Verb::List), 1);
    assert!(stage.proxy.wait_quiet(MOMENT, LIMIT, Call::is_mutation));
    stage.proxy.reset();
    stage.code(Method::PUT, STATUS);
    assert!(
        stage
            .proxy
            .wait_for(LIMIT, |record| record.answered == Some(200))
    );
    assert_eq!(stage.proxy.calls()[0].call.ordinal, 1);
}

fn acts_before_and_after() {
    let stage = Stage::new();
    let before = stage
        .proxy
        .on(update_status().ordinal(1), When::Before, Fault::Drop);
    let after = stage
        .proxy
        .on(update_status().ordinal(2), When::After, Fault::Drop);
    assert_eq!(stage.code(Method::PUT, STATUS), None);
    assert!(before.fired(LIMIT) && !after.fired(Duration::ZERO));
    assert_eq!(stage.seen().len(), 0, "before: never forwarded");
    assert_eq!(stage.code(Method::PUT, STATUS), None);
    assert!(after.fired(LIMIT));
    assert_eq!(stage.seen().len(), 1, "after: forwarded once");
    assert_eq!(stage.code(Method::PUT, STATUS), Some(200));
    let upstream: Vec<_> = stage.proxy.calls().iter().map(|r| r.upstream).collect();
    assert_eq!(upstream, [None, Some(200), Some(200)]);
    let trouble = &stage.proxy.calls()[1].trouble;
    assert_eq!(trouble.as_deref(), Some("after: drop"));
}

fn stops_a_process_at_a_request() {
    let stage = Stage::new();
    let process = std::process::Command::new("sleep").arg("60").spawn();
    let mut process = process.expect("sleep");
    let dead = Arc::new(AtomicBool::new(false));
    let told = dead.clone();
    let fault = stage.proxy.on(
        update_status().ordinal(1),
        When::After,
        Fault::call(move || {
            process.kill().expect("kill");
            process.wait().expect("wait");
            told.store(true, Ordering::SeqCst);
        }),
    );
    assert_eq!(stage.code(Method::PUT, STATUS), None);
    assert!(fault.fired(LIMIT) && dead.load(Ordering::SeqCst));
    assert_eq!(stage.seen(), [format!("PUT {STATUS}")]);
}

fn refuses_as_the_api_server() {
    let stage = Stage::new();
    let reasons = [
        (Method::PUT, STATUS, 409, "Conflict"),
        (Method::POST, KEYS, 409, "AlreadyExists"),
        (Method::PUT, STATUS, 429, "TooManyRequests"),
        (Method::PUT, STATUS, 500, "InternalError"),
        (Method::PUT, STATUS, 503, "ServiceUnavailable"),
        (Method::PUT, STATUS, 403, "Forbidden"),
    ];
    for (method, path, code, reason) in reasons {
        stage
            .proxy
            .on(Matcher::any(), When::Before, Fault::Respond(code));
        let answer = stage.request(method, path, "{}").expect("an answer");
        assert_eq!(answer.status().as_u16(), code);
        assert_eq!(answer.headers().contains_key("retry-after"), code == 429);
        let status: serde_json::Value =
            serde_json::from_str(&stage.text(answer)).expect("a Status");
        assert_eq!(status["kind"], "Status");
        assert_eq!(status["reason"], reason);
        assert_eq!(status["code"], code);
    }
    assert_eq!(stage.seen().len(), 0);
    stage
        .proxy
        .on(Matcher::any(), When::After, Fault::Respond(500));
    assert_eq!(stage.code(Method::PUT, STATUS), Some(500));
    assert_eq!(stage.seen().len(), 1);
    assert!(stage.proxy.calls()[6].accepted());
}

fn holds_and_hangs() {
    let stage = Stage::new();
    for (when, seen) in [(When::Before, 0), (When::After, 2)] {
        // In the second round the first round's request counts too.
        let hold = Hold::new();
        stage
            .proxy
            .on(update_status(), when, Fault::Delay(hold.clone()));
        let request = stage.send(Method::PUT, STATUS, "{}");
        assert!(hold.reached(LIMIT));
        assert!(stage.runtime.block_on(hold.reached_async(LIMIT)));
        std::thread::sleep(MOMENT);
        assert!(!request.is_finished());
        assert_eq!(stage.seen().len(), seen);
        hold.release();
        let answer = stage.runtime.block_on(request).expect("no panic");
        assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    }
    let hang = stage.proxy.on(update_status(), When::Before, Fault::Hang);
    let request = stage.send(Method::PUT, STATUS, "{}");
    assert!(hang.fired(LIMIT));
    std::thread::sleep(MOMENT);
    assert!(!request.is_finished());
    hang.remove();
    assert!(stage.runtime.block_on(request).expect("no panic").is_none());
    assert_eq!(stage.code(Method::PUT, STATUS), Some(200));
}

fn delivers_the_late_write() {
    let stage = Stage::new();
    let hold = Hold::new();
    stage
        .proxy
        .on(update_status(), When::Before, Fault::Delay(hold.clone()));
    let request = stage.send(Method::PUT, STATUS, "{}");
    assert!(hold.reached(LIMIT));
    request.abort(); // the sender dies
    std::thread::sleep(MOMENT);
    assert_eq!(stage.seen().len(), 0);
    hold.release();
    assert!(stage.proxy.wait_for(LIMIT, Record::accepted));
    assert_eq!(stage.seen().len(), 1);
}

fn nth_and_times() {
    let stage = Stage::new();
    let codes = |n: usize| -> Vec<_> { (0..n).map(|_| stage.code(Method::PUT, STATUS)).collect() };
    let rule = stage
        .proxy
        .on(Matcher::work().nth(2), When::Before, Fault::Respond(500));
    stage.code(
        Method::PUT,
        "/apis/coordination.k8s.io/v1/namespaces/a/leases/l",
    );
    assert_eq!(codes(3), [Some(200), Some(500), Some(200)]);
    assert_eq!(rule.count(), 1);
    stage
        .proxy
        .on(update_status(), When::Before, Fault::Respond(503))
        .times(2);
    assert_eq!(codes(3), [Some(503), Some(503), Some(200)]);
    let rule = stage.proxy.on(
        update_status().filter(|call| call.name.is_some()),
        When::Before,
        Fault::Respond(403),
    );
    let rule = rule.always();
    assert_eq!(codes(3), [Some(403); 3]);
    assert!(rule.fired_times(3, LIMIT));
    stage.proxy.clear_faults();
    assert_eq!(codes(1), [Some(200)]);
}

fn streams_watches() {
    let stage = Stage::new();
    let mut watch = stage.watch(WATCH);
    for line in ["{\"type\":\"ADDED\"}\n", "{\"type\":\"DELETED\"}\n"] {
        stage.emit(line);
        assert_eq!(stage.next(&mut watch, LIMIT), Next::Chunk(line.to_owned()));
    }
    stage.emit("{\"type\":");
    assert_eq!(
        stage.next(&mut watch, MOMENT),
        Next::Silence,
        "half an event waits"
    );
    stage.emit("\"ADDED\"}\n");
    let whole = "{\"type\":\"ADDED\"}\n".to_owned();
    assert_eq!(stage.next(&mut watch, LIMIT), Next::Chunk(whole));
    assert_eq!(stage.proxy.open_watches("configmaps"), 1);
    stage.proxy.cut_watches("configmaps");
    assert_eq!(stage.next(&mut watch, LIMIT), Next::End, "an orderly end");
    let watch = stage.watch(WATCH);
    assert_eq!(stage.proxy.open_watches("configmaps"), 1);
    drop(watch);
    let end = std::time::Instant::now() + LIMIT;
    while stage.proxy.open_watches("configmaps") > 0 {
        assert!(
            std::time::Instant::now() < end,
            "a client that left is noticed"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn holds_watches() {
    let stage = Stage::new();
    let mut watch = stage.watch(WATCH);
    stage.proxy.hold_watches("configmaps");
    stage.emit("{\"type\":\"BOOKMARK\"}\n");
    stage.emit("{\"type\":\"ADDED\"}\n");
    assert!(stage.proxy.wait_stopped_events("configmaps", 1, LIMIT));
    assert_eq!(stage.next(&mut watch, MOMENT), Next::Silence);
    let mut later = stage.watch(WATCH);
    stage.emit("{\"type\":\"MODIFIED\"}\n");
    assert!(stage.proxy.wait_stopped_events("configmaps", 3, LIMIT));
    assert_eq!(
        stage.next(&mut later, MOMENT),
        Next::Silence,
        "a new watch is held too"
    );
    stage.proxy.release_watches("configmaps");
    for event in ["BOOKMARK", "ADDED", "MODIFIED"] {
        let line = format!("{{\"type\":\"{event}\"}}\n");
        assert_eq!(stage.next(&mut watch, LIMIT), Next::Chunk(line));
    }
}

fn swallows_and_expires() {
    let stage = Stage::new();
    let mut watch = stage.watch(WATCH);
    stage.proxy.swallow_watch_events("configmaps");
    stage.emit("{\"type\":\"ADDED\"}\n");
    assert!(stage.proxy.wait_stopped_events("configmaps", 1, LIMIT));
    assert_eq!(stage.next(&mut watch, MOMENT), Next::Silence);
    stage.proxy.expire_watches("configmaps");
    assert_eq!(stage.next(&mut watch, LIMIT), Next::End);
    let refusal = stage.watch(WATCH);
    assert_eq!(refusal.status(), StatusCode::OK);
    let event: serde_json::Value = serde_json::from_str(&stage.text(refusal)).expect("an event");
    assert_eq!(event["type"], "ERROR");
    assert_eq!(event["object"]["code"], 410);
    assert_eq!(event["object"]["reason"], "Expired");
    let mut watch = stage.watch(WATCH);
    stage.emit("{\"type\":\"ADDED\"}\n");
    let normal = stage.next(&mut watch, LIMIT);
    assert!(matches!(normal, Next::Chunk(_)), "{normal:?}");
    stage.proxy.expire_watches_as("configmaps", Gone::Status);
    assert_eq!(stage.watch(WATCH).status(), StatusCode::GONE);
    assert_eq!(stage.watch(WATCH).status(), StatusCode::OK);
}

fn expires_each_watch_once() {
    let stage = Stage::new();
    let other = format!("{WATCH}&labelSelector=a%3Db");
    let _open = [stage.watch(WATCH), stage.watch(&other)];
    stage.proxy.expire_watches_as("configmaps", Gone::Status);
    assert_eq!(
        stage.watch("/api/v1/configmaps?watch=1").status(),
        StatusCode::OK
    );
    assert_eq!(stage.watch(WATCH).status(), StatusCode::GONE);
    assert_eq!(stage.watch(WATCH).status(), StatusCode::OK);
    assert_eq!(stage.watch(&other).status(), StatusCode::GONE);
    assert_eq!(stage.watch(&other).status(), StatusCode::OK);
}

/// The point of expiring: kube's own watcher must fetch the list anew.
fn an_expired_watcher_lists_again() {
    use k8s_openapi::api::core::v1::ConfigMap;
    let stage = Stage::new();
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&stage.proxy.kubeconfig("token"));
    let kubeconfig = kubeconfig.expect("a kubeconfig");
    let options = kube::config::KubeConfigOptions::default();
    let lists = |n: usize| {
        let proxy = &stage.proxy;
        assert!(proxy.wait_for(LIMIT, |r| r.call.verb == Verb::List && r.call.ordinal == n));
        assert!(proxy.wait_for(LIMIT, |r| r.call.verb == Verb::Watch
            && r.call.ordinal == 2 * n - 1
            && r.answered.is_some()));
    };
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options);
    let client = stage.runtime.block_on(async {
        kube::Client::try_from(config.await.expect("a config")).expect("a client")
    });
    let api = kube::Api::<ConfigMap>::all(client);
    let watcher = kube_runtime::watcher(api, kube_runtime::watcher::Config::default());
    let events = watcher.map(Ok::<_, ()>).try_for_each(|_| async { Ok(()) });
    let running = stage.runtime.spawn(events);
    lists(1);
    stage.proxy.expire_watches("configmaps");
    lists(2); // a watch that is refused, a list, a watch
    running.abort();
}

fn goes_down_and_shifts_dates() {
    let stage = Stage::new();
    let date = |shift| {
        stage.proxy.shift_date(shift);
        let answer = stage.request(Method::GET, KEYS, "").expect("an answer");
        answer.headers()["date"].to_str().expect("text").to_owned()
    };
    assert_eq!(date(0), "Tue, 01 Jan 2030 00:00:00 GMT");
    assert_eq!(date(-1), "Mon, 31 Dec 2029 23:59:59 GMT");
    assert_eq!(date(86_400), "Wed, 02 Jan 2030 00:00:00 GMT");
    let mut watch = stage.watch(WATCH);
    stage.proxy.set_upstream_down(true);
    assert_eq!(stage.code(Method::PUT, STATUS), None);
    let broken = stage
        .runtime
        .block_on(http_body_util::BodyExt::frame(&mut watch));
    assert!(
        broken.is_some_and(|frame| frame.is_err()),
        "open watches break"
    );
    stage.proxy.set_upstream_down(false);
    assert_eq!(stage.code(Method::PUT, STATUS), Some(200));
}

fn drops_inside_async() {
    let stage = Stage::new();
    let url = stage.proxy.url();
    let Stage { proxy, runtime, .. } = stage;
    runtime.block_on(async move { drop(proxy) });
    let address = url.trim_start_matches("http://").to_owned();
    let end = std::time::Instant::now() + LIMIT;
    while std::net::TcpStream::connect(&address).is_ok() {
        assert!(
            std::time::Instant::now() < end,
            "a dropped proxy stops listening"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
