//! What the plugins `encrypt` and `decrypt` have in common: a cipher, and what of a message it is applied to.
//!
//! `cipher.rs` seals bytes and opens them, and knows no messages. This file knows the configuration, which is the
//! same for both plugins, so that what the one writes the other reads. Where it cannot be known which of two members of a
//! message is meant, it is rejected (`ambiguity.rs`).

mod ambiguity;
mod cipher;

pub use cipher::{Chance, Cipher};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tidemill_plugin::json::{Pointers, Value};
use tidemill_plugin::{Description, Edit, Json, Message, Result};

/// The configuration of both plugins.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    key: String,
    #[serde(default)]
    fields: Vec<String>,
    #[serde(default)]
    format: Format,
}

/// How sealed bytes are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// As text, with padding (RFC 4648).
    #[default]
    Base64,
    /// As they are, in binary messages.
    Binary,
}

/// What of a message is sealed.
pub enum Target {
    /// All of it.
    Payload(Format),
    /// The values of these fields, as JSON.
    Fields(Members),
}

/// The fields of messages that are sealed.
pub struct Members {
    all: Vec<Member>,
    /// What leads to them.
    pointers: Pointers,
}

/// A field of messages, and the way to change it.
pub struct Member {
    /// Its JSON pointer.
    pub pointer: String,
    /// What a message has of it.
    pub field: Json,
    /// What a message gets in its place.
    pub edit: Edit,
}

impl Members {
    /// Those that a message may have, which is JSON.
    ///
    /// # Errors
    /// A name on the way to one of them stands twice in one object: it says so.
    pub fn of(&self, message: Message<'_>) -> Result<&[Member], String> {
        ambiguity::refuse(Value::of_checked(message.as_bytes().trim_ascii()), &self.pointers)?;
        Ok(&self.all)
    }
}

impl Config {
    /// Checks it, and asks for what it needs. What is sealed whole may be any bytes, what has fields is JSON.
    ///
    /// # Errors
    /// The key is none, a field is no member that could be changed, or the format does not go with fields.
    pub fn build(self, description: &mut Description) -> Result<(Cipher, Target)> {
        let cipher = Cipher::of_base64(&self.key)?;
        if self.fields.is_empty() {
            return Ok((cipher, Target::Payload(self.format)));
        }
        if self.format == Format::Binary {
            return Err("`format`: \"binary\" is for whole payloads, and a field is text: leave `format` or `fields` out".into());
        }
        description.only_json();
        let is_inside = |pointer: &str, other: &str| {
            pointer.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut pointers = Pointers::default();
        let mut members: Vec<Member> = Vec::with_capacity(self.fields.len());
        for (nth, pointer) in self.fields.into_iter().enumerate() {
            let named = |error: &dyn std::fmt::Display| format!("`fields[{nth}]`: {error}");
            let field = description.json(&pointer).map_err(|error| named(&error))?;
            if pointer.is_empty() {
                return Err(named(&"\"\" is the whole message: leave `fields` out for that").into());
            }
            let other = members
                .iter()
                .find(|other| is_inside(&pointer, &other.pointer) || is_inside(&other.pointer, &pointer));
            if let Some(Member { pointer: other, .. }) = other {
                return Err(
                    named(&format!("{pointer:?} and {other:?} are one in the other: leave one out")).into()
                );
            }
            pointers.add(&pointer).map_err(|error| named(&error))?;
            let edit = description.edit(&pointer).map_err(|error| named(&error))?;
            members.push(Member { pointer, field, edit });
        }
        Ok((cipher, Target::Fields(Members { all: members, pointers })))
    }
}

/// Sealed bytes as text.
pub fn to_base64(sealed: &[u8]) -> String {
    STANDARD.encode(sealed)
}

/// Sealed bytes out of text; none if it is not base64.
pub fn from_base64(text: impl AsRef<[u8]>) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}
