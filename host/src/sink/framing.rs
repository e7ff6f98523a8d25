//! What a sink writes for a message: one frame each, or a JSON array of several.
//!
//! First the metadata is added, then messages are put together, then the whole is packed. Messages
//! themselves stay as they are, for another attempt or the dead letters.

use super::metadata_fields::{self, Fields};
use crate::config::{MessageType, Packing, WebSocketSink};
use crate::message::{Failed, Message, Payload};
use crate::packing::Packer;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut as _, BytesMut};
use serde::de::IgnoredAny;
use std::borrow::Cow;

/// Frames are slices of pieces of this size.
const PIECE_BYTES: usize = 16 << 10;

/// Makes the frames of one sink.
#[derive(Debug)]
pub(super) struct Framing {
    message_type: MessageType,
    /// What adds the metadata, if it is added.
    fields: Option<Fields>,
    packer: Option<Packer>,
    piece: BytesMut,
}

impl Framing {
    /// As a WebSocket sink is configured.
    pub(super) fn of(config: &WebSocketSink) -> Self {
        Self::new(config.message_type, config.include_metadata, config.packing)
    }

    pub(super) fn new(message_type: MessageType, include_metadata: bool, packing: Option<Packing>) -> Self {
        let fields = include_metadata.then(Fields::default);
        Self { message_type, fields, packer: packing.map(Packer::new), piece: BytesMut::new() }
    }

    /// Names that no message may bring itself where metadata is added, be they there or not.
    pub(super) fn reserve(&mut self, names: Vec<String>) {
        if let Some(fields) = &mut self.fields {
            fields.reserved = names;
        }
    }

    /// A message that goes into a frame of its own, as the type of frame the sink sends. One that cannot
    /// be sent has failed.
    #[inline]
    pub(super) fn typed(&self, message: Message) -> Result<Message, Failed> {
        match self.message_type {
            MessageType::Auto => Ok(message),
            MessageType::Binary => Ok(message.into_binary()),
            MessageType::Text => message.into_text("not UTF-8, and the sink sends text"),
        }
    }

