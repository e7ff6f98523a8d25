//! Names that stand twice in one object, where a field is behind them.
//!
//! Of two members with one name a field is found in the last, so that what is in the first would go on as it is, or be
//! lost.

use std::collections::BTreeSet;
use tidemill_plugin::json::{Pointers, Value};

/// Goes through a value, on the ways that lead to fields.
///
/// # Errors
/// The name that stands twice.
pub(crate) fn refuse(value: Value<'_>, fields: &Pointers) -> Result<(), String> {
    if !fields.is_followed() {
        return Ok(());
    }
    let mut seen = BTreeSet::new();
    for (name, value) in value.members() {
        // What is no text is no name of a pointer either.
        let Some(name) = name.string() else { continue };
        let Some(inside) = fields.inside(&name) else { continue };
        refuse(value, inside)?;
        if let Some(name) = seen.replace(name) {
            return Err(format!("{name:?} stands twice in one object"));
        }
    }
    for (place, value) in value.elements().enumerate() {
        if let Some(inside) = fields.inside(&place.to_string()) {
            refuse(value, inside)?;
        }
    }
    Ok(())
}
