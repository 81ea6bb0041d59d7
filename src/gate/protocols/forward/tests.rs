use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::*;
use crate::gate::testing::{apikey, desk, key, role};

struct Told {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Told {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

async fn ask(uri: &str, headers: &[(&'static str, &str)]) -> Told {
    let spec = json!({ "spec": { "roles": ["viewer"], "permissions": ["reports:run"] }, "status": { "organization": "acme" } });
    let revoked = json!({ "spec": { "revoked": true } });
    let bare = json!({ "status": { "principal": null } });
    let desk = desk(
        [apikey(1, spec), apikey(2, revoked), apikey(3, bare)],
        &[role("viewer", &["invoices:read"])],
    );
    let mut request = Request::builder()
        .method(Method::from_bytes(b"PURGE").unwrap())
        .uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = handle(State(desk), request.body(Body::empty()).unwrap()).await;
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Told {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

fn bearer(number: usize) -> String {
    format!("Bearer {}", key(number))
}

#[tokio::test]
async fn an_allowed_request_gets_every_identity_header() {
    let told = ask(
        "/v1/auth/envoy/audience=invoices-api/-/any/path?x=y",
        &[("authorization", &bearer(1))],
    )
    .await;
    assert_eq!((told.status, told.body.as_str()), (200, ""));
    let expected = [
        ("x-claviger-code", "VALID"),
        ("x-claviger-key-id", "00000000000000000000000000000001"),
        ("x-claviger-name", "key-1"),
        ("x-claviger-namespace", "team-a"),
        (
            "x-claviger-principal",
            "00000000000000000000000000000001@team-a.claviger.local",
        ),
        ("x-claviger-organization", "acme"),
        ("x-claviger-roles", "viewer"),
        ("x-claviger-permissions", "invoices:read,reports:run"),
        ("x-claviger-version", "1"),
        ("cache-control", "no-store"),
        ("x-envoy-auth-headers-to-remove", "authorization"),
    ];
    for (name, value) in expected {
        assert_eq!(told.header(name), value, "{name}");
    }
    let told = ask(
        "/v1/auth/nginx/audience=invoices-api/-",
        &[("x-api-key", &key(3))],
    )
    .await;
    assert_eq!(told.status, 200);
    for name in answer::IDENTITY.iter().map(HeaderName::as_str) {
        assert!(
            !told.header(name).is_empty(),
            "{name} is never empty, so that no client's copy survives"
        );
    }
    assert_eq!(told.header("x-claviger-organization"), "-");
}

#[tokio::test]
async fn a_refused_request_learns_why() {
    let told = ask(
        "/v1/auth/traefik/audience=invoices-api/-",
        &[("authorization", &bearer(2))],
    )
    .await;
    assert_eq!(
        (told.status, told.header("x-claviger-code")),
        (401, "REVOKED")
    );
    assert_eq!(
        told.header("www-authenticate"),
        "Bearer realm=\"invoices-api\", error=\"invalid_token\", error_description=\"the API key was revoked\""
    );
    assert_eq!(
        serde_json::from_str::<Value>(&told.body).unwrap(),
        json!({ "code": "REVOKED", "message": "the API key was revoked" })
    );
    assert!(
        told.headers
            .keys()
            .all(|name| !answer::pretends(name.as_str()) || *name == CODE),
        "no identity on a refusal"
    );
    let told = ask("/v1/auth/caddy/audience=invoices-api/-", &[]).await;
    assert_eq!(
        (told.status, told.header("www-authenticate")),
        (401, "Bearer realm=\"invoices-api\""),
        "no error without a key"
    );
    let told = ask(
        "/v1/auth/haproxy/audience=invoices-api&permissions=admin+OR+root/-",
        &[("x-api-key", &key(1))],
    )
    .await;
    assert_eq!(
        (told.status, told.header("x-claviger-code")),
        (403, "INSUFFICIENT_PERMISSIONS")
    );
    assert_eq!(
        told.header("www-authenticate"),
        "Bearer realm=\"invoices-api\", error=\"insufficient_scope\", scope=\"admin root\""
    );
}

#[tokio::test]
async fn a_key_in_the_original_query_is_found_where_each_proxy_tells_of_it() {
    let settings = "audience=invoices-api&credentials=query:key";
    let uri = format!("/a?key={}", key(1));
    assert_eq!(
        ask(&format!("/v1/auth/envoy/{settings}/-{uri}"), &[])
            .await
            .status,
        200
    );
    assert_eq!(
        ask(
            &format!("/v1/auth/nginx/{settings}/-"),
            &[("x-original-uri", &uri)]
        )
        .await
        .status,
        200
    );
    assert_eq!(
        ask(
            &format!("/v1/auth/caddy/{settings}/-"),
            &[("x-forwarded-uri", &uri)]
        )
        .await
        .status,
        200
    );
    assert_eq!(
        ask(
            &format!("/v1/auth/nginx/{settings}/-"),
            &[("x-original-url", &format!("https://api.example{uri}"))]
        )
        .await
        .status,
        200,
        "ingress-nginx"
    );
}

#[tokio::test]
async fn contradictory_uris_are_refused_where_the_query_counts() {
    let with_key = format!("/a?key={}", key(1));
    let (uri, url) = ("x-original-uri", "x-original-url");
    let forwarded = "x-forwarded-uri";
    let bearer = ("authorization", &*bearer(1));
    for (dialect, headers) in [
        ("nginx", [(uri, "/"), (uri, &*with_key)]),
        ("nginx", [(uri, &*with_key), (uri, &*with_key)]),
        (
            "nginx",
            [(uri, &*with_key), (url, "https://api.example/a?b=c")],
        ),
        ("nginx", [(uri, "/a"), (url, &*with_key)]),
        ("nginx", [(url, &*with_key), (url, "/a")]),
        ("caddy", [(forwarded, "/"), (forwarded, &*with_key)]),
        (
            "traefik",
            [(forwarded, &*with_key), (forwarded, &*with_key)],
        ),
    ] {
        let route = |places: &str| {
            format!("/v1/auth/{dialect}/audience=invoices-api&credentials={places}/-")
        };
        let told = ask(&route("query:key"), &headers).await;
        assert_eq!(
            (told.status, told.header("x-claviger-code")),
            (401, "MALFORMED"),
            "{dialect}: {headers:?}"
        );
        assert!(told.header("www-authenticate").contains("X-Original-URI"));
        let headers = [headers[0], headers[1], bearer];
        assert_eq!(
            ask(&route("bearer"), &headers).await.status,
            200,
            "{dialect}: the query does not count"
        );
    }
    let same = [(uri, &*with_key), (url, &*format!("https://x{with_key}"))];
    let route = "/v1/auth/nginx/audience=invoices-api&credentials=query:key/-";
    assert_eq!(ask(route, &same).await.status, 200, "both say the same");
}

#[tokio::test]
async fn route_with_a_query_needs_the_original_uri() {
    for (dialect, foreign) in [
        ("nginx", "x-forwarded-uri"),
        ("traefik", "x-original-uri"),
        ("caddy", "x-original-url"),
        ("haproxy", "x-original-uri"),
    ] {
        let route = |places: &str| {
            format!("/v1/auth/{dialect}/audience=invoices-api&credentials={places}/-")
        };
        let with_key = format!("/a?key={}", key(1));
        let told = ask(
            &route("bearer,query:key"),
            &[("authorization", &bearer(1)), (foreign, &with_key)],
        )
        .await;
        assert_eq!(
            (told.status, told.header("x-claviger-code")),
            (403, "MISCONFIGURED"),
            "{dialect}"
        );
        let told = ask(&route("bearer"), &[("authorization", &bearer(1))]).await;
        assert_eq!(told.status, 200, "{dialect}: nobody looks there");
    }
}

#[tokio::test]
async fn nothing_passes_a_route_that_is_not_understood() {
    for uri in [
        "/v1/auth/",
        "/v1/auth/envoy",
        "/v1/auth/envoy/",
        "/v1/auth/apache/audience=invoices-api/-",
        "/v1/auth/envoy/audiense=x",
    ] {
        let told = ask(uri, &[("authorization", &bearer(1))]).await;
        assert_eq!(
            (told.status, told.header("x-claviger-code")),
            (403, "MISCONFIGURED"),
            "{uri}"
        );
    }
}

/// A proxy's prefix that ends too early would have the client's own path say what the route needs.
#[tokio::test]
async fn a_path_is_not_taken_for_settings() {
    for dialect in ["envoy", "nginx", "traefik", "caddy", "haproxy"] {
        for (rest, status) in [
            ("", 403),
            ("/", 403),
            ("/orders", 403),
            ("/--", 403),
            ("/-orders", 403),
            ("/orders/-", 403),
            ("//-", 403),
            ("/%2D", 403),
            ("/-", 200),
            ("/-/", 200),
            ("/-/orders/-?x=y", 200),
        ] {
            let uri = format!("/v1/auth/{dialect}/audience=invoices-api{rest}");
            let told = ask(&uri, &[("authorization", &bearer(1))]).await;
            let code = if status == 200 {
                "VALID"
            } else {
                "MISCONFIGURED"
            };
            assert_eq!(
                (told.status, told.header("x-claviger-code")),
                (status, code),
                "{uri}"
            );
        }
    }
}

#[tokio::test]
async fn identity_headers_of_a_client_are_refused() {
    let shown = ("x-api-key", key(1));
    for dialect in ["envoy", "nginx", "traefik", "caddy", "haproxy"] {
        for name in [
            "x-claviger-roles",
            "x-claviger-key-id",
            "x-claviger-code",
            "x-claviger-admin",
            "x_claviger_roles",
            "x.claviger.roles",
        ] {
            let told = ask(
                &format!("/v1/auth/{dialect}/audience=invoices-api/-"),
                &[(shown.0, &shown.1), (name, "admin")],
            )
            .await;
            assert_eq!(
                (told.status, told.header("x-claviger-code")),
                (401, "MALFORMED"),
                "{dialect}: {name}"
            );
            let said = told.header("www-authenticate");
            assert!(said.contains("x-claviger- headers"), "{dialect}: {said}");
            assert_eq!(
                told.body.is_empty(),
                dialect == "nginx",
                "nginx drops the connection with the body"
            );
        }
    }
}

#[tokio::test]
async fn two_keys_that_envoy_joined_are_not_one() {
    let two = format!("{0},{0}", key(1));
    let told = ask(
        "/v1/auth/envoy/audience=invoices-api/-",
        &[("x-api-key", &two)],
    )
    .await;
    assert_eq!(
        (told.status, told.header("x-claviger-code")),
        (401, "MALFORMED")
    );
}
