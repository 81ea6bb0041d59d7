use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::gate::testing::{apikey, key, role, shown, uid, version};
use crate::watch::Uid;

fn hash(number: usize) -> Hash {
    Hash::of(key(number).as_bytes())
}

#[test]
fn what_is_published_stays_as_it_was() {
    let mut writer = Writer::default();
    writer.apply(&shown(&apikey(1, json!({}))));
    assert!(
        writer.published().load().find(&hash(1)).is_none(),
        "not published yet"
    );
    writer.publish();
    let before = writer.published().load_full();
    writer.remove(Uid::of(&uid(1)));
    writer.apply(&shown(&apikey(2, json!({}))));
    writer.publish();
    assert!(
        before.find(&hash(1)).is_some() && before.find(&hash(2)).is_none(),
        "who holds it sees one state"
    );
    let after = writer.published().load();
    assert!(after.find(&hash(1)).is_none() && after.find(&hash(2)).is_some());
    assert_eq!((before.keys(), after.keys()), (1, 1));
}

#[test]
fn what_a_list_does_not_show_is_gone() {
    let mut writer = Writer::default();
    for number in 1..=3 {
        writer.apply(&shown(&apikey(number, json!({}))));
    }
    let gone = writer.keep_only(&HashSet::from([Uid::of(&uid(1)), Uid::of(&uid(3))]));
    writer.publish();
    assert_eq!(gone, [Uid::of(&uid(2))]);
    let index = writer.published().load_full();
    assert_eq!(
        [1, 2, 3].map(|number| index.find(&hash(number)).is_some()),
        [true, false, true]
    );
}

#[test]
fn a_role_counts_for_all_its_keys_at_once() {
    let mut writer = Writer::default();
    writer.apply(&shown(&apikey(
        1,
        json!({ "spec": { "roles": ["viewer"], "permissions": ["b", "a"] } }),
    )));
    let permissions = |writer: &Writer| {
        writer.publish();
        let holder = writer.published().load().find(&hash(1)).unwrap();
        holder
            .permissions()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(permissions(&writer), ["a", "b"]);
    writer.apply_role(&role("viewer", &["c", "a"]));
    assert_eq!(permissions(&writer), ["a", "b", "c"]);
    writer.apply_role(&role("viewer", &["d"]));
    assert_eq!(permissions(&writer), ["a", "b", "d"]);
    writer.remove_role(Uid::of("viewer"));
    assert_eq!(permissions(&writer), ["a", "b"]);
}

#[test]
fn a_principal_is_told_as_it_was_recorded() {
    for principal in [
        "00000000000000000000000000000001@team-a.claviger.local",
        "somebody@else.example",
        "",
    ] {
        let index = crate::gate::testing::index(
            [apikey(1, json!({ "status": { "principal": principal } }))],
            &[],
        );
        assert_eq!(index.find(&hash(1)).unwrap().entry().principal(), principal);
    }
}

#[test]
fn equal_profiles_are_kept_once() {
    let index = crate::gate::testing::index((1..=3).map(|number| apikey(number, json!({}))), &[]);
    let profile = |number| std::ptr::from_ref(index.find(&hash(number)).unwrap().entry().profile());
    assert_eq!(profile(1), profile(2));
    assert_eq!(profile(1), profile(3));
}

/// What an allocator is asked for: a key with one version, of a profile that others have, too, and a name of 24 letters,
/// which stands in the entry.
#[test]
fn a_key_takes_less_than_three_hundred_bytes() {
    // An `Arc` counts twice, a `Box` costs what is in it; an allocator keeps 8 bytes of each piece and rounds up to 16.
    let piece = |size: usize| (size + 8).next_multiple_of(16).max(32);
    let entry = piece(2 * size_of::<usize>() + size_of::<Entry>());
    let in_tree = size_of::<u64>() + size_of::<Arc<Entry>>();
    // The table by UID is at worst 7/16 full, with a byte for each place.
    let by_uid = (size_of::<Arc<Entry>>() + 1) * 16 / 7;
    assert!(
        entry + in_tree + by_uid < 300,
        "{entry} + {in_tree} + {by_uid}"
    );
}

#[derive(Clone, Debug)]
enum Change {
    Apply { object: usize, versions: Vec<usize> },
    Delete { object: usize },
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let apply = (0..6_usize, prop::collection::vec(0..8_usize, 0..4))
        .prop_map(|(object, versions)| Change::Apply { object, versions });
    let delete = (0..6_usize).prop_map(|object| Change::Delete { object });
    prop::collection::vec(prop_oneof![3 => apply, 1 => delete], 0..40)
}

proptest! {
    /// Whatever happens to ApiKeys, also several with one hash: the index finds what a plain search through all of them finds.
    #[test]
    fn the_index_finds_what_a_search_through_everything_finds(changes in changes()) {
        let mut writer = Writer::default();
        let mut plain: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for change in changes {
            match change {
                Change::Apply { object, versions } => {
                    let listed: Vec<Value> = (1..).zip(&versions).map(|(at, key)| version(at, *key, "Current", Value::Null)).collect();
                    writer.apply(&shown(&apikey(object, json!({ "status": { "versions": listed } }))));
                    if versions.is_empty() { plain.remove(&object); } else { plain.insert(object, versions); }
                }
                Change::Delete { object } => {
                    writer.remove(Uid::of(&uid(object)));
                    plain.remove(&object);
                }
            }
            writer.publish();
            let index = writer.published().load_full();
            prop_assert_eq!(index.keys(), plain.len());
            for key in 0..8 {
                let expected = plain.iter().find(|(_, versions)| versions.contains(&key)).map(|(object, _)| format!("key-{object}"));
                prop_assert_eq!(index.find(&hash(key)).map(|holder| holder.entry().name().to_owned()), expected);
            }
        }
    }
}
