//! Counts what goes to the API server, at the one place where everything passes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use tower::{Layer, Service};

use super::{Metrics, ServerClock};

/// Counts requests, and hands the `Date` of every answer on.
#[derive(Clone)]
pub struct RequestLayer {
    metrics: Arc<Metrics>,
    clock: ServerClock,
}

/// A client with its requests counted.
#[derive(Clone)]
pub struct RequestService<S> {
    inner: S,
    layer: RequestLayer,
}

impl RequestLayer {
    /// Counts into `metrics`; `clock` hears every answer.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, clock: ServerClock) -> Self {
        Self { metrics, clock }
    }
}

impl<S> Layer<S> for RequestLayer {
    type Service = RequestService<S>;

    fn layer(&self, inner: S) -> RequestService<S> {
        RequestService {
            inner,
            layer: self.clone(),
        }
    }
}

impl<S, A, B> Service<Request<A>> for RequestService<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let asked = Asked::of(
            request.method(),
            request.uri().path(),
            request.uri().query().unwrap_or_default(),
        );
        let layer = self.layer.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let code = answer.as_ref().map_or_else(
                |_| "none".to_owned(),
                |response| response.status().as_u16().to_string(),
            );
            layer
                .metrics
                .requested(asked.verb, &asked.resource, &code, asked.writes);
            if let Ok(response) = &answer {
                layer.clock.hear(response.headers());
            }
            answer
        })
    }
}

/// What a request asks for, in the API server's words.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    verb: &'static str,
    resource: String,
    writes: bool,
}

impl Asked {
    fn of(method: &Method, path: &str, query: &str) -> Self {
        let mut parts = path.trim_matches('/').split('/');
        let known = match parts.next() {
            Some("api") => parts.next().is_some(),
            Some("apis") => parts.next().is_some() && parts.next().is_some(),
            _ => false,
        };
        let mut rest: Vec<_> = if known { parts.collect() } else { Vec::new() };
        if rest.len() > 2 && rest.first() == Some(&"namespaces") {
            rest.drain(..2);
        }
        let resource = match rest.as_slice() {
            [] => "other".to_owned(),
            [resource, _, subresource, ..] => format!("{resource}/{subresource}"),
            [resource, ..] => (*resource).to_owned(),
        };
        let verb = match *method {
            Method::GET if query.split('&').any(|part| part == "watch=true") => "watch",
            Method::GET if rest.len() == 1 => "list",
            Method::GET => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "other",
        };
        let writes =
            *method != Method::GET && !query.split('&').any(|part| part.starts_with("dryRun="));
        Self {
            verb,
            resource,
            writes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_in_the_words_of_the_api_server() {
        for (method, path, query, verb, resource, writes) in [
            (
                Method::GET,
                "/apis/claviger.dev/v1alpha1/apikeys",
                "limit=500",
                "list",
                "apikeys",
                false,
            ),
            (
                Method::GET,
                "/apis/claviger.dev/v1alpha1/apikeys",
                "watch=true&x=1",
                "watch",
                "apikeys",
                false,
            ),
            (
                Method::PUT,
                "/apis/claviger.dev/v1alpha1/namespaces/a/apikeys/k/status",
                "",
                "update",
                "apikeys/status",
                true,
            ),
            (
                Method::POST,
                "/api/v1/namespaces/a/secrets",
                "",
                "create",
                "secrets",
                true,
            ),
            (
                Method::POST,
                "/api/v1/namespaces/a/secrets",
                "&dryRun=All",
                "create",
                "secrets",
                false,
            ),
            (
                Method::GET,
                "/api/v1/namespaces/a/secrets/s",
                "",
                "get",
                "secrets",
                false,
            ),
            (Method::GET, "/version", "", "get", "other", false),
            (
                Method::GET,
                "/api/v1/namespaces/a",
                "",
                "get",
                "namespaces",
                false,
            ),
        ] {
            let asked = Asked::of(&method, path, query);
            assert_eq!(
                asked,
                Asked {
                    verb,
                    resource: resource.to_owned(),
                    writes
                },
                "{method} {path}?{query}"
            );
        }
    }
}
