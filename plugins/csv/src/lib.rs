//! Makes a line of CSV of each JSON message, out of the fields that `columns` names.
//!
//! Strings stand as what they say, numbers, `true` and `false` as in the message, objects and arrays as their JSON;
//! what is `null` or not there is empty. There is no line break at the end. What is not JSON is rejected.

use serde::Deserialize;
use std::borrow::Cow;
use tidemill_plugin::csv::Separator;
use tidemill_plugin::json::Kind;
use tidemill_plugin::{Description, Json, Message, Out, Plugin, Result, export};

export!(Csv);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    columns: Vec<String>,
    #[serde(default)]
    separator: Separator,
}

struct Csv {
    columns: Vec<Json>,
    separator: Separator,
    /// The line in hand.
    line: String,
}

impl Plugin for Csv {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        description.only_json();
        description.without_payloads();
        if config.columns.is_empty() {
            return Err("`columns`: [] makes empty lines: name the fields, such as [\"/s\", \"/p\"]".into());
        }
        let pointers = config.columns.iter().enumerate();
        let columns = pointers.map(|(nth, pointer)| {
            description.json(pointer).map_err(|error| format!("`columns[{nth}]`: {error}"))
        });
        Ok(Self {
            columns: columns.collect::<Result<_, _>>()?,
            separator: config.separator,
            line: String::new(),
        })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        self.line.clear();
        let fields = self.columns.iter().map(|&column| match message.get(column) {
            Some(value) if value.kind() != Kind::Null => value.label(),
            _ => Cow::Borrowed(""),
        });
        self.separator.append_record(fields, &mut self.line);
        out.emit().binary(false).text(&self.line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_plugin::testing::Harness;

    fn lines(config: &str, messages: &[&str]) -> Vec<String> {
        let processed = Harness::<Csv>::try_new(config).unwrap().process(messages.iter().copied());
        assert!(processed.sent.iter().all(|sent| !sent.binary && !sent.forwarded));
        processed.texts().into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn a_message_becomes_a_line() {
        let messages = [
            r#"{"s":"BTCUSDT","p":"61837.60","q":0.50,"m":true}"#,
            r#"{"p":null,"s":"\u0042, \"C\"\n"}"#,
            r#"{"s":["a",1],"p":{"x": 1}}"#,
            "[]",
            r#"{"s":9007199254740993,"p":12345678901234567890.10,"q":-0,"m":1e400}"#,
        ];
        assert_eq!(
            lines(r#"{"columns":["/s","/p","/q","/m"]}"#, &messages),
            [
                "BTCUSDT,61837.60,0.50,true",
                "\"B, \"\"C\"\"\n\",,,",
                "\"[\"\"a\"\",1]\",\"{\"\"x\"\": 1}\",,",
                ",,,",
                "9007199254740993,12345678901234567890.10,-0,1e400"
            ]
        );
    }

    #[test]
    fn the_separator_is_configured() {
        let message = [r#"{"s":"a,b","p":"1;2","t":"c\td"}"#];
        assert_eq!(lines(r#"{"columns":["/s","/p"],"separator":";"}"#, &message), ["a,b;\"1;2\""]);
        assert_eq!(lines(r#"{"columns":["/s","/t"],"separator":"\t"}"#, &message), ["a,b\t\"c\td\""]);
    }

    #[test]
    fn a_binary_message_becomes_a_text() {
        let mut plugin = Harness::<Csv>::try_new(r#"{"columns":["/s"]}"#).unwrap();
        let processed = plugin.process([&br#"{"s":"x"}"#[..]]);
        assert_eq!((processed.sent[0].binary, processed.texts()), (false, vec!["x"]));
    }

    #[test]
    fn what_is_not_json_is_rejected() {
        let mut plugin = Harness::<Csv>::try_new(r#"{"columns":["/s"]}"#).unwrap();
        assert_eq!(plugin.process(["a,b"]).rejected, [(0, "not JSON (at byte 0)".to_owned())]);
    }

    #[test]
    fn more_columns_than_fields_can_be_are_refused() {
        let columns = |count: usize| {
            let pointers: Vec<_> = (0..count).map(|number| format!(r#""/{number}""#)).collect();
            Harness::<Csv>::try_new(&format!(r#"{{"columns":[{}]}}"#, pointers.join(","))).err()
        };
        assert_eq!(columns(64), None);
        let error = "the configuration names 65 JSON fields of each message, and 64 are the most";
        assert_eq!(columns(65).as_deref(), Some(error));
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        for (config, error) in [
            ("{}", "missing key `columns`"),
            (
                r#"{"columns":[]}"#,
                "`columns`: [] makes empty lines: name the fields, such as [\"/s\", \"/p\"]",
            ),
            (
                r#"{"columns":["/s","p"]}"#,
                "`columns[1]`: \"p\" is not a JSON pointer: it must start with `/`, like \"/p\"",
            ),
            (
                r#"{"columns":["/s"],"separator":", "}"#,
                "`separator`: \", \" cannot separate fields: take one character such as \",\", \";\" or \"\\t\"",
            ),
        ] {
            assert_eq!(Harness::<Csv>::try_new(config).err().as_deref(), Some(error));
        }
    }
}
