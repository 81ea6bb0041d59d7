//! `POST /v1/verify` and its batch form: for services that ask about a key themselves. Tells everything about it, so that callers have to
//! prove who they are before a question gets here.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr as _;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use serde::de::Visitor;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::gate::access_log::{Origin, request_id};
use crate::gate::answer::{self, Unable};
use crate::gate::decide::{Needs, Shown, Verdict};
use crate::gate::desk::Desk;
use crate::gate::index::{Holder, Profile};
use crate::gate::metrics::Protocol;
use crate::gate::permission::Expression;
use crate::gate::route::{RouteError, bounded};

/// The most keys in one question.
pub const MAX_BATCH: usize = 100;
/// The largest question, in bytes.
pub const MAX_BODY: usize = 256 * 1024;

/// Answers.
pub struct Verify {
    desk: Arc<Desk>,
}

/// A question, as far as possible read where it stands in a body. What is not known here is refused: a mistyped `permissions` must not
/// go unasked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification<'a> {
    #[serde(borrow)]
    key: Text<'a>,
    audience: Option<Text<'a>>,
    organization: Option<Text<'a>>,
    permissions: Option<Text<'a>>,
    namespace: Option<Text<'a>>,
}

/// A text of a question, which may be a key: never shown, and wiped where it had to be copied.
enum Text<'a> {
    InPlace(&'a str),
    Copied(Zeroizing<String>),
}

/// A verdict in full.
#[derive(Debug)]
pub struct Verified {
    verdict: Verdict,
    message: Cow<'static, str>,
}

impl Verification<'_> {
    /// Keys of other namespaces count as unknown.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::InPlace(text) => text,
            Self::Copied(text) => text,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfText;
        impl<'de> Visitor<'de> for OfText {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text::InPlace(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text::Copied(Zeroizing::new(text.to_owned())))
            }
        }
        deserializer.deserialize_str(OfText)
    }
}

/// Texts of the index, as a list.
struct List<I>(I);

impl<'a, I: Iterator<Item = &'a str> + Clone> Serialize for List<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.clone())
    }
}

/// What owners tell.
struct Metadata<'a>(&'a Profile);

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.metadata())
    }
}

/// Written piece by piece from where it stands in the index.
impl Serialize for Verified {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { verdict, message } = self;
        let mut told = serializer.serialize_map(None)?;
        told.serialize_entry("valid", &verdict.is_valid())?;
        told.serialize_entry("code", verdict.code.as_str())?;
        told.serialize_entry("message", message)?;
        if let Some(holder) = &verdict.holder {
            tell(holder, &mut told)?;
        }
        told.end()
    }
}

/// What is known of the key, whether it passes or not.
fn tell<M: SerializeMap>(holder: &Holder, told: &mut M) -> Result<(), M::Error> {
    let (entry, version) = (holder.entry(), holder.version());
    let profile = entry.profile();
    told.serialize_entry("keyId", entry.key_id().as_str())?;
    told.serialize_entry("name", entry.name())?;
    told.serialize_entry("namespace", profile.namespace())?;
    told.serialize_entry("principal", &entry.principal())?;
    if let Some(organization) = profile.organization() {
        told.serialize_entry("organization", organization)?;
    }
    told.serialize_entry("version", &version.number())?;
    told.serialize_entry("audiences", &List(profile.audiences()))?;
    told.serialize_entry("roles", &List(profile.roles()))?;
    told.serialize_entry("permissions", &holder.permissions())?;
    told.serialize_entry("metadata", &Metadata(profile))?;
    for (name, moment) in [
        ("expiresAt", entry.expires()),
        ("retiresAt", version.retires()),
    ] {
        if let Some(moment) = moment {
            told.serialize_entry(name, &moment)?;
        }
    }
    Ok(())
}

/// Why a question gets no verdict.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is not understood.
    #[error(transparent)]
    Question(#[from] RouteError),
    /// The gate cannot decide now.
    #[error(transparent)]
    Unable(#[from] Unable),
}

impl Verify {
    /// Asks at this desk.
    #[must_use]
    pub fn new(desk: Arc<Desk>) -> Self {
        Self { desk }
    }

    /// The request's ID, where the access log has a use for it.
    #[must_use]
    pub fn request_id(&self, headers: &HeaderMap) -> Option<String> {
        let log = self.desk.access_log.is_on();
        let header = |name| headers.get(name).map(HeaderValue::as_bytes);
        log.then(|| request_id(header)).flatten()
    }

    /// Answers one question. `origin` is for the access log.
    ///
    /// # Errors
    /// [`VerifyError`] where there is no verdict: the question is not understood, or the gate cannot decide.
    pub fn answer(
        &self,
        question: &Verification<'_>,
        origin: impl FnOnce() -> Origin,
    ) -> Result<Verified, VerifyError> {
        let permissions;
        let needs = Needs {
            audience: question
                .audience
                .as_deref()
                .map(|name| bounded("audience", name))
                .transpose()?,
            organization: question
                .organization
                .as_deref()
                .map(|name| bounded("organization", name))
                .transpose()?,
            permissions: {
                let expression = question.permissions.as_deref().map(Expression::from_str);
                permissions = expression.transpose().map_err(RouteError::from)?;
                permissions.as_ref()
            },
            namespace: question.namespace(),
        };
        self.desk.routes.check(needs.audience)?;
        let shown = if question.key.is_empty() {
            Shown::Nothing
        } else {
            Shown::One(question.key.as_bytes())
        };
        let verdict = self.desk.ask(Protocol::Verify, shown, needs, origin)?;
        let message = answer::message(&verdict, &needs);
        Ok(Verified { verdict, message })
    }
}
