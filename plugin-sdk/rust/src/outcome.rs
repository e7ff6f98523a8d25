//! What became of a batch: which messages go on, what is new, what is refused.

use crate::bindings::tidemill::plugin::types;
use crate::emissions::Room;
use crate::fields::{Change, EditColumn};
use crate::writing::Writings;
use crate::{Edit, EditValue, Emission, Emissions, Message, Output, Write};
use std::fmt::Display;
use std::time::Duration;

/// The first message that was not decided on yet, where none is any more.
const STOPPED: u32 = u32::MAX;

/// What became of the messages of a batch. Those it is told nothing of are filtered.
#[derive(Debug)]
pub struct Outcome {
    forward: Forward,
    writings: Writings,
    /// One for each member that may be edited; none until one is, for many calls edit nothing.
    edits: Vec<EditColumn>,
    /// How many members may be edited.
    editable: usize,
    emissions: Emissions,
    full_beyond: u64,
    rejections: Vec<types::Rejection>,
    retry: Option<types::Retry>,
    /// The first message that was not decided on yet.
    next: u32,
}

/// What becomes of one message: the way out of [`process`](crate::Plugin::process).
#[derive(Debug)]
pub struct Out<'a> {
    outcome: &'a mut Outcome,
    message: Message<'a>,
}

/// The messages that go on.
///
/// While there is no gap it is only counted, so that to forward a whole batch costs no memory.
#[derive(Debug, Default)]
struct Forward {
    /// Messages 0..count, while `listed` is empty.
    count: u32,
    /// All of them, once there was a gap.
    listed: Vec<u32>,
    /// One a forwarded message; empty while all go to the default output.
    outputs: Vec<u16>,
}

impl Outcome {
    pub(crate) fn new(writes: usize, edits: usize, room: Room) -> Self {
        Self {
            forward: Forward::default(),
            writings: Writings::new(writes),
            edits: Vec::new(),
            editable: edits,
            emissions: Emissions::new(writes, room),
            full_beyond: u64::MAX,
            rejections: Vec::new(),
            retry: None,
            next: 0,
        }
    }

    /// The way out of one message.
    ///
    /// # Panics
    /// If it, or a later one, was decided on before: emissions cross in the order of their origins. And if
    /// one before it is to be offered again, for then so is this one.
    #[inline]
    pub fn of<'a>(&'a mut self, message: Message<'a>) -> Out<'a> {
        assert!(
            message.number() >= self.next,
            "messages are decided on in their order, each once, and none behind one that is to be offered again"
        );
        self.next = message.number() + 1;
        Out { outcome: self, message }
    }

    /// Whether a message is to be offered again: then those behind it are not decided on.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.next == STOPPED
    }

    /// The same, which is [full](Self::is_full) when more than this was emitted.
    pub(crate) fn full_beyond(self, bytes: u64) -> Self {
        Self { full_beyond: bytes, ..self }
    }

    /// Whether enough was emitted for one call. Then a message was decided on, so that the next call, which begins with the
    /// one behind it, gets on.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.emissions.bytes() > self.full_beyond
    }

    pub(crate) fn room(&self) -> Room {
        self.emissions.room()
    }

    pub(crate) fn into_wit(mut self, messages: usize) -> types::Outcome {
        if let Some(retry) = &self.retry {
            // It may have been told of it since.
            self.take_back(retry.message);
        }
        let Self { forward, writings, edits, emissions, rejections, retry, .. } = self;
        let forward_metadata = writings.into_wit(|| forward.numbers());
        let edits = match edits.iter().all(EditColumn::is_empty) {
            true => Vec::new(),
            false => edits.into_iter().map(|column| column.into_wit(forward.numbers())).collect(),
        };
        let (forward, forward_outputs) = forward.into_wit(messages);
        let emissions = emissions.into_wit();
        types::Outcome { forward, forward_outputs, forward_metadata, edits, emissions, rejections, retry }
    }

    #[inline]
    fn edit(&mut self, member: Edit) -> &mut EditColumn {
        if self.edits.is_empty() {
            self.edits.resize_with(self.editable, EditColumn::default);
        }
        &mut self.edits[member.0]
    }

    /// Forgets what it was told of a message, the latest one.
    fn take_back(&mut self, message: u32) {
        self.forward.take_back(message);
        self.writings.keep(message);
        self.edits.iter_mut().for_each(|column| column.take_back(message));
        self.emissions.take_back(message);
    }
}

