//! Single situations of a key that lives, and the one thing to do in each.

use super::model::Fault;
use super::*;

// Statuses that rows expect: phase, conditions with their reasons, and what kstatus computes.
const ACTIVE: &str = "write Active: Ready(Issued) !Stalled(NotStalled) Usable(Active) Delivered(Delivered) = Current";
const ENDING: &str = "write Active: Ready(Issued) !Stalled(NotStalled) Usable(ExpiringSoon) Delivered(Delivered) = Current";
const CHANGED: &str = "write Active: !Ready(SecretChanged) Stalled(SecretChanged) Usable(Active) !Delivered(SecretChanged) = Failed";
const MISSING: &str = "write Active: !Ready(SecretMissing) Stalled(SecretMissing) Usable(Active) !Delivered(SecretMissing) = Failed";
const IMMUTABLE: &str = "write Active: !Ready(SecretImmutable) Stalled(SecretImmutable) Usable(Active) Delivered(Delivered) = Failed";
const REPLACED: &str = "write Active: !Ready(SecretConflict) Stalled(SecretConflict) Usable(Active) !Delivered(SecretConflict) = Failed";
const TAKEN: &str = "write Pending: !Ready(SecretConflict) Stalled(SecretConflict) !Usable(Pending) !Delivered(SecretConflict) = Failed";
const NO_ROOM: &str = "write Pending: !Ready(QuotaExceeded) Stalled(QuotaExceeded) !Usable(Pending) !Delivered(QuotaExceeded) = Failed";
const FORBIDDEN: &str = "write Pending: !Ready(DeliveryRefused) Stalled(DeliveryRefused) !Usable(Pending) !Delivered(DeliveryRefused) = Failed";
const LEAVING: &str = "write Pending: !Ready(NamespaceTerminating) !Stalled(NotStalled) !Usable(Pending) !Delivered(NamespaceTerminating) = InProgress";

