//! What is served on the public addresses: all protocols on one router.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{any, get, post};
use axum::{Extension, Router};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::access_log::Origin;
use super::callers::{Caller, Callers, Identified, Refusal};
use super::desk::Desk;
use super::protocols::{
    self, FORWARD_PATH, MAX_BATCH, MAX_BODY, Verification, Verified, Verify, VerifyError,
};
use super::quote::quotable;
use super::server::{Bodies, BodyError, Peer, WholeBody};

/// Where services ask.
const VERIFY_PATH: &str = "/v1/verify";

/// Where services ask about several keys at once.
const BATCH_PATH: &str = "/v1/verify/batch";

/// Room for an answer, in bytes: one about a key mostly fits.
const ROOM: usize = 1_024;

/// Who may ask on behalf of a proxy. What it learns, the holder of the key may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ProxyCallers {
    /// Whoever reaches the gate: see to it with a NetworkPolicy.
    None,
    /// Who has a client certificate of `--tls-client-ca`.
    Mtls,
}

/// Several questions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    requests: Vec<Verification<'a>>,
}

#[derive(Serialize)]
struct Results {
    results: Vec<Verified>,
}

struct Asked {
    verify: Verify,
    callers: Callers,
}

/// Why a question to the verify API gets no verdict.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Caller(#[from] Refusal),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("the body is not understood: {0}")]
    Json(String),
    #[error("a batch has at most {MAX_BATCH} requests")]
    TooMany,
    #[error(transparent)]
    Verify(#[from] VerifyError),
    #[error("requests[{0}]: {1}")]
    VerifyOne(usize, VerifyError),
}

/// Everything that is served. `ready` says why no verdicts are given, if none are.
pub fn router(
    desk: Arc<Desk>,
    callers: Callers,
    proxies: ProxyCallers,
    ready: Arc<protocols::Ready>,
) -> Router {
    let whole_question = || middleware::from_fn(protocols::whole_question);
    let [check, health_check, health_watch] = protocols::GRPC_PATHS;
    let of_envoy = Router::new()
        .route_service(check, protocols::ext_authz(desk.clone()))
        .layer(whole_question());
    // Load balancers have no certificate and learn nothing about keys.
    let health = Router::new()
        .route_service(health_check, protocols::grpc_health(ready.clone()))
        .route_service(health_watch, protocols::grpc_health(ready.clone()))
        .layer(whole_question())
        .merge(
            Router::new()
                .route("/healthz", get(protocols::healthz))
                .with_state(ready),
        );
    let of_proxies = Router::new()
        .merge(of_envoy)
        .route(FORWARD_PATH, any(protocols::forward))
        .with_state(desk.clone());
    let of_proxies = match proxies {
        ProxyCallers::None => of_proxies,
        ProxyCallers::Mtls => of_proxies.layer(middleware::from_fn(certified)),
    };
    let of_services = Router::new()
        .route(VERIFY_PATH, post(verify))
        .route(BATCH_PATH, post(verify_batch))
        .with_state(Arc::new(Asked {
            verify: Verify::new(desk),
            callers,
        }));
    of_proxies.merge(of_services).merge(health)
}

/// Turns away who has shown no certificate.
async fn certified(request: Request, next: Next) -> Response {
    if !request
        .extensions()
        .get::<Peer>()
        .is_some_and(|peer| peer.certified)
    {
        return told(
            StatusCode::FORBIDDEN,
            &json!({ "message": "a client certificate is needed (--proxy-callers=mtls)" }),
        );
    }
    next.run(request).await
}

/// A question of a caller that is known.
struct Received {
    caller: Identified,
    body: WholeBody,
    request_id: Option<String>,
}

impl Asked {
    /// Strangers are turned away before anything of theirs is read. Nothing is kept of the head while
    /// something is waited for.
    async fn receive(
        &self,
        request: Request,
        peer: Peer,
        bodies: &Bodies,
    ) -> Result<Received, Failure> {
        let (head, body) = request.into_parts();
        let credentials = self.callers.credentials(&head.headers, &peer)?;
        let request_id = self.verify.request_id(&head.headers);
        drop(head);
        let caller = self.callers.identify(credentials).await?;
        let body = bodies.read(body, MAX_BODY).await?;
        Ok(Received {
            caller,
            body,
            request_id,
        })
    }
}

fn origin(peer: Peer, caller: &Caller, request_id: Option<&String>) -> Origin {
    Origin {
        peer: Some(peer.address.ip()),
        caller: Some(caller.to_string()),
        request_id: request_id.cloned(),
    }
}