impl Out<'_> {
    /// Lets the message go on.
    #[inline]
    pub fn forward(&mut self) {
        self.forward_to(Output::DEFAULT);
    }

    /// Lets the message go on, to a named output. A message goes on once: of several calls the last
    /// counts.
    #[inline]
    pub fn forward_to(&mut self, output: Output) {
        self.outcome.forward.push(self.message.number(), output);
    }

    /// Sets a member of the message, if it goes on: in the place of the old value, or as the last of its
    /// object. The rest of the message stays as it is. Where there is no such object the message counts as
    /// rejected. Of several calls the last counts.
    ///
    /// A number that JSON does not have becomes `null`.
    #[inline]
    pub fn set(&mut self, member: Edit, value: impl EditValue) {
        let message = self.message.number();
        value.put(self.outcome.edit(member), message);
    }

    /// Removes a member of the message, if it goes on.
    pub fn remove(&mut self, member: Edit) {
        let message = self.message.number();
        self.outcome.edit(member).push(message, Change::Remove);
    }

    /// Gives the message a value of a metadata key, if it goes on; "" removes the key.
    pub fn set_metadata(&mut self, key: Write, value: &str) {
        self.outcome.writings.set(key, self.message.number(), value);
    }

    /// Begins a new message that came from this one. It inherits its metadata.
    #[inline]
    pub fn emit(&mut self) -> Emission<'_> {
        self.outcome.emissions.emit_of(self.message.number(), !self.message.is_text())
    }

    /// Says that nothing can be decided yet, for the plugin waits for something outside. The host offers
    /// this message, and all behind it, again after this time, which it bounds to a minute; after as many
    /// times as the transform's `retries` say, the message counts as rejected for this reason.
    #[cold]
    pub fn retry(&mut self, reason: impl Display, after: Duration) {
        self.outcome.take_back(self.message.number());
        self.outcome.next = STOPPED;
        self.outcome.retry = Some(types::Retry {
            message: self.message.number(),
            reason: reason.to_string(),
            after_ms: u32::try_from(after.as_millis()).unwrap_or(u32::MAX),
        });
    }

    /// Refuses the message and takes back what was told of it. In `process`, return an error instead.
    #[cold]
    pub fn reject(self, reason: impl Display) {
        let message = self.message.number();
        self.outcome.take_back(message);
        if self.outcome.retry.take().is_some() {
            self.outcome.next = message + 1;
        }
        self.outcome.rejections.push(types::Rejection { message, reason: reason.to_string() });
    }
}

impl Forward {
    #[inline]
    fn push(&mut self, message: u32, output: Output) {
        self.take_back(message);
        let before = self.len();
        if self.listed.is_empty() && message == self.count {
            self.count += 1;
        } else {
            if self.listed.is_empty() {
                self.listed.extend(0..self.count);
            }
            self.listed.push(message);
        }
        if output != Output::DEFAULT || !self.outputs.is_empty() {
            self.outputs.resize(before, Output::DEFAULT.number());
            self.outputs.push(output.number());
        }
    }

    /// Forgets the message, if it is the latest one.
    #[inline]
    fn take_back(&mut self, message: u32) {
        if self.listed.is_empty() {
            self.count = self.count.min(message);
        } else if self.listed.last() == Some(&message) {
            self.listed.pop();
            if self.listed.is_empty() {
                self.count = 0;
            }
        }
        self.outputs.truncate(self.len());
    }

    /// The messages, ascending.
    fn numbers(&self) -> Numbers<'_> {
        if self.listed.is_empty() {
            Numbers::Counted(0..self.count)
        } else {
            Numbers::Listed(self.listed.iter())
        }
    }

    fn len(&self) -> usize {
        if self.listed.is_empty() { self.count as usize } else { self.listed.len() }
    }

    fn into_wit(self, messages: usize) -> (types::Forward, Vec<u16>) {
        let forward = match self.len() {
            0 => types::Forward::Nothing,
            forwarded if forwarded == messages => types::Forward::All,
            _ if self.listed.is_empty() => types::Forward::These((0..self.count).collect()),
            _ => types::Forward::These(self.listed),
        };
        (forward, self.outputs)
    }
}

/// The numbers of the messages that go on.
enum Numbers<'a> {
    Counted(std::ops::Range<u32>),
    Listed(std::slice::Iter<'a, u32>),
}

impl Iterator for Numbers<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        match self {
            Self::Counted(range) => range.next(),
            Self::Listed(numbers) => numbers.next().copied(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Counted(range) => range.size_hint(),
            Self::Listed(numbers) => numbers.size_hint(),
        }
    }
}

impl ExactSizeIterator for Numbers<'_> {}
