//! Exchanging a plugin's version in all pipelines that run it.
//!
//! First every use is prepared: instantiated and given its configuration; one failure rejects the
//! version for all. Stages of pipelines that do not run are tried out with it, so that none is left with a
//! version that it cannot start. Then the uses swap side by side, each as soon as its pipeline can. A use whose
//! pipeline has ended meanwhile, or is about to, is no use any more.

use super::bounded::{Failure, bounded};
use super::connectors;
use super::instances::{self, instantiate, retire};
use super::plugin_registry::check_outputs;
use crate::config;
use crate::connector::Connector;
use crate::pipeline::{CarriedState, Control, Swap, Swapped};
use crate::plugin::{Instance, Plugin, Setup};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Longest that preparing all uses of a version may take; as at a start, a guest's own time is limited far
/// below.
const PREPARE_DEADLINE: Duration = Duration::from_secs(120);
/// Longest that one use may take to swap. A pipeline looks up from its work between two pieces of a batch,
/// and carrying the state has 1 s each way.
const EXCHANGE_DEADLINE: Duration = Duration::from_secs(30);

/// One stage that runs the plugin.
#[derive(Clone, Debug)]
pub(super) struct StageUse {
    pub(super) pipeline: Arc<config::Pipeline>,
    pub(super) stage: usize,
    pub(super) setup: Setup,
    pub(super) control: mpsc::Sender<Control>,
}

/// A stage of a pipeline that does not run now, and would run the plugin.
#[derive(Clone, Debug)]
pub(super) struct IdleStage {
    pub(super) pipeline: Arc<config::Pipeline>,
    pub(super) stage: usize,
    pub(super) setup: Setup,
}

/// An endpoint that asks the plugin before it dials, whether its pipeline runs or not. It asks the version that is
/// current, and is told of no swap.
#[derive(Clone, Debug)]
pub(super) struct ConnectorUse {
    pub(super) pipeline: Arc<config::Pipeline>,
    pub(super) connector: Connector,
}

/// A version that is offered to uses of its plugin.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) plugin: Plugin,
    /// The version before, where this one takes over everywhere.
    pub(super) previous: Option<Plugin>,
    /// The uses run this version already, without optimised code.
    pub(super) is_same_version: bool,
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
    /// The uses ran this version already, without optimised code.
    pub(super) is_same_version: bool,
    pub(super) report: SwapReport,
    /// The uses that run it now.
    pub(super) taken: Vec<StageUse>,
    /// The uses that stay on the version before, those included whose pipelines are about to end.
    pub(super) kept: Vec<StageUse>,
}

/// How a swap went.
#[derive(Clone, Debug)]
pub(super) struct SwapReport {
    /// Whether the new version runs.
    pub outcome: SwapDecision,
    /// Why it was rejected, or not taken everywhere.
    pub error: Option<String>,
    /// Each stage that runs the plugin.
    pub uses: Vec<StageReport>,
    /// The pipeline and the name of each endpoint that asks the plugin.
    pub connectors: Vec<(String, String)>,
}

/// How a swap went at one stage.
#[derive(Clone, Debug)]
pub(super) struct StageReport {
    /// The name of the pipeline.
    pub pipeline: String,
    /// The label of the stage.
    pub transform: String,
    /// Whether the new version runs there.
    pub outcome: SwapDecision,
    /// What became of the state.
    pub state: Option<&'static str>,
    /// How long the pipeline stood still.
    pub swap_us: Option<u64>,
    /// Why the old version runs on.
    pub error: Option<String>,
}

/// Whether the new version runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SwapDecision {
    /// The new version runs.
    Swapped,
    /// The version before goes on.
    Rejected,
    /// Newer content came before it was decided.
    Superseded,
}

/// Swaps the plugin in all its uses.
pub(super) async fn swap(offer: Offer) -> FinishedSwap {
    let Offer { plugin, previous, is_same_version, uses, idle, connectors, superseded } = offer;
    let name = |each: &ConnectorUse| (each.pipeline.name.clone(), each.connector.endpoint().to_owned());
    let mut report = SwapReport {
        outcome: SwapDecision::Rejected,
        error: None,
        uses: Vec::new(),
        connectors: connectors.iter().map(name).collect(),
    };
    let (mut taken, mut kept) = (Vec::new(), Vec::new());
    let prepared = join_all(uses.iter().map(|each| prepare(&plugin, each)));
    let spared = join_all(idle.iter().map(|each| spare(&plugin, previous.as_ref(), each)));
    let asked = join_all(connectors.iter().map(|each| spare_connector(&plugin, previous.as_ref(), each)));
    let prepared = async { tokio::join!(prepared, spared, asked) };
    let (prepared, spared, asked) = match bounded(PREPARE_DEADLINE, &superseded, prepared).await {
        Ok(prepared) => prepared,
        Err(failure) => {
            if failure == Failure::Cancelled {
                report.outcome = SwapDecision::Superseded;
            }
            report.error = Some(match failure {
                Failure::Cancelled => "newer content came first".to_owned(),
                Failure::TimedOut => {
                    format!("it has not started everywhere after {} s", PREPARE_DEADLINE.as_secs())
                }
                Failure::Panicked => "starting it met a fault of the host; the log has the panic".to_owned(),
            });
            return FinishedSwap { plugin, is_same_version, report, taken, kept: uses };
        }
    };
    let (prepared, mut refused) = prepared.into_iter().fold((Vec::new(), Vec::new()), |mut all, each| {
        match each {
            Ok(prepared) => all.0.push(prepared),
            Err(error) => all.1.push(error),
        }
        all
    });
    refused.extend(spared.into_iter().chain(asked).filter_map(Result::err));
    if !refused.is_empty() {
        report.error = Some(refused.join("; "));
        retire(prepared.into_iter().flatten().flatten().collect()).await;
        return FinishedSwap { plugin, is_same_version, report, taken, kept: uses };
    }
    let mut retired = Vec::new();
    let exchanges = uses.iter().zip(prepared).map(async |(each, next)| exchange(each, next?).await);
    for (each, answer) in uses.clone().into_iter().zip(join_all(exchanges).await) {
        let Some((stage_report, instances)) = answer else {
            kept.push(each);
            continue;
        };
        let side = if stage_report.outcome == SwapDecision::Swapped { &mut taken } else { &mut kept };
        side.push(each);
        report.uses.push(stage_report);
        retired.extend(instances);
    }
    if report.uses.is_empty() || !taken.is_empty() {
        report.outcome = SwapDecision::Swapped;
    }
    report.error = report.uses.iter().find_map(|each| {
        let error = each.error.as_ref()?;
        Some(format!("pipeline {}, transform {}: {error}", each.pipeline, each.transform))
    });
    retire(retired).await;
    FinishedSwap { plugin, is_same_version, report, taken, kept }
}

