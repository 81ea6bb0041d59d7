//! The cluster's own objects that matter for keys: roles, policies, and the labels of namespaces.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::PartialObjectMeta;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::WriterDropped;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::api::{ApiKey, ApiKeyPolicy, ApiKeyRole};
use crate::lifecycle::Surroundings;

/// What the watches of them show.
#[derive(Clone)]
pub(super) struct ClusterObjects {
    /// Roles: that they exist is all that matters here.
    pub(super) roles: Store<PartialObjectMeta<ApiKeyRole>>,
    /// Policies.
    pub(super) policies: Store<DeserializeGuard<ApiKeyPolicy>>,
    /// Namespaces: their labels.
    pub(super) namespaces: Store<PartialObjectMeta<Namespace>>,
}

impl ClusterObjects {
    /// Waits until all of them were shown.
    pub(super) async fn shown(&self) -> Result<(), WriterDropped> {
        self.roles.wait_until_ready().await?;
        self.policies.wait_until_ready().await?;
        self.namespaces.wait_until_ready().await
    }

    /// Whether the namespace of an `ApiKey` was shown. What its labels say is fixed at the first announcement, and one that was made a
    /// moment before the ApiKey may come a moment after it.
    pub(super) fn knows_namespace_of(&self, apikey: &ApiKey) -> bool {
        self.namespaces
            .get(&ObjectRef::new(&apikey.namespace().unwrap_or_default()))
            .is_some()
    }

    /// What there is around an `ApiKey`.
    pub(super) fn around(&self, apikey: &ApiKey) -> Surroundings {
        let namespace = self
            .namespaces
            .get(&ObjectRef::new(&apikey.namespace().unwrap_or_default()));
        let labels = namespace
            .map(|namespace| namespace.labels().clone())
            .unwrap_or_default();
        let mut policies: Vec<_> = self
            .policies
            .state()
            .iter()
            .map(|policy| {
                (
                    policy.name_any(),
                    policy.0.as_ref().ok().map(|policy| policy.spec.clone()),
                )
            })
            .collect();
        // What is said about them must not depend on the order of a map.
        policies.sort_by(|(one, _), (other, _)| one.cmp(other));
        let exists = |role: &String| self.roles.get(&ObjectRef::new(role)).is_some();
        let missing_roles = apikey
            .spec
            .roles
            .iter()
            .filter(|role| !exists(role))
            .cloned()
            .collect();
        Surroundings {
            known: true,
            namespace: Arc::new(labels),
            policies: Arc::new(policies),
            missing_roles,
        }
    }
}

type Apikeys = Store<DeserializeGuard<ApiKey>>;
type Found = Vec<ObjectRef<DeserializeGuard<ApiKey>>>;

/// The ApiKeys that list a role.
pub(super) fn with_role(apikeys: &Apikeys, role: &PartialObjectMeta<ApiKeyRole>) -> Found {
    let name = role.name_any();
    which(apikeys, |apikey| apikey.spec.roles.contains(&name))
}

/// The ApiKeys that a policy may hold for, also if it did so before it was changed: all that have not ended.
pub(super) fn living(apikeys: &Apikeys) -> Found {
    which(apikeys, |apikey| {
        !apikey
            .status
            .as_ref()
            .is_some_and(crate::api::ApiKeyStatus::is_final)
    })
}

/// The ApiKeys of a namespace.
pub(super) fn in_namespace(apikeys: &Apikeys, namespace: &PartialObjectMeta<Namespace>) -> Found {
    let name = namespace.name_any();
    which(apikeys, |apikey| {
        apikey.metadata.namespace.as_deref() == Some(&name)
    })
}

fn which(apikeys: &Apikeys, matters: impl Fn(&ApiKey) -> bool) -> Found {
    let all = apikeys.state();
    let found: HashSet<_> = all
        .iter()
        .filter(|object| object.0.as_ref().is_ok_and(&matters))
        .map(|object| ObjectRef::from_obj(&**object))
        .collect();
    found.into_iter().collect()
}
