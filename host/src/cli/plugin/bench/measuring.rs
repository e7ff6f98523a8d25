//! How long plugins take, measured in turn: each round gives every plugin batches of each size, and of all rounds the
//! median counts.
//!
//! In each pass over the messages an instance of its own begins without state, as a plugin that has seen them before
//! may well do something else with them. What is timed is a stage's call: fields found, columns filled, the guest, and
//! its answer checked. Timers are not called.

use crate::message::Message;
use crate::plugin::{Fault, Forward, HostState, Instance, Plugin, Setup};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// The sizes of batches.
pub(super) const BATCHES: [usize; 3] = [1, 16, 256];
/// The largest of them: messages that are timed together, so that looking at the clock costs nothing.
const GROUP: usize = 256;
/// How often everything is measured.
const ROUNDS: usize = 7;
/// What is timed of a plugin and a size in a round, at least.
const ROUND: Duration = Duration::from_millis(40);
/// Fewer messages are repeated until they are so many, so that a pass is more than a beginning.
const LEAST_MESSAGES: usize = 16 * GROUP;
/// With the first groups of a pass the instance warms up.
const WARM_UP: usize = GROUP;
/// How long the pass may take that says what becomes of the messages.
const FIRST_PASS: Duration = Duration::from_secs(1);

/// A plugin that is to be measured, and what it starts with.
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) component_bytes: usize,
    pub(super) plugin: Plugin,
    pub(super) setup: Setup,
}

/// What was measured.
pub(super) struct Measured {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) component_bytes: usize,
    /// For each size of batches.
    pub(super) ns_per_message: [f64; BATCHES.len()],
    /// Of an instance after the first pass.
    pub(super) memory_bytes: usize,
    pub(super) compile: Duration,
    pub(super) instantiate: Duration,
    pub(super) counts: PassCounts,
}

/// What became of the messages of the first pass.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PassCounts {
    pub(super) messages: u64,
    pub(super) forwarded: u64,
    pub(super) rejected: u64,
    pub(super) put_off: u64,
    pub(super) emitted: u64,
}

/// What is known of a plugin while it is measured.
struct Samples {
    ns_per_message: [Vec<f64>; BATCHES.len()],
    starts: Vec<f64>,
    counts: PassCounts,
    memory_bytes: usize,
}

impl Measured {
    /// How many messages one instance gets through in full batches.
    pub(super) fn messages_per_second(&self) -> u64 {
        let [.., ns] = self.ns_per_message;
        (1e9 / ns).round() as u64
    }
}

/// Measures plugins side by side.
///
/// # Errors
/// A fault of one of them, with the messages that it was given.
pub(super) async fn measure(
    subjects: Vec<Subject>,
    messages: &[Message],
    is_recording: bool,
) -> Result<Vec<Measured>, String> {
    let length = messages.len().max(LEAST_MESSAGES).next_multiple_of(GROUP);
    let messages: Vec<Message> = messages.iter().cycle().take(length).cloned().collect();
    let mut samples = Vec::new();
    for subject in &subjects {
        samples.push(subject.first_pass(&messages, is_recording).await?);
    }
    for _ in 0..ROUNDS {
        for (subject, samples) in subjects.iter().zip(&mut samples) {
            for (place, batch) in BATCHES.into_iter().enumerate() {
                let ns = subject.round(&messages, batch, is_recording, &mut samples.starts).await?;
                samples.ns_per_message[place].push(ns);
            }
        }
    }
    let measured = subjects.into_iter().zip(samples).map(|(subject, samples)| Measured {
        name: subject.name,
        version: subject.version,
        component_bytes: subject.component_bytes,
        ns_per_message: samples.ns_per_message.map(median),
        memory_bytes: samples.memory_bytes,
        compile: subject.plugin.load_time(),
        instantiate: Duration::from_secs_f64(median(samples.starts)),
        counts: samples.counts,
    });
    Ok(measured.collect())
}

impl Subject {
    /// What becomes of the messages, and how much memory that takes; caches and processor are warm after it.
    async fn first_pass(&self, messages: &[Message], is_recording: bool) -> Result<Samples, String> {
        let mut starts = Vec::new();
        let mut instance = self.start(&mut starts).await?;
        let mut counts = PassCounts::default();
        let begun = Instant::now();
        for (number, group) in messages.chunks(GROUP).enumerate() {
            self.give(&mut instance, group, is_recording, &mut counts)
                .await
                .map_err(|fault| self.at(number, &fault))?;
            if begun.elapsed() > FIRST_PASS {
                break;
            }
        }
        Ok(Samples {
            ns_per_message: Default::default(),
            starts,
            counts,
            memory_bytes: instance.memory_bytes(),
        })
    }

    /// The nanoseconds that a message takes in batches of this size.
    async fn round(
        &self,
        messages: &[Message],
        batch: usize,
        is_recording: bool,
        starts: &mut Vec<f64>,
    ) -> Result<f64, String> {
        let (mut spent, mut timed) = (Duration::ZERO, 0);
        let mut counts = PassCounts::default();
        while spent < ROUND {
            let mut instance = self.start(starts).await?;
            for (number, group) in messages.chunks(GROUP).enumerate() {
                let begun = Instant::now();
                for batch in group.chunks(batch) {
                    let given = self.give(&mut instance, batch, is_recording, &mut counts).await;
                    given.map_err(|fault| self.at(number, &fault))?;
                }
                if number * GROUP >= WARM_UP {
                    spent += begun.elapsed();
                    timed += group.len();
                }
                if spent >= ROUND {
                    break;
                }
            }
        }
        black_box(counts);
        Ok(spent.as_nanos() as f64 / timed as f64)
    }

    async fn start(&self, starts: &mut Vec<f64>) -> Result<Instance, String> {
        let setup = Setup { state: HostState::default(), ..self.setup.clone() };
        let begun = Instant::now();
        let started = self.plugin.instantiate(&setup).await;
        starts.push(begun.elapsed().as_secs_f64());
        started.map_err(|fault| format!("failed to start {}: {fault}", self.name))
    }

    /// Gives an instance a batch, and where it puts a message off what is behind that.
    async fn give(
        &self,
        instance: &mut Instance,
        mut batch: &[Message],
        is_recording: bool,
        counts: &mut PassCounts,
    ) -> Result<(), Fault> {
        while let Some(last) = batch.last() {
            instance.set_time(is_recording.then(|| last.metadata.received_us()));
            let outcome = instance.process(batch).await?;
            let decided = outcome.retry.as_ref().map_or(batch.len(), |retry| retry.message as usize);
            counts.messages += decided as u64;
            counts.forwarded += match &outcome.forward {
                Forward::All => decided as u64,
                Forward::Nothing => 0,
                Forward::These(indices) => indices.len() as u64,
            };
            counts.rejected += outcome.rejections.len() as u64;
            counts.emitted += outcome.emissions.len() as u64;
            if outcome.retry.is_none() {
                break;
            }
            counts.messages += 1;
            counts.put_off += 1;
            batch = &batch[decided + 1..];
        }
        Ok(())
    }

    fn at(&self, group: usize, fault: &Fault) -> String {
        let first = group * GROUP;
        format!("{} failed on one of the messages {} to {}: {fault}", self.name, first + 1, first + GROUP)
    }
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_round_of_seven_does_not_count() {
        assert_eq!(median(vec![3.0, 1.0, 900.0, 2.0, 4.0, 3.5, 2.5]), 3.0);
    }
}
