//! What the gate answers, in a word.

use std::fmt;

/// Why a key passes or does not. As text it is part of every protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The key passes.
    Valid,
    /// The request carries no key.
    Missing,
    /// What the request carries is not one key: mistyped, made up, or several at once.
    Malformed,
    /// Nobody here has this key. Also the answer for the key of somebody whom the caller may not ask about.
    NotFound,
    /// The key has ended by time.
    Expired,
    /// The key has ended by decision.
    Revoked,
    /// The key was replaced by a newer version, and the time in which both pass is over.
    Rotated,
    /// The key is for other protected APIs.
    WrongAudience,
    /// The key is for another organization.
    WrongOrganization,
    /// The key may not do this.
    InsufficientPermissions,
    /// Too many requests.
    RateLimited,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 11] = [
        Self::Valid,
        Self::Missing,
        Self::Malformed,
        Self::NotFound,
        Self::Expired,
        Self::Revoked,
        Self::Rotated,
        Self::WrongAudience,
        Self::WrongOrganization,
        Self::InsufficientPermissions,
        Self::RateLimited,
    ];

    /// As it is written in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "VALID",
            Self::Missing => "MISSING",
            Self::Malformed => "MALFORMED",
            Self::NotFound => "NOT_FOUND",
            Self::Expired => "EXPIRED",
            Self::Revoked => "REVOKED",
            Self::Rotated => "ROTATED",
            Self::WrongAudience => "WRONG_AUDIENCE",
            Self::WrongOrganization => "WRONG_ORGANIZATION",
            Self::InsufficientPermissions => "INSUFFICIENT_PERMISSIONS",
            Self::RateLimited => "RATE_LIMITED",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
