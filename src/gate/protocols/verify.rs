//! `POST /v1/verify` and its batch form: for services that ask about a key themselves. Tells everything about it, so that callers have to
//! prove who they are before a question gets here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::gate::answer::{self, Unable};
use crate::gate::decide::{Needs, Shown, Verdict};
use crate::gate::desk::Desk;
use crate::gate::index::Holder;
use crate::gate::metrics::Protocol;
use crate::gate::route::{Route, RouteError};

/// The most keys in one question.
pub const MAX_BATCH: usize = 100;
/// The largest question, in bytes.
pub const MAX_BODY: usize = 256 * 1024;

/// Answers.
pub struct Verify {
    desk: Arc<Desk>,
}

/// A question. What is not known here is refused: a mistyped `permissions` must not go unasked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    key: Secret,
    audience: Option<String>,
    organization: Option<String>,
    permissions: Option<String>,
    /// Keys of other namespaces count as unknown.
    pub namespace: Option<String>,
}

/// A verdict in full.
#[derive(Debug)]
pub struct Verified {
    verdict: Verdict,
    message: Cow<'static, str>,
}

/// As it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    valid: bool,
    code: &'static str,
    message: &'a str,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    facts: Option<Facts<'a>>,
}

/// What is known of the key, whether it passes or not.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts<'a> {
    key_id: String,
    name: &'a str,
    namespace: &'a str,
    principal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization: Option<&'a str>,
    version: u32,
    audiences: Vec<&'a str>,
    roles: Vec<&'a str>,
    permissions: Vec<&'a str>,
    metadata: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retires_at: Option<Timestamp>,
}

impl Serialize for Verified {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { verdict, message } = self;
        let facts = verdict.holder.as_ref().map(Facts::of);
        Told { valid: verdict.is_valid(), code: verdict.code.as_str(), message, facts }.serialize(serializer)
    }
}

impl<'a> Facts<'a> {
    fn of(holder: &'a Holder) -> Self {
        let (entry, profile) = (holder.entry(), holder.entry().profile());
        Self {
            key_id: entry.key_id().as_str().to_owned(),
            name: entry.name(),
            namespace: profile.namespace(),
            principal: entry.principal(),
            organization: profile.organization(),
            version: holder.version().number(),
            audiences: profile.audiences().collect(),
            roles: profile.roles().collect(),
            permissions: holder.permissions(),
            metadata: profile.metadata().collect(),
            expires_at: entry.expires(),
            retires_at: holder.version().retires(),
        }
    }
}

/// A key in a question: wiped when it is dropped, never shown.
struct Secret(Zeroizing<String>);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: Cow<'de, str> = Cow::deserialize(deserializer)?;
        Ok(Self(Zeroizing::new(text.into_owned())))
    }
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

    /// Answers one question.
    ///
    /// # Errors
    /// [`VerifyError`] where there is no verdict: the question is not understood, or the gate cannot decide.
    pub fn answer(&self, question: &Verification) -> Result<Verified, VerifyError> {
        let settings = [
            ("audience", question.audience.as_deref()),
            ("organization", question.organization.as_deref()),
            ("permissions", question.permissions.as_deref()),
        ];
        let route = Route::of(settings.into_iter().filter_map(|(name, value)| Some((name, value?))))?;
        let route = self.desk.routes.check(route)?;
        let key = question.key.0.as_bytes();
        let shown = if key.is_empty() { Shown::Nothing } else { Shown::One(key) };
        let needs = Needs { namespace: question.namespace.as_deref(), ..route.needs() };
        let verdict = self.desk.ask(Protocol::Verify, shown, needs)?;
        let message = answer::message(&verdict, &route);
        Ok(Verified { verdict, message })
    }
}
