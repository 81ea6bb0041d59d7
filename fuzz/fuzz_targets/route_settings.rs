//! Any request to the forward-auth paths: first line the path, then headers. Nothing passes a route that is not understood.

#![no_main]

use axum::body::Body;
use axum::extract::State;
use claviger::gate::protocols::forward;
use claviger::gate::route::Routes;
use claviger_fuzz::{AUDIENCE, DESK, KEY, contains, header_map, lines, wait};
use http::{Request, Uri};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (path, headers) = lines(data);
    // The settings by themselves.
    let path_text = std::str::from_utf8(path)
        .unwrap_or_default()
        .split('?')
        .next()
        .unwrap_or_default();
    let settings = path_text.split('/').nth(4).unwrap_or_default();
    let (routes, free) = (Routes::new(false), Routes::new(true));
    let read = routes.read(settings);
    assert_eq!(
        read,
        routes.read(settings),
        "what is remembered is what was read"
    );
    match &*read {
        Ok(route) => {
            let audience = route.audience.as_deref().expect("an audience");
            assert!((1..=253).contains(&audience.len()));
            assert_eq!(
                &read,
                &free.read(settings),
                "a gate that asks for less understands it alike"
            );
            let pairs: Vec<_> = form_urlencoded::parse(settings.as_bytes())
                .into_owned()
                .collect();
            assert!(pairs.len() <= 4, "no setting is passed over");
            let one_by_one = pairs.into_iter().collect();
            assert_eq!(
                read,
                routes.of(&one_by_one),
                "as context extensions they mean the same"
            );
        }
        Err(error) => {
            let said = error.to_string();
            assert!(
                !said.contains(KEY),
                "a key in the wrong place is not repeated"
            );
        }
    }
    // The whole request.
    let Ok(uri) = Uri::try_from(path) else { return };
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = header_map(&headers);
    let response = wait(forward(State(DESK.clone()), request));
    let status = response.status().as_u16();
    assert!(matches!(status, 200 | 401 | 403), "{status}");
    assert!(response.headers().contains_key("x-claviger-code"));
    // The realm repeats the audience of the route, whatever that is.
    let repeats = form_urlencoded::parse(settings.as_bytes()).any(|(_, value)| value.contains(KEY));
    for (name, value) in response.headers() {
        assert!(!value.is_empty(), "{name}");
        assert!(
            repeats || !contains(value.as_bytes(), KEY.as_bytes()),
            "{name} shows the key"
        );
    }
    if status == 200 {
        let settings = uri.path().split('/').nth(4).unwrap_or_default();
        let route = DESK.routes.read(settings);
        let route = route
            .as_ref()
            .as_ref()
            .expect("a refused route is never allowed");
        assert_eq!(route.audience.as_deref(), Some(AUDIENCE));
        assert!(
            route
                .permissions
                .as_ref()
                .is_none_or(|needed| needed.holds(|name| name == "invoices:read"))
        );
        assert!(route.organization.is_none(), "the key has none");
        let encoded =
            contains(settings.as_bytes(), b"basic") || contains(settings.as_bytes(), b"query");
        let folded = settings.contains('%') || encoded;
        assert!(
            folded || contains(data, KEY.as_bytes()),
            "nobody passes without the key"
        );
    }
});
