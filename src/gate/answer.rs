//! What a verdict looks like over HTTP: status, headers, words. All protocols of proxies share it.

use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::code::Code;
use super::decide::Verdict;
use super::index::Holder;
use super::permission::Expression;
use super::route::Route;

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

/// The identity headers, in their order.
pub const IDENTITY: [&str; 9] = [
    "x-claviger-code",
    "x-claviger-key-id",
    "x-claviger-name",
    "x-claviger-namespace",
    "x-claviger-principal",
    "x-claviger-organization",
    "x-claviger-roles",
    "x-claviger-permissions",
    "x-claviger-version",
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
        Code::Missing | Code::Malformed | Code::NotFound | Code::Expired | Code::Revoked | Code::Rotated => {
            StatusCode::UNAUTHORIZED
        }
        Code::WrongAudience | Code::WrongOrganization | Code::InsufficientPermissions => StatusCode::FORBIDDEN,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
    }
}

/// A verdict in words, for people.
#[must_use]
pub fn message(verdict: &Verdict, route: &Route) -> String {
    let holder = verdict.holder.as_ref();
    match verdict.code {
        Code::Valid => "the key passes".to_owned(),
        Code::Missing => "the request carries no API key".to_owned(),
        Code::Malformed => "the request does not carry exactly one well-formed API key".to_owned(),
        Code::NotFound => "there is no such API key".to_owned(),
        Code::Expired => match holder.and_then(|holder| holder.entry().expires()) {
            Some(at) => format!("the API key expired at {at}"),
            None => "the API key has expired".to_owned(),
        },
        Code::Revoked => "the API key was revoked".to_owned(),
        Code::Rotated => match holder.and_then(|holder| holder.version().retires()) {
            Some(at) => format!("the API key was replaced by a newer version, and ended at {at}"),
            None => "the API key was replaced by a newer version".to_owned(),
        },
        Code::WrongAudience => format!("the API key is not for {}", route.audience.as_deref().unwrap_or("this API")),
        Code::WrongOrganization => {
            format!("the API key is not for the organization {}", route.organization.as_deref().unwrap_or(NOTHING))
        }
        Code::InsufficientPermissions => {
            let needed = route.permissions.as_ref().map_or(NOTHING, |permissions| permissions.as_str());
            format!("the API key lacks permissions: needed is {needed}")
        }
        Code::RateLimited => "too many requests".to_owned(),
    }
}

/// The body of a refusal.
#[must_use]
pub fn body(code: &str, message: &str) -> Value {
    json!({ "code": code, "message": message })
}

/// The `WWW-Authenticate` of a refusal (RFC 6750, section 3): without an error where no key was shown.
#[must_use]
pub fn challenge(verdict: &Verdict, route: &Route, message: &str) -> Option<HeaderValue> {
    let realm = quoted(route.audience.as_deref().unwrap_or("claviger"));
    let text = match status(verdict.code) {
        StatusCode::UNAUTHORIZED if verdict.code == Code::Missing => format!("Bearer realm={realm}"),
        StatusCode::UNAUTHORIZED => {
            format!("Bearer realm={realm}, error=\"invalid_token\", error_description={}", quoted(message))
        }
        StatusCode::FORBIDDEN => {
            let names: Vec<&str> = route.permissions.iter().flat_map(Expression::names).collect();
            let scope = if names.is_empty() { String::new() } else { format!(", scope={}", quoted(&names.join(" "))) };
            format!("Bearer realm={realm}, error=\"insufficient_scope\"{scope}")
        }
        _ => return None,
    };
    HeaderValue::from_str(&text).ok()
}

/// Who the holder of a valid key is: every header, always, none empty.
#[must_use]
pub fn identity(holder: &Holder) -> [(HeaderName, HeaderValue); IDENTITY.len()] {
    let (entry, profile) = (holder.entry(), holder.entry().profile());
    let roles: Vec<&str> = profile.roles.iter().map(|role| &**role).collect();
    let values = [
        value(Code::Valid.as_str()),
        value(&entry.key_id()),
        value(entry.name()),
        value(&profile.namespace),
        value(&entry.principal()),
        value(profile.organization.as_deref().unwrap_or_default()),
        value(&list(&roles)),
        value(&list(&holder.permissions())),
        HeaderValue::from(holder.version().number()),
    ];
    let mut names = IDENTITY.iter().copied().map(HeaderName::from_static);
    values.map(|value| (names.next().unwrap_or(CODE), value))
}

/// Whether a header that a client sent pretends to be one of ours. Some upstreams take `_` for `-`.
#[must_use]
pub fn pretends(name: &str) -> bool {
    let mut own = IDENTITY_PREFIX.bytes();
    let same = |(byte, own): (u8, u8)| if own == b'-' { matches!(byte, b'-' | b'_') } else { byte.eq_ignore_ascii_case(&own) };
    name.len() >= own.len() && name.bytes().zip(&mut own).all(same)
}

/// Cut at whole names, with `...` last, where it is too long: who reads it knows less than is so, never more.
fn list(names: &[&str]) -> String {
    let mut all = String::new();
    for name in names {
        if all.len() + name.len() > MAX_LIST {
            all.push_str(",...");
            break;
        }
        if !all.is_empty() {
            all.push(',');
        }
        all.push_str(name);
    }
    all
}

fn value(text: &str) -> HeaderValue {
    let readable = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    HeaderValue::from_str(if readable { text } else { NOTHING }).unwrap_or(HeaderValue::from_static(NOTHING))
}

/// A quoted string (RFC 9110, section 5.6.4). What cannot stand in a header becomes `?`.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_ascii_graphic() || c == ' ' => quoted.push(c),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_pretend_to_be_somebody() {
        for name in ["x-claviger-roles", "X-Claviger-Anything", "x_claviger_key_id", "x-claviger_name", "x-claviger-"] {
            assert!(pretends(name), "{name}");
        }
        for name in ["x-api-key", "x-clavige", "x-clavigerx", "authorization", ""] {
            assert!(!pretends(name), "{name}");
        }
    }

    #[test]
    fn a_long_list_is_cut_at_a_name_and_says_so() {
        let names: Vec<String> = (0..200).map(|number| format!("permission-number-{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let cut = list(&names);
        assert!(cut.len() <= MAX_LIST + 4, "{}", cut.len());
        let (told, last) = cut.rsplit_once(',').unwrap();
        assert_eq!(last, "...");
        assert!(told.split(',').all(|name| names.contains(&name)));
        assert_eq!(list(&["a", "b"]), "a,b");
    }

    #[test]
    fn nothing_in_a_challenge_breaks_out_of_its_quotes() {
        assert_eq!(quoted("a\"b\\c\r\nd\u{e9}"), r#""a\"b\\c??d?""#);
    }
}
