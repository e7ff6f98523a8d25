//! Fields of JSON messages, found without building a tree.
//!
//! [`Fields`] is a set of JSON pointers, compiled once. [`Fields::find`] goes over a message once, checks
//! all of it, and gives what stands at each pointer as a slice of the message:
//!
//! ```
//! use tidemill_plugin::json::Fields;
//!
//! let mut fields = Fields::default();
//! let price = fields.add("/data/p")?;
//! let symbol = fields.add("/data/s")?;
//!
//! let found = fields.find(br#"{"data":{"s":"BTC\u0055SDT","p":"61837.6"}}"#)?;
//! assert_eq!(found.get(price).and_then(|value| value.number()), Some(61837.6));
//! assert!(found.get(symbol).is_some_and(|value| value.is("BTCUSDT")));
//! assert!(fields.find(br#"{"data":{"s":"BTC"#).is_err());
//! # Ok::<(), tidemill_plugin::Error>(())
//! ```
//!
//! The whole document is checked against RFC 8259, what no pointer names included, so that garbage and
//! what was cut short are seen. Of two members with one name the last counts, as in JavaScript and in
//! `serde_json`. More than [`MAX_DEPTH`] levels of nesting are refused. That strings are UTF-8 is not
//! checked again: text messages are; see [`Fields::find`].

mod chunk;
mod fields;
mod number;
mod scan;
mod string;
mod value;

pub use fields::{Field, Fields, Found, InvalidPointer};
pub use scan::{Invalid, MAX_DEPTH};
pub use value::{Kind, Value};

use crate::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value as JSON: a plain way to make a [snapshot](crate::Plugin::snapshot).
///
/// # Errors
/// The value has no form in JSON, such as a map whose keys are no strings.
pub fn encode(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

/// A value out of JSON, as [`encode`] made it; a floating-point number may differ in its last bit.
///
/// # Errors
/// It is not JSON, or not of that shape.
pub fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    Ok(serde_json::from_slice(json)?)
}
