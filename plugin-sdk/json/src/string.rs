//! What stands between the quotes of a JSON string.

use std::borrow::Cow;

/// The most bytes that one byte of text takes in a JSON string: `\u0041`.
const LONGEST_ESCAPE: usize = 6;

/// Whether a checked string, given as what stands between its quotes, says `text`.
#[inline]
pub(crate) fn is(string: &[u8], text: &str) -> bool {
    if string.len() == text.len() {
        // An escape is longer than what it stands for, so a string of this length either has none or
        // says something shorter.
        return string.first() == text.as_bytes().first()
            && string == text.as_bytes()
            && !text.contains('\\');
    }
    string.len() > text.len()
        && string.len() <= text.len() * LONGEST_ESCAPE
        && string.contains(&b'\\')
        && unescape(string).is_some_and(|said| said == text)
}

/// A text as a JSON string.
pub(crate) fn quoted(text: &str) -> Vec<u8> {
    let mut string = vec![b'"'];
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => string.extend([b'\\', byte]),
            0..b' ' => string.extend(format!("\\u{byte:04x}").into_bytes()),
            _ => string.push(byte),
        }
    }
    string.push(b'"');
    string
}

/// What a checked string says, given as what stands between its quotes. `None` if that is no text: half of a
/// surrogate pair, or bytes that are not UTF-8.
pub(crate) fn unescape(string: &[u8]) -> Option<Cow<'_, str>> {
    if !string.contains(&b'\\') {
        return std::str::from_utf8(string).ok().map(Cow::Borrowed);
    }
    let mut text = Vec::with_capacity(string.len());
    if !append(string, &mut text) {
        return None;
    }
    String::from_utf8(text).ok().map(Cow::Owned)
}

/// Appends what a checked string says, given as what stands between its quotes. False if that is no text.
pub(crate) fn append(string: &[u8], text: &mut Vec<u8>) -> bool {
    if std::str::from_utf8(string).is_err() {
        return false;
    }
    let mut rest = string;
    while let Some(backslash) = rest.iter().position(|&byte| byte == b'\\') {
        text.extend_from_slice(&rest[..backslash]);
        let Some((char, length)) = escape(&rest[backslash..]) else { return false };
        text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[backslash + length..];
    }
    text.extend_from_slice(rest);
    true
}

/// The character of the escape with which `rest` starts, and the length of the escape.
fn escape(rest: &[u8]) -> Option<(char, usize)> {
    let simple = match *rest.get(1)? {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(rest),
        other => char::from(other),
    };
    Some((simple, 2))
}

/// The same for `\uXXXX`, or two of them that make a surrogate pair.
fn unicode_escape(rest: &[u8]) -> Option<(char, usize)> {
    let first = unit(rest)?;
    if let Some(char) = char::from_u32(first.into()) {
        return Some((char, LONGEST_ESCAPE));
    }
    let second = unit(rest.get(LONGEST_ESCAPE..)?)?;
    let char = char::decode_utf16([first, second]).next()?.ok()?;
    Some((char, 2 * LONGEST_ESCAPE))
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
            assert_eq!(unescape(string.as_bytes()).as_deref(), Some(text));
            assert!(is(string.as_bytes(), text), "{string}");
        }
        assert!(!is(br"\u0042TC", r"\u0042TC"));
        assert!(!is(b"BTCUSD", "BTCUSDT"));
        assert!(!is(b"BTCUSDTX", "BTCUSDT"));
    }

    #[test]
    fn half_a_surrogate_pair_and_broken_utf8_are_no_text() {
        for string in
            [&br"\ud83d!"[..], br"\ude00\ud83d", br"\ud83d\u0041", br"\ud83dx", b"\xff", br"\n\ud800"]
        {
            assert_eq!(unescape(string), None);
        }
    }
}
