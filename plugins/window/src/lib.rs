//! Aggregates of tumbling, sliding and session windows in event time, a series of windows for each key.
//!
//! A message without its time, its key or a field of an aggregate, or that `where` does not match, is filtered; where one
//! of the numbers is something else, it is rejected. When a window is closed, says the SDK (`windows`); what is computed,
//! `aggregates.rs`.

mod aggregates;

use aggregates::{Aggregates, Inputs, Reading, Rule, Seen};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;
use tidemill_plugin::condition::{self, Conditions, Match};
use tidemill_plugin::event_time::EventTime;
use tidemill_plugin::keyed::{self, Key};
use tidemill_plugin::windows::{Window, WindowKind, WindowRules, Windows};
use tidemill_plugin::{
    Description, Emission, Emissions, Message, Out, Part, Plugin, Result, export, metrics,
};

export!(WindowPlugin);

/// The counter of late messages.
const LATE: &str = "late";
/// The counter of keys that were forgotten to make room.
const FORGOTTEN: &str = "keys_forgotten";
/// The members of what is emitted that are no keys and no aggregates.
const OWN_NAMES: [&str; 3] = ["window_start", "window_end", "final"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    kind: Kind,
    key: BTreeMap<String, String>,
    time: String,
    #[serde(rename = "where")]
    rules: Vec<condition::Rule>,
    #[serde(with = "tidemill_plugin::duration::optional")]
    size: Option<Duration>,
    #[serde(with = "tidemill_plugin::duration::optional")]
    slide: Option<Duration>,
    #[serde(with = "tidemill_plugin::duration::optional")]
    gap: Option<Duration>,
    #[serde(with = "tidemill_plugin::duration")]
    allowed_lateness: Duration,
    #[serde(with = "tidemill_plugin::duration")]
    idle_close: Duration,
    aggregates: BTreeMap<String, Rule>,
    max_keys: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Tumbling,
    Sliding,
    Session,
}

impl Default for Config {
    fn default() -> Self {
        let volume = serde_json::json!({ "volume": { "op": "sum", "field": "/q" } });
        Self {
            kind: Kind::Tumbling,
            key: [("symbol".to_owned(), "/s".to_owned())].into(),
            time: "/T".into(),
            rules: Vec::new(),
            size: None,
            slide: None,
            gap: None,
            allowed_lateness: Duration::ZERO,
            idle_close: Duration::ZERO,
            aggregates: serde_json::from_value(volume).expect("the default is right"),
            max_keys: None,
        }
    }
}

impl Config {
    /// # Errors
    /// A key that this kind does not have, or one that it needs is not there.
    fn kind(&self) -> Result<WindowKind> {
        let kind = self.kind;
        let own = |key: &str, given: Option<Duration>, of: &[Kind], default: Option<Duration>| match given {
            Some(_) if !of.contains(&kind) => Err(format!(
                "`{key}` is no key of windows of `kind = \"{}\"`",
                format!("{kind:?}").to_lowercase()
            )),
            Some(given) => Ok(given),
            None => match default {
                None if of.contains(&kind) => {
                    let kind = format!("{kind:?}").to_lowercase();
                    Err(format!(
                        "missing key `{key}`: windows of `kind = \"{kind}\"` need it, such as `{key} = \"10s\"`"
                    ))
                }
                default => Ok(default.unwrap_or_default()),
            },
        };
        let size = own("size", self.size, &[Kind::Tumbling, Kind::Sliding], Some(Duration::from_secs(60)))?;
        let slide = own("slide", self.slide, &[Kind::Sliding], None)?;
        let gap = own("gap", self.gap, &[Kind::Session], None)?;
        Ok(match kind {
            Kind::Tumbling => WindowKind::Tumbling { size },
            Kind::Sliding => WindowKind::Sliding { size, slide },
            Kind::Session => WindowKind::Session { gap },
        })
    }
}

struct WindowPlugin {
    key: Key,
    time: EventTime,
    conditions: Conditions,
    inputs: Inputs,
    reading: Reading,
    windows: Windows<Aggregates>,
    form: Form,
}

