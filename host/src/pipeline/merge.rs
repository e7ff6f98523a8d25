//! What a call of a plugin made of a batch: the messages that go on, in order.

use super::outlets::Routed;
use crate::config::OnError;
use crate::message::metadata::{Metadata, now_us};
use crate::message::{Failed, Message};
use crate::plugin::{Emissions, Forward, Outcome};
use crate::reason::Reason;
use crate::telemetry::Settled;

/// Appends what goes on to `routed`, by origin; of one origin the forwarded message first. What was
/// rejected goes where `on_error` says. Says what became of the messages, and how many were rejected.
pub(super) fn outcome(
    messages: impl ExactSizeIterator<Item = Message>,
    outcome: Outcome,
    on_error: OnError,
    routed: &mut Vec<Routed>,
    failed: &mut Vec<Failed>,
) -> (Settled, u64) {
    let received = messages.len() as u64;
    let Outcome { forward, forward_outputs, emissions, mut rejections } = outcome;
    if matches!(forward, Forward::All) && emissions.is_empty() && forward_outputs.is_empty() {
        routed.extend(messages.map(|message| Routed { output: 0, message }));
        return (Settled { forwarded: received, passed: received, ..Settled::default() }, 0);
    }
    rejections.sort_unstable_by_key(|rejection| rejection.message);
    let mut rejections = rejections.into_iter().peekable();
    let mut forwards = Forwards { forward, outputs: forward_outputs, next: 0 };
    let mut emission = 0;
    let mut settled = Settled { emitted: emissions.len() as u64, ..Settled::default() };
    let mut rejected = 0;
    for (index, message) in messages.enumerate() {
        if let Some(rejection) = rejections.next_if(|rejection| rejection.message as usize == index) {
            rejected += 1;
            match on_error {
                OnError::Pass => {
                    settled.forwarded += 1;
                    settled.passed += 1;
                    routed.push(Routed { output: 0, message });
                }
                _ => failed.push(Failed { message, reason: Reason::Rejected, detail: rejection.reason }),
            }
            continue;
        }
        let output = forwards.output_of(index);
        let first = emission;
        while emission < emissions.len() && emissions.origin(emission) == Some(index) {
            emission += 1;
        }
        settled.forwarded += u64::from(output.is_some());
        settled.passed += u64::from(output.is_some() || emission > first);
        settled.filtered += u64::from(output.is_none() && emission == first);
        if emission == first {
            routed.extend(output.map(|output| Routed { output, message }));
            continue;
        }
        let metadata = message.metadata.clone();
        routed.extend(output.map(|output| Routed { output, message }));
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
    next: usize,
}

impl Forwards {
    /// The output of a message, if it is forwarded.
    fn output_of(&mut self, index: usize) -> Option<u16> {
        let is_forwarded = match &self.forward {
            Forward::Nothing => false,
            Forward::All => true,
            Forward::These(indices) => indices.get(self.next).is_some_and(|next| *next as usize == index),
        };
        is_forwarded.then(|| {
            let output = self.outputs.get(self.next).copied().unwrap_or(0);
            self.next += 1;
            output
        })
    }
}
