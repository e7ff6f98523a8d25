//! EncodedFrames as they are written: whole messages, one frame each (RFC 6455 section 5.2).
//!
//! tungstenite reads, and writes control frames; messages go out from here, because a server's are
//! encoded once for all its peers, and a client's are masked in one pass with masks drawn in bulk.
//! Why not fastwebsockets or yawc: the one has no polled interface, the other no frames encoded beforehand.

use crate::message::Payload;
use bytes::{BufMut, Bytes};
use rand::Rng as _;

/// A final frame of text, or of bytes.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
/// In the second byte: the payload is masked.
const MASKED: u8 = 0x80;
const MASK_BYTES: usize = 4;
/// Masks are drawn so many at a time.
const DRAWN_BYTES: usize = 256 * MASK_BYTES;
/// Masked at once.
const WORD_BYTES: usize = 16;

/// Masks that nobody can foresee (section 5.3), for one connection.
pub(crate) struct Masks {
    drawn: [u8; DRAWN_BYTES],
    used: usize,
}

impl Masks {
    pub(crate) fn new() -> Self {
        Self { drawn: [0; DRAWN_BYTES], used: DRAWN_BYTES }
    }

    #[inline]
    fn next(&mut self) -> [u8; MASK_BYTES] {
        if self.used == DRAWN_BYTES {
            rand::rng().fill_bytes(&mut self.drawn);
            self.used = 0;
        }
        let mut mask = [0; MASK_BYTES];
        mask.copy_from_slice(&self.drawn[self.used..self.used + MASK_BYTES]);
        self.used += MASK_BYTES;
        mask
    }
}

/// Whole frames in a row, as they go to a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EncodedFrames {
    pub(crate) bytes: Bytes,
    /// How many frames they are.
    pub(crate) count: u64,
}

/// Appends a frame as a server sends it.
#[inline]
pub(crate) fn encode(payload: &Payload, out: &mut impl BufMut) {
    put_header(payload, 0, out);
    out.put_slice(payload.as_bytes());
}

/// How long the frame is that a server sends.
#[inline]
pub(crate) fn encoded_bytes(payload: &Payload) -> usize {
    let length = payload.len();
    let extended = match length {
        0..=125 => 0,
        126..=0xffff => size_of::<u16>(),
        _ => size_of::<u64>(),
    };
    2 + extended + length
}

/// Appends a frame as a client sends it.
#[inline]
pub(crate) fn encode_masked(payload: &Payload, masks: &mut Masks, out: &mut Vec<u8>) {
    put_header(payload, MASKED, out);
    let mask = masks.next();
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload.as_bytes());
    apply(mask, &mut out[start..]);
}

#[inline]
fn put_header(payload: &Payload, masked: u8, out: &mut impl BufMut) {
    let length = payload.len();
    out.put_u8(if payload.is_text() { TEXT } else { BINARY });
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short <= 125 => out.put_u8(masked | short),
        (_, Ok(length)) => {
            out.put_u8(masked | 126);
            out.put_u16(length);
        }
        _ => {
            out.put_u8(masked | 127);
            out.put_u64(length as u64);
        }
    }
}

#[inline]
fn apply(mask: [u8; MASK_BYTES], bytes: &mut [u8]) {
    let mut word = [0; WORD_BYTES];
    word.as_chunks_mut().0.fill(mask);
    let word = u128::from_ne_bytes(word);
    let (words, rest) = bytes.as_chunks_mut::<WORD_BYTES>();
    for bytes in words {
        *bytes = (u128::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

    #[test]
    fn frames_are_those_of_the_protocol() {
        let mut masks = Masks::new();
        for length in [0, 1, 3, 15, 16, 17, 125, 126, 127, 255, 256, 65_535, 65_536] {
            for payload in [Payload::text("x".repeat(length)), Payload::binary(vec![0xff; length])] {
                let kind = if payload.is_text() { Data::Text } else { Data::Binary };
                let mut frame = Frame::message(payload.as_bytes().to_vec(), OpCode::Data(kind), true);
                let mut wanted = Vec::new();
                frame.clone().format(&mut wanted).expect("it is written");
                let mut encoded = Vec::new();
                encode(&payload, &mut encoded);
                assert!(encoded == wanted, "{length}");

                let mut encoded = Vec::new();
                encode_masked(&payload, &mut masks, &mut encoded);
                let head = encoded.len() - length - MASK_BYTES;
                frame.header_mut().mask = encoded[head..head + MASK_BYTES].try_into().ok();
                wanted.clear();
                frame.format(&mut wanted).expect("it is written");
                assert!(encoded == wanted, "{length} masked");
            }
        }
    }

    #[test]
    fn masks_do_not_come_again() {
        let mut masks = Masks::new();
        let some: HashSet<_> = (0..DRAWN_BYTES).map(|_| masks.next()).collect();
        // Of 1,024 out of 2^32, two are the same once in eight thousand times, and three never.
        assert!(some.len() + 2 > DRAWN_BYTES);
    }
}
