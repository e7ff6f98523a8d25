//! Checks everything that a guest returned, and makes the host's own types of it.
//!
//! Behind this file an index is in range, an order is kept, a text is UTF-8. A guest whose columns
//! say anything else is at fault, with a detail that names the column.

use super::bindings::tidemill::plugin::types as wit;
use super::description::Description;
use super::edits::{Edited, Edits};
use super::emissions::{EmissionRows, Emissions};
use super::fault::{Fault, FaultKind};
use super::forward::Forward;
use super::rows::{Decided, check_ends, check_messages, check_outputs, check_texts, same_length};
use super::writings::Writings;
use crate::message::{Message, Payload};
use bytes::Bytes;
use std::time::Duration;

/// A message that the plugin refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Its index in the batch.
    pub message: u32,
    /// Why, in the plugin's words.
    pub reason: String,
}

/// Where the plugin stopped, because it cannot decide yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The index of the message in the batch; nothing else is said of it, or of one after it.
    pub message: u32,
    /// Why, in the plugin's words.
    pub reason: String,
    /// When it wants to be offered the message again.
    pub after: Duration,
}

/// What became of a batch. Everything in it was checked.
#[derive(Debug)]
pub struct Outcome {
    /// The messages that go on.
    pub forward: Forward,
    /// The output of each of them: 0 is "default", n is `outputs[n - 1]` of the description. Empty:
    /// all go to the default.
    pub forward_outputs: Vec<u16>,
    /// What each of them is given as metadata.
    pub forward_metadata: Writings,
    /// What was edited in them.
    pub edited: Edited,
    /// New messages, in the order of their origins.
    pub emissions: Emissions,
    /// The messages refused, in their order; none of them is forwarded, or the origin of an emission.
    pub rejections: Vec<Rejection>,
    /// The message from which on all are to be offered again.
    pub retry: Option<Retry>,
    /// Whether the guest was asked: not where no message of the batch was for it.
    pub is_answer: bool,
}

impl Outcome {
    /// What becomes of no message.
    pub(super) fn uncalled() -> Self {
        Self {
            forward: Forward::Nothing,
            forward_outputs: Vec::new(),
            forward_metadata: Writings::default(),
            edited: Edited::default(),
            emissions: Emissions::none(),
            rejections: Vec::new(),
            retry: None,
            is_answer: false,
        }
    }

    /// Whether every message goes on as it came, and there is nothing else.
    #[inline]
    pub fn forwards_all_as_they_are(&self) -> bool {
        matches!(self.forward, Forward::All)
            && self.emissions.is_empty()
            && self.forward_outputs.is_empty()
            && self.forward_metadata.is_empty()
            && self.edited.is_empty()
    }

    /// The same for a larger batch: the messages have these indices in it, and the others are `refused`.
    pub(super) fn among(mut self, indices: &[u32], refused: Vec<(u32, String)>) -> Self {
        let in_batch = |index: &mut u32| *index = indices[*index as usize];
        match &mut self.forward {
            Forward::Nothing => {}
            Forward::All => self.forward = Forward::These(indices.to_vec()),
            Forward::These(these) => these.iter_mut().for_each(in_batch),
        }
        self.emissions.origins_mut().iter_mut().for_each(in_batch);
        self.rejections.iter_mut().for_each(|rejection| in_batch(&mut rejection.message));
        if let Some(retry) = &mut self.retry {
            in_batch(&mut retry.message);
        }
        let decided = self.retry.as_ref().map_or(u32::MAX, |retry| retry.message);
        let refused = refused.into_iter().filter(|(message, _)| *message < decided);
        self.rejections.extend(refused.map(|(message, reason)| Rejection { message, reason }));
        self.rejections.sort_unstable_by_key(|rejection| rejection.message);
        self
    }
}

/// What the host keeps for each emission on its way through the pipeline, in bytes: the message itself is
/// 64, and the lists it stands in may take twice what they need.
const EMISSION_BYTES: usize = 128;
/// What a payload takes beside its bytes where it does not lie in a row with the others.
const OWN_PAYLOAD_BYTES: usize = 64;

