//! Messages as lines of text: the formats `jsonl` and `recording`.
//!
//! A line is a message; in a recording the time of receipt stands before it, in nanoseconds since the
//! Unix epoch, and a space. A text stands for itself, unless it has a line break, is empty, or starts
//! as the two escapes do: `{"$text":"<JSON string>"}`, and `{"$binary":"<base64>"}` for a binary
//! message. What is read into memory at once is shared by the payloads of its lines. A line that is longer
//! than any message needs is skipped, and never in memory as a whole.
//!
//! A recording may have the HTTP exchanges of plugins between its messages (`exchange`): `{"$http":{...}}` behind the
//! time of the answer. Who reads messages does not see them.

mod exchange;

pub(crate) use exchange::{
    Exchange, RecordedAnswer, RecordedBody, RecordedError, RecordedRequest, RecordedResponse, exchanges,
    write_exchange,
};

use crate::config::Format;
use crate::message::Payload;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use std::io::{self, Read, Write as _};

/// What a text that needs none may not start with, and every escape does.
const ESCAPE: &[u8] = b"{\"$";
/// What the HTTP exchange of a plugin starts with.
const EXCHANGE: &[u8] = b"{\"$http\":";
/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;
/// The largest payload of a line: what connections that are dialled take, too, if nothing else is said.
const MAX_PAYLOAD_BYTES: usize = 16 << 20;
/// The longest line that is kept: twice the largest payload, since escapes make it longer, base64 by a third.
const MAX_LINE_BYTES: usize = 2 * MAX_PAYLOAD_BYTES;

/// A message as a line had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// The payload of the message.
    pub payload: Payload,
    /// When it was received, in nanoseconds since the Unix epoch; `None` in `jsonl`.
    pub time_ns: Option<u64>,
}

/// Why a line is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadLine {
    /// It is not UTF-8.
    #[error("the line is not UTF-8")]
    NotText,
    /// A recording's line starts with its time.
    #[error("the line does not start with a time in nanoseconds and a space")]
    NoTime,
    /// What `$binary` stands for is not base64.
    #[error("the text of \"$binary\" is not base64")]
    NotBase64,
    /// Its message is too large, or it is too long for any message.
    #[error("the line is too long: its message may have {} MiB", MAX_PAYLOAD_BYTES >> 20)]
    TooLarge,
}

/// Appends a message as a line, with the line break.
pub(crate) fn write(payload: &Payload, time_ns: u64, format: Format, line: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    if format == Format::Recording {
        let _ = write!(line, "{time_ns} ");
    }
    let bytes = payload.as_bytes();
    if !payload.is_text() {
        line.extend_from_slice(b"{\"$binary\":\"");
        let start = line.len();
        line.resize(start + bytes.len().div_ceil(3) * 4, 0);
        let written = BASE64.encode_slice(bytes, &mut line[start..]);
        line.truncate(start + written.expect("the room was made for it"));
        line.extend_from_slice(b"\"}");
    } else if bytes.is_empty() || bytes.starts_with(ESCAPE) || memchr::memchr2(b'\n', b'\r', bytes).is_some()
    {
        line.extend_from_slice(b"{\"$text\":");
        let _ = serde_json::to_writer(&mut *line, payload.as_text().unwrap_or_default());
        line.push(b'}');
    } else {
        line.extend_from_slice(bytes);
    }
    line.push(b'\n');
}

