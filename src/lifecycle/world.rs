//! All that a plan is made from.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::api::names::LABEL_ORGANIZATION;
use crate::api::{ApiKey, ApiKeyPolicySpec, ApiKeyStatus, whole_second};
use crate::key::Hash;

/// What is known about one `ApiKey` and its surroundings.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// The object, as last read or as the last write returned it.
    pub apikey: Arc<ApiKey>,
    /// The Secret of its name.
    pub secret: SecretView,
    /// What is known about a version that is announced and not yet known to be delivered.
    pub outstanding: Outstanding,
    /// Whether the Secret can be created, as far as was asked.
    pub delivery: Delivery,
    /// Whether the gates know what was announced.
    pub gates: GateView,
    /// Whether our clock can be trusted.
    pub clock: Clock,
    /// Whether the Secret's metadata may be mended now. False while somebody keeps undoing it.
    pub may_mend: bool,
    /// What there is in the cluster besides.
    pub surroundings: Surroundings,
    /// The key that is to be taken over, where one is.
    pub source: SourceView,
    /// The key ID of another `ApiKey` that has the key already which this one takes or took over.
    pub duplicate: Option<String>,
    /// When this controller began to work. Rotations that were due by then are spread.
    pub since: Timestamp,
    /// What the installation chose.
    pub rules: Arc<Rules>,
}

/// What there is in the cluster besides the `ApiKey` and its Secret.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Surroundings {
    /// Whether the cluster's own objects are looked at at all. An installation in one namespace may lack the right.
    pub known: bool,
    /// The labels of the namespace.
    pub namespace: Arc<BTreeMap<String, String>>,
    /// The policies, by name; of one that cannot be read only the name is known.
    pub policies: Arc<Vec<(String, Option<ApiKeyPolicySpec>)>>,
    /// Listed roles that do not exist.
    pub missing_roles: Vec<String>,
}

/// The key that is to be taken over instead of minting one. Nothing secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SourceView {
    /// There is none to be taken over, or it was not looked at because it no longer matters.
    #[default]
    NotAsked,
    /// It is there.
    Found(FoundKey),
    /// It is not there, or not fit to be taken over.
    Unfit(Unfit),
}

/// A key that exists already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundKey {
    /// Its hash.
    pub hash: Hash,
    /// Its last characters, at most six.
    pub tail: String,
    /// Where it is.
    pub place: FoundIn,
    /// When it ends at the latest, as the Secret that holds it says.
    pub ends: Option<Timestamp>,
}

/// Where a key that exists already is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundIn {
    /// In another Secret, to be copied from there.
    Source,
    /// In the Secret that has our name, which is to become ours.
    OwnSecret,
    /// Outside the cluster: only its hash is known.
    Elsewhere,
}

/// Why a key cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// One of [`crate::api::conditions::reason`].
    pub reason: &'static str,
    /// For people: what is wrong, and what to do.
    pub message: String,
}

/// What an installation chooses for all its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether ApiKeys carry our finalizer.
    pub finalizer: bool,
    /// The last part of every principal.
    pub principal_domain: String,
    /// Mint, import and adopt nothing, because a restore is under way. Everything else goes on.
    pub hold_minting: bool,
}

/// What is known about the Secret of the ApiKey's name.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretView {
    /// Nothing, and nothing was needed.
    Unknown,
    /// It does not exist: a live read said so in so many words.
    Absent,
    /// It exists.
    Present(SecretFacts),
}

/// A Secret, without anything secret.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretFacts {
    /// Its UID.
    pub uid: String,
    /// Its resourceVersion.
    pub resource_version: String,
    /// Whether it is being deleted and something else still holds it.
    pub deleting: bool,
    /// Whether its data is immutable.
    pub immutable: bool,
    /// The hash of the entry that should hold the key; `None` where the entry is missing or empty.
    pub key: Option<Hash>,
    /// Entries of the template that were applied and no longer hold what was put there.
    pub edited_entries: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its owners, as it claims.
    pub owner_references: Vec<OwnerReference>,
}

