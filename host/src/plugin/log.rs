//! What guests say: lines under the target `guest`, escaped, without the secrets they were given, bounded in
//! length and number; and what they said last, for the fault that follows.
//!
//! A guest's text is not trusted: it must not be able to draw on a terminal, to forge another line,
//! or to fill a disk.

use super::kind::PluginKind;
use super::last_words::LastWords;
use crate::config::Redacted;
use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::Level;

/// Lines a second that the plugin of a transform may write in the long run.
const LINES_PER_SECOND: f64 = 100.0;
/// Lines it may write at once.
const BURST_LINES: f64 = 200.0;

/// Between two lines that tell how many were held back: a plugin that goes on without end has one of its own let
/// through every 10 ms.
const TOLD_INTERVAL: Duration = Duration::from_secs(1);

/// What the plugin of one transform may still write.
#[derive(Debug)]
pub(super) struct LogBudget {
    lines: f64,
    refilled: Instant,
    held_back: u64,
    /// When it was last told that lines were held back.
    told: Option<Instant>,
}

impl Default for LogBudget {
    fn default() -> Self {
        Self { lines: BURST_LINES, refilled: Instant::now(), held_back: 0, told: None }
    }
}

impl LogBudget {
    /// Whether a line may be written now: then the number of lines held back before it, if that is to be told.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let earned = now.saturating_duration_since(self.refilled).as_secs_f64() * LINES_PER_SECOND;
        self.refilled = now;
        self.lines = (self.lines + earned).min(BURST_LINES);
        if self.lines < 1.0 {
            self.held_back += 1;
            return None;
        }
        self.lines -= 1.0;
        let is_told = self.told.is_some_and(|told| now.saturating_duration_since(told) < TOLD_INTERVAL);
        if self.held_back == 0 || is_told {
            return Some(0);
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

/// Where the lines of one instance go. A cheap handle.
#[derive(Clone, Debug)]
pub(super) struct GuestLog {
    place: GuestPlace,
    budget: Arc<Mutex<LogBudget>>,
    config: Arc<Redacted>,
    /// What else is not told, which changes from call to call.
    confided: Arc<Mutex<Redacted>>,
    said: Arc<Said>,
}

/// Where a guest runs.
#[derive(Clone, Debug)]
pub(super) struct GuestPlace {
    pub(super) pipeline: Arc<str>,
    pub(super) kind: PluginKind,
    /// The label of the stage, or the name of the endpoint.
    pub(super) name: Arc<str>,
    pub(super) plugin: Arc<str>,
    /// Whether it runs beside another version: its lines say so.
    pub(super) is_shadow: bool,
}

/// What was said in the current call that tells why it fails.
#[derive(Debug, Default)]
struct Said {
    /// Whether there is anything: most calls say nothing, and need no lock to find out.
    is_anything: AtomicBool,
    last_words: Mutex<LastWords>,
}

impl GuestLog {
    /// The log of an instance at this place, which takes its lines from `budget`. What is secret in `config` is
    /// not told.
    pub(super) fn new(place: GuestPlace, config: Redacted, budget: Arc<Mutex<LogBudget>>) -> Self {
        let (config, confided) = (Arc::new(config), Arc::default());
        Self { place, budget, config, confided, said: Arc::default() }
    }

    /// From now on what is secret in `confided` is not told either, in place of what was said so before.
    pub(super) fn confide(&self, confided: Redacted) {
        *self.confided.lock().unwrap_or_else(PoisonError::into_inner) = confided;
    }

    /// What the guest was told, some of which it must not tell.
    pub(super) fn config(&self) -> &Redacted {
        &self.config
    }

    /// A text of the guest as it may be told.
    pub(super) fn told(&self, text: &str) -> String {
        let confided = self.confided.lock().unwrap_or_else(PoisonError::into_inner);
        if confided.is_open() { self.config.told(text) } else { self.config.told(&confided.conceal(text)) }
    }

    /// A name of the guest with `***` for what it must not show.
    pub(super) fn conceal(&self, mut name: String) -> String {
        let confided = self.confided.lock().unwrap_or_else(PoisonError::into_inner);
        for secrets in [&*self.config, &*confided] {
            name = match secrets.conceal(&name) {
                Cow::Owned(hidden) => hidden,
                Cow::Borrowed(_) => continue,
            };
        }
        name
    }

    /// A call begins: what was said before has nothing to do with it.
    #[inline]
    pub(super) fn begin_call(&self) {
        if self.said.is_anything.load(Relaxed) {
            self.take_last_words();
        }
    }

    /// Notes what may tell why a call fails.
    pub(super) fn note(&self, note: impl FnOnce(&mut LastWords)) {
        self.said.is_anything.store(true, Relaxed);
        note(&mut self.said.last_words.lock().expect("nothing panics while it is held"));
    }

    /// What was said in the current call that tells why it fails.
    pub(super) fn take_last_words(&self) -> Option<String> {
        self.said.is_anything.store(false, Relaxed);
        self.said.last_words.lock().expect("nothing panics while it is held").take()
    }

    /// Writes one line of the guest, if its budget allows.
    pub(super) fn write(&self, level: Level, text: &str) {
        // A line that nobody asked for costs the guest nothing.
        if !is_asked_for(level) {
            return;
        }
        let taken = self.budget.lock().expect("nothing panics while it is held").take(Instant::now());
        let Some(held_back) = taken else { return };
        let GuestPlace { pipeline, kind, name, plugin, is_shadow } = &self.place;
        let (pipeline, plugin) = (&**pipeline, &**plugin);
        let transform = (*kind == PluginKind::Transform).then_some(&**name);
        let endpoint = (*kind == PluginKind::Connector).then_some(&**name);
        let shadow = is_shadow.then_some(true);
        if held_back > 0 {
            tracing::warn!(
                target: "guest",
                pipeline, transform, endpoint, plugin, shadow, held_back,
                "lines held back: the plugin writes too many"
            );
        }
        let line = self.told(text);
        macro_rules! line {
            ($level:ident) => {
                tracing::event!(
                    target: "guest", Level::$level, pipeline, transform, endpoint, plugin, shadow, "{line}"
                )
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

fn is_asked_for(level: Level) -> bool {
    match level {
        Level::TRACE => tracing::enabled!(target: "guest", Level::TRACE),
        Level::DEBUG => tracing::enabled!(target: "guest", Level::DEBUG),
        Level::INFO => tracing::enabled!(target: "guest", Level::INFO),
        Level::WARN => tracing::enabled!(target: "guest", Level::WARN),
        Level::ERROR => tracing::enabled!(target: "guest", Level::ERROR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_held_back_and_told() {
        let mut budget = LogBudget::default();
        let now = Instant::now();
        let written = (0..1000).filter(|_| budget.take(now).is_some()).count();
        assert_eq!(written, 200);
        assert_eq!(budget.take(now + Duration::from_secs(1)), Some(800));
        assert_eq!(budget.take(now + Duration::from_secs(1)), Some(0));
    }

    #[test]
    fn a_flood_without_end_is_told_once_a_second_with_every_line_that_was_held_back() {
        let mut budget = LogBudget::default();
        let start = Instant::now();
        let (mut written, mut told) = (0, Vec::new());
        for ms in 0..3500 {
            if let Some(held_back) = budget.take(start + Duration::from_millis(ms)) {
                written += 1;
                told.extend((held_back > 0).then_some(held_back));
            }
        }
        assert!((3..=4).contains(&told.len()), "{told:?}");
        assert_eq!(told.iter().sum::<u64>() + budget.held_back + written, 3500);
    }

    #[test]
    fn a_line_that_nobody_asked_for_does_not_count() {
        let budget = Arc::<Mutex<LogBudget>>::default();
        let log = GuestLog {
            place: GuestPlace {
                pipeline: "p".into(),
                kind: PluginKind::Transform,
                name: "t".into(),
                plugin: "t".into(),
                is_shadow: false,
            },
            budget: budget.clone(),
            config: Arc::new("{}".into()),
            confided: Arc::default(),
            said: Arc::default(),
        };
        let only_info = tracing_subscriber::fmt().with_max_level(Level::INFO).with_writer(std::io::sink);
        tracing::subscriber::with_default(only_info.finish(), || {
            (0..1000).for_each(|_| log.write(Level::DEBUG, "a detail"));
            log.write(Level::INFO, "what matters");
        });
        let budget = budget.lock().expect("nothing panics while it is held");
        assert_eq!((budget.held_back, budget.lines > 190.0), (0, true));
    }
}