/// Checks rows of: what a person would say, the world, the next step in words.
#[track_caller]
pub(super) fn check(rows: Vec<(&str, Model, &str)>) {
    let wrong: Vec<_> = rows
        .into_iter()
        .filter_map(|(name, model, expected)| {
            let told = tell(&model.world, model.now());
            (told != expected)
                .then(|| format!("\n{name}:\n  expected: {expected}\n  planned:  {told}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

pub(super) fn plain() -> ApiKeySpec {
    ApiKeySpec::default()
}

/// A create whose answer was lost; the controller still holds the key.
pub(super) fn unanswered(fault: Fault) -> Model {
    when(held(plain()), |model| {
        model.fault = Some((0, fault));
        assert!(model.finish().is_err());
    })
}

/// The world as after a reconciliation.
pub(super) fn after_all(mut model: Model) -> Model {
    model.reconcile().unwrap();
    model
}

pub(super) fn no_finalizer(model: &Model) -> std::sync::Arc<Rules> {
    Rules {
        finalizer: false,
        ..Rules::clone(&model.world.rules)
    }
    .into()
}

/// The API server has just refused the create for `reason`; nothing was reported yet.
fn just_refused(mut model: Model, reason: &'static str) -> Model {
    model.refuses = Some(reason);
    model
        .apply(Step::Deliver {
            version: model.world.status().newest_announced().unwrap().version,
        })
        .unwrap();
    model
}

#[test]
fn a_key_is_announced_then_delivered_then_activated() {
    check(vec![
        (
            "A new ApiKey gets the finalizer first",
            seen(new(plain())),
            "add finalizer",
        ),
        (
            "One that has it already is announced at once",
            when(new(plain()), |model| {
                model.apikey().metadata.finalizers =
                    Some(vec!["claviger.dev/finalizer".to_owned()]);
            }),
            "announce 1",
        ),
        (
            "Where no finalizer is used, too",
            when(new(plain()), |model| {
                model.world.rules = no_finalizer(model);
            }),
            "announce 1",
        ),
        (
            "What was announced is delivered",
            held(plain()),
            "deliver 1",
        ),
        (
            "but not where the finalizer was dropped meanwhile",
            when(held(plain()), |model| {
                model.apikey().metadata.finalizers = None;
            }),
            "add finalizer",
        ),
        (
            "What was delivered is activated",
            {
                let mut model = held(plain());
                model.apply(Step::Deliver { version: 1 }).unwrap();
                model
            },
            ACTIVE,
        ),
        (
            "What was activated is left alone",
            seen(issued(plain())),
            "wait, OnEvent",
        ),
        (
            "One that never expires, said in so many words, is the same",
            seen(issued(expiring(never()))),
            "wait, OnEvent",
        ),
        (
            "One that expires is looked at again in time",
            seen(issued(expiring(after("90d")))),
            "wait, OnEvent, until 2027-02-12T12:00:00Z at the latest",
        ),
        (
            "In its last week its owner is told",
            when(issued(expiring(after("90d"))), |model| model.pass(days(85))),
            ENDING,
        ),
        (
            "A short one when it ends",
            seen(issued(expiring(after("1h")))),
            "wait, OnEvent, until 2026-11-21T13:00:00Z at the latest",
        ),
    ]);
}

#[test]
fn an_unknown_outcome_is_waited_for_and_never_minted_over() {
    check(vec![
        (
            "A create without an answer is tried again with the same key",
            unanswered(Fault::RequestLost),
            "deliver 1",
        ),
        (
            "also where it had landed",
            unanswered(Fault::AnswerLost),
            "deliver 1",
        ),
        (
            "A controller that does not hold the key waits",
            crashed(plain()),
            "wait, WhenSettled",
        ),
        (
            "and not past the end of the key",
            crashed(expiring(after("1h"))),
            "wait, WhenSettled, until 2026-11-21T13:00:00Z at the latest",
        ),
        (
            "What has landed is activated, though it was somebody else who delivered it",
            when(unanswered(Fault::AnswerLost), Model::crash),
            ACTIVE,
        ),
        (
            "A delivered Secret that is about to go was delivered all the same",
            when(unanswered(Fault::AnswerLost), |model| {
                model.crash();
                model.held_by_others = true;
                model.edit(|secret| secret.deleting = true);
            }),
            ACTIVE,
        ),
        (
            "Where nothing can land any more and nothing has, the next number is announced",
            settled(plain()),
            "announce 2",
        ),
        (
            "Where somebody else has the name by then, that is said",
            when(crashed(plain()), |model| {
                model.grace_passes();
                model.plant_foreign(false);
            }),
            TAKEN,
        ),
        (
            "Claiming to be ours helps a stranger's Secret nothing",
            when(crashed(plain()), |model| {
                model.grace_passes();
                model.plant_foreign(true);
            }),
            TAKEN,
        ),
        (
            "Before it has settled, a stranger's Secret proves nothing",
            when(crashed(plain()), |model| model.plant_foreign(true)),
            "wait, WhenSettled",
        ),
        (
            "Of two announced versions the held one is delivered",
            announced_twice(plain()),
            "deliver 2",
        ),
        (
            "Where the first lands after all, it counts",
            when(announced_twice(plain()), |model| {
                model.crash();
                model.there = unanswered(Fault::AnswerLost).there;
            }),
            ACTIVE,
        ),
        (
            "A held key that is not the newest is given up",
            {
                let mut model = announced_twice(plain());
                model.world.outstanding = Outstanding::Held {
                    version: 1,
                    ambiguous: true,
                };
                model
            },
            "wait, WhenSettled",
        ),
    ]);
}

#[test]
fn a_refusal_withdraws_the_announcement_and_is_told() {
    let ambiguous = || {
        let mut model = unanswered(Fault::RequestLost);
        model.refuses = Some(reason::QUOTA_EXCEEDED);
        model.apply(Step::Deliver { version: 1 }).unwrap();
        model
    };
    check(vec![
        (
            "The name is taken",
            just_refused(when(held(plain()), |model| model.plant_foreign(false)), ""),
            TAKEN,
        ),
        (
            "No room",
            just_refused(held(plain()), reason::QUOTA_EXCEEDED),
            NO_ROOM,
        ),
        (
            "Not allowed",
            just_refused(held(plain()), reason::DELIVERY_REFUSED),
            FORBIDDEN,
        ),
        (
            "The namespace is going, and no person is needed",
            just_refused(held(plain()), reason::NAMESPACE_TERMINATING),
            LEAVING,
        ),
        (
            "With a create in the dark, nothing is withdrawn",
            ambiguous(),
            NO_ROOM,
        ),
        (
            "and it is tried again later",
            when(ambiguous(), Model::back_off_passes),
            "deliver 1",
        ),
        (
            "After a refusal there is a pause",
            seen(withdrawn(plain())),
            "wait, BackOff",
        ),
        (
            "after which it is asked first",
            when(withdrawn(plain()), Model::back_off_passes),
            "ask delivery",
        ),
        (
            "and announced only if the answer is yes",
            {
                let mut model = when(withdrawn(plain()), |model| {
                    model.back_off_passes();
                    model.there = None;
                });
                model.apply(Step::AskDelivery).unwrap();
                model
            },
            "announce 1",
        ),
        (
            "If it is no, nothing changes",
            {
                let mut model = when(withdrawn(plain()), Model::back_off_passes);
                model.apply(Step::AskDelivery).unwrap();
                model
            },
            "wait, BackOff",
        ),
        (
            "A controller that knows nothing of the refusal asks, too",
            when(withdrawn(plain()), Model::crash),
            "ask delivery",
        ),
        (
            "A dropped finalizer comes before any question",
            when(withdrawn(plain()), |model| {
                model.crash();
                model.apikey().metadata.finalizers = None;
            }),
            "add finalizer",
        ),
        (
            "An edit while it is refused is observed",
            when(withdrawn(plain()), |model| {
                model.wish(Wish::Template("gold"));
            }),
            TAKEN,
        ),
    ]);
}

#[test]
fn what_may_still_land_stays_listed_and_what_cannot_does_not() {
    let listed = |model: &Model| {
        model
            .world
            .status()
            .versions
            .iter()
            .map(|version| version.version)
            .collect::<Vec<_>>()
    };
    let refused = |model: Model| {
        let mut model = just_refused(model, reason::QUOTA_EXCEEDED);
        model.finish().unwrap();
        model
    };
    assert_eq!(
        listed(&refused(held(plain()))),
        Vec::<i64>::new(),
        "refused, and nothing is in the dark"
    );
    let dark = refused(unanswered(Fault::RequestLost));
    assert_eq!(
        listed(&dark),
        [1],
        "refused, but an earlier create may still land"
    );
    assert_eq!(
        listed(&announced_twice(plain())),
        [1, 2],
        "the first was given up, and may still land"
    );
    assert_eq!(
        listed(&refused(announced_twice(plain()))),
        [1],
        "only what was refused is withdrawn"
    );
    assert_eq!(
        listed(&after_all(announced_twice(plain()))),
        [2],
        "once one is activated, the others have lost"
    );
    let mut many = crashed(plain());
    for _ in 0..20 {
        many.grace_passes();
        many.look();
        many.apply(plan(&many.world, many.now()).step).unwrap();
        many.crash();
        many.look();
    }
    assert_eq!(
        listed(&many),
        (14..=21).collect::<Vec<_>>(),
        "the oldest of many are forgotten"
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn a_delivered_secret_is_kept_and_what_is_wrong_with_it_is_said() {
    let edited = |change: fn(&mut SecretFacts)| {
        when(issued(with_template("gold")), |model| model.edit(change))
    };
    let immutable = || {
        when(issued(with_template("gold")), |model| {
            model.wish(Wish::Template("silver"));
            model.edit(|secret| secret.immutable = true);
        })
    };
    check(vec![
        (
            "It was deleted",
            when(issued(plain()), |model| model.there = None),
            MISSING,
        ),
        (
            "It is being deleted, and still there",
            edited(|secret| secret.deleting = true),
            "wait, OnEvent",
        ),
        (
            "It holds something else",
            edited(|secret| secret.key = Some(Hash::of(b"x"))),
            CHANGED,
        ),
        (
            "It holds nothing",
            edited(|secret| secret.key = None),
            CHANGED,
        ),
        (
            "One of its entries was edited",
            edited(|secret| secret.edited_entries = vec!["HEADER".to_owned()]),
            CHANGED,
        ),
        (
            "It was put back from a copy",
            when(issued(plain()), Model::replace_by_copy),
            ACTIVE,
        ),
        (
            "Its owner is mended afterwards",
            {
                let mut model = when(issued(plain()), Model::replace_by_copy);
                let step = plan(&model.world, model.now()).step;
                model.apply(step).unwrap();
                model
            },
            "mend secret-4: 1 owners",
        ),
        (
            "Somebody else's took its place",
            when(issued(plain()), |model| model.plant_foreign(false)),
            REPLACED,
        ),
        (
            "and claims to be ours",
            when(issued(plain()), |model| model.plant_foreign(true)),
            REPLACED,
        ),
        (
            "Its record was lost",
            when(issued(plain()), |model| {
                model.apikey().status.as_mut().unwrap().secret_ref = None;
            }),
            ACTIVE,
        ),
        (
            "A label was taken off",
            edited(|secret| secret.labels.clear()),
            "mend secret-2: +app.kubernetes.io/managed-by +claviger.dev/apikey +tier",
        ),
        (
            "Further labels and owners are none of our business",
            edited(|secret| {
                secret.labels.insert("team".to_owned(), "a".to_owned());
                secret.annotations.insert("tool".to_owned(), "b".to_owned());
            }),
            "wait, OnEvent",
        ),
        (
            "The template changed",
            when(issued(with_template("gold")), |model| {
                model.wish(Wish::Template("silver"));
            }),
            "mend secret-2: +tier +claviger.dev/applied-template +note data -[]",
        ),
        (
            "It is gone",
            when(issued(with_template("gold")), |model| {
                model.apikey().spec.secret = None;
            }),
            "mend secret-2: -tier -claviger.dev/applied-template -note data -[\"HEADER\"]",
        ),
        (
            "It is new",
            when(issued(plain()), |model| model.wish(Wish::Template("gold"))),
            "mend secret-2: +tier +claviger.dev/applied-template +note data -[]",
        ),
        (
            "The template changed, while somebody keeps undoing what is mended",
            when(issued(with_template("gold")), |model| {
                model.wish(Wish::Template("silver"));
                model.world.may_mend = false;
            }),
            "write Active: !Ready(TemplateUndone) Stalled(TemplateUndone) Usable(Active) Delivered(Delivered) = Failed",
        ),
        (
            "The template changed, and the Secret is immutable: labels and annotations follow",
            immutable(),
            "mend secret-2: +tier +claviger.dev/applied-template +note",
        ),
        (
            "and that its entries cannot is said",
            {
                let mut model = immutable();
                model.apply(plan(&model.world, model.now()).step).unwrap();
                model
            },
            IMMUTABLE,
        ),
        (
            "Immutable alone is fine",
            edited(|secret| secret.immutable = true),
            "wait, OnEvent",
        ),
        (
            "What the template put there is unknown",
            when(issued(with_template("gold")), Model::spoil_template),
            "mend secret-2: +claviger.dev/applied-template data -[]",
        ),
        (
            "The finalizer was dropped",
            when(issued(plain()), |model| {
                model.apikey().metadata.finalizers = None;
            }),
            "add finalizer",
        ),
        (
            "A description changed",
            when(issued(plain()), |model| {
                model.apikey().metadata.generation = Some(2);
            }),
            ACTIVE,
        ),
        (
            "After all was undone",
            {
                let mut model = after_all(edited(|secret| secret.key = None));
                let key = model.world.status().hash.unwrap().parse().unwrap();
                model.edit(|secret| secret.key = Some(key));
                seen(model)
            },
            ACTIVE,
        ),
    ]);
}
