//! Checks everything that a guest returned, and makes the host's own types of it.
//!
//! Behind this file an index is in range, an order is kept, a text is UTF-8. A guest whose columns
//! say anything else is at fault, with a detail that names the column.

use super::bindings::tidemill::plugin::types as wit;
use super::emissions::{Emissions, Writing};
use super::fault::{Fault, shortened};
use super::instance::Description;
use crate::message::Payload;
use bytes::Bytes;

/// Which messages of a batch go on unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forward {
    /// None.
    Nothing,
    /// All.
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

/// Checks the outcome of a batch of `messages` messages.
pub(super) fn check(
    outcome: wit::Outcome,
    messages: usize,
    description: &Description,
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
        Some(emissions) => check_emissions(emissions, Some(messages), description)?,
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
        checked.push(Rejection { message, reason: shortened(&reason) });
    }
    Ok(checked)
}

/// Checks emissions: of a batch of `messages`, or of a call without messages.
pub(super) fn check_emissions(
    emissions: wit::Emissions,
    messages: Option<usize>,
    description: &Description,
) -> Result<Emissions, Fault> {
    let wit::Emissions { payloads, origins, outputs, metadata } = emissions;
    let (payloads, each, ends, binary) = match payloads {
        wit::Payloads::Packed(wit::Packed { data, ends, binary }) => {
            check_packed(&data, &ends, binary.as_deref())?;
            (Bytes::from(data), None, ends, binary)
        }
        wit::Payloads::Each(each) => {
            let each = each.into_iter().map(|payload| match payload {
                wit::Payload::Text(text) => Payload::text(text),
                wit::Payload::Binary(bytes) => Payload::binary(bytes),
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
    Ok(Emissions { payloads, each, ends, binary, origins, outputs, writings, count })
}

fn check_packed(data: &[u8], ends: &[u32], binary: Option<&[u8]>) -> Result<(), Fault> {
    const NAME: &str = "emissions.payloads";
    check_ends(NAME, data, ends)?;
    let Some(binary) = binary else {
        return check_texts(NAME, data, ends, 0);
    };
    same_length("emissions.payloads.binary", binary.len(), ends.len())?;
    if let Some(n) = binary.iter().position(|kind| *kind > 1) {
        return Err(Fault::invalid(format!(
            "emissions.payloads.binary[{n}] is {}, neither 0 nor 1",
            binary[n]
        )));
    }
    // Runs of texts are checked like one blob each.
    let (mut n, mut start) = (0, 0);
    for run in binary.chunk_by(|a, b| a == b) {
        let run_ends = &ends[n..n + run.len()];
        let end = run_ends.last().map_or(start, |end| *end as usize);
        if run[0] == 0 {
            check_texts(NAME, &data[start..end], run_ends, start)?;
        }
        (n, start) = (n + run.len(), end);
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

/// Checks that `data` is UTF-8, and is cut at `ends` between characters: that is the same as that
/// each piece is UTF-8, and takes one pass. `start` is the offset of `data`.
fn check_texts(name: &str, data: &[u8], ends: &[u32], start: usize) -> Result<(), Fault> {
    let Ok(text) = std::str::from_utf8(data) else {
        let first = ends.iter().scan(start, |begin, end| {
            let piece = &data[*begin - start..*end as usize - start];
            *begin = *end as usize;
            Some(std::str::from_utf8(piece).is_ok())
        });
        let n = first.take_while(|is_text| *is_text).count();
        return Err(Fault::invalid(format!(
            "{name}: the text that ends at ends[{n}] (of its run) is not UTF-8"
        )));
    };
    match ends.iter().find(|end| !text.is_char_boundary(**end as usize - start)) {
        None => Ok(()),
        Some(end) => Err(Fault::invalid(format!("{name}.ends has {end}, which is inside a character"))),
    }
}

fn check_writing(key: &str, writing: wit::Writing, count: usize) -> Result<Writing, Fault> {
    let name = || format!("emissions.metadata[{key:?}]");
    Ok(match writing {
        wit::Writing::Inherit => Writing::Sparse(Vec::new()),
        wit::Writing::Same(value) => Writing::Same(value),
        wit::Writing::Packed(wit::Texts { data, ends }) => {
            same_length(&name(), ends.len(), count)?;
            check_ends(&name(), &data, &ends)?;
            check_texts(&name(), &data, &ends, 0)?;
            let data =
                String::from_utf8(data).map_err(|_| Fault::invalid(format!("{}: not UTF-8", name())))?;
            Writing::Packed { data, ends }
        }
        wit::Writing::Each(values) => {
            same_length(&name(), values.len(), count)?;
            Writing::Each(values)
        }
        wit::Writing::Sparse(settings) => {
            let mut settings: Vec<_> = settings.into_iter().map(|s| (s.emission, s.value)).collect();
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
