//! What is asked, over each protocol.

use std::collections::HashMap;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::address::Address as Kind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{Address, HeaderMap, HeaderValue, SocketAddress};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use prost::Message as _;

use crate::keys::{AUDIENCE, Case, Numbers, shown};

/// A way to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Forward-auth over HTTP/1.1, as Traefik asks.
    Forward,
    /// Envoy's `ext_authz` over gRPC.
    Grpc,
    /// `POST /v1/verify`, open to every caller.
    Verify,
    /// The same, callers show a ServiceAccount token.
    VerifyByToken,
}

/// Who is asked. What the no-op answers has nothing to do with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Gate,
    /// The gate's own answer, recorded.
    Noop,
    /// An answer with nothing in it.
    Empty,
}

/// A ServiceAccount token is about this long.
pub(crate) const TOKEN_LENGTH: usize = 900;

impl Protocol {
    pub(crate) const ALL: [Self; 4] =
        [Self::Forward, Self::Grpc, Self::Verify, Self::VerifyByToken];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward-auth, HTTP/1.1",
            Self::Grpc => "ext_authz, gRPC",
            Self::Verify => "JSON verify",
            Self::VerifyByToken => "JSON verify, by token",
        }
    }

    /// As an argument.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Grpc => "grpc",
            Self::Verify => "verify",
            Self::VerifyByToken => "token",
        }
    }

    /// A request, as it goes over the wire: a whole one of HTTP/1.1, or a message of gRPC with its five bytes.
    pub(crate) fn question(
        self,
        asked: Asked,
        case: Case,
        keys: u64,
        order: &mut Numbers,
    ) -> Bytes {
        let key = shown(case, keys, order);
        match self {
            Self::Forward => forward(segment(asked, case, "auth"), &key),
            Self::Grpc => grpc(segment(asked, case, "auth"), &key),
            Self::Verify | Self::VerifyByToken => verify(segment(asked, case, "verify"), &key),
        }
    }
}

/// A part of the path that says which answer a no-op gives; as long as the gate's own.
pub(crate) fn segment(asked: Asked, case: Case, own: &'static str) -> &'static str {
    match (asked, case, own) {
        (Asked::Gate, _, own) => own,
        (Asked::Empty, ..) => "none",
        (Asked::Noop, Case::Hit, "auth") => "pass",
        (Asked::Noop, Case::Miss, "auth") => "miss",
        (Asked::Noop, Case::Malformed, "auth") => "oops",
        (Asked::Noop, Case::Hit, _) => "passes",
        (Asked::Noop, Case::Miss, _) => "misses",
        (Asked::Noop, Case::Malformed, _) => "oopses",
    }
}

fn forward(segment: &str, key: &str) -> Bytes {
    format!(
        "GET /v1/{segment}/traefik/audience={AUDIENCE}&permissions=invoices:read/- HTTP/1.1\r\nhost: claviger-gate:8081\r\n\
         user-agent: curl/8.5.0\r\naccept: */*\r\nauthorization: Bearer {key}\r\nx-forwarded-for: 10.1.2.3\r\n\
         x-forwarded-host: api.example.com\r\nx-forwarded-method: GET\r\nx-forwarded-port: 443\r\nx-forwarded-proto: https\r\n\
         x-forwarded-uri: /invoices?limit=10\r\nx-real-ip: 10.1.2.3\r\naccept-encoding: gzip\r\n\r\n"
    )
    .into()
}

fn verify(segment: &str, key: &str) -> Bytes {
    let body =
        format!(r#"{{"key":"{key}","audience":"{AUDIENCE}","permissions":"invoices:read"}}"#);
    // A JWT, as far as the gate reads it: others are refused without a look at whose they are.
    let token = format!("e30.e30.{}", "t".repeat(TOKEN_LENGTH - "e30.e30.".len()));
    format!(
        "POST /v1/{segment} HTTP/1.1\r\nhost: claviger-gate:8081\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into()
}

/// As Envoy asks with `encode_raw_headers`.
fn grpc(segment: &str, key: &str) -> Bytes {
    let bearer = format!("Bearer {key}");
    let headers = [
        (":authority", "api.example.com"),
        (":path", "/invoices?limit=10"),
        (":method", "GET"),
        (":scheme", "https"),
        ("user-agent", "curl/8.5.0"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip"),
        ("authorization", &bearer),
        ("x-forwarded-for", "10.1.2.3"),
        ("x-forwarded-proto", "https"),
        ("x-envoy-internal", "true"),
        ("x-request-id", "6f1c2a34-9b7d-4e21-8c55-0d9a3b7e1f42"),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
    ];
    let header = |(name, value): &(&str, &str)| HeaderValue {
        key: (*name).to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..HeaderValue::default()
    };
    let http = HttpRequest {
        id: "6f1c2a34-9b7d-4e21-8c55-0d9a3b7e1f42".to_owned(),
        method: "GET".to_owned(),
        path: "/invoices?limit=10".to_owned(),
        host: "api.example.com".to_owned(),
        scheme: "https".to_owned(),
        protocol: "HTTP/2".to_owned(),
        header_map: Some(HeaderMap {
            headers: headers.iter().map(header).collect(),
        }),
        ..HttpRequest::default()
    };
    let peer = |address: &str, port: u32| Peer {
        address: Some(Address {
            address: Some(Kind::SocketAddress(SocketAddress {
                address: address.to_owned(),
                port_specifier: Some(PortSpecifier::PortValue(port)),
                ..SocketAddress::default()
            })),
        }),
        ..Peer::default()
    };
    let check = CheckRequest {
        attributes: Some(AttributeContext {
            // Tells the no-op what to answer.
            source: Some(Peer {
                service: segment.to_owned(),
                ..peer("10.1.2.3", 41_234)
            }),
            destination: Some(peer("10.9.8.7", 8_000)),
            request: Some(Request {
                http: Some(http),
                ..Request::default()
            }),
            context_extensions: HashMap::from([
                ("audience".to_owned(), AUDIENCE.to_owned()),
                ("permissions".to_owned(), "invoices:read".to_owned()),
            ]),
            ..AttributeContext::default()
        }),
    };
    let message = check.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(
        u32::try_from(message.len())
            .expect("a small message")
            .to_be_bytes(),
    );
    frame.extend(message);
    frame.into()
}
