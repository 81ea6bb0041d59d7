//! May this key pass? One pure function; every protocol is an adapter around it.

use super::code::Code;
use super::index::{End, Holder, Index};
use super::permission::Expression;
use crate::key::{self, Hash};

/// The longest key, in bytes: longer ones are never imported.
pub const MAX_KEY: usize = 512;

/// What is asked.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// What the request shows as its key.
    pub shown: Shown<'a>,
    /// What the route needs.
    pub needs: Needs<'a>,
}

/// What a request shows as its key.
#[derive(Clone, Copy)]
pub enum Shown<'a> {
    /// Nothing.
    Nothing,
    /// One text.
    One(&'a [u8]),
    /// Several, or something that cannot be one.
    Unclear(MalformedReason),
}

/// Why a request is malformed. The code of the verdict is the same for all; the message says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MalformedReason {
    /// The request carries more than one key.
    SeveralKeys,
    /// The request carries headers that only the gate sets.
    IdentityHeaders,
    /// The key contains white space or a line end.
    WhiteSpace,
    /// The checksum of the key is wrong, or the text is no key at all.
    NoKey,
    /// The place of the key is in an encoding that cannot be read, or that a proxy may read in another way.
    Encoding,
    /// The request names its own URI in a header that only the proxy may set.
    OriginalUri,
}

/// What a route needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs<'a> {
    /// The protected API; without one, a key for any passes.
    pub audience: Option<&'a str>,
    /// The organization that the request is for.
    pub organization: Option<&'a str>,
    /// What the key must be allowed to do.
    pub permissions: Option<&'a Expression>,
    /// Keys of other namespaces count as unknown: the caller may not ask about them.
    pub namespace: Option<&'a str>,
}

/// The answer.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Why.
    pub code: Code,
    /// Whose key it is, where somebody's it is. Told to the holder and to callers with rights.
    pub holder: Option<Holder>,
    /// What is malformed, where the code is [`Code::Malformed`].
    pub malformed: Option<MalformedReason>,
}

impl Verdict {
    /// Whether the key passes.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.code == Code::Valid
    }

    fn unknown(code: Code) -> Self {
        Self {
            code,
            holder: None,
            malformed: None,
        }
    }

    fn malformed(reason: MalformedReason) -> Self {
        Self {
            malformed: Some(reason),
            ..Self::unknown(Code::Malformed)
        }
    }
}

/// Decides. `now` is in seconds since 1970.
///
/// A key is always looked up: one that was imported has no checksum. The checksum only tells a mistyped or made-up key
/// from one that is gone. An end counts before what the key is for, so that the holder of a dead key learns that it is dead.
#[must_use]
pub fn decide(index: &Index, ask: &Ask<'_>, now: i64) -> Verdict {
    let text = match ask.shown {
        Shown::Nothing => return Verdict::unknown(Code::Missing),
        Shown::One(text) if !text.is_empty() && text.len() <= MAX_KEY => text,
        Shown::One(text) => return Verdict::malformed(no_key(text)),
        Shown::Unclear(reason) => return Verdict::malformed(reason),
    };
    let found = index.find(&Hash::of(text));
    let found = found.filter(|holder| {
        ask.needs
            .namespace
            .is_none_or(|namespace| holder.entry().profile().namespace() == namespace)
    });
    let Some(holder) = found else {
        let well_formed = std::str::from_utf8(text).is_ok_and(|text| key::check(text).is_ok());
        return if well_formed {
            Verdict::unknown(Code::NotFound)
        } else {
            Verdict::malformed(no_key(text))
        };
    };
    Verdict {
        code: standing(&holder, &ask.needs, now),
        holder: Some(holder),
        malformed: None,
    }
}

/// A line end at the end of a key is the usual mistake with keys that were read from a file.
fn no_key(text: &[u8]) -> MalformedReason {
    if text.iter().any(u8::is_ascii_whitespace) {
        MalformedReason::WhiteSpace
    } else {
        MalformedReason::NoKey
    }
}

fn standing(holder: &Holder, needs: &Needs<'_>, now: i64) -> Code {
    let (entry, profile) = (holder.entry(), holder.entry().profile());
    match entry.ended(now) {
        Some(End::Revoked) => return Code::Revoked,
        Some(End::Expired) => return Code::Expired,
        None => {}
    }
    if holder.version().is_retired(now) {
        return Code::Rotated;
    }
    if needs
        .audience
        .is_some_and(|audience| !profile.audiences().any(|own| own == audience))
    {
        return Code::WrongAudience;
    }
    if needs.organization.is_some_and(|wanted| {
        !belongs(
            profile.organization(),
            profile.include_sub_organizations(),
            wanted,
        )
    }) {
        return Code::WrongOrganization;
    }
    if needs
        .permissions
        .is_some_and(|permissions| !permissions.holds(|name| holder.may(name)))
    {
        return Code::InsufficientPermissions;
    }
    Code::Valid
}

/// Whether a key of the organization `own` counts for `wanted`: its own, or one below it where it says so.
fn belongs(own: Option<&str>, with_sub_organizations: bool, wanted: &str) -> bool {
    let Some(own) = own else { return false };
    match wanted.strip_prefix(own) {
        Some("") => true,
        Some(below) => with_sub_organizations && below.starts_with('.'),
        None => false,
    }
}

#[cfg(test)]
mod tests;
