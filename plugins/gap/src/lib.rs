//! Finds what is missing in a numbered feed: counts it, marks the message behind the gap, and has the connection dialled
//! anew where that is wanted.
//!
//! A message has a number, or with `first` the numbers from that to its own. All messages are forwarded but old ones,
//! where those are to be dropped; one without a number is nothing to this plugin. The numbers of each key go on over
//! reconnections, unless they begin anew there.
//!
//! What closes a connection is emitted to the output `control`, for a sink of `type = "reply"`.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use tidemill_plugin::keyed::{Key, Keyed};
use tidemill_plugin::{
    Description, Edit, Json, Message, Out, Output, Part, Plugin, Read, Result, Write, binary, export, hash,
    metrics,
};

export!(Gap);

/// The counter of missing messages.
const MISSING: &str = "gap_messages";
/// Keys that are remembered, if nothing else is said.
const MAX_KEYS: usize = 100_000;
/// The close code of a connection with a gap: of those that anybody may use.
const CLOSE_CODE: u16 = 4000;
/// Connections that are remembered to be closing: their messages still come for a moment.
const MOST_CLOSING: usize = 1024;
/// The form of snapshots. The one before did not say whose numbers it had.
const FORM: u8 = 2;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    sequence: String,
    first: Option<String>,
    key: Option<String>,
    mark: Option<String>,
    old: Old,
    reconnect: bool,
    max_keys: usize,
}

/// What becomes of a message whose number was reached before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Old {
    #[default]
    Pass,
    Drop,
}

impl Default for Config {
    fn default() -> Self {
        let sequence = "/u".to_owned();
        Self {
            sequence,
            first: None,
            key: None,
            mark: None,
            old: Old::Pass,
            reconnect: false,
            max_keys: MAX_KEYS,
        }
    }
}

impl Config {
    /// What is numbered, and by what, in the words of the configuration.
    fn meaning(&self) -> String {
        let key = self.key.as_ref().map_or_else(|| "no `key`".to_owned(), |key| format!("`key` = {key:?}"));
        format!("`sequence` = {:?} and {key}", self.sequence)
    }

    /// # Errors
    /// Two keys name one field, of which one reading or writing would be none; the text names both.
    fn refuse_one_field_for_two(&self) -> Result {
        if self.first.as_ref() == Some(&self.sequence) {
            return Err(format!(
                "`first` and `sequence` are both {:?}: leave `first` out where a message has one number",
                self.sequence
            )
            .into());
        }
        let Some(mark) = &self.mark else { return Ok(()) };
        let read =
            [("sequence", Some(&self.sequence)), ("first", self.first.as_ref()), ("key", self.key.as_ref())];
        for (key, pointer) in read {
            let Some(pointer) = pointer else { continue };
            if pointer
                .strip_prefix(mark.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            {
                return Err(format!(
                    "`mark` {mark:?} would overwrite `{key}` {pointer:?}: give it another name"
                )
                .into());
            }
        }
        Ok(())
    }
}

struct Gap {
    sequence: Json,
    first: Option<Json>,
    key: Key,
    mark: Option<Edit>,
    old: Old,
    connection: Read,
    reconnect: Option<Reconnect>,
    last: Keyed<Last>,
    /// How what is known is to be read.
    meaning: String,
}

/// How far the numbers of a key are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Last {
    number: i64,
    /// The hash of the connection that it came on.
    connection: u64,
}

/// How connections are closed.
struct Reconnect {
    control: Output,
    close: Write,
    /// The hashes of the latest that were closed.
    closing: VecDeque<u64>,
}

/// What a number is to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// So many are missing before it, on the same connection as the one before or not.
    Next { missing: u64, is_same_connection: bool },
    /// It was reached before.
    Old,
}

