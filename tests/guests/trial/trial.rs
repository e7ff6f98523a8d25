//! Counts messages for each key, in its memory and with the host, and does what each message says:
//! `{"k":"a","do":"count"}` becomes `a COUNT KEPT`. A word that begins with `new-` is for the second version alone; the
//! first forwards the message. So a test knows what two versions make of the same messages.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;
use tidemill_plugin::{
    Description, Emissions, Message, Out, Output, Plugin, Result, Text, clock, export, log, metrics, random,
    state,
};

/// Whether this is the second version of the package that this source is built in.
const IS_NEW: bool = env!("CARGO_PKG_VERSION_MAJOR").as_bytes()[0] == b'2';
/// How soon a message is to be offered again that waits.
const WAIT: Duration = Duration::from_millis(5);
/// More than a test lets a call return.
const FLOOD_BYTES: usize = 4 << 20;
/// What the next instance finds that is not to start.
const NO_START: &str = "no-start";

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// How often the timer is called.
    tick_ms: u64,
    /// What the timer of the second version says, beside the count.
    new_tick: String,
}

struct Trial {
    config: Config,
    key: Text,
    what: Text,
    side: Output,
    counts: BTreeMap<String, u64>,
    waited: u32,
}

export!(Trial);

impl Plugin for Trial {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        if state::get(NO_START).is_some() {
            return Err("it does not start any more".into());
        }
        if config.tick_ms > 0 {
            description.tick_every(Duration::from_millis(config.tick_ms));
        }
        // The order of outputs is each version's own.
        let side = if IS_NEW {
            description.output("other");
            description.output("side")
        } else {
            description.output("side")
        };
        let (key, what) = (description.text("/k")?, description.text("/do")?);
        Ok(Self { config, key, what, side, counts: BTreeMap::new(), waited: 0 })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        let key = message.get(self.key).unwrap_or_default().to_owned();
        let word = message.get(self.what).unwrap_or("count");
        let word = match word.strip_prefix("new-") {
            Some(_) if !IS_NEW => "pass",
            Some(word) => word,
            None => word,
        };
        match word {
            "count" => {
                let count = self.counts.entry(key.clone()).or_default();
                *count += 1;
                let kept = state::get(&key)
                    .map_or(Ok(0), |kept| kept.as_slice().try_into().map(u64::from_le_bytes))?;
                state::set(&key, &(kept + 1).to_le_bytes())?;
                metrics::add("seen", 1.0);
                out.emit().text(&format!("{key} {count} {}", kept + 1));
            }
            "pass" => out.forward(),
            "drop" => {}
            "side" => out.forward_to(self.side),
            "say" => drop(out.emit().text("as nobody else")),
            "say-twice" => (0..2).for_each(|_| drop(out.emit().text("again"))),
            "reject" => return Err("as the message says".into()),
            "trap" => panic!("as the message says"),
            "spin" => loop {
                black_box(0);
            },
            "flood" => drop(out.emit().bytes(&vec![b'x'; FLOOD_BYTES])),
            "die" => {
                state::set(NO_START, b"1")?;
            }
            "wait" if self.waited < 2 => {
                self.waited += 1;
                out.retry("not yet", WAIT);
            }
            "wait" => {
                self.waited = 0;
                out.forward();
            }
            "log" => {
                log::info("a line");
                out.forward();
            }
            "tell" => drop(out.emit().text(&format!("{} {}", clock::now_us(), random::next()))),
            word => return Err(format!("no such word: {word}").into()),
        }
        Ok(())
    }

    fn tick(&mut self, _: u64, out: &mut Emissions) -> Result {
        let said = if IS_NEW { &self.config.new_tick } else { "" };
        out.emit().text(&format!("tick{said}"));
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>> {
        let mut text = String::new();
        for (key, count) in &self.counts {
            writeln!(text, "{key} {count}")?;
        }
        Ok(Some(text.into_bytes()))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result {
        for line in std::str::from_utf8(snapshot)?.lines() {
            let (key, count) = line.split_once(' ').ok_or("not a count")?;
            self.counts.insert(key.to_owned(), count.parse()?);
        }
        Ok(())
    }
}
