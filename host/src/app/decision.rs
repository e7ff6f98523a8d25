//! What became of an attempt to have a plugin run in a version, told to everyone who wants to know: the log, the
//! metrics, and the verdicts that the API shows.

use super::attempt::SwapAttempt;
use super::task::Task;
use crate::verdict::{
    CarriedState, ShadowVerdict, SwapOutcome, UsePlace, UseVerdict, Verdict, VerdictId, now_ms,
};
use std::collections::BTreeMap;

/// What became of an attempt.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) outcome: SwapOutcome,
    /// The version before, if there was one.
    pub(super) previous: Option<String>,
    pub(super) error: Option<String>,
    /// Why the content was not written into the plugin folder, if it was to be.
    pub(super) folder_error: Option<String>,
    pub(super) uses: Vec<UseVerdict>,
}

impl Task {
    /// It is decided what becomes of an attempt. What no pipeline uses is recorded, and counts as no swap.
    pub(super) fn decided(
        &mut self,
        name: &str,
        version: Option<&str>,
        attempt: SwapAttempt,
        Decision { outcome, previous, error, folder_error, uses }: Decision,
    ) -> VerdictId {
        let SwapAttempt { asked_by, started_ms, compile_ms, answers, .. } = attempt;
        let verdict = Verdict {
            plugin: name.to_owned(),
            outcome,
            version: version.map(str::to_owned),
            previous,
            compile_ms,
            error,
            folder_error,
            asked_by,
            started_ms,
            decided_ms: now_ms(),
            uses,
        };
        if self.pipelines.need(name) && is_counted(&verdict) {
            self.metrics.swapped(name, outcome);
        }
        tell(&verdict);
        let id = self.swaps.record(verdict.clone());
        for answer in answers {
            if answer.send(Ok(verdict.clone())).is_err() {
                tracing::debug!(plugin = name, "who asked for a version did not wait for the verdict");
            }
        }
        id
    }

    /// A version that had taken over is gone again, at these places; what each had to say of it.
    pub(super) fn went_back(
        &mut self,
        name: &str,
        verdict: VerdictId,
        reason: &str,
        places: &BTreeMap<(String, UsePlace), Option<String>>,
    ) {
        let outcome = SwapOutcome::RolledBack;
        self.metrics.swapped(name, outcome);
        let amended = self.swaps.amend(verdict, |verdict| {
            (verdict.outcome, verdict.decided_ms) = (outcome, now_ms());
            verdict.error = Some(reason.to_owned());
            for each in &mut verdict.uses {
                if let Some(why) = places.get(&(each.pipeline.clone(), each.place.clone())) {
                    (each.outcome, each.error) = (outcome, why.clone());
                }
            }
        });
        match amended {
            Some(verdict) => tell(&verdict),
            None => tracing::error!(plugin = name, error = reason, "plugin rolled back"),
        }
    }
}

/// Whether it is a swap, or an attempt at one: a first load is none, nor is what changes nothing.
fn is_counted(verdict: &Verdict) -> bool {
    match verdict.outcome {
        SwapOutcome::Superseded => false,
        SwapOutcome::Swapped => {
            let is_new = verdict.previous.is_some() && verdict.previous != verdict.version;
            is_new || verdict.previous.is_some() && verdict.uses.iter().any(|each| each.swap_us.is_some())
        }
        SwapOutcome::Rejected | SwapOutcome::RolledBack => true,
    }
}

/// Tells the log.
fn tell(verdict: &Verdict) {
    /// An event at a level that is known when this is compiled, with all that a verdict says of the whole.
    macro_rules! event {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                plugin = verdict.plugin,
                version = verdict.version,
                previous = verdict.previous,
                outcome = verdict.outcome.as_str(),
                asked_by = verdict.asked_by.as_str(),
                compile_ms = verdict.compile_ms,
                took_ms = verdict.decided_ms.saturating_sub(verdict.started_ms),
                uses = verdict.uses.len(),
                error = verdict.error,
                folder_error = verdict.folder_error,
                $message
            )
        };
    }
    match verdict.outcome {
        SwapOutcome::Swapped => event!(info, "swap decided"),
        SwapOutcome::Rejected => event!(error, "plugin rejected"),
        SwapOutcome::RolledBack => event!(error, "plugin rolled back"),
        SwapOutcome::Superseded => event!(info, "plugin skipped"),
    }
    verdict.uses.iter().for_each(|each| tell_of(verdict, each));
}

/// Tells the log what became of it at one place.
fn tell_of(verdict: &Verdict, each: &UseVerdict) {
    let (plugin, version) = (&verdict.plugin, &verdict.version);
    let UseVerdict { pipeline, place, state, swap_us, error, shadow, .. } = each;
    if let (Some(shadow), UsePlace::Transform(transform)) = (shadow, place)
        && verdict.outcome != SwapOutcome::RolledBack
    {
        let ShadowVerdict { same, different, faulted, first } = shadow;
        let (old, new) = first.as_ref().map(|first| (&first.old, &first.new)).unzip();
        tracing::info!(
            plugin,
            version,
            pipeline,
            transform,
            same,
            different,
            faulted,
            old,
            new,
            "plugin was in shadow"
        );
    }
    match (place, each.outcome) {
        (UsePlace::Transform(transform), SwapOutcome::Swapped) => tracing::info!(
            plugin,
            version,
            pipeline,
            transform,
            state = state.map(CarriedState::as_str),
            swap_us,
            "plugin swapped"
        ),
        (UsePlace::Endpoint(endpoint), SwapOutcome::Swapped) => tracing::info!(
            plugin,
            version,
            pipeline,
            endpoint,
            "plugin swapped: it is asked from the next dial on"
        ),
        // Of what is rejected as a whole the verdict has said it.
        _ if verdict.outcome != SwapOutcome::Swapped => {}
        _ => tracing::error!(
            plugin, version, pipeline, %place, error, "plugin not swapped here: the version before runs on"
        ),
    }
}
