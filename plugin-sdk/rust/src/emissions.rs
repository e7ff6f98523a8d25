//! New messages on their way out, written straight into the columns in which they cross.

use crate::bindings::tidemill::plugin::types;
use crate::writing::Writings;
use crate::{Output, Result, Write};
use serde::Serialize;

/// What the host counts for an emission beside its bytes.
pub(crate) const EMISSION_BYTES: u64 = 128;

/// New messages of one call, in the order in which they go out.
#[derive(Debug, Default)]
pub struct Emissions {
    data: Vec<u8>,
    ends: Vec<u32>,
    /// One byte an emission; empty while all are text.
    binary: Vec<u8>,
    /// Empty in `tick` and `finish`.
    origins: Vec<u32>,
    /// One an emission; empty while all go to the default output.
    outputs: Vec<u16>,
    writings: Writings,
    room: Room,
    /// What the host takes at most, where that is looked at.
    most_bytes: Option<u64>,
}

/// How much the last call emitted: what the next one makes room for at its first emission.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room {
    bytes: usize,
    emissions: usize,
}

/// A new message that is being written; it is complete when it is dropped.
///
/// What is appended goes straight to where the host reads it. An emission of a message is text or
/// binary as that message is, one of a timer is text; [`binary`](Self::binary) changes that. Text must
/// be UTF-8 when it is complete, or the whole call is at fault.
#[derive(Debug)]
pub struct Emission<'a> {
    emissions: &'a mut Emissions,
    output: Output,
    binary: bool,
}

impl Emissions {
    pub(crate) fn new(writes: usize, room: Room) -> Self {
        Self { writings: Writings::new(writes), room, ..Self::default() }
    }

    /// The same, of which [`keep_what_fits`](Self::keep_what_fits) keeps so much.
    pub(crate) fn bounded(self, most_bytes: u64) -> Self {
        Self { most_bytes: Some(most_bytes), ..self }
    }

    /// Takes the last one back if the host would not take it with the others. Says whether it stays.
    pub(crate) fn keep_what_fits(&mut self) -> bool {
        let fits = self.most_bytes.is_none_or(|most_bytes| self.bytes() <= most_bytes);
        if !fits {
            self.keep(self.len().saturating_sub(1));
        }
        fits
    }

    /// What the host counts for them, without their metadata.
    #[inline]
    pub(crate) fn bytes(&self) -> u64 {
        self.data.len() as u64 + self.len() as u64 * EMISSION_BYTES
    }

    /// Begins a new message that has no origin.
    pub fn emit(&mut self) -> Emission<'_> {
        self.begin(false)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    #[inline]
    pub(crate) fn emit_of(&mut self, origin: u32, binary: bool) -> Emission<'_> {
        let emission = self.begin(binary);
        emission.emissions.origins.push(origin);
        emission
    }

    #[inline]
    fn begin(&mut self, binary: bool) -> Emission<'_> {
        if self.ends.is_empty() {
            self.data.reserve(self.room.bytes);
            self.ends.reserve(self.room.emissions);
            self.origins.reserve(self.room.emissions);
        }
        Emission { emissions: self, output: Output::DEFAULT, binary }
    }

    /// Takes back all emissions of an origin, the latest one that has any.
    pub(crate) fn take_back(&mut self, origin: u32) {
        self.keep(self.origins.iter().rposition(|&other| other != origin).map_or(0, |last| last + 1));
    }

    /// Takes all but the first so many back.
    fn keep(&mut self, kept: usize) {
        self.origins.truncate(kept);
        self.ends.truncate(kept);
        self.binary.truncate(kept);
        self.outputs.truncate(kept);
        self.data.truncate(self.ends.last().map_or(0, |&end| end as usize));
        self.writings.keep(position(kept));
    }

    pub(crate) fn room(&self) -> Room {
        Room { bytes: self.data.len(), emissions: self.ends.len() }
    }

    pub(crate) fn into_wit(self) -> Option<types::Emissions> {
        if self.ends.is_empty() {
            return None;
        }
        let count = self.ends.len();
        let binary = (!self.binary.is_empty()).then_some(self.binary);
        Some(types::Emissions {
            payloads: types::Payloads::Packed(types::Packed { data: self.data, ends: self.ends, binary }),
            origins: self.origins,
            outputs: self.outputs,
            metadata: self.writings.into_wit(|| 0..position(count)),
        })
    }
}

impl Emission<'_> {
    /// Sends it to a named output.
    #[inline]
    pub fn to(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// Makes it a binary message, or a text message.
    #[inline]
    pub fn binary(mut self, binary: bool) -> Self {
        self.binary = binary;
        self
    }

    /// Gives it its own value of a metadata key; "" removes the key. What is not set is inherited from
    /// the message it came from.
    pub fn set(self, key: Write, value: &str) -> Self {
        let emission = position(self.emissions.ends.len());
        self.emissions.writings.set(key, emission, value);
        self
    }

    /// Appends text.
    #[inline]
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// Appends bytes. In a text message they must make UTF-8 together with what stands around them.
    #[inline]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.emissions.data.extend_from_slice(bytes);
        self
    }

    /// Appends a value as JSON; a number that JSON does not have becomes `null`.
    ///
    /// # Errors
    /// The value has no form in JSON, such as a map whose keys are no strings.
    #[inline]
    pub fn json(self, value: &(impl Serialize + ?Sized)) -> Result<Self> {
        serde_json::to_writer(&mut self.emissions.data, value)?;
        Ok(self)
    }
}

/// Appends, for `write!`; cannot fail.
impl std::io::Write for Emission<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.emissions.data.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Emission<'_> {
    #[inline]
    fn drop(&mut self) {
        let emissions = &mut *self.emissions;
        let before = emissions.ends.len();
        if self.binary || !emissions.binary.is_empty() {
            emissions.binary.resize(before, 0);
            emissions.binary.push(u8::from(self.binary));
        }
        if self.output != Output::DEFAULT || !emissions.outputs.is_empty() {
            emissions.outputs.resize(before, Output::DEFAULT.number());
            emissions.outputs.push(self.output.number());
        }
        emissions.ends.push(position(emissions.data.len()));
    }
}

/// A position or count as it crosses: a guest's memory ends at 4 GiB.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "lengths fit 32 bits where addresses do")]
pub(crate) fn position(length: usize) -> u32 {
    length as u32
}
