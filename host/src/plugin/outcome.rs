//! Checks everything that a guest returned, and makes the host's own types of it.
//!
//! Behind this file an index is in range, an order is kept, a text is UTF-8. A guest whose columns
//! say anything else is at fault, with a detail that names the column.

use super::bindings::tidemill::plugin::types as wit;
use super::description::Description;
use super::emissions::{Emissions, Writing, Writings};
use super::fault::{Fault, FaultKind};
use crate::message::Payload;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// Which messages of a batch go on unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forward {
    /// No message is forwarded.
    Nothing,
    /// All messages are forwarded.
    All,
    /// Those with these indices, strictly ascending, all in range.
    These(Vec<u32>),
}

/// A message that the plugin refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Its index in the batch.
    pub message: u32,
    /// Why, in the plugin's words.
    pub reason: String,
}

/// What became of a batch. Everything in it was checked.
#[derive(Debug)]
pub struct Outcome {
    /// The messages that go on unchanged.
    pub forward: Forward,
    /// The output of each of them: 0 is "default", n is `outputs[n - 1]` of the description. Empty:
    /// all go to the default.
    pub forward_outputs: Vec<u16>,
    /// New messages, in the order of their origins.
    pub emissions: Emissions,
    /// The messages refused; none of them is forwarded, or the origin of an emission.
    pub rejections: Vec<Rejection>,
}

/// What the host keeps for each emission on its way through the pipeline, in bytes: the message itself is
/// 64, and the lists it stands in may take twice what they need.
const EMISSION_BYTES: usize = 128;
/// What a payload takes beside its bytes where it does not lie in a row with the others.
const OWN_PAYLOAD_BYTES: usize = 64;
/// What an emission takes that has metadata of its own.
const CHANGES_BYTES: usize = 64;
/// What a value of metadata takes beside its bytes.
const VALUE_BYTES: usize = 64;

/// Checks the outcome of a batch of `messages` messages, for which the host may hold `max_bytes`.
pub(super) fn check(
    outcome: wit::Outcome,
    messages: usize,
    description: &Description,
    max_bytes: usize,
    marks: &mut Vec<bool>,
) -> Result<Outcome, Fault> {
    let wit::Outcome { forward, forward_outputs, emissions, rejections } = outcome;
    let (forward, forwarded) = match forward {
        wit::Forward::Nothing => (Forward::Nothing, 0),
        wit::Forward::All => (Forward::All, messages),
        wit::Forward::These(these) => {
            ascending("forward", &these, messages, true)?;
            let count = these.len();
            (Forward::These(these), count)
        }
    };
    check_outputs("forward-outputs", &forward_outputs, forwarded, description)?;
    let emissions = match emissions {
        None => Emissions::none(),
        Some(emissions) => check_emissions(emissions, Some(messages), description, max_bytes)?,
    };
    let rejections = check_rejections(rejections, messages, &forward, &emissions, marks)?;
    Ok(Outcome { forward, forward_outputs, emissions, rejections })
}

fn check_rejections(
    rejections: Vec<wit::Rejection>,
    messages: usize,
    forward: &Forward,
    emissions: &Emissions,
    marks: &mut Vec<bool>,
) -> Result<Vec<Rejection>, Fault> {
    if rejections.is_empty() {
        return Ok(Vec::new());
    }
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
        match marks.get_mut(message as usize) {
            None => {
                return Err(Fault::invalid(format!(
                    "rejections[{n}] is message {message} of a batch of {messages}"
                )));
            }
            Some(mark @ false) => *mark = true,
            Some(true) => {
                return Err(Fault::invalid(format!(
                    "rejections[{n}] is message {message}, which was rejected, forwarded or answered before"
                )));
            }
        }
        checked.push(Rejection { message, reason });
    }
    Ok(checked)
}

