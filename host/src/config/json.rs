//! TOML as JSON: the configuration of plugins, and messages that are written as tables.
//!
//! Keys keep the order of the file, dates become strings, and what came from variables is hidden in
//! the second of the two texts.

use super::EndpointText;
use super::interpolate::{Files, Interpolated};
use super::read::{TableReader, in_file_order, integer};
use toml::Spanned;
use toml::de::DeValue;

/// Writes the value of a key, or a part of it, as JSON: `part` is what errors name. `false` if something in
/// it was reported.
pub(super) fn write(
    reader: &mut TableReader<'_, '_>,
    files: Files,
    part: &str,
    value: &Spanned<DeValue<'_>>,
    json: &mut EndpointText,
) -> bool {
    match value.get_ref() {
        DeValue::String(text) => {
            let filled = reader.fill(part, files, text, &value.span());
            let Some(Interpolated { text, .. }) = filled else { return false };
            // Data is read as a whole once all of it is known; where it cannot be, is told of the key that names it.
            if files == Files::Data
                && let Err(error) = text.with_data()
            {
                let hint = "it is data for the plugin, read whenever the plugin is loaded";
                reader.report.error_with_hint(&value.span(), format!("`{part}`: {error}"), hint);
                return false;
            }
            json.push_quoted(&text);
        }
        DeValue::Integer(number) => match integer(number) {
            Some(number) => json.push(&number.to_string()),
            None => {
                reader
                    .report
                    .error(&value.span(), format!("a number in `{part}` is larger than 64 bits hold"));
                return false;
            }
        },
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => json.push(&serde_json::Value::from(number).to_string()),
            _ => {
                reader
                    .report
                    .error(&value.span(), format!("a number in `{part}` is one that JSON does not have"));
                return false;
            }
        },
        DeValue::Boolean(value) => json.push(if *value { "true" } else { "false" }),
        DeValue::Datetime(date) => json.push(&quoted(&date.to_string())),
        DeValue::Array(elements) => {
            let mut is_right = true;
            json.push("[");
            for (index, element) in elements.iter().enumerate() {
                separate(index, json);
                is_right &= write(reader, files, part, element, json);
            }
            json.push("]");
            return is_right;
        }
        DeValue::Table(table) => {
            let mut is_right = true;
            json.push("{");
            for (index, (name, value)) in in_file_order(table).into_iter().enumerate() {
                separate(index, json);
                let name_and_colon = quoted(name.get_ref()) + ":";
                json.push(&name_and_colon);
                is_right &= write(reader, files, name.get_ref(), value, json);
            }
            json.push("}");
            return is_right;
        }
    }
    true
}

fn separate(index: usize, json: &mut EndpointText) {
    if index > 0 {
        json.push(",");
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
