//! What people are told, and how often.

use super::*;

/// What was told since the last time, as `reason` or `reason!` where somebody should act.
fn told(model: &mut Model) -> Vec<String> {
    let mark = |tone| if tone == Tone::Warning { "!" } else { "" };
    std::mem::take(&mut model.told)
        .into_iter()
        .map(|item| item.reason + mark(item.tone))
        .collect()
}

/// Reconciles three times, as events and timers would, and says what was told.
fn tells(model: &mut Model) -> Vec<String> {
    for _ in 0..3 {
        model.reconcile().unwrap();
    }
    told(model)
}

fn nothing() -> Vec<String> {
    Vec::new()
}

#[test]
fn each_turn_of_a_life_is_told_once() {
    let mut model = new(expiring(after("30d")));
    assert_eq!(tells(&mut model), ["Issued"]);
    model.wish(Wish::Template("gold"));
    assert_eq!(tells(&mut model), nothing(), "an edit is no event");
    model.pass(days(23));
    assert_eq!(
        tells(&mut model),
        ["ExpiringSoon!"],
        "7 days before the end"
    );
    model.pass(days(5));
    assert_eq!(tells(&mut model), nothing());
    model.pass(days(1));
    assert_eq!(tells(&mut model), ["ExpiringSoon!"], "a day before the end");
    model.pass(days(1));
    assert_eq!(tells(&mut model), ["Expired"]);
    model.wish(Wish::Revoke);
    assert_eq!(tells(&mut model), ["Revoked"]);
    model.wish(Wish::Template("silver"));
    assert_eq!(
        tells(&mut model),
        nothing(),
        "an edit does not tell it again"
    );
    model.pass(days(1_000));
    assert_eq!(tells(&mut model), nothing());
}

#[test]
fn a_key_is_told_to_expire_soon_at_seven_days_and_at_one() {
    let second = SignedDuration::from_secs(1);
    let usable = |life: &str, left: SignedDuration| {
        let mut model = issued(expiring(after(life)));
        let end = model.world.status().expires_at.unwrap().0;
        model.pass(end.duration_since(model.now()) - left);
        model.reconcile().unwrap();
        let status = model.world.status();
        let usable = status
            .conditions
            .into_iter()
            .find(|one| one.type_ == "Usable")
            .unwrap();
        (usable.status, usable.reason, usable.message)
    };
    let passes = |told: (String, String, String), reason: &str, message: &str| {
        assert_eq!(
            told,
            ("True".to_owned(), reason.to_owned(), message.to_owned())
        );
    };
    passes(usable("90d", days(7) + second), "Active", "the key passes");
    passes(
        usable("90d", days(7)),
        "ExpiringSoon",
        "the key expires within 7 days, at 2027-02-19T12:00:00Z",
    );
    passes(
        usable("90d", days(1) + second),
        "ExpiringSoon",
        "the key expires within 7 days, at 2027-02-19T12:00:00Z",
    );
    passes(
        usable("90d", days(1)),
        "ExpiringSoon",
        "the key expires within a day, at 2027-02-19T12:00:00Z",
    );
    passes(
        usable("90d", second),
        "ExpiringSoon",
        "the key expires within a day, at 2027-02-19T12:00:00Z",
    );
    passes(usable("7d", days(2)), "Active", "the key passes");
    passes(
        usable("7d", days(1)),
        "ExpiringSoon",
        "the key expires within a day, at 2026-11-28T12:00:00Z",
    );
    passes(usable("24h", hours(1)), "Active", "the key passes");
}

#[test]
fn the_moments_of_the_notices_are_waited_for() {
    let mut model = issued(expiring(after("90d")));
    let end = at("2027-02-19T12:00:00Z");
    for due in [end - days(7), end - days(1), end] {
        let (wake, next) = model.reconcile().unwrap();
        assert_eq!((wake, next), (Wake::OnEvent, Some(due)));
        model.pass(due.duration_since(model.now()));
    }
    assert_eq!(
        model.reconcile().unwrap(),
        (Wake::OnEvent, None),
        "and then nothing"
    );
}

#[test]
fn a_refusal_is_told_once_until_it_is_another_one() {
    let mut model = new(ApiKeySpec::default());
    model.refuses = Some(reason::QUOTA_EXCEEDED);
    assert_eq!(tells(&mut model), ["QuotaExceeded!"]);
    model.back_off_passes();
    assert_eq!(
        tells(&mut model),
        nothing(),
        "asked again, and refused for the same reason"
    );
    model.crash();
    assert_eq!(tells(&mut model), nothing(), "also by another controller");
    model.refuses = Some(reason::DELIVERY_REFUSED);
    model.back_off_passes();
    assert_eq!(tells(&mut model), ["DeliveryRefused!"]);
    model.refuses = None;
    model.back_off_passes();
    assert_eq!(tells(&mut model), ["Issued"]);
}