/// How a window is emitted.
struct Form {
    /// The names of the parts of a key, each as a JSON string.
    names: Vec<String>,
    aggregates: Aggregates,
    /// The aggregates and the key as they were configured: what a snapshot means.
    meaning: String,
}

impl Plugin for WindowPlugin {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        let rules = WindowRules {
            kind: config.kind()?,
            allowed_lateness: config.allowed_lateness,
            idle_close: config.idle_close,
            max_keys: config.max_keys,
        };
        if config.aggregates.is_empty() {
            return Err(
                "`aggregates` is empty: name one, such as `aggregates = { count = { op = \"count\" } }`"
                    .into(),
            );
        }
        if let Some(name) = config.key.keys().find(|name| OWN_NAMES.contains(&name.as_str())) {
            return Err(format!(
                "`key`: {name:?} stands for something else in what is emitted: give it another name"
            )
            .into());
        }
        description.only_json();
        description.without_payloads();
        let taken: Vec<&str> = config.key.keys().map(String::as_str).chain(OWN_NAMES).collect();
        let mut inputs = Inputs::default();
        let aggregates = Aggregates::try_of(&config.aggregates, &taken, &mut inputs, description)?;
        let key: Vec<_> = config.key.iter().map(|(name, field)| format!("{name} {field}")).collect();
        let meaning = format!("{} for the `key` {{{}}}", aggregates.meaning(), key.join(", "));
        Ok(Self {
            key: Key::compile("`key`", config.key.values(), description)?,
            time: EventTime::compile(&config.time, description)
                .map_err(|error| format!("`time`: {error}"))?,
            conditions: Conditions::compile(&config.rules, Match::All, description)?,
            inputs,
            reading: Reading::default(),
            windows: Windows::try_new(&rules, aggregates.clone(), description)?,
            form: Form {
                names: config
                    .key
                    .keys()
                    .map(|name| serde_json::Value::from(name.as_str()).to_string())
                    .collect(),
                aggregates,
                meaning,
            },
        })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        let Some(key) = self.key.of(message)? else { return Ok(()) };
        if !self.conditions.hold(message) {
            return Ok(());
        }
        let Some(time_ms) = self.time.of(message)? else { return Ok(()) };
        if !self.inputs.read(message, time_ms, &mut self.reading)? {
            return Ok(());
        }
        let Self { windows, form, reading, .. } = self;
        let received_us = message.received_us().unwrap_or(0);
        let is_late = windows.add(&key, time_ms, received_us, reading, |window| {
            form.write(out.emit().binary(false), &key, window, true)
        })?;
        if is_late {
            metrics::add(LATE, 1.0);
        }
        let forgotten =
            windows.push_out(|key, window| form.write(out.emit().binary(false), key, window, false))?;
        if forgotten > 0 {
            metrics::add(FORGOTTEN, forgotten as f64);
        }
        Ok(())
    }

    fn tick(&mut self, now_us: u64, out: &mut Emissions) -> Result {
        self.windows.close_idle(now_us, |key, window| self.form.write(out.emit(), key, window, true))
    }

    fn finish(&mut self, out: &mut Emissions) -> Result {
        self.windows.close_all(out, |emission, key, window| self.form.write(emission, key, window, false))
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>> {
        self.windows.snapshot(&self.form.meaning).map(Some)
    }

    fn restore_part(&mut self, snapshots: &[Vec<u8>], part: Part) -> Result {
        self.windows.restore(snapshots, part, &self.form.meaning)
    }
}

impl Form {
    fn write(&self, mut emission: Emission<'_>, key: &str, window: &Window<Seen>, is_final: bool) -> Result {
        emission.write_all(b"{")?;
        for (name, value) in self.names.iter().zip(keyed::parts(key)) {
            write!(emission, "{name}:")?;
            serde_json::to_writer(&mut emission, &value)?;
            emission.write_all(b",")?;
        }
        write!(emission, r#""window_start":{},"window_end":{}"#, window.start_ms, window.end_ms)?;
        self.aggregates.write(&window.contents, &mut emission)?;
        write!(emission, r#","final":{is_final}}}"#)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
