//! Envoy's `ext_authz` over gRPC (`envoy.service.auth.v3.Authorization/Check`). The only room that knows protobuf.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{
    CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{BoolValue, ListValue, Struct, Value};
use envoy_types::pb::google::rpc;
use http::StatusCode;
use tonic::{Code as GrpcCode, Request, Response, Status};

use crate::gate::access_log::{Origin, request_id};
use crate::gate::answer::{self, CODE, MISCONFIGURED};
use crate::gate::code::Code;
use crate::gate::credential::{Carrier, Trace, cookies};
use crate::gate::decide::{Needs, Verdict};
use crate::gate::desk::Desk;
use crate::gate::index::Holder;
use crate::gate::metrics::Protocol;
use crate::gate::server::Peer;

mod whole;

use self::whole::TooLong;
pub use self::whole::{PATHS, whole_question};

/// The largest question, in bytes: Envoy's headers are at most 60 KiB by default (`max_request_headers_kb`), and bodies are not asked
/// for.
const MAX_MESSAGE: usize = 128 * 1024;

/// The service that answers.
#[must_use]
pub fn service(desk: Arc<Desk>) -> AuthorizationServer<impl Authorization> {
    AuthorizationServer::new(Check { desk }).max_decoding_message_size(MAX_MESSAGE)
}

struct Check {
    desk: Arc<Desk>,
}

#[tonic::async_trait]
impl Authorization for Check {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        if request.extensions().get::<TooLong>().is_some() {
            return Ok(Response::new(denied(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "MALFORMED",
                TooLong::MESSAGE,
                Vec::new(),
            )));
        }
        let peer = request.extensions().get::<Peer>().copied();
        let attributes = request.into_inner().attributes.unwrap_or_default();
        let original = attributes
            .request
            .and_then(|request| request.http)
            .unwrap_or_default();
        let route = self.desk.routes.of(&attributes.context_extensions);
        let Ok(route) = &*route else {
            self.desk.metrics.misconfigured(Protocol::Grpc);
            let message = "this route is misconfigured: the gate's log says how";
            return Ok(Response::new(denied(
                StatusCode::FORBIDDEN,
                MISCONFIGURED,
                message,
                Vec::new(),
            )));
        };
        let carrier = Original(&original);
        let found = route.places.find(&carrier);
        // An error, not a refusal: what Envoy makes of a gate that cannot decide is its `failure_mode_allow`.
        let verdict = self
            .desk
            .ask(Protocol::Grpc, found.shown(), route.needs(), || Origin {
                peer: peer.map(|peer| peer.address.ip()),
                caller: None,
                request_id: request_id(|name| {
                    let mut headers = carrier.headers();
                    headers
                        .find(|(other, _)| *other == name)
                        .map(|(_, value)| value)
                }),
            })
            .map_err(|unable| Status::unavailable(unable.to_string()))?;
        Ok(Response::new(
            match verdict.holder.as_ref().filter(|_| verdict.is_valid()) {
                Some(holder) => allowed(holder, &original, found.trace()),
                None => refused(&verdict, &route.needs()),
            },
        ))
    }
}

/// The original request. Its `query` is always empty: it stands in the path.
struct Original<'a>(&'a HttpRequest);

impl<'a> Original<'a> {
    /// Every header, in whichever of the two ways Envoy sends them.
    fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let joined = self
            .0
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()));
        let raw = self
            .0
            .header_map
            .iter()
            .flat_map(|map| &map.headers)
            .map(|header| {
                let value = if header.raw_value.is_empty() {
                    header.value.as_bytes()
                } else {
                    &header.raw_value
                };
                (header.key.as_str(), value)
            });
        joined.chain(raw)
    }
}

impl Carrier for Original<'_> {
    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.headers()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    fn query(&self) -> Option<&str> {
        Some(self.0.path.split_once('?')?.1)
    }

    fn joins(&self) -> bool {
        self.0.header_map.is_none()
    }
}

fn allowed(holder: &Holder, original: &HttpRequest, trace: Option<Trace<'_>>) -> CheckResponse {
    let mut ok = OkHttpResponse {
        headers: answer::IDENTITY
            .iter()
            .zip(answer::identity(holder))
            .map(|(name, value)| set(name.as_str(), value))
            .collect(),
        ..OkHttpResponse::default()
    };
    // Those that are set replace the client's; whatever else pretends to be ours goes.
    let pretending = Original(original)
        .headers()
        .map(|(name, _)| name)
        .filter(|name| answer::pretends(name));
    ok.headers_to_remove = pretending
        .filter(|name| {
            !answer::IDENTITY
                .iter()
                .any(|own| own.as_str().eq_ignore_ascii_case(name))
        })
        .map(str::to_owned)
        .collect();
    match trace {
        Some(Trace::Header(name)) => ok.headers_to_remove.push(name.to_owned()),
        Some(Trace::Query(name)) => ok.query_parameters_to_remove.push(name.to_owned()),
        Some(Trace::Cookie(name)) => match cookies_without(original, name) {
            Some(rest) => ok.headers.push(set("cookie", rest)),
            None => ok.headers_to_remove.push("cookie".to_owned()),
        },
        None => {}
    }
    CheckResponse {
        status: Some(rpc::Status {
            code: GrpcCode::Ok.into(),
            ..rpc::Status::default()
        }),
        http_response: Some(HttpResponse::OkResponse(ok)),
        dynamic_metadata: Some(facts(Code::Valid, Some(holder))),
    }
}