#[test]
fn a_refusal_is_not_forgotten_while_an_older_create_may_still_land() {
    let mut model = announced_twice(ApiKeySpec::default());
    model.refuses = Some(reason::QUOTA_EXCEEDED);
    assert_eq!(tells(&mut model), ["QuotaExceeded!"]);
    model.back_off_passes();
    assert_eq!(tells(&mut model), nothing());
    model.crash();
    assert_eq!(
        tells(&mut model),
        nothing(),
        "also by another controller, which waits"
    );
    let ready = model
        .world
        .status()
        .conditions
        .into_iter()
        .find(|one| one.type_ == "Ready")
        .unwrap();
    assert_eq!(ready.reason, "QuotaExceeded");
    model.grace_passes();
    model.look();
    assert_eq!(
        tell(&model.world, model.now()),
        "ask delivery",
        "and asks before it announces another one"
    );
}

#[test]
fn what_befalls_a_secret_is_told_once_and_that_it_is_well_again_is_not() {
    let mut model = issued(ApiKeySpec::default());
    let delivered = model.there.clone();
    told(&mut model);
    model.there = None;
    assert_eq!(tells(&mut model), ["SecretMissing!"]);
    model.wish(Wish::Template("gold"));
    assert_eq!(
        tells(&mut model),
        nothing(),
        "an edit does not tell it again"
    );
    model.plant_foreign(true);
    assert_eq!(tells(&mut model), ["SecretConflict!"]);
    model.there.clone_from(&delivered);
    assert_eq!(tells(&mut model), nothing());
    model.edit(|secret| secret.key = None);
    assert_eq!(tells(&mut model), ["SecretChanged!"]);
    model.there.clone_from(&delivered);
    assert_eq!(tells(&mut model), nothing());
    model.there = None;
    assert_eq!(
        tells(&mut model),
        ["SecretMissing!"],
        "a second time is news again"
    );
}

#[test]
fn a_revocation_tells_its_reason_and_a_conflict_whose_secret_it_is() {
    let mut model = issued(ApiKeySpec {
        revocation_reason: Some("leaked in a build log".to_owned()),
        ..ApiKeySpec::default()
    });
    model.wish(Wish::Revoke);
    model.reconcile().unwrap();
    assert_eq!(
        model.told.last().unwrap().note,
        "the key was revoked: leaked in a build log"
    );

    let model = withdrawn(ApiKeySpec::default());
    let note = &model.told.last().unwrap().note;
    assert!(
        note.starts_with("Secret team-a/billing exists and does not hold this ApiKey's key"),
        "{note}"
    );
    assert!(
        note.contains("it belongs to Deployment shop (uid deployment-1)"),
        "{note}"
    );
}

#[test]
fn a_clock_that_is_wrong_is_told_once() {
    let mut model = new(expiring(after("30d")));
    model.ahead = hours(1);
    assert_eq!(tells(&mut model), ["ClockDisagrees!"]);
    model.ahead = hours(2);
    assert_eq!(tells(&mut model), nothing());
    model.ahead = SignedDuration::ZERO;
    assert_eq!(tells(&mut model), ["Issued"]);
}

#[test]
fn no_note_is_longer_than_an_event_can_hold_or_cut_within_a_character() {
    let apikey = new(ApiKeySpec::default()).world.apikey;
    let after = |message: String| {
        let mut status = ApiKeyStatus::default();
        let type_ = crate::api::ConditionType::Delivered;
        let statement = crate::api::conditions::Statement {
            type_,
            holds: false,
            reason: reason::DELIVERY_REFUSED,
            message,
        };
        crate::api::conditions::set(&mut status.conditions, statement, Some(1), at(NOON));
        news(&apikey, None, &status).remove(0).note
    };
    assert_eq!(after("x".repeat(1_000)).len(), 1_000);
    assert_eq!(after("x".repeat(1_001)).len(), 1_000);
    assert_eq!(
        after(format!("x{}", "ß".repeat(700))).len(),
        999,
        "ß has two bytes"
    );
    assert_eq!(after("🔑".repeat(300)).len(), 1_000);
    let reason = "🔑".repeat(256);
    let mut model = issued(ApiKeySpec {
        revocation_reason: Some(reason),
        ..ApiKeySpec::default()
    });
    model.wish(Wish::Revoke);
    model.reconcile().unwrap();
    assert!(model.told.last().unwrap().note.len() <= 1_000);
}
