//! The bytes that are to be read as JSON, and whether they are known to be UTF-8.

use crate::Invalid;

/// The bytes of a message that is to be read as JSON.
///
/// JSON is UTF-8. Bytes that may be anything are checked for it; text is known to be.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    bytes: &'a [u8],
    is_utf8: bool,
}

impl<'a> Document<'a> {
    /// Bytes that somebody has checked to be UTF-8, such as the payload of a WebSocket text message.
    ///
    /// Should they not be, strings that are no UTF-8 are passed on as they came, and are no text.
    #[inline]
    pub fn known_utf8(bytes: &'a [u8]) -> Self {
        Self { bytes, is_utf8: true }
    }

    /// The bytes, whatever they are.
    #[inline]
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes, if they are UTF-8.
    #[inline]
    pub(crate) fn utf8(self) -> Result<&'a [u8], Invalid> {
        if self.is_utf8 || std::str::from_utf8(self.bytes).is_ok() {
            Ok(self.bytes)
        } else {
            Err(Invalid::NotUtf8)
        }
    }
}

impl<'a> From<&'a str> for Document<'a> {
    fn from(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), is_utf8: true }
    }
}

impl<'a> From<&'a String> for Document<'a> {
    fn from(text: &'a String) -> Self {
        Self::from(text.as_str())
    }
}

impl<'a> From<&'a [u8]> for Document<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { bytes, is_utf8: false }
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Document<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::from(bytes.as_slice())
    }
}

impl<'a> From<&'a Vec<u8>> for Document<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::from(bytes.as_slice())
    }
}
