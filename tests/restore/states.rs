//! Keys in every state, and whether they are as they were saved.

use std::collections::BTreeMap;
use std::time::Duration;

use claviger::api::names::{ANNOTATION_COLLECTED, ANNOTATION_ENDED_AT, FINALIZER};
use claviger::api::{ApiKey, ApiKeyStatus, ConditionType, Phase, VersionPhase};
use claviger::key::{Hash, Key, OsRandom, Prefix};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::controller;
use crate::drift::create;
use crate::support::cluster::runtime;
use crate::support::operator::Operator;
use crate::support::proxy::{Call, Proxy};
use crate::support::stage::{Stage, condition, manifest};
use crate::support::wait::{self, LIMIT};

/// How many keys of each kind there are.
pub(super) const EACH: usize = 13;

/// Merges something into many objects, many at once.
pub(super) fn patch_many<K>(stage: &Stage, prefix: &str, count: usize, patch: &Value)
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(stage.cluster.client(), &stage.namespace);
    let patched = futures::stream::iter(0..count).map(|number| {
        let (api, patch) = (api.clone(), patch.clone());
        async move {
            api.patch(
                &format!("{prefix}-{number}"),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await
        }
    });
    runtime()
        .block_on(patched.buffer_unordered(16).try_for_each(async |_| Ok(())))
        .expect("they are accepted");
}

