//! Strings of the configuration that must not be shown as they are.

use super::quotation::quotations;
use crate::foreign_text;
use std::borrow::Cow;

/// What stands for a value that is not shown.
pub(super) const HIDDEN: &str = "***";

/// How many bytes of a text one byte of a secret may take, however it is written, twice encoded as a rule.
const MOST_BYTES_FOR_ONE: usize = 12;
/// Shorter lines of a value are not taken for secrets.
const MIN_LINE_BYTES: usize = 4;
/// Shorter words of a value are not either: who takes a value apart may tell them, and many stand in other texts too.
const MIN_WORD_BYTES: usize = 8;

/// A string of the configuration, some of which may have come from `${}` and is never shown.
#[derive(Clone, Default)]
pub struct Redacted {
    pub(super) value: String,
    pub(super) shown: String,
    /// What came from `${}`, one by one.
    pub(super) secrets: Vec<String>,
}

impl Redacted {
    /// A string that may be shown as it is.
    pub fn plain(value: impl Into<String>) -> Self {
        let value = value.into();
        Self { shown: value.clone(), value, secrets: Vec::new() }
    }

    /// A string and how it is shown, with `***` for what came from `${}`.
    pub fn new(value: impl Into<String>, shown: impl Into<String>) -> Self {
        let (value, shown) = (value.into(), shown.into());
        let secrets = hidden_parts(&value, &shown);
        Self { value, shown, secrets }
    }

    /// The secrets of several strings together, of which nothing can be shown.
    pub fn secrets_of<'r>(strings: impl IntoIterator<Item = &'r Self>) -> Self {
        let secrets: Vec<_> = strings.into_iter().flat_map(|string| string.secrets.clone()).collect();
        let shown = if secrets.is_empty() { "" } else { HIDDEN };
        Self { value: String::new(), shown: shown.to_owned(), secrets }
    }

    /// The real value: for the wire, never for a log or an error.
    pub fn expose(&self) -> &str {
        &self.value
    }

    /// The part of the text that may be shown; the rest is `***`.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether all of it may be shown.
    pub fn is_open(&self) -> bool {
        self.value == self.shown
    }

    /// A text of someone who was given the string, such as a plugin that quotes its configuration, with
    /// `***` for each value of it that came from `${}`, in whatever form it is written. Values of less than four
    /// characters are found as whole words only. A text must be looked at before it is cut short, which may cut through a secret.
    pub fn conceal<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let found = quotations(&self.secrets, text);
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut concealed = String::with_capacity(text.len());
        let mut rest = 0;
        for quotation in found {
            concealed.push_str(&text[rest..quotation.start]);
            concealed.push_str(HIDDEN);
            rest = quotation.end;
        }
        concealed.push_str(&text[rest..]);
        Cow::Owned(concealed)
    }

    /// The same as it may be told: one line, of bounded length, as [`foreign_text::shown`] has it.
    pub fn told(&self, text: &str) -> String {
        let longest = self.secrets.iter().map(String::len).max().unwrap_or(0) * MOST_BYTES_FOR_ONE;
        let searched = &text[..text.floor_char_boundary(foreign_text::MAX_SHOWN_BYTES + longest)];
        let concealed = self.conceal(searched);
        if searched.len() == text.len() {
            return foreign_text::shown(&concealed);
        }
        // A secret that was cut in two is not found, and to conceal others may have moved it to the front.
        let end = concealed.floor_char_boundary(concealed.len() - longest.min(concealed.len()));
        foreign_text::shown(&format!("{}...", &concealed[..end]))
    }

    pub(super) fn push(&mut self, text: &str) {
        self.value.push_str(text);
        self.shown.push_str(text);
    }

    pub(super) fn push_hidden(&mut self, value: &str) {
        self.value.push_str(value);
        self.shown.push_str(HIDDEN);
        self.keep_secret(value);
    }

    /// Takes a text for a secret, which [`Self::conceal`] finds.
    pub(super) fn keep_secret(&mut self, value: &str) {
        // Lines and words of a text may be told one by one.
        let lines = value.lines().map(str::trim).filter(|line| line.len() > MIN_LINE_BYTES);
        let words = value.split(is_between_words).filter(|word| word.len() >= MIN_WORD_BYTES);
        let parts = lines.chain(words).filter(|part| part.len() < value.trim().len());
        for part in std::iter::once(value).chain(parts) {
            if !self.secrets.iter().any(|known| known == part) {
                self.secrets.push(part.to_owned());
            }
        }
    }
}

