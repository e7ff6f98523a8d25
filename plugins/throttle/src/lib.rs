//! Forwards at most `max` messages of a key in any stretch of `per`, and drops what is over, or keeps the newest of
//! it until it may go on.
//!
//! `rate.rs` knows how many may go on, `waiting.rs` what waits; this file knows keys, and what time it is. A message
//! that waited is emitted by the timer, so it has no metadata; at the end, when no time will come any more, what
//! waits is emitted at once. What is kept is bounded: in keys, in times, and in the bytes that wait. What that costs
//! is counted: `tidemill_guest_keys_forgotten_total`, `tidemill_guest_waiting_dropped_total`. What is not JSON is
//! rejected.

mod rate;
mod waiting;

use rate::{Rate, Sent};
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::time::Duration;
use tidemill_plugin::event_time::MessageTime;
use tidemill_plugin::keyed::{Key, Keyed};
use tidemill_plugin::{
    Description, Emissions, Message, Out, Part, Plugin, Result, binary, duration, export, metrics,
};
use waiting::{Held, Waiting};

export!(Throttle);

/// Most keys that are remembered, if nothing is said.
const MAX_KEYS: usize = 100_000;
/// Most messages in a stretch over all keys, of which the times are remembered: twice as many of 8 bytes each.
const MAX_TIMES: usize = 500_000;
/// The form of snapshots. The one before did not say what its keys and times were.
const FORM: u8 = 3;
/// The counter of messages for which there was no room to wait.
const WAITING_DROPPED: &str = "waiting_dropped";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    max: NonZeroUsize,
    #[serde(with = "tidemill_plugin::duration")]
    per: Duration,
    key: Option<String>,
    time: Option<String>,
    when_over: WhenOver,
    max_keys: Option<NonZeroUsize>,
}

/// What becomes of a message that is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WhenOver {
    #[default]
    Drop,
    Latest,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max: NonZeroUsize::new(10).expect("10 is not 0"),
            per: Duration::from_secs(1),
            key: None,
            time: None,
            when_over: WhenOver::default(),
            max_keys: None,
        }
    }
}

struct Throttle {
    rate: Rate,
    key: Key,
    time: MessageTime,
    when_over: WhenOver,
    sent: Keyed<Sent>,
    waiting: Waiting,
    /// None before the first message.
    clock: Option<Clock>,
    /// How keys and times are to be read, in the words of the configuration.
    meaning: String,
}

/// The time that it is by the times of messages: that of the newest, and what has gone by since it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Clock {
    time_us: i64,
    received_us: u64,
}

#[derive(Serialize)]
struct Snapshot<'a> {
    meaning: &'a str,
    sent: &'a Keyed<Sent>,
    waiting: &'a Waiting,
    clock: Option<Clock>,
}

#[derive(Deserialize)]
struct OldSnapshot {
    meaning: String,
    sent: Keyed<Sent>,
    waiting: Waiting,
    clock: Option<Clock>,
}

impl Clock {
    fn at(self, now_us: u64) -> i64 {
        let since_us = now_us.saturating_sub(self.received_us);
        self.time_us.saturating_add(i64::try_from(since_us).unwrap_or(i64::MAX))
    }
}

