//! The instances of plugins that a pipeline starts with, and the state that they go on with.
//!
//! Each instance goes on with the snapshot of the one in its place. Where there were more or fewer instances before,
//! all snapshots go to each, which keeps what belongs to its part; a plugin that does not start without its state.

use super::plugin_registry::{PluginRefusal, check_outputs, unguarded};
use crate::config::{self, Redacted};
use crate::http_client::http_of;
use crate::pipeline::share_out;
use crate::plugin::{
    Fault, FaultKind, FirstAnswers, HostState, Instance, Plugin, PluginKind, Setup, StatePart,
};
use crate::telemetry::Metrics;
use bytes::Bytes;
use futures_util::future::try_join_all;
use std::sync::Arc;

/// A stage that is ready to run.
pub(super) type Ready = (config::Transform, Setup, Vec<Instance>);

/// The stages of a pipeline.
pub(super) struct MadeStages {
    /// In the order of the transforms.
    pub(super) stages: Vec<Ready>,
    /// What whoever starts the pipeline should know.
    pub(super) warnings: Vec<String>,
}

/// The instances of one stage.
pub(super) struct MadeInstances {
    /// One for each part.
    pub(super) instances: Vec<Instance>,
    /// What is to be kept of each from now on, where that is not what was kept.
    shared_out: Option<Vec<Option<Bytes>>>,
    /// Why the state of another number of instances is not theirs.
    refusal: Option<Fault>,
}

/// Makes the instances for every transform of a pipeline, side by side; `plugins` has the plugin of each, and
/// `states` what it is to go on with.
pub(super) async fn stages(
    pipeline: &config::Pipeline,
    plugins: &[Plugin],
    states: &[HostState],
    metrics: &Metrics,
) -> Result<MadeStages, PluginRefusal> {
    let all = pipeline.transforms.iter().zip(plugins).zip(states);
    let made = all.map(|((transform, plugin), state)| async move {
        let mut setup = setup(pipeline, transform, state.clone(), metrics);
        match config_now(transform).await {
            Ok(config) => setup.config = config,
            Err(fault) => return Err(PluginRefusal::init(transform, &setup, fault)),
        }
        let made = instances(transform, plugin, &setup).await?;
        Ok((transform.clone(), setup, made))
    });
    let made = try_join_all(made).await?;
    if let Some((transform, _, MadeInstances { instances, .. })) = made.last() {
        check_outputs(pipeline, transform.plugin.shown(), instances[0].description())?;
    }
    let mut warnings = Vec::new();
    let stages = made.into_iter().map(|(transform, setup, made)| {
        if let Some(fault) = made.refusal {
            let (plugin, name) = (transform.plugin.shown(), &transform.name);
            tracing::warn!(pipeline = %setup.pipeline, transform = %name, plugin, instances = setup.part.of, %fault,
                "the plugin does not share out the state of another number of instances, and starts without");
            warnings.push(format!(
                "transform {name}: plugin {plugin} does not share out the state of another number of instances, \
                 and starts without: {fault}"
            ));
        }
        if let Some(unguarded) = unguarded(&transform, made.instances[0].description()) {
            let (plugin, name) = (transform.plugin.shown(), &transform.name);
            tracing::warn!(pipeline = %setup.pipeline, transform = %name, plugin,
                "`on_error = \"pass\"` lets messages go on that the plugin is there to keep back");
            warnings.push(unguarded);
        }
        if let Some(snapshots) = made.shared_out {
            setup.state.keep_all(snapshots);
        }
        (transform, setup, made.instances)
    });
    let stages = stages.collect();
    Ok(MadeStages { stages, warnings })
}

/// Makes the instances of a stage, which go on with what the host has kept of it.
pub(super) async fn instances(
    transform: &config::Transform,
    plugin: &Plugin,
    setup: &Setup,
) -> Result<MadeInstances, PluginRefusal> {
    let fresh = async || {
        instantiate(plugin, setup).await.map_err(|fault| PluginRefusal::init(transform, setup, fault))
    };
    let mut instances = fresh().await?;
    let kept = setup.state.snapshots();
    let (mut shared_out, mut refusal) = (None, None);
    if kept.iter().all(Option::is_none) {
        // They begin with what `init` made.
    } else if kept.len() == instances.len() {
        let own =
            instances.iter_mut().zip(&kept).filter_map(|(instance, own)| Some((instance, own.as_ref()?)));
        let restored =
            own.map(|(instance, own)| instance.restore(std::slice::from_ref(own), StatePart::WHOLE));
        try_join_all(restored).await.map_err(|fault| PluginRefusal::state(transform, setup, fault))?;
    } else {
        let kept: Vec<Bytes> = kept.into_iter().flatten().collect();
        match share_out(&mut instances, setup, &kept).await {
            Ok(snapshots) => shared_out = Some(snapshots),
            Err(fault) => {
                (shared_out, refusal) = (Some(vec![None; instances.len()]), Some(fault));
                retire(std::mem::replace(&mut instances, fresh().await?)).await;
            }
        }
    }
    Ok(MadeInstances { instances, shared_out, refusal })
}

/// Makes the instances of a stage as `init` makes them.
///
/// # Errors
/// One does not start, or describes other outputs than the first.
pub(super) async fn instantiate(plugin: &Plugin, setup: &Setup) -> Result<Vec<Instance>, Fault> {
    let setups: Vec<Setup> = setup.of_each().collect();
    let instances = try_join_all(setups.iter().map(|setup| plugin.instantiate(setup))).await?;
    let is_alike = |instance: &Instance| instance.description().outputs == instances[0].description().outputs;
    if instances.iter().all(is_alike) {
        return Ok(instances);
    }
    let detail = "init described other outputs in one instance than in another, with the same configuration";
    Err(Fault::new(FaultKind::Init, detail))
}

/// What a plugin is given as its configuration, with the texts that the files in it have now.
///
/// # Errors
/// One of them cannot be read.
pub(super) async fn config_now(transform: &config::Transform) -> Result<Redacted, Fault> {
    let config = transform.config.clone();
    let read = match config.has_files() {
        true => tokio::task::spawn_blocking(move || config.read_again()).await,
        false => Ok(config.read_again()),
    };
    let read = read.expect("reading a file does not panic");
    read.map_err(|error| Fault::new(FaultKind::Init, format!("`config`: {error}")))
}

/// What the instances of a transform are made with.
pub(super) fn setup(
    pipeline: &config::Pipeline,
    transform: &config::Transform,
    state: HostState,
    metrics: &Metrics,
) -> Setup {
    Setup {
        pipeline: Arc::from(pipeline.name.as_str()),
        transform: Arc::from(transform.name.as_str()),
        kind: PluginKind::Transform,
        part: StatePart { number: 0, of: u32::try_from(transform.instances).expect("they are few") },
        config: transform.config.json().clone(),
        limits: transform.limits,
        is_replay: pipeline.source.is_recording(),
        state,
        http: http_of(pipeline, transform),
        metrics: metrics.guest(&pipeline.name, &transform.name),
        is_shadow: false,
        retries: transform.retries,
        first_answers: FirstAnswers::default(),
    }
}

/// Drops instances where the time that unmapping their memory takes holds nothing up.
pub(super) async fn retire(instances: Vec<Instance>) {
    if !instances.is_empty() {
        let dropped = tokio::task::spawn_blocking(move || drop(instances)).await;
        dropped.expect("dropping an instance does not panic");
    }
}
