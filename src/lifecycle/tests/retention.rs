//! How long a delivered Secret stays.

use super::model::Fault;
use super::*;
use crate::api::names::{ANNOTATION_COLLECTED, ANNOTATION_ENDED_AT};

fn shown_once() -> Model {
    issued(retained(Retention::UntilCollected))
}

fn ends(model: &mut Model) {
    model.wish(Wish::Revoke);
    model.reconcile().unwrap();
}

#[test]
fn the_secret_of_a_key_goes_with_it_where_it_was_to_stay_no_longer() {
    for expiry in [None, Some(after("1h"))] {
        let mut model = issued(ApiKeySpec {
            expiry: expiry.clone(),
            ..retained(Retention::WhileActive)
        });
        model.keep_a_copy();
        heard(&mut model);
        if expiry.is_none() {
            model.wish(Wish::Revoke);
        } else {
            model.pass(hours(1));
        }
        model.reconcile().unwrap();
        assert_eq!(model.there, None);
        assert_eq!(
            (
                says(&model, "Delivered").as_str(),
                model.world.status().secret_ref
            ),
            ("!Removed", None)
        );
        assert_eq!(
            heard(&mut model).last().map(String::as_str),
            Some("Removed")
        );
        model.put_back();
        model.reconcile().unwrap();
        assert_eq!(model.there, None, "a copy that comes back is removed again");
        assert_eq!(heard(&mut model), Vec::<String>::new());
        model.plant_foreign(true);
        model.reconcile().unwrap();
        assert!(model.there.is_some(), "but nothing that is not ours");
    }
}

#[test]
fn a_secret_that_stays_is_marked_when_its_key_ends() {
    let mut model = issued(ApiKeySpec::default());
    ends(&mut model);
    let mark = |model: &Model| {
        model
            .there
            .as_ref()
            .unwrap()
            .annotations
            .get(ANNOTATION_ENDED_AT)
            .cloned()
    };
    assert_eq!(mark(&model).as_deref(), Some(NOON));
    assert_eq!(model.reconcile().unwrap(), (Wake::OnEvent, None), "once");
    model.edit(|secret| secret.annotations.clear());
    model.world.may_mend = false;
    assert_eq!(
        model.reconcile().unwrap().0,
        Wake::BackOff,
        "somebody keeps taking it off"
    );
    // Delivered without anybody knowing, and ended before it was activated.
    let mut model = held(ApiKeySpec::default());
    model.fault = Some((0, Fault::Late));
    assert!(model.finish().is_err());
    ends(&mut model);
    model.lands();
    model.reconcile().unwrap();
    assert_eq!(mark(&model).as_deref(), Some(NOON));
}

#[test]
fn a_retention_can_be_tightened_after_the_end() {
    let mut model = revoked(ApiKeySpec::default());
    model.wish(Wish::Retain(Retention::WhileActive));
    model.reconcile().unwrap();
    assert_eq!(
        (model.there.clone(), says(&model, "Delivered").as_str()),
        (None, "!Removed")
    );
}

#[test]
fn what_was_collected_is_recorded_then_removed_and_never_looked_for_again() {
    let mut model = shown_once();
    let (_, due) = model.reconcile().unwrap();
    assert_eq!(due, Some(at(NOON) + days(1)), "it waits for a day");
    heard(&mut model);
    model.collect();
    model.look();
    assert_eq!(
        tell(&model.world, model.now()),
        "write Active: Ready(Issued) !Stalled(NotStalled) Usable(Active) !Delivered(Collected) = Current"
    );
    model.reconcile().unwrap();
    assert_eq!(
        (model.there.clone(), heard(&mut model)),
        (None, vec!["Collected".to_owned()])
    );
    assert_eq!(model.reconcile().unwrap(), (Wake::OnEvent, None));
    assert_eq!(model.world.secret, SecretView::Unknown, "without a read");
    assert_eq!(
        (says(&model, "Ready"), says(&model, "Usable")),
        ("Issued".to_owned(), "Active".to_owned())
    );
}

#[test]
fn what_nobody_collects_within_a_day_is_discarded() {
    let mut model = shown_once();
    model.pass(days(1) - SignedDuration::from_secs(1));
    model.reconcile().unwrap();
    assert!(model.there.is_some());
    heard(&mut model);
    model.ahead = days(1);
    assert_eq!(
        model.reconcile().unwrap().0,
        Wake::BackOff,
        "not by a wrong clock"
    );
    assert!(model.there.is_some());
    model.ahead = SignedDuration::ZERO;
    model.pass(SignedDuration::from_secs(1));
    model.reconcile().unwrap();
    assert_eq!(
        (model.there.clone(), heard(&mut model)),
        (None, vec!["Uncollected".to_owned()])
    );
    assert_eq!(
        (says(&model, "Delivered"), says(&model, "Usable")),
        ("!Uncollected".to_owned(), "Active".to_owned())
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
    assert_eq!(
        model.reconcile().unwrap().1,
        Some(at(NOON) + days(2)),
        "the next is shown for a day again"
    );
}

#[test]
fn a_stale_mark_does_not_collect_the_next_version() {
    let mut model = announced_next(retained(Retention::UntilCollected));
    model.collect();
    model.reconcile().unwrap();
    assert_eq!(
        (
            versions(&model).as_str(),
            says(&model, "Delivered").as_str()
        ),
        ("1 Retiring, 2 Current", "Delivered")
    );
    assert!(
        !model
            .there
            .as_ref()
            .unwrap()
            .annotations
            .contains_key(ANNOTATION_COLLECTED)
    );
}

#[test]
fn what_holds_a_secret_back_does_not_hold_back_what_is_said() {
    let mut model = when(shown_once(), |model| {
        model.held_by_others = true;
        model.collect();
    });
    assert_eq!(model.reconcile().unwrap().0, Wake::BackOff);
    let generation = model
        .world
        .apikey
        .metadata
        .generation
        .map(|generation| generation + 1);
    model.apikey().metadata.generation = generation;
    model.reconcile().unwrap();
    assert_eq!(model.world.status().observed_generation, generation);
}

#[test]
fn a_missing_secret_that_is_shown_once_is_told_and_then_discarded() {
    let mut model = when(shown_once(), |model| model.there = None);
    model.reconcile().unwrap();
    assert_eq!(says(&model, "Ready"), "!SecretMissing");
    model.pass(days(1));
    model.reconcile().unwrap();
    assert_eq!(
        (says(&model, "Delivered"), says(&model, "Ready")),
        ("!Uncollected".to_owned(), "Issued".to_owned())
    );
}
