//! Where a text quotes secrets, however it is written.
//!
//! What a peer or a plugin says back has often been through an encoder: that of URLs (RFC 3986), the escapes of
//! JSON, C and Rust, the character references of HTML, base64 or hexadecimal digits (RFC 4648). All of these can be
//! read back by whoever sees them. So a text is looked through as it is and as each decoder reads it, and as two of
//! them read it one after the other.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::borrow::Cow;
use std::ops::Range;

/// Shorter secrets are found only where they stand as a word of their own: a `1` is in many numbers.
const MIN_PART_CHARS: usize = 4;
/// Shorter secrets are not looked for in base64 and hexadecimal digits: a few of these are in many texts by chance.
const MIN_ENCODED_BYTES: usize = 6;
/// How many decoders one after the other read a text.
const MOST_DECODERS: usize = 2;

/// `&#x10FFFF;` with a few zeros, and `{10FFFF}`.
const LONGEST_REFERENCE: usize = 16;

/// What stands at the start of a text for one character, and how many bytes it takes.
type Decoder = fn(&str) -> Option<(char, usize)>;

/// Each with the character that begins what it decodes.
const DECODERS: [(char, Decoder); 3] = [('%', percent_encoded), ('\\', escape), ('&', reference)];

/// Where `text` quotes one of `secrets`: in order, and without overlaps.
pub(super) fn quotations(secrets: &[String], text: &str) -> Vec<Range<usize>> {
    let mut secrets: Vec<&str> =
        secrets.iter().map(String::as_str).filter(|secret| !secret.is_empty()).collect();
    if secrets.is_empty() {
        return Vec::new();
    }
    // The longest first, since one may be the start of another.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let encoded: Vec<String> = secrets.iter().flat_map(|secret| encodings(secret)).collect();
    let mut found = Vec::new();
    let original = DecodedText { text: text.into(), places: Vec::new() };
    original.search(&secrets, &encoded, MOST_DECODERS, &mut found);
    found.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(found.len());
    for range in found {
        match merged.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// A text as some decoders read it.
struct DecodedText<'t> {
    text: Cow<'t, str>,
    /// Where each byte of it stands in the original, and where that ends; empty for the original itself.
    places: Vec<usize>,
}

impl DecodedText<'_> {
    /// Adds the places of secrets in it, and in what this many decoders more make of it.
    fn search(&self, secrets: &[&str], encoded: &[String], decoders: usize, found: &mut Vec<Range<usize>>) {
        let place = |at: usize| self.places.get(at).copied().unwrap_or(at);
        found.extend(spelt(secrets, &self.text).map(|range| place(range.start)..place(range.end)));
        found.extend(in_digits(encoded, &self.text).map(|range| place(range.start)..place(range.end)));
        if decoders == 0 {
            return;
        }
        for (sign, decoder) in DECODERS {
            if let Some(decoded) = self.decoded(sign, decoder) {
                decoded.search(secrets, encoded, decoders - 1, found);
            }
        }
    }

    /// What a decoder makes of it, if it makes anything else of it.
    fn decoded(&self, sign: char, decoder: Decoder) -> Option<DecodedText<'static>> {
        let first = self.text.match_indices(sign).find(|(at, _)| decoder(&self.text[*at..]).is_some())?.0;
        let (mut text, mut places) =
            (String::with_capacity(self.text.len()), Vec::with_capacity(self.text.len() + 1));
        let mut at = 0;
        while let Some(next) = self.text[at..].chars().next() {
            let decoded = if at >= first && next == sign { decoder(&self.text[at..]) } else { None };
            let (c, length) = decoded.unwrap_or((next, next.len_utf8()));
            let place = self.places.get(at).copied().unwrap_or(at);
            text.push(c);
            places.resize(text.len(), place);
            at += length;
        }
        places.push(self.places.get(at).copied().unwrap_or(at));
        Some(DecodedText { text: text.into(), places })
    }
}

