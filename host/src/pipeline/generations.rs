//! When what durable stages know is written, and what is written together.
//!
//! A generation is taken between two calls: a snapshot of each durable stage, what its plugin keeps with the
//! host, and how far the source was read, when everything that was read is at its end. It goes to the disk while
//! the pipeline goes on, and the next is taken only once it is there. One that could not be written, or not even
//! be taken, is followed by another, ever more rarely; what it had is in that one.

use super::stage::Stage;
use crate::generation::{Generation, Position};
use crate::store::{GenerationWriter, StoreError};
use crate::telemetry::StateMetrics;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// The longest time between two tries.
const MAX_PAUSE: Duration = Duration::from_mins(1);

/// The generations of one pipeline, and the disk they go to.
#[derive(Debug)]
pub(super) struct Generations {
    pipeline: Arc<str>,
    writer: GenerationWriter,
    metrics: StateMetrics,
    interval: Duration,
    /// When the newest was taken.
    taken: Instant,
    /// How long the disk took for it.
    took: Duration,
    /// One is to be taken as soon as that is possible.
    is_wanted: bool,
    /// Tries in a row that failed.
    failures: u32,
    not_before: Option<Instant>,
    /// The keys that are on their way to the disk, of each stage that has any.
    on_the_way: Vec<(Arc<str>, Vec<Arc<str>>)>,
}

impl Generations {
    pub(super) fn new(
        pipeline: Arc<str>,
        writer: GenerationWriter,
        interval: Duration,
        metrics: StateMetrics,
    ) -> Self {
        Self {
            pipeline,
            writer,
            metrics,
            interval,
            taken: Instant::now(),
            took: Duration::ZERO,
            is_wanted: false,
            failures: 0,
            not_before: None,
            on_the_way: Vec::new(),
        }
    }

    /// The next one is to be taken as soon as that is possible.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// When the next is to be taken, if there is anything that the one before does not have. It is to be on the
    /// disk before the one before is older than the interval.
    pub(super) fn due(&self, stages: &[Stage]) -> Option<Instant> {
        if self.writer.is_writing() || !stages.iter().any(Stage::is_unsaved) {
            return None;
        }
        let ahead = self.took.min(self.interval / 2);
        let due = if self.is_wanted { self.taken } else { self.taken + self.interval - ahead };
        Some(self.not_before.map_or(due, |not_before| due.max(not_before)))
    }

    /// Puts a generation together, of what was saved just now.
    pub(super) fn take(&mut self, stages: &mut [Stage], position: Option<Position>) -> Generation {
        (self.taken, self.is_wanted) = (Instant::now(), false);
        let durable = stages.iter_mut().filter(|stage| stage.is_durable());
        let mut transforms = Vec::new();
        for stage in durable {
            let transform = stage.take_changes();
            let keys: Vec<_> = transform.values.iter().map(|(key, _)| key.clone()).collect();
            if !keys.is_empty() {
                self.on_the_way.push((stage.name().clone(), keys));
            }
            transforms.push(transform);
        }
        Generation { position, transforms }
    }

    /// Sends a generation to the disk.
    pub(super) fn write(&mut self, generation: Generation) {
        self.writer.write(generation);
    }

    /// Sees what became of the generation that goes to the disk. Ready once there is none on its way.
    ///
    /// # Errors
    /// None can be written any more, and why.
    pub(super) fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        stages: &mut [Stage],
    ) -> Poll<Result<(), String>> {
        if !self.writer.is_writing() {
            return Poll::Ready(Ok(()));
        }
        let written = std::task::ready!(self.writer.poll_written(cx));
        let on_the_way = std::mem::take(&mut self.on_the_way);
        let Err(error) = written else {
            self.took = self.taken.elapsed();
            (self.failures, self.not_before) = (0, None);
            self.metrics.unwritten.set(0);
            return Poll::Ready(Ok(()));
        };
        for (name, keys) in on_the_way {
            // Meanwhile stages may have come and gone.
            if let Some(stage) = stages.iter_mut().find(|stage| *stage.name() == name) {
                stage.give_back(keys);
            }
        }
        stages.iter_mut().for_each(Stage::unsave);
        self.failed(&error);
        Poll::Ready(if error.is_final() { Err(error.to_string()) } else { Ok(()) })
    }

    /// A stage gave no snapshot: without it, the rest would be of another moment.
    pub(super) fn put_off(&mut self) {
        let next_try_s = self.pause().as_secs();
        tracing::warn!(pipeline = %self.pipeline, next_try_s,
            "state is not written, since a plugin gives no snapshot; the newest generation on the disk stays");
    }

    fn failed(&mut self, error: &StoreError) {
        self.metrics.writes_failed.inc();
        self.metrics.unwritten.set(1);
        let next_try_s = self.pause().as_secs();
        tracing::error!(pipeline = %self.pipeline, %error, next_try_s,
            "state could not be written; the pipeline goes on, and a start would go on from an older generation");
    }

    fn pause(&mut self) -> Duration {
        let pause = self
            .interval
            .saturating_mul(2u32.saturating_pow(self.failures))
            .min(MAX_PAUSE.max(self.interval));
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + pause);
        pause
    }
}