impl Plugin for Throttle {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        let max = config.max.get();
        if config.per.is_zero() {
            return Err("`per` must be longer than 0".into());
        }
        let per_us = duration::microseconds("per", config.per)?;
        if max > MAX_TIMES {
            return Err(format!("`max`: {max} is too many to remember: take at most {MAX_TIMES}").into());
        }
        let most_keys = MAX_TIMES / max;
        if let Some(keys) = config.max_keys.filter(|keys| keys.get() > most_keys) {
            return Err(format!(
                "`max_keys`: {keys} keys of {max} messages each are too many to remember: take at most {most_keys}"
            )
            .into());
        }
        description.only_json();
        match config.when_over {
            WhenOver::Drop => description.without_payloads(),
            WhenOver::Latest => {
                description.times();
                description.tick_every(tick(config.per));
            }
        }
        let meaning = [("key", &config.key), ("time", &config.time)]
            .map(|(name, value)| setting(name, value.as_deref()));
        Ok(Self {
            meaning: meaning.join(" and "),
            rate: Rate { max, per_us },
            key: Key::compile("`key`", config.key, description)?,
            time: MessageTime::compile(config.time.as_deref(), description)?,
            when_over: config.when_over,
            sent: Keyed::new(config.max_keys.map_or(MAX_KEYS.min(most_keys), NonZeroUsize::get)),
            waiting: Waiting::default(),
            clock: None,
        })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        let time_us = self.time.of(message)?;
        // A message without it has the key "", as for the `key` of a transform.
        let key = self.key.of(message)?.unwrap_or_default();
        let sent = self.sent.get_or_insert_with(&key, Sent::default);
        if self.rate.admits(sent, time_us) {
            self.rate.note(sent, time_us);
            sent.note_message(time_us);
            self.waiting.pass(&key, time_us);
            out.forward();
        } else if self.when_over == WhenOver::Latest && sent.is_newest(time_us) {
            // The host lets nothing through that is not JSON, and that is text.
            let text = message.as_text().unwrap_or_default().to_owned();
            let held = Held { time_us, text, is_binary: !message.is_text() };
            if !self.waiting.hold(&key, held) {
                metrics::add(WAITING_DROPPED, 1.0);
            }
        }
        self.sent.forget_surplus();
        let read = Clock { time_us, received_us: message.received_us().unwrap_or(0) };
        if self.clock.is_none_or(|clock| read.time_us > clock.time_us) {
            self.clock = Some(read);
        }
        Ok(())
    }

    fn tick(&mut self, now_us: u64, out: &mut Emissions) -> Result {
        let Some(clock) = self.clock else { return Ok(()) };
        let now_us = clock.at(now_us);
        let (rate, sent) = (self.rate, &mut self.sent);
        // A key that was forgotten begins anew.
        let is_due = |key: &str, held: &Held| {
            let sent_of_key = sent.get_or_insert_with(key, Sent::default);
            let is_due = rate.admits(sent_of_key, now_us);
            if is_due {
                rate.note(sent_of_key, now_us);
                sent_of_key.note_message(held.time_us);
            }
            sent.forget_surplus();
            is_due
        };
        for Held { text, is_binary, .. } in self.waiting.release(is_due) {
            out.emit().binary(is_binary).text(&text);
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Emissions) -> Result {
        for Held { text, is_binary, .. } in self.waiting.release(|_, _| true) {
            out.emit().binary(is_binary).text(&text);
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>> {
        let Self { meaning, sent, waiting, clock, .. } = self;
        binary::encode(FORM, &Snapshot { meaning, sent, waiting, clock: *clock }).map(Some)
    }

    fn restore_part(&mut self, snapshots: &[Vec<u8>], part: Part) -> Result {
        for OldSnapshot { meaning, sent, waiting, clock } in binary::decode_all(FORM, snapshots)? {
            if meaning != self.meaning {
                return Err(binary::other_meaning(&meaning, &self.meaning));
            }
            self.sent.restore([sent], part);
            self.waiting.take_over(waiting, part);
            self.clock = self.clock.max(clock);
        }
        Ok(())
    }
}

/// A key of the configuration with what it is set to.
fn setting(name: &str, value: Option<&str>) -> String {
    value.map_or_else(|| format!("no `{name}`"), |value| format!("`{name}` = {value:?}"))
}

/// How often to look for what may be sent: so that it is late by a fiftieth of the stretch, within bounds that keep
/// an idle host idle.
fn tick(per: Duration) -> Duration {
    (per / 50).clamp(Duration::from_millis(5), Duration::from_secs(1))
}

#[cfg(test)]
mod tests;
