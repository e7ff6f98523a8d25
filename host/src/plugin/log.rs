//! What guests say: lines under the target `guest`, escaped, bounded in length and number.
//!
//! A guest's text is not trusted: it must not be able to draw on a terminal, to forge another line,
//! or to fill a disk.

use crate::foreign_text;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tracing::Level;

/// Lines a second that the plugin of a transform may write in the long run.
const LINES_PER_SECOND: f64 = 100.0;
/// Lines it may write at once.
const BURST_LINES: f64 = 200.0;

/// What the plugin of one transform may still write.
#[derive(Debug)]
pub(super) struct LogBudget {
    lines: f64,
    refilled: Instant,
    held_back: u64,
}

impl Default for LogBudget {
    fn default() -> Self {
        Self { lines: BURST_LINES, refilled: Instant::now(), held_back: 0 }
    }
}

impl LogBudget {
    /// Whether a line may be written now: then the number of lines held back before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let earned = now.saturating_duration_since(self.refilled).as_secs_f64() * LINES_PER_SECOND;
        self.refilled = now;
        self.lines = (self.lines + earned).min(BURST_LINES);
        if self.lines < 1.0 {
            self.held_back += 1;
            return None;
        }
        self.lines -= 1.0;
        Some(std::mem::take(&mut self.held_back))
    }
}

/// Where the lines of one instance go. A cheap handle.
#[derive(Clone, Debug)]
pub(super) struct GuestLog {
    pub(super) pipeline: Arc<str>,
    pub(super) transform: Arc<str>,
    pub(super) plugin: Arc<str>,
    pub(super) budget: Arc<Mutex<LogBudget>>,
}

impl GuestLog {
    /// Writes one line.
    pub(super) fn write(&self, level: Level, text: &str) {
        let taken = self.budget.lock().expect("nothing panics while it is held").take(Instant::now());
        let Some(held_back) = taken else { return };
        let (pipeline, transform, plugin) = (&*self.pipeline, &*self.transform, &*self.plugin);
        if held_back > 0 {
            tracing::warn!(
                target: "guest",
                pipeline, transform, plugin, held_back,
                "lines held back: the plugin writes too many"
            );
        }
        let line = foreign_text::shown(text);
        macro_rules! line {
            ($level:ident) => {
                tracing::event!(target: "guest", Level::$level, pipeline, transform, plugin, "{line}")
            };
        }
        match level {
            Level::TRACE => line!(TRACE),
            Level::DEBUG => line!(DEBUG),
            Level::INFO => line!(INFO),
            Level::WARN => line!(WARN),
            Level::ERROR => line!(ERROR),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_is_held_back_and_told() {
        let mut budget = LogBudget::default();
        let now = Instant::now();
        let written = (0..1000).filter(|_| budget.take(now).is_some()).count();
        assert_eq!(written, 200);
        assert_eq!(budget.take(now + Duration::from_secs(1)), Some(800));
        assert_eq!(budget.take(now + Duration::from_secs(1)), Some(0));
    }
}
