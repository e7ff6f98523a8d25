//! Puts other text in the place of what must not go on: whole fields, and what patterns find in string values.
//!
//! `patterns.rs` knows what is found in a text, `walk.rs` goes through a message. All bytes that are not redacted
//! stay as they were, and a message of which nothing is redacted goes on unchanged. Names of members are no values,
//! and numbers no strings: patterns do not look at them. What is not JSON is rejected.

mod patterns;
mod walk;

use patterns::Patterns;
use serde::Deserialize;
use tidemill_plugin::json::Pointers;
use tidemill_plugin::{Description, Message, Out, Plugin, Result, export, log};
use walk::redact;

export!(Redact);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    fields: Vec<String>,
    #[serde(default)]
    patterns: Vec<String>,
    #[serde(default = "stars")]
    replace: String,
}

fn stars() -> String {
    "***".into()
}

struct Redact {
    fields: Pointers,
    patterns: Patterns,
    /// What was written of the message in hand.
    written: Vec<u8>,
}

impl Plugin for Redact {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        description.only_json();
        description.guards();
        if config.fields.is_empty() && config.patterns.is_empty() {
            log::warn("nothing is redacted: `fields` and `patterns` are empty");
        }
        let mut fields = Pointers::default();
        for (nth, pointer) in config.fields.iter().enumerate() {
            fields.add(pointer).map_err(|error| format!("`fields[{nth}]`: {error}"))?;
        }
        Ok(Self { fields, patterns: Patterns::new(&config.patterns, config.replace)?, written: Vec::new() })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        self.written.clear();
        if redact(message.as_bytes(), &self.fields, &self.patterns, &mut self.written) {
            out.emit().bytes(&self.written);
        } else {
            out.forward();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
