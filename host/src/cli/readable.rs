//! What the HTTP API answers, as people read it: ages, counts, and texts that fit into a table.

use crate::foreign_text;
use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A text; "" for anything else.
pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The beginning of a text as one line without control characters.
pub(super) fn beginning(text: &str, characters: usize) -> String {
    let line = foreign_text::shown(text);
    match line.char_indices().nth(characters) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// How long ago something was, in milliseconds since the Unix epoch.
pub(super) fn since(ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ago(now.saturating_sub(Duration::from_millis(ms)))
}

/// How long ago something was that is told as a time of RFC 3339.
pub(super) fn since_time(time: &str) -> String {
    let ms = time.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_millisecond);
    ms.ok().and_then(|ms| u64::try_from(ms).ok()).map_or_else(String::new, since)
}

fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_the_unit_that_fits() {
        let told = [5, 59, 60, 3599, 3600, 172_799, 172_800].map(|seconds| ago(Duration::from_secs(seconds)));
        assert_eq!(
            told,
            ["5 s ago", "59 s ago", "1 min ago", "59 min ago", "1 h ago", "47 h ago", "2 days ago"]
        );
        assert!(since_time("1970-01-02T00:00:00.5Z").ends_with(" days ago"));
        assert_eq!(since_time("yesterday"), "");
    }

    #[test]
    fn a_long_text_is_cut_and_stays_one_line() {
        assert_eq!(beginning("a\nb", 40), "a\\nb");
        assert_eq!(beginning("\u{17c}\u{17c}\u{17c}", 2), "\u{17c}\u{17c}...");
    }
}
