//! Asking the API server. Requests and answers hold tokens: they are written and read here, not by the client, which logs what it
//! cannot read.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::bearer::Token;
use super::portions::Portions;

/// The longest answer that is read, in bytes.
const LONGEST: usize = 1 << 20;
/// How many questions about tokens that were never good wait for each one that is asked. More are turned away at once.
const QUEUE: usize = 64;
/// One peer gets so much of the places to wait: who makes tokens up is in nobody's way for long.
const PORTION: usize = 8;

/// Why the API server said nothing.
pub(super) type Silence = Arc<str>;

/// A user of the cluster.
pub(super) struct User {
    pub(super) name: Arc<str>,
    info: UserInfo,
}

/// Asks about tokens and rights, a few questions at a time.
pub(super) struct Reviewer {
    client: Client,
    audiences: Vec<String>,
    patience: Duration,
    /// Those who were never good wait apart: made-up tokens do not keep good callers from being renewed.
    known: Semaphore,
    /// Unknown tokens, and users that are known whose rights are not. The latter do not wait for the former.
    unknown: [Waiting; 2],
    /// Whether the last question of each kind failed.
    failing: [AtomicBool; 2],
}

/// Those who wait because they were never good, and their turns.
struct Waiting {
    turns: Semaphore,
    queue: Semaphore,
    portions: Portions,
}

/// Who asks, and whether the last answer about them was good.
#[derive(Clone, Copy)]
pub(super) struct Asker {
    pub(super) address: IpAddr,
    pub(super) was_good: bool,
}

impl Waiting {
    fn new(at_once: usize) -> Self {
        let queue = at_once * QUEUE;
        Self {
            turns: Semaphore::new(at_once),
            queue: Semaphore::new(queue),
            portions: Portions::new(queue / PORTION),
        }
    }
}

/// What is asked.
#[derive(Clone, Copy)]
enum Question {
    User,
    Right,
}

impl Question {
    fn resource(self) -> &'static str {
        match self {
            Self::User => "tokenreviews",
            Self::Right => "subjectaccessreviews",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::User => "/apis/authentication.k8s.io/v1/tokenreviews",
            Self::Right => "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        }
    }
}

#[derive(Deserialize)]
struct Answered<S> {
    status: Option<S>,
}

impl Reviewer {
    pub(super) fn new(
        client: Client,
        audiences: Vec<String>,
        patience: Duration,
        at_once: usize,
    ) -> Self {
        let at_once = at_once.clamp(1, 10_000);
        let unknown = [at_once, at_once].map(Waiting::new);
        Self {
            client,
            audiences,
            patience,
            known: Semaphore::new(at_once),
            unknown,
            failing: Default::default(),
        }
    }

    /// Whose token it is, and when that was asked.
    pub(super) async fn user(
        &self,
        token: &Token,
        from: Asker,
    ) -> Result<(Instant, Option<User>), Silence> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token.expose(), "audiences": self.audiences},
        });
        let (asked, status) = self.ask(Question::User, &review, from).await?;
        Ok((asked, self.reviewed(status)))
    }

    fn reviewed(&self, status: TokenReviewStatus) -> Option<User> {
        if status.authenticated != Some(true) {
            return None;
        }
        // An authenticator that knows nothing of audiences says nothing about them, and would let any through.
        let audiences = status.audiences.unwrap_or_default();
        if !self.audiences.is_empty()
            && !audiences
                .iter()
                .any(|audience| self.audiences.contains(audience))
        {
            return None;
        }
        let info = status.user?;
        let name = info
            .username
            .as_deref()
            .filter(|name| !name.is_empty())?
            .into();
        Some(User { name, info })
    }

    /// Whether a user may verify keys of a namespace, or all, and when that was asked.
    pub(super) async fn may_verify(
        &self,
        user: &User,
        namespace: Option<&str>,
        from: Asker,
    ) -> Result<(Instant, bool), Silence> {
        let resource = ResourceAttributes {
            group: Some("claviger.dev".to_owned()),
            resource: Some("apikeys".to_owned()),
            verb: Some("verify".to_owned()),
            namespace: namespace.map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let info = user.info.clone();
        let spec = SubjectAccessReviewSpec {
            user: info.username,
            uid: info.uid,
            groups: info.groups,
            extra: info.extra,
            resource_attributes: Some(resource),
            ..SubjectAccessReviewSpec::default()
        };
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        let (asked, status): (_, SubjectAccessReviewStatus) =
            self.ask(Question::Right, &review, from).await?;
        Ok((asked, status.allowed && status.denied != Some(true)))
    }

    async fn ask<S: DeserializeOwned>(
        &self,
        question: Question,
        review: &serde_json::Value,
        from: Asker,
    ) -> Result<(Instant, S), Silence> {
        let [users, rights] = &self.unknown;
        let unknown = match question {
            Question::User => users,
            Question::Right => rights,
        };
        let _place = if from.was_good {
            None
        } else {
            let busy = |_| "too many unknown callers ask at once";
            let own = unknown
                .portions
                .of(from.address)
                .try_acquire_owned()
                .map_err(busy)?;
            Some((own, unknown.queue.try_acquire().map_err(busy)?))
        };
        let turn = if from.was_good {
            &self.known
        } else {
            &unknown.turns
        };
        let asking = async {
            let _turn = turn.acquire().await.map_err(|_| "the gate is stopping")?;
            let asked = Instant::now();
            Ok((asked, self.post(question, review).await?))
        };
        let answer = tokio::time::timeout(self.patience, asking)
            .await
            .unwrap_or_else(|_| Err(Silence::from("the API server did not answer in time")));
        self.tell(question, answer.as_ref().err());
        answer
    }

    async fn post<S: DeserializeOwned>(
        &self,
        question: Question,
        review: &serde_json::Value,
    ) -> Result<S, Silence> {
        let broken = |_| Silence::from("the question could not be put");
        let request = Request::post(question.path())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Body::from(serde_json::to_vec(review).map_err(|_| {
                Silence::from("the question could not be written")
            })?))
            .map_err(broken)?;
        let resource = question.resource();
        let unreachable = |_| Silence::from("the API server cannot be reached");
        let response = self.client.send(request).await.map_err(unreachable)?;
        match response.status() {
            status if status.is_success() => {}
            StatusCode::FORBIDDEN => {
                let needed = format!(
                    "the gate may not create {resource}: bind the ClusterRole system:auth-delegator to its ServiceAccount"
                );
                return Err(needed.into());
            }
            status => {
                return Err(
                    format!("the API server answers {status} when {resource} are created").into(),
                );
            }
        }
        let unreadable = || Silence::from("the API server's answer cannot be read");
        let body = Limited::new(response.into_body(), LONGEST)
            .collect()
            .await
            .map_err(|_| unreadable())?;
        let answered: Answered<S> =
            serde_json::from_slice(&body.to_bytes()).map_err(|_| unreadable())?;
        answered.status.ok_or_else(unreadable)
    }

    /// Tells once when callers cannot be looked up any more, and once when they can again.
    fn tell(&self, question: Question, silence: Option<&Silence>) {
        let [user, right] = &self.failing;
        let failing = match question {
            Question::User => user,
            Question::Right => right,
        };
        match silence {
            Some(reason) if !failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%reason, "callers of /v1/verify cannot be looked up");
            }
            None if failing.swap(false, Ordering::Relaxed) => {
                tracing::info!("callers of /v1/verify can be looked up again");
            }
            _ => {}
        }
    }
}
