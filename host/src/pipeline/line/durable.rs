//! How a line takes generations of what its durable stages know: while it runs, and at its end.

use super::{GraceOver, Line};
use crate::generation::Generation;
use crate::pipeline::control::Resume;
use crate::pipeline::ends::Ends;
use crate::pipeline::generations::Generations;
use crate::pipeline::stage::Stage;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// What a line does about the next generation.
pub(super) enum GenerationTurn {
    /// There is nothing to do before this moment, or nothing at all.
    Later(Option<Instant>),
    /// It is to be taken now.
    Now,
    /// It is due: nothing more is read until everything that was read is at its end.
    Hold,
    /// No generation can be written any more, and why.
    Failed(String),
}

/// Sees what is to be done about the next generation. Call after the outlets were driven.
pub(super) fn poll_generation(
    generations: Option<&mut Generations>,
    ends: &mut Ends,
    stages: &mut [Stage],
    cx: &mut Context<'_>,
) -> GenerationTurn {
    let Some(generations) = generations else { return GenerationTurn::Later(None) };
    if let Poll::Ready(Err(error)) = generations.poll_written(cx, stages) {
        return GenerationTurn::Failed(error);
    }
    match generations.due(stages) {
        Some(due) if due <= Instant::now() => {}
        due => return GenerationTurn::Later(due),
    }
    if !ends.source.has_positions() {
        // What is in flight is lost with a crash, whatever was written before.
        return GenerationTurn::Now;
    }
    if ends.source.position().is_none() {
        // It is read on to a place from which it can go on, and not past it.
        ends.source.seek_position();
        return GenerationTurn::Later(None);
    }
    let is_at_rest = !stages.iter().any(Stage::has_work) && ends.outlets.poll_settled(cx).is_ready();
    if is_at_rest { GenerationTurn::Now } else { GenerationTurn::Hold }
}

impl Line {
    /// Takes a generation, and sends it to the disk.
    pub(super) async fn write_generation(&mut self) -> Result<(), GraceOver> {
        let Some(generations) = &mut self.generations else { return Ok(()) };
        for stage in self.stages.iter_mut().filter(|stage| stage.is_durable()) {
            if !self.ends.during(stage.save_now()).await? {
                generations.put_off();
                return Ok(());
            }
        }
        let generation = generations.take(&mut self.stages, self.ends.source.position().cloned());
        generations.write(generation);
        Ok(())
    }

    /// Fixes what the next start goes on with, before anything that only the end brings: gives the last generation,
    /// which is to be written once every message is at its end.
    pub(super) async fn seal(&mut self) -> Result<Option<Generation>, GraceOver> {
        for stage in &mut self.stages {
            self.ends.during(stage.seal()).await?;
        }
        let Some(generations) = &mut self.generations else {
            self.resume = Resume::Here(None);
            return Ok(None);
        };
        // The one before is on the disk first, or it is in this one.
        let stages = &mut self.stages;
        let written = self.ends.until(|_, cx| generations.poll_written(cx, stages)).await?;
        let position = self.ends.source.position().cloned();
        let is_whole = self.abandoned == 0 && (position.is_some() || !self.ends.source.has_positions());
        let is_saved = !stages.iter().any(|stage| stage.is_durable() && stage.has_changed());
        if written.is_err() || !is_whole || !is_saved {
            return Ok(None);
        }
        Ok(Some(generations.take(stages, position)))
    }

    /// Writes the last generation: every message is at its end.
    pub(super) async fn write_last(&mut self, last: Option<Generation>) -> Result<(), GraceOver> {
        let (Some(generations), Some(last)) = (&mut self.generations, last) else { return Ok(()) };
        if self.abandoned > 0 {
            // They are to be read again.
            return Ok(());
        }
        self.resume = Resume::Here(last.position.clone());
        generations.write(last);
        let stages = &mut self.stages;
        // What could not be written was told, and is kept in memory for a start of this host.
        let _ = self.ends.until(|_, cx| generations.poll_written(cx, stages)).await?;
        Ok(())
    }
}
