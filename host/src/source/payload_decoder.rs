//! What becomes of a payload before it is a message: it is unpacked, and made what the codec says.

use crate::config::{Codec, WebSocketSource};
use crate::message::{Failed, Message, Payload};
use crate::packing::{UnpackError, Unpacker};
use crate::reason::Reason;
use serde::de::IgnoredAny;

/// Turns the payloads of one source into messages.
#[derive(Debug)]
pub(super) struct PayloadDecoder {
    unpacker: Option<Unpacker>,
    codec: Codec,
}

impl PayloadDecoder {
    pub(super) fn new(config: &WebSocketSource, max_message_size_bytes: usize) -> Self {
        let unpacker = |packing| Unpacker::new(packing, max_message_size_bytes);
        Self { unpacker: config.packing.map(unpacker), codec: config.codec }
    }

    /// Unpacks the payload, and makes of it what the codec says it is.
    #[inline]
    pub(super) fn decode(&mut self, message: Message) -> Result<Message, Failed> {
        let is_plain = self.unpacker.is_none() && self.codec == Codec::Auto;
        if is_plain { Ok(message) } else { self.made(message) }
    }

    fn made(&mut self, message: Message) -> Result<Message, Failed> {
        let message = match &mut self.unpacker {
            Some(unpacker) => unpacked(unpacker, message)?,
            None => message,
        };
        typed(self.codec, message)
    }
}

fn unpacked(unpacker: &mut Unpacker, message: Message) -> Result<Message, Failed> {
    match unpacker.unpack(message.payload.as_bytes()) {
        Ok(bytes) => Ok(Message { payload: Payload::binary(bytes), ..message }),
        Err(error) => {
            let reason = match error {
                UnpackError::TooLarge(_) => Reason::TooLarge,
                UnpackError::Broken { .. } => Reason::Decode,
            };
            Err(Failed { message, reason, detail: error.to_string() })
        }
    }
}

/// Makes of a payload what the codec says it is.
fn typed(codec: Codec, message: Message) -> Result<Message, Failed> {
    match codec {
        Codec::Auto => Ok(message),
        Codec::Bytes => Ok(message.into_binary()),
        Codec::Text => message.into_text("not UTF-8"),
        Codec::Json => match json_error(&message.payload) {
            None => Ok(message),
            Some(error) => {
                Err(Failed { message, reason: Reason::Decode, detail: format!("not JSON: {error}") })
            }
        },
    }
}

/// Why a payload is not JSON, which is UTF-8: nobody looks at that in strings that are skipped.
fn json_error(payload: &Payload) -> Option<String> {
    if !payload.is_text()
        && let Err(error) = std::str::from_utf8(payload.as_bytes())
    {
        return Some(error.to_string());
    }
    serde_json::from_slice::<IgnoredAny>(payload.as_bytes()).err().map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::metadata::Metadata;

    fn decoded(codec: Codec, payload: Payload) -> Result<Payload, String> {
        let message = Message { payload, metadata: Metadata::without_origin(0) };
        typed(codec, message).map(|message| message.payload).map_err(|failed| failed.detail)
    }

    #[test]
    fn codecs_take_what_they_are_named_for() {
        let (text, bytes) = (Payload::text("[1]"), Payload::binary(vec![0xff]));
        assert_eq!(decoded(Codec::Auto, bytes.clone()), Ok(bytes.clone()));
        assert_eq!(decoded(Codec::Bytes, text.clone()), Ok(Payload::binary("[1]")));
        assert_eq!(decoded(Codec::Text, Payload::binary("[1]")), Ok(text.clone()));
        assert_eq!(decoded(Codec::Text, bytes.clone()), Err("not UTF-8".to_owned()));
        assert_eq!(decoded(Codec::Json, text.clone()), Ok(text));
        assert!(decoded(Codec::Json, bytes).is_err());
        let not_text = Payload::binary(&b"{\"name\":\"caf\xe9\"}"[..]);
        let error = decoded(Codec::Json, not_text).expect_err("JSON is UTF-8");
        assert!(error.starts_with("not JSON: invalid utf-8 sequence"), "{error}");
    }
}
