//! Text that others wrote (plugins, peers, files of a plugin folder), on its way into a log, an error or a
//! label.
//!
//! It may not draw on a terminal, forge another line, or fill a disk: [`shown`] gives one line of at most
//! [`MAX_SHOWN_BYTES`] without control characters. How often a text is logged,
//! [`RateLimit`](crate::telemetry::RateLimit) bounds; secrets of a configuration are taken out before, by
//! [`Redacted::told`](crate::config::Redacted::told).

use std::fmt::Write;

/// Longest text that is shown, in bytes, what says that it was cut included.
pub(crate) const MAX_SHOWN_BYTES: usize = 4 << 10;
/// Room for what says that a text was cut: `... (18446744073709551615 bytes)`.
const MARK_BYTES: usize = 32;

/// A text as one line without anything that moves a cursor, changes colours or the direction of writing;
/// what is too long is cut. Showing what was shown before changes nothing.
pub(crate) fn shown(text: &str) -> String {
    let text = text.trim_end_matches(['\n', '\r']);
    let mut line = String::with_capacity(text.len().min(MAX_SHOWN_BYTES));
    // Where the line is cut, if the rest turns out not to fit.
    let mut cut = 0;
    for c in text.chars() {
        if is_plain_char(c) {
            line.push(c);
        } else {
            line.extend(c.escape_default());
        }
        if line.len() <= MAX_SHOWN_BYTES - MARK_BYTES {
            cut = line.len();
        } else if line.len() > MAX_SHOWN_BYTES {
            line.truncate(cut);
            // Writing to a string does not fail.
            let _ = write!(line, "... ({} bytes)", text.len());
            break;
        }
    }
    line
}

/// Whether a text may be shown as it is, such as a name.
pub(crate) fn is_plain(text: &str) -> bool {
    text.len() <= MAX_SHOWN_BYTES && text.chars().all(is_plain_char)
}

fn is_plain_char(c: char) -> bool {
    // Marks of direction, line and paragraph separators, and characters that nobody sees.
    let moves = matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    !c.is_control() && !moves
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_stays_a_line() {
        assert_eq!(shown("plain, \u{e9}t\u{e9} \\n\n"), "plain, \u{e9}t\u{e9} \\n");
        assert_eq!(shown("a\nb\x1b[2J\u{202e}c"), "a\\nb\\u{1b}[2J\\u{202e}c");
        assert_eq!(shown("2030-01-01 INFO forged\r\n\r\n"), "2030-01-01 INFO forged");
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        let whole = "x".repeat(MAX_SHOWN_BYTES);
        assert_eq!(shown(&whole), whole);
        let cut = shown(&"x".repeat(10_000));
        assert!(cut.ends_with("x... (10000 bytes)") && cut.len() <= MAX_SHOWN_BYTES, "{}", cut.len());
    }

    proptest! {
        #[test]
        fn what_is_shown_is_plain_and_stays_as_it_is(text in any::<String>(), times in 1..300_usize) {
            let once = shown(&text.repeat(times));
            prop_assert!(is_plain(&once), "{once:?}");
            prop_assert_eq!(shown(&once), once);
        }
    }
}
