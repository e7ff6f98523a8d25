//! `key` of a transform: what messages have in common that go to the same instance of its plugin.

use super::form::Element;
use super::read::TableReader;
use super::report::Span;
use super::{EndpointText, Redacted};

/// What stands before the name of metadata.
const METADATA: &str = "metadata:";

/// Where a message has its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageKey {
    /// At this JSON pointer in its payload.
    Pointer(Redacted),
    /// In its metadata, under this name.
    Metadata(Redacted),
}

impl MessageKey {
    fn parse(text: &Redacted) -> Option<Self> {
        if let Some(name) = text.expose().strip_prefix(METADATA) {
            let shown = text.shown().strip_prefix(METADATA).unwrap_or(text.shown());
            let is_name = !name.is_empty() && !name.contains(char::is_control);
            return is_name.then(|| Self::Metadata(Redacted::new(name, shown)));
        }
        // The empty pointer is the whole message, which is a key of no use.
        let is_pointer =
            text.expose().starts_with('/') && tidemill_json::Fields::default().add(text.expose()).is_ok();
        is_pointer.then(|| Self::Pointer(text.clone()))
    }
}

impl Element for MessageKey {
    type Value = Self;

    fn of(reader: &mut TableReader<'_, '_>, key: &str, text: EndpointText, at: &Span) -> Option<Self> {
        let parsed = Self::parse(text.known());
        if parsed.is_none() {
            reader.report.error_with_hint(
                at,
                format!("`{key}` must be a JSON pointer or the name of metadata, got \"{text}\""),
                "\"/data/s\" is what stands there in the message, \"metadata:room\" is its metadata",
            );
        }
        parsed
    }

    fn show(value: &Self) -> String {
        match value {
            Self::Pointer(pointer) => format!("\"{pointer}\""),
            Self::Metadata(name) => format!("\"{METADATA}{name}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_pointer_or_a_name_without_control_characters() {
        for right in ["/a", "/a~1b/0", "metadata:room", "metadata:a b"] {
            assert!(MessageKey::parse(&Redacted::plain(right)).is_some(), "{right}");
        }
        for wrong in ["", "a", "metadata:", "metadata:no\nline", "metadata:\u{7f}", "/~2"] {
            assert!(MessageKey::parse(&Redacted::plain(wrong)).is_none(), "{wrong}");
        }
    }
}