/// Reads a line, which is without its line break; `is_utf8` says that it was checked to be UTF-8. `None` for one that
/// is no message.
fn parse_line(mut line: Bytes, format: Format, is_utf8: bool) -> Result<Option<Recorded>, BadLine> {
    let time_ns = match format {
        Format::Jsonl => None,
        Format::Recording => {
            let space = memchr::memchr(b' ', &line).ok_or(BadLine::NoTime)?;
            let digits = line.split_to(space);
            let _ = line.split_to(1);
            let is_number = digits.iter().all(u8::is_ascii_digit);
            let time = std::str::from_utf8(&digits).ok().filter(|_| is_number);
            let time = time.and_then(|time| time.parse().ok()).ok_or(BadLine::NoTime)?;
            if line.starts_with(EXCHANGE) {
                return Ok(None);
            }
            Some(time)
        }
    };
    let payload = match unescape(&line)? {
        Some(payload) => payload,
        None if is_utf8 => Payload::checked_text(line),
        None => Payload::try_text(line).map_err(|_| BadLine::NotText)?,
    };
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(BadLine::TooLarge);
    }
    Ok(Some(Recorded { payload, time_ns }))
}

/// What an escape stands for. A text that starts like one and is none stands for itself.
fn unescape(line: &[u8]) -> Result<Option<Payload>, BadLine> {
    if !line.starts_with(ESCAPE) {
        return Ok(None);
    }
    let Ok(serde_json::Value::Object(object)) = serde_json::from_slice(line) else { return Ok(None) };
    let mut entries = object.into_iter();
    match (entries.next(), entries.next()) {
        (Some((key, serde_json::Value::String(text))), None) if key == "$text" => {
            Ok(Some(Payload::text(text)))
        }
        (Some((key, serde_json::Value::String(text))), None) if key == "$binary" => {
            let bytes = BASE64.decode(text).map_err(|_| BadLine::NotBase64)?;
            Ok(Some(Payload::binary(bytes)))
        }
        _ => Ok(None),
    }
}

/// Reads messages from lines, a block of them at a time: as many as are there.
#[derive(Debug)]
pub(crate) struct RecordingReader<R> {
    input: R,
    format: Format,
    buffer: BytesMut,
    /// Bytes that were read, those in the buffer included.
    read_bytes: u64,
    /// The rest of a line that is too long is read, and not kept.
    is_skipping: bool,
    has_ended: bool,
}

impl<R: Read> RecordingReader<R> {
    /// A reader of an input that is not read yet.
    pub(crate) fn new(input: R, format: Format) -> Self {
        let (buffer, read_bytes) = (BytesMut::new(), 0);
        Self { input, format, buffer, read_bytes, is_skipping: false, has_ended: false }
    }

    /// What is read.
    pub(crate) fn input(&mut self) -> &mut R {
        &mut self.input
    }

    /// How many bytes the lines took that were given so far; `None` in the middle of a line of which nothing is
    /// kept, where no line begins.
    pub(crate) fn given_bytes(&self) -> Option<u64> {
        (!self.is_skipping || self.has_ended).then(|| self.read_bytes - self.buffer.len() as u64)
    }

