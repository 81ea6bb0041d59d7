//! The guard before an API server that is made up, with time that stands still.

mod crowds;
mod memory;
mod rights;
mod world;

use std::time::Duration;

use http::{HeaderMap, header};

use super::{Caller, Callers, Refusal};
use crate::gate::server::Peer;

const ALL: &str = "";

fn peer(certified: bool) -> Peer {
    Peer {
        address: ([192, 0, 2, 1], 4711).into(),
        certified,
    }
}

fn bearer(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(
        header::AUTHORIZATION,
        format!("Bearer {}", world::token(token)).parse().unwrap(),
    )])
}

async fn admit(callers: &Callers, token: &str, namespace: Option<&str>) -> Result<Caller, Refusal> {
    admit_with(callers, &bearer(token), &peer(false), namespace).await
}

async fn admit_with(
    callers: &Callers,
    headers: &HeaderMap,
    peer: &Peer,
    namespace: Option<&str>,
) -> Result<Caller, Refusal> {
    let credentials = callers.credentials(headers, peer)?;
    callers
        .admit(&callers.identify(credentials).await?, namespace)
        .await
}

fn user(name: &str) -> Caller {
    Caller::User(name.into())
}

fn forbidden(name: &str, namespace: Option<&str>) -> Result<Caller, Refusal> {
    Err(Refusal::Forbidden {
        user: name.into(),
        namespace: namespace.map(Into::into),
    })
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}
