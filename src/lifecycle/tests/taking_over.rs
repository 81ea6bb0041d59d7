//! Keys that exist already: imported from a Secret, by their hash, or adopted.

use super::table::{check, plain};
use super::*;
use crate::api::VersionPhase;
use crate::api::names::{ANNOTATION_ENDED_AT, ANNOTATION_EXPIRES_AT};

const BROUGHT: &[u8] = b"brought along";

fn importing() -> Model {
    when(new(taking_over(from_secret())), |model| {
        model.elsewhere = Some(Hash::of(BROUGHT));
    })
}

/// The name is taken by a Secret that nobody owns.
fn taken() -> Model {
    let mut model = withdrawn(plain());
    model.edit(|secret| secret.owner_references.clear());
    model.back_off_passes();
    model
}

fn held_back(model: &mut Model, on: bool) {
    model.world.rules = Rules {
        hold_minting: on,
        ..Rules::clone(&model.world.rules)
    }
    .into();
}

#[test]
fn a_key_is_copied_from_another_secret() {
    let mut model = importing();
    model.reconcile().unwrap();
    assert_eq!(model.there.as_ref().unwrap().key, Some(Hash::of(BROUGHT)));
    assert_eq!(
        (
            versions(&model).as_str(),
            says(&model, "Delivered").as_str()
        ),
        ("1 Current", "Delivered")
    );
    assert_eq!(
        model.told[0].note,
        "version 1 taken over and delivered into Secret billing"
    );
    model.elsewhere = None;
    assert_eq!(
        model.reconcile().unwrap(),
        (Wake::OnEvent, None),
        "its source does not matter any more"
    );
    model.wish(Wish::Raise);
    model.reconcile().unwrap();
    assert_ne!(
        model.there.as_ref().unwrap().key,
        Some(Hash::of(BROUGHT)),
        "the next version is minted"
    );
    let mut model = importing();
    while model.world.status().newest_announced().is_none() {
        model.apply(plan(&model.world, model.now()).step).unwrap();
    }
    model.crash();
    model.reconcile().unwrap();
    assert_eq!(
        versions(&model),
        "1 Current",
        "after a crash it is read again, and goes on at once"
    );
}

#[test]
fn a_key_of_which_only_the_hash_is_known_is_in_use_at_once() {
    let mut model = new(taking_over(by_hash()));
    model.reconcile().unwrap();
    assert_eq!(
        (model.there.clone(), versions(&model).as_str()),
        (None, "1 Current")
    );
    assert_eq!(
        (
            says(&model, "Ready").as_str(),
            says(&model, "Delivered").as_str()
        ),
        ("Imported", "nothing")
    );
    assert_eq!(heard(&mut model), ["Issued"]);
    assert_eq!(model.reconcile().unwrap(), (Wake::OnEvent, None));
    assert_eq!(
        model.world.secret,
        SecretView::Unknown,
        "and nothing is read"
    );
    model.wish(Wish::Raise);
    model.reconcile().unwrap();
    assert_eq!(
        (
            versions(&model).as_str(),
            says(&model, "Delivered").as_str()
        ),
        ("1 Retiring, 2 Current", "Delivered")
    );
    // Ended, too, without a Secret.
    let mut model = issued(taking_over(by_hash()));
    model.wish(Wish::Revoke);
    model.reconcile().unwrap();
    assert_eq!(
        (
            says(&model, "Usable").as_str(),
            says(&model, "Delivered").as_str()
        ),
        ("!Revoked", "nothing")
    );
}

#[test]
fn what_cannot_be_taken_over_is_told() {
    const MISSING: &str = "write Pending: !Ready(SourceMissing) Stalled(SourceMissing) !Usable(Pending) !Delivered(SourceMissing) = Failed";
    const REFUSED: &str = "write Pending: !Ready(AdoptionRefused) Stalled(AdoptionRefused) !Usable(Pending) !Delivered(AdoptionRefused) = Failed";
    const DUPLICATE: &str = "write Pending: !Ready(DuplicateKey) Stalled(DuplicateKey) !Usable(Pending) !Delivered(DuplicateKey) = Failed";
    const HELD: &str = "write Pending: !Ready(MintingHeld) !Stalled(NotStalled) !Usable(Pending) !Delivered(MintingHeld) = InProgress";
    let ready = |mut model: Model| {
        model.apply(Step::AddFinalizer).unwrap();
        model
    };
    let adopting = |change: fn(&mut Model)| {
        when(taken(), |model| {
            change(model);
            model.wish(Wish::Adopt);
        })
    };
    let twin = |model: &mut Model| model.twin = Some("f".repeat(32));
    check(vec![
        (
            "The source is not there",
            seen(ready(new(taking_over(from_secret())))),
            MISSING,
        ),
        (
            "Nothing is there to be adopted",
            adopting(|model| model.there = None),
            REFUSED,
        ),
        (
            "It is marked as ended",
            adopting(|model| {
                model.edit(|s| {
                    drop(
                        s.annotations
                            .insert(ANNOTATION_ENDED_AT.to_owned(), NOON.to_owned()),
                    );
                });
            }),
            REFUSED,
        ),
        (
            "It belongs to somebody",
            adopting(|model| model.plant_foreign(false)),
            REFUSED,
        ),
        (
            "Another ApiKey has the key",
            when(ready(importing()), twin),
            DUPLICATE,
        ),
        (
            "Another ApiKey has the hash",
            when(ready(new(taking_over(by_hash()))), twin),
            DUPLICATE,
        ),
        (
            "Minting is held: no import",
            when(ready(importing()), |model| held_back(model, true)),
            HELD,
        ),
        (
            "nor by hash",
            when(ready(new(taking_over(by_hash()))), |model| {
                held_back(model, true);
            }),
            HELD,
        ),
        (
            "nor a new key",
            when(ready(new(plain())), |model| held_back(model, true)),
            HELD,
        ),
        (
            "nor an adoption",
            when(adopting(|_| {}), |model| held_back(model, true)),
            HELD,
        ),
        (
            "A key in use that another has, too, is told",
            when(issued(taking_over(by_hash())), twin),
            "write Active: !Ready(DuplicateKey) Stalled(DuplicateKey) Usable(Active) = Failed",
        ),
    ]);
}

