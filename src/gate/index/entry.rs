//! One ApiKey as the index keeps it: small, because there may be a million of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::interner::Interner;
use crate::api::{Phase, VersionPhase};
use crate::gate::report::Noted;
use crate::gate::shown::{ShownApiKey, seconds};
use crate::key::Hash;

/// A moment that never comes.
const NEVER: i64 = i64::MAX;

/// What an object is known by, whatever its name: its UID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(u128);

/// An ApiKey that has a key. Sorted by age: of two with one hash the first counts.
#[derive(Debug)]
pub struct Entry {
    uid: [u8; 16],
    key_id: [u8; 16],
    /// Seconds since 1970.
    created: i64,
    /// Seconds since 1970.
    expires: i64,
    /// When its last use was noted: changed by whoever answers requests.
    noted: Noted,
    name: Box<str>,
    profile: Arc<Profile>,
    /// Most have one version: it stands in the entry itself, one access to memory nearer.
    version: Listed,
    other_versions: Box<[Listed]>,
    ended: Option<End>,
}

/// How an ApiKey has ended, other than by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its end was recorded.
    Expired,
    /// It was asked for.
    Revoked,
}

/// A version of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    hash: Hash,
    number: u32,
    /// Seconds since 1970; a retired version's is in the past for ever.
    until: i64,
}

/// What ApiKeys often have in common; kept once for all that do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Profile {
    /// The namespace.
    pub namespace: Box<str>,
    /// The organization, as recorded.
    pub organization: Option<Box<str>>,
    /// Whether it counts for organizations below its own.
    pub include_sub_organizations: bool,
    /// The protected APIs it is for.
    pub audiences: Box<[Box<str>]>,
    /// Its roles.
    pub roles: Box<[Box<str>]>,
    /// Its permissions besides those of its roles.
    pub permissions: Box<[Box<str>]>,
    /// What its owner tells those who ask.
    pub metadata: Box<[(Box<str>, Box<str>)]>,
    principal: Principal,
}

/// The name in audit logs: mostly `<keyId>@<namespace>.<domain>`, of which only the domain is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Principal {
    Domain(Box<str>),
    Whole(Box<str>),
}

impl Uid {
    /// Of the text that the API server gives. One that is no UUID is hashed.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let (mut value, mut digits) = (0_u128, 0);
        for c in text.chars().filter(|c| *c != '-') {
            match c.to_digit(16) {
                Some(digit) if digits < 32 => (value, digits) = (value << 4 | u128::from(digit), digits + 1),
                _ => digits = 33,
            }
        }
        if digits == 32 { Self(value) } else { Self::hashed(text) }
    }

    fn hashed(text: &str) -> Self {
        let digest = Hash::of(text.as_bytes()).to_string();
        let hex = digest.get(digest.len() - 32..).unwrap_or_default();
        Self(u128::from_str_radix(hex, 16).unwrap_or_default())
    }
}

/// As the API server writes it.
impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        let (first, rest) = hex.split_at(8);
        let (second, rest) = rest.split_at(4);
        let (third, rest) = rest.split_at(4);
        let (fourth, fifth) = rest.split_at(4);
        write!(f, "{first}-{second}-{third}-{fourth}-{fifth}")
    }
}

impl Entry {
    /// What the index keeps of an `ApiKey`; nothing where no key of it counts: none was announced, or its deletion was asked for.
    pub(super) fn of(shown: &ShownApiKey, profiles: &mut Interner<Profile>) -> Option<Self> {
        let (meta, spec, status) = (&shown.metadata, &shown.spec, &shown.status);
        if meta.deletion_timestamp.is_some() {
            return None;
        }
        let mut versions = status.versions.iter().filter_map(Listed::of);
        let version = versions.next()?;
        let other_versions = versions.collect();
        let key_id = status.key_id.as_deref().unwrap_or_default();
        let profile = Profile {
            namespace: meta.namespace.as_str().into(),
            organization: status.organization.as_deref().map(Into::into),
            include_sub_organizations: spec.include_sub_organizations.unwrap_or_default(),
            audiences: boxed(&spec.audiences),
            roles: boxed(&spec.roles),
            permissions: boxed(&spec.permissions),
            metadata: spec.metadata.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect(),
            principal: Principal::of(status.principal.as_deref().unwrap_or_default(), key_id, &meta.namespace),
        };
        // The phase that was recorded first is final. A revocation counts from the moment at which it is asked for.
        let ended = match status.phase {
            Some(Phase::Expired) => Some(End::Expired),
            Some(Phase::Revoked) => Some(End::Revoked),
            _ if spec.revoked == Some(true) || status.revoked_at.is_some() => Some(End::Revoked),
            _ if status.expired_at.is_some() => Some(End::Expired),
            _ => None,
        };
        Some(Self {
            uid: Uid::of(&meta.uid).0.to_be_bytes(),
            key_id: u128::from_str_radix(key_id, 16).unwrap_or_default().to_be_bytes(),
            created: meta.creation_timestamp.as_ref().map(seconds).unwrap_or_default(),
            expires: status.expires_at.as_ref().map_or(NEVER, seconds),
            noted: Noted::new(status.last_used_at.as_ref().map(seconds)),
            name: meta.name.as_str().into(),
            profile: profiles.keep(profile),
            version,
            other_versions,
            ended,
        })
    }