/// What is known about a version that is announced and not yet known to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outstanding {
    /// This process holds its key.
    Held {
        /// Its number.
        version: i64,
        /// Whether a create may have been carried out without an answer.
        ambiguous: bool,
    },
    /// Nobody here holds its key, and a request of whoever does may still be under way.
    Unsettled,
    /// Nobody here holds its key, and no request can still be under way.
    Settled,
}

/// Whether the Secret can be created, as far as was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Not asked.
    Untried,
    /// A dry run went through.
    Possible,
    /// The API server said no.
    Refused(Refusal),
}

/// Whether the gates know an announced version. Whoever is given its key uses it, and what a gate does not know it refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GateView {
    /// All that report know it, or were waited for long enough.
    #[default]
    Ready,
    /// Some do not know it yet.
    Behind,
}

/// Why the API server would not have the Secret. Typed and unambiguous: nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One of [`crate::api::conditions::reason`].
    pub reason: &'static str,
    /// For people: what stands in the way, and what to do.
    pub message: String,
}

/// Whether our clock can be trusted to end a key, or to fix when one ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// It agrees with the API server's within a minute.
    Agrees,
    /// It does not; by how much ours is ahead.
    AheadBy(SignedDuration),
}

impl World {
    /// The status, empty where none was written yet.
    #[must_use]
    pub fn status(&self) -> ApiKeyStatus {
        self.apikey.status.clone().unwrap_or_default()
    }

    /// The Secret, where it is there and ours.
    #[must_use]
    pub fn own_secret(&self) -> Option<&SecretFacts> {
        match &self.secret {
            SecretView::Present(secret) if self.owns(secret) => Some(secret),
            SecretView::Present(_) | SecretView::Absent | SecretView::Unknown => None,
        }
    }

    /// Whether a Secret is ours: it has the UID that the status recorded at delivery, or holds a key that the status lists and that we
    /// delivered. Never by its labels, annotations or owners, which anyone who may create Secrets can set.
    #[must_use]
    pub fn owns(&self, secret: &SecretFacts) -> bool {
        self.apikey.status.as_ref().is_some_and(|status| {
            status
                .secret_ref
                .as_ref()
                .is_some_and(|recorded| recorded.uid == secret.uid)
                || secret.key.is_some_and(|hash| {
                    status.version_of(hash).is_some() && !self.is_known_by_hash_only(hash)
                })
        })
    }
}

impl World {
    /// Whether a key was taken over by its hash: then whoever holds it got it elsewhere.
    fn is_known_by_hash_only(&self, hash: Hash) -> bool {
        self.apikey
            .spec
            .source
            .as_ref()
            .and_then(|source| source.hash.as_deref())
            == Some(hash.to_string().as_str())
    }
}

impl Surroundings {
    /// The organization of the namespace.
    #[must_use]
    pub fn organization(&self) -> Option<&str> {
        self.namespace
            .get(LABEL_ORGANIZATION)
            .map(String::as_str)
            .filter(|name| !name.is_empty())
    }
}

impl Clock {
    /// What the API server's clock shows when ours shows `now`, as far as it was compared.
    #[must_use]
    pub fn corrected(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Agrees => now,
            Self::AheadBy(ahead) => whole_second(now.checked_sub(ahead).unwrap_or(now)),
        }
    }

    /// How far two clocks may be apart and still agree.
    pub const TOLERANCE: SignedDuration = SignedDuration::from_secs(60);

    /// Judges an offset: by how much our clock is ahead of the API server's.
    #[must_use]
    pub fn judge(ahead_by: SignedDuration) -> Self {
        if ahead_by.abs() <= Self::TOLERANCE {
            Self::Agrees
        } else {
            Self::AheadBy(ahead_by)
        }
    }
}

impl SecretFacts {
    /// Who the Secret says it belongs to, for a message.
    #[must_use]
    pub fn owner(&self) -> String {
        let controller = self
            .owner_references
            .iter()
            .find(|owner| owner.controller == Some(true));
        controller
            .or_else(|| self.owner_references.first())
            .map_or_else(
                || "it has no owner".to_owned(),
                |owner| {
                    format!(
                        "it belongs to {} {} (uid {})",
                        owner.kind, owner.name, owner.uid
                    )
                },
            )
    }
}
