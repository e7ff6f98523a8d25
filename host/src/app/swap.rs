//! Exchanging a plugin's version in all pipelines that run it.
//!
//! First every use is prepared: instantiated and given its configuration; one failure rejects the
//! version for all. Stages of pipelines that do not run are tried out with it, so that none is left with a
//! version that it cannot start. Where that is asked for, it is shown in shadow next what the uses get (`trial.rs`),
//! and again one failure rejects it for all. Then the uses swap side by side, each as soon as its pipeline can. A use whose
//! pipeline has ended meanwhile, or is about to, is no use any more.

use super::bounded::{Failure, bounded};
use super::connectors;
use super::instances::{config_now, instantiate, retire};
use super::plugin_registry::PluginRefusal;
use super::trial::{self, SwapProbation, UnfitInShadow, shadow_all};
use super::uses::{ConnectorUse, EXCHANGE_DEADLINE, IdleStage, StageUse, check_stage, try_out};
use crate::pipeline::{Control, ProbationTerms, Swap, Swapped, VersionChange};
use crate::plugin::{Instance, Plugin, Setup};
use crate::telemetry::Metrics;
use crate::verdict::{CarriedState, SwapOptions, SwapOutcome, UsePlace, UseVerdict};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Longest that preparing all uses of a version may take; as at a start, a guest's own time is limited far
/// below.
const PREPARE_DEADLINE: Duration = Duration::from_secs(120);
/// Everything that a new version has to do with.
#[derive(Debug, Default)]
pub(super) struct SwapTargets {
    pub(super) uses: Vec<StageUse>,
    pub(super) idle: Vec<IdleStage>,
    pub(super) connectors: Vec<ConnectorUse>,
}

/// A version that is offered to uses of its plugin.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) plugin: Plugin,
    /// The version before, where this one takes over everywhere.
    pub(super) previous: Option<Plugin>,
    pub(super) options: SwapOptions,
    pub(super) uses: Vec<StageUse>,
    /// Stages that take it at their next start.
    pub(super) idle: Vec<IdleStage>,
    /// Endpoints that ask it from their next dial on.
    pub(super) connectors: Vec<ConnectorUse>,
    /// Newer content has come: until the uses are asked, this one can be skipped.
    pub(super) superseded: CancellationToken,
}

/// What became of an offer.
#[derive(Debug)]
pub(super) struct FinishedSwap {
    pub(super) plugin: Plugin,
    /// Whether the new version runs.
    pub(super) outcome: SwapOutcome,
    /// Why it was rejected, or not taken everywhere.
    pub(super) error: Option<String>,
    /// What became of it at each place.
    pub(super) uses: Vec<UseVerdict>,
    /// The uses that run it now.
    pub(super) taken: Vec<StageUse>,
    /// The uses that stay on the version before, those included whose pipelines are about to end.
    pub(super) kept: Vec<StageUse>,
    /// The uses that keep the version before for a while, if any does.
    pub(super) probation: Option<SwapProbation>,
}

