//! Adds the row of a table to each message: the one whose key a field of the message has.
//!
//! The table is text in the configuration, as a rule that of a file. The host makes the edits; no payload crosses.

mod table;

use serde::Deserialize;
use table::{Format, Members, Table};
use tidemill_plugin::{Description, Json, Message, Out, Plugin, Result, export, log};

export!(Enrich);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default = "default_by")]
    by: String,
    table: String,
    #[serde(default = "default_format")]
    format: Format,
    #[serde(default = "default_key")]
    key: String,
    into: Option<String>,
    #[serde(default)]
    missing: Missing,
}

fn default_by() -> String {
    "/s".into()
}

fn default_format() -> Format {
    Format::Csv
}

fn default_key() -> String {
    "symbol".into()
}

/// What becomes of a message for which there is no row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Missing {
    #[default]
    Pass,
    Drop,
    Reject,
}

struct Enrich {
    by: Json,
    table: Table,
    missing: Missing,
}

impl Plugin for Enrich {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        description.only_json();
        description.without_payloads();
        let by = description.json(&config.by).map_err(|error| format!("`by`: {error}"))?;
        let mut members = Members::try_of(config.into.as_deref(), description)?;
        let table = Table::parse(&config.table, config.format, &config.key, &mut members)?;
        log::debug(format_args!("the table has {} rows", table.len()));
        Ok(Self { by, table, missing: config.missing })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        let key = message.get(self.by).map(|value| value.label());
        let row = key.as_ref().and_then(|key| self.table.row(key));
        match (row, self.missing) {
            (Some(row), _) => {
                out.forward();
                row.members().for_each(|(edit, value)| out.set(edit, value));
            }
            (None, Missing::Pass) => out.forward(),
            (None, Missing::Drop) => {}
            (None, Missing::Reject) => {
                return Err(match key {
                    Some(key) => format!("the table has no row for {key:?}").into(),
                    None => "the message has nothing to look a row up by".into(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
