//! Whatever asks over HTTP about somebody else's request: Envoy's `ext_authz` over HTTP, nginx's `auth_request`, Traefik, Caddy, HAProxy.
//!
//! `<any method> /v1/auth/<dialect>/<settings>/-[/<anything>]`. Allows with exactly 200 and refuses with 401, 403 or 429; never 404
//! or 405, which some proxies take for an error of their own. What is behind the `-` is Envoy's original path. Without the `-`,
//! nothing passes: a prefix that ends too early would have the paths of clients say what the route needs.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};

use crate::gate::access_log::{Origin, request_id};
use crate::gate::answer::{self, CODE, MISCONFIGURED, UNAVAILABLE, Unable};
use crate::gate::code::Code;
use crate::gate::credential::{Carrier, Found, Trace};
use crate::gate::decide::{MalformedReason, Needs, Verdict};
use crate::gate::desk::Desk;
use crate::gate::metrics::Protocol;
use crate::gate::server::Peer;

/// Where it is served, as axum writes paths.
pub const PATH: &str = "/v1/auth/{*route}";
const PREFIX: &str = "/v1/auth/";
/// What follows the settings.
const END: &str = "-";
/// Envoy takes these off the request before it goes on.
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// Which proxy asks: where it says what the original request was, and what it makes of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dialect {
    protocol: Protocol,
    /// The headers that may hold the original URI; none where it is behind the settings.
    original_uri: &'static [&'static str],
    /// nginx takes every refusal but 401 and 403 for an error, which its client sees as 500.
    only_401_and_403: bool,
}

/// Answers.
pub async fn handle(State(desk): State<Arc<Desk>>, request: Request<Body>) -> Response<Body> {
    let (head, _) = request.into_parts();
    let peer = head.extensions.get::<Peer>();
    answer(&desk, &head.uri, &head.headers, peer)
}

fn answer(desk: &Desk, uri: &Uri, headers: &HeaderMap, peer: Option<&Peer>) -> Response<Body> {
    let mut parts = uri
        .path()
        .strip_prefix(PREFIX)
        .unwrap_or_default()
        .split('/');
    let (dialect, settings, end) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next(),
    );
    let Some(dialect) = Dialect::of(dialect) else {
        return refusal(
            StatusCode::FORBIDDEN,
            MISCONFIGURED,
            "nobody asks like this: /v1/auth/ is followed by envoy, nginx, traefik, caddy or haproxy",
        );
    };
    if end != Some(END) {
        desk.routes.has_no_end(settings);
        desk.metrics.misconfigured(dialect.protocol);
        return refusal(
            StatusCode::FORBIDDEN,
            MISCONFIGURED,
            "this route is misconfigured: its settings do not end in /-",
        );
    }
    let route = desk.routes.read(settings);
    let Ok(route) = &*route else {
        desk.metrics.misconfigured(dialect.protocol);
        return refusal(
            StatusCode::FORBIDDEN,
            MISCONFIGURED,
            "this route is misconfigured: the gate's log says how",
        );
    };
    // Most routes look for no key there.
    let query = if route.places.include_query() {
        dialect.query(uri, headers)
    } else {
        Ok(None)
    };
    let carrier = Original {
        headers,
        query: *query.as_ref().unwrap_or(&None),
        joined: dialect.protocol == Protocol::Envoy,
    };
    let found = match query {
        // A proxy that drops a client's copies has done so before it asks. Of those that come, one may reach the API: nginx and
        // Traefik replace them only where their configuration says so.
        _ if headers.keys().any(|name| answer::pretends(name.as_str())) => {
            Found::Unclear(MalformedReason::IdentityHeaders)
        }
        Err(NoQuery::NotTold) => {
            desk.routes.has_no_uri(settings, dialect.original_uri);
            desk.metrics.misconfigured(dialect.protocol);
            return refusal(
                StatusCode::FORBIDDEN,
                MISCONFIGURED,
                "this route is misconfigured: the proxy does not tell the gate the URI",
            );
        }
        Err(NoQuery::Contradictory) => Found::Unclear(MalformedReason::OriginalUri),
        Ok(_) => route.places.find(&carrier),
    };
    // A proxy sends the request's own headers.
    let origin = || Origin {
        peer: peer.map(|peer| peer.address.ip()),
        caller: None,
        request_id: request_id(|name| headers.get(name).map(HeaderValue::as_bytes)),
    };
    match desk.ask(dialect.protocol, found.shown(), route.needs(), origin) {
        Err(unable) => unavailable(&unable),
        Ok(verdict) => dialect.told(&verdict, &route.needs(), found.trace()),
    }
}