/// Whether a stage that does not run now can be started with a version. One that the version before cannot start
/// either holds no other up.
///
/// # Errors
/// Why it cannot, and could with the version before.
async fn spare(plugin: &Plugin, previous: Option<&Plugin>, each: &IdleStage) -> Result<(), String> {
    let IdleStage { pipeline, stage, setup } = each;
    let Err(refusal) = try_out(plugin, pipeline, *stage, setup).await else { return Ok(()) };
    match previous {
        Some(previous) if try_out(previous, pipeline, *stage, setup).await.is_ok() => Err(refusal),
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
) -> Result<(), String> {
    let ConnectorUse { pipeline, connector } = each;
    let Err(refusal) = connectors::try_out(&pipeline.name, connector, plugin).await else { return Ok(()) };
    match previous {
        Some(previous) if connectors::try_out(&pipeline.name, connector, previous).await.is_ok() => {
            Err(refusal.to_string())
        }
        _ => Ok(()),
    }
}

/// Starts a stage as its next start will, and drops it.
async fn try_out(
    plugin: &Plugin,
    pipeline: &config::Pipeline,
    stage: usize,
    setup: &Setup,
) -> Result<(), String> {
    // Its pipeline may be about to end: what that end alone changes is not what a start begins with.
    let state = setup.state.clone();
    let resumed = tokio::task::spawn_blocking(move || state.resumed()).await;
    let setup = &Setup { state: resumed.expect("copying state does not panic"), ..setup.clone() };
    let made = instances::instances(&pipeline.transforms[stage], plugin, setup).await;
    let made = made.map_err(|refusal| refusal.to_string())?;
    retire(check_stage(plugin, pipeline, stage, made.instances).await?).await;
    Ok(())
}

/// Makes the instances of a use; none where its pipeline is about to end, and its next start can do with the version.
async fn prepare(plugin: &Plugin, each: &StageUse) -> Result<Option<Vec<Instance>>, String> {
    let StageUse { pipeline, stage, setup, control } = each;
    let made = match instantiate(plugin, setup).await {
        Ok(instances) => check_stage(plugin, pipeline, *stage, instances).await,
        Err(fault) => Err(format!("pipeline {}, transform {}: {fault}", pipeline.name, setup.transform)),
    };
    match made {
        Err(_) if setup.state.is_sealed() || control.is_closed() => {
            try_out(plugin, pipeline, *stage, setup).await.map(|()| None)
        }
        made => made.map(Some),
    }
}

/// Gives instances back that have the outputs which the sinks behind their stage take.
async fn check_stage(
    plugin: &Plugin,
    pipeline: &config::Pipeline,
    stage: usize,
    instances: Vec<Instance>,
) -> Result<Vec<Instance>, String> {
    if stage + 1 == pipeline.transforms.len()
        && let Err(refusal) = check_outputs(pipeline, plugin.name(), instances[0].description())
    {
        retire(instances).await;
        return Err(refusal.to_string());
    }
    Ok(instances)
}

/// Offers a use its new instances. None: its pipeline has ended, or is about to.
async fn exchange(each: &StageUse, next: Vec<Instance>) -> Option<(StageReport, Vec<Instance>)> {
    let mut report = StageReport {
        pipeline: each.pipeline.name.clone(),
        transform: each.setup.transform.to_string(),
        outcome: SwapDecision::Rejected,
        state: None,
        swap_us: None,
        error: None,
    };
    let (sender, answer) = oneshot::channel();
    let swap = Box::new(Swap { stage: each.stage, next, fresh: false, verdict: sender });
    let asked = async {
        each.control.send(Control::Swap(swap)).await.ok()?;
        answer.await.ok()
    };
    let Ok(answered) = tokio::time::timeout(EXCHANGE_DEADLINE, asked).await else {
        // It finds nobody waiting for its verdict, and stays on the version that it runs.
        report.error = Some(format!("its pipeline did not swap within {} s", EXCHANGE_DEADLINE.as_secs()));
        return Some((report, Vec::new()));
    };
    let Swapped { outcome, pause, retired } = answered?;
    report.swap_us = Some(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX));
    match outcome {
        Ok(state) => {
            report.outcome = SwapDecision::Swapped;
            report.state = Some(match state {
                CarriedState::Carried => "carried",
                CarriedState::Older => "older",
                CarriedState::Fresh => "fresh",
                CarriedState::None => "none",
            });
        }
        Err(fault) => report.error = Some(fault.to_string()),
    }
    Some((report, retired))
}