async fn verify(
    State(asked): State<Arc<Asked>>,
    Extension(peer): Extension<Peer>,
    Extension(bodies): Extension<Bodies>,
    request: Request,
) -> Response {
    let answered = async {
        let Received {
            caller,
            body,
            request_id,
        } = asked.receive(request, peer, &bodies).await?;
        let question: Verification<'_> = read(&body)?;
        let caller = asked.callers.admit(&caller, question.namespace()).await?;
        let origin = || origin(peer, &caller, request_id.as_ref());
        Ok(asked.verify.answer(&question, origin)?)
    };
    answer(VERIFY_PATH, answered.await)
}

async fn verify_batch(
    State(asked): State<Arc<Asked>>,
    Extension(peer): Extension<Peer>,
    Extension(bodies): Extension<Bodies>,
    request: Request,
) -> Response {
    let answered = async {
        let Received {
            caller,
            body,
            request_id,
        } = asked.receive(request, peer, &bodies).await?;
        let Batch { requests } = read(&body)?;
        if requests.len() > MAX_BATCH {
            return Err(Failure::TooMany);
        }
        let mut namespaces: Vec<Option<&str>> = requests
            .iter()
            .map(|question| question.namespace())
            .collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let mut admitted = None;
        for namespace in namespaces {
            admitted = Some(asked.callers.admit(&caller, namespace).await?);
        }
        let admitted = match admitted {
            Some(admitted) => admitted,
            // Also where nothing is asked: a caller without the right learns nothing, not even that.
            None => asked.callers.admit(&caller, None).await?,
        };
        let origin = || origin(peer, &admitted, request_id.as_ref());
        let answers = requests.iter().enumerate();
        let answers = answers.map(|(number, question)| {
            let answer = asked.verify.answer(question, origin);
            answer.map_err(|error| Failure::VerifyOne(number, error))
        });
        Ok(Results {
            results: answers.collect::<Result<_, _>>()?,
        })
    };
    answer(BATCH_PATH, answered.await)
}

fn read<'a, T: Deserialize<'a>>(body: &'a WholeBody) -> Result<T, Failure> {
    serde_json::from_slice(body.bytes()).map_err(|error| Failure::Json(explained(&error)))
}

/// What is wrong with a body. Callers log what they are told, and the parser may quote a key that stands in the wrong place: only names of
/// fields are repeated.
fn explained(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if !error.is_data() {
        return text;
    }
    for wrong in ["unknown field", "missing field", "duplicate field"] {
        let Some(rest) = text.strip_prefix(wrong) else {
            continue;
        };
        let name = rest.split('`').nth(1).unwrap_or_default();
        if !name.is_empty() && quotable(name) == name {
            return format!("{wrong} `{name}`");
        }
        return format!("{wrong} at line {} column {}", error.line(), error.column());
    }
    format!(
        "a value of another type than is expected at line {} column {}",
        error.line(),
        error.column()
    )
}

fn answer<T: Serialize>(path: &'static str, answered: Result<T, Failure>) -> Response {
    match answered {
        Ok(verdict) => told(StatusCode::OK, &verdict),
        Err(failure) => {
            tracing::debug!(
                path,
                status = failure.status().as_u16(),
                "a question got no verdict"
            );
            let mut response = told(failure.status(), &json!({ "message": failure.to_string() }));
            let headers = response.headers_mut();
            if let Failure::Caller(refusal) = &failure
                && let Some(challenge) = refusal.challenge()
            {
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static(challenge),
                );
            }
            if failure.status() == StatusCode::SERVICE_UNAVAILABLE {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            response
        }
    }
}

fn told<T: Serialize>(status: StatusCode, body: &T) -> Response {
    let mut bytes = Vec::with_capacity(ROOM);
    // Maps with text for keys, numbers and text: nothing that JSON cannot hold.
    if serde_json::to_writer(&mut bytes, body).is_err() {
        bytes.clear();
    }
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Self::Caller(refusal) => refusal.status(),
            Self::Body(error) => error.status(),
            Self::Json(_) | Self::TooMany => StatusCode::BAD_REQUEST,
            Self::Verify(error) | Self::VerifyOne(_, error) => match error {
                VerifyError::Question(_) => StatusCode::BAD_REQUEST,
                VerifyError::Unable(_) => StatusCode::SERVICE_UNAVAILABLE,
            },
        }
    }
}

#[cfg(test)]
mod tests;
