//! What the policies of the cluster forbid.

use jiff::{SignedDuration, Timestamp};

use super::World;
use crate::api::{
    AllowList, ApiKey, ApiKeyPolicySpec, Expiry, Imports, Lifetime, RequiredField, Rotation,
};

/// Everything that an `ApiKey` violates, in words. Empty where the cluster's policies are not looked at.
pub(super) fn violations(world: &World) -> Vec<String> {
    let in_force = world
        .surroundings
        .policies
        .iter()
        .filter(|(_, policy)| policy.as_ref().is_none_or(|policy| holds(policy, world)));
    in_force
        .flat_map(|(name, policy)| match policy {
            Some(policy) => violations_of(name, policy, &world.apikey),
            None => vec![format!(
                "ApiKeyPolicy {name} cannot be read: correct or delete it"
            )],
        })
        .collect()
}

/// The lifetime that a key gets which asks for none: the shortest of all defaults.
pub(super) fn default_lifetime(world: &World) -> Option<Lifetime> {
    let in_force = world
        .surroundings
        .policies
        .iter()
        .filter_map(|(_, policy)| policy.as_ref())
        .filter(|policy| holds(policy, world));
    in_force
        .filter_map(|policy| policy.lifetime.as_ref()?.default.as_deref()?.parse().ok())
        .min()
}

/// How an `ApiKey` does not fit into its namespace's organization.
pub(super) fn foreign_organization(world: &World) -> Option<String> {
    if !world.surroundings.known {
        return None;
    }
    let status = world.apikey.status.as_ref();
    let key = status
        .and_then(|status| status.organization.as_deref())
        .or(world.apikey.spec.organization.as_deref());
    match (key, world.surroundings.organization()) {
        (None, _) => None,
        (Some(key), Some(namespace)) if is_within(key, namespace) => None,
        (Some(key), Some(namespace)) => Some(format!(
            "the key belongs to organization {key}, which is neither {namespace}, the organization of its namespace, nor one below it"
        )),
        (Some(key), None) => Some(format!(
            "the key belongs to organization {key}, and its namespace to none: label the namespace claviger.dev/organization"
        )),
    }
}

