//! The token of a request.
//!
//! What cannot be good is refused without asking the API server: made-up tokens must not take the turns of others. Only
//! ServiceAccount tokens are taken, which are JWTs (RFC 7519); opaque tokens that other authenticators of a cluster know are not.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

/// The longest token that is looked at, in bytes. ServiceAccount tokens have about one thousand.
const LONGEST: usize = 16 * 1024;

/// How many seconds longer than its end a token is asked about: the API server allows for clocks that differ, too.
const LEEWAY: f64 = 60.0;

/// As lenient as the API server's.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

const HOW: &str = "send a ServiceAccount token as Authorization: Bearer <token>";

/// A bearer token. Shown to nobody but the API server.
pub(super) struct Token(Zeroizing<String>);

impl Token {
    /// The token of a request (RFC 6750, 2.1).
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, &'static str> {
        let mut all = headers.get_all(header::AUTHORIZATION).iter();
        let value = all.next().ok_or(HOW)?;
        if all.next().is_some() {
            return Err("there is more than one Authorization header: send one");
        }
        let (scheme, token) = value
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .ok_or(HOW)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(HOW);
        }
        let token = token.trim_matches(' ');
        if token.len() > LONGEST {
            return Err("the token is longer than any token is");
        }
        // b64token; what else a token may be would not be a header that proxies let through.
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if token.is_empty() || !token.bytes().all(allowed) {
            return Err(HOW);
        }
        match promise(token, now()) {
            Promise::Some => Ok(Self(Zeroizing::new(token.to_owned()))),
            Promise::Over => {
                Err("the token has expired: read it again from its file before each request")
            }
            Promise::Never => {
                Err("this is no ServiceAccount token: tokens of other kinds are not taken")
            }
        }
    }

    /// The token itself.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

/// Whether a token may be good.
#[derive(Debug, PartialEq, Eq)]
enum Promise {
    Some,
    /// It was, once.
    Over,
    Never,
}

/// What is read of the claims. Tokens of the old kind, in Secrets, have no end.
#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
}

fn promise(token: &str, now: f64) -> Promise {
    let claims = || {
        let mut parts = token
            .split('.')
            .map(|part| BASE64.decode(part).ok().filter(|bytes| !bytes.is_empty()));
        let (header, claims, _signature) = (parts.next()??, parts.next()??, parts.next()??);
        serde_json::from_slice::<IgnoredAny>(&header).ok()?;
        let claims: Claims = serde_json::from_slice(&claims).ok()?;
        parts.next().is_none().then_some(claims)
    };
    match claims() {
        Some(Claims { exp: Some(end) }) if end + LEEWAY < now => Promise::Over,
        Some(_) => Promise::Some,
        None => Promise::Never,
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn read(values: &[&str]) -> Result<String, &'static str> {
        Token::of(&headers(values)).map(|token| token.expose().to_owned())
    }

    fn jwt(claims: &str) -> String {
        format!(
            "{}.{}.c2lnbmF0dXJl",
            BASE64.encode(r#"{"alg":"RS256"}"#),
            BASE64.encode(claims)
        )
    }

    #[test]
    fn a_bearer_token_is_read_and_nothing_else() {
        let good = jwt("{}");
        assert_eq!(read(&[&format!("Bearer {good}")]).unwrap(), good);
        assert_eq!(read(&[&format!("bearer  {good}")]).unwrap(), good);
        let (basic, twice, long) = (
            format!("Basic {good}"),
            format!("Bearer {good} b"),
            jwt(&"x".repeat(LONGEST)),
        );
        let (good, long) = (format!("Bearer {good}"), format!("Bearer {long}"));
        for wrong in [
            &[][..],
            &["Bearer"],
            &["Bearer "],
            &[&basic],
            &[&twice],
            &["Bearer ä"],
            &["Bearer opaque"],
            &["Bearer a.b.c"],
            &[&good, &good],
            &[&long],
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_cannot_be_good_is_seen_without_asking() {
        assert_eq!(
            promise(&jwt(r#"{"exp": 1000, "sub": "x"}"#), 1060.0),
            Promise::Some
        );
        assert_eq!(promise(&jwt(r#"{"exp": 1000.5}"#), 1061.0), Promise::Over);
        assert_eq!(
            promise(&jwt(r#"{"sub": "x"}"#), 1e12),
            Promise::Some,
            "tokens in Secrets do not end"
        );
        for junk in [
            "",
            "..",
            "x",
            "made.up.token",
            "e30.e30",
            "e30.e30.",
            "e30.e30.eA.eA",
            "e30.eA.eA",
            "e30=.e30=.eA==",
        ] {
            assert_eq!(promise(junk, 0.0), Promise::Never, "{junk:?}");
        }
        assert_eq!(promise(&jwt(r#"{"exp": "soon"}"#), 0.0), Promise::Never);
    }
}
