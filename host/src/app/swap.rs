//! Exchanging a plugin's version in all pipelines that run it.
//!
//! First every use is prepared: instantiated and given its configuration; one failure rejects the
//! version for all. Then each use swaps at its own batch boundary.

use super::shelf::check_outputs;
use crate::config;
use crate::pipeline::{CarriedState, Control, Swap, Swapped};
use crate::plugin::{Instance, Plugin, Setup};
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// One stage that runs the plugin.
#[derive(Debug)]
pub(super) struct Use {
    pub(super) pipeline: Arc<config::Pipeline>,
    pub(super) stage: usize,
    pub(super) setup: Setup,
    pub(super) control: mpsc::Sender<Control>,
}

/// How a swap went.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The plugin's name.
    pub plugin: String,
    /// Whether the new version runs.
    pub outcome: Outcome,
    /// The new version.
    pub version: String,
    /// The version before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// How long the new version took to compile, or to load from the cache.
    pub compile_ms: u64,
    /// Why it was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Each stage that runs it.
    pub uses: Vec<UseVerdict>,
}

/// How a swap went at one stage.
#[derive(Clone, Debug, Serialize)]
pub struct UseVerdict {
    /// The pipeline.
    pub pipeline: String,
    /// The stage.
    pub transform: String,
    /// Whether the new version runs there.
    pub outcome: Outcome,
    /// What became of the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// How long the pipeline stood still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_us: Option<u64>,
    /// Why the old version runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Whether the new version runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It does.
    Swapped,
    /// The old one does.
    Rejected,
}

/// Swaps the plugin in all its uses.
pub(super) async fn swap(plugin: Plugin, previous: Option<String>, uses: Vec<Use>, fresh: bool) -> Verdict {
    let mut verdict = Verdict {
        plugin: plugin.name().to_string(),
        outcome: Outcome::Swapped,
        version: plugin.version().to_string(),
        previous,
        compile_ms: u64::try_from(plugin.load_time().as_millis()).unwrap_or(u64::MAX),
        error: None,
        uses: Vec::new(),
    };
    let mut prepared = Vec::with_capacity(uses.len());
    for each in uses {
        match prepare(&plugin, &each).await {
            Ok(instance) => prepared.push((each, instance)),
            Err(error) => {
                verdict.outcome = Outcome::Rejected;
                verdict.error = Some(error);
                retire(prepared.into_iter().map(|(_, instance)| instance).collect()).await;
                return verdict;
            }
        }
    }
    let mut retired = Vec::new();
    for (each, instance) in prepared {
        let (use_verdict, instance) = exchange(each, instance, fresh).await;
        verdict.uses.push(use_verdict);
        retired.extend(instance);
    }
    if !verdict.uses.is_empty() && verdict.uses.iter().all(|each| each.outcome == Outcome::Rejected) {
        verdict.outcome = Outcome::Rejected;
        verdict.error = verdict.uses.first().and_then(|each| each.error.clone());
    }
    retire(retired).await;
    verdict
}

async fn prepare(plugin: &Plugin, each: &Use) -> Result<Instance, String> {
    let transform = &each.setup.transform;
    let pipeline = &each.pipeline;
    let instance = plugin
        .instantiate(&each.setup)
        .await
        .map_err(|fault| format!("pipeline {}, transform {transform}: {fault}", pipeline.name))?;
    if each.stage + 1 == pipeline.transforms.len()
        && let Err(refusal) = check_outputs(pipeline, plugin.name(), instance.description())
    {
        retire(vec![instance]).await;
        return Err(refusal.to_string());
    }
    Ok(instance)
}

async fn exchange(each: Use, next: Instance, fresh: bool) -> (UseVerdict, Option<Instance>) {
    let mut verdict = UseVerdict {
        pipeline: each.pipeline.name.clone(),
        transform: each.setup.transform.to_string(),
        outcome: Outcome::Rejected,
        state: None,
        swap_us: None,
        error: None,
    };
    let (sender, answer) = oneshot::channel();
    let swap = Box::new(Swap { stage: each.stage, next, fresh, verdict: sender });
    let sent = each.control.send(Control::Swap(swap)).await.is_ok();
    let Some(Swapped { outcome, pause, retired }) = (if sent { answer.await.ok() } else { None }) else {
        verdict.error = Some("the pipeline ended meanwhile".to_owned());
        return (verdict, None);
    };
    verdict.swap_us = Some(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX));
    match outcome {
        Ok(state) => {
            verdict.outcome = Outcome::Swapped;
            verdict.state = Some(match state {
                CarriedState::Carried => "carried",
                CarriedState::Fresh => "fresh",
                CarriedState::None => "none",
            });
        }
        Err(fault) => verdict.error = Some(fault.to_string()),
    }
    (verdict, retired)
}

/// Drops instances where the time that unmapping their memory takes holds nothing up.
async fn retire(instances: Vec<Instance>) {
    if !instances.is_empty() {
        let dropped = tokio::task::spawn_blocking(move || drop(instances)).await;
        dropped.expect("dropping an instance does not panic");
    }
}
