//! Killed anywhere: in every part of a key's life, the controller is killed once before each of its requests leaves and once after
//! the answer to each was lost; a new process then converges, and what must hold at every instant has held. The same with refusals,
//! hangs and dropped connections instead of the kill (incidents 1, 2, 3; 9 for adopting).

mod blows;

use claviger::api::names::{ANNOTATION_ADOPT, ANNOTATION_COLLECTED, LABEL_APIKEY};
use claviger::api::{ConditionType, Phase, VersionPhase};
use claviger::key::{Hash, Key, OsRandom, Prefix};
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::json;

use crate::stories;
use crate::support::cluster::Cluster;
use crate::support::stage::{Stage, condition, manifest};
use crate::support::wait::{self};

pub(crate) use blows::print_total;
use blows::{Scenario, everywhere};

stories![
    issuing_survives_every_crash_and_every_fault,
    expiring_survives_every_crash_and_every_fault,
    revoking_survives_every_crash_and_every_fault,
    deleting_survives_every_crash_and_every_fault,
    rotating_survives_every_crash_and_every_fault,
    rotating_into_a_new_secret_survives_every_crash_and_every_fault,
    retiring_survives_every_crash_and_every_fault,
    collecting_survives_every_crash_and_every_fault,
    ending_while_active_survives_every_crash_and_every_fault,
    importing_survives_every_crash_and_every_fault,
    importing_by_hash_survives_every_crash_and_every_fault,
    adopting_survives_every_crash_and_every_fault,
];

fn issuing_survives_every_crash_and_every_fault() {
    everywhere(&Scenario {
        name: "issuing",
        // Where the controller adds the finalizer, too: elsewhere it makes one request less.
        cluster: Cluster::own_without_finalizer_policy(),
        before: |_| {},
        trigger: |stage| stage.declare("k", "{}"),
        end: |stage| {
            stage.wait_issued("k");
        },
        from_creation: false,
    });
}

fn expiring_survives_every_crash_and_every_fault() {
    everywhere(&Scenario {
        name: "expiring",
        cluster: Cluster::shared(),
        before: |_| {},
        // Numbered from the creation on: the time is running, so there is no moment to begin to count at later.
        trigger: |stage| stage.declare("k", "{expiry: {after: 15s}}"),
        end: |stage| {
            stage.wait_phase("k", Phase::Expired);
        },
        from_creation: true,
    });
}

fn revoking_survives_every_crash_and_every_fault() {
    everywhere(&Scenario {
        name: "revoking",
        cluster: Cluster::shared(),
        before: issue,
        trigger: |stage| drop(stage.patch("apikey/k", "{\"spec\": {\"revoked\": true}}")),
        end: |stage| {
            stage.wait_phase("k", Phase::Revoked);
        },
        from_creation: false,
    });
}

fn deleting_survives_every_crash_and_every_fault() {
    everywhere(&Scenario {
        name: "deleting",
        cluster: Cluster::shared(),
        before: issue,
        trigger: |stage| drop(stage.kubectl(&["delete", "apikey", "k", "--wait=false"])),
        end: |stage| {
            stage.wait_gone("k");
            assert!(
                stage.secret("k").is_none(),
                "the Secret went with the ApiKey"
            );
        },
        from_creation: false,
    });
}

fn rotating_survives_every_crash_and_every_fault() {
    everywhere(&Scenario {
        name: "rotating",
        cluster: Cluster::shared(),
        before: issue,
        trigger: rotate,
        end: rotated,
        from_creation: false,
    });
}

fn rotating_into_a_new_secret_survives_every_crash_and_every_fault() {
    everywhere(&Scenario {
        name: "rotating-anew",
        cluster: Cluster::shared(),
        before: |stage| {
            issue(stage);
            stage.kubectl(&["delete", "secret", "k"]);
            stage.wait_reason("k", ConditionType::Delivered, "SecretMissing");
        },
        trigger: rotate,
        end: rotated,
        from_creation: false,
    });
}

fn retiring_survives_every_crash_and_every_fault() {
    everywhere(&Scenario {
        name: "retiring",
        cluster: Cluster::shared(),
        before: |stage| {
            issue(stage);
            rotate(stage);
            rotated(stage);
        },
        // The end is brought to a moment that is near and surely not past: it is written down, and then it comes.
        trigger: |stage| {
            let replaced = stage.status("k").versions[0].replaced_at.clone().unwrap().0;
            let overlap = Timestamp::now().duration_since(replaced).as_secs() + 4;
            stage.patch(
                "apikey/k",
                &format!("{{\"spec\": {{\"rotation\": {{\"overlap\": \"{overlap}s\"}}}}}}"),
            );
        },
        end: |stage| {
            let status = stage.wait("k", "retires", |status| {
                status.versions[0].phase == VersionPhase::Retired
            });
            assert!(
                status.versions[0].retires_at.clone().unwrap().0 <= Timestamp::now(),
                "not before its end"
            );
            stage.wait_issued("k");
        },
        from_creation: false,
    });
}

