//! Before anything is done: can the API server be reached, is it new enough, is our resource there, may we use it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, ListParams, PartialObjectMeta};
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::{Client, Config, Resource};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::api::{ApiKey, ApiKeyPolicy, ApiKeyRole};
use crate::telemetry::describe;

/// How long an API server that does not answer is asked again before giving up.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_secs(2);
/// What belongs to the cluster, and is looked at also by a controller for one namespace.
const CLUSTER_OBJECTS: [&str; 3] = [
    "apikeyroles.claviger.dev",
    "apikeypolicies.claviger.dev",
    "namespaces",
];
/// The oldest API server that is supported.
const OLDEST: (u32, u32) = (1, 33);

/// Why the controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// No answer at all.
    #[error(
        "the API server at {server} cannot be reached: {reason}: check --kubeconfig, the network, and that the server is up"
    )]
    Unreachable {
        /// Its address.
        server: String,
        /// What happened at the last try.
        reason: String,
    },
    /// It does not know us.
    #[error(
        "the API server at {server} does not accept our credentials: {reason}: check the kubeconfig's user or the ServiceAccount token"
    )]
    Unauthorized {
        /// Its address.
        server: String,
        /// Its words.
        reason: String,
    },
    /// It knows us and does not let us.
    #[error(
        "missing right: the verb \"{verb}\" on \"{resource}\" {place}: grant it with RBAC ({reason})"
    )]
    Forbidden {
        /// The missing verb.
        verb: &'static str,
        /// On what.
        resource: &'static str,
        /// Where.
        place: String,
        /// The API server's words.
        reason: String,
    },
    /// It is too old.
    #[error(
        "the API server is version {found}, and Claviger needs 1.33 or newer: upgrade the cluster"
    )]
    TooOld {
        /// Its version.
        found: String,
    },
    /// It said something else than was expected.
    #[error("the API server at {server} answered unexpectedly: {reason}")]
    Unexpected {
        /// Its address.
        server: String,
        /// What happened.
        reason: String,
    },
    /// The process was told to stop.
    #[error("stopped before the start was complete")]
    Cancelled,
}

/// Checks everything, waiting for a missing CustomResourceDefinition.
///
/// # Errors
/// [`StartupError`] when only a person can help.
pub(super) async fn check(
    client: &Client,
    config: &Config,
    wanted: Wanted<'_>,
    token: &CancellationToken,
) -> Result<(), StartupError> {
    let starting = Starting {
        client,
        server: config.cluster_url.to_string(),
        wanted,
    };
    tokio::select! {
        () = token.cancelled() => Err(StartupError::Cancelled),
        checked = starting.check() => checked,
    }
}

/// What the controller is going to look at.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Only this namespace.
    pub(super) namespace: Option<&'a str>,
    /// Roles, policies and namespaces, too.
    pub(super) cluster_objects: bool,
    /// How long an answer is waited for.
    pub(super) limit: Duration,
}

struct Starting<'a> {
    client: &'a Client,
    server: String,
    wanted: Wanted<'a>,
}

