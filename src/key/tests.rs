//! What a reader can rely on about keys.

use proptest::prelude::*;

use super::*;

const KNOWN_KEY: &str = "clv_0123456789ABCDEFGHIJKLMNOPQRSTUV2vdtFX";
const KNOWN_HASH: &str = "sha256:0ce72ab5e114200230bc2448b4cdafec01149396695cbe91a160a3624c736d7f";

/// Random bytes that a test chooses.
struct Fixed(Box<dyn FnMut() -> u8>);

impl RandomSource for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), MintError> {
        bytes.fill_with(&mut self.0);
        Ok(())
    }
}

fn mint(prefix: &str) -> Key {
    Key::mint(&prefix.parse().unwrap(), &mut OsRandom).unwrap()
}

#[test]
fn a_known_key_has_the_documented_checksum_and_hash() {
    // Bytes 0, 1, 2 … become the digits in order; the checksum was computed with Python's zlib.crc32.
    let mut next = 0_u8;
    let key = Key::mint(
        &Prefix::default(),
        &mut Fixed(Box::new(move || {
            next += 1;
            next - 1
        })),
    )
    .unwrap();
    assert!(
        key.expose()
            .starts_with("clv_0123456789ABCDEFGHIJKLMNOPQRSTUV"),
        "digits in the order of their values"
    );
    assert_eq!(key.tail().as_str(), &key.expose()[36..]);
    assert_eq!(key.expose(), KNOWN_KEY);
    assert_eq!(key.hash().to_string(), KNOWN_HASH);
}

#[test]
fn the_longest_key_fits_one_sha256_block() {
    assert_eq!(MAX_LEN, 55);
    assert_eq!(mint("abcdefghijklmnop").expose().len(), MAX_LEN);
}

#[test]
fn a_biased_byte_is_thrown_away() {
    let mut bytes = [248_u8, 255, 250, 61].into_iter().cycle();
    let key = Key::mint(
        &Prefix::default(),
        &mut Fixed(Box::new(move || bytes.next().unwrap())),
    )
    .unwrap();
    assert_eq!(&key.expose()[4..36], "z".repeat(32));
}

#[test]
fn a_failing_random_source_is_an_error_and_no_key() {
    struct Dry;
    impl RandomSource for Dry {
        fn fill(&mut self, _: &mut [u8]) -> Result<(), MintError> {
            Err(MintError("dry".into()))
        }
    }
    assert!(Key::mint(&Prefix::default(), &mut Dry).is_err());
    assert!(random_hex_128(&mut Dry).is_err());
}

#[test]
fn debug_of_anything_that_holds_a_key_prints_none_of_it() {
    #[derive(Debug)]
    #[allow(dead_code)]
    struct Holder {
        key: Key,
        list: Vec<Option<Key>>,
    }
    let text = mint("clv").expose().to_owned();
    let mut source = text[4..36]
        .bytes()
        .map(|b| u8::try_from(base62::ALPHABET.iter().position(|a| *a == b).unwrap()).unwrap())
        .collect::<Vec<_>>()
        .into_iter()
        .cycle();
    let mut again = || {
        Key::mint(
            &Prefix::default(),
            &mut Fixed(Box::new({
                let bytes: Vec<u8> = source.by_ref().take(32).collect();
                let mut i = 0;
                move || {
                    i += 1;
                    bytes[(i - 1) % 32]
                }
            })),
        )
        .unwrap()
    };
    let holder = Holder {
        key: again(),
        list: vec![Some(again())],
    };
    assert_eq!(
        holder.key.expose(),
        text,
        "the test holds the key that it looks for"
    );
    for shown in [format!("{holder:?}"), format!("{holder:#?}")] {
        for window in text.as_bytes()[4..].windows(6) {
            assert!(
                !shown.contains(std::str::from_utf8(window).unwrap()),
                "{shown}"
            );
        }
    }
}

/// Chi-squared over 62 digits with 61 degrees of freedom. The sample (32,000 keys, 1,024,000 digits) and the
/// critical value for p = 10⁻⁶ (131.0) were fixed before the first run: one false alarm in a million runs.
#[test]
fn the_random_characters_are_uniform() {
    const KEYS: u32 = 32_000;
    const CRITICAL: f64 = 131.0;
    let mut counts = [0_u32; 128];
    for _ in 0..KEYS {
        let key = mint("clv");
        for byte in key.expose()[4..36].bytes() {
            counts[usize::from(byte)] += 1;
        }
    }
    let expected = f64::from(KEYS * 32) / 62.0;
    let chi_squared: f64 = base62::ALPHABET
        .iter()
        .map(|b| (f64::from(counts[usize::from(*b)]) - expected).powi(2) / expected)
        .sum();
    assert!(chi_squared < CRITICAL, "chi squared {chi_squared}");
}

#[test]
fn prefixes_follow_their_pattern() {
    for good in ["clv", "ab", "a0", "a_b", "abcdefghijklmnop", "a__b"] {
        assert!(good.parse::<Prefix>().is_ok(), "{good}");
    }
    for bad in [
        "",
        "a",
        "A1",
        "1a",
        "_a",
        "a_",
        "a-b",
        "abcdefghijklmnopq",
        "äb",
        "a b",
    ] {
        assert!(bad.parse::<Prefix>().is_err(), "{bad}");
    }
}

#[test]
fn a_key_id_is_32_lower_case_hex_digits() {
    let id = random_hex_128(&mut OsRandom).unwrap();
    assert_eq!(id.len(), 32);
    assert!(
        id.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    );
    assert_eq!(
        random_hex_128(&mut Fixed(Box::new(|| 0))).unwrap(),
        "0".repeat(32),
        "leading zeros are kept"
    );
}

proptest! {
    #[test]
    fn every_minted_key_passes_the_check(prefix in "[a-z][a-z0-9_]{0,14}[a-z0-9]") {
        prop_assert_eq!(check(mint(&prefix).expose()), Ok(()));
    }

    #[test]
    fn no_text_makes_the_check_panic(text in "\\PC*") {
        prop_assert!(check(&text).is_err());
    }

    #[test]
    fn a_hash_reads_back_what_it_wrote(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let hash = Hash::of(&bytes);
        prop_assert_eq!(hash.to_string().parse::<Hash>(), Ok(hash));
        prop_assert!(hash.to_string().to_uppercase().parse::<Hash>().is_err());
    }
}

/// Exhaustive for several keys: every position, every other printable character.
#[test]
fn every_single_character_change_is_rejected() {
    for key in (0..20).map(|_| mint("a_b")) {
        let text = key.expose();
        for (place, old) in text.bytes().enumerate() {
            for new in (b' '..=b'~').filter(|new| *new != old) {
                let mut changed = text.as_bytes().to_vec();
                changed[place] = new;
                let changed = String::from_utf8(changed).unwrap();
                assert!(check(&changed).is_err(), "position {place}");
            }
        }
        assert!(
            check(&text[1..]).is_err()
                && check(&text[..text.len() - 1]).is_err()
                && check(&format!("{text}0")).is_err()
        );
    }
}
