//! Kubeconfig files: one cluster, one user, everything embedded, so that a file can be used from anywhere.

use super::certificates::Identity;

/// How a client proves who it is.
#[derive(Debug, Clone)]
pub(crate) enum Auth {
    /// By a certificate of the control plane's authority.
    ClientCert {
        /// The user's name, as RBAC knows it.
        user: String,
        /// The user's groups, two at most; `system:masters` may do everything.
        groups: Vec<String>,
    },
    /// By a bearer token, such as one of a service account.
    Token(String),
}

/// What stands in the file to prove who the client is.
pub(super) enum Credentials {
    Identity(Identity),
    Token(String),
}

/// The text of a kubeconfig for `server`, whose certificate was signed by `authority` (PEM).
pub(super) fn render(server: &str, authority: &str, credentials: &Credentials) -> String {
    let authority = base64(authority.as_bytes());
    let user = match credentials {
        Credentials::Identity(identity) => format!(
            "client-certificate-data: {}\n    client-key-data: {}",
            base64(identity.certificate.as_bytes()),
            base64(identity.key.as_bytes()),
        ),
        Credentials::Token(token) => format!("token: {token:?}"),
    };
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: claviger
  cluster:
    server: {server:?}
    certificate-authority-data: {authority}
users:
- name: claviger
  user:
    {user}
contexts:
- name: claviger
  context:
    cluster: claviger
    user: claviger
current-context: claviger
"
    )
}

/// Base64 with the standard alphabet and padding (RFC 4648 section 4); the standard library has none.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0_usize, |word, index| {
            word << 8 | usize::from(chunk.get(index).copied().unwrap_or(0))
        });
        for digit in 0..4 {
            let letter = ALPHABET
                .get(word >> (18 - 6 * digit) & 63)
                .copied()
                .map_or('=', char::from);
            text.push(if digit <= chunk.len() { letter } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    /// RFC 4648 section 10.
    #[test]
    fn base64_is_the_standard_one() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in vectors {
            assert_eq!(super::base64(plain.as_bytes()), encoded);
        }
    }
}