    /// The object.
    #[must_use]
    pub fn uid(&self) -> Uid {
        Uid(u128::from_be_bytes(self.uid))
    }

    /// The public identifier: 32 lower-case hex digits.
    #[must_use]
    pub fn key_id(&self) -> String {
        let mut text = String::with_capacity(32);
        self.push_key_id(&mut text);
        text
    }

    /// The ApiKey's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has in common with others.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The name in audit logs.
    #[must_use]
    pub fn principal(&self) -> String {
        match &self.profile.principal {
            Principal::Domain(domain) => {
                let mut text = String::with_capacity(34 + self.profile.namespace.len() + domain.len());
                self.push_key_id(&mut text);
                for part in ["@", &self.profile.namespace, ".", domain] {
                    text.push_str(part);
                }
                text
            }
            Principal::Whole(whole) => whole.to_string(),
        }
    }

    /// Without the machinery of formatting: it is written twice at each request.
    fn push_key_id(&self, text: &mut String) {
        let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' - 10 + value };
        let mut digits = [0; 32];
        for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(self.key_id) {
            *pair = [digit(byte >> 4), digit(byte & 0xf)];
        }
        text.push_str(std::str::from_utf8(&digits).unwrap_or_default());
    }

    /// How it has ended at this moment, in seconds since 1970. The recorded end counts before the clock.
    #[must_use]
    pub fn ended(&self, now: i64) -> Option<End> {
        self.ended.or((now >= self.expires).then_some(End::Expired))
    }

    /// When it ends by time.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        moment(self.expires)
    }

    /// When its last use was noted.
    #[must_use]
    pub fn noted(&self) -> &Noted {
        &self.noted
    }

    pub(super) fn versions(&self) -> impl Iterator<Item = &Listed> {
        std::iter::once(&self.version).chain(&self.other_versions)
    }

    /// The version whose key has this hash. Compared in a time that does not tell how much of it is right.
    pub(super) fn version_of(&self, hash: &Hash) -> Option<&Listed> {
        self.versions().find(|version| version.hash.is(hash))
    }

    /// Whether this one counts where both have one hash: the older one, by creation and then by UID, in every gate alike.
    pub(super) fn counts_before(&self, other: &Self) -> bool {
        (self.created, self.uid) < (other.created, other.uid)
    }

    /// Takes over what answering requests has changed in the entry that this one replaces.
    pub(super) fn succeed(&self, earlier: &Self) {
        self.noted.succeed(&earlier.noted);
    }
}

impl Listed {
    fn of(version: &crate::api::Version) -> Option<Self> {
        let until = match version.phase {
            VersionPhase::Announced | VersionPhase::Current => NEVER,
            // One without an end was replaced all the same: it does not pass.
            VersionPhase::Retiring => version.retires_at.as_ref().map_or(i64::MIN, seconds),
            VersionPhase::Retired => i64::MIN,
        };
        let (hash, number) = (version.hash.parse().ok()?, u32::try_from(version.version).unwrap_or(u32::MAX));
        Some(Self { hash, number, until })
    }

    /// Its number, from 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether it was replaced and its overlap is over, at this moment in seconds since 1970.
    #[must_use]
    pub fn is_retired(&self, now: i64) -> bool {
        now >= self.until
    }

    /// When it stops passing because it was replaced.
    #[must_use]
    pub fn retires(&self) -> Option<Timestamp> {
        moment(self.until)
    }

    pub(super) fn hash(&self) -> &Hash {
        &self.hash
    }
}

impl Profile {
    /// The metadata as a map.
    #[must_use]
    pub fn metadata(&self) -> BTreeMap<&str, &str> {
        self.metadata.iter().map(|(key, value)| (&**key, &**value)).collect()
    }
}

impl Principal {
    fn of(principal: &str, key_id: &str, namespace: &str) -> Self {
        let domain = principal.strip_prefix(key_id).and_then(|rest| rest.strip_prefix('@'));
        let domain = domain.and_then(|rest| rest.strip_prefix(namespace)).and_then(|rest| rest.strip_prefix('.'));
        match domain.filter(|_| key_id.len() == 32) {
            Some(domain) => Self::Domain(domain.into()),
            None => Self::Whole(principal.into()),
        }
    }
}

fn boxed(names: &[String]) -> Box<[Box<str>]> {
    names.iter().map(|name| name.as_str().into()).collect()
}

fn moment(second: i64) -> Option<Timestamp> {
    if second == NEVER { None } else { Timestamp::from_second(second).ok() }
}
