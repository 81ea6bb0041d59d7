//! One ApiKey as the index keeps it: small, because there may be a million of them.

use std::sync::Arc;

use jiff::Timestamp;

use super::interner::Interner;
use super::name::Name;
use super::profile::{Principal, Profile};
use crate::gate::report::Noted;
use crate::gate::shown::{ShownApiKey, ShownPhase, ShownVersion, ShownVersionPhase, seconds};
use crate::key::Hash;
use crate::watch::Uid;

/// A moment that never comes.
const NEVER: i64 = i64::MAX;

/// An ApiKey that has a key. Of two with one hash the older counts.
///
/// Its fields stand in the order in which an answer needs them, and so in few cache lines: first what decides, then what is told.
#[derive(Debug)]
#[repr(C)]
pub struct Entry {
    /// Most have one version: it stands in the entry itself, one access to memory nearer.
    version: Listed,
    /// Seconds since 1970.
    expires: i64,
    ended: Option<End>,
    profile: Arc<Profile>,
    /// When its last use was noted: changed by whoever answers requests.
    noted: Noted,
    key_id: [u8; 16],
    name: Name,
    other_versions: Box<[Listed]>,
    uid: [u8; 16],
    /// Seconds since 1970.
    created: i64,
}

/// The public identifier of a key, as it is written: 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId([u8; 32]);

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

impl KeyId {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Hex digits: always text.
        std::str::from_utf8(&self.0).unwrap_or_default()
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
        // The phase that was recorded first is final. A revocation counts from the moment at which it is asked for.
        let ended = match status.phase {
            Some(ShownPhase::Expired) => Some(End::Expired),
            Some(ShownPhase::Revoked) => Some(End::Revoked),
            _ if spec.revoked == Some(true) || status.revoked_at.is_some() => Some(End::Revoked),
            _ if status.expired_at.is_some() => Some(End::Expired),
            _ => None,
        };
        Some(Self {
            version,
            expires: status.expires_at.as_ref().map_or(NEVER, seconds),
            ended,
            profile: profiles.keep(Profile::of(shown)),
            noted: Noted::new(status.last_used_at.as_ref().map(seconds)),
            key_id: u128::from_str_radix(key_id, 16)
                .unwrap_or_default()
                .to_be_bytes(),
            name: Name::of(&meta.name),
            other_versions,
            uid: Uid::of(&meta.uid).to_bytes(),
            created: meta
                .creation_timestamp
                .as_ref()
                .map(seconds)
                .unwrap_or_default(),
        })
    }

    /// The object.
    #[must_use]
    pub fn uid(&self) -> Uid {
        Uid::from_bytes(self.uid)
    }

    /// The public identifier. Written without the machinery of formatting, for each request needs it.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        let digit = |value: u8| {
            if value < 10 {
                b'0' + value
            } else {
                b'a' - 10 + value
            }
        };
        let mut digits = [0; 32];
        for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(self.key_id) {
            *pair = [digit(byte >> 4), digit(byte & 0xf)];
        }
        KeyId(digits)
    }

    /// The ApiKey's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// What it has in common with others.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The name in audit logs.
    #[must_use]
    pub fn principal(&self) -> String {
        match self.profile.principal() {
            Principal::Domain(domain) => [
                self.key_id().as_str(),
                "@",
                self.profile.namespace(),
                ".",
                domain,
            ]
            .concat(),
            Principal::Whole(whole) => whole.to_owned(),
        }
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
    fn of(version: &ShownVersion) -> Option<Self> {
        let until = match version.phase {
            ShownVersionPhase::Announced | ShownVersionPhase::Current => NEVER,
            // One without an end was replaced all the same: it does not pass.
            ShownVersionPhase::Retiring => version.retires_at.as_ref().map_or(i64::MIN, seconds),
            ShownVersionPhase::Retired => i64::MIN,
        };
        let (hash, number) = (
            version.hash.parse().ok()?,
            u32::try_from(version.version).unwrap_or(u32::MAX),
        );
        Some(Self {
            hash,
            number,
            until,
        })
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

fn moment(second: i64) -> Option<Timestamp> {
    if second == NEVER {
        None
    } else {
        Timestamp::from_second(second).ok()
    }
}
