//! One dead letter: a message that failed with the reason, and the line of JSON that it is written as.

use crate::foreign_text;
use crate::message::metadata::{INGEST_TIME, Metadata, Origin, now_us};
use crate::message::{Failed, Message, Payload};
use crate::reason::Reason;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is left of a payload that is too large to be kept.
const BEGINNING_BYTES: usize = 64 << 10;
/// What a letter takes beside its texts and its payload.
const LETTER_BYTES: usize = 256;

/// A message that failed, where, and why.
#[derive(Clone, Debug)]
pub struct Letter {
    /// When it failed, in microseconds since the Unix epoch.
    pub failed_us: u64,
    /// The name of its pipeline.
    pub pipeline: Arc<str>,
    /// The label of the source, the transform or the sink where it failed.
    pub stage: Arc<str>,
    /// The plugin and its version, where it failed in a transform.
    pub plugin: Option<(Arc<str>, Arc<str>)>,
    /// Why, as the counters have it.
    pub reason: Reason,
    /// Why, for a person: one line.
    pub detail: Box<str>,
    /// The message, as it was where it failed.
    pub message: Message,
    /// How long its payload was, where only the beginning is here.
    pub whole_bytes: Option<usize>,
}

/// A letter as it is written.
#[derive(Serialize)]
struct WrittenLetter<'a> {
    time: String,
    pipeline: &'a str,
    stage: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    reason: &'static str,
    detail: &'a str,
    metadata: BTreeMap<&'a str, Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

/// A letter as it is read. What else stands there says nothing that counts.
#[derive(Deserialize)]
#[serde(expecting = "an object with what a letter has")]
struct ReadLetter {
    pipeline: String,
    stage: String,
    reason: String,
    #[serde(default)]
    detail: String,
    plugin: Option<String>,
    version: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    payload: Option<String>,
    payload_base64: Option<String>,
    #[serde(default)]
    payload_truncated: bool,
}

impl Letter {
    /// The letter of a message that failed at this stage, with this plugin and version of it.
    pub fn new(
        pipeline: Arc<str>,
        stage: Arc<str>,
        plugin: Option<(Arc<str>, Arc<str>)>,
        failed: Failed,
        failed_us: u64,
    ) -> Self {
        let Failed { message, reason, detail } = failed;
        let detail = foreign_text::shown(&detail).into();
        Self { failed_us, pipeline, stage, plugin, reason, detail, message, whole_bytes: None }
    }

    /// A letter as [`Letter::to_line`] writes it, in one line of a file or in a request.
    ///
    /// # Errors
    /// It is none, and why.
    pub fn parse(json: &str) -> Result<Self, String> {
        let read: ReadLetter = serde_json::from_str(json).map_err(|error| error.to_string())?;
        if read.payload_truncated {
            return Err("it has only the beginning of its payload".to_owned());
        }
        let reason = Reason::of_name(&read.reason);
        let reason = reason.ok_or_else(|| format!("there is no reason `{}`", read.reason))?;
        let payload = match (read.payload, read.payload_base64) {
            (Some(text), None) => Payload::text(text),
            (None, Some(packed)) => {
                let bytes = BASE64_STANDARD.decode(packed);
                Payload::binary(bytes.map_err(|error| format!("`payload_base64` is not base64: {error}"))?)
            }
            (Some(_), Some(_)) => return Err("it has both `payload` and `payload_base64`".to_owned()),
            (None, None) => return Err("missing field `payload`".to_owned()),
        };
        let received_ms = read.metadata.get(INGEST_TIME).and_then(|ms| ms.parse::<u64>().ok());
        let received_us = received_ms.map_or_else(now_us, |ms| ms.saturating_mul(1000));
        let entries = read.metadata.into_iter().filter(|(key, _)| key != INGEST_TIME);
        let metadata = Metadata::new(Origin::new(entries), received_us);
        Ok(Self {
            failed_us: now_us(),
            pipeline: read.pipeline.into(),
            stage: read.stage.into(),
            plugin: read.plugin.zip(read.version).map(|(name, version)| (name.into(), version.into())),
            reason,
            detail: foreign_text::shown(&read.detail).into(),
            message: Message { payload, metadata },
            whole_bytes: None,
        })
    }

    /// The letter as one line of JSON.
    pub fn to_line(&self) -> String {
        serde_json::to_string(&self.written(usize::MAX)).expect("a letter has string keys only")
    }

    /// The letter as JSON with at most so many bytes of its payload, and of each value of its metadata.
    pub fn to_json(&self, most_bytes: usize) -> serde_json::Value {
        let written = self.written(most_bytes);
        let mut json = serde_json::to_value(written).expect("a letter has string keys only");
        let kept_bytes = self.message.payload.len();
        json["payload_bytes"] = self.whole_bytes.unwrap_or(kept_bytes).into();
        json["payload_truncated"] = (self.whole_bytes.is_some() || kept_bytes > most_bytes).into();
        json
    }