    /// The frame of one typed message.
    #[inline]
    pub(super) fn frame<'m>(&mut self, message: &'m Message) -> Cow<'m, Payload> {
        if self.fields.is_none() && self.packer.is_none() {
            return Cow::Borrowed(&message.payload);
        }
        Cow::Owned(self.made_frame(message))
    }

    fn made_frame(&mut self, message: &Message) -> Payload {
        let payload = &message.payload;
        let has_fields = self.fields.as_ref().is_some_and(|fields| {
            self.piece.reserve(PIECE_BYTES.max(payload.len()));
            fields.append(payload.as_bytes(), &message.metadata, &mut self.piece)
        });
        match (&mut self.packer, has_fields) {
            (None, false) => payload.clone(),
            (None, true) => self.cut(payload.is_text()),
            (Some(packer), false) => Payload::binary(packer.pack(payload.as_bytes())),
            (Some(packer), true) => {
                let packed = packer.pack(&self.piece);
                self.piece.clear();
                Payload::binary(packed)
            }
        }
    }

    /// One frame of as many messages as fit into `max_bytes` before it is packed, and of at least one;
    /// and how many those are.
    pub(super) fn array<'m>(
        &mut self,
        messages: impl IntoIterator<Item = &'m Message>,
        max_bytes: usize,
    ) -> (Payload, usize) {
        self.piece.reserve(PIECE_BYTES);
        let mut count = 0;
        for message in messages {
            let before = self.piece.len();
            self.piece.put_u8(if count == 0 { b'[' } else { b',' });
            self.element(message);
            if count > 0 && self.piece.len() >= max_bytes {
                self.piece.truncate(before);
                break;
            }
            count += 1;
        }
        self.piece.put_u8(b']');
        let frame = match &mut self.packer {
            None => self.cut(self.message_type != MessageType::Binary),
            Some(packer) => {
                let packed = packer.pack(&self.piece);
                self.piece.clear();
                Payload::binary(packed)
            }
        };
        (frame, count)
    }

    /// Appends a message as it stands in an array.
    fn element(&mut self, message: &Message) {
        let payload = &message.payload;
        let bytes = payload.as_bytes();
        if let Some(fields) = &self.fields
            && fields.append(bytes, &message.metadata, &mut self.piece)
        {
            return;
        }
        let is_utf8 = payload.is_text() || std::str::from_utf8(bytes).is_ok();
        if is_utf8 && serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
            self.piece.put_slice(bytes);
        } else if let Some(text) = payload.as_text() {
            metadata_fields::put_string(text, &mut self.piece);
        } else {
            self.piece.put_slice(b"{\"$binary\":\"");
            self.piece.put_slice(BASE64_STANDARD.encode(bytes).as_bytes());
            self.piece.put_slice(b"\"}");
        }
    }

    /// What was written into the piece. JSON out of JSON texts, or of text and JSON, is text.
    fn cut(&mut self, is_text: bool) -> Payload {
        let bytes = self.piece.split().freeze();
        if is_text { Payload::checked_text(bytes) } else { Payload::binary(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::metadata::Metadata;
    use crate::packing::Unpacker;

    fn message(payload: Payload) -> Message {
        Message { payload, metadata: Metadata::without_origin(7_000) }
    }

    fn texts(texts: &[&str]) -> Vec<Message> {
        texts.iter().map(|text| message(Payload::text(*text))).collect()
    }

    #[test]
    fn a_message_nobody_changes_is_sent_as_it_is() {
        let mut framing = Framing::new(MessageType::Auto, false, None);
        let message = message(Payload::text("text"));
        assert_eq!(framing.frame(&message).as_bytes().as_ptr(), message.payload.as_bytes().as_ptr());
    }

    #[test]
    fn metadata_is_added_then_all_is_packed_into_a_binary_frame() {
        let mut framing = Framing::new(MessageType::Auto, true, Some(Packing::Zlib));
        for text in ["{\"a\":1}", "no object"] {
            let message = message(Payload::text(text));
            let frame = framing.frame(&message);
            assert!(!frame.is_text());
            let unpacked = Unpacker::new(Packing::Zlib, 1000).unpack(frame.as_bytes()).expect("it is packed");
            let wanted = if text.starts_with('{') { "{\"a\":1,\"__meta_ingest_time\":7}" } else { text };
            assert_eq!(unpacked, wanted);
        }
    }

    #[test]
    fn arrays_hold_json_as_it_is_and_the_rest_as_strings_or_base64() {
        let mut framing = Framing::new(MessageType::Auto, false, None);
        let mut messages = texts(&["{\"a\": 1}", "say \"hi\"", "1e3"]);
        messages.push(message(Payload::binary(&b"\xff"[..])));
        messages.push(message(Payload::binary(&b"[2]"[..])));
        messages.push(message(Payload::binary(&b"plain"[..])));
        let (frame, count) = framing.array(&messages, 1000);
        let wanted = r#"[{"a": 1},"say \"hi\"",1e3,{"$binary":"/w=="},[2],{"$binary":"cGxhaW4="}]"#;
        assert_eq!((frame, count), (Payload::text(wanted), 6));
        assert_eq!(framing.array(&messages[..1], 1000).0, Payload::text("[{\"a\": 1}]"));
    }

    #[test]
    fn an_array_keeps_to_its_bytes_and_one_larger_message_goes_alone() {
        let mut framing = Framing::new(MessageType::Binary, false, None);
        let messages = texts(&["11", "22", "33"]);
        assert_eq!(framing.array(&messages, 7), (Payload::binary("[11,22]"), 2));
        assert_eq!(framing.array(&messages, 6), (Payload::binary("[11]"), 1));
        assert_eq!(framing.array(&messages, 1), (Payload::binary("[11]"), 1));
    }

    #[test]
    fn an_array_of_messages_with_metadata_is_packed_as_a_whole() {
        let mut framing = Framing::new(MessageType::Text, true, Some(Packing::Gzip));
        let (frame, count) = framing.array(&texts(&["{}", "[]"]), 1000);
        let unpacked = Unpacker::new(Packing::Gzip, 1000).unpack(frame.as_bytes()).expect("it is packed");
        assert_eq!((unpacked.as_ref(), count), (&b"[{\"__meta_ingest_time\":7},[]]"[..], 2));
    }
}
