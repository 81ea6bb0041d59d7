//! What of a question may stand in an answer, a log or an error.

/// What may be quoted in a message. A path that was taken for settings may hold a key, and keys have digits or capitals.
pub(super) fn quotable(text: &str) -> &str {
    let harmless = text.len() <= 32
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'-' | b'_' | b':'));
    if harmless { text } else { "..." }
}
