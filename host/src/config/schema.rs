//! The JSON Schema of the configuration file, for editors: made of the declarations of the tables.

use super::read::Table as _;
use super::root::Config;
use super::shape::{Absent, Key, Kind, Known, Shape, choices, known};
use serde_json::{Map, Value, json};

/// What a string must look like that stands for a value: one variable.
const VARIABLE: &str = r"^\$\{.+\}$";

/// The schema (draft 2020-12) of `tidemill.toml`. It says what each key may be; what several keys together
/// must be, `check` alone can tell.
pub fn schema() -> Value {
    let mut schema = table(Config::shape());
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "tidemill.toml".into();
    schema
}

/// A table: one object, or one for each choice that its deciding keys can make.
fn table(shape: &'static Shape) -> Value {
    let mut objects: Vec<Value> = choices(&shape.parts)
        .iter()
        .map(|choice| {
            let keys = known(&shape.parts, choice).into_iter().filter_map(|known| match known {
                Known::Key(key) => Some(key),
                Known::Later(_) => None,
            });
            let (mut properties, mut required) = (Map::new(), Vec::new());
            for key in keys {
                let word = choice.iter().find(|(tag, _)| *tag == key.name).map(|(_, word)| *word);
                let mut value = word.map_or_else(|| value(key), |word| json!({ "const": word }));
                value["description"] = key.doc.into();
                properties.insert(key.name.to_owned(), value);
                // Of a key that decides, the first word may be left out where it is the default.
                let is_default = |word| key.absent == Absent::Default(format!("\"{word}\""));
                if key.absent == Absent::Required || word.is_some_and(|word| !is_default(word)) {
                    required.push(key.name);
                }
            }
            json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
        })
        .collect();
    if objects.len() == 1 { objects.remove(0) } else { json!({ "oneOf": objects }) }
}

fn value(key: &Key) -> Value {
    let or_variable = |value: Value| json!({ "anyOf": [value, { "type": "string", "pattern": VARIABLE }] });
    let texts = || json!({ "type": "array", "items": { "type": "string" } });
    let mut schema = match &key.kind {
        Kind::Text | Kind::Path | Kind::Duration(_) | Kind::Size(..) => json!({ "type": "string" }),
        Kind::Bool => or_variable(json!({ "type": "boolean" })),
        Kind::Integer(least, most) => {
            or_variable(json!({ "type": "integer", "minimum": least, "maximum": most }))
        }
        Kind::Number(least, most) => {
            or_variable(json!({ "type": "number", "minimum": least, "maximum": most }))
        }
        Kind::OneOf(words) => or_variable(json!({ "enum": words() })),
        Kind::Texts => texts(),
        Kind::TextOrTexts => json!({ "anyOf": [{ "type": "string" }, texts()] }),
        Kind::Messages => json!({ "type": "array", "items": { "type": ["string", "object"] } }),
        Kind::Map => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::Json => json!({ "type": "object" }),
        Kind::Table(shape) => table(shape()),
        Kind::Tables(shape) => json!({ "type": "array", "items": table(shape()) }),
    };
    if let (Absent::Default(text), false) = (&key.absent, matches!(key.kind, Kind::Table(_)))
        && let Ok(default) = serde_json::from_str::<Value>(text)
    {
        schema["default"] = default;
    }
    schema
}
