//! The two text formats of metrics.

use std::collections::HashSet;

use axum::http::{HeaderMap, header};

/// The content type of OpenMetrics.
pub(super) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The content type of the Prometheus text format.
pub(super) const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether a client takes OpenMetrics (RFC 9110, section 12.5.1; a quality of 0 means that it does not).
pub(super) fn accepts_openmetrics(headers: &HeaderMap) -> bool {
    let zero = |parameter: &str| {
        let quality = parameter
            .split_once('=')
            .filter(|(name, _)| name.eq_ignore_ascii_case("q"));
        quality.is_some_and(|(_, value)| value.parse() == Ok(0.0_f32))
    };
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts
                .next()
                .is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"))
                && !parts.any(zero)
        })
}

/// Rewrites OpenMetrics as the Prometheus text format 0.0.4. There the name of a counter ends in
/// `_total` in its `HELP` and `TYPE` lines too, and neither units nor the end have a line.
pub(super) fn prometheus(openmetrics: &str) -> String {
    let counters: HashSet<&str> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let mut words = line.splitn(4, ' ');
        match [words.next(), words.next(), words.next(), words.next()] {
            [Some("#"), Some(kind), Some(name), rest] if counters.contains(name) => {
                text.extend(["# ", kind, " ", name, "_total ", rest.unwrap_or_default()]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::{Registry, Unit};

    use super::*;

    #[test]
    fn openmetrics_becomes_the_prometheus_text_format() {
        let mut registry = Registry::with_prefix("x");
        let counter = Counter::<u64>::default();
        counter.inc();
        registry.register("done", "What was done", counter);
        registry.register_with_unit("age", "An age", Unit::Seconds, Gauge::<i64>::default());
        registry.register_with_unit("took", "A time", Unit::Seconds, Histogram::new([0.5]));
        let mut openmetrics = String::new();
        prometheus_client::encoding::text::encode(&mut openmetrics, &registry).unwrap();
        assert!(openmetrics.ends_with("# EOF\n"), "{openmetrics}");
        assert_eq!(
            prometheus(&openmetrics),
            "# HELP x_done_total What was done.\n\
             # TYPE x_done_total counter\n\
             x_done_total 1\n\
             # HELP x_age_seconds An age.\n\
             # TYPE x_age_seconds gauge\n\
             x_age_seconds 0\n\
             # HELP x_took_seconds A time.\n\
             # TYPE x_took_seconds histogram\n\
             x_took_seconds_sum 0.0\n\
             x_took_seconds_count 0\n\
             x_took_seconds_bucket{le=\"0.5\"} 0\n\
             x_took_seconds_bucket{le=\"+Inf\"} 0\n"
        );
    }

    #[test]
    fn openmetrics_is_for_clients_that_accept_it() {
        let accepts = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::ACCEPT, value.parse().unwrap());
            }
            accepts_openmetrics(&headers)
        };
        // What Prometheus 3 sends.
        assert!(accepts(&[
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        ]));
        assert!(accepts(&["text/plain", "Application/OpenMetrics-Text"]));
        for other in [
            &[][..],
            &["*/*"],
            &["text/plain;version=0.0.4"],
            &["application/openmetrics-text; q=0, text/plain"],
            &["application/openmetrics-text;Q=0.000"],
            &["application/openmetrics-textual"],
        ] {
            assert!(!accepts(other), "{other:?}");
        }
    }
}
