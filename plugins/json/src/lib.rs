//! Makes a JSON object of each line of CSV, whose fields are the members that `columns` names.
//!
//! With `types = "text"` all values are strings; with `"infer"` what is a JSON number, `true` or `false` stands as
//! it is, and what is empty is `null`. A message that is no line of CSV, or has another count of fields, is
//! rejected. One line break at its end does not matter.

use serde::Deserialize;
use std::collections::BTreeSet;
use tidemill_plugin::csv::Separator;
use tidemill_plugin::json::Fields;
use tidemill_plugin::{Description, Message, Out, Plugin, Result, export};

export!(FromCsv);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    columns: Vec<String>,
    #[serde(default)]
    separator: Separator,
    #[serde(default)]
    types: Types,
}

/// What the values become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Types {
    #[default]
    Text,
    Infer,
}

struct FromCsv {
    /// The names as JSON strings, with the colon behind them.
    names: Vec<String>,
    separator: Separator,
    types: Types,
}

impl Plugin for FromCsv {
    type Config = Config;

    fn new(config: Config, _: &mut Description) -> Result<Self> {
        if config.columns.is_empty() {
            return Err("`columns`: [] makes empty objects: name the fields, such as [\"s\", \"p\"]".into());
        }
        let mut known = BTreeSet::new();
        for (nth, name) in config.columns.iter().enumerate() {
            if !known.insert(name) {
                return Err(format!(
                    "`columns[{nth}]`: {name:?} is there twice: give each column its own name"
                )
                .into());
            }
        }
        let names = config.columns.iter().map(|name| serde_json::to_string(name).map(|name| name + ":"));
        Ok(Self { names: names.collect::<Result<_, _>>()?, separator: config.separator, types: config.types })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        let line = message.as_text().ok_or("not CSV: not UTF-8")?;
        let fields = self.separator.record(line)?;
        if fields.len() != self.names.len() {
            return Err(
                format!("the line has {} fields, and `columns` {}", fields.len(), self.names.len()).into()
            );
        }
        let mut object = out.emit().binary(false).text("{");
        for (nth, (name, field)) in self.names.iter().zip(&fields).enumerate() {
            object = object.text(if nth > 0 { "," } else { "" }).text(name);
            object = match self.types {
                Types::Infer if field.is_empty() => object.text("null"),
                Types::Infer if stands_for_itself(field) => object.text(field),
                _ => object.json(field.as_ref())?,
            };
        }
        object.text("}");
        Ok(())
    }
}

/// Whether a field is `true`, `false` or a number as JSON has them, however large.
fn stands_for_itself(field: &str) -> bool {
    match field.as_bytes() {
        b"true" | b"false" => true,
        [b'-' | b'0'..=b'9', .., b'0'..=b'9'] | [b'0'..=b'9'] => Fields::default().find(field).is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use std::collections::HashMap;
    use tidemill_plugin::testing::{Harness, Processed};

    const TWO: &str = r#"{"columns":["s","p"]}"#;
    const INFER: &str = r#"{"columns":["v"],"types":"infer"}"#;

    fn process(config: &str, line: &str) -> Processed {
        Harness::<FromCsv>::try_new(config).unwrap().process([line])
    }

    #[test]
    fn a_line_becomes_an_object() {
        for (line, object) in [
            ("BTC,61837.60", r#"{"s":"BTC","p":"61837.60"}"#),
            (",", r#"{"s":"","p":""}"#),
            ("\"a, \"\"b\"\"\nc\",true\r\n", r#"{"s":"a, \"b\"\nc","p":"true"}"#),
        ] {
            assert_eq!(process(TWO, line).texts(), [object]);
        }
        assert_eq!(process(r#"{"columns":["a\"b"],"separator":";"}"#, "1,5").texts(), [r#"{"a\"b":"1,5"}"#]);
        assert_eq!(process(r#"{"columns":["a"]}"#, "").texts(), [r#"{"a":""}"#]);
    }

    #[test]
    fn types_are_inferred_where_that_is_wanted() {
        for (field, value) in [
            ("0", "0"),
            ("-1.50", "-1.50"),
            ("1e-9", "1e-9"),
            ("12345678901234567890", "12345678901234567890"),
            ("true", "true"),
            ("false", "false"),
            ("", "null"),
            ("null", r#""null""#),
            ("True", r#""True""#),
            ("007", r#""007""#),
            ("+1", r#""+1""#),
            ("-", r#""-""#),
            (".5", r#"".5""#),
            ("1.", r#""1.""#),
            (" 1", r#"" 1""#),
            ("1 2", r#""1 2""#),
            ("NaN", r#""NaN""#),
            ("9007199254740993", "9007199254740993"),
            ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
            ("1e400", "1e400"),
        ] {
            assert_eq!(process(INFER, field).texts(), [format!(r#"{{"v":{value}}}"#)]);
        }
    }

    #[test]
    fn what_is_no_such_line_is_rejected() {
        for (line, reason) in [
            ("BTC", "the line has 1 fields, and `columns` 2"),
            ("BTC,1,2", "the line has 3 fields, and `columns` 2"),
            ("", "the line has 1 fields, and `columns` 2"),
            ("a,b\nc,d", "not a line of CSV: it has several lines"),
            ("a,\"b", "not CSV: the quote at byte 2 is not closed"),
            ("\"a\"b,c", "not CSV: at byte 3, behind a field in quotes, a separator is missing"),
        ] {
            assert_eq!(process(TWO, line).rejected, [(0, reason.to_owned())]);
        }
        let mut plugin = Harness::<FromCsv>::try_new(TWO).unwrap();
        assert_eq!(plugin.process([&b"\xff,1"[..]]).rejected, [(0, "not CSV: not UTF-8".to_owned())]);
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        for (config, error) in [
            (
                r#"{"columns":[]}"#,
                "`columns`: [] makes empty objects: name the fields, such as [\"s\", \"p\"]",
            ),
            (r#"{"columns":["s","s"]}"#, "`columns[1]`: \"s\" is there twice: give each column its own name"),
            (r#"{"columns":["s"],"types":"auto"}"#, "`types` must be \"text\" or \"infer\", got \"auto\""),
        ] {
            assert_eq!(Harness::<FromCsv>::try_new(config).err().as_deref(), Some(error));
        }
    }

    proptest! {
        #[test]
        fn texts_that_were_written_as_csv_come_back(fields in prop::array::uniform3(any::<String>())) {
            let mut line = String::new();
            Separator::default().append_record(fields.iter().map(|field| field.as_str().into()), &mut line);
            let processed = process(r#"{"columns":["a","b","c"]}"#, &line);
            let object: serde_json::Value = serde_json::from_str(processed.texts()[0]).unwrap();
            let expected = serde_json::json!({ "a": fields[0], "b": fields[1], "c": fields[2] });
            prop_assert_eq!(object, expected);
        }

        #[test]
        fn what_is_inferred_is_json(field in "[-+0-9.eE]{0,8}|[a-z]{0,6}|\\PC{0,8}") {
            let mut line = String::new();
            Separator::default().append_field(&field, &mut line);
            let processed = process(INFER, &line);
            let object: HashMap<String, Box<RawValue>> = serde_json::from_str(processed.texts()[0]).unwrap();
            let is_json = serde_json::from_str::<&RawValue>(&field).is_ok();
            let is_number = is_json && field.trim() == field && field.parse::<f64>().is_ok();
            prop_assert_eq!(object["v"].get() == field, is_number || matches!(&*field, "true" | "false" | "null"));
        }
    }
}
