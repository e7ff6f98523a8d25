//! A new version on trial: in shadow before it takes over, and in its probation afterwards.
//!
//! In both all uses of a plugin stand together. A version that fails in the shadow of one use takes over in none, and
//! one that faults too often in the probation of one use is put back in all of them, each with its own state.

use super::bounded::{Failure, bounded};
use super::instances::{instantiate, retire};
use super::uses::{EXCHANGE_DEADLINE, StageUse, try_out};
use crate::config::SwapSettings;
use crate::pipeline::{
    Control, ProbationTerms, RolledBack, ShadowOffer, ShadowOutcome, Shadowed, VersionChange,
};
use crate::plugin::Plugin;
use crate::telemetry::Metrics;
use crate::verdict::{ShadowVerdict, SwapOptions, SwapOutcome, UseVerdict};
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// A use to which no message comes for so long ends the shadow.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether the version that runs fails again and again somewhere.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest that a version may be in shadow, however many messages it is still to see.
const LONGEST_SHADOW: Duration = Duration::from_secs(7 * 24 * 3600);

/// A version that takes over nowhere, for what became of it in shadow.
pub(super) struct UnfitInShadow {
    pub(super) outcome: SwapOutcome,
    pub(super) error: String,
    /// Of each use.
    pub(super) verdicts: Vec<UseVerdict>,
}

/// A version in its probation, and the one before, which can be put back.
#[derive(Debug)]
pub(super) struct SwapProbation {
    previous: Plugin,
    uses: Vec<(StageUse, oneshot::Receiver<RolledBack>)>,
}

/// A version that was put back, and where.
#[derive(Debug)]
pub(super) struct RolledBackSwap {
    pub(super) previous: Plugin,
    pub(super) reason: String,
    /// The uses that run it again, and what they had to say.
    pub(super) uses: Vec<(StageUse, Option<String>)>,
}

/// What became of a version in the shadow of one use.
enum UseShadow {
    /// It was not to be in shadow here.
    Unasked,
    /// The pipeline has ended, or is about to.
    Ended,
    Fit(ShadowVerdict),
    Unfit(Option<ShadowVerdict>, String),
}

/// How a version takes over at a use.
fn settings(each: &StageUse, options: &SwapOptions) -> SwapSettings {
    let SwapSettings { shadow, probation, max_faults } = each.pipeline.transforms[each.stage].swap;
    let (shadow, probation) = (options.shadow.unwrap_or(shadow), options.probation.unwrap_or(probation));
    SwapSettings { shadow, probation, max_faults }
}

/// Whether a version is in shadow somewhere before it takes over.
pub(super) fn has_shadow(uses: &[StageUse], options: &SwapOptions) -> bool {
    uses.iter().any(|each| settings(each, options).shadow > 0)
}

/// Shows a version what the uses get, each as many messages as it is to see there, and gives what was compared.
///
/// # Errors
/// It failed at one of them, or no message came there; or newer content came first.
pub(super) async fn shadow_all(
    plugin: &Plugin,
    uses: &[StageUse],
    options: &SwapOptions,
    superseded: &CancellationToken,
    metrics: &Metrics,
) -> Result<Vec<Option<ShadowVerdict>>, UnfitInShadow> {
    let mut verdicts = vec![None; uses.len()];
    if !has_shadow(uses, options) {
        return Ok(verdicts);
    }
    // The others are not waited for once one has failed: they see that nobody waits.
    let mut going: FuturesUnordered<_> = uses
        .iter()
        .enumerate()
        .map(async |(number, each)| (number, shadow(plugin, each, options).await))
        .collect();
    let shown = async {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        loop {
            let shown = tokio::select! {
                biased;
                shown = going.next() => shown,
                _ = looks.tick() => {
                    // A version that may be the one that works is not held up.
                    if uses.iter().any(|each| metrics.is_paused(&each.pipeline.name, &each.setup.transform)) {
                        return None;
                    }
                    continue;
                }
            };
            let (number, shown) = shown?;
            match shown {
                UseShadow::Unasked | UseShadow::Ended => {}
                UseShadow::Fit(verdict) => verdicts[number] = Some(verdict),
                UseShadow::Unfit(verdict, error) => return Some((number, verdict, error)),
            }
        }
    };
    let (outcome, number, error) = match bounded(LONGEST_SHADOW, superseded, shown).await {
        Ok(None) => return Ok(verdicts),
        Ok(Some((number, verdict, error))) => {
            verdicts[number] = verdict;
            (SwapOutcome::Rejected, Some(number), error)
        }
        Err(Failure::Cancelled) => (SwapOutcome::Superseded, None, "newer content came first".to_owned()),
        Err(Failure::TimedOut) => {
            let days = LONGEST_SHADOW.as_secs() / (24 * 3600);
            let error = format!("it has not seen all that it was to see in shadow after {days} days");
            (SwapOutcome::Rejected, None, error)
        }
        Err(Failure::Panicked) => {
            let error = "the shadow met a fault of the host; the log has the panic".to_owned();
            (SwapOutcome::Rejected, None, error)
        }
    };
    drop(going);
    let verdicts = uses.iter().zip(verdicts).enumerate().map(|(n, (each, shadow))| {
        let error = (Some(n) == number).then(|| error.clone());
        UseVerdict { outcome, shadow, ..each.rejected(error) }
    });
    let verdicts = verdicts.collect();
    let error = match number {
        Some(number) => {
            let StageUse { pipeline, setup, .. } = &uses[number];
            format!("pipeline {}, transform {}: {error}", pipeline.name, setup.transform)
        }
        None => error,
    };
    Err(UnfitInShadow { outcome, error, verdicts })
}

