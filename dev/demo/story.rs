//! What is told. Nothing is told that was not checked before.

use claviger::key::{self, Hash};

use crate::error::Error;
use crate::stage::{Stage, chapter, told};

/// Tells everything, from an empty cluster to a deleted key.
///
/// # Errors
/// The first thing that is not as told.
pub(crate) fn tell(stage: &Stage) -> Result<(), Error> {
    install(stage)?;
    issue(stage)?;
    look_inside(stage)?;
    let gate = pass(stage)?;
    apply_again(stage)?;
    restart(stage)?;
    rotate(stage)?;
    expire(stage)?;
    revoke(stage, &gate)?;
    delete(stage)?;
    examples(stage)
}

fn install(stage: &Stage) -> Result<(), Error> {
    chapter("An empty cluster: a real etcd, kube-apiserver and kube-controller-manager")?;
    stage.show("kubectl get --raw /version | grep gitVersion")?;
    let said = stage.show(
        "helm install claviger charts/claviger --namespace claviger-system --create-namespace",
    )?;
    check(
        "the chart is installed",
        said.contains("STATUS: deployed"),
        &said,
    )?;
    stage
        .show("kubectl wait --for=condition=Established crd/apikeys.claviger.dev --timeout=60s")?;
    // Until then it answers 503: the types that its mutating policies know are read again every five seconds.
    stage.show(
        "timeout 60 sh -c 'until kubectl create --dry-run=server -f examples/minimal.yaml 2>/dev/null; do sleep 1; done'",
    )?;
    told(
        "Definitions, ServiceAccount and rights are there. There are no nodes for pods: the controller is started by hand.",
    )?;
    stage.show(
        "kubectl create namespace demo && kubectl config set-context --current --namespace=demo",
    )?;
    stage.start_controller()?;
    told("The controller works with the ServiceAccount of the chart and its rights, nothing more.")
}

fn issue(stage: &Stage) -> Result<(), Error> {
    chapter("A key is something you declare")?;
    stage.show("cat dev/demo/billing-export.yaml")?;
    stage.show("kubectl apply -f dev/demo/billing-export.yaml")?;
    stage.show("kubectl wait --for=condition=Ready apikey/billing-export --timeout=60s")?;
    let shown = stage.show("kubectl get ak -o wide")?;
    let tail = field(stage, "billing-export", ".status.tail")?;
    check("the key is Active", shown.contains("Active"), &shown)?;
    check(
        "the list shows the tail of the key",
        tail.len() == key::TAIL_LEN && shown.contains(&tail),
        &shown,
    )?;
    told("Issued. The tail, the last six characters, is all that people need to recognise the key.")
}

fn look_inside(stage: &Stage) -> Result<(), Error> {
    chapter("The key is in its Secret; the cluster knows only its hash and its tail")?;
    let described = stage.show("kubectl describe secret billing-export")?;
    check(
        "the Secret has the key and the header",
        described.contains("api-key:") && described.contains("AUTH_HEADER:"),
        &described,
    )?;
    let key = stage
        .show("kubectl get secret billing-export -o jsonpath='{.data.api-key}' | base64 -d")?;
    let header = stage
        .ask("kubectl get secret billing-export -o jsonpath='{.data.AUTH_HEADER}' | base64 -d")?;
    check(
        "the key is well-formed",
        key::check(&key) == Ok(()),
        "a malformed one",
    )?;
    check(
        "the template put the key into the header",
        header == format!("Bearer {key}"),
        "another header",
    )?;
    told("This is what a workload mounts. Claviger itself does not keep it.")?;
    let summed = stage.show(
        "kubectl get secret billing-export -o jsonpath='{.data.api-key}' | base64 -d | sha256sum",
    )?;
    let known = stage.show(
        r#"kubectl get ak billing-export -o jsonpath='{.status.hash}{"\n"}{.status.tail}{"\n"}'"#,
    )?;
    let hash = field(stage, "billing-export", ".status.hash")?;
    let tail = field(stage, "billing-export", ".status.tail")?;
    let sum = format!(
        "sha256:{}",
        summed.split_whitespace().next().unwrap_or_default()
    );
    check(
        "the hash in the status is the SHA-256 of the key",
        hash == sum && hash == Hash::of(key.as_bytes()).to_string(),
        &known,
    )?;
    check(
        "the tail in the status is the end of the key",
        key.ends_with(&tail) && tail.len() == key::TAIL_LEN,
        &known,
    )?;
    let everything =
        stage.ask("kubectl get ak billing-export -o yaml && kubectl get events -o yaml")?;
    check(
        "the key stands neither in the ApiKey nor in an event",
        !everything.contains(&key),
        "the key",
    )?;
    told(
        "The hash is the key's SHA-256 and the tail its end; the key stands neither in the ApiKey nor in any event.",
    )
}

