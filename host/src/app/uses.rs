//! The places that use a plugin, and whether one of them can do with a version.

use super::instances::{self, retire};
use super::plugin_registry::{PluginRefusal, check_outputs};
use crate::config;
use crate::connector::Connector;
use crate::pipeline::Control;
use crate::plugin::{Fault, Instance, Plugin, Setup};
use crate::verdict::{UsePlace, UseVerdict};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Longest that one use may take to swap. A pipeline looks up from its work between two pieces of a batch,
/// and carrying the state has 1 s each way.
pub(super) const EXCHANGE_DEADLINE: Duration = Duration::from_secs(30);

/// One stage that runs the plugin.
#[derive(Clone, Debug)]
pub(super) struct StageUse {
    pub(super) pipeline: Arc<config::Pipeline>,
    pub(super) stage: usize,
    pub(super) setup: Setup,
    /// The version that it runs now.
    pub(super) version: Arc<str>,
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

impl StageUse {
    /// The same with the configuration that a version is to be given: that of the version which runs, or for another
    /// one what its files have now. Or that they cannot be read.
    pub(super) async fn configured_for(mut self, plugin: &Plugin) -> (Self, Result<(), Fault>) {
        if self.version == *plugin.version() {
            return (self, Ok(()));
        }
        let read = instances::config_now(&self.pipeline.transforms[self.stage]).await;
        let read = read.map(|config| self.setup.config = config);
        (self, read)
    }

    /// The version that it runs goes on.
    pub(super) fn rejected(&self, error: Option<String>) -> UseVerdict {
        let place = UsePlace::Transform(self.setup.transform.to_string());
        UseVerdict::rejected(&self.pipeline.name, place, error)
    }
}

/// Starts a stage as its next start will, and drops it.
pub(super) async fn try_out(
    plugin: &Plugin,
    pipeline: &config::Pipeline,
    stage: usize,
    setup: &Setup,
) -> Result<(), PluginRefusal> {
    // Its pipeline may be about to end: what that end alone changes is not what a start begins with.
    let state = setup.state.clone();
    let resumed = tokio::task::spawn_blocking(move || state.resumed()).await;
    let setup = &Setup { state: resumed.expect("copying state does not panic"), ..setup.clone() };
    let made = instances::instances(&pipeline.transforms[stage], plugin, setup).await?;
    retire(check_stage(plugin, pipeline, stage, made.instances).await?).await;
    Ok(())
}

/// Gives instances back that have the outputs which the sinks behind their stage take.
pub(super) async fn check_stage(
    plugin: &Plugin,
    pipeline: &config::Pipeline,
    stage: usize,
    instances: Vec<Instance>,
) -> Result<Vec<Instance>, PluginRefusal> {
    if stage + 1 == pipeline.transforms.len()
        && let Err(refusal) = check_outputs(pipeline, plugin.name(), instances[0].description())
    {
        retire(instances).await;
        return Err(refusal);
    }
    Ok(instances)
}
