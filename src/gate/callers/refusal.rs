//! Why a caller may not ask.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;

/// A caller may not ask. Never holds a part of what the caller showed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody knows who it is.
    #[error("who asks is not known: {0}")]
    Unauthenticated(&'static str),
    /// It is known and may not.
    #[error("{user} may not verify keys {}: it needs the verb verify on apikeys.claviger.dev there", Where(.namespace.as_deref()))]
    Forbidden {
        /// Who.
        user: Arc<str>,
        /// Where; `None` is the whole cluster.
        namespace: Option<Box<str>>,
    },
    /// What was given as a namespace cannot be one.
    #[error(
        "the namespace is not the name of any: lower-case letters, digits and - inside, at most 63"
    )]
    NoNamespace,
    /// The API server could not be asked.
    #[error("who asks cannot be found out now: {0}")]
    Unavailable(Arc<str>),
}

impl Refusal {
    /// The status to answer with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::NoNamespace => StatusCode::BAD_REQUEST,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The `WWW-Authenticate` header of a 401 (RFC 9110, 15.5.2).
    #[must_use]
    pub fn challenge(&self) -> Option<&'static str> {
        matches!(self, Self::Unauthenticated(_)).then_some(r#"Bearer realm="claviger""#)
    }
}

struct Where<'a>(Option<&'a str>);

impl fmt::Display for Where<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(namespace) => write!(f, "in namespace {namespace}"),
            None => f.write_str("in the whole cluster (a namespace in the request asks for less)"),
        }
    }
}
