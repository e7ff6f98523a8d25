//! JSON as the tree of values that the text of a file is read as.
//!
//! The place of a value in the tree is no range of a text: it is its number, in the order of the JSON, and for
//! each number the JSON pointer (RFC 6901) is kept. A key has the number of its value.

use super::report::{Finding, Span};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// A JSON value as it was written: names may be there twice, and numbers are their text.
#[derive(Debug)]
pub(super) enum JsonValue {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

/// What the values of a JSON text are to the reader of files.
#[derive(Debug)]
pub(super) struct JsonTree<'j> {
    pub(super) value: Spanned<DeValue<'j>>,
    /// The JSON pointer of each value, by the start of its place.
    pub(super) pointers: Vec<String>,
    /// What no configuration has: nulls, and names that are there twice.
    pub(super) found: Vec<Finding>,
}

impl<'j> JsonTree<'j> {
    pub(super) fn of(json: &'j JsonValue) -> Self {
        let mut numbered = Numbered::default();
        let value = numbered.value(json);
        Self { value, pointers: numbered.pointers, found: numbered.found }
    }
}

/// The values that were numbered so far.
#[derive(Default)]
struct Numbered {
    pointers: Vec<String>,
    found: Vec<Finding>,
    /// The pointer of the value that is next.
    pointer: String,
}

impl Numbered {
    fn value<'j>(&mut self, json: &'j JsonValue) -> Spanned<DeValue<'j>> {
        let number = self.pointers.len();
        let at = number..number + 1;
        self.pointers.push(self.pointer.clone());
        let value = match json {
            JsonValue::Null => {
                self.report(
                    &at,
                    "null is no value of the configuration".to_owned(),
                    Some("leave the key out"),
                );
                DeValue::Boolean(false)
            }
            JsonValue::Bool(value) => DeValue::Boolean(*value),
            // A number of JSON is one of TOML, too.
            JsonValue::Number(text) => {
                DeValue::parse(text).map_or(DeValue::Boolean(false), Spanned::into_inner)
            }
            JsonValue::Text(text) => DeValue::String(text.into()),
            JsonValue::Array(elements) => {
                let elements = elements.iter().enumerate();
                let array: DeArray<'_> =
                    elements.map(|(index, element)| self.inner(&index.to_string(), element)).collect();
                DeValue::Array(array)
            }
            JsonValue::Object(entries) => {
                let mut table = DeTable::new();
                for (name, value) in entries {
                    let value = self.inner(name, value);
                    if table.contains_key(name.as_str()) {
                        self.report(&value.span(), format!("duplicate key `{name}`"), None);
                    }
                    table.insert(Spanned::new(value.span(), name.into()), value);
                }
                DeValue::Table(table)
            }
        };
        Spanned::new(at, value)
    }

    /// A value one step further down.
    fn inner<'j>(&mut self, step: &str, json: &'j JsonValue) -> Spanned<DeValue<'j>> {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&step.replace('~', "~0").replace('/', "~1"));
        let value = self.value(json);
        self.pointer.truncate(length);
        value
    }

    fn report(&mut self, at: &Span, message: String, hint: Option<&str>) {
        self.found.push(Finding { at: at.clone(), message, hint: hint.map(str::to_owned) });
    }
}

impl<'de> Deserialize<'de> for JsonValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

/// Takes any value.
struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = JsonValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<JsonValue, E> {
        Ok(JsonValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<JsonValue, E> {
        Ok(JsonValue::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<JsonValue, E> {
        Ok(JsonValue::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<JsonValue, E> {
        Ok(JsonValue::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<JsonValue, E> {
        Ok(JsonValue::Number(format!("{value:?}")))
    }

    fn visit_str<E>(self, value: &str) -> Result<JsonValue, E> {
        Ok(JsonValue::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<JsonValue, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = elements.next_element()? {
            array.push(element);
        }
        Ok(JsonValue::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<JsonValue, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            object.push(entry);
        }
        Ok(JsonValue::Object(object))
    }
}
