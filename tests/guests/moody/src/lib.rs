//! Counts messages, and fails where a test wants it to: a message is a word that says how.
//!
//! What is to outlast an instance it keeps in the host's state: a flag there decides what the next
//! instance does. The count is in the snapshot alone, whose length is the count.

use std::hint::black_box;
use std::time::Duration;
use tidemill_plugin::{Description, Emissions, Message, Out, Output, Plugin, Result, clock, export, state};

/// The next instance refuses to start.
const NO_START: &str = "no-start";
/// The next instance has one more output.
const OTHER_OUTPUTS: &str = "other-outputs";
/// What is waited for is there.
const OPEN: &str = "open";

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// How often the timer is called, and how long it takes.
    #[serde(default)]
    tick_ms: u64,
    #[serde(default)]
    tick_takes_ms: u64,
    /// Whether the timer says what time it was told.
    #[serde(default)]
    tells_time: bool,
    /// What a snapshot does: "ok", "none", "refuse" or "trap".
    #[serde(default)]
    snapshot: Option<String>,
    /// Whether the end always traps.
    #[serde(default)]
    never_ends: bool,
    /// The timer lets go on what waits, once it was called so often.
    #[serde(default)]
    opens_after: usize,
}

struct Moody {
    config: Config,
    count: usize,
    /// How often the timer was called.
    ticks: usize,
    /// The end traps on this instance.
    is_poisoned: bool,
    side: Output,
}

export!(Moody);

impl Plugin for Moody {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        if state::get(NO_START).is_some() {
            return Err("it does not start any more".into());
        }
        if config.tick_ms > 0 {
            description.tick_every(Duration::from_millis(config.tick_ms));
        }
        let side = description.output("side");
        if state::get(OTHER_OUTPUTS).is_some() {
            description.output("other");
        }
        Ok(Self { config, count: 0, ticks: 0, is_poisoned: false, side })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        let text = message.as_text().ok_or("not a text")?;
        match text {
            "count" => {
                self.count += 1;
                out.emit().text(&self.count.to_string());
            }
            "trap" => panic!("as the message says"),
            "spin" => spin(None),
            "reject" => return Err("as the message says".into()),
            "side" => out.forward_to(self.side),
            "poison" => self.is_poisoned = true,
            NO_START | OTHER_OUTPUTS | OPEN => state::set(text, b"1")?,
            _ => match text.split_once(' ') {
                Some(("flood", emissions)) => {
                    (0..emissions.parse::<usize>()?).for_each(|_| drop(out.emit().text("x")));
                }
                Some(("wait", ms)) if state::get(OPEN).is_none() => {
                    self.count += 1;
                    out.retry(format_args!("not yet, {}", self.count), Duration::from_millis(ms.parse()?));
                }
                _ => out.forward(),
            },
        }
        Ok(())
    }

    fn tick(&mut self, now_us: u64, out: &mut Emissions) -> Result {
        spin(Some(Duration::from_millis(self.config.tick_takes_ms)));
        self.ticks += 1;
        if self.ticks == self.config.opens_after {
            state::set(OPEN, b"1")?;
        }
        if self.config.tells_time {
            out.emit().text(&format!("{now_us} {}", clock::now_us()));
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Emissions) -> Result {
        assert!(!self.is_poisoned && !self.config.never_ends, "no good end");
        out.emit().text(&format!("final {}", self.count));
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>> {
        match self.config.snapshot.as_deref() {
            None | Some("ok") => Ok(Some(vec![b'x'; self.count])),
            Some("none") => Ok(None),
            Some("refuse") => Err("no snapshot today".into()),
            Some(_) => panic!("a snapshot that traps"),
        }
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result {
        self.count = snapshot.len();
        Ok(())
    }
}

/// Runs for so long, or for ever.
fn spin(time: Option<Duration>) {
    let start = clock::now_us();
    while time.is_none_or(|time| clock::now_us() < start + time.as_micros() as u64) {
        black_box(0);
    }
}