/// Whether `organization` is `other` or one below it.
fn is_within(organization: &str, other: &str) -> bool {
    organization
        .strip_prefix(other)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a policy holds for the namespace.
fn holds(policy: &ApiKeyPolicySpec, world: &World) -> bool {
    policy.namespaces.as_ref().is_none_or(|selector| {
        selector
            .match_labels
            .iter()
            .all(|(name, value)| world.surroundings.namespace.get(name) == Some(value))
    })
}

fn violations_of(name: &str, policy: &ApiKeyPolicySpec, apikey: &ApiKey) -> Vec<String> {
    let spec = &apikey.spec;
    let mut all = Vec::new();
    let begun = apikey
        .status
        .as_ref()
        .filter(|status| status.key_id.is_some());
    // A default counts for what is not announced yet; afterwards, what became of it.
    let has_end = match begun {
        None => policy
            .lifetime
            .as_ref()
            .is_some_and(|lifetime| lifetime.default.is_some()),
        Some(status) => status.expires_at.is_some(),
    };
    if let Some(max) = policy
        .lifetime
        .as_ref()
        .and_then(|lifetime| lifetime.max.as_deref())
        && let Some(asked) = match (
            &spec.expiry,
            begun.and_then(|status| status.expires_at.as_ref()),
        ) {
            (None, Some(end)) => outlives(
                max,
                end.0,
                begun
                    .and_then(|status| status.issued_at.as_ref())
                    .map(|time| time.0),
            ),
            (None, None) if has_end => None,
            (expiry, _) => longer_than(expiry.as_ref(), max, created(apikey)),
        }
    {
        all.push(format!(
            "ApiKeyPolicy {name} allows a lifetime of at most {max}; {asked}"
        ));
    }
    if let Some(rotation) = &policy.rotation {
        let every = spec
            .rotation
            .as_ref()
            .and_then(|rotation| rotation.every.as_deref());
        match (every, rotation.max_interval.as_deref()) {
            (None, _) if rotation.required == Some(true) => {
                all.push(format!("ApiKeyPolicy {name} requires spec.rotation.every"));
            }
            (Some(every), Some(max))
                if interval(spec.rotation.as_ref())
                    .zip(length(max))
                    .is_some_and(|(every, max)| every > max) =>
            {
                all.push(format!(
                    "ApiKeyPolicy {name} allows a rotation interval of at most {max}; spec.rotation.every is {every}"
                ));
            }
            _ => {}
        }
    }
    let lists: [(&str, &Option<AllowList>, &[String]); 3] = [
        ("role", &policy.roles, &spec.roles),
        ("permission", &policy.permissions, &spec.permissions),
        ("audience", &policy.audiences, &spec.audiences),
    ];
    for (what, allowed, listed) in lists {
        let Some(allowed) = allowed else { continue };
        let refused = listed.iter().filter(|one| !allowed.allows(one));
        all.extend(
            refused.map(|one| format!("ApiKeyPolicy {name} does not allow the {what} {one}")),
        );
    }
    if let Some(prefixes) = &policy.prefixes
        && !prefixes.allows(apikey.prefix().as_str())
    {
        all.push(format!(
            "ApiKeyPolicy {name} does not allow the prefix {}",
            apikey.prefix()
        ));
    }
    if policy.imports == Some(Imports::Forbidden) && (spec.source.is_some() || apikey.is_adopting())
    {
        all.push(format!("ApiKeyPolicy {name} does not allow imports"));
    }
    if let Some(template) = &policy.template {
        let wanted = apikey.template();
        let allowed = |annotation: &String| {
            template
                .annotation_prefixes
                .iter()
                .any(|prefix| annotation.starts_with(prefix))
        };
        let refused = wanted
            .metadata
            .annotations
            .keys()
            .filter(|annotation| !allowed(annotation));
        all.extend(refused.map(|one| {
            format!(
                "ApiKeyPolicy {name} does not allow the annotation {one} in spec.secret.template"
            )
        }));
    }
    for field in &policy.require {
        let there = match field {
            RequiredField::Description => spec.description.is_some(),
            RequiredField::Owner => spec.owner.is_some(),
            RequiredField::Application => spec.application.is_some(),
            RequiredField::Expiry => spec.expiry.is_some() || has_end,
        };
        if !there {
            all.push(format!(
                "ApiKeyPolicy {name} requires spec.{}",
                field.as_str()
            ));
        }
    }
    all
}

/// Whether a key that asked for no lifetime and got one passes for longer than `max` allows, in words. Not counted from its creation,
/// which comes before the announcement that the lifetime was counted from.
fn outlives(max: &str, end: Timestamp, issued: Option<Timestamp>) -> Option<String> {
    (end.duration_since(issued?) > length(max)?).then(|| format!("the key ends at {end}"))
}

/// What asks for more than `max`, in words.
fn longer_than(expiry: Option<&Expiry>, max: &str, created: Option<Timestamp>) -> Option<String> {
    let limit = length(max)?;
    let never = "spec.expiry asks for a key that never ends";
    match expiry {
        None => Some(never.to_owned()),
        Some(expiry) => match (&expiry.after, &expiry.at) {
            (Some(after), _) => {
                (length(after)? > limit).then(|| format!("spec.expiry asks for {after}"))
            }
            (None, Some(at)) => (at.0.duration_since(created?) > limit)
                .then(|| format!("spec.expiry asks for {}", at.0)),
            (None, None) => Some(never.to_owned()),
        },
    }
}

fn created(apikey: &ApiKey) -> Option<Timestamp> {
    apikey
        .metadata
        .creation_timestamp
        .as_ref()
        .map(|time| time.0)
}

fn interval(rotation: Option<&Rotation>) -> Option<SignedDuration> {
    rotation.and_then(Rotation::interval)
}

/// A limit that the schema would have refused limits nothing.
fn length(text: &str) -> Option<SignedDuration> {
    text.parse::<Lifetime>().ok().map(Lifetime::duration)
}