/// Where secrets stand as they are.
fn spelt<'t>(secrets: &[&'t str], text: &'t str) -> impl Iterator<Item = Range<usize>> + use<'t> {
    let secrets: Vec<&str> = secrets.iter().copied().filter(|secret| text.contains(secret)).collect();
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty() && !secrets.is_empty()) {
            let stands_here = |secret: &&&str| {
                rest.starts_with(**secret)
                    && (secret.chars().count() >= MIN_PART_CHARS || is_word(text, at..at + secret.len()))
            };
            let found = secrets.iter().find(stands_here).map(|secret| at..at + secret.len());
            at = match &found {
                Some(range) => range.end,
                None => text.ceil_char_boundary(at + 1),
            };
            if found.is_some() {
                return found;
            }
        }
        None
    })
}

/// Where secrets stand in digits of base64 or hexadecimal ones: all of these, since where they begin and end depends
/// on what was encoded with the secret.
fn in_digits<'t>(encoded: &'t [String], text: &'t str) -> impl Iterator<Item = Range<usize>> + use<'t> {
    let is_other = |c: char| !(c.is_ascii_alphanumeric() || "+/-_=".contains(c));
    encoded.iter().flat_map(move |encoded| text.match_indices(encoded.as_str())).map(move |(at, digits)| {
        let before = text[..at].char_indices().rfind(|(_, c)| is_other(*c));
        let start = before.map_or(0, |(at, c)| at + c.len_utf8());
        let rest = at + digits.len();
        start..text[rest..].find(is_other).map_or(text.len(), |after| rest + after)
    })
}

/// Whether a piece of a text has no letters and digits around it.
fn is_word(text: &str, piece: Range<usize>) -> bool {
    let is_of_a_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    !is_of_a_word(text[..piece.start].chars().next_back()) && !is_of_a_word(text[piece.end..].chars().next())
}

/// What of a secret's base64 and hexadecimal digits does not depend on what was encoded before and after it.
fn encodings(secret: &str) -> Vec<String> {
    if secret.len() < MIN_ENCODED_BYTES {
        return Vec::new();
    }
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut encodings = vec![hex.to_uppercase(), hex];
    for before in 0..3_usize {
        let bytes = [&[0; 2][..before.min(2)], secret.as_bytes()].concat();
        // Six bits a digit.
        let own = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            encodings.push(engine.encode(&bytes)[own.clone()].to_owned());
        }
    }
    encodings.dedup();
    encodings
}

/// `%C3%A9`.
fn percent_encoded(text: &str) -> Option<(char, usize)> {
    let (mut bytes, mut rest) = (Vec::with_capacity(4), text);
    while bytes.len() < 4 {
        let (byte, after) = hex_digits(rest.strip_prefix('%')?, 2)?;
        bytes.push(u8::try_from(byte).ok()?);
        rest = after;
        if let Ok(decoded) = std::str::from_utf8(&bytes) {
            return decoded.chars().next().map(|c| (c, text.len() - rest.len()));
        }
    }
    None
}

/// `&#233;`, `&#xe9;` or `&quot;`.
fn reference(text: &str) -> Option<(char, usize)> {
    let end = text.bytes().take(LONGEST_REFERENCE).position(|byte| byte == b';')?;
    let (name, rest) = (&text[1..end], &text[end + 1..]);
    let c = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)?
        }
    };
    Some((c, text.len() - rest.len()))
}

/// `\n`, `\"`, `\/`, `\\`, `\u00e9`, `\u{e9}` or `\xe9`.
fn escape(text: &str) -> Option<(char, usize)> {
    let mut rest = text.strip_prefix('\\')?.chars();
    let c = match rest.next()? {
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'b' => '\u{8}',
        'f' => '\u{c}',
        '0' => '\0',
        c @ ('\\' | '/' | '"' | '\'') => c,
        'x' => {
            let (code, after) = hex_digits(rest.as_str(), 2)?;
            rest = after.chars();
            char::from_u32(code)?
        }
        'u' if rest.as_str().starts_with('{') => {
            let end = rest.as_str().bytes().take(LONGEST_REFERENCE).position(|byte| byte == b'}')?;
            let digits = &rest.as_str()[1..end];
            rest = rest.as_str()[end + 1..].chars();
            char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
        }
        'u' => {
            let (code, after) = hex_digits(rest.as_str(), 4)?;
            rest = after.chars();
            // The second half of a pair is written as the first.
            let low = after.strip_prefix("\\u").and_then(|after| hex_digits(after, 4));
            match (code, low) {
                (0xd800..=0xdbff, Some((low @ 0xdc00..=0xdfff, after))) => {
                    rest = after.chars();
                    char::from_u32(0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00))?
                }
                _ => char::from_u32(code)?,
            }
        }
        _ => return None,
    };
    Some((c, text.len() - rest.as_str().len()))
}