fn refused(verdict: &Verdict, needs: &Needs<'_>) -> CheckResponse {
    let (status, message) = (
        answer::status(verdict.code),
        answer::message(verdict, needs),
    );
    let mut headers = Vec::new();
    if let Some(challenge) = answer::challenge(verdict, needs, &message) {
        headers.push(set(
            "www-authenticate",
            String::from_utf8_lossy(challenge.as_bytes()),
        ));
    }
    if verdict.code == Code::RateLimited {
        headers.push(set("retry-after", "1"));
    }
    let mut response = denied(status, verdict.code.as_str(), &message, headers);
    response.dynamic_metadata = Some(facts(verdict.code, verdict.holder.as_ref()));
    response
}

fn denied(
    status: StatusCode,
    code: &'static str,
    message: &str,
    mut headers: Vec<HeaderValueOption>,
) -> CheckResponse {
    headers.push(set(CODE.as_str(), code));
    headers.push(set("content-type", "application/json"));
    headers.push(set("cache-control", "no-store"));
    let grpc = match status {
        StatusCode::UNAUTHORIZED => GrpcCode::Unauthenticated,
        StatusCode::TOO_MANY_REQUESTS => GrpcCode::ResourceExhausted,
        _ => GrpcCode::PermissionDenied,
    };
    CheckResponse {
        status: Some(rpc::Status {
            code: grpc.into(),
            message: code.to_owned(),
            ..rpc::Status::default()
        }),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus {
                code: i32::from(status.as_u16()),
            }),
            headers,
            body: answer::body(code, message),
        })),
        ..CheckResponse::default()
    }
}

/// A header that replaces the client's. Envoy reads `append` or `append_action`, by its version; where neither is set, some
/// versions add the header to the client's (envoyproxy/envoy#43310).
#[allow(deprecated, reason = "all that older versions read")]
fn set<'a>(name: &str, value: impl Into<Cow<'a, str>>) -> HeaderValueOption {
    HeaderValueOption {
        append: Some(BoolValue { value: false }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        header: Some(HeaderValue {
            key: name.to_owned(),
            value: value.into().into_owned(),
            ..HeaderValue::default()
        }),
        keep_empty_value: false,
    }
}

/// The cookies of the request without those of this name, byte for byte; nothing where none is left. Envoy reads `value` and never
/// `raw_value`: a cookie that is no text cannot be told, and is left out rather than made into another.
fn cookies_without(original: &HttpRequest, name: &str) -> Option<String> {
    let named = |pair: &str| cookies(pair.as_bytes()).any(|(other, _)| other == name.as_bytes());
    let carrier = Original(original);
    let kept = carrier.header("cookie").filter_map(|header| {
        let pairs = header
            .split(|byte| *byte == b';')
            .filter_map(|pair| std::str::from_utf8(pair).ok());
        let kept: Vec<&str> = pairs.filter(|pair| !named(pair)).collect();
        if kept.iter().all(|pair| pair.trim_ascii().is_empty()) {
            None
        } else {
            Some(kept.join(";").trim_ascii().to_owned())
        }
    });
    let kept: Vec<String> = kept.collect();
    if kept.is_empty() {
        None
    } else {
        Some(kept.join("; "))
    }
}

/// For rate limits and access logs, under `envoy.filters.http.ext_authz`.
fn facts(code: Code, holder: Option<&Holder>) -> Struct {
    let mut fields = HashMap::with_capacity(if holder.is_some() { 9 } else { 1 });
    fields.insert("code".to_owned(), text(code.as_str()));
    if let Some(holder) = holder {
        let (entry, profile) = (holder.entry(), holder.entry().profile());
        fields.extend([
            ("keyId".to_owned(), text(entry.key_id().as_str())),
            ("name".to_owned(), text(entry.name())),
            ("namespace".to_owned(), text(profile.namespace())),
            ("principal".to_owned(), text(entry.principal())),
            (
                "version".to_owned(),
                value(Kind::NumberValue(f64::from(holder.version().number()))),
            ),
            (
                "roles".to_owned(),
                value(Kind::ListValue(ListValue {
                    values: profile.roles().map(text).collect(),
                })),
            ),
        ]);
        if let Some(organization) = profile.organization() {
            fields.insert("organization".to_owned(), text(organization));
        }
        let metadata = profile
            .metadata()
            .map(|(name, value)| (name.to_owned(), text(value)))
            .collect();
        fields.insert(
            "metadata".to_owned(),
            value(Kind::StructValue(Struct { fields: metadata })),
        );
    }
    Struct { fields }
}

fn text(text: impl Into<String>) -> Value {
    value(Kind::StringValue(text.into()))
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests;
