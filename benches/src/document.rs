//! The messages of a measurement: trades as JSON, numbered and stamped in place.
//!
//! A document is rendered once. The digits of its time and its number have a fixed width, so that a
//! new message is a matter of overwriting 28 bytes, and both stay exact in a JavaScript number.

use std::fmt::Write as _;

/// Digits of a stamp.
pub const STAMP_DIGITS: usize = 16;
/// Digits of a sequence number.
pub const SEQUENCE_DIGITS: usize = 12;

/// Added to nanoseconds so that every stamp has all its digits; below 2^53 for the first ninety days.
const STAMP_BASE: u64 = 1_000_000_000_000_000;
/// Added to the count so that every number has all its digits.
const SEQUENCE_BASE: u64 = 100_000_000_000;

/// Documents above this size carry an order book; it grows until the size is reached.
const FLAT_SIZE_BYTES: usize = 200;
/// Of the field that pads a document to its size, without its text: `,"p":""`.
const PADDING_OVERHEAD_BYTES: usize = 7;

/// A trade of a given size, and where its changing digits stand.
#[derive(Clone, Debug)]
pub struct Document {
    /// The JSON text.
    pub text: String,
    /// Where the digits of `ts` start.
    pub stamp_at: usize,
    /// Where the digits of `seq` start.
    pub sequence_at: usize,
}

impl Document {
    /// A trade of `size_bytes`, or up to seven bytes less where no padding fits.
    ///
    /// 100 bytes are a flat trade. Larger ones carry bids as numbers and asks as strings, half of
    /// each, so that the cost of parsing grows as it does with real documents.
    pub fn new(size_bytes: usize) -> Self {
        let mut text = format!("{{\"ts\":{STAMP_BASE}");
        let stamp_at = text.len() - STAMP_DIGITS;
        let _ = write!(text, ",\"seq\":{SEQUENCE_BASE}");
        let sequence_at = text.len() - SEQUENCE_DIGITS;
        text.push_str(",\"sym\":\"BTCUSDT\",\"price\":123.45,\"qty\":1.5,\"side\":\"buy\"");
        if size_bytes > FLAT_SIZE_BYTES {
            text.push_str(&order_book(size_bytes - text.len() - 1));
        }
        let room = size_bytes.saturating_sub(text.len() + 1);
        if room >= PADDING_OVERHEAD_BYTES {
            let _ = write!(text, ",\"p\":\"{}\"", "x".repeat(room - PADDING_OVERHEAD_BYTES));
        }
        text.push('}');
        Self { text, stamp_at, sequence_at }
    }
}

/// `,"bids":[..],"asks":[..]` with as many levels as fit into `room_bytes`.
fn order_book(room_bytes: usize) -> String {
    let (mut bids, mut asks) = (String::new(), String::new());
    let frame_bytes = ",\"bids\":[],\"asks\":[]".len();
    for level in 0_u32.. {
        let separator = if level == 0 { "" } else { "," };
        let step = f64::from(level % 100) / 100.0;
        let bid = format!("{separator}[{:.2},{}.{:03}]", 123.44 - step, 1 + level % 9, 125 + level % 800);
        let ask =
            format!("{separator}[\"{:.2}\",\"{}.{:03}\"]", 123.46 + step, 1 + level % 7, 250 + level % 700);
        if frame_bytes + bids.len() + asks.len() + bid.len() + ask.len() > room_bytes {
            break;
        }
        bids.push_str(&bid);
        asks.push_str(&ask);
    }
    format!(",\"bids\":[{bids}],\"asks\":[{asks}]")
}

/// The digits of a stamp: nanoseconds since the start of the measurement.
pub fn stamp(nanoseconds: u64) -> [u8; STAMP_DIGITS] {
    digits(STAMP_BASE + nanoseconds)
}

/// The nanoseconds of a document's stamp, if it has one.
pub fn read_stamp(document: &[u8]) -> Option<u64> {
    number_after(document, b"\"ts\":")?.checked_sub(STAMP_BASE)
}

/// The number of a document and where its digits start, if it has one.
pub fn read_sequence(document: &[u8]) -> Option<(u64, usize)> {
    let key = b"\"seq\":";
    let at = memchr::memmem::find(document, key)? + key.len();
    Some((leading_number(&document[at..])?.checked_sub(SEQUENCE_BASE)?, at))
}

fn number_after(document: &[u8], key: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(document, key)? + key.len();
    leading_number(&document[at..])
}

fn leading_number(text: &[u8]) -> Option<u64> {
    let length = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    std::str::from_utf8(&text[..length]).ok()?.parse().ok()
}

fn digits<const N: usize>(mut value: u64) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit += (value % 10) as u8;
        value /= 10;
    }
    digits
}

/// A sequence number as text that counts up without a division.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    digits: [u8; SEQUENCE_DIGITS],
}

impl Counter {
    /// Starts at this number.
    pub fn at(sequence: u64) -> Self {
        Self { digits: digits(SEQUENCE_BASE + sequence) }
    }

    /// The digits as they stand in a document.
    #[inline]
    pub fn digits(&self) -> &[u8; SEQUENCE_DIGITS] {
        &self.digits
    }

    /// Counts one up.
    #[inline]
    pub fn increment(&mut self) {
        for digit in self.digits.iter_mut().rev() {
            if *digit != b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_json_of_their_size() {
        for size_bytes in [100, 201, 300, 1000, 4096] {
            let document = Document::new(size_bytes);
            let length = document.text.len();
            assert!(length <= size_bytes && length + PADDING_OVERHEAD_BYTES > size_bytes, "{length}");
            let value: serde_json::Value = serde_json::from_str(&document.text).expect("valid JSON");
            assert_eq!(value["price"], 123.45);
            assert_eq!(value["ts"], STAMP_BASE);
            assert_eq!(value.get("bids").is_some(), size_bytes > FLAT_SIZE_BYTES);
        }
    }

    #[test]
    fn what_is_written_in_place_is_read_back() {
        let document = Document::new(100);
        let mut bytes = document.text.into_bytes();
        bytes[document.stamp_at..][..STAMP_DIGITS].copy_from_slice(&stamp(7_654_321));
        bytes[document.sequence_at..][..SEQUENCE_DIGITS].copy_from_slice(Counter::at(98).digits());
        assert_eq!(read_stamp(&bytes), Some(7_654_321));
        assert_eq!(read_sequence(&bytes), Some((98, document.sequence_at)));
    }

    #[test]
    fn counting_carries() {
        let mut counter = Counter::at(998);
        counter.increment();
        counter.increment();
        assert_eq!(counter, Counter::at(1000));
    }
}
