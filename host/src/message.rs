//! A message: its payload, and the metadata it carries.
//!
//! Payloads are reference-counted slices of what a socket or a plugin returned, so that a message
//! can go to several sinks, or wait for its outcome, without a copy. A text payload is always valid
//! UTF-8: whoever makes one has checked it, and nobody checks it twice.

pub mod metadata;
pub mod reply;

use crate::reason::Reason;
use bytes::Bytes;
use metadata::Metadata;
use tidemill_json::Document;

/// A payload and its metadata, on the way from a source to the sinks.
#[derive(Clone, Debug)]
pub struct Message {
    /// The payload of the message.
    pub payload: Payload,
    /// The metadata: where the message came from, and what plugins said of it.
    pub metadata: Metadata,
}

/// A message that went no further, on its way to the dead letters.
#[derive(Clone, Debug)]
pub struct Failed {
    /// The message that was not delivered.
    pub message: Message,
    /// Why, as the counters have it.
    pub reason: Reason,
    /// Why, for a person.
    pub detail: String,
}

/// The bytes of a message, and whether they are text.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    bytes: Bytes,
    is_text: bool,
}

impl Payload {
    /// Makes a text payload.
    pub fn text(text: impl Into<String>) -> Self {
        Self { bytes: Bytes::from(text.into()), is_text: true }
    }

    /// Makes a binary payload.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), is_text: false }
    }

    /// A text payload out of bytes that were found to be UTF-8 before: by the WebSocket layer when
    /// it read the frame, or by the check of a plugin's columns.
    pub fn checked_text(bytes: Bytes) -> Self {
        debug_assert!(std::str::from_utf8(&bytes).is_ok(), "a text payload must be UTF-8");
        Self { bytes, is_text: true }
    }

    /// A text payload, if the bytes are UTF-8.
    ///
    /// # Errors
    /// The bytes as they came, if they are not.
    pub fn try_text(bytes: Bytes) -> Result<Self, Bytes> {
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Self { bytes, is_text: true }),
            Err(_) => Err(bytes),
        }
    }

    /// Whether this is a text message.
    #[inline]
    pub fn is_text(&self) -> bool {
        self.is_text
    }

    /// The bytes of the payload; those of a text are UTF-8.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The text, if this is a text message.
    ///
    /// Checks the bytes again: for readers off the hot path.
    pub fn as_text(&self) -> Option<&str> {
        self.is_text.then(|| std::str::from_utf8(&self.bytes).expect("a text payload is UTF-8"))
    }

    /// The payload as what may be JSON.
    #[inline]
    pub fn document(&self) -> Document<'_> {
        if self.is_text { Document::known_utf8(&self.bytes) } else { Document::from(&self.bytes[..]) }
    }

    /// The bytes, without a copy.
    #[inline]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The length of the payload in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A copy that shares memory with nothing.
    ///
    /// A received payload is a slice of the chunk the socket was read into, and keeps all of it
    /// alive: what is kept longer than a batch is detached first.
    pub fn detached(&self) -> Self {
        Self { bytes: Bytes::copy_from_slice(&self.bytes), is_text: self.is_text }
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.as_text() {
            Some(text) => write!(f, "{text:?}"),
            None => write!(f, "{:?}", self.bytes),
        }
    }
}

impl Message {
    /// The same with a text payload.
    ///
    /// # Errors
    /// If it is not UTF-8: it has failed then, for the reason `decode` and with this detail.
    #[inline]
    pub fn into_text(self, detail: &str) -> Result<Self, Failed> {
        if self.payload.is_text() {
            return Ok(self);
        }
        let metadata = self.metadata;
        match Payload::try_text(self.payload.into_bytes()) {
            Ok(payload) => Ok(Self { payload, metadata }),
            Err(bytes) => {
                let message = Self { payload: Payload::binary(bytes), metadata };
                Err(Failed { message, reason: Reason::Decode, detail: detail.to_owned() })
            }
        }
    }

    /// Makes a message with a binary payload.
    #[inline]
    pub fn into_binary(self) -> Self {
        Self { payload: Payload::binary(self.payload.into_bytes()), ..self }
    }

    /// A copy whose payload shares memory with nothing; see [`Payload::detached`].
    pub fn detached(&self) -> Self {
        Self { payload: self.payload.detached(), metadata: self.metadata.clone() }
    }
}
