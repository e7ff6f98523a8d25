//! What a call into a plugin under test gave, in a form that is easy to look at.

use super::Input;
use crate::bindings::tidemill::plugin::types;
use std::collections::BTreeMap;
use std::time::Duration;
use tidemill_json::{Change, EditError, Edits, Invalid, MAX_DEPTH};

/// What became of the messages of one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processed {
    /// What goes out, in its order: by origin, and of one origin the forwarded message first.
    pub sent: Vec<Sent>,
    /// The messages refused, by their place in the batch, and why.
    pub rejected: Vec<(usize, String)>,
    /// Whether the whole batch was forwarded with one word, `all`.
    pub forwarded_all: bool,
    /// The message that is to be offered again with all behind it.
    pub retry: Option<Retry>,
}

/// A message that the plugin cannot decide on yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Its place in the batch.
    pub message: usize,
    /// Why.
    pub reason: String,
    /// When it is to be offered again.
    pub after: Duration,
}

/// One message that goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its payload.
    pub bytes: Vec<u8>,
    /// Whether it is a binary message.
    pub binary: bool,
    /// The place in the batch of the message it is, or came from; none from timers and the end.
    pub origin: Option<usize>,
    /// Whether it is that message, unchanged but for edits and metadata.
    pub forwarded: bool,
    /// The name of its output.
    pub output: String,
    /// The metadata that was set; an empty value removes the key.
    pub metadata: BTreeMap<String, String>,
}

impl Processed {
    /// The payloads of what goes out, as text.
    pub fn texts(&self) -> Vec<&str> {
        self.sent.iter().map(Sent::text).collect()
    }

    /// The name of the output and the payload of what goes out.
    pub fn routed(&self) -> Vec<(&str, &str)> {
        self.sent.iter().map(|sent| (sent.output.as_str(), sent.text())).collect()
    }

    /// Whether nothing came of it: no message goes out and none was refused.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.rejected.is_empty() && self.retry.is_none()
    }

    pub(super) fn of_call(about: &types::Description, emissions: Option<types::Emissions>) -> Self {
        if let Some(emissions) = &emissions {
            assert!(emissions.origins.is_empty(), "emissions of timers and of the end have no origin");
        }
        Self { sent: emitted(about, emissions), ..Self::default() }
    }

    pub(super) fn of_batch(about: &types::Description, batch: &[&Input], outcome: types::Outcome) -> Self {
        let forwarded_all = matches!(outcome.forward, types::Forward::All);
        let indices: Vec<usize> = match outcome.forward {
            types::Forward::Nothing => Vec::new(),
            types::Forward::All => (0..batch.len()).collect(),
            types::Forward::These(indices) => indices.into_iter().map(|index| index as usize).collect(),
        };
        assert!(indices.is_sorted_by(|a, b| a < b), "forwarded indices must ascend: {indices:?}");
        let outputs = outcome.forward_outputs;
        assert!(outputs.is_empty() || outputs.len() == indices.len(), "one output a forwarded message");
        let forwarded = indices.iter().enumerate().map(|(nth, &index)| Sent {
            bytes: batch[index].bytes().to_owned(),
            binary: batch[index].is_binary(),
            origin: Some(index),
            forwarded: true,
            output: output(about, outputs.get(nth)),
            metadata: BTreeMap::new(),
        });
        let mut forwarded: Vec<Sent> = forwarded.collect();
        write_metadata(about, outcome.forward_metadata, &mut forwarded);
        let uneditable = edit(about, &outcome.edits, batch, &mut forwarded);
        let emitted = emitted(about, outcome.emissions);
        assert!(emitted.is_sorted_by_key(|sent| sent.origin), "origins must not descend");
        let mut sent: Vec<Sent> = forwarded.into_iter().chain(emitted).collect();
        sent.retain(|sent| uneditable.iter().all(|(message, _)| sent.origin != Some(*message)));
        sent.sort_by_key(|sent| sent.origin);
        let rejections = outcome.rejections.into_iter().map(|r| (r.message as usize, r.reason));
        let mut rejected: Vec<_> = rejections.chain(uneditable).collect();
        rejected.sort_unstable();
        for (message, reason) in &rejected {
            assert!(*message < batch.len(), "message {message} is not in the batch");
            let neither = sent.iter().all(|sent| sent.origin != Some(*message));
            assert!(neither, "message {message} is sent on and refused: {reason}");
        }
        let retry = outcome.retry.map(|types::Retry { message, reason, after_ms }| Retry {
            message: message as usize,
            reason,
            after: Duration::from_millis(after_ms.into()),
        });
        if let Some(Retry { message, .. }) = retry {
            assert!(message < batch.len(), "message {message} is not in the batch");
            let decided = sent.iter().filter_map(|sent| sent.origin).chain(rejected.iter().map(|r| r.0));
            assert!(decided.max().is_none_or(|last| last < message), "nothing is decided from {message} on");
        }
        Self { sent, rejected, forwarded_all, retry }
    }

    /// The same for a larger batch: the messages have these places in it, and the others were refused before
    /// the plugin could see them.
    pub(super) fn among(mut self, indices: &[usize], mut refused: Vec<(usize, String)>) -> Self {
        self.sent.iter_mut().for_each(|sent| sent.origin = sent.origin.map(|origin| indices[origin]));
        self.rejected.iter_mut().for_each(|(message, _)| *message = indices[*message]);
        if let Some(retry) = &mut self.retry {
            retry.message = indices[retry.message];
            refused.retain(|(message, _)| *message < retry.message);
        }
        self.rejected.extend(refused);
        self.rejected.sort_unstable();
        self
    }
}

