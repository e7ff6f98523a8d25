//! What stands between the quotes of a JSON string.

use std::borrow::Cow;

/// Whether a checked string, given as what stands between its quotes, says `text`.
#[inline]
pub(super) fn is(string: &[u8], text: &str) -> bool {
    if string.len() == text.len() {
        // An escape is longer than what it stands for, so a string of this length either has none or
        // says something shorter.
        return string.first() == text.as_bytes().first()
            && string == text.as_bytes()
            && !text.contains('\\');
    }
    // The longest escape for the shortest character: `\u0041`.
    string.len() > text.len()
        && string.len() <= text.len() * 6
        && string.contains(&b'\\')
        && unescape(string) == text
}

/// What a checked string says, given as what stands between its quotes.
///
/// Half of a surrogate pair, which no UTF-8 can say, becomes U+FFFD, and so do bytes that are not UTF-8.
pub(super) fn unescape(string: &[u8]) -> Cow<'_, str> {
    if !string.contains(&b'\\') {
        return String::from_utf8_lossy(string);
    }
    let mut text = Vec::with_capacity(string.len());
    let mut rest = string;
    while let Some(backslash) = rest.iter().position(|&byte| byte == b'\\') {
        text.extend_from_slice(&rest[..backslash]);
        let (char, length) = escape(&rest[backslash..]);
        text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[backslash + length..];
    }
    text.extend_from_slice(rest);
    Cow::Owned(String::from_utf8_lossy(&text).into_owned())
}

/// The character of the escape with which `rest` starts, and the length of the escape.
fn escape(rest: &[u8]) -> (char, usize) {
    let simple = match rest.get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_escape(rest),
        Some(&other) => char::from(other),
        None => char::REPLACEMENT_CHARACTER,
    };
    (simple, 2)
}

/// The same for `\uXXXX`, or two of them that make a surrogate pair.
fn unicode_escape(rest: &[u8]) -> (char, usize) {
    let first = unit(rest).unwrap_or(0xfffd);
    if let Some(char) = char::from_u32(first.into()) {
        return (char, 6);
    }
    let second = rest.get(6..).and_then(unit);
    match second.map(|second| char::decode_utf16([first, second]).next()) {
        Some(Some(Ok(char))) => (char, 12),
        _ => (char::REPLACEMENT_CHARACTER, 6),
    }
}

/// The UTF-16 unit of the `\uXXXX` with which `rest` starts, if it does.
fn unit(rest: &[u8]) -> Option<u16> {
    let digits = rest.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_before_strings_are_compared() {
        for (string, text) in [
            (r"plain", "plain"),
            (r"", ""),
            (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r"\u0042TC", "BTC"),
            (r"\u00e9\u00E9", "éé"),
            (r"\ud83d\ude00!", "😀!"),
            (r"a/b", "a/b"),
            (r"a\/b", "a/b"),
        ] {
            assert_eq!(unescape(string.as_bytes()), text);
            assert!(is(string.as_bytes(), text), "{string}");
        }
        assert!(!is(br"\u0042TC", r"\u0042TC"));
        assert!(!is(b"BTCUSD", "BTCUSDT"));
        assert!(!is(b"BTCUSDTX", "BTCUSDT"));
    }

    #[test]
    fn half_a_surrogate_pair_becomes_the_replacement_character() {
        assert_eq!(unescape(br"\ud83d!"), "\u{fffd}!");
        assert_eq!(unescape(br"\ude00\ud83d"), "\u{fffd}\u{fffd}");
        assert_eq!(unescape(br"\ud83d\u0041"), "\u{fffd}A");
    }
}
