//! Where a request carries its key.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::decide::{MalformedReason, Shown};
use super::quote::quotable;

/// The places in which a route looks for the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places(Vec<Place>);

/// One place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// `Authorization: Bearer <key>` (RFC 6750, section 2.1).
    Bearer,
    /// `Authorization: <key>`, without a scheme.
    Bare,
    /// A header of its own, in small letters.
    Header(String),
    /// `Authorization: Basic …` (RFC 7617).
    Basic(BasicPart),
    /// A parameter of the query.
    Query(String),
    /// A cookie (RFC 6265).
    Cookie(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BasicPart {
    User,
    Password,
}

/// A text that names no places.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "credentials: {0:?} is no place for a key: write bearer, authorization, header:<name>, basic:user, basic:password, query:<name> or \
     cookie:<name>, with commas between"
)]
pub struct PlacesError(String);

/// What a request carries, as far as keys may stand in it.
pub trait Carrier {
    /// All values of a header, whose name is given in small letters.
    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]>;
    /// The query of the original request, still encoded, without `?`.
    fn query(&self) -> Option<&str>;
    /// Whether several headers of one name may have been joined with commas on the way: then a comma is no part of a key.
    fn joins(&self) -> bool {
        false
    }
}

/// The key that a request shows.
pub struct Credential<'a> {
    text: Text<'a>,
    /// What must not travel on.
    pub trace: Trace<'a>,
}

/// Where the key stood, so that it can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace<'a> {
    /// In a header, whose name is in small letters.
    Header(&'a str),
    /// In a parameter of the query.
    Query(&'a str),
    /// In a cookie.
    Cookie(&'a str),
}

/// What was found in a request.
pub enum Found<'a> {
    /// Nothing that could be a key.
    Nothing,
    /// One key.
    One(Credential<'a>),
    /// Several, or something unreadable. Nothing is picked.
    Unclear(MalformedReason),
}

enum Text<'a> {
    Borrowed(&'a [u8]),
    Decoded(Zeroizing<Vec<u8>>),
}

impl Places {
    /// Most places that a route may name.
    pub const MAX: usize = 8;

    /// Looks at all of them.
    pub fn find<'a>(&'a self, carrier: &'a impl Carrier) -> Found<'a> {
        let mut found = Found::Nothing;
        for place in &self.0 {
            match (place.find(carrier), &found) {
                (Found::Nothing, _) => {}
                (one @ Found::One(_), Found::Nothing) => found = one,
                (Found::One(_), _) => return Found::Unclear(MalformedReason::SeveralKeys),
                (unclear @ Found::Unclear(_), _) => return unclear,
            }
        }
        match found {
            Found::One(credential) if carrier.joins() && credential.bytes().contains(&b',') => {
                Found::Unclear(MalformedReason::SeveralKeys)
            }
            other => other,
        }
    }

    /// Whether a key may stand in the query.
    #[must_use]
    pub fn include_query(&self) -> bool {
        self.0.iter().any(|place| matches!(place, Place::Query(_)))
    }
}

impl Default for Places {
    fn default() -> Self {
        Self(vec![Place::Bearer, Place::Header("x-api-key".to_owned())])
    }
}

impl FromStr for Places {
    type Err = PlacesError;

    fn from_str(text: &str) -> Result<Self, PlacesError> {
        let places: Vec<Place> = text
            .split(',')
            .map(|place| place.trim().parse())
            .collect::<Result<_, _>>()?;
        if places.len() > Self::MAX {
            return Err(PlacesError(quotable(text).to_owned()));
        }
        Ok(Self(places))
    }
}

impl FromStr for Place {
    type Err = PlacesError;

    fn from_str(text: &str) -> Result<Self, PlacesError> {
        let wrong = || PlacesError(quotable(text).to_owned());
        let (kind, name) = text
            .split_once(':')
            .map_or((text, None), |(kind, name)| (kind, Some(name)));
        // Names of parameters and cookies are as free as those of headers (RFC 6265, section 4.1.1).
        let name =
            name.filter(|name| name.len() <= 64 && http::HeaderName::try_from(*name).is_ok());
        match (kind, name) {
            ("bearer", None) if text == kind => Ok(Self::Bearer),
            ("authorization", None) if text == kind => Ok(Self::Bare),
            ("basic", Some("user")) => Ok(Self::Basic(BasicPart::User)),
            ("basic", Some("password")) => Ok(Self::Basic(BasicPart::Password)),
            ("query", Some(name)) => Ok(Self::Query(name.to_owned())),
            ("cookie", Some(name)) => Ok(Self::Cookie(name.to_owned())),
            ("header", Some(name)) => {
                let name = name.to_ascii_lowercase();
                // The last two are written into logs.
                let taken = matches!(
                    &*name,
                    "host"
                        | "cookie"
                        | "authorization"
                        | "content-length"
                        | "x-request-id"
                        | "traceparent"
                ) || name.starts_with("x-claviger-");
                if taken {
                    Err(wrong())
                } else {
                    Ok(Self::Header(name))
                }
            }
            _ => Err(wrong()),
        }
    }
}

impl Place {
    fn find<'a>(&'a self, carrier: &'a impl Carrier) -> Found<'a> {
        match self {
            Self::Bearer => match only(carrier.header("authorization")) {
                Ok(Some(value)) => with_scheme(value, "bearer").map_or(Found::Nothing, |key| {
                    key_in(key, Trace::Header("authorization"))
                }),
                Ok(None) => Found::Nothing,
                Err(Several) => Found::Unclear(MalformedReason::SeveralKeys),
            },
            Self::Bare => match only(carrier.header("authorization")) {
                Ok(Some(value)) if !value.contains(&b' ') => {
                    key_in(value, Trace::Header("authorization"))
                }
                Ok(_) => Found::Nothing,
                Err(Several) => Found::Unclear(MalformedReason::SeveralKeys),
            },
            Self::Header(name) => match only(carrier.header(name)) {
                Ok(Some(value)) => key_in(value, Trace::Header(name)),
                Ok(None) => Found::Nothing,
                Err(Several) => Found::Unclear(MalformedReason::SeveralKeys),
            },
            Self::Basic(part) => match only(carrier.header("authorization")) {
                Ok(Some(value)) => {
                    with_scheme(value, "basic").map_or(Found::Nothing, |text| part.find(text))
                }
                Ok(None) => Found::Nothing,
                Err(Several) => Found::Unclear(MalformedReason::SeveralKeys),
            },
            Self::Query(name) => {
                let values = carrier
                    .query()
                    .unwrap_or_default()
                    .split('&')
                    .filter_map(|pair| {
                        let (key, value) = form_urlencoded::parse(pair.as_bytes()).next()?;
                        (key == **name).then(|| (pair.split('=').next() == Some(name), value))
                    });
                match only(values) {
                    Ok(Some((_, value))) if value.is_empty() => Found::Nothing,
                    Ok(Some((true, value))) => Found::One(Credential {
                        text: decoded(value),
                        trace: Trace::Query(name),
                    }),
                    Ok(None) => Found::Nothing,
                    // Where the API decodes the name, a proxy that takes the key away compares it as it is spelled.
                    Ok(Some((false, _))) => Found::Unclear(MalformedReason::Encoding),
                    Err(Several) => Found::Unclear(MalformedReason::SeveralKeys),
                }
            }
            Self::Cookie(name) => {
                let values = carrier
                    .header("cookie")
                    .flat_map(cookies)
                    .filter(|(key, _)| *key == name.as_bytes());
                match only(values) {
                    Ok(Some((_, value))) => key_in(value, Trace::Cookie(name)),
                    Ok(None) => Found::Nothing,
                    Err(Several) => Found::Unclear(MalformedReason::SeveralKeys),
                }
            }
        }
    }
}

impl BasicPart {
    fn find<'a>(self, text: &[u8]) -> Found<'a> {
        let Ok(decoded) = STANDARD.decode(text) else {
            return Found::Unclear(MalformedReason::Encoding);
        };
        let decoded = Zeroizing::new(decoded);
        let Some(colon) = decoded.iter().position(|byte| *byte == b':') else {
            return Found::Unclear(MalformedReason::Encoding);
        };
        let (user, password) = decoded.split_at(colon);
        let part = match self {
            Self::User => user,
            Self::Password => password.get(1..).unwrap_or_default(),
        };
        if part.is_empty() {
            return Found::Nothing;
        }
        Found::One(Credential {
            text: Text::Decoded(Zeroizing::new(part.to_vec())),
            trace: Trace::Header("authorization"),
        })
    }
}

impl Credential<'_> {
    /// The key, byte for byte.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.text {
            Text::Borrowed(bytes) => bytes,
            Text::Decoded(bytes) => bytes,
        }
    }
}