/// Declares keys in every state that there is, and waits until they are in it.
pub(super) fn in_every_state(stage: &Stage) {
    let many = |prefix: &str, spec: &str| stage.declare_many(prefix, EACH, spec);
    let names = |prefix: &str| {
        (0..EACH)
            .map(|number| format!("{prefix}-{number}"))
            .collect::<Vec<_>>()
    };
    let new = || Key::mint(&Prefix::default(), &mut OsRandom).unwrap();
    let opaque = |name: &str, entry: &str, held: &str| json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { entry: held } });
    // What belongs to others, and what is taken over.
    let mut others: Vec<Value> = names("taken")
        .iter()
        .map(|name| opaque(name, "theirs", "theirs"))
        .collect();
    others.extend(
        names("legacy")
            .iter()
            .map(|name| opaque(name, "token", new().expose())),
    );
    create(
        stage,
        &json!({ "apiVersion": "v1", "kind": "List", "items": others }).to_string(),
    );

    many("taken", "{}");
    many("plain", "{}");
    many(
        "ahead",
        r#"{"expiry": {"after": "90d"}, "owner": "sec@example.com", "metadata": {"tier": "gold"}}"#,
    );
    many(
        "template",
        r#"{"secret": {"key": "k", "template": {"metadata": {"labels": {"team": "a"}}, "data": {"H": "Bearer ${key}"}}}}"#,
    );
    many(
        "retiring",
        r#"{"revision": 1, "rotation": {"every": "30d", "overlap": "24h"}}"#,
    );
    many(
        "retired",
        r#"{"revision": 1, "rotation": {"every": "30d", "overlap": "1s"}}"#,
    );
    many("shown", r#"{"secret": {"retention": "UntilCollected"}}"#);
    many(
        "collected",
        r#"{"secret": {"retention": "UntilCollected"}}"#,
    );
    many(
        "while-active",
        r#"{"secret": {"retention": "WhileActive"}}"#,
    );
    many(
        "while-revoked",
        r#"{"secret": {"retention": "WhileActive"}}"#,
    );
    many("expired", r#"{"expiry": {"after": "10s"}}"#);
    many("revoked", r#"{"roles": ["ic-viewer"]}"#);
    many("stillborn", r#"{"revoked": true}"#);
    let mut imports = String::new();
    for number in 0..EACH {
        let source = format!("{{source: {{secretRef: {{name: legacy-{number}, key: token}}}}}}");
        imports += &manifest(&format!("imported-{number}"), &source);
        let key = new();
        let source = format!(
            "{{source: {{hash: \"{}\", tail: \"{}\"}}}}",
            key.hash(),
            key.tail()
        );
        imports += &manifest(&format!("hashed-{number}"), &source);
    }
    stage.apply(&imports);
    // Somebody edited one of them by hand, so that it has a generation and an annotation of kubectl's.
    let edited = "{expiry: {after: 90d}, description: applied by somebody}";
    stage.declare("applied", edited);
    // One ends at a moment that is past when it is restored, one was revoked by another than who restores it.
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(15);
    stage.declare("expired-at", &format!("{{expiry: {{at: {soon}}}}}"));
    stage.declare("revoked-by-another", "{}");
    stage.declare("applied", &edited.replace("somebody", "somebody else"));

    let all = EACH * 15 + 3;
    wait::until("all but the conflicts are issued or ended", || {
        let waiting = stage.apikeys().into_iter().filter(|apikey| {
            let status = apikey.status.clone().unwrap_or_default();
            status.current().is_none()
                && !status.is_final()
                && condition(&status, ConditionType::Ready) != "False/SecretConflict"
        });
        let waiting: Vec<_> = waiting.map(|apikey| apikey.name_any()).collect();
        if waiting.is_empty() && stage.apikeys().len() == all {
            Ok(())
        } else {
            Err(format!("{waiting:?}"))
        }
    });
    for revision in [2, 3] {
        for prefix in ["retiring", "retired"] {
            patch_many::<ApiKey>(
                stage,
                prefix,
                EACH,
                &json!({ "spec": { "revision": revision } }),
            );
        }
        wait_status(stage, "retir", "is rotated", |status| {
            status.revision == Some(revision) && status.newest_announced().is_none()
        });
    }
    let revoke = r#"{"spec": {"revoked": true}}"#;
    let someone = ["--as=sec@example.com", "--as-group=system:masters"];
    stage.kubectl(
        &[
            &[
                "patch",
                "apikey/revoked-by-another",
                "--type=merge",
                "-p",
                revoke,
            ],
            &someone[..],
        ]
        .concat(),
    );
    for prefix in ["revoked", "while-revoked"] {
        patch_many::<ApiKey>(
            stage,
            prefix,
            EACH,
            &json!({ "spec": { "revoked": true, "revocationReason": "leaked" } }),
        );
    }
    patch_many::<Secret>(
        stage,
        "collected",
        EACH,
        &json!({ "metadata": { "annotations": { ANNOTATION_COLLECTED: "true" } } }),
    );
    wait_status(stage, "collected", "is collected", |status| {
        status.secret_ref.is_none()
    });
    wait_status(stage, "while-revoked", "has ended", |status| {
        status.revoked_at.is_some() && status.secret_ref.is_none()
    });
    wait_status(stage, "revoked", "is revoked", |status| {
        status.phase == Some(Phase::Revoked)
    });
    wait_status(stage, "expired", "has expired", |status| {
        status.phase == Some(Phase::Expired)
    });
    let phases = |status: &ApiKeyStatus, phase| {
        status
            .versions
            .iter()
            .filter(|version| version.phase == phase)
            .count()
    };
    wait_status(stage, "retired", "has retired versions", |status| {
        phases(status, VersionPhase::Retired) == 2
    });
    wait_status(stage, "retiring", "has retiring versions", |status| {
        phases(status, VersionPhase::Retiring) == 2
    });
    for prefix in ["expired", "revoked"] {
        wait::until_true("the Secrets of what has ended say so", || {
            let marked = |secret: &&Secret| {
                secret.name_any().starts_with(prefix)
                    && secret.annotations().contains_key(ANNOTATION_ENDED_AT)
            };
            stage.secrets().iter().filter(marked).count() == EACH + 1
        });
    }
}

pub(super) fn wait_status(
    stage: &Stage,
    prefix: &str,
    what: &str,
    is: impl Fn(&ApiKeyStatus) -> bool,
) {
    wait::until(&format!("every {prefix} {what}"), || {
        let others = stage.apikeys().into_iter().filter(|apikey| {
            apikey.name_any().starts_with(prefix) && !is(&apikey.status.clone().unwrap_or_default())
        });
        let others: Vec<_> = others
            .map(|apikey| format!("{} {:?}", apikey.name_any(), apikey.status))
            .collect();
        if others.is_empty() {
            Ok(())
        } else {
            Err(format!("{} not, such as {}", others.len(), others[0]))
        }
    });
}

/// All that must come back as it was, by name.
pub(super) fn everything(stage: &Stage) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for mut apikey in stage.apikeys() {
        apikey
            .annotations_mut()
            .remove("kubectl.kubernetes.io/last-applied-configuration");
        let mut status = json!(apikey.status.clone().unwrap_or_default());
        // What follows the new UIDs, and what was said when.
        for field in ["secretRef", "rotatesAt", "conditions", "observedGeneration"] {
            status.as_object_mut().unwrap().remove(field);
        }
        let conditions: BTreeMap<_, _> = apikey
            .status
            .iter()
            .flat_map(|status| &status.conditions)
            .map(|c| (&c.type_, &c.reason))
            .collect();
        let delivered = apikey
            .status
            .as_ref()
            .is_some_and(|status| status.secret_ref.is_some());
        let facts = json!({ "spec": apikey.spec, "annotations": apikey.annotations(), "status": status, "conditions": conditions, "delivered": delivered });
        all.insert(format!("apikey/{}", apikey.name_any()), facts);
    }
    for secret in stage.secrets() {
        let facts = json!({ "type": secret.type_, "data": secret.data, "labels": secret.labels(), "annotations": secret.annotations() });
        all.insert(format!("secret/{}", secret.name_any()), facts);
    }
    all
}

/// Checks that all is as it was saved, that the Secrets belong to the new ApiKeys, and that these know it.
pub(super) fn is_whole(stage: &Stage, saved: &BTreeMap<String, Value>) {
    wait::until("everything is as it was saved", || {
        let now = everything(stage);
        let other = saved
            .iter()
            .find(|(name, facts)| now.get(*name) != Some(*facts));
        if let Some((name, facts)) = other {
            return Err(format!("{name} was {facts}, is {:?}", now.get(name)));
        }
        if now.len() == saved.len() {
            Ok(())
        } else {
            Err(format!("{} objects instead of {}", now.len(), saved.len()))
        }
    });
    let secrets = || {
        stage
            .secrets()
            .into_iter()
            .map(|secret| (secret.name_any(), secret))
            .collect::<BTreeMap<_, _>>()
    };
    wait::until("everybody knows everybody", || {
        let secrets = secrets();
        for apikey in stage.apikeys() {
            let name = apikey.name_any();
            let Some(recorded) = apikey
                .status
                .as_ref()
                .and_then(|status| status.secret_ref.clone())
            else {
                continue;
            };
            let secret = secrets
                .get(&apikey.secret_name())
                .ok_or_else(|| format!("{name} has no Secret"))?;
            let owners = secret.owner_references();
            if Some(&recorded.uid) != secret.uid().as_ref() {
                return Err(format!("{name} knows its Secret as {recorded:?}"));
            }
            if owners.len() != 1
                || Some(&owners[0].uid) != apikey.uid().as_ref()
                || owners[0].controller != Some(true)
            {
                return Err(format!("Secret {name} belongs to {owners:?}"));
            }
            if apikey.finalizers() != [FINALIZER] {
                return Err(format!(
                    "{name} has the finalizers {:?}",
                    apikey.finalizers()
                ));
            }
        }
        Ok(())
    });
    let secrets = secrets();
    for apikey in stage.apikeys() {
        let (Some(status), Some(secret)) =
            (apikey.status.clone(), secrets.get(&apikey.secret_name()))
        else {
            continue;
        };
        if status.secret_ref.is_some() {
            let held = Hash::of(&secret.data.as_ref().unwrap()[apikey.data_key()].0).to_string();
            assert_eq!(
                status.hash,
                Some(held),
                "{} holds what its status says",
                apikey.name_any()
            );
        }
    }
}

/// Waits until the controller rests, and checks that it does nothing any more, nor after a restart.
pub(super) fn is_idle(stage: &Stage, operator: &Operator, proxy: &Proxy) {
    let rests = || {
        assert!(
            proxy.wait_quiet(Duration::from_secs(1), LIMIT, Call::is_mutation),
            "the controller comes to rest"
        );
    };
    rests();
    let versions = || -> Vec<_> {
        stage
            .apikeys()
            .iter()
            .map(kube::ResourceExt::resource_version)
            .collect()
    };
    let before = versions();
    assert!(operator.stop().success());
    proxy.reset();
    let operator = controller(&stage.cluster, Some(proxy));
    rests();
    let wrote: Vec<_> = proxy
        .mutations()
        .into_iter()
        .filter(|record| record.call.resource != "events")
        .collect();
    assert!(wrote.is_empty(), "{wrote:?}");
    assert_eq!(versions(), before);
    assert!(operator.stop().success());
}
