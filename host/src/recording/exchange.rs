//! The HTTP exchanges of plugins, as lines of a recording: what was asked, and what was answered.
//!
//! Headers of requests are not kept: they are where secrets are, and what is asked for does not depend on them but
//! for who asks.

use super::{EXCHANGE, Format, MAX_LINE_BYTES, RecordingReader};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::io::{self, Read, Write as _};

/// What was asked, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object with `request` and `answer`")]
pub(crate) struct Exchange {
    /// What the plugin asked.
    pub request: RecordedRequest,
    /// What the plugin was answered.
    pub answer: RecordedAnswer,
}

/// What a plugin asked, without the headers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(expecting = "an object with what was asked")]
pub(crate) struct RecordedRequest {
    /// `GET`, `POST` and so on.
    pub method: String,
    /// The url as the plugin wrote it.
    pub url: String,
    /// What was sent with it.
    #[serde(default, skip_serializing_if = "RecordedBody::is_empty")]
    pub body: RecordedBody,
}

/// What a plugin was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", expecting = "an object with a `response` or an `error`")]
pub(crate) enum RecordedAnswer {
    /// The answer of a server.
    Response(RecordedResponse),
    /// There was none, and why.
    Error(RecordedError),
}

/// The answer of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object with what was answered")]
pub(crate) struct RecordedResponse {
    /// The status, such as 200.
    pub status: u16,
    /// Names in lower case, and values.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The body.
    #[serde(default, skip_serializing_if = "RecordedBody::is_empty")]
    pub body: RecordedBody,
}

/// Why there was no answer, as the plugin was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", expecting = "why there was no answer")]
pub(crate) enum RecordedError {
    /// The request was none.
    Invalid(String),
    /// It was not granted, or led to an address that may not be reached.
    Denied(String),
    /// It took too long.
    Timeout,
    /// The answer had more bytes than this.
    TooLarge(u64),
    /// The connection failed, or the answer was none.
    Failed(String),
}

/// A body: text as it is, anything else as base64.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "Value", try_from = "Value")]
pub(crate) struct RecordedBody(pub Vec<u8>);

impl RecordedBody {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<RecordedBody> for Value {
    fn from(body: RecordedBody) -> Self {
        match String::from_utf8(body.0) {
            Ok(text) => text.into(),
            Err(error) => json!({ "$binary": BASE64.encode(error.as_bytes()) }),
        }
    }
}

impl TryFrom<Value> for RecordedBody {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value {
            Value::String(text) => Ok(Self(text.into_bytes())),
            value => {
                let base64 = value["$binary"].as_str().ok_or("a body is a text, or has a \"$binary\"")?;
                BASE64.decode(base64).map(Self).map_err(|_| "the text of \"$binary\" is not base64")
            }
        }
    }
}

/// Appends an exchange as a line, with the line break; says whether it is short enough to be read back. One that is
/// not is left out.
pub(crate) fn write_exchange(exchange: &Exchange, time_ns: u64, line: &mut Vec<u8>) -> bool {
    let start = line.len();
    // Writing to memory cannot fail.
    let _ = write!(line, "{time_ns} ");
    line.extend_from_slice(EXCHANGE);
    let _ = serde_json::to_writer(&mut *line, exchange);
    line.extend_from_slice(b"}\n");
    let is_short = line.len() - start <= MAX_LINE_BYTES;
    if !is_short {
        line.truncate(start);
    }
    is_short
}

/// Why the exchanges of a recording cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The recording cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// An exchange is none.
    #[error("its HTTP exchange {number} is damaged: {why}")]
    Damaged {
        /// Its number, from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
    /// They are too many to be kept in memory.
    #[error("its HTTP exchanges have more than {} MiB", .0 >> 20)]
    TooLarge(usize),
}

