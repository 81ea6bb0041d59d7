//! Who may ask the gate about keys over `/v1/verify`.
//!
//! An endpoint that says whether a key is valid is worth guarding: an open one is an oracle for
//! clients that collect keys. This guards `/v1/verify` only: `/v1/auth` answers every client that
//! reaches it, unless `--proxy-callers=mtls` or a NetworkPolicy keeps clients off.
//!
//! Callers show a ServiceAccount token ([TokenReview], then [SubjectAccessReview]: the verb
//! `verify` on `apikeys.claviger.dev`, in one namespace or everywhere), or a client certificate, or
//! whatever an installation allows.
//!
//! What the API server said is kept for [`Settings::cache`], counted from the question. Tokens do
//! not tell when they end, so a caller whose token or right is taken away may go on for that long,
//! and for as long as the body of its request takes (ten seconds at most): an identity counts for
//! the whole request as it was when the request began. The API server's own caches (seconds) come
//! on top.
//!
//! [TokenReview]: https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
//! [SubjectAccessReview]: https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/subject-access-review-v1/

mod bearer;
mod portions;
mod refusal;
mod review;
mod review_cache;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use kube::Client;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use self::bearer::Token;
pub use self::refusal::Refusal;
use self::review::{Asker, Reviewer, User};
use self::review_cache::{Answer, ReviewCache};
use super::server::Peer;
use crate::key::{MintError, OsRandom, RandomSource as _};

/// How a caller is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Method {
    /// By a ServiceAccount token with the right to verify.
    Token,
    /// By a client certificate of the authorities in `--tls-client-ca`.
    Mtls,
    /// Not at all: everybody who reaches the gate may ask.
    None,
}

/// What an installation allows its callers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How callers may be known; one way is enough for each.
    pub methods: Vec<Method>,
    /// The audiences of which a token must have one. Empty: the API server's own.
    pub audiences: Vec<String>,
    /// How long a good answer of the API server holds. A bad one holds a fifth of it.
    pub cache: Duration,
    /// How many tokens, and how many tokens with a namespace, are remembered: so many good ones, and
    /// as many others. Those that are seldom shown are forgotten first.
    pub remembered: usize,
    /// How long one question to the API server may take, its wait for others included. A caller may need two.
    pub patience: Duration,
    /// How many questions about tokens that were never good are under way at once; as many again about rights that were never good,
    /// and about tokens and rights that were.
    pub at_once: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            methods: vec![Method::Token],
            audiences: Vec::new(),
            cache: Duration::from_secs(10),
            remembered: 10_000,
            patience: Duration::from_secs(3),
            at_once: 16,
        }
    }
}

/// The settings make no sense, or the system fails.
#[derive(Debug, thiserror::Error)]
pub enum CallersError {
    /// No method is left.
    #[error(
        "--verify-callers names nothing: give token, mtls, both, or none for an endpoint that is open to everybody"
    )]
    NoMethod,
    /// None is not none.
    #[error(
        "--verify-callers=none opens the endpoint to everybody and cannot be combined with others: leave either out"
    )]
    NoneAmongOthers,
    /// No key for the memory could be made.
    #[error(transparent)]
    Random(#[from] MintError),
}

/// Somebody who may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A user of the cluster, such as `system:serviceaccount:shop:frontend`.
    User(Arc<str>),
    /// Somebody with a client certificate.
    Certified,
    /// Anybody.
    Anyone,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User(name) => name,
            Self::Certified => "a client certificate",
            Self::Anyone => "anyone",
        })
    }
}

/// A token as the memory knows it: a hash under a key that never leaves the process.
type Name = [u8; 32];

/// What a request shows of its caller: all that is needed of the request's head.
pub struct Credentials {
    shown: Shown,
    address: IpAddr,
}

enum Shown {
    Nothing,
    Certificate,
    Token(Name, Token),
}

/// A caller that is known. What it may do is still to be asked.
pub struct Identified {
    who: Who,
    address: IpAddr,
}

enum Who {
    Anyone,
    Certified,
    /// The token, whose it is, and until when that is taken for granted.
    User(Name, Arc<User>, Instant),
}

/// The guard of `/v1/verify`.
pub struct Callers {
    settings: Settings,
    reviewer: Arc<Reviewer>,
    secret: [u8; 32],
    users: ReviewCache<Name, Option<Arc<User>>>,
    rights: ReviewCache<(Name, Option<Box<str>>), bool>,
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callers")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Callers {
    /// A guard that asks the API server through `client`, whose identity may create tokenreviews and subjectaccessreviews
    /// (ClusterRole `system:auth-delegator`). Without tokens it asks nothing.
    ///
    /// # Errors
    /// [`CallersError`] when the methods exclude each other.
    pub fn new(client: Client, settings: Settings) -> Result<Self, CallersError> {
        if settings.methods.is_empty() {
            return Err(CallersError::NoMethod);
        }
        if settings.methods.contains(&Method::None)
            && settings
                .methods
                .iter()
                .any(|method| *method != Method::None)
        {
            return Err(CallersError::NoneAmongOthers);
        }
        let mut secret = [0; 32];
        OsRandom.fill(&mut secret)?;
        Ok(Self {
            reviewer: Arc::new(Reviewer::new(
                client,
                settings.audiences.clone(),
                settings.patience,
                settings.at_once,
            )),
            secret,
            users: ReviewCache::new(settings.remembered),
            rights: ReviewCache::new(settings.remembered),
            settings,
        })
    }

