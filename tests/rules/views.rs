//! What `kubectl get` shows, and by what it finds.

use claviger::api::Phase;
use serde_json::json;

use super::{Kind, Part, Swept, document};
use crate::stories;

stories![
    kubectl_get_shows_what_matters_and_finds_by_it,
    roles_and_policies_are_shown_by_what_they_say
];

fn kubectl_get_shows_what_matters_and_finds_by_it() {
    let stage = super::stage("views");
    let operator = stage.operator().start_ready();
    stage.role("viewer", &["invoices:read"]);
    stage.role("editor", &["invoices:write"]);
    stage
        .declare("billing", "{application: billing, description: Nightly export, roles: [viewer, editor], expiry: {after: 90d}}");
    stage.declare("shop", "{application: shop}");
    stage.declare("leaked", "{application: shop, revoked: true}");
    let billing = stage.wait_issued("billing");
    let shop = stage.wait_issued("shop");
    stage.wait_phase("leaked", Phase::Revoked);
    let (tail, expires) = (
        billing.tail.unwrap(),
        billing.expires_at.unwrap().0.to_string(),
    );

    for word in ["ak", "apikey", "apikeys", "apikeys.claviger.dev"] {
        let shown = stage.kubectl(&["get", word]);
        assert_eq!(
            columns(&shown),
            ["NAME", "PHASE", "READY", "TAIL", "EXPIRES", "AGE"],
            "{word}"
        );
        assert_eq!(shown.lines().count(), 4, "{word}: {shown}");
        let row = row(&shown, "billing");
        assert_eq!(
            row[..5],
            ["billing", "Active", "True", &tail, &expires],
            "{word}"
        );
        assert!(
            row[5].ends_with('s') || row[5].ends_with('m'),
            "an age: {row:?}"
        );
    }
    let shown = stage.kubectl(&["get", "ak"]);
    assert_eq!(row(&shown, "leaked")[..3], ["leaked", "Revoked", "True"]);
    assert!(!shown.contains("<invalid>"), "{shown}");

    let shown = stage.kubectl(&["get", "ak", "-o", "wide"]);
    let wide = [
        "NAME",
        "PHASE",
        "READY",
        "TAIL",
        "ROLES",
        "APPLICATION",
        "EXPIRES",
        "LAST",
        "USED",
        "DESCRIPTION",
        "AGE",
    ];
    assert_eq!(columns(&shown), wide);
    let row = row(&shown, "billing");
    let seen = [
        "billing",
        "Active",
        "True",
        &tail,
        r#"["viewer","editor"]"#,
        "billing",
        &expires,
        "Nightly",
        "export",
    ];
    assert_eq!(row[..9], seen, "{shown}");

    let key_id = shop.key_id.unwrap();
    for (selector, found) in [
        (format!("status.tail={tail}"), "billing"),
        (format!("status.keyId={key_id}"), "shop"),
        ("status.phase=Revoked".to_owned(), "leaked"),
        ("status.phase=Active".to_owned(), "billing shop"),
        ("status.phase!=Active".to_owned(), "leaked"),
        ("spec.application=shop".to_owned(), "leaked shop"),
        (
            "spec.application=shop,status.phase=Active".to_owned(),
            "shop",
        ),
        ("status.tail=AAAAAA".to_owned(), ""),
    ] {
        let names = stage.kubectl(&[
            "get",
            "ak",
            "--field-selector",
            &selector,
            "-o",
            "jsonpath={.items[*].metadata.name}",
        ]);
        assert_eq!(names, found, "{selector}");
    }
    let output = stage.try_kubectl(&["get", "ak", "--field-selector", "spec.owner=x"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("field label not supported: spec.owner"),
        "{said}"
    );

    // People who know no resource look it up.
    let explained = stage.kubectl(&["explain", "apikey.spec.expiry"]);
    for word in [
        "Cannot be changed, added or removed after",
        "after\t<string>",
        "at\t<string>",
        "never\t<boolean>",
    ] {
        assert!(explained.contains(word), "{explained}");
    }
    assert!(operator.stop().success());
}

fn roles_and_policies_are_shown_by_what_they_say() {
    let stage = super::stage("view-definers");
    let _swept = [Swept(&stage, Kind::Role), Swept(&stage, Kind::Policy)];
    let name = |what: &str| format!("{}-{what}", stage.namespace);
    let (viewer, bare, short, open) = (name("viewer"), name("bare"), name("short"), name("open"));
    let viewers = json!({ "title": "Viewer", "description": "Reads", "permissions": ["invoices:read", "invoices:list"] });
    let limits = json!({ "lifetime": { "max": "90d", "default": "30d" }, "rotation": { "maxInterval": "7d" } });
    stage.apply(
        &[
            document(&stage, Part::Role, &viewer, &viewers),
            document(&stage, Part::Role, &bare, &json!({})),
            document(&stage, Part::Policy, &short, &limits),
            document(
                &stage,
                Part::Policy,
                &open,
                &json!({ "lifetime": { "default": "30d" } }),
            ),
            document(&stage, Part::Spec, "billing", &json!({})),
        ]
        .concat(),
    );
    let get = |words: &[&str]| stage.kubectl(&[&["get"], words].concat());

    for word in [
        "akr",
        "apikeyrole",
        "apikeyroles",
        "apikeyroles.claviger.dev",
    ] {
        let shown = get(&[word, &viewer, &bare]);
        assert_eq!(columns(&shown), ["NAME", "TITLE", "AGE"], "{word}");
        assert_eq!(row(&shown, &viewer)[..2], [&viewer, "Viewer"], "{word}");
        assert_eq!(row(&shown, &bare).len(), 2, "{word}: no title: {shown}");
    }
    let shown = get(&["akr", &viewer, "-o", "wide"]);
    assert_eq!(columns(&shown), ["NAME", "TITLE", "PERMISSIONS", "AGE"]);
    assert_eq!(
        row(&shown, &viewer)[..3],
        [&viewer, "Viewer", r#"["invoices:read","invoices:list"]"#],
        "{shown}"
    );

    for word in [
        "akp",
        "apikeypolicy",
        "apikeypolicies",
        "apikeypolicies.claviger.dev",
    ] {
        let shown = get(&[word, &short, &open]);
        assert_eq!(
            columns(&shown),
            ["NAME", "MAX", "LIFETIME", "MAX", "INTERVAL", "AGE"],
            "{word}"
        );
        assert_eq!(row(&shown, &short)[..3], [&short, "90d", "7d"], "{word}");
        assert_eq!(row(&shown, &open).len(), 2, "{word}: no limits: {shown}");
    }

    // One word for all that is Claviger's.
    let all = get(&["claviger", "-o", "name"]);
    for (kind, name) in [
        ("apikeyrole", &viewer),
        ("apikeyrole", &bare),
        ("apikeypolicy", &short),
        ("apikeypolicy", &open),
        ("apikey", &"billing".to_owned()),
    ] {
        let line = format!("{kind}.claviger.dev/{name}");
        assert!(
            all.lines().any(|shown| shown == line),
            "{line} is not in: {all}"
        );
    }

    // People who know no resource look it up.
    for (place, words) in [
        (
            "apikeyrole.spec",
            [
                "permissions <[]string>",
                "title <string>",
                "Editing it changes",
            ],
        ),
        (
            "apikeypolicy.spec",
            [
                "imports <string>",
                "enum: Allowed, Forbidden",
                "the strictest wins",
            ],
        ),
        (
            "apikeypolicy.spec.lifetime",
            ["default <string>", "max <string>", "such as `90d`"],
        ),
        (
            "apikey.spec.rotation",
            [
                "every <string>",
                "overlap <string>",
                "only when `revision` is raised",
            ],
        ),
    ] {
        let explained = stage.kubectl(&["explain", place]);
        let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(explained.contains(word), "{word:?} is not in: {explained}");
        }
    }
}

fn columns(table: &str) -> Vec<&str> {
    table
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect()
}

fn row<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
    let rows = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.into_iter()
        .find(|row| row.first() == Some(&name))
        .unwrap_or_else(|| panic!("{name} is not shown: {table}"))
}