/// The original request, as far as the proxy tells of it.
struct Original<'a> {
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    /// Envoy joins headers of one name with commas.
    joined: bool,
}

impl Carrier for Original<'_> {
    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.headers.get_all(name).iter().map(HeaderValue::as_bytes)
    }

    fn query(&self) -> Option<&str> {
        self.query
    }

    fn joins(&self) -> bool {
        self.joined
    }
}

/// Why the query of the original request is not known.
enum NoQuery {
    /// The proxy sends no header with the original URI.
    NotTold,
    /// Several headers name different queries, or one of them comes twice.
    Contradictory,
}

impl Dialect {
    fn of(name: &str) -> Option<Self> {
        let forwarded: &[_] = &["x-forwarded-uri"];
        let (protocol, original_uri): (_, &[_]) = match name {
            "envoy" => (Protocol::Envoy, &[]),
            // ingress-nginx sends the second, which is a whole URL.
            "nginx" => (Protocol::Nginx, &["x-original-uri", "x-original-url"]),
            "traefik" => (Protocol::Traefik, forwarded),
            "caddy" => (Protocol::Caddy, forwarded),
            "haproxy" => (Protocol::Haproxy, forwarded),
            _ => return None,
        };
        Some(Self {
            protocol,
            original_uri,
            only_401_and_403: protocol == Protocol::Nginx,
        })
    }

    /// The query of the original request.
    fn query<'a>(&self, uri: &'a Uri, headers: &'a HeaderMap) -> Result<Option<&'a str>, NoQuery> {
        if self.original_uri.is_empty() {
            return Ok(uri.query());
        }
        let mut told = None;
        for name in self.original_uri {
            let mut values = headers.get_all(*name).iter();
            let Some(value) = values.next() else { continue };
            let query = value
                .to_str()
                .ok()
                .and_then(|uri| Some(uri.split_once('?')?.1));
            // The proxy sets one of them once. Where there are more, one is the client's, and which is not known.
            if values.next().is_some() || told.is_some_and(|other| other != query) {
                return Err(NoQuery::Contradictory);
            }
            told = Some(query);
        }
        told.ok_or(NoQuery::NotTold)
    }

    fn told(
        &self,
        verdict: &Verdict,
        needs: &Needs<'_>,
        trace: Option<Trace<'_>>,
    ) -> Response<Body> {
        if let Some(holder) = verdict.holder.as_ref().filter(|_| verdict.is_valid()) {
            let mut response = Response::new(Body::empty());
            let headers = response.headers_mut();
            headers.reserve(answer::IDENTITY_COUNT + 4);
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            headers.extend(
                answer::IDENTITY
                    .iter()
                    .cloned()
                    .zip(answer::identity_headers(holder)),
            );
            if let (Protocol::Envoy, Some(Trace::Header(name))) = (self.protocol, trace)
                && let Ok(name) = HeaderValue::from_str(name)
            {
                headers.insert(TO_REMOVE, name);
            }
            return response;
        }
        let status = match answer::status(verdict.code) {
            StatusCode::TOO_MANY_REQUESTS if self.only_401_and_403 => StatusCode::FORBIDDEN,
            status => status,
        };
        let message = answer::message(verdict, needs);
        // nginx drops the body, and with it the connection.
        let mut response = match self.protocol {
            Protocol::Nginx => bare(status, verdict.code.as_str()),
            _ => refusal(status, verdict.code.as_str(), &message),
        };
        if let Some(challenge) = answer::challenge(verdict, needs, &message) {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        if verdict.code == Code::RateLimited {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

fn unavailable(unable: &Unable) -> Response<Body> {
    let mut response = refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        UNAVAILABLE,
        &unable.to_string(),
    );
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn refusal(status: StatusCode, code: &'static str, message: &str) -> Response<Body> {
    let mut response = bare(status, code);
    *response.body_mut() = Body::from(answer::body(code, message));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

fn bare(status: StatusCode, code: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CODE, HeaderValue::from_static(code));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
