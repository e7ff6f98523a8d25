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
//! let found = fields.find(r#"{"data":{"s":"BTC\u0055SDT","p":"61837.6"}}"#)?;
//! assert_eq!(found.get(price).and_then(|value| value.number()), Some(61837.6));
//! assert!(found.get(symbol).is_some_and(|value| value.is("BTCUSDT")));
//! assert!(fields.find(r#"{"data":{"s":"BTC"#).is_err());
//! # Ok::<(), tidemill_plugin::Error>(())
//! ```
//!
//! It takes a [`Message`] as it is, of which a binary one must be UTF-8. All of this is the crate
//! `tidemill-json`, with which the host reads messages, too.

pub use tidemill_json::{
    Document, Field, Fields, Found, Invalid, InvalidPointer, Kind, MAX_DEPTH, Pointers, Span, Value, names,
};

use crate::{Message, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

impl<'a> From<Message<'a>> for Document<'a> {
    #[inline]
    fn from(message: Message<'a>) -> Self {
        if message.is_text() { Self::known_utf8(message.as_bytes()) } else { message.as_bytes().into() }
    }
}

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
