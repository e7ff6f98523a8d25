//! Sends each message to the output that belongs to the value of one of its fields.
//!
//! With `unwrap` only that part of the message goes on, its bytes unchanged. A value that is not a
//! string is compared as its JSON text.

use serde::Deserialize;
use std::collections::BTreeMap;
use tidemill_plugin::{Description, Json, Message, Out, Output, Plugin, Result, export};

export!(Demux);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default = "stream")]
    by: String,
    outputs: BTreeMap<String, String>,
    unwrap: Option<String>,
    #[serde(default)]
    otherwise: Otherwise,
}

fn stream() -> String {
    "/stream".into()
}

/// What becomes of a message that belongs to no output.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Otherwise {
    #[default]
    Default,
    Drop,
}

struct Demux {
    by: Json,
    outputs: BTreeMap<String, Output>,
    unwrap: Option<Json>,
    otherwise: Otherwise,
}

impl Plugin for Demux {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        description.only_json();
        if config.unwrap.is_none() {
            // What is emitted is binary where the message is, which only its payload tells.
            description.without_payloads();
        }
        let mut field =
            |key: &str, pointer: &str| description.json(pointer).map_err(|error| format!("`{key}`: {error}"));
        let by = field("by", &config.by)?;
        let unwrap = config.unwrap.map(|pointer| field("unwrap", &pointer)).transpose()?;
        if config.outputs.is_empty() {
            return Err(
                "`outputs` is empty: name one, such as `outputs = { \"btcusdt@trade\" = \"btc\" }`".into()
            );
        }
        let outputs = config.outputs.into_iter().map(|(value, name)| (value, description.output(&name)));
        Ok(Self { by, unwrap, outputs: outputs.collect(), otherwise: config.otherwise })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        let output = message.get(self.by).and_then(|value| self.outputs.get(value.label().as_ref()));
        let output = match (output, self.otherwise) {
            (Some(&output), _) => output,
            (None, Otherwise::Default) => Output::DEFAULT,
            (None, Otherwise::Drop) => return Ok(()),
        };
        match self.unwrap {
            None => out.forward_to(output),
            Some(part) => {
                let part = message.get(part).ok_or("the message has nothing to unwrap")?;
                out.emit().to(output).bytes(part.raw());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_plugin::testing::Harness;

    const OUTPUTS: &str =
        r#""outputs":{"btcusdt@trade":"btc","ethusdt@trade":"eth","7":"eth","main":"default"}"#;

    fn demux(rest: &str) -> Harness<Demux> {
        Harness::try_new(&format!("{{{OUTPUTS}{rest}}}")).unwrap()
    }

    #[test]
    fn a_message_goes_to_the_output_of_its_value() {
        let mut plugin = demux("");
        assert_eq!(plugin.outputs(), ["eth", "btc"]);
        let (btc, eth) = (r#"{"stream":"btcusdt@trade"}"#, r#"{"stream":"eth\u0075sdt@trade"}"#);
        let (number, main, other) = (r#"{"stream":7}"#, r#"{"stream":"main"}"#, r#"{"stream":"x"}"#);
        let processed = plugin.process([btc, eth, number, main, other, "{}"]);
        let routed = [
            ("btc", btc),
            ("eth", eth),
            ("eth", number),
            ("default", main),
            ("default", other),
            ("default", "{}"),
        ];
        assert_eq!(processed.routed(), routed);
        assert!(processed.forwarded_all);
    }

    #[test]
    fn unwrapping_sends_one_part_and_its_bytes_as_they_were() {
        let mut plugin = demux(r#","unwrap":"/data""#);
        let processed = plugin.process([
            r#"{"stream":"btcusdt@trade","data": { "p" : 1.0e2 } }"#,
            r#"{"stream":"ethusdt@trade"}"#,
            r#"{"data":[1, 2]}"#,
        ]);
        assert_eq!(processed.routed(), [("btc", r#"{ "p" : 1.0e2 }"#), ("default", "[1, 2]")]);
        assert_eq!(processed.rejected, [(1, "the message has nothing to unwrap".to_owned())]);
    }

    #[test]
    fn what_belongs_nowhere_can_be_dropped() {
        let mut plugin = demux(r#","otherwise":"drop","unwrap":"/data""#);
        assert!(plugin.process([r#"{"result":null,"id":1}"#, r#"{"stream":"x","data":1}"#]).is_empty());
    }

    #[test]
    fn what_is_not_json_is_rejected() {
        let processed = demux("").process([r#"{"stream":"btcusdt@trade""#]);
        assert_eq!(processed.rejected, [(0, "not JSON (at byte 25)".to_owned())]);
    }

    #[test]
    fn the_field_is_configured() {
        let mut plugin = demux(r#","by":"/data/s""#);
        assert_eq!(
            plugin.process([r#"{"data":{"s":"main"},"stream":"btcusdt@trade"}"#]).routed()[0].0,
            "default"
        );
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        for (config, error) in [
            ("{}", "missing key `outputs`"),
            (
                r#"{"outputs":{}}"#,
                r#"`outputs` is empty: name one, such as `outputs = { "btcusdt@trade" = "btc" }`"#,
            ),
            (
                r#"{"outputs":{},"by":"stream"}"#,
                "`by`: \"stream\" is not a JSON pointer: it must start with `/`, like \"/stream\"",
            ),
            (
                r#"{"outputs":{},"unwrap":"data"}"#,
                "`unwrap`: \"data\" is not a JSON pointer: it must start with `/`, like \"/data\"",
            ),
            (r#"{"outputs":{"x":1}}"#, "`outputs.x` must be a string, got 1"),
            (
                r#"{"outputs":{},"otherwise":"pass"}"#,
                r#"`otherwise` must be "default" or "drop", got "pass""#,
            ),
        ] {
            assert_eq!(Harness::<Demux>::try_new(config).err().as_deref(), Some(error));
        }
    }
}
