//! When a key was last used stands in the status that the controller writes, and is none of its business.

use super::matrix::STATUSES;
use super::*;

#[test]
fn a_use_gives_the_controller_nothing_to_do() {
    for (stand, history) in STATUSES {
        let mut model = history(ApiKeySpec::default());
        model.look();
        let before = plan(&model.world, model.now()).step;
        let Some(status) = model.world.apikey.status.clone() else {
            continue;
        };
        let used = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(
            "2026-11-21T11:00:00Z",
        )));
        assert_ne!(used, status.last_used_at, "{stand}");
        model.apikey().status = Some(ApiKeyStatus {
            last_used_at: used.clone(),
            ..status
        });
        model.look();
        let after = plan(&model.world, model.now()).step;
        match (before, after) {
            (Step::WriteStatus(mut before), Step::WriteStatus(after)) => {
                before.last_used_at = used;
                assert_eq!(before, after, "{stand}: what is written says it, too");
            }
            (Step::Announce(before), Step::Announce(after)) => {
                let status = |step: &Announcement| {
                    step.status(Hash::of(b"k"), "tail42", Some("0a".repeat(16)))
                };
                assert_eq!(
                    status(&after).last_used_at,
                    used,
                    "{stand}: what is announced says it, too"
                );
                assert_eq!(
                    ApiKeyStatus {
                        last_used_at: used,
                        ..status(&before)
                    },
                    status(&after),
                    "{stand}"
                );
            }
            (before, after) => assert_eq!(before, after, "{stand}: a use changes no plan"),
        }
    }
}

/// A whole life: every status that is written on the way, the model looks at it, keeps the last use.
#[test]
fn no_write_of_a_status_forgets_the_last_use() {
    let mut model = issued(rotating(Some("30d"), Some("24h")));
    for (wish, time) in [
        (Some(Wish::Raise), hours(1)),
        (None, hours(25)),
        (None, days(31)),
        (None, days(2)),
        (Some(Wish::Revoke), hours(1)),
    ] {
        model.pass(time);
        let used = model.world.status().last_used_at;
        assert!(used.is_some());
        let before = model.world.status();
        if let Some(wish) = wish {
            model.wish(wish);
        }
        model.reconcile().unwrap();
        assert_ne!(model.world.status(), before, "something was written");
        assert_eq!(model.world.status().last_used_at, used);
    }
}