/// Checks the outcome of a batch, for which the host may hold `max_bytes`, and edits what was forwarded.
pub(super) fn check(
    outcome: Box<wit::Outcome>,
    batch: &[Message],
    description: &Description,
    edits: &mut Edits,
    max_bytes: usize,
    marks: &mut Vec<bool>,
) -> Result<Outcome, Fault> {
    let retry = outcome.retry.map(|wit::Retry { message, reason, after_ms }| Retry {
        message,
        reason,
        after: Duration::from_millis(after_ms.into()),
    });
    let messages = batch.len();
    if let Some(Retry { message, .. }) = retry.as_ref().filter(|retry| retry.message as usize >= messages) {
        return Err(Fault::invalid(format!("retry is message {message} of a batch of {messages}")));
    }
    let decided = Decided { messages, retry: retry.as_ref().map(|retry| retry.message) };
    let (forward, forwarded) = match outcome.forward {
        wit::Forward::Nothing => (Forward::Nothing, 0),
        wit::Forward::All => {
            if let Some(retry) = decided.retry {
                return Err(Fault::invalid(format!("forward is all, and {retry} is the retry")));
            }
            (Forward::All, messages)
        }
        wit::Forward::These(these) => {
            check_messages("forward", &these, decided, true)?;
            let count = these.len();
            (Forward::These(these), count)
        }
    };
    check_outputs("forward-outputs", &outcome.forward_outputs, forwarded, description)?;
    let kept_bytes = Writings::bytes(&outcome.forward_metadata, forwarded);
    if kept_bytes > max_bytes {
        return Err(Fault::new(
            FaultKind::Output,
            format!(
                "the metadata of {forwarded} forwarded messages would take {kept_bytes} bytes in the host, limits.output is {max_bytes}"
            ),
        ));
    }
    let forward_metadata =
        Writings::check("forward-metadata", outcome.forward_metadata, forwarded, description)?;
    let emissions = match outcome.emissions {
        None => Emissions::none(),
        Some(emissions) => check_emissions(emissions, Some(decided), description, max_bytes - kept_bytes)?,
    };
    let rejections = check_rejections(outcome.rejections, decided, &forward, &emissions, marks)?;
    let edited = edits.apply(outcome.edits, batch, &forward, forwarded)?;
    let forward_outputs = outcome.forward_outputs;
    Ok(Outcome {
        forward,
        forward_outputs,
        forward_metadata,
        edited,
        emissions,
        rejections,
        retry,
        is_answer: true,
    })
}

fn check_rejections(
    rejections: Vec<wit::Rejection>,
    decided: Decided,
    forward: &Forward,
    emissions: &Emissions,
    marks: &mut Vec<bool>,
) -> Result<Vec<Rejection>, Fault> {
    if rejections.is_empty() {
        return Ok(Vec::new());
    }
    let messages = decided.messages;
    if rejections.len() > messages {
        let count = rejections.len();
        return Err(Fault::invalid(format!("rejections has {count} entries for a batch of {messages}")));
    }
    marks.clear();
    marks.resize(messages, matches!(forward, Forward::All));
    let forwarded: &[u32] = if let Forward::These(these) = forward { these } else { &[] };
    for index in forwarded.iter().chain(emissions.origins()) {
        marks[*index as usize] = true;
    }
    let mut checked = Vec::with_capacity(rejections.len());
    for (n, wit::Rejection { message, reason }) in rejections.into_iter().enumerate() {
        decided.check(message, || format!("rejections[{n}] is message"))?;
        if std::mem::replace(&mut marks[message as usize], true) {
            return Err(Fault::invalid(format!(
                "rejections[{n}] is message {message}, which was rejected, forwarded or answered before"
            )));
        }
        checked.push(Rejection { message, reason });
    }
    checked.sort_unstable_by_key(|rejection| rejection.message);
    Ok(checked)
}

