//! Paths in spellings that a proxy and an API may read in different ways.

use super::verdicts::{Keys, assert_identity};
use crate::support::client::Question;
use crate::support::proxies::Proxy;

/// Spellings of the report that some API serves.
const REPORTS: [&str; 54] = [
    "/reports",
    "/reports/",
    "/reports/7",
    "/Reports",
    "/REPORTS/7",
    "/rePorts/",
    "/reports.json",
    "/Reports.JSON",
    "/reports.",
    "/reports./",
    "/reports%2ejson",
    "/reports%20",
    "/reports%20/7",
    "/reports%0a",
    "/reports%0A/7",
    "/reports%00",
    "/reports%09",
    "/%20reports",
    "//reports",
    "///reports//7",
    "/./reports",
    "/%72eports",
    "/%2572eports",
    "/%2freports",
    "/reports%2f7",
    "/x/../reports",
    "/x/%2e%2e/reports",
    "/x/..%2freports",
    "/x/.%2E/reports",
    "/orders/../reports",
    "/orders/../Reports.json",
    "/orders/%2e%2e/reports",
    "/orders/..%2freports",
    "/orders/..%2Freports",
    "/orders%2f..%2freports",
    "/orders/7/../../reports",
    "/orders/..;/reports",
    "/orders/..;x=1/reports",
    "/orders/.%2e;/reports",
    "/orders/..%3b/reports",
    "/orders\\..\\reports",
    "/orders/..\\reports",
    "/orders/..%5creports",
    "/orders%5C..%5Creports",
    "/orders/..%255creports",
    "/orders/..%00/reports",
    "/orders//../reports",
    "/orders/./../reports",
    "/reports;x=1",
    "/reports;x=1/7",
    "/;x=1/reports",
    "/reports%3bx=1",
    "/\\reports",
    "/%5creports",
];
/// Paths that look listed and are not, or that an API may take for a report which does not resolve `..`.
const UNLISTED: [&str; 24] = [
    "/ordersx",
    "/orders.json",
    "/orders%20",
    "/orders%0a",
    "/orders;x=1",
    "/orders/;x=1",
    "/orders/7;x=1",
    "/orders/%2e",
    "/orders/..",
    "/orders/.hidden",
    "/x/orders",
    "/reports/../orders",
    "/reports/%2e%2e/orders",
    "/reports/.%2E/orders",
    "/reports/..%2forders",
    "/reports%2f..%2forders",
    "/reports/7/..%2F../orders",
    "/reports/..;/orders",
    "/reports\\..\\orders",
    "/reports/..%5corders",
    "/reports//../../orders",
    "/reports/a;/../../orders",
    "/reports/../orders?x",
    "//orders/../reports/../orders",
];

/// Without the permission nobody gets a report, however the path is spelled. With it, the API learns whose key it is.
pub(super) fn report_needs_its_permission_in_every_spelling(proxy: &Proxy, keys: &Keys) {
    let kind = proxy.kind;
    for path in REPORTS {
        for key in [Some(&keys.narrow), None] {
            let mut question = Question::get(path);
            if let Some(key) = key {
                question = question.bearer(key);
            }
            let answer = proxy.ask(question);
            let seen = proxy.upstream.take();
            assert!(
                seen.is_empty(),
                "{kind}: {path} reached the API without the permission as {}: {answer:?}",
                seen[0].path
            );
            assert!(
                matches!(answer.status, 301 | 307 | 308 | 400 | 401 | 403 | 404),
                "{kind}: {path}: {answer:?}"
            );
        }
        // The key passes, or the proxy itself refuses such a path.
        let answer = proxy.ask(Question::get(path).bearer(&keys.good));
        let seen = proxy.upstream.take();
        assert!(
            matches!(
                (answer.status, seen.len()),
                (200, 1) | (301 | 307 | 308 | 400 | 404, 0)
            ),
            "{kind}: {path}: {answer:?}"
        );
        for seen in seen {
            assert!(
                seen.is_report(),
                "{kind}: {path} is no report of this API: {}",
                seen.path
            );
            assert_identity(proxy, &seen, keys);
        }
    }
}

/// What is not listed needs the permission; where a proxy changes a path, the path that it passes on counts.
pub(super) fn only_listed_paths_need_less(proxy: &Proxy, keys: &Keys) {
    let kind = proxy.kind;
    for path in UNLISTED {
        let answer = proxy.ask(Question::get(path).bearer(&keys.narrow));
        for seen in proxy.upstream.take() {
            assert!(
                !seen.is_report(),
                "{kind}: {path} is a report to the API, as {}",
                seen.path
            );
            assert!(
                seen.path.starts_with("/orders") && !seen.path.contains(['%', ';', '\\']),
                "{kind}: {path} needed no permission, and reached the API as {}",
                seen.path
            );
        }
        assert!(
            matches!(answer.status, 200 | 301 | 307 | 308 | 400 | 403 | 404),
            "{kind}: {path}: {answer:?}"
        );
    }
}