/// Checks emissions: of a batch of `messages`, or of a call without messages.
pub(super) fn check_emissions(
    emissions: wit::Emissions,
    messages: Option<usize>,
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
    match messages {
        Some(messages) => {
            same_length("emissions.origins", origins.len(), count)?;
            ascending("emissions.origins", &origins, messages, false)?;
        }
        None if origins.is_empty() => {}
        None => return Err(Fault::invalid("emissions.origins is not empty in a call without messages")),
    }
    check_outputs("emissions.outputs", &outputs, count, description)?;
    if !metadata.is_empty() && metadata.len() != description.writes.len() {
        return Err(Fault::invalid(format!(
            "emissions.metadata has {} columns for {} keys of description.writes",
            metadata.len(),
            description.writes.len()
        )));
    }
    let mut writings = Vec::with_capacity(metadata.len());
    for (key, writing) in description.writes.iter().zip(metadata) {
        if !matches!(writing, wit::Writing::Inherit) {
            writings.push((key.clone(), check_writing(key, writing, count)?));
        }
    }
    let writings = if writings.iter().all(|(_, writing)| matches!(writing, Writing::Same(_))) {
        let same = writings.into_iter().filter_map(|(key, writing)| match writing {
            Writing::Same(value) => Some((key, value)),
            _ => None,
        });
        Writings::Same(same.collect())
    } else {
        Writings::Own(writings)
    };
    Ok(Emissions { payloads, each, ends, binary, origins, outputs, writings, count })
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
    let inherits = |writing: &wit::Writing| matches!(writing, wit::Writing::Inherit);
    let is_same = |writing: &wit::Writing| matches!(writing, wit::Writing::Same(_)) || inherits(writing);
    let are_shared = emissions.metadata.iter().all(is_same);
    let mut metadata_bytes =
        if emissions.metadata.iter().all(inherits) { 0 } else { count.saturating_mul(CHANGES_BYTES) };
    for writing in &emissions.metadata {
        let (values, bytes) = match writing {
            wit::Writing::Inherit => (0, 0),
            wit::Writing::Same(value) => (if are_shared { 1 } else { count }, value.len()),
            wit::Writing::Packed(wit::TextsResult { data, ends }) => (ends.len(), data.len()),
            wit::Writing::Each(values) => (values.len(), values.iter().map(String::len).sum()),
            wit::Writing::Sparse(settings) => (settings.len(), settings.iter().map(|s| s.value.len()).sum()),
        };
        metadata_bytes =
            metadata_bytes.saturating_add(values.saturating_mul(VALUE_BYTES)).saturating_add(bytes);
    }
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

/// Checks that the ends ascend and that the last is the end of the data.
fn check_ends(name: &str, data: &[u8], ends: &[u32]) -> Result<(), Fault> {
    if let Some(n) = ends.windows(2).position(|pair| pair[0] > pair[1]) {
        return Err(Fault::invalid(format!("{name}.ends[{}] lies before ends[{n}]", n + 1)));
    }
    let last = ends.last().map_or(0, |end| *end as usize);
    if last != data.len() {
        return Err(Fault::invalid(format!("{name}.ends ends at {last}, its data at {}", data.len())));
    }
    Ok(())
}

/// Checks that these pieces are UTF-8: their bytes as a whole, and that they are cut between
/// characters, which is the same and takes one pass.
fn check_texts(name: &str, data: &[u8], ends: &[u32], pieces: Range<usize>) -> Result<(), Fault> {
    let start = if pieces.start == 0 { 0 } else { ends[pieces.start - 1] as usize };
    let row = &ends[pieces.clone()];
    let bytes = &data[start..row.last().map_or(start, |end| *end as usize)];
    if let Ok(text) = std::str::from_utf8(bytes) {
        return match row.iter().find(|end| !text.is_char_boundary(**end as usize - start)) {
            None => Ok(()),
            Some(end) => Err(Fault::invalid(format!("{name}.ends has {end}, which is inside a character"))),
        };
    }
    let mut start = start;
    let is_text = |end: &&u32| {
        let piece = &data[start..**end as usize];
        start = **end as usize;
        std::str::from_utf8(piece).is_ok()
    };
    let n = pieces.start + row.iter().take_while(is_text).count();
    Err(Fault::invalid(format!("{name}: piece {n} is not UTF-8")))
}

fn check_writing(key: &str, writing: wit::Writing, count: usize) -> Result<Writing, Fault> {
    let name = || format!("emissions.metadata[{key:?}]");
    Ok(match writing {
        wit::Writing::Inherit => Writing::Sparse(Vec::new()),
        wit::Writing::Same(value) => Writing::Same(value.into()),
        wit::Writing::Packed(wit::TextsResult { data, ends }) => {
            same_length(&name(), ends.len(), count)?;
            check_ends(&name(), &data, &ends)?;
            check_texts(&name(), &data, &ends, 0..count)?;
            let data =
                String::from_utf8(data).map_err(|_| Fault::invalid(format!("{}: not UTF-8", name())))?;
            Writing::Packed { data, ends }
        }
        wit::Writing::Each(values) => {
            same_length(&name(), values.len(), count)?;
            Writing::Each(values.into_iter().map(Arc::from).collect())
        }
        wit::Writing::Sparse(settings) => {
            let settings = settings.into_iter().map(|s| (s.emission, Arc::from(s.value)));
            let mut settings: Vec<(u32, Arc<str>)> = settings.collect();
            settings.sort_by_key(|(emission, _)| *emission);
            if let Some((emission, _)) = settings.last().filter(|(last, _)| *last as usize >= count) {
                return Err(Fault::invalid(format!("{} sets emission {emission} of {count}", name())));
            }
            if let Some(twice) = settings.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                return Err(Fault::invalid(format!("{} sets emission {} twice", name(), twice[0].0)));
            }
            Writing::Sparse(settings)
        }
    })
}

