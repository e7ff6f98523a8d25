//! WebSocket frames, as far as a load generator needs them: headers and masks.

/// A final text frame.
pub const TEXT: u8 = 0x81;
/// A final close frame.
pub const CLOSE: u8 = 0x88;
/// A final ping frame.
pub const PING: u8 = 0x89;
/// A final pong frame.
pub const PONG: u8 = 0x8a;

/// The longest header: two bytes, eight of length, four of mask.
pub const MAX_HEADER_BYTES: usize = 14;

const MASKED: u8 = 0x80;

/// What stands before a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The first byte: the final bit and the opcode.
    pub kind: u8,
    /// The mask of the payload; zeros where it has none.
    pub mask: [u8; 4],
    /// Length of the header itself.
    pub header_bytes: usize,
    /// Length of the payload after it.
    pub payload_bytes: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` until all of it is there.
    #[inline]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (&[kind, second], rest) = bytes.split_first_chunk()?;
        let (payload_bytes, length_bytes) = match second & !MASKED {
            126 => (u16::from_be_bytes(*rest.first_chunk()?) as usize, 2),
            127 => (u64::from_be_bytes(*rest.first_chunk()?) as usize, 8),
            short => (short as usize, 0),
        };
        let (mask, mask_bytes) = match second & MASKED {
            0 => ([0; 4], 0),
            _ => (*rest[length_bytes..].first_chunk()?, 4),
        };
        Some(Self { kind, mask, header_bytes: 2 + length_bytes + mask_bytes, payload_bytes })
    }

    /// Header and payload together.
    #[inline]
    pub fn frame_bytes(&self) -> usize {
        self.header_bytes + self.payload_bytes
    }
}

/// Appends a header; the payload after it is expected to be under the mask, if there is one.
pub fn write_header(out: &mut Vec<u8>, kind: u8, payload_bytes: usize, mask: Option<[u8; 4]>) {
    let masked = if mask.is_some() { MASKED } else { 0 };
    out.push(kind);
    match payload_bytes {
        0..=125 => out.push(masked | payload_bytes as u8),
        126..=0xffff => {
            out.push(masked | 126);
            out.extend_from_slice(&(payload_bytes as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
    out.extend(mask.into_iter().flatten());
}

/// Appends a payload without its mask.
pub fn unmask(out: &mut Vec<u8>, payload: &[u8], mask: [u8; 4]) {
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Whether the masked `payload` has `expected` at `at`.
#[inline]
pub fn masked_equals<const N: usize>(payload: &[u8], mask: [u8; 4], at: usize, expected: &[u8; N]) -> bool {
    let Some(bytes) = payload.get(at..).and_then(<[u8]>::first_chunk::<N>) else { return false };
    let key: [u8; N] = std::array::from_fn(|index| expected[index] ^ mask[(at + index) & 3]);
    *bytes == key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_back_and_never_too_early() {
        let masks = [None, Some([1, 2, 3, 4])];
        for (payload_bytes, mask) in
            [0, 125, 126, 65_535, 65_536].into_iter().flat_map(|n| masks.map(|m| (n, m)))
        {
            let mut bytes = Vec::new();
            write_header(&mut bytes, TEXT, payload_bytes, mask);
            let header = Header::read(&bytes).expect("a whole header");
            assert_eq!((header.kind, header.payload_bytes), (TEXT, payload_bytes));
            assert_eq!(header.mask, mask.unwrap_or_default());
            assert_eq!(header.header_bytes, bytes.len());
            assert_eq!(Header::read(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn masks_are_taken_off() {
        let frame = [TEXT, 0x85, 1, 2, 3, 4, b'h' ^ 1, b'e' ^ 2, b'l' ^ 3, b'l' ^ 4, b'o' ^ 1];
        let header = Header::read(&frame).expect("a whole header");
        let payload = &frame[header.header_bytes..];
        let mut text = Vec::new();
        unmask(&mut text, payload, header.mask);
        assert_eq!(text, b"hello");
        assert!(masked_equals(payload, header.mask, 1, b"ello"));
        assert!(!masked_equals(payload, header.mask, 2, b"ell"));
        assert!(!masked_equals(payload, header.mask, 3, b"lo, there"));
    }
}
