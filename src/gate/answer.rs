//! What a verdict looks like over HTTP: status, headers, words. All protocols of proxies share it.

use std::borrow::Cow;

use bytes::BytesMut;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use super::code::Code;
use super::decide::{MalformedReason, Needs, Verdict};
use super::index::Holder;
use super::permission::Expression;

/// Why. On every answer, for proxies that drop bodies.
pub const CODE: HeaderName = HeaderName::from_static("x-claviger-code");
/// The code of a route that cannot be understood: nothing passes it.
pub const MISCONFIGURED: &str = "MISCONFIGURED";
/// The code of a gate that cannot decide now.
pub const UNAVAILABLE: &str = "UNAVAILABLE";
/// What the names of all identity headers begin with. A client's copies never travel on.
pub const IDENTITY_PREFIX: &str = "x-claviger-";
/// Stands where an identity header has nothing to say: proxies that copy a header "if present" would let the client's own through.
const NOTHING: &str = "-";
/// The longest list in a header, in bytes, before its last `,...`. Proxies bound all headers of an answer together, nginx to 4 or 8 KiB
/// by default: the examples give it more.
const MAX_LIST: usize = 4_092;

/// How many identity headers there are.
pub const IDENTITY_COUNT: usize = 9;
/// The identity headers, in their order.
pub static IDENTITY: [HeaderName; IDENTITY_COUNT] = [
    CODE,
    HeaderName::from_static("x-claviger-key-id"),
    HeaderName::from_static("x-claviger-name"),
    HeaderName::from_static("x-claviger-namespace"),
    HeaderName::from_static("x-claviger-principal"),
    HeaderName::from_static("x-claviger-organization"),
    HeaderName::from_static("x-claviger-roles"),
    HeaderName::from_static("x-claviger-permissions"),
    HeaderName::from_static("x-claviger-version"),
];

/// Why the gate gives no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unable {
    /// The index has not been loaded.
    #[error("the gate is still loading keys: try again")]
    Loading,
    /// The index is older than the installation allows.
    #[error("the gate has not heard from the API server for too long (--max-staleness)")]
    Stale,
}

/// The HTTP status of a verdict.
#[must_use]
pub fn status(code: Code) -> StatusCode {
    match code {
        Code::Valid => StatusCode::OK,
        Code::Missing
        | Code::Malformed
        | Code::NotFound
        | Code::Expired
        | Code::Revoked
        | Code::Rotated => StatusCode::UNAUTHORIZED,
        Code::WrongAudience | Code::WrongOrganization | Code::InsufficientPermissions => {
            StatusCode::FORBIDDEN
        }
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
    }
}

/// A verdict in words, for people.
#[must_use]
pub fn message(verdict: &Verdict, needs: &Needs<'_>) -> Cow<'static, str> {
    let holder = verdict.holder.as_ref();
    match verdict.code {
        Code::Valid => "the key passes".into(),
        Code::Missing => "the request carries no API key".into(),
        Code::Malformed => malformed(verdict.malformed).into(),
        Code::NotFound => "there is no such API key".into(),
        Code::Expired => match holder.and_then(|holder| holder.entry().expires()) {
            Some(at) => format!("the API key expired at {at}").into(),
            None => "the API key has expired".into(),
        },
        Code::Revoked => "the API key was revoked".into(),
        Code::Rotated => match holder.and_then(|holder| holder.version().retires()) {
            Some(at) => {
                format!("the API key was replaced by a newer version, and ended at {at}").into()
            }
            None => "the API key was replaced by a newer version".into(),
        },
        Code::WrongAudience => format!(
            "the API key is not for {}",
            needs.audience.unwrap_or("this API")
        )
        .into(),
        Code::WrongOrganization => format!(
            "the API key is not for the organization {}",
            needs.organization.unwrap_or(NOTHING)
        )
        .into(),
        Code::InsufficientPermissions => {
            let needed = needs.permissions.map_or(NOTHING, Expression::as_str);
            format!("the API key lacks permissions: needed is {needed}").into()
        }
        Code::RateLimited => "too many requests".into(),
    }
}

fn malformed(reason: Option<MalformedReason>) -> &'static str {
    match reason {
        Some(MalformedReason::SeveralKeys) => {
            "the request carries more than one API key: send exactly one"
        }
        Some(MalformedReason::IdentityHeaders) => {
            "the request carries x-claviger- headers, which the gate alone sets: remove them"
        }
        Some(MalformedReason::WhiteSpace) => {
            "the API key contains white space or a line end: send the key alone"
        }
        Some(MalformedReason::Encoding) => {
            "the API key stands in an encoding that cannot be read: send it as it was issued"
        }
        Some(MalformedReason::OriginalUri) => {
            "the URI of the request is told more than once: the client must not send \
             X-Original-URI, X-Original-URL or X-Forwarded-Uri"
        }
        Some(MalformedReason::NoKey) | None => {
            "the API key is mistyped, cut or made up: copy it again"
        }
    }
}

/// The body of a refusal.
#[must_use]
pub fn body(code: &str, message: &str) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        code: &'a str,
        message: &'a str,
    }
    // Two texts: nothing that JSON cannot hold.
    serde_json::to_string(&Body { code, message }).unwrap_or_default()
}

