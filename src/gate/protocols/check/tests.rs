use envoy_types::pb::envoy::config::core::v3::HeaderMap;
use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::attribute_context;
use serde_json::json;

use super::*;
use crate::gate::testing::{apikey, desk, key, role};

fn raw(headers: &[(&str, &str)]) -> HttpRequest {
    let header = |(name, value): &(&str, &str)| HeaderValue {
        key: (*name).to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..HeaderValue::default()
    };
    HttpRequest {
        header_map: Some(HeaderMap {
            headers: headers.iter().map(header).collect(),
        }),
        ..HttpRequest::default()
    }
}

fn joined(headers: &[(&str, &str)]) -> HttpRequest {
    let headers = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    HttpRequest {
        headers,
        ..HttpRequest::default()
    }
}

async fn ask(settings: &[(&str, &str)], original: HttpRequest) -> CheckResponse {
    let spec = json!({ "spec": { "roles": ["viewer"], "metadata": { "tier": "gold" } } });
    let desk = desk([apikey(1, spec)], &[role("viewer", &["invoices:read"])]);
    let settings = settings
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let attributes = AttributeContext {
        request: Some(attribute_context::Request {
            http: Some(original),
            ..attribute_context::Request::default()
        }),
        context_extensions: settings,
        ..AttributeContext::default()
    };
    let request = Request::new(CheckRequest {
        attributes: Some(attributes),
    });
    Check { desk }.check(request).await.unwrap().into_inner()
}

fn ok(response: &CheckResponse) -> &OkHttpResponse {
    match &response.http_response {
        Some(HttpResponse::OkResponse(ok)) => ok,
        other => panic!("{other:?}"),
    }
}

fn denial(response: &CheckResponse) -> (i32, i32, &str) {
    match &response.http_response {
        Some(HttpResponse::DeniedResponse(denied)) => (
            response.status.as_ref().unwrap().code,
            denied.status.as_ref().unwrap().code,
            &denied.body,
        ),
        other => panic!("{other:?}"),
    }
}

const AUDIENCE: (&str, &str) = ("audience", "invoices-api");

#[tokio::test]
async fn the_upstream_gets_the_identity_and_not_the_key() {
    let bearer = format!("Bearer {}", key(1));
    let headers = [
        ("authorization", bearer.as_str()),
        ("X-Claviger-Roles", "admin"),
        ("x_claviger_admin", "yes"),
        ("accept", "*/*"),
    ];
    for original in [raw(&headers), joined(&headers)] {
        let response = ask(&[AUDIENCE], original).await;
        let ok = ok(&response);
        let set: HashMap<_, _> = ok
            .headers
            .iter()
            .filter_map(|option| option.header.as_ref())
            .map(|h| (&*h.key, &*h.value))
            .collect();
        assert_eq!(set.len(), answer::IDENTITY.len());
        assert_eq!(
            (set["x-claviger-roles"], set["x-claviger-permissions"]),
            ("viewer", "invoices:read")
        );
        let mut removed = ok.headers_to_remove.clone();
        removed.sort_unstable();
        assert_eq!(
            removed,
            ["authorization", "x_claviger_admin"],
            "those that are set are not removed"
        );
    }
}

#[tokio::test]
#[allow(deprecated, reason = "older Envoys read `append`")]
async fn every_header_replaces_the_clients() {
    let cookie = format!("a=b; key={}", key(1));
    let settings = [AUDIENCE, ("credentials", "cookie:key")];
    let allowed = ask(&settings, raw(&[("cookie", &cookie)])).await;
    let refused = ask(&settings, raw(&[])).await;
    let Some(HttpResponse::DeniedResponse(denied)) = &refused.http_response else {
        panic!("{refused:?}")
    };
    assert_eq!((ok(&allowed).headers.len(), denied.headers.len()), (10, 4));
    for option in ok(&allowed).headers.iter().chain(&denied.headers) {
        assert_eq!(
            option.append,
            Some(BoolValue { value: false }),
            "{option:?}"
        );
        assert_eq!(
            option.append_action(),
            HeaderAppendAction::OverwriteIfExistsOrAdd,
            "{option:?}"
        );
    }
}

#[tokio::test]
async fn a_key_leaves_the_query_and_the_cookies() {
    let path = format!("/a?b=c&key={}", key(1));
    let response = ask(
        &[AUDIENCE, ("credentials", "query:key")],
        HttpRequest { path, ..raw(&[]) },
    )
    .await;
    assert_eq!(ok(&response).query_parameters_to_remove, ["key"]);
    let cookie = format!("a=b; key={}; c=d", key(1));
    let response = ask(
        &[AUDIENCE, ("credentials", "cookie:key")],
        raw(&[("cookie", &cookie)]),
    )
    .await;
    let kept = ok(&response)
        .headers
        .iter()
        .filter_map(|option| option.header.as_ref())
        .find(|header| header.key == "cookie");
    assert_eq!(kept.unwrap().value, "a=b; c=d");
    let cookie = format!("key={}", key(1));
    let response = ask(
        &[AUDIENCE, ("credentials", "cookie:key")],
        raw(&[("cookie", &cookie)]),
    )
    .await;
    assert_eq!(ok(&response).headers_to_remove, ["cookie"]);
}