#[test]
fn a_hold_keeps_no_key_from_ending_and_no_rotation_from_being_due() {
    let mut model = issued(plain());
    held_back(&mut model, true);
    model.wish(Wish::Raise);
    model.reconcile().unwrap();
    assert_eq!(
        (versions(&model).as_str(), says(&model, "Ready").as_str()),
        ("1 Current", "!MintingHeld")
    );
    let mut released = model.clone();
    held_back(&mut released, false);
    released.reconcile().unwrap();
    assert_eq!(versions(&released), "1 Retiring, 2 Current");
    model.wish(Wish::Revoke);
    model.reconcile().unwrap();
    assert_eq!(says(&model, "Usable"), "!Revoked");
    let mut model = issued(expiring(after("1h")));
    held_back(&mut model, true);
    model.pass(hours(1));
    model.reconcile().unwrap();
    assert_eq!(says(&model, "Usable"), "!Expired");
}

#[test]
fn a_conflict_can_be_ended_by_adopting() {
    let mut model = taken();
    assert_eq!(says(&model, "Ready"), "!SecretConflict");
    let found = model.there.clone().unwrap();
    model.wish(Wish::Adopt);
    model.reconcile().unwrap();
    let there = model.there.clone().unwrap();
    assert_eq!(
        (there.uid.as_str(), there.key),
        (found.uid.as_str(), found.key),
        "the Secret stays, and its key"
    );
    assert_eq!(there.owner_references.len(), 1, "and becomes ours");
    assert_eq!(
        (versions(&model).as_str(), says(&model, "Ready").as_str()),
        ("1 Current", "Issued")
    );
    // Also where an announced version was given up before.
    let mut model = crashed(plain());
    model.grace_passes();
    model.plant_foreign(false);
    model.edit(|secret| secret.owner_references.clear());
    model.reconcile().unwrap();
    model.wish(Wish::Adopt);
    model.reconcile().unwrap();
    assert_eq!(versions(&model), "2 Current");
}

#[test]
fn the_dates_of_an_adopted_secret_can_only_shorten_its_life() {
    let adopted = |spec: ApiKeySpec, ends: &str| {
        let mut model = withdrawn(spec);
        model.edit(|secret| {
            secret.owner_references.clear();
            secret
                .annotations
                .insert(ANNOTATION_EXPIRES_AT.to_owned(), ends.to_owned());
        });
        model.back_off_passes();
        model.wish(Wish::Adopt);
        model.reconcile().unwrap();
        (
            model.world.status().expires_at.map(|time| time.0),
            says(&model, "Usable"),
        )
    };
    let active = || "Active".to_owned();
    let (sooner, later) = ("2026-12-24T00:00:00Z", "2036-12-24T00:00:00Z");
    assert_eq!(
        adopted(plain(), sooner),
        (Some(at(sooner)), active()),
        "what would never end does"
    );
    assert_eq!(
        adopted(expiring(after("90d")), sooner),
        (Some(at(sooner)), active())
    );
    assert_eq!(
        adopted(expiring(after("90d")), later),
        (Some(at(NOON) + days(90)), active())
    );
    assert_eq!(
        adopted(plain(), "2026-11-20T00:00:00Z").1,
        "!Expired",
        "what is over is over"
    );
}

#[test]
fn a_copy_under_our_name_of_a_key_known_by_its_hash_is_ours() {
    let mut model = issued(taking_over(by_hash()));
    model.plant_foreign(true);
    model.edit(|secret| secret.key = Some(Hash::of(BROUGHT)));
    model.reconcile().unwrap();
    assert_eq!(says(&model, "Delivered"), "Delivered");
    assert_eq!(
        model.world.status().versions[0].phase,
        VersionPhase::Current
    );
}