impl Plugin for Gap {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        if config.max_keys == 0 {
            return Err("`max_keys` must be more than 0".into());
        }
        description.only_json();
        description.without_payloads();
        let field = |key: &str, pointer: &str, description: &mut Description| {
            description.json(pointer).map_err(|error| format!("`{key}`: {error}"))
        };
        if config.mark.as_deref() == Some("") {
            return Err("`mark`: \"\" is the whole message, and a member is meant, like \"/missing\"".into());
        }
        config.refuse_one_field_for_two()?;
        let meaning = config.meaning();
        let mark =
            config.mark.map(|pointer| description.edit(&pointer).map_err(|error| format!("`mark`: {error}")));
        Ok(Self {
            mark: mark.transpose()?,
            sequence: field("sequence", &config.sequence, description)?,
            first: config.first.map(|pointer| field("first", &pointer, description)).transpose()?,
            key: Key::compile("`key`", config.key, description)?,
            old: config.old,
            connection: description.read("__meta_connection"),
            reconnect: config.reconnect.then(|| Reconnect {
                control: description.output("control"),
                close: description.write("__meta_close"),
                closing: VecDeque::new(),
            }),
            last: Keyed::new(config.max_keys),
            meaning,
        })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        let (Some(sequence), Some(key)) = (message.get(self.sequence), self.key.of(message)?) else {
            out.forward();
            return Ok(());
        };
        let number = sequence.integer().ok_or("the sequence is no whole number")?;
        let first = match self.first.map(|first| message.get(first)) {
            None => number,
            Some(None) => return Err("the message has no first number".into()),
            Some(Some(first)) => first.integer().ok_or("the first number is no whole number")?,
        };
        if first > number {
            return Err(format!("the first number is {first}, which is behind the last, {number}").into());
        }
        let connection = hash(message.metadata(self.connection));
        let (missing, is_same_connection) = match self.arrive(&key, first, number, connection) {
            Arrival::Next { missing, is_same_connection } => (missing, is_same_connection),
            Arrival::Old if self.old == Old::Drop => return Ok(()),
            Arrival::Old => (0, false),
        };
        out.forward();
        if missing == 0 {
            return Ok(());
        }
        metrics::add(MISSING, missing as f64);
        if let Some(mark) = self.mark {
            out.set(mark, missing);
        }
        if let Some(reconnect) = &mut self.reconnect
            && is_same_connection
            && reconnect.begins_to_close(connection)
        {
            let how = format!("{CLOSE_CODE} {missing} missing before {first}");
            out.emit().binary(false).to(reconnect.control).set(reconnect.close, &how);
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>> {
        binary::encode(FORM, &(&self.meaning, &self.last)).map(Some)
    }

    fn restore_part(&mut self, snapshots: &[Vec<u8>], part: Part) -> Result {
        let before: Vec<(String, Keyed<Last>)> = binary::decode_all(FORM, snapshots)?;
        if let Some((meaning, _)) = before.iter().find(|(meaning, _)| *meaning != self.meaning) {
            return Err(binary::other_meaning(meaning, &self.meaning));
        }
        self.last.restore(before.into_iter().map(|(_, last)| last), part);
        Ok(())
    }
}

impl Gap {
    /// Goes on with the numbers from `first` to `number`, which came on this connection.
    fn arrive(&mut self, key: &str, first: i64, number: i64, connection: u64) -> Arrival {
        let now = Last { number, connection };
        let Some(last) = self.last.get_mut(key) else {
            self.last.get_or_insert_with(key, || now);
            self.last.forget_surplus();
            return Arrival::Next { missing: 0, is_same_connection: true };
        };
        let is_same_connection = last.connection == connection;
        if number <= last.number {
            // The numbers of a new connection may begin anew, which cannot be told from what is sent again.
            if !is_same_connection && self.old == Old::Pass {
                *last = now;
            }
            return Arrival::Old;
        }
        let missing = first.saturating_sub(last.number).saturating_sub(1).max(0).unsigned_abs();
        *last = now;
        Arrival::Next { missing, is_same_connection }
    }
}

impl Reconnect {
    /// Whether a connection is not closing yet; it is from now on.
    fn begins_to_close(&mut self, connection: u64) -> bool {
        if self.closing.contains(&connection) {
            return false;
        }
        if self.closing.len() == MOST_CLOSING {
            self.closing.pop_front();
        }
        self.closing.push_back(connection);
        true
    }
}

#[cfg(test)]
mod tests;