#[tokio::test]
async fn other_cookies_travel_on_byte_for_byte() {
    for (before, after) in [
        ("a=b; key=K; c=d", Some("a=b; c=d")),
        ("key=K;a=b ;  c", Some("a=b ;  c")),
        ("flag; key=K", Some("flag")),
        (
            "a=\"x y\";; key = z ;key=K; =e; f=",
            Some("a=\"x y\";; key = z ; =e; f="),
        ),
        (" ; key=K; ;", None),
    ] {
        let cookie = before.replace('K', &key(1));
        let response = ask(
            &[AUDIENCE, ("credentials", "cookie:key")],
            raw(&[("cookie", &cookie)]),
        )
        .await;
        let ok = ok(&response);
        let kept = ok
            .headers
            .iter()
            .filter_map(|option| option.header.as_ref())
            .find(|header| header.key == "cookie");
        assert_eq!(kept.map(|header| &*header.value), after, "{before}");
        assert_eq!(ok.headers_to_remove.is_empty(), after.is_some(), "{before}");
    }
    let two = format!("key={}; c=d", key(1));
    let response = ask(
        &[AUDIENCE, ("credentials", "cookie:key")],
        raw(&[("cookie", "a; b=1"), ("cookie", &two)]),
    )
    .await;
    let kept = ok(&response)
        .headers
        .iter()
        .filter_map(|option| option.header.as_ref())
        .find(|header| header.key == "cookie");
    assert_eq!(
        kept.unwrap().value,
        "a; b=1; c=d",
        "one header replaces both"
    );
}

/// Envoy takes values of headers as text only. What cannot be told is left out: it is never made into something else.
#[tokio::test]
async fn a_cookie_that_is_no_text_does_not_become_another() {
    let mut cookie = b"a=\xff\xfe; b=c; key=".to_vec();
    cookie.extend_from_slice(key(1).as_bytes());
    let header = HeaderValue {
        key: "cookie".to_owned(),
        raw_value: cookie,
        ..HeaderValue::default()
    };
    let original = HttpRequest {
        header_map: Some(HeaderMap {
            headers: vec![header],
        }),
        ..HttpRequest::default()
    };
    let response = ask(&[AUDIENCE, ("credentials", "cookie:key")], original).await;
    let kept = ok(&response)
        .headers
        .iter()
        .filter_map(|option| option.header.as_ref())
        .find(|header| header.key == "cookie");
    assert_eq!(kept.unwrap().value, "b=c");
}

#[tokio::test]
async fn a_refusal_says_why_to_envoy_and_to_the_client() {
    let response = ask(&[AUDIENCE], raw(&[])).await;
    let (grpc, status, body) = denial(&response);
    assert_eq!((grpc, status), (16, 401));
    assert!(body.contains("\"MISSING\""), "{body}");
    let shown = [("x-api-key", key(1))];
    let shown: Vec<(&str, &str)> = shown
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let response = ask(&[("audience", "other")], raw(&shown)).await;
    assert_eq!((denial(&response).0, denial(&response).1), (7, 403));
    let facts = response.dynamic_metadata.as_ref().unwrap();
    assert_eq!(facts.fields["code"], text("WRONG_AUDIENCE"));
    assert_eq!(
        facts.fields["keyId"],
        text("00000000000000000000000000000001"),
        "for the log of the proxy"
    );
    let response = ask(&[("audiense", "x")], raw(&shown)).await;
    assert_eq!(denial(&response).1, 403, "a route that is not understood");
}

#[tokio::test]
async fn two_keys_that_envoy_joined_are_not_one() {
    let two = format!("{},{}", key(1), key(1));
    let response = ask(&[AUDIENCE], joined(&[("x-api-key", &two)])).await;
    assert!(denial(&response).2.contains("MALFORMED"));
}

#[tokio::test]
async fn rate_limits_and_logs_get_the_facts() {
    let shown = key(1);
    let response = ask(&[AUDIENCE], raw(&[("x-api-key", &shown)])).await;
    let facts = response.dynamic_metadata.unwrap().fields;
    assert_eq!(facts["namespace"], text("team-a"));
    assert_eq!(
        facts["metadata"],
        value(Kind::StructValue(Struct {
            fields: HashMap::from([("tier".to_owned(), text("gold"))])
        }))
    );
}

#[tokio::test]
async fn a_gate_that_knows_nothing_yet_gives_an_error_and_no_verdict() {
    let mut desk = Arc::into_inner(desk([], &[])).unwrap();
    desk.freshness = Arc::new(crate::gate::freshness::Freshness::new(true, None));
    let attributes = AttributeContext {
        context_extensions: HashMap::from([("audience".to_owned(), "a".to_owned())]),
        ..AttributeContext::default()
    };
    let answer = Check {
        desk: Arc::new(desk),
    }
    .check(Request::new(CheckRequest {
        attributes: Some(attributes),
    }))
    .await;
    assert_eq!(answer.unwrap_err().code(), GrpcCode::Unavailable);
}