fn check_outputs(name: &str, outputs: &[u16], count: usize, description: &Description) -> Result<(), Fault> {
    if outputs.is_empty() {
        return Ok(());
    }
    same_length(name, outputs.len(), count)?;
    let known = description.outputs.len();
    match outputs.iter().position(|output| usize::from(*output) > known) {
        None => Ok(()),
        Some(n) => Err(Fault::invalid(format!(
            "{name}[{n}] is {}, the plugin described {known} outputs beside the default",
            outputs[n]
        ))),
    }
}

fn same_length(name: &str, length: usize, expected: usize) -> Result<(), Fault> {
    if length == expected {
        return Ok(());
    }
    Err(Fault::invalid(format!("{name} has {length} entries for {expected}")))
}

/// Checks that indices ascend, strictly or not, and are below `bound`.
fn ascending(name: &str, indices: &[u32], bound: usize, strictly: bool) -> Result<(), Fault> {
    if let Some(n) = indices.windows(2).position(|p| p[0] > p[1] || (strictly && p[0] == p[1])) {
        return Err(Fault::invalid(format!(
            "{name}[{}] is {}, after {}: not ascending",
            n + 1,
            indices[n + 1],
            indices[n]
        )));
    }
    match indices.last() {
        Some(last) if *last as usize >= bound => {
            Err(Fault::invalid(format!("{name} has {last} for a batch of {bound}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::description::PayloadForm;
    use super::*;
    use crate::message::metadata::Metadata;

    fn description() -> Description {
        Description {
            outputs: vec!["side".into()],
            reads: Vec::new(),
            writes: vec!["mark".into(), "room".into()],
            form: PayloadForm::Packed,
            times: false,
            tick: None,
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
        wit::Outcome { forward, forward_outputs: Vec::new(), emissions, rejections: Vec::new() }
    }

    fn checked(outcome: wit::Outcome) -> Result<Outcome, String> {
        check(outcome, 3, &description(), 16 << 20, &mut Vec::new()).map_err(|fault| {
            assert_eq!(fault.kind, FaultKind::Invalid);
            fault.detail
        })
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
            wit::Writing::Sparse(vec![wit::Setting { emission: 1, value: "m".into() }]),
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
            let settings =
                settings.iter().map(|emission| wit::Setting { emission: *emission, value: "v".into() });
            let writing = wit::Writing::Sparse(settings.collect());
            move |told: &mut wit::Outcome| emitted(told).metadata = vec![wit::Writing::Inherit, writing]
        };
        lie(sparse(&[2]), "emissions.metadata[\"room\"] sets emission 2 of 2");
        lie(sparse(&[1, 0, 1]), "emissions.metadata[\"room\"] sets emission 1 twice");
        lie(|told| told.forward = wit::Forward::These(vec![1, 1]), "forward[1] is 1, after 1: not ascending");
        lie(|told| told.forward = wit::Forward::These(vec![3]), "forward has 3 for a batch of 3");
        lie(|told| told.forward_outputs = vec![0], "forward-outputs has 1 entries for 0");
        lie(|told| told.rejections = vec![rejection(3)], "rejections[0] is message 3 of a batch of 3");
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
