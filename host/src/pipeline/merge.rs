//! What a call of a plugin made of a batch: the messages that go on, in order.

use super::outlets::Routed;
use crate::config::OnError;
use crate::message::metadata::Metadata;
use crate::message::{Failed, Message, Payload};
use crate::plugin::{Emissions, Forward, Outcome, Writings};
use crate::reason::Reason;
use crate::telemetry::Settled;
use std::ops::Range;

/// Appends what goes on to `routed`, by origin; of one origin the forwarded message first. What was
/// rejected, or cannot be edited, goes where `on_error` says. Says what became of the messages, and how
/// many were rejected.
pub(super) fn outcome(
    messages: impl ExactSizeIterator<Item = Message>,
    outcome: &Outcome,
    on_error: OnError,
    routed: &mut Vec<Routed>,
    failed: &mut Vec<Failed>,
) -> (Settled, u64) {
    let received = messages.len() as u64;
    if outcome.forwards_all_as_they_are() {
        routed.extend(messages.map(|message| Routed { output: 0, message }));
        return (Settled { forwarded: received, passed: received, ..Settled::default() }, 0);
    }
    let emissions = &outcome.emissions;
    let mut decisions = MessageDecisions::new(outcome);
    let mut settled = Settled { emitted: emissions.len() as u64, ..Settled::default() };
    let mut rejected = 0;
    for message in messages {
        let MessageDecision { forwarded, emitted } = decisions.next(&message);
        let forwarded = match forwarded {
            Ok(forwarded) => forwarded,
            Err(reason) => {
                // What was emitted beside a message that cannot be edited goes with it.
                settled.emitted -= emitted.len() as u64;
                rejected += 1;
                match on_error {
                    OnError::Pass => {
                        settled.forwarded += 1;
                        settled.passed += 1;
                        routed.push(Routed { output: 0, message });
                    }
                    _ => failed.push(Failed { message, reason: Reason::Rejected, detail: reason.to_owned() }),
                }
                continue;
            }
        };
        settled.forwarded += u64::from(forwarded.is_some());
        settled.passed += u64::from(forwarded.is_some() || !emitted.is_empty());
        settled.filtered += u64::from(forwarded.is_none() && emitted.is_empty());
        if emitted.is_empty() {
            routed.extend(forwarded.map(|forwarded| forwarded.of(message)));
            continue;
        }
        let metadata = message.metadata.clone();
        routed.extend(forwarded.map(|forwarded| forwarded.of(message)));
        routed.extend(emitted.map(|n| emission(emissions, n, metadata.clone())));
    }
    (settled, rejected)
}

/// Appends emissions that have no origin, those of a timer or of the end, which was at this moment.
pub(super) fn without_origin(emissions: &Emissions, at_us: u64, routed: &mut Vec<Routed>) {
    routed.extend((0..emissions.len()).map(|n| emission(emissions, n, Metadata::without_origin(at_us))));
}

/// One emission, whose origin has this metadata.
pub(super) fn emission(emissions: &Emissions, n: usize, mut metadata: Metadata) -> Routed {
    emissions.write_metadata(n, &mut metadata);
    Routed { output: emissions.output(n), message: Message { payload: emissions.payload(n), metadata } }
}

/// What a call decided on the messages of its batch, asked for one after the other.
pub(super) struct MessageDecisions<'a> {
    outcome: &'a Outcome,
    /// The number of the next message.
    message: usize,
    /// The places of what is next in the lists of the outcome.
    forward: usize,
    emission: usize,
    rejection: usize,
}

/// What a call decided on one message.
pub(super) struct MessageDecision<'a> {
    /// What is forwarded of it, if it is; or why it is rejected.
    pub(super) forwarded: Result<Option<Forwarded<'a>>, &'a str>,
    /// What was emitted for it, by the numbers of the emissions. It goes with a message that is rejected.
    pub(super) emitted: Range<usize>,
}

/// What is forwarded of a message.
pub(super) struct Forwarded<'a> {
    output: u16,
    payload: Option<Payload>,
    metadata: &'a Writings,
    place: usize,
}

impl<'a> MessageDecisions<'a> {
    pub(super) fn new(outcome: &'a Outcome) -> Self {
        Self { outcome, message: 0, forward: 0, emission: 0, rejection: 0 }
    }

    /// What was decided on the next message.
    #[inline]
    pub(super) fn next(&mut self, message: &Message) -> MessageDecision<'a> {
        let Outcome { emissions, rejections, .. } = self.outcome;
        let index = self.message;
        self.message += 1;
        let first = self.emission;
        while self.emission < emissions.len() && emissions.origin(self.emission) == Some(index) {
            self.emission += 1;
        }
        let forwarded = match rejections.get(self.rejection) {
            Some(rejection) if rejection.message as usize == index => {
                self.rejection += 1;
                Err(&*rejection.reason)
            }
            _ => self.forwarded(index, message),
        };
        MessageDecision { forwarded, emitted: first..self.emission }
    }

    /// What is forwarded of a message, if it is.
    ///
    /// # Errors
    /// It cannot be edited, for this reason.
    #[inline]
    fn forwarded(&mut self, index: usize, message: &Message) -> Result<Option<Forwarded<'a>>, &'a str> {
        let Outcome { forward, forward_outputs, forward_metadata, edited, .. } = self.outcome;
        let is_forwarded = match forward {
            Forward::Nothing => false,
            Forward::All => true,
            Forward::These(indices) => indices.get(self.forward).is_some_and(|next| *next as usize == index),
        };
        if !is_forwarded {
            return Ok(None);
        }
        let place = self.forward;
        self.forward += 1;
        let output = forward_outputs.get(place).copied().unwrap_or(0);
        let payload = edited.payload(place, &message.payload)?;
        Ok(Some(Forwarded { output, payload, metadata: forward_metadata, place }))
    }
}

impl Forwarded<'_> {
    /// The message, as it goes on.
    #[inline]
    pub(super) fn of(self, mut message: Message) -> Routed {
        if let Some(payload) = self.payload {
            message.payload = payload;
        }
        if !self.metadata.is_empty() {
            self.metadata.write(self.place, &mut message.metadata);
        }
        Routed { output: self.output, message }
    }
}
