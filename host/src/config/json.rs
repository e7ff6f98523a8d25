//! TOML as JSON: the configuration of plugins, and messages that are written as tables.
//!
//! Keys keep the order of the file, dates become strings, and what came from variables is hidden in
//! the second of the two texts.

use super::check::{Checker, in_file_order};
use super::interpolate::Filled;
use super::value::integer;
use toml::Spanned;
use toml::de::DeValue;

/// Writes a value as JSON, as it is and as it may be shown. `false` if something in it was reported.
pub(super) fn write(
    checker: &mut Checker<'_, '_>,
    key: &str,
    value: &Spanned<DeValue<'_>>,
    exposed: &mut String,
    shown: &mut String,
) -> bool {
    let mut both = |text: &str| {
        exposed.push_str(text);
        shown.push_str(text);
    };
    match value.get_ref() {
        DeValue::String(text) => {
            let Some(Filled { text, .. }) = checker.fill(key, text, &value.span()) else { return false };
            exposed.push_str(&quoted(text.expose()));
            shown.push_str(&quoted(text.shown()));
        }
        DeValue::Integer(number) => match integer(number) {
            Some(number) => both(&number.to_string()),
            None => {
                checker
                    .report
                    .error(&value.span(), format!("a number in `{key}` is larger than 64 bits hold"));
                return false;
            }
        },
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => both(&serde_json::Value::from(number).to_string()),
            _ => {
                checker
                    .report
                    .error(&value.span(), format!("a number in `{key}` is one that JSON does not have"));
                return false;
            }
        },
        DeValue::Boolean(value) => both(if *value { "true" } else { "false" }),
        DeValue::Datetime(date) => both(&quoted(&date.to_string())),
        DeValue::Array(elements) => {
            let mut is_right = true;
            both("[");
            for (index, element) in elements.iter().enumerate() {
                separate(index, exposed, shown);
                is_right &= write(checker, key, element, exposed, shown);
            }
            exposed.push(']');
            shown.push(']');
            return is_right;
        }
        DeValue::Table(table) => {
            let mut is_right = true;
            both("{");
            for (index, (name, value)) in in_file_order(table).into_iter().enumerate() {
                separate(index, exposed, shown);
                let quoted = quoted(name.get_ref());
                for out in [&mut *exposed, &mut *shown] {
                    out.push_str(&quoted);
                    out.push(':');
                }
                is_right &= write(checker, name.get_ref(), value, exposed, shown);
            }
            exposed.push('}');
            shown.push('}');
            return is_right;
        }
    }
    true
}

fn separate(index: usize, exposed: &mut String, shown: &mut String) {
    if index > 0 {
        exposed.push(',');
        shown.push(',');
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
