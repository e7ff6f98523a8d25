//! Where dead letters enter a line again: the stage that each failed in, or the sinks.

use super::Line;
use crate::config::SOURCE;
use crate::dead_letters::Letter;
use crate::pipeline::ends::Ends;
use crate::pipeline::outlets::Outlets;
use crate::pipeline::stage::Stage;

/// Letters that enter at once, between two batches of the source.
const AT_ONCE: usize = 64;

/// Where a letter enters.
enum RetryPlace {
    Stage(usize),
    /// One bit for each sink.
    Sinks(u64),
}

impl Line {
    /// Takes dead letters in that are due. Nothing waits anywhere in the pipeline.
    pub(super) fn take_retries(&mut self) {
        let Self { ends: Ends { retries, outlets, .. }, stages, is_clear, .. } = self;
        for (letter, place) in retries.next(AT_ONCE, |letter| place(letter, stages, outlets)) {
            let message = letter.into_retried();
            match place {
                RetryPlace::Stage(number) => stages[number].retry(message),
                RetryPlace::Sinks(sinks) => {
                    outlets.retry(sinks, message);
                    *is_clear = false;
                }
            }
        }
    }
}

/// Where a letter enters: the stage that it failed in, the first one if that was the source.
///
/// # Errors
/// The pipeline has no such place, and is otherwise than it was.
fn place(letter: &Letter, stages: &[Stage], outlets: &Outlets) -> Result<RetryPlace, String> {
    if *letter.stage == *SOURCE {
        let takers = outlets.takers_of_default();
        return match (stages.is_empty(), takers) {
            (false, _) => Ok(RetryPlace::Stage(0)),
            (true, 0) => Err("no sink takes what comes from its source".to_owned()),
            (true, takers) => Ok(RetryPlace::Sinks(takers)),
        };
    }
    let stage = stages.iter().position(|stage| stage.place().stage == letter.stage).map(RetryPlace::Stage);
    let place = stage.or_else(|| outlets.find(&letter.stage).map(|number| RetryPlace::Sinks(1 << number)));
    place.ok_or_else(|| format!("its pipeline has no stage \"{}\" any more", letter.stage))
}