fn collecting_survives_every_crash_and_every_fault() {
    everywhere(&Scenario {
        name: "collecting",
        cluster: Cluster::shared(),
        before: |stage| {
            stage.declare("k", "{secret: {retention: UntilCollected}}");
            stage.wait_issued("k");
        },
        trigger: |stage| {
            drop(stage.kubectl(&[
                "annotate",
                "secret",
                "k",
                &format!("{ANNOTATION_COLLECTED}=true"),
            ]));
        },
        end: |stage| {
            let status = stage.wait("k", "was collected", |status| status.secret_ref.is_none());
            assert!(stage.secret("k").is_none(), "its Secret is gone");
            let said = [
                ConditionType::Delivered,
                ConditionType::Ready,
                ConditionType::Usable,
            ];
            assert_eq!(
                said.map(|type_| condition(&status, type_)),
                ["False/Collected", "True/Issued", "True/Active"]
            );
        },
        from_creation: false,
    });
}

fn ending_while_active_survives_every_crash_and_every_fault() {
    everywhere(&Scenario {
        name: "while-active",
        cluster: Cluster::shared(),
        before: |stage| {
            stage.declare("k", "{secret: {retention: WhileActive}}");
            stage.wait_issued("k");
        },
        trigger: |stage| drop(stage.patch("apikey/k", "{\"spec\": {\"revoked\": true}}")),
        end: |stage| {
            let status = stage.wait("k", "has no Secret", |status| status.secret_ref.is_none());
            assert_eq!(status.phase, Some(Phase::Revoked));
            assert!(stage.secret("k").is_none(), "its Secret is gone");
        },
        from_creation: false,
    });
}

fn importing_survives_every_crash_and_every_fault() {
    everywhere(&Scenario {
        name: "importing",
        cluster: Cluster::shared(),
        before: |stage| stage.hold("legacy", "token"),
        trigger: |stage| stage.declare("k", "{source: {secretRef: {name: legacy, key: token}}}"),
        end: |stage| {
            let status = stage.wait_issued("k");
            assert_eq!(
                stage.mounted("legacy")["token"],
                stage.mounted("k")["api-key"],
                "the same key in both"
            );
            assert_eq!(
                status.versions.len(),
                1,
                "and no other was minted: {status:?}"
            );
        },
        from_creation: false,
    });
}

fn importing_by_hash_survives_every_crash_and_every_fault() {
    everywhere(&Scenario {
        name: "importing-hash",
        cluster: Cluster::shared(),
        before: |_| {},
        trigger: |stage| {
            let hash = Hash::of(b"known elsewhere");
            stage.declare(
                "k",
                &format!("{{source: {{hash: \"{hash}\", tail: where}}}}"),
            );
        },
        end: |stage| {
            let status = stage.wait_phase("k", Phase::Active);
            assert_eq!(status.hash, Some(Hash::of(b"known elsewhere").to_string()));
            assert_eq!(
                (
                    status.versions.len(),
                    condition(&status, ConditionType::Ready).as_str()
                ),
                (1, "True/Imported")
            );
            assert!(stage.secret("k").is_none(), "nothing is delivered");
        },
        from_creation: false,
    });
}

fn adopting_survives_every_crash_and_every_fault() {
    everywhere(&Scenario {
        name: "adopting",
        cluster: Cluster::shared(),
        before: |stage| stage.hold("k", "api-key"),
        trigger: |stage| {
            let adopt =
                format!("metadata: {{name: k, annotations: {{{ANNOTATION_ADOPT}: \"true\"}}}}");
            stage.apply(&manifest("k", "{}").replace("metadata: {name: k}", &adopt));
        },
        end: |stage| {
            let status = stage.wait_issued("k");
            assert_eq!(status.versions.len(), 1, "no other was minted: {status:?}");
            wait::until_true("the Secret says whose it is", || {
                stage
                    .secret("k")
                    .is_some_and(|secret| secret.labels().contains_key(LABEL_APIKEY))
            });
        },
        from_creation: false,
    });
}

fn issue(stage: &Stage) {
    stage.declare("k", "{}");
    stage.wait_issued("k");
}

fn rotate(stage: &Stage) {
    stage.patch("apikey/k", "{\"spec\": {\"revision\": 1}}");
}

/// One version more is in use, and the one before it still passes.
fn rotated(stage: &Stage) {
    stage.wait("k", "is rotated", |status| status.revision == Some(1));
    let status = stage.wait_issued("k");
    let phases: Vec<_> = status
        .versions
        .iter()
        .map(|version| version.phase)
        .collect();
    assert_eq!(
        phases,
        [VersionPhase::Retiring, VersionPhase::Current],
        "{status:?}"
    );
    let old = &status.versions[0];
    assert!(
        old.retires_at
            .as_ref()
            .is_some_and(|end| end.0 > Timestamp::now()),
        "{status:?}"
    );
}

impl Stage {
    /// Puts a well-formed key into a Secret that is nobody's.
    pub(crate) fn hold(&self, secret: &str, entry: &str) {
        let key = Key::mint(&Prefix::default(), &mut OsRandom).unwrap();
        // By way of the input: a command line can be read by others.
        let text = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": secret },
            "stringData": { entry: key.expose() },
        });
        self.cluster.kubectl_with(
            &["-n", &self.namespace, "create", "-f", "-"],
            &text.to_string(),
        );
    }
}