/// The `WWW-Authenticate` of a refusal (RFC 6750, section 3): without an error where no key was shown.
#[must_use]
pub fn challenge(verdict: &Verdict, needs: &Needs<'_>, message: &str) -> Option<HeaderValue> {
    let mut text = String::with_capacity(256);
    text.push_str("Bearer realm=");
    quote(&mut text, [needs.audience.unwrap_or("claviger")]);
    match status(verdict.code) {
        StatusCode::UNAUTHORIZED if verdict.code == Code::Missing => {}
        StatusCode::UNAUTHORIZED => {
            text.push_str(", error=\"invalid_token\", error_description=");
            quote(&mut text, [message]);
        }
        StatusCode::FORBIDDEN => {
            text.push_str(", error=\"insufficient_scope\"");
            if let Some(permissions) = needs.permissions {
                text.push_str(", scope=");
                quote(&mut text, permissions.names());
            }
        }
        _ => return None,
    }
    HeaderValue::try_from(text).ok()
}

/// Who the holder of a valid key is: what each header of [`IDENTITY`] says, always, none empty.
#[must_use]
pub fn identity(holder: &Holder) -> [Cow<'_, str>; IDENTITY_COUNT] {
    let (entry, profile) = (holder.entry(), holder.entry().profile());
    [
        Code::Valid.as_str().into(),
        entry.key_id().as_str().to_owned().into(),
        readable(entry.name().into()),
        readable(profile.namespace().into()),
        readable(entry.principal().into()),
        readable(profile.organization().unwrap_or_default().into()),
        readable(list(profile.roles())),
        readable(list(holder.permissions().into_iter())),
        holder.version().number().to_string().into(),
    ]
}

/// The same as headers of HTTP: pieces of one buffer, for each of its own would have to be allocated.
#[must_use]
pub fn identity_headers(holder: &Holder) -> [HeaderValue; IDENTITY_COUNT] {
    let texts = identity(holder);
    let mut all = BytesMut::with_capacity(texts.iter().map(|text| text.len()).sum());
    texts.map(|text| {
        all.extend_from_slice(text.as_bytes());
        // What cannot stand in a header was taken out before.
        HeaderValue::from_maybe_shared(all.split().freeze())
            .unwrap_or(HeaderValue::from_static(NOTHING))
    })
}

/// Whether a header that a client sent pretends to be one of ours. CGI, WSGI and PHP make `_` of every byte that is no letter and no
/// digit: `X.Claviger.Roles` is `X-Claviger-Roles` to an upstream there.
#[must_use]
pub fn pretends(name: &str) -> bool {
    let same = |(byte, own): (u8, u8)| {
        if own == b'-' {
            !byte.is_ascii_alphanumeric()
        } else {
            byte.eq_ignore_ascii_case(&own)
        }
    };
    name.len() >= IDENTITY_PREFIX.len() && name.bytes().zip(IDENTITY_PREFIX.bytes()).all(same)
}

/// Cut at whole names, with `...` last, where it is too long: who reads it knows less than is so, never more.
fn list<'a>(mut names: impl Iterator<Item = &'a str> + Clone) -> Cow<'a, str> {
    let all = names.clone();
    if let (Some(one), None) = (names.next(), names.next())
        && one.len() <= MAX_LIST
    {
        return Cow::Borrowed(one);
    }
    let mut text = String::new();
    for name in all {
        if text.len() + name.len() > MAX_LIST {
            text.push_str(",...");
            break;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
    }
    text.into()
}

fn readable(text: Cow<'_, str>) -> Cow<'_, str> {
    let readable = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if readable { text } else { NOTHING.into() }
}

/// A quoted string (RFC 9110, section 5.6.4) of words with spaces between. What cannot stand in a header becomes `?`.
fn quote<'a>(text: &mut String, words: impl IntoIterator<Item = &'a str>) {
    text.push('"');
    for (number, word) in words.into_iter().enumerate() {
        if number > 0 {
            text.push(' ');
        }
        for c in word.chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                c if c.is_ascii_graphic() || c == ' ' => text.push(c),
                _ => text.push('?'),
            }
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_pretend_to_be_somebody() {
        for name in [
            "x-claviger-roles",
            "X-Claviger-Anything",
            "x_claviger_key_id",
            "x-claviger_name",
            "x-claviger-",
        ] {
            assert!(pretends(name), "{name}");
        }
        for mark in "!#$%&'*+-.^_`|~".chars() {
            let name = format!("X{mark}Claviger{mark}Roles");
            assert!(pretends(&name), "{name}");
        }
        for name in [
            "x-api-key",
            "x-clavige",
            "x-claviger",
            "x-clavigerx",
            "x-claviger0",
            "xxclavigerxroles",
            "authorization",
            "",
        ] {
            assert!(!pretends(name), "{name}");
        }
    }

    #[test]
    fn every_malformed_reason_has_its_own_message() {
        let reasons = [
            MalformedReason::SeveralKeys,
            MalformedReason::IdentityHeaders,
            MalformedReason::WhiteSpace,
            MalformedReason::NoKey,
            MalformedReason::Encoding,
            MalformedReason::OriginalUri,
        ];
        let messages: std::collections::HashSet<_> = reasons
            .map(|reason| malformed(Some(reason)))
            .into_iter()
            .collect();
        assert_eq!(messages.len(), reasons.len());
    }

    #[test]
    fn a_long_list_is_cut_at_a_name_and_says_so() {
        let names: Vec<String> = (0..200)
            .map(|number| format!("permission-number-{number}"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let cut = list(names.iter().copied());
        assert!(cut.len() <= MAX_LIST + 4, "{}", cut.len());
        let (told, last) = cut.rsplit_once(',').unwrap();
        assert_eq!(last, "...");
        assert!(told.split(',').all(|name| names.contains(&name)));
        assert_eq!(list(["a", "b"].into_iter()), "a,b");
    }

    #[test]
    fn nothing_in_a_challenge_breaks_out_of_its_quotes() {
        let mut text = String::new();
        quote(&mut text, ["a\"b\\c\r\nd\u{e9}", "e"]);
        assert_eq!(text, r#""a\"b\\c??d? e""#);
    }
}
