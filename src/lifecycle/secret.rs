//! What the delivered Secret looks like besides the key, and how to mend it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

use super::{SecretFacts, World};
use crate::api::names::{
    ANNOTATION_COLLECTED, ANNOTATION_ENDED_AT, ANNOTATION_EXPIRES_AT, ANNOTATION_KEY_ID,
    ANNOTATION_TEMPLATE, LABEL_APIKEY, LABEL_MANAGED_BY, MANAGED_BY,
};
use crate::api::{ApiKey, ApiKeyStatus, SecretTemplate};

/// Labels, annotations and owner of a delivered Secret.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretShape {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its owner.
    pub owner: Option<OwnerReference>,
}

/// What to change on a Secret of ours. What others put there is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Mending {
    /// Its UID, as precondition.
    pub uid: String,
    /// Labels to set, or to take away (`None`).
    pub labels: BTreeMap<String, Option<String>>,
    /// Annotations to set, or to take away (`None`).
    pub annotations: BTreeMap<String, Option<String>>,
    /// All its owners, where they change.
    pub owner_references: Option<Vec<OwnerReference>>,
    /// Whether the entries of the template are to be written anew, and which of the old ones go.
    pub data: Option<Vec<String>>,
}

/// The shape that an `ApiKey` asks for.
#[must_use]
pub fn shape(apikey: &ApiKey, status: &ApiKeyStatus) -> SecretShape {
    let template = apikey.template();
    let mut labels = template.metadata.labels.clone();
    labels.insert(LABEL_APIKEY.to_owned(), apikey.name_any());
    labels.insert(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned());
    let mut annotations = template.metadata.annotations.clone();
    annotations.extend(
        status
            .key_id
            .clone()
            .map(|id| (ANNOTATION_KEY_ID.to_owned(), id)),
    );
    annotations.extend(
        status
            .expires_at
            .as_ref()
            .map(|time| (ANNOTATION_EXPIRES_AT.to_owned(), time.0.to_string())),
    );
    annotations.extend(written(&template).map(|text| (ANNOTATION_TEMPLATE.to_owned(), text)));
    SecretShape {
        labels,
        annotations,
        owner: owner_reference(apikey),
    }
}

/// The `ApiKey` as the controlling owner of its Secret.
#[must_use]
pub fn owner_reference(apikey: &ApiKey) -> Option<OwnerReference> {
    apikey.controller_owner_ref(&())
}

/// What is to be mended on `secret`, if anything.
pub(super) fn mending(world: &World, secret: &SecretFacts) -> Option<Mending> {
    let mut wanted = shape(&world.apikey, &world.status());
    let (mut applied, mut template) = (applied(secret), world.apikey.template());
    // Whatever the annotation says by now, the key was never an entry of the template: nothing takes it away.
    applied.data.remove(world.apikey.data_key());
    let mut data = data_changed(world, secret).then(|| gone(&applied.data, &template.data));
    if secret.immutable && data.take().is_some() {
        // The entries stay as they were applied, and are noted so.
        template.data.clone_from(&applied.data);
        wanted.annotations.remove(ANNOTATION_TEMPLATE);
        wanted
            .annotations
            .extend(written(&template).map(|text| (ANNOTATION_TEMPLATE.to_owned(), text)));
    }
    let mut annotations = difference(
        &secret.annotations,
        &applied.metadata.annotations,
        &wanted.annotations,
    );
    if template.is_empty() && secret.annotations.contains_key(ANNOTATION_TEMPLATE) {
        annotations.insert(ANNOTATION_TEMPLATE.to_owned(), None);
    }
    let mending = Mending {
        uid: secret.uid.clone(),
        labels: difference(&secret.labels, &applied.metadata.labels, &wanted.labels),
        annotations,
        owner_references: owners(&secret.owner_references, wanted.owner),
        data,
    };
    let nothing = mending.labels.is_empty()
        && mending.annotations.is_empty()
        && mending.owner_references.is_none()
        && mending.data.is_none();
    (!nothing).then_some(mending)
}

