//! How `tidemill dev` shows messages: on a terminal side by side, before and after, and otherwise in lines of their own.
//!
//! All that fail are to be shown, and so many at once that nothing else could be seen are counted.

use super::relay::{Pair, PairCause};
use crate::foreign_text;
use crate::message::Payload;
use serde_json::Value;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Columns of a terminal that does not say how many it has.
const COLUMNS: usize = 80;
/// Of what both have in common, so much is shown before what differs.
const SHARED_BEFORE: usize = 8;

/// Of the messages that fail in this time so many are shown.
const MOST_FAILED: u64 = 5;
const FAILED_INTERVAL: Duration = Duration::from_secs(1);

const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// Where messages are shown.
pub(super) struct DevDisplay {
    is_terminal: bool,
    failed: FailedCount,
}

/// The messages that have failed since the interval began.
struct FailedCount {
    since: Instant,
    failed: u64,
}

/// What became of a message, in one line.
enum Became {
    Sent(String),
    Failed(String),
    Nothing(&'static str),
}

impl DevDisplay {
    pub(super) fn new() -> Self {
        let failed = FailedCount { since: Instant::now(), failed: 0 };
        Self { is_terminal: io::stdout().is_terminal(), failed }
    }

    /// When it is to be told how many failed that were not shown, if there are any.
    pub(super) fn count_is_due(&self) -> Option<Instant> {
        (self.failed.failed > MOST_FAILED).then(|| self.failed.since + FAILED_INTERVAL)
    }

    /// Tells how many messages failed that were not shown, if there are any.
    pub(super) fn count(&mut self) -> io::Result<()> {
        let unshown = self.failed.begin(Instant::now());
        if unshown == 0 {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        let told = format!("failed  ({unshown} more, which are not shown)");
        if self.is_terminal {
            writeln!(out, "{RED}{told}{PLAIN}")?;
        } else {
            writeln!(out, "{told}")?;
        }
        out.flush()
    }

    /// Shows a message and what became of it.
    pub(super) fn pair(&mut self, pair: &Pair) -> io::Result<()> {
        if !pair.failed.is_empty() {
            let now = Instant::now();
            if self.failed.is_over(now) {
                self.count()?;
            }
            if !self.failed.take() {
                return Ok(());
            }
        }
        let before = match &pair.cause {
            PairCause::Message(payload) => text(payload),
            PairCause::Timer => "(timer)".to_owned(),
            PairCause::Earlier => "(a message before)".to_owned(),
        };
        let became = became(pair);
        let mut out = io::stdout().lock();
        if !self.is_terminal {
            writeln!(out, "before  {before}")?;
            for one in &became {
                match one {
                    Became::Sent(after) => writeln!(out, "after   {after}")?,
                    Became::Failed(why) => writeln!(out, "failed  {why}")?,
                    Became::Nothing(why) => writeln!(out, "        {why}")?,
                }
            }
            return out.flush();
        }
        let columns = terminal_size::terminal_size().map_or(COLUMNS, |(width, _)| width.0.into());
        let half = columns.saturating_sub(3) / 2;
        let mut left = cut(&before, half);
        for one in &became {
            let (colour, right) = match one {
                Became::Sent(after) => (GREEN, differing(&before, after, half)),
                Became::Failed(why) => (RED, cut(why, half)),
                Became::Nothing(why) => (DIM, (*why).to_owned()),
            };
            writeln!(out, "{left:<half$} {DIM}|{PLAIN} {colour}{right}{PLAIN}")?;
            left.clear();
        }
        out.flush()
    }
}

impl FailedCount {
    fn is_over(&self, now: Instant) -> bool {
        now >= self.since + FAILED_INTERVAL
    }

    /// Whether one more is shown.
    fn take(&mut self) -> bool {
        self.failed += 1;
        self.failed <= MOST_FAILED
    }

