//! Any places and any request: first line the places, second the query, then headers.

#![no_main]

use claviger::gate::Shown;
use claviger::gate::credential::{Carrier, Found, Places, Trace};
use claviger_fuzz::lines;
use libfuzzer_sys::fuzz_target;

#[derive(Clone)]
struct Asked<'a> {
    headers: Vec<(String, &'a [u8])>,
    query: Option<String>,
    joins: bool,
}

impl Carrier for Asked<'_> {
    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.headers
            .iter()
            .filter(move |(own, _)| own == name)
            .map(|(_, value)| *value)
    }

    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    fn joins(&self) -> bool {
        self.joins
    }
}

fuzz_target!(|data: &[u8]| {
    let (places, rest) = data.split_at(
        data.iter()
            .position(|byte| *byte == b'\n')
            .unwrap_or(data.len()),
    );
    let Ok(places) = std::str::from_utf8(places) else {
        return;
    };
    let Ok(places) = places.parse::<Places>() else {
        return;
    };
    let (query, headers) = lines(rest.get(1..).unwrap_or_default());
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| (String::from_utf8_lossy(name).to_ascii_lowercase(), *value))
        .collect();
    let query = std::str::from_utf8(query).ok().map(str::to_owned);
    let asked = Asked {
        headers,
        query,
        joins: data.len().is_multiple_of(2),
    };
    let found = places.find(&asked);
    let Found::One(credential) = &found else {
        return;
    };
    let key = credential.bytes();
    assert!(!key.is_empty(), "nothing is not a key");
    assert!(matches!(found.shown(), Shown::One(shown) if shown == key));
    assert!(
        !asked.joins || !key.contains(&b','),
        "of two headers in one none is picked"
    );
    // It never shows itself: all that is shown is where it stood.
    assert_eq!(
        format!("{credential:?}"),
        format!("Credential {{ trace: {:?}, .. }}", credential.trace)
    );
    // Take away what the trace names, and no key is left.
    let mut left = asked.clone();
    match credential.trace {
        Trace::Header(name) => {
            assert_eq!(
                asked.header(name).count(),
                1,
                "of two headers none is picked"
            );
            left.headers.retain(|(own, _)| own != name);
        }
        Trace::Query(name) => {
            let query = left.query.take().unwrap_or_default();
            let kept = form_urlencoded::parse(query.as_bytes()).filter(|(own, _)| own != name);
            left.query = Some(
                form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(kept)
                    .finish(),
            );
        }
        Trace::Cookie(_) => left.headers.retain(|(own, _)| own != "cookie"),
    }
    assert!(
        matches!(places.find(&left), Found::Nothing),
        "a second key was there"
    );
    // The same key once more in the same place: none is picked.
    let mut twice = asked.clone();
    match credential.trace {
        Trace::Header(name) => {
            let again = asked.headers.iter().filter(|(own, _)| own == name).cloned();
            twice.headers.extend(again);
        }
        Trace::Query(_) => {
            let query = asked.query.clone().unwrap_or_default();
            twice.query = Some(format!("{query}&{query}"));
        }
        Trace::Cookie(_) => {
            let again = asked
                .headers
                .iter()
                .filter(|(own, _)| own == "cookie")
                .cloned();
            twice.headers.extend(again);
        }
    }
    assert!(
        matches!(places.find(&twice), Found::Unclear(_)),
        "one of two was picked"
    );
});