    fn written(&self, most_bytes: usize) -> WrittenLetter<'_> {
        let payload = &self.message.payload;
        let cut = |text: &str| text.floor_char_boundary(most_bytes);
        let metadata = self.message.metadata.iter().map(|(key, value)| match value {
            Cow::Borrowed(value) => (key, Cow::Borrowed(&value[..cut(value)])),
            Cow::Owned(value) => (key, Cow::Owned(value)),
        });
        let beginning = |bytes: &[u8]| BASE64_STANDARD.encode(&bytes[..bytes.len().min(most_bytes)]);
        WrittenLetter {
            time: time(self.failed_us),
            pipeline: &self.pipeline,
            stage: &self.stage,
            plugin: self.plugin.as_ref().map(|(plugin, _)| &**plugin),
            version: self.plugin.as_ref().map(|(_, version)| &**version),
            reason: self.reason.as_str(),
            detail: &self.detail,
            metadata: metadata.collect(),
            payload: payload.as_text().map(|text| &text[..cut(text)]),
            payload_base64: (!payload.is_text()).then(|| beginning(payload.as_bytes())),
        }
    }

    /// The message, to be given to its pipeline once more.
    pub fn into_retried(self) -> Message {
        let mut message = self.message;
        message.metadata.count_retry();
        message
    }

    /// The same with a payload that shares memory with nothing. Where the letter would take more than so many bytes,
    /// only the beginning of its payload is left, and of its metadata nothing that a plugin set.
    pub(super) fn kept(mut self, most_bytes: usize) -> Self {
        let payload = &self.message.payload;
        if self.bytes() <= most_bytes {
            self.message.payload = payload.detached();
            return self;
        }
        self.whole_bytes = Some(payload.len());
        self.message.payload = match payload.as_text() {
            Some(text) => Payload::text(&text[..text.floor_char_boundary(BEGINNING_BYTES)]),
            None => {
                let bytes = payload.as_bytes();
                Payload::binary(bytes[..bytes.len().min(BEGINNING_BYTES)].to_vec())
            }
        };
        let metadata = &self.message.metadata;
        self.message.metadata = Metadata::new(metadata.origin().clone(), metadata.received_us());
        self
    }

    /// What it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let Message { payload, metadata } = &self.message;
        LETTER_BYTES + self.detail.len() + payload.len() + metadata.kept_bytes()
    }
}

/// A time as it is written (RFC 3339).
fn time(us: u64) -> String {
    let us = i64::try_from(us).unwrap_or(i64::MAX);
    jiff::Timestamp::from_microsecond(us).unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(payload: Payload) -> Letter {
        let mut metadata = Metadata::new(Origin::new([("k", "v")]), 7_000_000);
        metadata.set(&"set".into(), "by a plugin");
        let failed = Failed {
            message: Message { payload, metadata },
            reason: Reason::Rejected,
            detail: "two\nlines".to_owned(),
        };
        let plugin = Some(("vwap".into(), "sha256:0".into()));
        Letter::new("p".into(), "prices".into(), plugin, failed, 1_000_000)
    }

    #[test]
    fn a_letter_is_read_as_it_was_written() {
        for payload in [Payload::text("{\"a\":\"\u{17c}\"}"), Payload::binary(vec![0xff, 0])] {
            let letter = letter(payload.clone());
            let line = letter.to_line();
            assert!(line.starts_with("{\"time\":\"1970-01-01T00:00:01Z\",\"pipeline\":\"p\",\"stage\":"));
            assert!(line.contains("\"detail\":\"two\\\\nlines\""), "{line}");
            let read = Letter::parse(&line).expect("it is one");
            assert_eq!(read.to_line(), Letter { failed_us: read.failed_us, ..letter }.to_line());
            assert_eq!(read.message.payload, payload);
            assert_eq!(read.message.metadata.received_us(), 7_000_000);
            let retried = read.into_retried().metadata;
            assert_eq!((&*retried.get("__meta_retried"), &*retried.get("set")), ("1", "by a plugin"));
        }
    }

    #[test]
    fn what_is_no_letter_is_refused_with_the_reason() {
        let line = letter(Payload::text("x")).to_line();
        let cases = [
            ("{".to_owned(), "EOF while parsing"),
            ("7".to_owned(), "invalid type: integer `7`, expected an object with what a letter has"),
            (line.replace("\"stage\"", "\"stagf\""), "missing field `stage`"),
            (line.replace("rejected", "ejected"), "there is no reason `ejected`"),
            (line.replace("\"payload\"", "\"payloaf\""), "missing field `payload`"),
            (line.replace("\"payload\"", "\"payload_base64\""), "is not base64"),
            (line.replace("\"payload\"", "\"payload_base64\":\"eA==\",\"payload\""), "has both"),
            (line.replace("\"payload\"", "\"payload_truncated\":true,\"payload\""), "only the beginning"),
        ];
        for (line, why) in cases {
            let error = Letter::parse(&line).expect_err("it is none");
            assert!(error.contains(why), "{line}: {error}");
        }
    }

    #[test]
    fn a_payload_is_cut_where_a_character_begins() {
        let json = letter(Payload::text("a\u{17c}b")).to_json(2);
        assert_eq!((&json["payload"], &json["payload_bytes"]), (&"a".into(), &4.into()));
        assert_eq!(json["payload_truncated"], true);
        let json = letter(Payload::binary(vec![1, 2, 3])).to_json(3);
        assert_eq!((&json["payload_base64"], &json["payload_truncated"]), (&"AQID".into(), &false.into()));
    }

    #[test]
    fn a_letter_that_is_too_large_is_kept_with_its_beginning_alone() {
        let whole = letter(Payload::text("\u{17c}".repeat(40_000)));
        assert_eq!(whole.clone().kept(1 << 20).message.payload.len(), 80_000);
        let cut = whole.kept(70_000);
        assert_eq!((cut.message.payload.len(), cut.whole_bytes), (64 << 10, Some(80_000)));
        assert_eq!(cut.to_json(usize::MAX)["payload_bytes"], 80_000);
        let mut laden = letter(Payload::text("x"));
        laden.message.metadata.set(&"set".into(), &"y".repeat(70_000));
        assert!(laden.kept(70_000).bytes() < 1000);
    }
}