/// Checks emissions: of what was decided of a batch, or of a call without messages.
pub(super) fn check_emissions(
    emissions: wit::Emissions,
    decided: Option<Decided>,
    description: &Description,
    max_bytes: usize,
) -> Result<Emissions, Fault> {
    check_size(&emissions, max_bytes)?;
    let wit::Emissions { payloads, origins, outputs, metadata } = emissions;
    let (payloads, each, ends, binary) = match payloads {
        wit::PayloadsResult::Packed(wit::PackedResult { data, ends, binary }) => {
            check_packed(&data, &ends, binary.as_deref())?;
            (Bytes::from(data), None, ends, binary)
        }
        wit::PayloadsResult::Each(each) => {
            let each = each.into_iter().map(|payload| match payload {
                wit::PayloadResult::Text(text) => Payload::text(text),
                wit::PayloadResult::Binary(bytes) => Payload::binary(bytes),
            });
            (Bytes::new(), Some(each.collect::<Vec<_>>()), Vec::new(), None)
        }
    };
    let count = each.as_ref().map_or(ends.len(), Vec::len);
    match decided {
        Some(decided) => {
            same_length("emissions.origins", origins.len(), count)?;
            check_messages("emissions.origins", &origins, decided, false)?;
        }
        None if origins.is_empty() => {}
        None => return Err(Fault::invalid("emissions.origins is not empty in a call without messages")),
    }
    check_outputs("emissions.outputs", &outputs, count, description)?;
    let writings = Writings::check("emissions.metadata", metadata, count, description)?;
    Ok(Emissions::of(EmissionRows { payloads, each, ends, binary, origins, outputs, writings, count }))
}

/// Checks that the host may hold what it would make of emissions: before anything is made of them, and
/// before their columns are known to agree.
fn check_size(emissions: &wit::Emissions, max_bytes: usize) -> Result<(), Fault> {
    let (count, payload_bytes) = match &emissions.payloads {
        wit::PayloadsResult::Packed(packed) => (packed.ends.len(), packed.data.len()),
        wit::PayloadsResult::Each(each) => {
            let bytes = each.iter().map(|payload| match payload {
                wit::PayloadResult::Text(text) => text.len(),
                wit::PayloadResult::Binary(bytes) => bytes.len(),
            });
            (each.len(), bytes.sum::<usize>() + each.len() * OWN_PAYLOAD_BYTES)
        }
    };
    let metadata_bytes = Writings::bytes(&emissions.metadata, count);
    let bytes =
        count.saturating_mul(EMISSION_BYTES).saturating_add(payload_bytes).saturating_add(metadata_bytes);
    if bytes <= max_bytes {
        return Ok(());
    }
    Err(Fault::new(
        FaultKind::Output,
        format!(
            "{count} emissions would take {bytes} bytes in the host ({payload_bytes} their payloads, {metadata_bytes} their metadata), limits.output is {max_bytes}"
        ),
    ))
}