/// Swaps the plugin in all its uses.
pub(super) async fn swap(offer: Offer, metrics: &Metrics) -> FinishedSwap {
    let Offer { plugin, previous, options, uses, idle, connectors, superseded } = offer;
    let prepared =
        join_all(uses.iter().map(|each| configure_and_prepare(&plugin, each, options.state_fresh)));
    let spared = join_all(idle.iter().map(|each| spare(&plugin, previous.as_ref(), each)));
    let asked = join_all(connectors.iter().map(|each| spare_connector(&plugin, previous.as_ref(), each)));
    let prepared = async { tokio::join!(prepared, spared, asked) };
    let (configured, prepared, spared, asked) = match bounded(PREPARE_DEADLINE, &superseded, prepared).await {
        Ok((prepared, spared, asked)) => {
            let (configured, prepared): (Vec<_>, Vec<_>) = prepared.into_iter().unzip();
            (configured, prepared, spared, asked)
        }
        Err(failure) => {
            let (outcome, error) = match failure {
                Failure::Cancelled => (SwapOutcome::Superseded, "newer content came first".to_owned()),
                Failure::TimedOut => {
                    let error =
                        format!("it has not started everywhere after {} s", PREPARE_DEADLINE.as_secs());
                    (SwapOutcome::Rejected, error)
                }
                Failure::Panicked => {
                    let error = "starting it met a fault of the host; the log has the panic".to_owned();
                    (SwapOutcome::Rejected, error)
                }
            };
            return FinishedSwap::not_made(plugin, outcome, error, Vec::new(), uses);
        }
    };
    let refusals = prepared.iter().filter_map(|each| each.as_ref().err());
    let refusals = refusals.chain(spared.iter().chain(&asked).filter_map(|each| each.as_ref().err()));
    let refusals: Vec<_> = refusals.map(PluginRefusal::to_string).collect();
    if !refusals.is_empty() {
        let reason = |refusal: &PluginRefusal| refusal.reason();
        let mut verdicts = Vec::new();
        for (each, prepared) in uses.iter().zip(&prepared) {
            verdicts.push(each.rejected(prepared.as_ref().err().map(reason)));
        }
        for (IdleStage { pipeline, setup, .. }, spared) in idle.iter().zip(spared) {
            let place = UsePlace::Transform(setup.transform.to_string());
            verdicts.extend(
                spared
                    .err()
                    .map(|refusal| UseVerdict::rejected(&pipeline.name, place, Some(refusal.reason()))),
            );
        }
        for (ConnectorUse { pipeline, connector }, asked) in connectors.iter().zip(asked) {
            let place = UsePlace::Endpoint(connector.endpoint().to_owned());
            verdicts.push(UseVerdict::rejected(&pipeline.name, place, asked.err().as_ref().map(reason)));
        }
        retire(prepared.into_iter().flatten().flatten().flatten().collect()).await;
        return FinishedSwap::not_made(plugin, SwapOutcome::Rejected, refusals.join("; "), verdicts, uses);
    }
    let shadows = match shadow_all(&plugin, &configured, &options, &superseded, metrics).await {
        Ok(shadows) => shadows,
        Err(unfit) => {
            retire(prepared.into_iter().flatten().flatten().flatten().collect()).await;
            let UnfitInShadow { outcome, error, verdicts } = unfit;
            return FinishedSwap::not_made(plugin, outcome, error, verdicts, uses);
        }
    };
    let (mut verdicts, mut taken, mut kept, mut retired) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (terms, mut probation) = trial::probations(&uses, &options, previous.as_ref());
    let prepared = prepared.into_iter().map(Result::ok).zip(terms);
    let exchanges = configured.iter().zip(prepared);
    let exchanges =
        exchanges.map(async |(each, (next, terms))| exchange(&plugin, each, next??, &options, terms).await);
    let answers = join_all(exchanges).await;
    for ((each, answer), shadow) in configured.into_iter().zip(answers).zip(shadows) {
        let Some((mut verdict, instances)) = answer else {
            kept.push(each);
            continue;
        };
        verdict.shadow = shadow;
        let side = if verdict.outcome == SwapOutcome::Swapped { &mut taken } else { &mut kept };
        side.push(each);
        verdicts.push(verdict);
        retired.extend(instances);
    }
    if taken.is_empty() {
        probation = None;
    }
    let is_swapped = verdicts.is_empty() || !taken.is_empty();
    let outcome = if is_swapped { SwapOutcome::Swapped } else { SwapOutcome::Rejected };
    let error = uses_that_refuse(&verdicts);
    for ConnectorUse { pipeline, connector } in connectors {
        verdicts.push(UseVerdict {
            pipeline: pipeline.name.clone(),
            place: UsePlace::Endpoint(connector.endpoint().to_owned()),
            outcome,
            state: is_swapped.then_some(CarriedState::None),
            swap_us: None,
            error: None,
            shadow: None,
        });
    }
    retire(retired).await;
    FinishedSwap { plugin, outcome, error, uses: verdicts, taken, kept, probation }
}

/// Why a version is not taken everywhere.
fn uses_that_refuse(verdicts: &[UseVerdict]) -> Option<String> {
    let refusals = verdicts.iter().filter_map(|each| {
        let error = each.error.as_ref()?;
        Some(format!("pipeline {}, {}: {error}", each.pipeline, each.place))
    });
    let refusals: Vec<_> = refusals.collect();
    (!refusals.is_empty()).then(|| refusals.join("; "))
}

impl FinishedSwap {
    /// No use takes the version.
    fn not_made(
        plugin: Plugin,
        outcome: SwapOutcome,
        error: String,
        verdicts: Vec<UseVerdict>,
        uses: Vec<StageUse>,
    ) -> Self {
        let (error, taken) = (Some(error), Vec::new());
        Self { plugin, outcome, error, uses: verdicts, taken, kept: uses, probation: None }
    }
}

/// Whether a stage that does not run now can be started with a version. One that the version before cannot start
/// either holds no other up.
///
/// # Errors
/// Why it cannot, and could with the version before.
async fn spare(plugin: &Plugin, previous: Option<&Plugin>, each: &IdleStage) -> Result<(), PluginRefusal> {
    let IdleStage { pipeline, stage, setup } = each;
    // Without its files no version can be started.
    let Ok(config) = config_now(&pipeline.transforms[*stage]).await else { return Ok(()) };
    let setup = Setup { config, ..setup.clone() };
    let Err(refusal) = try_out(plugin, pipeline, *stage, &setup).await else { return Ok(()) };
    match previous {
        Some(previous) if try_out(previous, pipeline, *stage, &setup).await.is_ok() => Err(refusal),
        _ => Ok(()),
    }
}