fn pass(stage: &Stage) -> Result<String, Error> {
    chapter("A gate says whether a key passes")?;
    let gate = stage.start_gate()?;
    told(
        "It works with the rights of its own ServiceAccount: it reads ApiKeys and roles, and no Secret. A proxy asks it like this, with the headers of its client:",
    )?;
    let allowed = stage.show(&asked(&gate, ""))?;
    check(
        "the key passes",
        allowed.contains("200 OK") && allowed.contains("x-claviger-name: billing-export"),
        &allowed,
    )?;
    check(
        "it may do what its role may",
        allowed.contains("x-claviger-permissions: invoices:read"),
        &allowed,
    )?;
    told(
        "200 lets the request through; the API behind the proxy gets these headers, and not the key.",
    )?;
    let refused = stage.show(&asked(&gate, "&permissions=invoices:write"))?;
    check(
        "a route that needs more refuses it",
        refused.contains("403") && refused.contains("INSUFFICIENT_PERMISSIONS"),
        &refused,
    )?;
    told("What a route needs stands in the question: an audience, permissions, an organization.")?;
    Ok(gate)
}

/// What a proxy asks. The key goes through a pipe: everybody on a machine can see command lines.
fn asked(gate: &str, needs: &str) -> String {
    format!(
        "kubectl get secret billing-export -o jsonpath='{{.data.AUTH_HEADER}}' | base64 -d | sed 's/^/Authorization: /' | \
         curl -si -H @- 'http://{gate}/v1/auth/envoy/audience=invoices-api{needs}/-'"
    )
}

fn apply_again(stage: &Stage) -> Result<(), Error> {
    chapter("Applying again changes nothing")?;
    let before = stage.show(VERSIONS)?;
    let said = stage.show("kubectl apply -f dev/demo/billing-export.yaml")?;
    check("kubectl says unchanged", said.contains("unchanged"), &said)?;
    let after = stage.show(VERSIONS)?;
    check(
        "neither the ApiKey nor the Secret was written",
        before == after,
        &after,
    )?;
    told("The same resourceVersions: nothing was written, nothing was minted.")
}

fn restart(stage: &Stage) -> Result<(), Error> {
    chapter("A restart of the controller mints nothing")?;
    let before = stage.show(VERSIONS)?;
    let hashes = stage.ask(HASHES)?;
    let apikeys = i64::try_from(hashes.lines().count()).unwrap_or(i64::MAX);
    stage.restart_controller(apikeys)?;
    let after = stage.show(VERSIONS)?;
    check(
        "the ApiKey and the Secret are untouched",
        before == after,
        &after,
    )?;
    check(
        "no key was minted anew",
        stage.ask(HASHES)? == hashes,
        "other hashes",
    )?;
    let writes = stage.writes()?;
    check(
        "the new controller has written nothing",
        writes == 0,
        &format!("{writes} writes"),
    )?;
    told("The new controller has looked at every ApiKey and has written nothing but its Lease.")
}