fn check_packed(data: &[u8], ends: &[u32], binary: Option<&[u8]>) -> Result<(), Fault> {
    const NAME: &str = "emissions.payloads";
    check_ends(NAME, data, ends)?;
    let Some(binary) = binary else {
        return check_texts(NAME, data, ends, 0..ends.len());
    };
    same_length("emissions.payloads.binary", binary.len(), ends.len())?;
    if let Some(n) = binary.iter().position(|kind| *kind > 1) {
        return Err(Fault::invalid(format!(
            "emissions.payloads.binary[{n}] is {}, neither 0 nor 1",
            binary[n]
        )));
    }
    // Runs of texts are checked like one blob each.
    let mut start = 0;
    for run in binary.chunk_by(|a, b| a == b) {
        let pieces = start..start + run.len();
        start = pieces.end;
        if run[0] == 0 {
            check_texts(NAME, data, ends, pieces)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod any_outcome;

#[cfg(test)]
mod tests {
    use super::super::description::ColumnForm;
    use super::super::json_places::JsonPlaces;
    use super::*;
    use crate::message::metadata::Metadata;

    const MESSAGES: [&str; 3] = [r#"{"price": 1,"deep":{}}"#, "{}", "not JSON"];

    fn description() -> Description {
        Description {
            outputs: vec!["side".into()],
            writes: vec!["mark".into(), "room".into()],
            edits: vec!["/price".into(), "/deep/note".into()],
            ..Description::plain(ColumnForm::Packed)
        }
    }

    fn packed(data: &[u8], ends: &[u32], binary: Option<&[u8]>) -> wit::PayloadsResult {
        wit::PayloadsResult::Packed(wit::PackedResult {
            data: data.to_vec(),
            ends: ends.to_vec(),
            binary: binary.map(<[u8]>::to_vec),
        })
    }

    /// Two emissions, of messages 0 and 1.
    fn two() -> wit::Emissions {
        wit::Emissions {
            payloads: packed("a\u{e9}".as_bytes(), &[1, 3], None),
            origins: vec![0, 1],
            outputs: vec![0, 1],
            metadata: Vec::new(),
        }
    }

    fn outcome(emissions: Option<wit::Emissions>) -> wit::Outcome {
        let forward = wit::Forward::Nothing;
        wit::Outcome {
            forward,
            forward_outputs: Vec::new(),
            forward_metadata: Vec::new(),
            edits: Vec::new(),
            emissions,
            rejections: Vec::new(),
            retry: None,
        }
    }

    fn checked(outcome: wit::Outcome) -> Result<Outcome, String> {
        let batch = MESSAGES
            .map(|text| Message { payload: Payload::text(text), metadata: Metadata::without_origin(0) });
        let mut edits = Edits::try_new(&description(), JsonPlaces::default()).unwrap();
        check(Box::new(outcome), &batch, &description(), &mut edits, 16 << 20, &mut Vec::new()).map_err(
            |fault| {
                assert_eq!(fault.kind, FaultKind::Invalid);
                fault.detail
            },
        )
    }

    #[track_caller]
    fn lie(change: impl FnOnce(&mut wit::Outcome), expected: &str) {
        let mut told = outcome(Some(two()));
        change(&mut told);
        assert_eq!(checked(told).map(drop), Err(expected.to_owned()));
    }

    fn emitted(outcome: &mut wit::Outcome) -> &mut wit::Emissions {
        outcome.emissions.as_mut().unwrap()
    }

    fn rejection(message: u32) -> wit::Rejection {
        wit::Rejection { message, reason: "why".into() }
    }

    #[test]
    fn an_honest_outcome_is_taken_as_it_is() {
        let mut honest = outcome(Some(two()));
        honest.forward = wit::Forward::These(vec![0]);
        honest.forward_outputs = vec![1];
        honest.rejections = vec![rejection(2)];
        emitted(&mut honest).metadata = vec![
            wit::Writing::Sparse(vec![wit::Setting { index: 1, value: "m".into() }]),
            wit::Writing::Packed(wit::TextsResult { data: b"r1r2".to_vec(), ends: vec![2, 4] }),
        ];
        let taken = checked(honest).unwrap();
        assert_eq!(taken.forward, Forward::These(vec![0]));
        assert_eq!(taken.rejections, [Rejection { message: 2, reason: "why".into() }]);
        let emissions = taken.emissions;
        assert_eq!((emissions.len(), emissions.origin(1), emissions.output(1)), (2, Some(1), 1));
        assert_eq!(emissions.payload(1).as_text(), Some("\u{e9}"));
        let mut metadata = [Metadata::without_origin(0), Metadata::without_origin(0)];
        emissions.write_metadata(0, &mut metadata[0]);
        emissions.write_metadata(1, &mut metadata[1]);
        assert_eq!((&*metadata[0].get("mark"), &*metadata[0].get("room")), ("", "r1"));
        assert_eq!((&*metadata[1].get("mark"), &*metadata[1].get("room")), ("m", "r2"));
    }

    fn texts(data: &str, ends: &[u32], absent: Option<&[u8]>) -> wit::ValuesResult {
        wit::ValuesResult::Packed(wit::OptionalTextsResult {
            data: data.as_bytes().to_vec(),
            ends: ends.to_vec(),
            absent: absent.map(<[u8]>::to_vec),
        })
    }

    #[test]
    fn forwarded_messages_are_edited_where_they_can_be() {
        let mut honest = outcome(None);
        honest.forward = wit::Forward::All;
        let numbers = vec![2.5, f64::NAN, f64::NAN];
        honest.edits = vec![wit::ValuesResult::Numbers(numbers), texts(r#"[1]"x"null"#, &[3, 6, 10], None)];
        let mut edited = checked(honest).unwrap().edited;
        let payload = |n: usize| edited.payload(n, &Payload::text(MESSAGES[n]));
        let first = Payload::text(r#"{"price": 2.5,"deep":{"note":[1]}}"#);
        assert_eq!(payload(0), Ok(Some(first)));
        assert_eq!(payload(1), Err("the message has no object for /deep/note"));
        assert_eq!(payload(2), Err("not JSON (at byte 0)"));
        edited.tell_reasons(|reason| reason.replace("/deep", "***"));
        let second = edited.payload(1, &Payload::text(MESSAGES[1]));
        assert_eq!(second, Err("the message has no object for ***/note"));
        let mut deep = outcome(None);
        deep.forward = wit::Forward::These(vec![0]);
        let value = format!("{}{}", "[".repeat(126), "]".repeat(126));
        deep.edits = vec![wit::ValuesResult::Numbers(vec![f64::NAN]), texts(&value, &[252], None)];
        let edited = checked(deep).unwrap().edited;
        let payload = edited.payload(0, &Payload::text(MESSAGES[0]));
        assert_eq!(payload, Err("/deep/note would be JSON nested more than 127 levels deep"));
        let mut untouched = outcome(None);
        untouched.forward = wit::Forward::These(vec![1, 2]);
        untouched.edits = vec![wit::ValuesResult::Each(vec![None, None]), texts("", &[0, 0], Some(&[1, 1]))];
        let edited = checked(untouched).unwrap().edited;
        assert_eq!(
            (edited.payload(0, &Payload::text("{}")), edited.payload(1, &Payload::text(""))),
            (Ok(None), Ok(None))
        );
    }

    #[test]
    fn what_lies_before_a_retry_is_decided() {
        let mut honest = outcome(None);
        honest.forward = wit::Forward::These(vec![0]);
        honest.rejections = vec![rejection(1)];
        honest.retry = Some(wit::Retry { message: 2, reason: "not yet".into(), after_ms: 70 });
        let retry = checked(honest).unwrap().retry.unwrap();
        assert_eq!(retry, Retry { message: 2, reason: "not yet".into(), after: Duration::from_millis(70) });
    }

    #[test]
    fn a_lie_of_edits_or_of_a_retry_is_named() {
        let edits = |column: fn() -> wit::ValuesResult| {
            move |told: &mut wit::Outcome| {
                told.emissions = None;
                told.forward = wit::Forward::These(vec![0]);
                told.edits = vec![wit::ValuesResult::Numbers(vec![f64::NAN]), column()];
            }
        };
        let numbers = |numbers: &[f64]| wit::ValuesResult::Numbers(numbers.to_vec());
        lie(edits(|| wit::ValuesResult::Numbers(vec![])), r#"edits["/deep/note"] has 0 entries for 1"#);
        lie(
            edits(|| wit::ValuesResult::Numbers(vec![f64::INFINITY])),
            r#"edits["/deep/note"][0] is not finite"#,
        );
        lie(edits(|| texts("{", &[1], None)), r#"edits["/deep/note"][0]: not JSON (at byte 1)"#);
        lie(edits(|| texts("1", &[1], Some(&[1]))), r#"edits["/deep/note"][0] is absent, and has bytes"#);
        lie(edits(|| texts("1", &[1], Some(&[2]))), r#"edits["/deep/note"].absent[0] is 2, neither 0 nor 1"#);
        lie(|told| told.edits = vec![numbers(&[])], "edits has 1 columns for 2 places of description.edits");
        let retry = |told: &mut wit::Outcome, message| {
            told.retry = Some(wit::Retry { message, reason: String::new(), after_ms: 0 });
        };
        lie(|told| retry(told, 3), "retry is message 3 of a batch of 3");
        lie(|told| retry(told, 1), "emissions.origins has 1, which is not before 1, the retry");
        lie(
            |told| {
                told.emissions = None;
                told.forward = wit::Forward::All;
                retry(told, 2);
            },
            "forward is all, and 2 is the retry",
        );
        lie(
            |told| {
                told.emissions = None;
                told.rejections = vec![rejection(2)];
                retry(told, 2);
            },
            "rejections[0] is message 2, which is not before 2, the retry",
        );
    }

    #[test]
    fn binary_payloads_need_not_be_text_and_texts_beside_them_must() {
        let mixed = |data: &[u8]| {
            let mut told = outcome(Some(two()));
            emitted(&mut told).payloads = packed(data, &[1, 2], Some(&[1, 0]));
            checked(told)
        };
        let taken = mixed(b"\xffa").unwrap().emissions;
        assert_eq!((taken.payload(0).is_text(), taken.payload(1).as_text()), (false, Some("a")));
        assert!(mixed(b"a\xff").unwrap_err().contains("not UTF-8"));
    }

    #[test]
    fn emissions_of_a_timer_have_no_origin() {
        let mut emissions = two();
        assert!(check_emissions(emissions.clone(), None, &description(), 16 << 20).is_err());
        emissions.origins.clear();
        let emissions = check_emissions(emissions, None, &description(), 16 << 20).unwrap();
        assert_eq!((emissions.len(), emissions.origin(0)), (2, None));
    }

    #[test]
    fn a_lie_is_named() {
        let payloads = |data: &'static [u8], ends: &'static [u32], binary: Option<&'static [u8]>| {
            move |told: &mut wit::Outcome| emitted(told).payloads = packed(data, ends, binary)
        };
        lie(payloads(b"abc", &[1, 4], None), "emissions.payloads.ends ends at 4, its data at 3");
        lie(payloads(b"abc", &[1, 2], None), "emissions.payloads.ends ends at 2, its data at 3");
        lie(payloads(b"abc", &[3, 1], None), "emissions.payloads.ends[1] lies before ends[0]");
        lie(payloads(b"ab", &[1, 2], Some(&[0])), "emissions.payloads.binary has 1 entries for 2");
        lie(payloads(b"ab", &[1, 2], Some(&[0, 2])), "emissions.payloads.binary[1] is 2, neither 0 nor 1");
        lie(payloads(b"a\xff", &[1, 2], None), "emissions.payloads: piece 1 is not UTF-8");
        lie(
            payloads("\u{e9}".as_bytes(), &[1, 2], None),
            "emissions.payloads.ends has 1, which is inside a character",
        );
        lie(|told| emitted(told).origins = vec![0], "emissions.origins has 1 entries for 2");
        lie(|told| emitted(told).origins = vec![1, 0], "emissions.origins[1] is 0, after 1: not ascending");
        lie(|told| emitted(told).origins = vec![0, 3], "emissions.origins has 3 for a batch of 3");
        lie(|told| emitted(told).outputs = vec![0], "emissions.outputs has 1 entries for 2");
        lie(
            |told| emitted(told).outputs = vec![0, 2],
            "emissions.outputs[1] is 2, the plugin described 1 outputs beside the default",
        );
        lie(
            |told| emitted(told).metadata = vec![wit::Writing::Inherit],
            "emissions.metadata has 1 columns for 2 keys of description.writes",
        );
        let sparse = |settings: &'static [u32]| {
            let settings = settings.iter().map(|index| wit::Setting { index: *index, value: "v".into() });
            let writing = wit::Writing::Sparse(settings.collect());
            move |told: &mut wit::Outcome| emitted(told).metadata = vec![wit::Writing::Inherit, writing]
        };
        lie(sparse(&[2]), "emissions.metadata[\"room\"] sets 2 of 2");
        lie(sparse(&[1, 1]), "emissions.metadata[\"room\"] sets 1 after 1: not ascending");
        lie(|told| told.forward = wit::Forward::These(vec![1, 1]), "forward[1] is 1, after 1: not ascending");
        lie(|told| told.forward = wit::Forward::These(vec![3]), "forward has 3 for a batch of 3");
        lie(|told| told.forward_outputs = vec![0], "forward-outputs has 1 entries for 0");
        lie(|told| told.rejections = vec![rejection(3)], "rejections[0] is message 3 for a batch of 3");
        for (first, forward) in [
            (2, wit::Forward::Nothing),
            (2, wit::Forward::These(vec![2])),
            (2, wit::Forward::All),
            (0, wit::Forward::Nothing),
        ] {
            let mut told = outcome(Some(two()));
            told.forward = forward;
            told.rejections = vec![rejection(first), rejection(first)];
            assert!(checked(told).unwrap_err().contains("rejected, forwarded or answered before"));
        }
    }
}
