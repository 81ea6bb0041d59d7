//! The access log: a line for each verdict, for incidents and audits. A line names a key by its ID,
//! never the key, and no path: a key may stand in its query.

use std::net::IpAddr;

use super::decide::{Needs, Verdict};
use super::metrics::Protocol;
use super::quote::quotable;

/// Which verdicts are written into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AccessLog {
    /// None.
    Off,
    /// Refusals.
    Refused,
    /// All.
    All,
}

/// Where a question came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The address at the other end of the connection: that of the proxy or of the service.
    pub peer: Option<IpAddr>,
    /// Who asked at the verify API.
    pub caller: Option<String>,
    /// The ID by which other logs know the request: see [`request_id`].
    pub request_id: Option<String>,
}

/// The `X-Request-Id` of a request, else its `traceparent` (W3C Trace Context), by a function that
/// finds the value of a header.
///
/// Clients can send anything there. Only hexadecimal digits and dashes are taken, as UUIDs and trace
/// IDs have, and at most 64 of them: no key that Claviger minted looks like that.
#[must_use]
pub fn request_id<'a>(header: impl Fn(&'static str) -> Option<&'a [u8]>) -> Option<String> {
    let id = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b'-';
    ["x-request-id", "traceparent"]
        .into_iter()
        .find_map(|name| {
            let value = header(name)?;
            let taken = (1..=64).contains(&value.len()) && value.iter().all(id);
            taken.then(|| String::from_utf8_lossy(value).into_owned())
        })
}

impl AccessLog {
    /// Whether a line may be written.
    #[must_use]
    pub fn is_on(self) -> bool {
        self != Self::Off
    }

    /// Writes a line, if one is wanted for this verdict.
    pub(super) fn write(
        self,
        protocol: Protocol,
        verdict: &Verdict,
        needs: &Needs<'_>,
        origin: impl FnOnce() -> Origin,
    ) {
        match self {
            Self::Off => return,
            Self::Refused if verdict.is_valid() => return,
            Self::Refused | Self::All => {}
        }
        let Origin {
            peer,
            caller,
            request_id,
        } = origin();
        let peer = peer.map(tracing::field::display);
        let audience = needs
            .audience
            .map(|audience| loggable(protocol, verdict, audience));
        let (protocol, code) = (protocol.as_str(), verdict.code.as_str());
        if let Some(holder) = &verdict.holder {
            tracing::info!(
                target: "claviger::access",
                protocol,
                code,
                audience,
                key_id = holder.entry().key_id().as_str(),
                namespace = holder.entry().profile().namespace(),
                name = holder.entry().name(),
                version = holder.version().number(),
                peer,
                caller,
                request_id,
            );
        } else {
            tracing::info!(
                target: "claviger::access",
                protocol,
                code,
                audience,
                peer,
                caller,
                request_id,
            );
        }
    }
}

/// A service that mistakes one field for another asks for an audience that is a key. The audiences
/// of routes come from the configuration of a proxy.
fn loggable<'a>(protocol: Protocol, verdict: &Verdict, audience: &'a str) -> &'a str {
    if protocol == Protocol::Verify && !verdict.is_valid() {
        quotable(audience)
    } else {
        audience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_id_is_taken_where_it_looks_like_one() {
        let id = |headers: &[(&str, &'static str)]| {
            request_id(|name| {
                let found = headers.iter().find(|(other, _)| *other == name);
                found.map(|(_, value)| value.as_bytes())
            })
        };
        let (uuid, trace) = (
            "7b6e7b4e-2f62-4f43-9d0f-0a3c1f5f7a11",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        );
        assert_eq!(
            id(&[("x-request-id", uuid), ("traceparent", trace)]).as_deref(),
            Some(uuid)
        );
        assert_eq!(id(&[("traceparent", trace)]).as_deref(), Some(trace));
        assert_eq!(
            id(&[
                ("x-request-id", "clv_0FAKE0FAKE0FAKE"),
                ("traceparent", trace)
            ])
            .as_deref(),
            Some(trace)
        );
        for value in ["", "a b", "a\"b", "a\nb", "xyz"] {
            assert_eq!(id(&[("x-request-id", value)]), None, "{value:?}");
        }
        assert_eq!(id(&[("x-request-id", "0".repeat(65).leak())]), None);
    }
}