    /// What a request with these headers shows of its caller. The head is not needed any more then.
    ///
    /// # Errors
    /// [`Refusal`] where nothing is shown that an installation allows, and nobody has to be asked.
    pub fn credentials(&self, headers: &HeaderMap, peer: &Peer) -> Result<Credentials, Refusal> {
        let shown = if self.allows(Method::None) {
            Shown::Nothing
        } else if self.allows(Method::Mtls) && peer.certified {
            Shown::Certificate
        } else if self.allows(Method::Token) {
            let token = Token::of(headers).map_err(Refusal::Unauthenticated)?;
            Shown::Token(self.name(&token), token)
        } else {
            return Err(Refusal::Unauthenticated("show a client certificate"));
        };
        Ok(Credentials {
            shown,
            address: peer.address.ip(),
        })
    }

    /// Whose credentials these are. Asks nothing about what the caller may do: for a look before the
    /// body of a request is read. The answer counts for the whole request, however long its body
    /// takes.
    ///
    /// # Errors
    /// [`Refusal`] says why that is not known, and which status to answer with.
    pub async fn identify(&self, credentials: Credentials) -> Result<Identified, Refusal> {
        let Credentials { shown, address } = credentials;
        let who = match shown {
            Shown::Nothing => Who::Anyone,
            Shown::Certificate => Who::Certified,
            Shown::Token(name, token) => {
                // Boxed, as in `admit`: a request without a token has no room for this.
                let (user, until) = Box::pin(self.user(name, token, address)).await?;
                Who::User(name, user, until)
            }
        };
        Ok(Identified { who, address })
    }

    /// Whether a caller may ask about keys: about those of one namespace, or of all of them.
    ///
    /// # Errors
    /// [`Refusal`] says why not, and which status to answer with.
    pub async fn admit(
        &self,
        caller: &Identified,
        namespace: Option<&str>,
    ) -> Result<Caller, Refusal> {
        if namespace.is_some_and(|name| !is_namespace(name)) {
            return Err(Refusal::NoNamespace);
        }
        let (name, user, until) = match &caller.who {
            Who::Anyone => return Ok(Caller::Anyone),
            Who::Certified => return Ok(Caller::Certified),
            Who::User(name, user, until) => (*name, user, *until),
        };
        let known = (user.clone(), until);
        if Box::pin(self.may_verify(name, known, namespace, caller.address)).await? {
            Ok(Caller::User(user.name.clone()))
        } else {
            Err(Refusal::Forbidden {
                user: user.name.clone(),
                namespace: namespace.map(Box::from),
            })
        }
    }

    fn allows(&self, method: Method) -> bool {
        self.settings.methods.contains(&method)
    }

    fn name(&self, token: &Token) -> Name {
        Sha256::new()
            .chain_update(self.secret)
            .chain_update(token.expose())
            .finalize()
            .into()
    }

    fn hold(&self, good: bool) -> Duration {
        if good {
            self.settings.cache
        } else {
            self.settings.cache / 5
        }
    }

    /// Whose token it is, and until when that is taken for granted.
    async fn user(
        &self,
        name: Name,
        token: Token,
        address: IpAddr,
    ) -> Result<(Arc<User>, Instant), Refusal> {
        let (reviewer, good, bad) = (self.reviewer.clone(), self.hold(true), self.hold(false));
        let answer = self.users.ask(name, |was_good| async move {
            let (asked, user) = reviewer.user(&token, Asker { address, was_good }).await?;
            let until = asked + if user.is_some() { good } else { bad };
            Ok(Answer {
                good: user.is_some(),
                value: user.map(Arc::new),
                until,
            })
        });
        let answer = answer.await.map_err(Refusal::Unavailable)?;
        let user = answer.value.ok_or(Refusal::Unauthenticated(
            "the token is not valid for this gate, or not any more",
        ))?;
        Ok((user, answer.until))
    }

    async fn may_verify(
        &self,
        name: Name,
        (user, until): (Arc<User>, Instant),
        namespace: Option<&str>,
        address: IpAddr,
    ) -> Result<bool, Refusal> {
        let (reviewer, good, bad) = (self.reviewer.clone(), self.hold(true), self.hold(false));
        let namespace: Option<Box<str>> = namespace.map(Box::from);
        let answer = self
            .rights
            .ask((name, namespace.clone()), |was_good| async move {
                let (asked, may) = reviewer
                    .may_verify(&user, namespace.as_deref(), Asker { address, was_good })
                    .await?;
                // Who the user is, and in which groups, is as old as the review of the token.
                let until = until.min(asked + if may { good } else { bad });
                Ok(Answer {
                    good: may,
                    value: may,
                    until,
                })
            });
        Ok(answer.await.map_err(Refusal::Unavailable)?.value)
    }
}

/// Whether this can be the name of a namespace (RFC 1123 label). Everything else would be looked up in vain, or mean all of them.
fn is_namespace(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| inner(byte) || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}
