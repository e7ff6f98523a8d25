//! What a call of a plugin made of a batch: the messages that go on, in order.

use super::outlets::Routed;
use crate::config::OnError;
use crate::message::{Failed, Message};
use crate::metadata::{Metadata, now_us};
use crate::plugin::{Emissions, Forward, Outcome};
use crate::reason::Reason;

/// How many messages of a batch ended how, and how many came out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) forwarded: u64,
    pub(super) emitted: u64,
    pub(super) passed: u64,
    pub(super) filtered: u64,
    pub(super) rejected: u64,
}

/// Appends what goes on to `routed`, by origin; of one origin the forwarded message first. What was
/// rejected goes where `on_error` says.
pub(super) fn outcome(
    messages: std::vec::Drain<'_, Message>,
    outcome: Outcome,
    on_error: OnError,
    routed: &mut Vec<Routed>,
    failed: &mut Vec<Failed>,
) -> Counted {
    let received = messages.len() as u64;
    let Outcome { forward, forward_outputs, emissions, mut rejections } = outcome;
    if matches!(forward, Forward::All) && emissions.is_empty() && forward_outputs.is_empty() {
        routed.extend(messages.map(|message| Routed { output: 0, message }));
        return Counted { forwarded: received, passed: received, ..Counted::default() };
    }
    rejections.sort_unstable_by_key(|rejection| rejection.message);
    let mut rejections = rejections.into_iter().peekable();
    let mut forwards = Forwards { forward, outputs: forward_outputs, next: 0 };
    let mut emission = 0;
    let mut counted = Counted { emitted: emissions.len() as u64, ..Counted::default() };
    for (index, message) in messages.enumerate() {
        if let Some(rejection) = rejections.next_if(|rejection| rejection.message as usize == index) {
            counted.rejected += 1;
            match on_error {
                OnError::Pass => {
                    counted.forwarded += 1;
                    counted.passed += 1;
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
        counted.forwarded += u64::from(output.is_some());
        counted.passed += u64::from(output.is_some() || emission > first);
        counted.filtered += u64::from(output.is_none() && emission == first);
        if emission == first {
            routed.extend(output.map(|output| Routed { output, message }));
            continue;
        }
        let metadata = message.metadata.clone();
        routed.extend(output.map(|output| Routed { output, message }));
        routed.extend((first..emission).map(|n| emitted(&emissions, n, metadata.clone())));
    }
    counted
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