    /// Begins anew, and says how many were not shown.
    fn begin(&mut self, now: Instant) -> u64 {
        let unshown = self.failed.saturating_sub(MOST_FAILED);
        *self = Self { since: now, failed: 0 };
        unshown
    }
}

fn became(pair: &Pair) -> Vec<Became> {
    let sent = pair.after.iter().map(|payload| Became::Sent(text(payload)));
    let failed = pair.failed.iter().map(|letter| Became::Failed(why(letter)));
    let mut all: Vec<_> = sent.chain(failed).collect();
    if pair.is_waiting {
        all.push(Became::Nothing("(waits)"));
    } else if all.is_empty() {
        all.push(Became::Nothing("(filtered)"));
    }
    all
}

/// A payload in one line that does nothing to a terminal.
fn text(payload: &Payload) -> String {
    payload.as_text().map_or_else(|| format!("({} bytes)", payload.len()), foreign_text::shown)
}

/// Why a dead letter is one.
fn why(letter: &Payload) -> String {
    let letter: Value = serde_json::from_slice(letter.as_bytes()).unwrap_or_default();
    let of = |key: &str| foreign_text::shown(letter[key].as_str().unwrap_or_default());
    format!("{}: {}", of("reason"), of("detail"))
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

/// What came out, from shortly before where it differs on, if it is too long for the whole.
fn differing(before: &str, after: &str, width: usize) -> String {
    if after.chars().count() <= width {
        return after.to_owned();
    }
    let shared = before.chars().zip(after.chars()).take_while(|(one, other)| one == other).count();
    let skipped = shared.saturating_sub(SHARED_BEFORE);
    if skipped == 0 {
        return cut(after, width);
    }
    let rest: String = after.chars().skip(skipped).collect();
    cut(&format!("…{rest}"), width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_shown_from_where_it_differs() {
        assert_eq!(differing("{\"a\":1}", "{\"a\":1,\"b\":2}", 20), "{\"a\":1,\"b\":2}");
        let (before, after) = ("x".repeat(30) + "}", "x".repeat(30) + ",\"b\":2}");
        assert_eq!(differing(&before, &after, 20), "…xxxxxxxx,\"b\":2}");
        assert_eq!(differing(&before, &after, 12), "…xxxxxxxx,\"…");
        assert_eq!(differing("y", &after, 5), "xxxx…");
        assert_eq!(cut("żółw", 4), "żółw");
        assert_eq!(cut("żółwie", 4), "żół…");
    }

    #[test]
    fn of_many_that_fail_at_once_some_are_shown_and_the_rest_is_counted() {
        let start = Instant::now();
        let mut failed = FailedCount { since: start, failed: 0 };
        let shown = (0..1000).filter(|_| failed.take()).count();
        assert_eq!(shown as u64, MOST_FAILED);
        assert!(!failed.is_over(start) && failed.is_over(start + FAILED_INTERVAL));
        assert_eq!(failed.begin(start + FAILED_INTERVAL), 1000 - MOST_FAILED);
        assert!(failed.take());
        assert_eq!(failed.begin(start), 0);
    }

    #[test]
    fn a_message_is_sent_fails_or_comes_to_nothing() {
        let letter = Payload::text(r#"{"reason":"rejected","detail":"no","payload":"x"}"#);
        let pair = |after: Vec<Payload>, failed: Vec<Payload>, is_waiting| Pair {
            cause: PairCause::Message(Payload::text("a\u{1b}")),
            after,
            failed,
            is_waiting,
        };
        let told = |pair: &Pair| {
            let told = became(pair).into_iter().map(|one| match one {
                Became::Sent(text) | Became::Failed(text) => text,
                Became::Nothing(text) => text.to_owned(),
            });
            told.collect::<Vec<_>>()
        };
        assert_eq!(told(&pair(vec![Payload::text("b")], vec![letter], false)), ["b", "rejected: no"]);
        assert_eq!(told(&pair(Vec::new(), Vec::new(), false)), ["(filtered)"]);
        assert_eq!(told(&pair(Vec::new(), Vec::new(), true)), ["(waits)"]);
        assert_eq!(told(&pair(vec![Payload::binary(vec![0; 3])], Vec::new(), false)), ["(3 bytes)"]);
        assert!(!text(&Payload::text("a\u{1b}")).contains('\u{1b}'));
    }
}
