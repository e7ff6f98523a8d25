//! The keys of messages, by which they are shared out among the instances of a stage.

use crate::config::MessageKey;
use crate::message::Message;
use crate::plugin::StatePart;
use std::borrow::Cow;
use tidemill_json::{Field, Fields, Kind};

/// Finds the key of each message. A message without one has the key "".
#[derive(Debug)]
pub(super) enum KeyReader {
    Payload { fields: Fields, field: Field },
    Metadata(String),
}

impl KeyReader {
    pub(super) fn new(key: &MessageKey) -> Self {
        match key {
            MessageKey::Metadata(name) => Self::Metadata(name.expose().to_owned()),
            MessageKey::Pointer(pointer) => {
                let mut fields = Fields::default();
                let field = fields.add(pointer.expose()).expect("the configuration has refused what is none");
                Self::Payload { fields, field }
            }
        }
    }

    /// Which of so many parts a message belongs to. Its key is what a string says, its escapes read, or a number, `true`
    /// or `false` as it stands; anything else is no key.
    #[inline]
    pub(super) fn part_of(&mut self, message: &Message, parts: usize) -> usize {
        match self {
            Self::Metadata(name) => StatePart::of_key(message.metadata.get(name).as_bytes(), parts),
            Self::Payload { fields, field } => {
                let found = fields.find(message.payload.document()).ok();
                let key = found.and_then(|found| found.get(*field)).and_then(|value| match value.kind() {
                    Kind::String => value.string().map(|text| match text {
                        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                    }),
                    Kind::Number | Kind::Bool => Some(Cow::Borrowed(value.raw())),
                    Kind::Null | Kind::Array | Kind::Object => None,
                });
                StatePart::of_key(key.as_deref().unwrap_or_default(), parts)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Redacted;
    use crate::message::Payload;
    use crate::message::metadata::{Metadata, Origin};

    const PARTS: usize = 1 << 20;

    #[test]
    fn a_key_is_a_text_a_number_or_a_boolean_and_everything_else_is_none() {
        let mut keys = KeyReader::new(&MessageKey::Pointer(Redacted::plain("/data/s")));
        let mut part = |payload: Payload| {
            let metadata = Metadata::without_origin(0);
            keys.part_of(&Message { payload, metadata }, PARTS)
        };
        for (payload, key) in [
            (r#"{"data":{"s":"BTC"}}"#, "BTC"),
            (r#"{"data":{"s":"\u0042T\u0043"}}"#, "BTC"),
            (r#"{"data":{"s":"ż"}}"#, "ż"),
            (r#"{"data":{"s": 7.50 }}"#, "7.50"),
            (r#"{"data":{"s":true}}"#, "true"),
            (r#"{"data":{"s":null}}"#, ""),
            (r#"{"data":{"s":["BTC"]}}"#, ""),
            (r#"{"data":{"s":{}}}"#, ""),
            (r#"{"data":{"s":""}}"#, ""),
            (r#"{"data":"BTC"}"#, ""),
            (r#"{"data":{"s":"BTC"}"#, ""),
            ("", ""),
        ] {
            let expected = StatePart::of_key(key.as_bytes(), PARTS);
            assert_eq!(part(Payload::text(payload)), expected, "{payload}");
            assert_eq!(part(Payload::binary(payload)), expected, "{payload} as bytes");
        }
        assert_eq!(part(Payload::binary(&b"\xff"[..])), StatePart::of_key(b"", PARTS));
    }

    #[test]
    fn a_key_may_be_metadata_of_the_origin_or_of_a_plugin() {
        let mut keys = KeyReader::new(&MessageKey::Metadata(Redacted::plain("room")));
        let mut message = Message {
            payload: Payload::text("x"),
            metadata: Metadata::new(Origin::new([("room", "lobby")]), 0),
        };
        assert_eq!(keys.part_of(&message, PARTS), StatePart::of_key(b"lobby", PARTS));
        message.metadata.set(&"room".into(), "attic");
        assert_eq!(keys.part_of(&message, PARTS), StatePart::of_key(b"attic", PARTS));
        message.metadata.set(&"room".into(), "");
        assert_eq!(keys.part_of(&message, PARTS), StatePart::of_key(b"", PARTS));
    }
}
