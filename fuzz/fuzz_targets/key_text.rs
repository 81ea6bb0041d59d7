//! Any bytes as a key: checked, imported, and decided about.

#![no_main]

use claviger::gate::{Ask, Code, MAX_KEY, Needs, Shown, decide};
use claviger::key::{Hash, Key, MAX_LEN, TAIL_LEN, check};
use claviger_fuzz::{DESK, KEY};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let well_formed = std::str::from_utf8(data).is_ok_and(|text| check(text).is_ok());
    if well_formed {
        assert!(data.len() <= MAX_LEN, "fits one block of SHA-256");
        // One character off is not well-formed.
        for place in [0, data.len() / 2, data.len() - 1] {
            let mut off = data.to_vec();
            off[place] = if off[place] == b'z' { b'y' } else { b'z' };
            assert!(
                off == data || !std::str::from_utf8(&off).is_ok_and(|text| check(text).is_ok()),
                "mistyped at {place}"
            );
        }
    }
    match Key::import(data) {
        Ok(key) => {
            assert_eq!(key.expose().as_bytes(), data, "byte for byte");
            assert!(
                data.len() <= MAX_KEY,
                "whatever is imported can be shown to a gate"
            );
            assert!(key.hash().is(&Hash::of(data)));
            assert!(
                !format!("{key:?}").contains(key.expose()),
                "a key does not show itself"
            );
            assert!(key.tail().as_str().len() <= TAIL_LEN);
        }
        Err(error) => {
            let said = error.to_string();
            let text = std::str::from_utf8(data).unwrap_or_default();
            assert!(
                text.len() < 20 || !said.contains(text),
                "an error does not repeat what may be a key"
            );
        }
    }
    let ask = Ask {
        shown: Shown::One(data),
        needs: Needs::default(),
    };
    let verdict = decide(&DESK.index.load(), &ask, 1_800_000_000);
    let expected = match data {
        known if known == KEY.as_bytes() => Code::Valid,
        _ if well_formed => Code::NotFound,
        _ => Code::Malformed,
    };
    assert_eq!(verdict.code, expected);
    assert_eq!(verdict.holder.is_some(), expected == Code::Valid);
});