/// What values are taken apart at: `user:password@host`, `Bearer TOKEN`, `a=1&b=2`, JSON, lists and paths.
fn is_between_words(c: char) -> bool {
    c.is_whitespace() || ":@/?&=,;|#\"'`()[]{}<>".contains(c)
}

/// What of a value is hidden where it is shown like this: what stands for each `***`.
fn hidden_parts(value: &str, shown: &str) -> Vec<String> {
    if value == shown {
        return Vec::new();
    }
    let mut open = shown.split(HIDDEN);
    let mut rest = open.next().and_then(|start| value.strip_prefix(start));
    let open: Vec<&str> = open.collect();
    let mut parts = Vec::new();
    for (index, text) in open.iter().enumerate() {
        let found = match rest {
            Some(rest) if index + 1 == open.len() => rest.strip_suffix(text).map(|part| (part, "")),
            Some(rest) => rest.split_once(text),
            None => None,
        };
        rest = found.map(|(_, rest)| rest);
        parts.extend(found.map(|(part, _)| part.to_owned()));
    }
    // Where the two have nothing to do with each other, all of the value is hidden.
    if rest.is_some() && !parts.is_empty() { parts } else { vec![value.to_owned()] }
}

impl PartialEq for Redacted {
    fn eq(&self, other: &Self) -> bool {
        (&self.value, &self.shown) == (&other.value, &other.shown)
    }
}

impl Eq for Redacted {}

impl std::fmt::Debug for Redacted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.shown)
    }
}

impl std::fmt::Display for Redacted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl From<&str> for Redacted {
    fn from(value: &str) -> Self {
        Self::plain(value)
    }
}

impl From<String> for Redacted {
    fn from(value: String) -> Self {
        Self::plain(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_value_is_concealed_as_a_word_and_the_longest_wins() {
        let mut config = Redacted::plain("");
        for secret in ["1", "", "abcd", "abcdef"] {
            config.push_hidden(secret);
        }
        assert_eq!(config.conceal("port 1, not 10: abcdefg abcdé"), "port ***, not 10: ***g ***é");
        assert_eq!(config.conceal("10"), "10");
    }

    #[test]
    fn a_secret_that_is_cut_in_two_is_not_told_in_part() {
        let secret = "0123456789".repeat(10);
        let mut config = Redacted::plain("");
        config.push_hidden(&secret);
        for before in 0..200 {
            let told = config.told(&format!("{}{}", "x".repeat(before), secret.repeat(100)));
            assert!(!told.contains("0123"), "{told}");
        }
        config.push_hidden("-BEGIN-\nMIIline\n-END-");
        assert_eq!(config.told("its second line is MIIline\n"), "its second line is ***");
    }

    #[test]
    fn a_part_of_a_value_is_concealed_where_it_is_a_word_of_it() {
        let mut config = Redacted::plain("");
        config.push_hidden("wss://user:correct-horse@db.example.com/x?key=battery+staple");
        config.push_hidden("Bearer c3RhcGxlIQ==");
        config.push_hidden(r#"{"token":"k-0123456789","kind":"user"}"#);
        for (text, told) in [
            ("no host db.example.com", "no host ***"),
            ("user and correct-horse", "user and ***"),
            ("key battery+staple of a kind", "key *** of a kind"),
            ("c3RhcGxlIQ is no token", "*** is no token"),
            ("got \"k-0123456789\"", "got \"***\""),
            ("a correct horse", "a correct horse"),
        ] {
            assert_eq!(config.conceal(text), told);
        }
    }

    #[test]
    fn hidden_parts_are_told_from_how_a_string_is_shown() {
        let conceal =
            |value: &str, shown: &str, text: &str| Redacted::new(value, shown).conceal(text).into_owned();
        assert_eq!(conceal("Bearer s3cr3t", "Bearer ***", "got s3cr3t"), "got ***");
        assert_eq!(conceal("a=s3cr3t&b=other!", "a=***&b=***!", "s3cr3t other"), "*** ***");
        assert_eq!(conceal("s3cr3t", "", "s3cr3t"), "***");
        assert_eq!(conceal("open", "open", "open"), "open");
    }
}
