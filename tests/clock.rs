//! What clocks do, and what they cannot do. The controller runs in this process with a clock that the story sets; where the API
//! server's clock has to go along, a proxy shifts the `Date` of its answers.

use claviger::api::conditions::find;
use claviger::api::{ApiKey, ApiKeyStatus, ConditionType, Phase};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::stories;
use crate::support::inprocess::{Hands, InProcess};
use crate::support::proxy::Proxy;
use crate::support::stage::{Stage, condition};
use crate::support::wait;

stories![
    a_key_expires_at_its_second_and_not_before,
    a_key_due_in_years_is_not_forgotten,
    an_owner_is_told_seven_days_and_one_day_before_the_end,
    a_clock_that_steps_back_revives_nothing,
    a_clock_that_jumps_ahead_expires_nothing_and_issues_nothing_that_expires,
    rotations_that_are_overdue_after_an_outage_are_spread,
];

/// Incidents 19, 69: the clock stands one second before the end, then at the end.
fn a_key_expires_at_its_second_and_not_before() {
    let (stage, proxy, clock) = stage("second");
    let _controller = InProcess::start(&stage, &proxy, clock.clone());
    stage.declare("k", "{expiry: {after: 1h}}");
    let end = stage.wait_issued("k").expires_at.unwrap().0;
    set(&proxy, &clock, end - SignedDuration::from_secs(1));
    look_again(&stage, "k");
    assert_eq!(
        stage.status("k").phase,
        Some(Phase::Active),
        "a second is left"
    );
    set(&proxy, &clock, end);
    // Nobody calls: the nap towards the end, begun a second before it, is over in a second.
    let status = stage.wait_phase("k", Phase::Expired);
    assert_eq!(status.expired_at.unwrap().0, end, "at the second");
    assert_eq!(
        condition(&stage.status("k"), ConditionType::Usable),
        "False/Expired"
    );
}

/// Incidents 19, 70: no timer runs for years, so none can overflow, and what is due then is still done.
fn a_key_due_in_years_is_not_forgotten() {
    let (stage, proxy, clock) = stage("years");
    let _controller = InProcess::start(&stage, &proxy, clock.clone());
    let lifetimes = [
        ("one", "365d"),
        ("two", "104w"),
        ("five", "1826d"),
        ("ten", "520w"),
        ("longest", "99999w"),
    ];
    for (name, after) in lifetimes {
        stage.declare(name, &format!("{{expiry: {{after: {after}}}}}"));
    }
    for (name, _) in lifetimes {
        stage.wait_issued(name);
    }
    let end = stage.status("two").expires_at.unwrap().0;
    set(&proxy, &clock, end - SignedDuration::from_secs(1));
    look_again(&stage, "two");
    assert_eq!(stage.status("two").phase, Some(Phase::Active));
    set(&proxy, &clock, end);
    stage.wait_phase("two", Phase::Expired);
    look_again(&stage, "one");
    stage.wait_phase("one", Phase::Expired);
    for name in ["five", "ten", "longest"] {
        look_again(&stage, name);
        assert_eq!(
            stage.status(name).phase,
            Some(Phase::Active),
            "{name} lives on"
        );
    }
}

/// The notices come by themselves, once each, and the key passes on.
fn an_owner_is_told_seven_days_and_one_day_before_the_end() {
    let (stage, proxy, clock) = stage("notice");
    let _controller = InProcess::start(&stage, &proxy, clock.clone());
    stage.declare("k", "{expiry: {after: 30d}}");
    let end = stage.wait_issued("k").expires_at.unwrap().0;
    for (days, words) in [(7, "within 7 days"), (1, "within a day")] {
        let notice = end - SignedDuration::from_hours(24 * days);
        set(&proxy, &clock, notice - SignedDuration::from_secs(1));
        look_again(&stage, "k");
        let told = |status: &ApiKeyStatus| {
            find(&status.conditions, ConditionType::Usable)
                .is_some_and(|usable| usable.message.contains(words))
        };
        assert!(!told(&stage.status("k")), "not yet: {words}");
        set(&proxy, &clock, notice);
        let status = stage.wait("k", words, told);
        assert_eq!(
            condition(&status, ConditionType::Usable),
            "True/ExpiringSoon"
        );
    }
    stage.wait_event("k", "ExpiringSoon");
}

/// Incidents 18: what has expired stays expired, also for a controller that starts with the wrong time.
fn a_clock_that_steps_back_revives_nothing() {
    let (stage, proxy, clock) = stage("back");
    let controller = InProcess::start(&stage, &proxy, clock.clone());
    stage.declare("k", "{expiry: {after: 2s}}");
    let expired = stage.wait_phase("k", Phase::Expired);
    set(
        &proxy,
        &clock,
        Timestamp::now() - SignedDuration::from_hours(24),
    );
    look_again(&stage, "k");
    assert_eq!(stage.status("k").phase, Some(Phase::Expired));
    controller.stop().unwrap();
    let _controller = InProcess::start(&stage, &proxy, clock);
    look_again(&stage, "k");
    let after = stage.status("k");
    assert_eq!(
        (after.phase, after.hash, after.expired_at),
        (Some(Phase::Expired), expired.hash, expired.expired_at)
    );
}