impl Sent {
    /// Its payload, as text.
    ///
    /// # Panics
    /// If it is not UTF-8.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).expect("the payload is not UTF-8")
    }
}

fn output(about: &types::Description, number: Option<&u16>) -> String {
    match number.map_or(0, |&number| usize::from(number)) {
        0 => "default".to_owned(),
        number => about.outputs.get(number - 1).expect("an output of the description").clone(),
    }
}

fn emitted(about: &types::Description, emissions: Option<types::Emissions>) -> Vec<Sent> {
    let Some(emissions) = emissions else { return Vec::new() };
    let types::Payloads::Packed(packed) = emissions.payloads else { panic!("the SDK emits packed") };
    let count = packed.ends.len();
    let fits = |length: usize| length == 0 || length == count;
    assert!(fits(emissions.outputs.len()), "one output an emission");
    assert!(fits(emissions.origins.len()), "one origin an emission");
    let payloads = rows(&packed.data, &packed.ends);
    let mut sent: Vec<Sent> = payloads
        .enumerate()
        .map(|(nth, bytes)| Sent {
            bytes: bytes.to_owned(),
            binary: packed.binary.as_ref().is_some_and(|binary| binary[nth] == 1),
            origin: emissions.origins.get(nth).map(|&origin| origin as usize),
            forwarded: false,
            output: output(about, emissions.outputs.get(nth)),
            metadata: BTreeMap::new(),
        })
        .collect();
    for message in &sent {
        assert!(message.binary || std::str::from_utf8(&message.bytes).is_ok(), "text must be UTF-8");
    }
    write_metadata(about, emissions.metadata, &mut sent);
    sent
}

/// Edits what is forwarded. Gives the messages that cannot be edited, and why.
fn edit(
    about: &types::Description,
    columns: &[types::Values],
    batch: &[&Input],
    forwarded: &mut [Sent],
) -> Vec<(usize, String)> {
    if columns.is_empty() {
        return Vec::new();
    }
    assert_eq!(columns.len(), about.edits.len(), "one column a member");
    let mut edits = Edits::default();
    for pointer in &about.edits {
        edits.add(pointer).unwrap_or_else(|error| panic!("{error}"));
    }
    let mut uneditable = Vec::new();
    for (nth, sent) in forwarded.iter_mut().enumerate() {
        let index = sent.origin.expect("what is forwarded is its own origin");
        let changes: Vec<Change<'_>> = columns.iter().map(|column| change(column, nth)).collect();
        if changes.iter().all(|change| matches!(change, Change::Leave)) {
            continue;
        }
        let mut bytes = Vec::new();
        match edits.apply(batch[index].document(), &changes, &mut bytes) {
            Ok(()) => sent.bytes = bytes,
            Err(EditError::NoObject(edit)) => {
                uneditable.push((index, format!("the message has no object for {}", about.edits[edit])));
            }
            Err(EditError::Document(invalid)) => uneditable.push((index, invalid.to_string())),
            Err(EditError::Value(edit, Invalid::TooDeep)) => {
                let why =
                    format!("{} would be JSON nested more than {MAX_DEPTH} levels deep", about.edits[edit]);
                uneditable.push((index, why));
            }
            Err(error) => panic!("{error}"),
        }
    }
    uneditable
}

fn change(column: &types::Values, nth: usize) -> Change<'_> {
    match column {
        types::Values::Numbers(numbers) if numbers[nth].is_nan() => Change::Leave,
        types::Values::Numbers(numbers) => Change::Number(numbers[nth]),
        types::Values::Packed(texts) if texts.absent.as_ref().is_some_and(|absent| absent[nth] == 1) => {
            Change::Leave
        }
        types::Values::Packed(texts) => match rows(&texts.data, &texts.ends).nth(nth) {
            Some([]) | None => Change::Remove,
            Some(json) => Change::Set(json),
        },
        types::Values::Each(_) => panic!("the SDK edits in a row"),
    }
}

fn write_metadata(about: &types::Description, columns: Vec<types::Writing>, sent: &mut [Sent]) {
    assert!(columns.is_empty() || columns.len() == about.writes.len());
    for (key, writing) in about.writes.iter().zip(columns) {
        match writing {
            types::Writing::Packed(texts) => {
                assert_eq!(texts.ends.len(), sent.len(), "one value each");
                for (message, value) in sent.iter_mut().zip(rows(&texts.data, &texts.ends)) {
                    message.metadata.insert(key.clone(), String::from_utf8_lossy(value).into_owned());
                }
            }
            types::Writing::Sparse(settings) => {
                for setting in settings {
                    sent[setting.index as usize].metadata.insert(key.clone(), setting.value);
                }
            }
            types::Writing::Inherit => {}
            types::Writing::Same(_) | types::Writing::Each(_) => panic!("the SDK writes neither"),
        }
    }
}

/// The pieces of a row.
fn rows<'a>(data: &'a [u8], ends: &'a [u32]) -> impl Iterator<Item = &'a [u8]> {
    let mut start = 0;
    ends.iter().map(move |&end| {
        let row = &data[start..end as usize];
        start = end as usize;
        row
    })
}
