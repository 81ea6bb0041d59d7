//! Many ApiKeys at once.

use claviger::api::{ApiKey, ApiKeySpec, Phase};
use claviger::key::Hash;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, PostParams};

use super::cluster::runtime;
use super::stage::Stage;
use super::wait;

/// How many requests of a story are under way at once.
const AT_ONCE: usize = 16;

impl Stage {
    /// Declares ApiKeys `{prefix}-0`, `{prefix}-1`, …, all with the same spec in JSON.
    pub(crate) fn declare_many(&self, prefix: &str, count: usize, spec: &str) {
        let api: Api<ApiKey> = Api::namespaced(self.cluster.client(), &self.namespace);
        let spec: ApiKeySpec = serde_json::from_str(spec).expect("a spec");
        let declared = futures::stream::iter(0..count).map(|number| {
            let (api, apikey) = (
                api.clone(),
                ApiKey::new(&format!("{prefix}-{number}"), spec.clone()),
            );
            async move { api.create(&PostParams::default(), &apikey).await }
        });
        runtime()
            .block_on(
                declared
                    .buffer_unordered(AT_ONCE)
                    .try_for_each(async |_| Ok(())),
            )
            .expect("they are accepted");
    }

    /// All ApiKeys.
    pub(crate) fn apikeys(&self) -> Vec<ApiKey> {
        let api: Api<ApiKey> = Api::namespaced(self.cluster.client(), &self.namespace);
        runtime()
            .block_on(api.list(&ListParams::default()))
            .expect("a list")
            .items
    }

    /// All Secrets.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        let api: Api<Secret> = Api::namespaced(self.cluster.client(), &self.namespace);
        runtime()
            .block_on(api.list(&ListParams::default()))
            .expect("a list")
            .items
    }

    /// Waits until `count` ApiKeys are in a phase.
    pub(crate) fn wait_many(&self, count: usize, phase: Phase) {
        wait::until(&format!("{count} ApiKeys are {}", phase.as_str()), || {
            let there = self
                .apikeys()
                .iter()
                .filter(|apikey| phase_of(apikey) == Some(phase))
                .count();
            if there == count {
                Ok(())
            } else {
                Err(format!("{there}"))
            }
        });
    }

    /// Checks that every Secret holds the key that its ApiKey's status says, and returns how many there are.
    pub(crate) fn secrets_agree(&self) -> usize {
        let (apikeys, secrets) = (self.apikeys(), self.secrets());
        for secret in &secrets {
            let apikey = apikeys
                .iter()
                .find(|apikey| apikey.secret_name() == secret.name_any());
            let apikey =
                apikey.unwrap_or_else(|| panic!("Secret {} belongs to nobody", secret.name_any()));
            let hash = Hash::of(&secret.data.as_ref().expect("data")[apikey.data_key()].0);
            let status = apikey.status.clone().unwrap_or_default();
            assert!(
                status.version_of(hash).is_some(),
                "Secret {} holds a key that is listed",
                secret.name_any()
            );
            if status.phase == Some(Phase::Active) {
                assert_eq!(
                    status.hash,
                    Some(hash.to_string()),
                    "Secret {} and its status agree",
                    secret.name_any()
                );
            }
        }
        for apikey in apikeys
            .iter()
            .filter(|apikey| phase_of(apikey) == Some(Phase::Active))
        {
            let delivered = secrets
                .iter()
                .any(|secret| secret.name_any() == apikey.secret_name());
            assert!(
                delivered,
                "{} is Active and has a Secret",
                apikey.name_any()
            );
        }
        secrets.len()
    }
}

fn phase_of(apikey: &ApiKey) -> Option<Phase> {
    apikey.status.as_ref().and_then(|status| status.phase)
}
