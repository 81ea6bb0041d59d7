//! Any text as what a route needs.

#![no_main]

use claviger::gate::permission::Expression;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(expression) = text.parse::<Expression>() else {
        return;
    };
    assert_eq!(expression.as_str(), text);
    assert!(text.len() <= Expression::MAX_LEN);
    let names: Vec<&str> = expression.names().collect();
    assert!(!names.is_empty());
    assert!(
        expression.holds(|_| true),
        "who may do everything may do this"
    );
    assert!(!expression.holds(|_| false), "who may do nothing may not");
    assert!(
        expression.holds(|asked| names.contains(&asked)),
        "nothing is asked for but its names"
    );
    // More permissions never take a right away.
    let mut held = false;
    for count in 0..=names.len() {
        let holds = expression.holds(|asked| names[..count].contains(&asked));
        assert!(holds || !held, "lost by the permission {count}");
        held = holds;
    }
    // Spaces between words mean nothing, and parentheses around the whole change nothing.
    if text.len() + 4 <= Expression::MAX_LEN
        && let Ok(wrapped) = format!("( {text} )").parse::<Expression>()
    {
        for name in &names {
            let alone = |asked: &str| asked == *name;
            assert_eq!(expression.holds(alone), wrapped.holds(alone), "{name}");
        }
    }
});
