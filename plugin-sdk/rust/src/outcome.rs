//! What became of a batch: which messages go on, what is new, what is refused.

use crate::bindings::tidemill::plugin::types;
use crate::emissions::Room;
use crate::{Emission, Emissions, Message, Output};
use std::fmt::Display;

/// What became of the messages of a batch. Those it is told nothing of are filtered.
#[derive(Debug)]
pub struct Outcome {
    forward: Forward,
    emissions: Emissions,
    rejections: Vec<types::Rejection>,
    /// The first message that was not decided on yet.
    next: u32,
}

/// What becomes of one message: the way out of [`process`](crate::Plugin::process).
#[derive(Debug)]
pub struct Out<'a> {
    outcome: &'a mut Outcome,
    message: Message<'a>,
}

/// The messages that go on unchanged.
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
    pub(crate) fn new(writes: usize, room: Room) -> Self {
        let emissions = Emissions::new(writes, room);
        Self { forward: Forward::default(), emissions, rejections: Vec::new(), next: 0 }
    }

    /// The way out of one message.
    ///
    /// # Panics
    /// If it, or a later one, was decided on before: emissions cross in the order of their origins.
    #[inline]
    pub fn of<'a>(&'a mut self, message: Message<'a>) -> Out<'a> {
        assert!(message.number() >= self.next, "messages are decided on in their order, each once");
        self.next = message.number() + 1;
        Out { outcome: self, message }
    }

    pub(crate) fn room(&self) -> Room {
        self.emissions.room()
    }

    pub(crate) fn into_wit(self, messages: usize) -> types::Outcome {
        let (forward, forward_outputs) = self.forward.into_wit(messages);
        let emissions = self.emissions.into_wit();
        types::Outcome { forward, forward_outputs, emissions, rejections: self.rejections }
    }
}

impl Out<'_> {
    /// Lets the message go on unchanged.
    #[inline]
    pub fn forward(&mut self) {
        self.forward_to(Output::DEFAULT);
    }

    /// Lets the message go on unchanged, to a named output. A message goes on once: of several calls
    /// the last counts.
    #[inline]
    pub fn forward_to(&mut self, output: Output) {
        self.outcome.forward.push(self.message.number(), output);
    }

    /// Begins a new message that came from this one. It inherits its metadata.
    #[inline]
    pub fn emit(&mut self) -> Emission<'_> {
        self.outcome.emissions.emit_of(self.message.number(), !self.message.is_text())
    }

    /// Refuses the message and takes back what was told of it. In `process`, return an error instead.
    #[cold]
    pub fn reject(self, reason: impl Display) {
        let message = self.message.number();
        self.outcome.forward.take_back(message);
        self.outcome.emissions.take_back(message);
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