    /// The next lines; `None` at the end. Of a line that is too long each piece is a block of no lines, so that
    /// whoever reads may stop in between.
    ///
    /// # Errors
    /// If the input fails.
    pub(crate) fn next_block(&mut self) -> io::Result<Option<Block>> {
        while !self.has_ended {
            let start = self.buffer.len();
            self.buffer.resize(start + READ_BYTES, 0);
            let read = self.input.read(&mut self.buffer[start..]);
            let read_bytes = *read.as_ref().unwrap_or(&0);
            self.buffer.truncate(start + read_bytes);
            self.read_bytes += read_bytes as u64;
            match read {
                Ok(0) => self.has_ended = true,
                Ok(_) if self.is_skipping => {
                    self.skip();
                    let lines = self.take_lines(0).unwrap_or_default();
                    return Ok(Some(Block::of(lines, self.format)));
                }
                Ok(_) => {
                    if let Some(lines) = self.take_lines(start) {
                        return Ok(Some(Block::of(lines, self.format)));
                    }
                    if self.buffer.len() > MAX_LINE_BYTES {
                        self.buffer = BytesMut::new();
                        self.is_skipping = true;
                        return Ok(Some(Block::too_large(self.format)));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let last = self.buffer.split().freeze();
        Ok((!last.is_empty()).then(|| Block::of(last, self.format)))
    }

    /// The lines that are whole, where the last ends not before `from`.
    fn take_lines(&mut self, from: usize) -> Option<Bytes> {
        let end = memchr::memrchr(b'\n', &self.buffer[from..])?;
        Some(self.buffer.split_to(from + end + 1).freeze())
    }

    /// Drops what was read of a line that is too long; what comes after it stays.
    fn skip(&mut self) {
        match memchr::memchr(b'\n', &self.buffer) {
            Some(end) => {
                let _ = self.buffer.split_to(end + 1);
                self.is_skipping = false;
            }
            None => self.buffer.clear(),
        }
    }
}

/// Some lines; an iterator over their messages, and over the lines that are none, as they are.
#[derive(Debug)]
pub(crate) struct Block {
    lines: Bytes,
    format: Format,
    is_utf8: bool,
    /// Before them stands one that is too long to be kept.
    has_too_large: bool,
}

impl Block {
    fn of(lines: Bytes, format: Format) -> Self {
        // One check of all is faster than one of each.
        let is_utf8 = std::str::from_utf8(&lines).is_ok();
        Self { lines, format, is_utf8, has_too_large: false }
    }

    /// A line of which nothing is kept.
    fn too_large(format: Format) -> Self {
        Self { has_too_large: true, ..Self::of(Bytes::new(), format) }
    }

    /// The next line that has anything in it, without its end.
    fn next_line(&mut self) -> Option<Bytes> {
        while !self.lines.is_empty() {
            let end = memchr::memchr(b'\n', &self.lines);
            let mut line = self.lines.split_to(end.map_or(self.lines.len(), |end| end + 1));
            let kept = line.len() - usize::from(end.is_some());
            line.truncate(kept);
            if line.ends_with(b"\r") {
                line.truncate(kept - 1);
            }
            if !line.is_empty() {
                return Some(line);
            }
        }
        None
    }
}

impl Iterator for Block {
    type Item = Result<Recorded, (Bytes, BadLine)>;

    fn next(&mut self) -> Option<Self::Item> {
        if std::mem::take(&mut self.has_too_large) {
            return Some(Err((Bytes::new(), BadLine::TooLarge)));
        }
        loop {
            let line = self.next_line()?;
            match parse_line(line.clone(), self.format, self.is_utf8) {
                Ok(None) => {}
                Ok(Some(message)) => return Some(Ok(message)),
                // Nobody is to keep what is too large.
                Err(BadLine::TooLarge) => return Some(Err((Bytes::new(), BadLine::TooLarge))),
                Err(bad) => return Some(Err((line, bad))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(payload: &Payload, format: Format) -> String {
        let mut line = Vec::new();
        write(payload, 17, format, &mut line);
        String::from_utf8(line).expect("a line is text")
    }

    #[test]
    fn texts_stand_for_themselves_as_long_as_they_can() {
        let cases = [
            ("{\"a\":1}", "{\"a\":1}\n"),
            ("plain", "plain\n"),
            ("", "{\"$text\":\"\"}\n"),
            ("two\nlines", "{\"$text\":\"two\\nlines\"}\n"),
            ("ends in a return\r", "{\"$text\":\"ends in a return\\r\"}\n"),
            ("{\"$schema\":1}", "{\"$text\":\"{\\\"$schema\\\":1}\"}\n"),
        ];
        for (text, expected) in cases {
            assert_eq!(line(&Payload::text(text), Format::Jsonl), expected);
        }
        assert_eq!(line(&Payload::binary(vec![0, 255]), Format::Recording), "17 {\"$binary\":\"AP8=\"}\n");
    }

    fn read(text: &[u8], format: Format) -> Vec<Result<Recorded, BadLine>> {
        let mut reader = RecordingReader::new(text, format);
        let mut messages = Vec::new();
        while let Some(block) = reader.next_block().expect("memory can be read") {
            messages.extend(block.map(|line| line.map_err(|(_, bad)| bad)));
        }
        messages
    }

    fn text(text: &str, time_ns: Option<u64>) -> Result<Recorded, BadLine> {
        Ok(Recorded { payload: Payload::text(text), time_ns })
    }

    #[test]
    fn blank_lines_returns_and_a_missing_last_line_break_are_taken_as_they_are_meant() {
        let lines = b"\n1 a\r\n\r\n2 {\"$text\": \"b\"}\n3 {\"$other\":1}\n4 ";
        let expected =
            [text("a", Some(1)), text("b", Some(2)), text("{\"$other\":1}", Some(3)), text("", Some(4))];
        assert_eq!(read(lines, Format::Recording), expected);
    }

    #[test]
    fn a_bad_line_is_told_and_costs_no_other() {
        let lines = b"1 a\nb\nx y\n99999999999999999999 z\n+5 c\n2 \xff\n3 {\"$binary\":\"?\"}\n4 d\n";
        let bad = [BadLine::NoTime; 4].map(Err);
        let mut expected = vec![text("a", Some(1))];
        expected.extend(bad);
        expected.extend([Err(BadLine::NotText), Err(BadLine::NotBase64), text("d", Some(4))]);
        assert_eq!(read(lines, Format::Recording), expected);
    }

    #[test]
    fn a_line_that_is_too_long_is_told_once_and_skipped_and_what_follows_is_read_at_once() {
        let long = "x".repeat(MAX_LINE_BYTES + 5 * READ_BYTES);
        for end in ["\n", ""] {
            let lines = format!("a\n{long}{end}b\nc");
            let expected = match end {
                "\n" => vec![text("a", None), Err(BadLine::TooLarge), text("b", None), text("c", None)],
                _ => vec![text("a", None), Err(BadLine::TooLarge), text("c", None)],
            };
            assert_eq!(read(lines.as_bytes(), Format::Jsonl), expected);
        }
        assert_eq!(read(long.as_bytes(), Format::Jsonl), [Err(BadLine::TooLarge)]);

        let (mut reader, mut kept) = (RecordingReader::new(long.as_bytes(), Format::Jsonl), 0);
        while reader.next_block().expect("memory can be read").is_some() {
            kept = kept.max(reader.buffer.len());
        }
        assert!(kept <= READ_BYTES, "{kept} bytes are kept after the line was told");
    }

    #[test]
    fn the_largest_message_is_read_however_it_is_written_and_one_that_is_larger_is_told() {
        for (bytes, is_taken) in [(MAX_PAYLOAD_BYTES, true), (MAX_PAYLOAD_BYTES + 1, false)] {
            for payload in [Payload::binary(vec![0xff; bytes]), Payload::text("x".repeat(bytes))] {
                for format in [Format::Jsonl, Format::Recording] {
                    let mut lines = Vec::new();
                    write(&payload, 1, format, &mut lines);
                    let read = read(&lines, format);
                    match &read[..] {
                        [Ok(Recorded { payload: back, .. })] => assert!(is_taken && *back == payload),
                        [Err(bad)] => assert!(!is_taken && *bad == BadLine::TooLarge),
                        _ => panic!("{} messages", read.len()),
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            messages in prop::collection::vec((any::<bool>(), ".{0,40}|[\\r\\n{}\"$]{0,8}|\\{\"\\$(text|binary)\":\".*\"\\}", any::<u64>()), 0..20),
        ) {
            for format in [Format::Jsonl, Format::Recording] {
                let mut lines = Vec::new();
                let mut expected = Vec::new();
                for (is_text, text, time) in &messages {
                    let payload =
                        if *is_text { Payload::text(text.as_str()) } else { Payload::binary(text.clone().into_bytes()) };
                    write(&payload, *time, format, &mut lines);
                    let time_ns = (format == Format::Recording).then_some(*time);
                    expected.push(Ok(Recorded { payload, time_ns }));
                }
                prop_assert_eq!(read(&lines, format), expected);
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read(&bytes, Format::Jsonl);
            read(&bytes, Format::Recording);
        }
    }
}
