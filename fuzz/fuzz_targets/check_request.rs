//! Any bytes as Envoy's question over gRPC.

#![no_main]

use axum::body::Body;
use claviger::gate::protocols::ext_authz;
use claviger_fuzz::{AUDIENCE, DESK, KEY, contains, wait};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use http::Request;
use http_body_util::BodyExt as _;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use tower::ServiceExt as _;

fuzz_target!(|data: &[u8]| {
    let Ok(length) = u32::try_from(data.len()) else {
        return;
    };
    let mut frame = vec![0];
    frame.extend(length.to_be_bytes());
    frame.extend(data);
    let request = Request::post("/envoy.service.auth.v3.Authorization/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::from(frame))
        .expect("a request");
    let response =
        wait(ext_authz(DESK.clone()).oneshot(request)).unwrap_or_else(|never| match never {});
    assert_eq!(
        response.status(),
        200,
        "gRPC tells of failures in grpc-status"
    );
    let body = wait(response.into_body().collect())
        .expect("a body")
        .to_bytes();
    assert!(
        !contains(&body, KEY.as_bytes()) || repeats(data),
        "an answer never holds the key"
    );
    let asked = CheckRequest::decode(data);
    assert!(
        asked.is_ok() || body.is_empty(),
        "what cannot be read gets no answer"
    );
    let (Ok(asked), Some(message)) = (asked, body.get(5..)) else {
        return;
    };
    let told = CheckResponse::decode(message).expect("an answer that can be read");
    let passes = told.status.as_ref().is_some_and(|status| status.code == 0);
    assert_eq!(
        passes,
        matches!(told.http_response, Some(HttpResponse::OkResponse(_))),
        "both say the same"
    );
    let attributes = asked.attributes.unwrap_or_default();
    let settings = &attributes.context_extensions;
    let Some(HttpResponse::OkResponse(ok)) = told.http_response else {
        return;
    };
    assert!(
        DESK.routes.of(settings).is_ok(),
        "a refused route is never allowed"
    );
    assert_eq!(settings.get("audience").map(String::as_str), Some(AUDIENCE));
    let folded = settings
        .get("credentials")
        .is_some_and(|places| places.contains("basic") || places.contains("query"));
    assert!(
        folded || contains(data, KEY.as_bytes()),
        "nobody passes without the key"
    );
    // Whatever pretends to be ours is replaced or removed.
    let http = attributes
        .request
        .and_then(|request| request.http)
        .unwrap_or_default();
    let raw = http
        .header_map
        .iter()
        .flat_map(|map| &map.headers)
        .map(|header| &header.key);
    for name in http.headers.keys().chain(raw) {
        let folded = name.to_ascii_lowercase().replace('_', "-");
        if folded.starts_with("x-claviger-") {
            let set = ok
                .headers
                .iter()
                .filter_map(|option| option.header.as_ref());
            let mut gone = set.map(|header| &header.key).chain(&ok.headers_to_remove);
            assert!(
                gone.any(|own| own.eq_ignore_ascii_case(name)),
                "{name} travels on"
            );
        }
    }
    assert!(
        !ok.headers_to_remove.is_empty()
            || !ok.query_parameters_to_remove.is_empty()
            || sets_cookie(&ok.headers)
    );
});

/// Whether the key may stand in an answer because it stands where no key belongs: in a setting that is repeated.
fn repeats(data: &[u8]) -> bool {
    let attributes = CheckRequest::decode(data)
        .ok()
        .and_then(|asked| asked.attributes)
        .unwrap_or_default();
    attributes
        .context_extensions
        .values()
        .any(|value| value.contains(KEY))
        || attributes
            .request
            .and_then(|request| request.http)
            .is_some_and(|http| {
                // What travels on is the client's own: a second cookie with the same text, or a header's name.
                let raw = http
                    .header_map
                    .iter()
                    .flat_map(|map| &map.headers)
                    .map(|header| (&header.key, &header.raw_value[..]));
                let joined = http
                    .headers
                    .iter()
                    .map(|(name, value)| (name, value.as_bytes()));
                raw.chain(joined).any(|(name, value)| {
                    name.contains(KEY)
                        || (name.eq_ignore_ascii_case("cookie") && contains(value, KEY.as_bytes()))
                }) || http
                    .header_map
                    .iter()
                    .flat_map(|map| &map.headers)
                    .any(|header| header.key.eq_ignore_ascii_case("cookie"))
            })
}

fn sets_cookie(headers: &[envoy_types::pb::envoy::config::core::v3::HeaderValueOption]) -> bool {
    headers
        .iter()
        .filter_map(|option| option.header.as_ref())
        .any(|header| header.key == "cookie")
}