async fn shadow(plugin: &Plugin, each: &StageUse, options: &SwapOptions) -> UseShadow {
    let messages = settings(each, options).shadow;
    if messages == 0 {
        return UseShadow::Unasked;
    }
    let StageUse { pipeline, stage, setup, control, .. } = each;
    let running = setup.clone();
    let setup = tokio::task::spawn_blocking(move || running.beside()).await;
    let mut setup = setup.expect("copying state does not panic");
    if options.state_fresh {
        setup.state = setup.state.blank();
    }
    let candidates = match instantiate(plugin, &setup).await {
        Ok(candidates) => candidates,
        Err(fault) => return UseShadow::Unfit(None, format!("in shadow: {fault}")),
    };
    let (begun, has_begun) = oneshot::channel();
    let (verdict, answer) = oneshot::channel();
    let (stage, fresh, patience) = (*stage, options.state_fresh, PATIENCE);
    let offer = ShadowOffer { stage, candidates, setup, messages, fresh, patience, begun, verdict };
    let begin = async {
        control.send(Control::Change(VersionChange::Shadow(Box::new(offer)))).await.ok()?;
        has_begun.await.ok()
    };
    let Ok(begun) = timeout(EXCHANGE_DEADLINE, begin).await else {
        let error = format!("its pipeline did not begin a shadow within {} s", EXCHANGE_DEADLINE.as_secs());
        return UseShadow::Unfit(None, error);
    };
    if begun.is_some() {
        tracing::info!(
            plugin = %plugin.name(), version = %plugin.version(), pipeline = pipeline.name,
            transform = %each.setup.transform, messages, "plugin in shadow"
        );
    }
    let Some(Shadowed { outcome, counts, first, retired }) = answer.await.ok() else {
        // What was to be shown there is not what the next start begins with, which it must manage all the same.
        return match try_out(plugin, pipeline, stage, &each.setup).await {
            Ok(()) => UseShadow::Ended,
            Err(refusal) => UseShadow::Unfit(None, refusal.reason()),
        };
    };
    retire(retired).await;
    let verdict =
        ShadowVerdict { same: counts.same, different: counts.different, faulted: counts.faulted, first };
    match outcome {
        ShadowOutcome::Passed => UseShadow::Fit(verdict),
        ShadowOutcome::Faulted(fault) => {
            UseShadow::Unfit(Some(verdict), format!("in shadow: {}: {fault}", fault.kind))
        }
        ShadowOutcome::Silent(patience) => {
            let error = format!("in shadow: no message came for {} s", patience.as_secs());
            UseShadow::Unfit(Some(verdict), error)
        }
    }
}

/// How each use keeps the version before, and what follows that; nothing where no use has a probation. Where one has,
/// all keep it as long: they go back together.
pub(super) fn probations(
    uses: &[StageUse],
    options: &SwapOptions,
    previous: Option<&Plugin>,
) -> (Vec<Option<ProbationTerms>>, Option<SwapProbation>) {
    let all: Vec<_> = uses.iter().map(|each| settings(each, options)).collect();
    let keeps = all.iter().map(|settings| settings.probation).max().unwrap_or_default();
    let (Some(previous), false) = (previous, keeps.is_zero()) else {
        return (uses.iter().map(|_| None).collect(), None);
    };
    let (mut terms, mut followed) = (Vec::new(), Vec::new());
    for (each, SwapSettings { probation, max_faults, .. }) in uses.iter().zip(all) {
        let (verdict, rolled_back) = oneshot::channel();
        terms.push(Some(ProbationTerms { keeps, counts: probation, max_faults, verdict }));
        followed.push((each.clone(), rolled_back));
    }
    (terms, Some(SwapProbation { previous: previous.clone(), uses: followed }))
}

impl SwapProbation {
    /// Waits until it is over at all uses; where `version` has faulted too often at one, it is put back at the others
    /// too.
    pub(super) async fn follow(self, version: &str) -> Option<RolledBackSwap> {
        let Self { previous, uses } = self;
        let controls: Vec<_> = uses.iter().map(|(each, _)| (each.control.clone(), each.stage)).collect();
        let mut waiting: FuturesUnordered<_> =
            uses.into_iter().map(async |(each, rolled_back)| (each, rolled_back.await.ok())).collect();
        // Those that end otherwise drop what would have told it.
        let (first, why) = loop {
            if let (each, Some(RolledBack { reason })) = waiting.next().await? {
                break (each, reason);
            }
        };
        let told = why.clone().unwrap_or_default();
        let reason = format!("pipeline {}, transform {}: {told}", first.pipeline.name, first.setup.transform);
        let mut back = vec![(first, why)];
        let orders = controls.iter().map(|(control, stage)| {
            let order = VersionChange::RollBack { stage: *stage, version: version.into() };
            timeout(EXCHANGE_DEADLINE, control.send(Control::Change(order)))
        });
        let until = tokio::time::Instant::now() + EXCHANGE_DEADLINE;
        join_all(orders).await;
        // A use that does not look up in time is offered the version before as any that is behind.
        while let Ok(Some((each, rolled_back))) = timeout_at(until, waiting.next()).await {
            back.extend(rolled_back.map(|RolledBack { reason }| (each, reason)));
        }
        Some(RolledBackSwap { previous, reason, uses: back })
    }
}
