//! The name of an ApiKey, where the rest of it stands.

/// The longest name that stands in the entry itself.
const SHORT: usize = 30;

/// A name. Most are short and need no memory of their own, which would be one more place to wait for.
#[derive(Debug)]
pub(super) enum Name {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Box<str>),
}

impl Name {
    pub(super) fn of(text: &str) -> Self {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(text.as_bytes());
                Self::Short { length, bytes }
            }
            _ => Self::Long(text.into()),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Short { length, bytes } => {
                let bytes = bytes.get(..usize::from(*length)).unwrap_or_default();
                std::str::from_utf8(bytes).unwrap_or_default()
            }
            Self::Long(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_as_it_was_whatever_its_length() {
        for text in [
            "",
            "a",
            &"b".repeat(SHORT),
            &"c".repeat(SHORT + 1),
            &"d".repeat(253),
            &"e".repeat(300),
        ] {
            assert_eq!(Name::of(text).as_str(), text);
        }
        assert_eq!(size_of::<Name>(), 32);
    }
}