impl Found<'_> {
    /// What the decision is asked about.
    #[must_use]
    pub fn shown(&self) -> Shown<'_> {
        match self {
            Self::Nothing => Shown::Nothing,
            Self::One(credential) => Shown::One(credential.bytes()),
            Self::Unclear(reason) => Shown::Unclear(*reason),
        }
    }

    /// Where the key stood.
    #[must_use]
    pub fn trace(&self) -> Option<Trace<'_>> {
        match self {
            Self::One(credential) => Some(credential.trace),
            _ => None,
        }
    }
}

/// Holds a key, and never shows it.
impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("trace", &self.trace)
            .finish_non_exhaustive()
    }
}

/// The name and the value of each cookie of a header.
pub(super) fn cookies(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    header.split(|byte| *byte == b';').filter_map(|pair| {
        let pair = pair.trim_ascii();
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = pair.split_at(equals);
        Some((name, value.get(1..).unwrap_or_default()))
    })
}

struct Several;

fn only<T>(mut values: impl Iterator<Item = T>) -> Result<Option<T>, Several> {
    let first = values.next();
    if values.next().is_some() {
        Err(Several)
    } else {
        Ok(first)
    }
}

fn key_in<'a>(value: &'a [u8], trace: Trace<'a>) -> Found<'a> {
    let value = value.trim_ascii();
    if value.is_empty() {
        Found::Nothing
    } else {
        Found::One(Credential {
            text: Text::Borrowed(value),
            trace,
        })
    }
}

/// What follows a scheme, whose case does not matter (RFC 9110, section 11.1).
fn with_scheme<'a>(value: &'a [u8], scheme: &str) -> Option<&'a [u8]> {
    let value = value.trim_ascii();
    let (first, rest) = value.split_at_checked(scheme.len())?;
    if first.eq_ignore_ascii_case(scheme.as_bytes()) && (rest.is_empty() || rest.starts_with(b" "))
    {
        Some(rest.trim_ascii())
    } else {
        None
    }
}

fn decoded(value: Cow<'_, str>) -> Text<'_> {
    match value {
        Cow::Borrowed(value) => Text::Borrowed(value.as_bytes()),
        Cow::Owned(value) => Text::Decoded(Zeroizing::new(value.into_bytes())),
    }
}

#[cfg(test)]
mod tests;