impl Starting<'_> {
    async fn check(&self) -> Result<(), StartupError> {
        self.version().await?;
        self.resource(
            self.scoped::<DeserializeGuard<ApiKey>>(),
            "apikeys.claviger.dev",
        )
        .await?;
        let secrets = self.scoped::<PartialObjectMeta<Secret>>();
        match self
            .ask(
                secrets.list_metadata(
                    &ListParams::default()
                        .limit(1)
                        .labels(crate::api::names::LABEL_APIKEY),
                ),
            )
            .await
        {
            Ok(_) => {}
            Err(error) => return Err(self.explain(&error, "list", "secrets")),
        }
        if self.wanted.cluster_objects {
            self.resource(
                Api::<PartialObjectMeta<ApiKeyRole>>::all(self.client.clone()),
                "apikeyroles.claviger.dev",
            )
            .await?;
            self.resource(
                Api::<PartialObjectMeta<ApiKeyPolicy>>::all(self.client.clone()),
                "apikeypolicies.claviger.dev",
            )
            .await?;
            self.resource(
                Api::<PartialObjectMeta<Namespace>>::all(self.client.clone()),
                "namespaces",
            )
            .await?;
        }
        Ok(())
    }

    async fn version(&self) -> Result<(), StartupError> {
        let begun = tokio::time::Instant::now();
        loop {
            let error = match self.ask(self.client.apiserver_version()).await {
                Ok(version) => {
                    return old_enough(&version.major, &version.minor, &version.git_version);
                }
                Err(error) => error,
            };
            if !is_passing(&error) || begun.elapsed() >= PATIENCE {
                return Err(self.explain(&error, "get", "/version"));
            }
            tracing::warn!(
                server = self.server,
                error = describe(&error),
                "the API server does not answer; trying again"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn scoped<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match self.wanted.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    async fn resource<K>(&self, api: Api<K>, name: &'static str) -> Result<(), StartupError>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let mut told = false;
        loop {
            match self
                .ask(api.list_metadata(&ListParams::default().limit(1)))
                .await
            {
                Ok(_) => return Ok(()),
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    if !told {
                        tracing::error!(
                            "the CustomResourceDefinition {name} is missing: install it with \
                             `claviger manifests | kubectl apply --server-side -f -`; waiting for it"
                        );
                        told = true;
                    }
                }
                Err(error) if is_passing(&error) => {
                    tracing::warn!(
                        server = self.server,
                        error = describe(&error),
                        "the API server does not answer; trying again"
                    );
                }
                Err(error) => return Err(self.explain(&error, "list", name)),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask<T>(&self, request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
        tokio::time::timeout(self.wanted.limit, request)
            .await
            .unwrap_or_else(|_| {
                Err(kube::Error::Service(
                    format!("no answer within {} s", self.wanted.limit.as_secs()).into(),
                ))
            })
    }

    fn explain(
        &self,
        error: &kube::Error,
        verb: &'static str,
        resource: &'static str,
    ) -> StartupError {
        let (server, reason) = (self.server.clone(), describe(error));
        match error {
            kube::Error::Api(status) if status.code == 401 => {
                StartupError::Unauthorized { server, reason }
            }
            kube::Error::Api(status) if status.is_forbidden() => {
                let place = match self.wanted.namespace {
                    Some(_) if CLUSTER_OBJECTS.contains(&resource) => {
                        "in the whole cluster (or run with --cluster-objects=false)".to_owned()
                    }
                    Some(name) => format!("in namespace {name}"),
                    None => "in the whole cluster".to_owned(),
                };
                StartupError::Forbidden {
                    verb,
                    resource,
                    place,
                    reason: status.message.clone(),
                }
            }
            kube::Error::Api(_) => StartupError::Unexpected { server, reason },
            _ => StartupError::Unreachable { server, reason },
        }
    }
}

/// Whether a later try may go better without anybody doing anything.
fn is_passing(error: &kube::Error) -> bool {
    !matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}

/// Minor versions may carry a suffix, as in `33+`.
fn old_enough(major: &str, minor: &str, found: &str) -> Result<(), StartupError> {
    let number = |text: &str| {
        text.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
            .parse::<u32>()
            .ok()
    };
    match (number(major), number(minor)) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => Err(StartupError::TooOld {
            found: found.to_owned(),
        }),
        // A version that cannot be read is no reason to refuse: what matters is what the server can do.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_older_than_1_33_are_refused() {
        for (major, minor, fine) in [
            ("1", "32", false),
            ("1", "9", false),
            ("1", "33", true),
            ("1", "33+", true),
            ("1", "36", true),
            ("2", "0", true),
            ("", "", true),
        ] {
            assert_eq!(
                old_enough(major, minor, "v").is_ok(),
                fine,
                "{major}.{minor}"
            );
        }
    }
}