/// A machine that believes it is ten years later must not end keys, nor fix the end of new ones by its clock.
fn a_clock_that_jumps_ahead_expires_nothing_and_issues_nothing_that_expires() {
    let (stage, proxy, clock) = stage("ahead");
    let _controller = InProcess::start(&stage, &proxy, clock.clone());
    stage.declare("old", "{expiry: {after: 1h}}");
    stage.wait_issued("old");
    clock.run_ahead(SignedDuration::from_hours(24 * 3_650));
    look_again(&stage, "old");
    assert_eq!(stage.status("old").phase, Some(Phase::Active));
    stage.declare("new", "{expiry: {after: 1h}}");
    let status = stage.wait_reason("new", ConditionType::Ready, "ClockDisagrees");
    assert!(
        status.versions.is_empty() && status.expires_at.is_none(),
        "nothing was minted: {status:?}"
    );
    stage.declare("forever", "{}");
    stage.wait_issued("forever");
    assert_eq!(
        stage.status("old").phase,
        Some(Phase::Active),
        "and the old one still is"
    );
    clock.run_ahead(SignedDuration::ZERO);
    let status = stage.wait_issued("new");
    let lifetime = status
        .expires_at
        .unwrap()
        .0
        .duration_since(Timestamp::now());
    assert!(
        lifetime <= SignedDuration::from_hours(1),
        "by the right clock: {lifetime}"
    );
}

/// Incidents 20: many keys with one time of rotation, and nobody worked when it came. They are not rotated at once; each key has a
/// moment of its own within the next ten minutes, and by then all are.
fn rotations_that_are_overdue_after_an_outage_are_spread() {
    const KEYS: usize = 40;
    const MINUTES: i64 = 10;
    let (stage, proxy, clock) = stage("spread");
    let controller = InProcess::start(&stage, &proxy, clock.clone());
    stage.declare_many(
        "key",
        KEYS,
        r#"{"rotation": {"every": "30d", "overlap": "1h"}}"#,
    );
    stage.wait_many(KEYS, Phase::Active);
    let planned = |status: &ApiKeyStatus| status.rotates_at.clone().unwrap().0;
    let due = stage
        .apikeys()
        .iter()
        .map(|apikey| planned(apikey.status.as_ref().unwrap()))
        .max()
        .unwrap();
    controller.stop().unwrap();

    let back = due + SignedDuration::from_hours(48);
    set(&proxy, &clock, back);
    let _controller = InProcess::start(&stage, &proxy, clock.clone());
    let mut rotated = Vec::new();
    for minute in 0..=MINUTES {
        set(&proxy, &clock, back + SignedDuration::from_mins(minute));
        look_at_all(&stage);
        rotated.push(
            stage
                .apikeys()
                .iter()
                .filter(|apikey| apikey.status.as_ref().unwrap().version == Some(2))
                .count(),
        );
    }
    println!("rotated after each minute, of {KEYS}: {rotated:?}");
    assert!(
        rotated[0] <= KEYS / 10,
        "they are not rotated at once: {rotated:?}"
    );
    assert_eq!(
        rotated[rotated.len() - 1],
        KEYS,
        "after ten minutes all are: {rotated:?}"
    );
    let most = rotated
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap();
    assert!(most <= KEYS / 2, "no minute has many: {rotated:?}");
    for apikey in stage.apikeys() {
        let status = apikey.status.unwrap();
        let activated = status.versions[1].activated_at.clone().unwrap().0;
        assert!(
            activated >= back && activated <= back + SignedDuration::from_mins(MINUTES),
            "{activated}"
        );
        let wait = planned(&status).duration_since(activated);
        assert!(
            wait >= SignedDuration::from_hours(27 * 24),
            "and the next one is a month away: {wait:?}"
        );
    }
}

/// Makes the controller look at every ApiKey, and waits until it has and nothing is under way.
fn look_at_all(stage: &Stage) {
    let before = stage.apikeys();
    for apikey in &before {
        let generation = apikey.metadata.generation.unwrap();
        stage.merge(
            apikey.metadata.name.as_deref().unwrap(),
            json!({ "spec": { "owner": format!("owner {generation}") } }),
        );
    }
    wait::until("all were looked at", || {
        let looked = |apikey: &ApiKey| {
            let status = apikey.status.clone().unwrap_or_default();
            status.observed_generation == apikey.metadata.generation
                && condition(&status, ConditionType::Ready) == "True/Issued"
        };
        let left = stage
            .apikeys()
            .into_iter()
            .filter(|apikey| !looked(apikey))
            .count();
        if left == 0 {
            Ok(())
        } else {
            Err(format!("{left} are left"))
        }
    });
}

/// A stage, a proxy before its API server, and a clock for its controllers.
pub(crate) fn stage(name: &str) -> (Stage, Proxy, Hands) {
    let stage = Stage::new(&format!("clock-{name}"));
    let proxy = stage.cluster.proxy();
    (stage, proxy, Hands::right())
}

/// Sets both clocks: ours stands at `moment`, and the API server's answers say so, too.
pub(crate) fn set(proxy: &Proxy, clock: &Hands, moment: Timestamp) {
    proxy.shift_date(moment.duration_since(Timestamp::now()).as_secs());
    clock.stand_at(moment);
}

/// Makes the controller look at an ApiKey, and waits until it has: a change of the spec is always answered in the status.
pub(crate) fn look_again(stage: &Stage, name: &str) {
    let generation = stage.apikey(name).metadata.generation.unwrap();
    stage.patch(
        &format!("apikey/{name}"),
        &format!("{{\"spec\": {{\"owner\": \"owner {generation}\"}}}}"),
    );
    stage.wait(name, "was looked at", |status| {
        status.observed_generation > Some(generation)
    });
}