/// The same of a version that an endpoint would ask.
///
/// # Errors
/// Why it cannot be asked, and the version before could.
async fn spare_connector(
    plugin: &Plugin,
    previous: Option<&Plugin>,
    each: &ConnectorUse,
) -> Result<(), PluginRefusal> {
    let ConnectorUse { pipeline, connector } = each;
    let Err(refusal) = connectors::try_out(&pipeline.name, connector, plugin).await else { return Ok(()) };
    match previous {
        Some(previous) if connectors::try_out(&pipeline.name, connector, previous).await.is_ok() => {
            Err(refusal)
        }
        _ => Ok(()),
    }
}

/// Gives a use the configuration that it has for a version, and makes its instances.
async fn configure_and_prepare(
    plugin: &Plugin,
    each: &StageUse,
    fresh: bool,
) -> (StageUse, Result<Option<Vec<Instance>>, PluginRefusal>) {
    let (each, read) = each.clone().configured_for(plugin).await;
    let prepared = match read {
        Ok(()) => prepare(plugin, &each, fresh).await,
        Err(fault) => Err(PluginRefusal::init(&each.pipeline.transforms[each.stage], &each.setup, fault)),
    };
    (each, prepared)
}

/// Makes the instances of a use, which see nothing of its state where they are to begin anew; none where its pipeline is
/// about to end, and its next start can do with the version.
async fn prepare(
    plugin: &Plugin,
    each: &StageUse,
    fresh: bool,
) -> Result<Option<Vec<Instance>>, PluginRefusal> {
    let StageUse { pipeline, stage, setup, control, .. } = each;
    let state = if fresh { setup.state.blank() } else { setup.state.clone() };
    let is_over = || setup.state.is_sealed() || control.is_closed();
    let setup = &Setup { state, ..setup.clone() };
    let made = match instantiate(plugin, setup).await {
        Ok(instances) => check_stage(plugin, pipeline, *stage, instances).await,
        Err(fault) => Err(PluginRefusal::init(&pipeline.transforms[*stage], setup, fault)),
    };
    match made {
        Err(_) if is_over() => try_out(plugin, pipeline, *stage, setup).await.map(|()| None),
        made => made.map(Some),
    }
}

/// Offers a use its new instances, and other ones without the state where that is refused and may be given up. None:
/// its pipeline has ended, or is about to.
async fn exchange(
    plugin: &Plugin,
    each: &StageUse,
    next: Vec<Instance>,
    options: &SwapOptions,
    probation: Option<ProbationTerms>,
) -> Option<(UseVerdict, Vec<Instance>)> {
    let (refused, mut retired) = exchange_once(each, next, options.state_fresh, probation).await?;
    if !options.fresh_if_refused || refused.outcome == SwapOutcome::Swapped {
        return Some((refused, retired));
    }
    let Ok(Some(next)) = prepare(plugin, each, true).await else { return Some((refused, retired)) };
    let (mut verdict, more) = exchange_once(each, next, true, None).await?;
    if verdict.outcome == SwapOutcome::Swapped {
        // It runs, and this is why it begins anew.
        verdict.error = refused.error;
    }
    retired.extend(more);
    Some((verdict, retired))
}

/// Offers a use its new instances. None: its pipeline has ended, or is about to.
async fn exchange_once(
    each: &StageUse,
    next: Vec<Instance>,
    fresh: bool,
    probation: Option<ProbationTerms>,
) -> Option<(UseVerdict, Vec<Instance>)> {
    let mut verdict = each.rejected(None);
    let (sender, answer) = oneshot::channel();
    let swap = Swap { stage: each.stage, next, fresh, probation, verdict: sender };
    let asked = async {
        each.control.send(Control::Change(VersionChange::Swap(Box::new(swap)))).await.ok()?;
        answer.await.ok()
    };
    let Ok(answered) = tokio::time::timeout(EXCHANGE_DEADLINE, asked).await else {
        // It finds nobody waiting for its verdict, and stays on the version that it runs.
        verdict.error = Some(format!("its pipeline did not swap within {} s", EXCHANGE_DEADLINE.as_secs()));
        return Some((verdict, Vec::new()));
    };
    let Swapped { outcome, pause, retired } = answered?;
    verdict.swap_us = Some(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX));
    match outcome {
        Ok(state) => (verdict.outcome, verdict.state) = (SwapOutcome::Swapped, Some(state)),
        Err(fault) => verdict.error = Some(fault.to_string()),
    }
    Some((verdict, retired))
}
