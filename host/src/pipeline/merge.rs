//! What a call of a plugin made of a batch: the messages that go on, in order.

use super::outlets::Routed;
use crate::config::OnError;
use crate::message::metadata::{Metadata, now_us};
use crate::message::{Failed, Message, Payload};
use crate::plugin::{Edited, Emissions, Forward, Outcome, Writings};
use crate::reason::Reason;
use crate::telemetry::Settled;

/// Appends what goes on to `routed`, by origin; of one origin the forwarded message first. What was
/// rejected, or cannot be edited, goes where `on_error` says. Says what became of the messages, and how
/// many were rejected.
pub(super) fn outcome(
    messages: impl ExactSizeIterator<Item = Message>,
    outcome: Outcome,
    on_error: OnError,
    routed: &mut Vec<Routed>,
    failed: &mut Vec<Failed>,
) -> (Settled, u64) {
    let received = messages.len() as u64;
    let Outcome { forward, forward_outputs, forward_metadata, edited, emissions, mut rejections, .. } =
        outcome;
    if matches!(forward, Forward::All)
        && emissions.is_empty()
        && forward_outputs.is_empty()
        && forward_metadata.is_empty()
        && edited.is_empty()
    {
        routed.extend(messages.map(|message| Routed { output: 0, message }));
        return (Settled { forwarded: received, passed: received, ..Settled::default() }, 0);
    }
    rejections.sort_unstable_by_key(|rejection| rejection.message);
    let mut rejections = rejections.into_iter().peekable();
    let mut forwards =
        Forwards { forward, outputs: forward_outputs, metadata: forward_metadata, edited, next: 0 };
    let mut emission = 0;
    let mut settled = Settled { emitted: emissions.len() as u64, ..Settled::default() };
    let mut rejected = 0;
    for (index, message) in messages.enumerate() {
        let first = emission;
        while emission < emissions.len() && emissions.origin(emission) == Some(index) {
            emission += 1;
        }
        let reason = match rejections.next_if(|rejection| rejection.message as usize == index) {
            Some(rejection) => Err(rejection.reason),
            None => forwards.take(index, &message).map_err(str::to_owned),
        };
        let forwarded = match reason {
            Ok(forwarded) => forwarded,
            Err(detail) => {
                // What was emitted beside a message that cannot be edited goes with it.
                settled.emitted -= (emission - first) as u64;
                rejected += 1;
                match on_error {
                    OnError::Pass => {
                        settled.forwarded += 1;
                        settled.passed += 1;
                        routed.push(Routed { output: 0, message });
                    }
                    _ => failed.push(Failed { message, reason: Reason::Rejected, detail }),
                }
                continue;
            }
        };
        settled.forwarded += u64::from(forwarded.is_some());
        settled.passed += u64::from(forwarded.is_some() || emission > first);
        settled.filtered += u64::from(forwarded.is_none() && emission == first);
        if emission == first {
            routed.extend(forwarded.map(|forwarded| forwarded.of(message)));
            continue;
        }
        let metadata = message.metadata.clone();
        routed.extend(forwarded.map(|forwarded| forwarded.of(message)));
        routed.extend((first..emission).map(|n| emitted(&emissions, n, metadata.clone())));
    }
    (settled, rejected)
}

/// Appends emissions that have no origin, those of a timer or of the end.
pub(super) fn without_origin(emissions: &Emissions, routed: &mut Vec<Routed>) {
    let now_us = now_us();
    routed.extend((0..emissions.len()).map(|n| emitted(emissions, n, Metadata::without_origin(now_us))));
}

fn emitted(emissions: &Emissions, n: usize, mut metadata: Metadata) -> Routed {
    emissions.write_metadata(n, &mut metadata);
    Routed { output: emissions.output(n), message: Message { payload: emissions.payload(n), metadata } }
}

/// The forwarded messages of an outcome, asked for in ascending order.
struct Forwards {
    forward: Forward,
    outputs: Vec<u16>,
    metadata: Writings,
    edited: Edited,
    next: usize,
}

/// What is forwarded of a message.
struct Forwarded<'a> {
    output: u16,
    payload: Option<Payload>,
    metadata: &'a Writings,
    place: usize,
}

impl Forwards {
    /// What is forwarded of a message, if it is.
    ///
    /// # Errors
    /// It cannot be edited, for this reason.
    #[inline]
    fn take(&mut self, index: usize, message: &Message) -> Result<Option<Forwarded<'_>>, &str> {
        let is_forwarded = match &self.forward {
            Forward::Nothing => false,
            Forward::All => true,
            Forward::These(indices) => indices.get(self.next).is_some_and(|next| *next as usize == index),
        };
        if !is_forwarded {
            return Ok(None);
        }
        let place = self.next;
        self.next += 1;
        let output = self.outputs.get(place).copied().unwrap_or(0);
        let payload = self.edited.payload(place, &message.payload)?;
        Ok(Some(Forwarded { output, payload, metadata: &self.metadata, place }))
    }
}

impl Forwarded<'_> {
    #[inline]
    fn of(self, mut message: Message) -> Routed {
        if let Some(payload) = self.payload {
            message.payload = payload;
        }
        if !self.metadata.is_empty() {
            self.metadata.write(self.place, &mut message.metadata);
        }
        Routed { output: self.output, message }
    }
}