fn rotate(stage: &Stage) -> Result<(), Error> {
    const LISTED: &str = r#"kubectl get ak billing-export -o jsonpath='{range .status.versions[*]}{.version}{"\t"}{.phase}{"\t"}{.tail}{"\t"}{.retiresAt}{"\n"}{end}'"#;
    chapter("A key rotates: the old version passes until its overlap is over")?;
    let before = field(stage, "billing-export", ".status.hash")?;
    stage.show(r#"kubectl patch ak billing-export --type=merge -p '{"spec":{"revision":1}}'"#)?;
    stage.show(
        "kubectl wait --for=jsonpath='{.status.revision}'=1 apikey/billing-export --timeout=60s",
    )?;
    let listed = stage.show(LISTED)?;
    check(
        "two versions overlap",
        listed.contains("1\tRetiring") && listed.contains("2\tCurrent"),
        &listed,
    )?;
    let summed = stage.ask(
        "kubectl get secret billing-export -o jsonpath='{.data.api-key}' | base64 -d | sha256sum",
    )?;
    let after = field(stage, "billing-export", ".status.hash")?;
    let sum = format!(
        "sha256:{}",
        summed.split_whitespace().next().unwrap_or_default()
    );
    check(
        "the Secret holds the new version",
        after == sum && after != before,
        &listed,
    )?;
    told(
        "The Secret holds version 2; whoever still holds version 1 is let in until the end of its overlap, a day by default.",
    )?;
    stage.show(r#"kubectl patch ak billing-export --type=merge -p '{"spec":{"rotation":{"overlap":"0s"}}}'"#)?;
    stage.until_said("the old version is retired", LISTED, |listed| {
        listed.contains("1\tRetired")
    })?;
    stage.show(LISTED)?;
    told("Had version 1 leaked, lowering the overlap ends it at once.")
}

fn expire(stage: &Stage) -> Result<(), Error> {
    chapter("A key ends by time")?;
    stage.show("cat dev/demo/short-lived.yaml")?;
    stage.show("kubectl apply -f dev/demo/short-lived.yaml")?;
    stage.show("kubectl wait --for=condition=Usable apikey/short-lived --timeout=60s")?;
    stage.show(
        "kubectl wait --for=jsonpath='{.status.phase}'=Expired apikey/short-lived --timeout=60s",
    )?;
    let shown = stage.show(
        "kubectl get ak short-lived -o custom-columns=NAME:.metadata.name,PHASE:.status.phase,ISSUED:.status.issuedAt,EXPIRES:.status.expiresAt,EXPIRED:.status.expiredAt",
    )?;
    let (due, recorded) = (
        field(stage, "short-lived", ".status.expiresAt")?,
        field(stage, "short-lived", ".status.expiredAt")?,
    );
    // RFC 3339 in UTC and whole seconds: as text, they sort as they are.
    check(
        "the key did not expire before its time",
        !due.is_empty() && due <= recorded,
        &shown,
    )?;
    check(
        "its owner can see it in the conditions",
        usable(stage, "short-lived")? == "False/Expired",
        &shown,
    )?;
    told(
        "Expired at the second, and for good: whoever checks keys knows expiresAt and need not wait for the controller.",
    )
}

fn revoke(stage: &Stage, gate: &str) -> Result<(), Error> {
    chapter("A key ends by decision, and stays ended")?;
    stage.show(
        r#"kubectl patch ak billing-export --type=merge -p '{"spec":{"revoked":true,"revocationReason":"leaked in a build log"}}'"#,
    )?;
    stage.show(
        "kubectl wait --for=jsonpath='{.status.phase}'=Revoked apikey/billing-export --timeout=60s",
    )?;
    let shown = stage.show("kubectl get ak")?;
    check(
        "a request with the key would not pass",
        usable(stage, "billing-export")? == "False/Revoked",
        &shown,
    )?;
    told("Revoked; `Usable` is False with the reason Revoked.")?;
    let refused = stage.show(&asked(gate, ""))?;
    check(
        "the gate refuses the key",
        refused.contains("401") && refused.contains("x-claviger-code: REVOKED"),
        &refused,
    )?;
    told("The gate refused it from the moment at which it was asked for, and says why.")?;
    let said = stage
        .show_refused(r#"kubectl patch ak billing-export --type=merge -p '{"spec":{"revoked":null,"revocationReason":null}}'"#)?;
    check(
        "the API server says why",
        said.contains("revocation is one-way"),
        &said,
    )?;
    told("The API server itself refuses to take a revocation back.")?;
    stage.show("kubectl apply -f dev/demo/billing-export.yaml")?;
    let phase =
        stage.show(r#"kubectl get ak billing-export -o jsonpath='{.status.phase}{"\n"}'"#)?;
    check("the key stays Revoked", phase.trim() == "Revoked", &phase)?;
    told("Applying the manifest again, as a GitOps tool would, does not take it back either.")?;
    // Events are sent beside the work, not before it.
    stage.until_said(
        "events tell what happened",
        "kubectl get events -o jsonpath='{.items[*].reason}'",
        |said| {
            ["Issued", "Expired", "Revoked"]
                .iter()
                .all(|reason| said.split_whitespace().any(|word| word == *reason))
        },
    )?;
    stage.show("kubectl get events --field-selector involvedObject.kind=ApiKey -o custom-columns=APIKEY:.involvedObject.name,REASON:.reason,NOTE:.message")?;
    told("Who was issued what, what expired, what was revoked and why, is told in events.")
}

fn delete(stage: &Stage) -> Result<(), Error> {
    chapter("A deleted ApiKey takes its Secret along")?;
    stage.show("kubectl delete ak billing-export --timeout=60s")?;
    let said = stage.show_refused("kubectl get secret billing-export")?;
    check(
        "the Secret is gone when the ApiKey is",
        said.contains("NotFound"),
        &said,
    )?;
    told("The Secret goes first: when kubectl returns, both are gone.")
}

fn examples(stage: &Stage) -> Result<(), Error> {
    // One of them lists a role that nobody made, and waits for it; all others become Ready.
    const NOT_READY: &str = r#"kubectl get ak -n examples -o jsonpath='{range .items[?(@.status.conditions[0].status!="True")]}{.metadata.name}{"\n"}{end}'"#;
    chapter("The examples")?;
    stage.show("kubectl create namespace examples && kubectl apply -n examples -f examples/")?;
    stage.until_said("all examples but one are Ready", NOT_READY, |names| {
        names.trim() == "missing-role"
    })?;
    let shown = stage.show("kubectl get ak -n examples")?;
    stage.show("kubectl get secrets -n examples -l claviger.dev/apikey")?;
    check(
        "no example is left Pending",
        !shown.contains("Pending"),
        &shown,
    )?;
    told(
        "Every example is as its comment says (missing-role waits for its role); Secrets carry the name of their ApiKey as a label.",
    )?;
    told("All of this was checked as it was shown.")
}

/// What would change if anything was written.
const VERSIONS: &str = "kubectl get ak/billing-export secret/billing-export -o custom-columns=KIND:.kind,NAME:.metadata.name,RESOURCEVERSION:.metadata.resourceVersion";

/// The hash of every key there is.
const HASHES: &str = r#"kubectl get ak --all-namespaces -o jsonpath='{range .items[*]}{.metadata.namespace}/{.metadata.name} {.status.hash}{"\n"}{end}'"#;

/// A field of an `ApiKey`, empty where it is absent.
fn field(stage: &Stage, name: &str, path: &str) -> Result<String, Error> {
    stage.ask(&format!("kubectl get ak {name} -o jsonpath='{{{path}}}'"))
}

/// Whether a key passes, and why: `False/Revoked`.
fn usable(stage: &Stage, name: &str) -> Result<String, Error> {
    let condition = ".status.conditions[?(@.type==\"Usable\")]";
    Ok(format!(
        "{}/{}",
        field(stage, name, &format!("{condition}.status"))?,
        field(stage, name, &format!("{condition}.reason"))?
    ))
}

fn check(what: &'static str, holds: bool, found: &str) -> Result<(), Error> {
    if holds {
        Ok(())
    } else {
        Err(Error::NotAsTold {
            told: what,
            found: found.trim().to_owned(),
        })
    }
}