/// What is to change on `secret` besides its key when a new version is delivered into it.
#[must_use]
pub fn replacement(world: &World, secret: &SecretFacts) -> Mending {
    let mut mending = mending(world, secret).unwrap_or_else(|| Mending::nothing(secret));
    let mut applied = applied(secret);
    applied.data.remove(world.apikey.data_key());
    mending.data = Some(gone(&applied.data, &world.apikey.template().data));
    if secret.annotations.contains_key(ANNOTATION_COLLECTED) {
        // It was set for the version before.
        mending
            .annotations
            .insert(ANNOTATION_COLLECTED.to_owned(), None);
    }
    mending
}

/// A mark on the Secret of a key that has ended, so that a copy of it tells, and its owner.
pub(super) fn end_mark(
    apikey: &ApiKey,
    status: &ApiKeyStatus,
    secret: &SecretFacts,
) -> Option<Mending> {
    let mut mending = Mending::nothing(secret);
    mending.owner_references = owners(&secret.owner_references, owner_reference(apikey));
    if !secret.annotations.contains_key(ANNOTATION_ENDED_AT) {
        let ended = status.revoked_at.as_ref().or(status.expired_at.as_ref());
        mending
            .annotations
            .extend(ended.map(|ended| (ANNOTATION_ENDED_AT.to_owned(), Some(ended.0.to_string()))));
    }
    (mending.owner_references.is_some() || !mending.annotations.is_empty()).then_some(mending)
}

impl Mending {
    /// Changes nothing.
    fn nothing(secret: &SecretFacts) -> Self {
        Self {
            uid: secret.uid.clone(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            owner_references: None,
            data: None,
        }
    }
}

/// Whether the template asks for other things than were applied.
pub(super) fn template_changed(world: &World, secret: &SecretFacts) -> bool {
    applied(secret) != world.apikey.template()
}

/// Whether the template asks for other entries than were applied.
pub(super) fn data_changed(world: &World, secret: &SecretFacts) -> bool {
    applied(secret).data != world.apikey.template().data
}

/// The template as it was last applied. An annotation that somebody spoilt counts as none: then nothing is taken away.
fn applied(secret: &SecretFacts) -> SecretTemplate {
    applied_template(&secret.annotations)
}

/// The template as an annotation says that it was last applied.
pub(crate) fn applied_template(annotations: &BTreeMap<String, String>) -> SecretTemplate {
    annotations
        .get(ANNOTATION_TEMPLATE)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

fn written(template: &SecretTemplate) -> Option<String> {
    if template.is_empty() {
        None
    } else {
        serde_json::to_string(template).ok()
    }
}

/// Sets what is wanted and differs; takes away what was applied and is no longer wanted.
fn difference(
    actual: &BTreeMap<String, String>,
    applied: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> BTreeMap<String, Option<String>> {
    let set = wanted
        .iter()
        .filter(|(name, value)| actual.get(*name) != Some(*value))
        .map(|(name, value)| (name.clone(), Some(value.clone())));
    let unset = gone(applied, wanted)
        .into_iter()
        .filter(|name| actual.contains_key(name))
        .map(|name| (name, None));
    unset.chain(set).collect()
}

fn gone(applied: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> Vec<String> {
    applied
        .keys()
        .filter(|name| !wanted.contains_key(*name))
        .cloned()
        .collect()
}

/// The owners with ours among them, or `None` where it is. A reference to an `ApiKey` of our name with another UID is what a
/// restore leaves behind: the garbage collector would take the Secret for it, so it goes.
fn owners(actual: &[OwnerReference], ours: Option<OwnerReference>) -> Option<Vec<OwnerReference>> {
    let mut ours = ours?;
    if actual.iter().any(|owner| owner.uid == ours.uid) {
        return None;
    }
    let mut all: Vec<_> = actual
        .iter()
        .filter(|owner| {
            !(owner.kind == ours.kind
                && owner.api_version == ours.api_version
                && owner.name == ours.name)
        })
        .cloned()
        .collect();
    if all.iter().any(|owner| owner.controller == Some(true)) {
        // An object has one controller at most, and somebody else has made itself this one's.
        ours.controller = None;
        ours.block_owner_deletion = None;
    }
    all.push(ours);
    Some(all)
}