/// All exchanges of a recording, in order, of `max_bytes` at most.
///
/// # Errors
/// If it cannot be read, one of them is none, or they are too many.
pub(crate) fn exchanges(input: impl Read, max_bytes: usize) -> Result<Vec<Exchange>, ExchangeError> {
    let mut reader = RecordingReader::new(input, Format::Recording);
    let (mut all, mut bytes) = (Vec::new(), 0);
    while let Some(mut block) = reader.next_block()? {
        while let Some(line) = block.next_line() {
            let space = memchr::memchr(b' ', &line).map_or(line.len(), |space| space + 1);
            let Some(exchange) = line[space..].strip_prefix(EXCHANGE) else { continue };
            bytes += line.len();
            if bytes > max_bytes {
                return Err(ExchangeError::TooLarge(max_bytes));
            }
            let exchange = exchange.strip_suffix(b"}").unwrap_or_default();
            all.push(
                serde_json::from_slice(exchange).map_err(|error| ExchangeError::Damaged {
                    number: all.len() + 1,
                    why: error.to_string(),
                })?,
            );
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = String> {
        "[ -~\\r\\n\u{e9}\u{0}]{0,12}"
    }

    fn body() -> impl Strategy<Value = RecordedBody> {
        prop_oneof![text().prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..12)]
            .prop_map(RecordedBody)
    }

    fn exchange() -> impl Strategy<Value = Exchange> {
        let request =
            (text(), text(), body()).prop_map(|(method, url, body)| RecordedRequest { method, url, body });
        let headers = prop::collection::vec((text(), text()), 0..3);
        let answer = prop_oneof![
            (any::<u16>(), headers, body()).prop_map(|(status, headers, body)| {
                RecordedAnswer::Response(RecordedResponse { status, headers, body })
            }),
            text().prop_map(|text| RecordedAnswer::Error(RecordedError::Failed(text))),
            text().prop_map(|text| RecordedAnswer::Error(RecordedError::Denied(text))),
            any::<u64>().prop_map(|bytes| RecordedAnswer::Error(RecordedError::TooLarge(bytes))),
            Just(RecordedAnswer::Error(RecordedError::Timeout)),
        ];
        (request, answer).prop_map(|(request, answer)| Exchange { request, answer })
    }

    #[test]
    fn an_exchange_is_a_line_that_people_can_read() {
        let request =
            RecordedRequest { method: "GET".into(), url: "https://a/".into(), body: Default::default() };
        let response = RecordedResponse {
            status: 200,
            headers: vec![("content-type".into(), "text/plain".into())],
            body: RecordedBody(b"a\n".to_vec()),
        };
        let mut line = Vec::new();
        let answer = RecordedAnswer::Response(response);
        assert!(write_exchange(&Exchange { request: request.clone(), answer }, 17, &mut line));
        let answer = RecordedAnswer::Error(RecordedError::Timeout);
        assert!(write_exchange(&Exchange { request, answer }, 18, &mut line));
        let expected = concat!(
            r#"17 {"$http":{"request":{"method":"GET","url":"https://a/"},"answer":{"response":{"status":200,"#,
            r#""headers":[["content-type","text/plain"]],"body":"a\n"}}}}"#,
            "\n",
            r#"18 {"$http":{"request":{"method":"GET","url":"https://a/"},"answer":{"error":"timeout"}}}"#,
            "\n",
        );
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }

    #[test]
    fn an_exchange_that_is_damaged_is_told_with_its_number_and_one_that_is_too_much_too() {
        let good = r#"1 {"$http":{"request":{"method":"GET","url":"u"},"answer":{"error":"timeout"}}}"#;
        for bad in
            [r#"2 {"$http":{}}"#, r#"2 {"$http":"#, r#"2 {"$http":{"request":1}}"#, &good[..good.len() - 1]]
        {
            let error = exchanges(format!("{good}\n3 message\n{bad}\n").as_bytes(), 1 << 20).unwrap_err();
            assert!(error.to_string().starts_with("its HTTP exchange 2 is damaged: "), "{bad}: {error}");
        }
        let error = exchanges(format!("{good}\n{good}\n").as_bytes(), 100).unwrap_err();
        assert!(matches!(error, ExchangeError::TooLarge(100)), "{error}");
    }

    proptest! {
        #[test]
        fn exchanges_stand_between_messages_and_are_read_back(
            lines in prop::collection::vec(prop_oneof![
                exchange().prop_map(Ok),
                ".{0,20}|\\{\"\\$http\":.{0,9}".prop_map(Err),
            ], 0..12),
        ) {
            use crate::message::Payload;
            use crate::recording::{Recorded, write};
            let (mut written, mut asked, mut messages) = (Vec::new(), Vec::new(), Vec::new());
            for (line, time_ns) in lines.into_iter().zip(1..) {
                match line {
                    Ok(exchange) => {
                        prop_assert!(write_exchange(&exchange, time_ns, &mut written));
                        asked.push(exchange);
                    }
                    Err(text) => {
                        let payload = Payload::text(text);
                        write(&payload, time_ns, Format::Recording, &mut written);
                        messages.push(Recorded { payload, time_ns: Some(time_ns) });
                    }
                }
            }
            prop_assert_eq!(exchanges(&written[..], 1 << 20).unwrap(), asked);
            let mut reader = RecordingReader::new(&written[..], Format::Recording);
            let mut read = Vec::new();
            while let Some(block) = reader.next_block().unwrap() {
                read.extend(block.map(|line| line.expect("it was written so")));
            }
            prop_assert_eq!(read, messages);
        }

        #[test]
        fn no_bytes_make_reading_panic(
            pieces in prop::collection::vec(prop_oneof![
                prop::collection::vec(any::<u8>(), 0..20),
                exchange().prop_map(|exchange| {
                    let mut line = Vec::new();
                    write_exchange(&exchange, 1, &mut line);
                    line
                }),
                Just(b"1 {\"$http\":".to_vec()),
                Just(b"1 {\"$binary\":\"".to_vec()),
                Just(b"\n2 ".to_vec()),
            ], 0..8),
            cut in any::<prop::sample::Index>(),
            flipped in any::<(prop::sample::Index, u8)>(),
        ) {
            let mut bytes = pieces.concat();
            bytes.truncate(cut.index(bytes.len() + 1));
            if !bytes.is_empty() {
                let at = flipped.0.index(bytes.len());
                bytes[at] ^= flipped.1;
            }
            let _ = exchanges(&bytes[..], 1 << 20);
            for format in [Format::Recording, Format::Jsonl] {
                let mut reader = RecordingReader::new(&bytes[..], format);
                while let Some(block) = reader.next_block().unwrap() {
                    block.for_each(drop);
                }
            }
        }
    }
}
