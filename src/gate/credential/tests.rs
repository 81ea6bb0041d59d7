use std::collections::BTreeMap;

use super::*;

/// A request: headers in their order, and a query.
#[derive(Default)]
struct Request {
    headers: Vec<(&'static str, &'static str)>,
    query: Option<&'static str>,
    joins: bool,
}

impl Carrier for Request {
    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.headers
            .iter()
            .filter(move |(other, _)| *other == name)
            .map(|(_, value)| value.as_bytes())
    }

    fn query(&self) -> Option<&str> {
        self.query
    }

    fn joins(&self) -> bool {
        self.joins
    }
}

fn look(places: &str, request: &Request) -> String {
    let places: Places = places.parse().unwrap();
    match places.find(request) {
        Found::Nothing => "nothing".to_owned(),
        Found::Unclear(reason) => format!("{reason:?}"),
        Found::One(credential) => format!(
            "{} in {:?}",
            String::from_utf8_lossy(credential.bytes()),
            credential.trace
        ),
    }
}

fn with(headers: &[(&'static str, &'static str)]) -> Request {
    Request {
        headers: headers.to_vec(),
        ..Request::default()
    }
}

#[test]
fn a_key_is_found_where_the_route_looks_for_it() {
    let authorization = |value| with(&[("authorization", value)]);
    for (places, request, expected) in [
        (
            "bearer",
            authorization("Bearer k"),
            "k in Header(\"authorization\")",
        ),
        (
            "bearer",
            authorization("bEARER   k  "),
            "k in Header(\"authorization\")",
        ),
        ("bearer", authorization("Bearerk"), "nothing"),
        ("bearer", authorization("Bearer"), "nothing"),
        ("bearer", authorization("k"), "nothing"),
        ("bearer", authorization("Basic a2V5Og=="), "nothing"),
        (
            "authorization",
            authorization("k"),
            "k in Header(\"authorization\")",
        ),
        ("authorization", authorization("Bearer k"), "nothing"),
        (
            "authorization,bearer",
            authorization("Bearer k"),
            "k in Header(\"authorization\")",
        ),
        (
            "header:X-API-Key",
            with(&[("x-api-key", "k")]),
            "k in Header(\"x-api-key\")",
        ),
        ("header:x-api-key", with(&[("x-api-key", "")]), "nothing"),
        (
            "basic:password",
            authorization("Basic dXNlcjpr"),
            "k in Header(\"authorization\")",
        ),
        (
            "basic:user",
            authorization("Basic azo="),
            "k in Header(\"authorization\")",
        ),
        ("basic:password", authorization("Basic azo="), "nothing"),
        ("basic:password", authorization("Basic %%%"), "Encoding"),
        (
            "basic:password",
            authorization("Basic azo6"),
            ": in Header(\"authorization\")",
        ),
        (
            "cookie:key",
            with(&[("cookie", "a=b; key=k; c=d")]),
            "k in Cookie(\"key\")",
        ),
        (
            "cookie:key",
            with(&[("cookie", "a=b"), ("cookie", "key=k")]),
            "k in Cookie(\"key\")",
        ),
        (
            "cookie:key",
            with(&[("cookie", "key=k; key=l")]),
            "SeveralKeys",
        ),
        (
            "query:key",
            Request {
                query: Some("a=b&key=k%2B"),
                ..Request::default()
            },
            "k+ in Query(\"key\")",
        ),
        (
            "query:key",
            Request {
                query: Some("key=k&key=l"),
                ..Request::default()
            },
            "SeveralKeys",
        ),
        (
            "query:key",
            Request {
                query: Some("&a&key=&%%&=&b"),
                ..Request::default()
            },
            "nothing",
        ),
        (
            "query:key",
            Request {
                query: Some("KEY=k"),
                ..Request::default()
            },
            "nothing",
        ),
    ] {
        assert_eq!(look(places, &request), expected, "{places}");
    }
}

/// Envoy takes parameters away by their names as they are spelled; the API reads them decoded.
#[test]
fn a_parameter_in_another_spelling_is_not_picked() {
    for (query, expected) in [
        ("%6bey=k", "Encoding"),
        ("ke%79=k", "Encoding"),
        ("a=b&%6Bey=k", "Encoding"),
        ("key=&%6bey=k", "SeveralKeys"),
    ] {
        assert_eq!(
            look(
                "query:key",
                &Request {
                    query: Some(query),
                    ..Request::default()
                }
            ),
            expected,
            "{query}"
        );
    }
    assert_eq!(
        look(
            "query:key",
            &Request {
                query: Some("%6bey="),
                ..Request::default()
            }
        ),
        "nothing"
    );
    let beside = Request {
        query: Some("%6bey=k"),
        ..with(&[("x-api-key", "l")])
    };
    assert_eq!(look("header:x-api-key,query:key", &beside), "Encoding");
}

#[test]
fn nothing_is_picked_out_of_several() {
    let twice = with(&[("x-api-key", "a"), ("x-api-key", "b")]);
    assert_eq!(look("header:x-api-key", &twice), "SeveralKeys");
    let both = with(&[("authorization", "Bearer a"), ("x-api-key", "b")]);
    assert_eq!(look("bearer,header:x-api-key", &both), "SeveralKeys");
    assert_eq!(
        look("header:x-api-key", &both),
        "b in Header(\"x-api-key\")",
        "the other is not looked at"
    );
    let other_scheme = with(&[("authorization", "Basic dXNlcjpw"), ("x-api-key", "b")]);
    assert_eq!(
        look("bearer,header:x-api-key", &other_scheme),
        "b in Header(\"x-api-key\")",
        "no key stands there"
    );
    let joined = Request {
        joins: true,
        ..with(&[("x-api-key", "a,b")])
    };
    assert_eq!(
        look("header:x-api-key", &joined),
        "SeveralKeys",
        "Envoy may have joined two"
    );
}

#[test]
fn places_that_cannot_be_meant_are_refused() {
    for text in [
        "",
        "header",
        "header:",
        "header:a b",
        "header:host",
        "header:x-claviger-roles",
        "basic",
        "bearer:x",
        "everywhere",
        "query:",
    ] {
        assert!(text.parse::<Places>().is_err(), "{text}");
    }
    assert!(
        ["bearer"; 9].join(",").parse::<Places>().is_err(),
        "too many"
    );
    let error = "header:clv_1234567890ABCDEFGHIJKLMNOPQRSTUVWXYZ x"
        .parse::<Places>()
        .unwrap_err();
    assert!(
        !error.to_string().contains("1234"),
        "what may be a key is not quoted: {error}"
    );
}

#[test]
fn a_credential_never_shows_its_key() {
    let request = with(&[("x-api-key", "secret-secret")]);
    let places = Places::default();
    let Found::One(credential) = places.find(&request) else {
        panic!("found")
    };
    assert!(!format!("{credential:?}").contains("secret"));
}

#[test]
fn cookies_are_taken_apart_without_guessing() {
    let all = |header: &str| -> BTreeMap<String, String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        cookies(header.as_bytes())
            .map(|(name, value)| (text(name), text(value)))
            .collect()
    };
    let pairs = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    assert_eq!(all("a=b; c=d=e;;x"), pairs(&[("a", "b"), ("c", "d=e")]));
    assert_eq!(all(""), BTreeMap::new());
}