/// The number that the first digits of a text are, and what follows them.
fn hex_digits(text: &str, count: usize) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(count)?;
    let are_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    are_digits.then(|| u32::from_str_radix(digits, 16).ok())?.map(|number| (number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    /// A text with its quotations taken out.
    fn without(secrets: &[&str], text: &str) -> String {
        let secrets: Vec<String> = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        let mut left = text.to_owned();
        for range in quotations(&secrets, text).into_iter().rev() {
            left.replace_range(range, "***");
        }
        left
    }

    fn of_html(text: &str) -> String {
        text.chars()
            .map(|c| if c.is_alphanumeric() { c.to_string() } else { format!("&#{};", u32::from(c)) })
            .collect()
    }

    fn of_json(text: &str) -> String {
        let quoted = serde_json::to_string(text).expect("a string");
        quoted[1..quoted.len() - 1].to_owned()
    }

    fn of_utf16(text: &str) -> String {
        text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect()
    }

    fn of_url(text: &str) -> String {
        utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
    }

    #[test]
    fn a_secret_is_found_in_whatever_form() {
        let secret = "s3/cr+t=\"é\\k&";
        for quoted in [
            secret.to_owned(),
            of_url(secret),
            of_url(&of_url(secret)),
            of_json(secret),
            of_json(&of_json(secret)),
            of_json(secret).replace('/', "\\/"),
            of_json(secret).replace('+', "\\u002b"),
            of_utf16(secret),
            of_html(secret),
            secret.replace('&', "&amp;").replace('"', "&quot;"),
            secret.escape_default().to_string(),
            STANDARD_NO_PAD.encode(secret),
            URL_SAFE_NO_PAD.encode(secret),
            secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ] {
            assert_eq!(without(&[secret], &format!("<{quoted}>")), "<***>", "{quoted}");
        }
        let basic = STANDARD_NO_PAD.encode(format!("somebody:{secret}"));
        assert_eq!(without(&[secret], &format!("Basic {basic}==, again")), "Basic ***, again");
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in ["100%20 plain", "\\u00 \\ &#; &amp %", "c2VjcmV", "été"] {
            assert_eq!(without(&["s3cr3t", "1"], text), text);
        }
        assert_eq!(without(&["1"], "1, 10, (1) and %31"), "***, 10, (***) and ***");
    }

    proptest! {
        #[test]
        fn no_form_of_a_secret_is_left(
            secret in "\\PC{6,20}", before in "[a-z ]{0,6}", after in "[a-z ]{0,6}", forms in proptest::collection::vec(0..5_u8, 1..3)
        ) {
            let mut quoted = secret.clone();
            for form in forms {
                quoted = match form {
                    0 => of_url(&quoted),
                    1 => of_json(&quoted),
                    2 => of_html(&quoted),
                    3 => of_utf16(&quoted),
                    _ => quoted,
                };
            }
            let left = without(&[&secret], &format!("{before}\u{1f}{quoted}\u{1f}{after}"));
            prop_assert!(!left.contains(&quoted), "{left}");
        }

        #[test]
        fn any_text_is_looked_through(secrets in proptest::collection::vec("\\PC{0,8}", 0..4), text in "[%\\\\&+#;x0-9a-fu{}é\\PC]{0,60}") {
            let found = quotations(&secrets, &text);
            prop_assert!(found.windows(2).all(|two| two[0].end <= two[1].start));
            prop_assert!(found.iter().all(|range| text.get(range.clone()).is_some_and(|quoted| !quoted.is_empty())));
        }
    }
}
