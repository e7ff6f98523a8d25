//! Checks of what every list of a guest may get wrong: lengths, offsets, order, UTF-8.

use super::description::Description;
use super::fault::Fault;
use std::ops::Range;

/// Where piece `i` of a row lies.
pub(super) fn range(ends: &[u32], i: usize) -> Range<usize> {
    let start = if i == 0 { 0 } else { ends[i - 1] as usize };
    start..ends[i] as usize
}

/// Checks that the ends ascend and that the last is the end of the data.
pub(super) fn check_ends(name: &str, data: &[u8], ends: &[u32]) -> Result<(), Fault> {
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
pub(super) fn check_texts(name: &str, data: &[u8], ends: &[u32], pieces: Range<usize>) -> Result<(), Fault> {
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

pub(super) fn check_outputs(
    name: &str,
    outputs: &[u16],
    count: usize,
    description: &Description,
) -> Result<(), Fault> {
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

pub(super) fn same_length(name: &str, length: usize, expected: usize) -> Result<(), Fault> {
    if length == expected {
        return Ok(());
    }
    Err(Fault::invalid(format!("{name} has {length} entries for {expected}")))
}

/// The messages of a batch that an outcome may be about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decided {
    /// How many the batch has.
    pub(super) messages: usize,
    /// Where the plugin stopped, if it did.
    pub(super) retry: Option<u32>,
}

impl Decided {
    /// Checks that a message of the batch was decided on.
    pub(super) fn check(self, message: u32, name: impl FnOnce() -> String) -> Result<(), Fault> {
        if message as usize >= self.messages {
            return Err(Fault::invalid(format!("{} {message} for a batch of {}", name(), self.messages)));
        }
        match self.retry {
            Some(retry) if message >= retry => {
                Err(Fault::invalid(format!("{} {message}, which is not before {retry}, the retry", name())))
            }
            _ => Ok(()),
        }
    }
}

/// Checks that the indices of messages ascend, strictly or not, and that all were decided on.
pub(super) fn check_messages(
    name: &str,
    indices: &[u32],
    decided: Decided,
    strictly: bool,
) -> Result<(), Fault> {
    ascending(name, indices, strictly)?;
    match indices.last() {
        Some(&last) => decided.check(last, || format!("{name} has")),
        None => Ok(()),
    }
}

/// Checks that indices ascend, strictly or not.
pub(super) fn ascending(name: &str, indices: &[u32], strictly: bool) -> Result<(), Fault> {
    match indices.windows(2).position(|p| p[0] > p[1] || (strictly && p[0] == p[1])) {
        None => Ok(()),
        Some(n) => {
            let (before, next) = (indices[n], indices[n + 1]);
            Err(Fault::invalid(format!("{name}[{}] is {next}, after {before}: not ascending", n + 1)))
        }
    }
}
