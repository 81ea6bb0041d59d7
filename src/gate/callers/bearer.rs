//! The token of a request.

use http::{HeaderMap, header};
use zeroize::Zeroizing;

/// The longest token that is looked at, in bytes. ServiceAccount tokens have about one thousand.
const LONGEST: usize = 16 * 1024;

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
        let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(HOW)?;
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
        Ok(Self(Zeroizing::new(token.to_owned())))
    }

    /// The token itself.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
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

    #[test]
    fn a_bearer_token_is_read_and_nothing_else() {
        assert_eq!(read(&["Bearer ey.J-_x"]).unwrap(), "ey.J-_x");
        assert_eq!(read(&["bearer  x="]).unwrap(), "x=");
        for wrong in
            [&[][..], &["Bearer"], &["Bearer "], &["Basic eDp5"], &["Bearer a b"], &["Bearer ä"], &["Bearer a", "Bearer a"]]
        {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(read(&[&format!("Bearer {}", "x".repeat(LONGEST + 1))]).is_err());
    }
}
