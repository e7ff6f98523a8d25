//! Counts messages for each key, and says which of several instances did: a message
//! `{"k":"a","n":7}` becomes `a 7 COUNT INSTANCE`. So a test sees where each message went, in which order, and
//! what became of the counts, which the snapshots have and are shared out by key.
//!
//! `"do"` in a message says what else is to become of it; `"work"`, there and in the configuration, how much is
//! computed for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;
use tidemill_plugin::{
    Description, Emissions, Message, Number, Out, Part, Plugin, Result, Text, export, metrics, state,
};

/// How soon a message is to be offered again that waits.
const WAIT: Duration = Duration::from_millis(5);

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// What is computed for each message, in rounds of a nanosecond or two.
    work: u32,
    /// How often the timer is called, which says so.
    tick_ms: u64,
    /// Whether it takes no snapshots but that of one instance.
    refuses_shares: bool,
}

struct Tally {
    config: Config,
    instance: String,
    key: Text,
    number: Number,
    what: Text,
    work: Number,
    counts: BTreeMap<String, u64>,
    /// The messages that it has asked to be offered again.
    waited: BTreeSet<u64>,
}

export!(Tally);

impl Plugin for Tally {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        if config.tick_ms > 0 {
            description.tick_every(Duration::from_millis(config.tick_ms));
        }
        let fact = |name| description.fact(name).unwrap_or("unknown").to_owned();
        let instance = format!("{}/{}", fact("instance"), fact("instances"));
        Ok(Self {
            config,
            instance,
            key: description.text("/k")?,
            number: description.number("/n")?,
            what: description.text("/do")?,
            work: description.number("/work")?,
            counts: BTreeMap::new(),
            waited: BTreeSet::new(),
        })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        let key = message.get(self.key).unwrap_or_default();
        let number = message.get(self.number).unwrap_or_default() as u64;
        work(u64::from(self.config.work) + message.get(self.work).unwrap_or_default() as u64);
        match message.get(self.what).unwrap_or("count") {
            "trap" => panic!("as the message says"),
            "reject" => return Err("as the message says".into()),
            "drop" => return Ok(()),
            "pass" => {
                out.forward();
                return Ok(());
            }
            "wait-on" => {
                out.retry("not yet", WAIT);
                return Ok(());
            }
            "wait" if self.waited.insert(number) => {
                out.retry("not yet", WAIT);
                return Ok(());
            }
            _ => {}
        }
        let count = self.counts.entry(key.to_owned()).or_default();
        *count += 1;
        out.emit().text(&format!("{key} {number} {count} {}", self.instance));
        state::set(&format!("count/{key}"), count.to_string().as_bytes())?;
        metrics::add("seen", 1.0);
        metrics::set("keys", self.counts.len() as f64);
        Ok(())
    }

    fn tick(&mut self, _: u64, out: &mut Emissions) -> Result {
        out.emit().text(&format!("tick {}", self.instance));
        Ok(())
    }

    fn finish(&mut self, out: &mut Emissions) -> Result {
        let mut text = format!("final {}", self.instance);
        for (key, count) in &self.counts {
            write!(text, " {key}={count}")?;
        }
        out.emit().text(&text);
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>> {
        let lines: String = self.counts.iter().map(|(key, count)| format!("{key} {count}\n")).collect();
        Ok((!lines.is_empty()).then(|| lines.into_bytes()))
    }

    fn restore_part(&mut self, snapshots: &[Vec<u8>], part: Part) -> Result {
        if self.config.refuses_shares && (snapshots.len() > 1 || !part.is_whole()) {
            return Err("these counts are not to be shared out".into());
        }
        for snapshot in snapshots {
            for line in std::str::from_utf8(snapshot)?.lines() {
                let (key, count) = line.split_once(' ').ok_or("not a count")?;
                if part.has(key) {
                    *self.counts.entry(key.to_owned()).or_default() += count.parse::<u64>()?;
                }
            }
        }
        Ok(())
    }
}

/// Computes for so many rounds.
fn work(rounds: u64) {
    let mut number = rounds;
    for round in 0..rounds {
        number = black_box(number ^ hash_step(round));
    }
    black_box(number);
}

fn hash_step(round: u64) -> u64 {
    round.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
