//! Everything of a reload that can be refused, done before any pipeline changes: a job beside the task that decides.
//!
//! Files are looked at, instances are made and given their configuration, addresses are tried; what opens something
//! comes last, and not at all where it is only asked what would be done. What was made is dropped again where
//! anything is refused.

use crate::app::CheckFinding;
use crate::app::bounded::bounded;
use crate::app::end_opener::{EndOpener, OpenError, OpenedEnds};
use crate::app::instances::{self, MadeStages, instantiate, retire};
use crate::app::kept::Kept;
use crate::app::plugin_registry::{PluginRefusal, check_outputs};
use crate::app::start::{self, StartError};
use crate::config::{self, Format, Part, PipelinePart, SinkConfig, SourceConfig, StageChange, StdinSource};
use crate::connector::Connector;
use crate::pipeline::{DeadLetterUpdate, SinkUpdate, StageUpdate};
use crate::plugin::{HostState, Plugin, Setup};
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::websocket::Expecting;
use futures_util::future::join_all;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Longest that all of it may take: as long as the jobs of a start together.
const DEADLINE: Duration = Duration::from_secs(150);

/// What is to be prepared.
pub(in crate::app) struct Preparation {
    pub(in crate::app) pipelines: Vec<PipelinePreparation>,
    /// Pipelines of the API, and those that stay as they are: their files are theirs.
    pub(in crate::app) others: Vec<Arc<config::Pipeline>>,
    pub(in crate::app) staying: Vec<Arc<config::Pipeline>>,
    /// What pipelines were that change: their files are free once they have ended.
    pub(in crate::app) going: Vec<Arc<config::Pipeline>>,
    pub(in crate::app) dry_run: bool,
    pub(in crate::app) ends: Arc<EndOpener>,
    pub(in crate::app) store: Store,
    pub(in crate::app) metrics: Arc<Metrics>,
}

/// A pipeline that is to be prepared.
pub(in crate::app) struct PipelinePreparation {
    pub(in crate::app) next: Arc<config::Pipeline>,
    pub(in crate::app) before: Option<Arc<config::Pipeline>>,
    pub(in crate::app) way: Way,
    /// A server endpoint of it cannot be open together with those before.
    pub(in crate::app) clashes: bool,
    /// The plugins of its transforms and connectors; `None` where one is not there and it is to wait.
    pub(in crate::app) plugins: Option<Vec<Plugin>>,
    /// What it goes on with.
    pub(in crate::app) kept: Kept,
    pub(in crate::app) connectors: Arc<[Connector]>,
}

/// How a pipeline comes to be what it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app) enum Way {
    /// It runs, and changes in place.
    Update,
    /// It is new, and is opened before anything changes.
    Start,
    /// It is started once those that go have ended, itself included; or it does not run.
    Late,
}

/// Every pipeline that changes, by its name, with what was prepared for it.
pub(in crate::app) type PreparedReload = Vec<(Arc<str>, PreparedPipeline)>;

/// What was prepared for a pipeline.
pub(in crate::app) enum PreparedPipeline {
    Update(Box<PreparedUpdate>),
    Start(Box<PreparedStart>),
    /// Nothing is open yet; if it was to change in place, the reason why it cannot.
    Late(Option<String>),
}

/// What a pipeline that runs takes over.
pub(in crate::app) struct PreparedUpdate {
    pub(in crate::app) stages: Vec<StageUpdate>,
    pub(in crate::app) sinks: Vec<SinkUpdate>,
    pub(in crate::app) dead_letter: DeadLetterUpdate,
    pub(in crate::app) kept: Kept,
    pub(in crate::app) connectors: Arc<[Connector]>,
}

/// What a new pipeline starts with.
pub(in crate::app) struct PreparedStart {
    pub(in crate::app) made: MadeStages,
    pub(in crate::app) kept: Kept,
    pub(in crate::app) ends: Box<OpenedEnds>,
    pub(in crate::app) connectors: Arc<[Connector]>,
    pub(in crate::app) expecting: Expecting,
}

impl Preparation {
    pub(super) async fn run(self) -> Result<PreparedReload, Vec<CheckFinding>> {
        let hung = |_| {
            vec![CheckFinding::error(Part::PluginFolder, "preparing the reload hangs; nothing was changed")]
        };
        bounded(DEADLINE, &CancellationToken::new(), Box::pin(self.prepare())).await.map_err(hung)?
    }

    async fn prepare(mut self) -> Result<PreparedReload, Vec<CheckFinding>> {
        let looking = tokio::task::spawn_blocking(move || {
            let findings = self.look_at_files();
            (self, findings)
        });
        let (mut this, (late, findings)) = looking.await.expect("looking at files does not panic");
        refused(findings)?;
        let (made, findings) = this.make().await;
        if !findings.is_empty() {
            retire(made.into_iter().flat_map(MadePipeline::into_instances).collect()).await;
            return Err(findings);
        }
        let addresses = this.pipelines.iter().filter(|each| this.dry_run || each.way == Way::Late);
        let looked = addresses.map(|each| this.ends.look_at(&each.next, each.before.as_deref()));
        let findings = join_all(looked).await.into_iter().zip(&this.pipelines);
        let findings = findings.filter_map(|(looked, each)| Some(of_open(&each.next, &looked.err()?)));
        refused(findings.collect())?;
        let mut prepared = PreparedReload::new();
        for ((each, made), late) in std::mem::take(&mut this.pipelines).into_iter().zip(made).zip(late) {
            let name = Arc::from(each.next.name.as_str());
            let next = each.next.clone();
            match this.open(each, made, late).await {
                Ok(one) => prepared.push((name, one)),
                Err(error) => return Err(vec![of_open(&next, &error)]),
            }
        }
        Ok(prepared)
    }

    /// Whether what is to be opened has files of its own; whatever needs one of a pipeline that goes comes late, for the
    /// reason that is given.
    fn look_at_files(&mut self) -> (Vec<Option<String>>, Vec<CheckFinding>) {
        let (mut late, mut findings) = (Vec::new(), Vec::new());
        for each in &mut self.pipelines {
            let before = each.before.as_deref().filter(|_| each.way == Way::Update);
            let opens =
                before.map_or_else(|| (*each.next).clone(), |before| only_new_ends(&each.next, before));
            let others = self.others.iter().chain(&self.staying).map(|other| &**other);
            if let Some((end, error)) = opens.shares_file_with(others) {
                findings.push(of_open(&each.next, &OpenError::wrong(end, error)));
            }
            let going = self.going.iter().map(|going| match before {
                Some(before) if going.name == before.name => Cow::Owned(only_new_ends(before, &each.next)),
                _ => Cow::Borrowed(&**going),
            });
            let mut reason = None;
            if let Some((end, error)) = opens.shares_file_with(going) {
                reason = Some(format!("{end}: {error}: that one has to be closed first"));
            } else if each.clashes && each.way != Way::Late {
                reason = Some(
                    "what the endpoints of its paths agree on has changed, which they close for".to_owned(),
                );
            } else if each.plugins.is_none() {
                reason = Some(String::new());
            }
            if reason.is_some() {
                each.way = Way::Late;
            }
            late.push(reason.filter(|_| before.is_some()));
        }
        (late, findings)
    }

    /// Makes the instances of all, and tries out those that come late: everything that is refused is found at once.
    async fn make(&self) -> (Vec<MadePipeline>, Vec<CheckFinding>) {
        let made = join_all(self.pipelines.iter().map(|each| self.make_one(each))).await;
        let (mut all, mut findings) = (Vec::new(), Vec::new());
        for (made, each) in made.into_iter().zip(&self.pipelines) {
            match made {
                Ok(made) => all.push(made),
                Err(MakeError::Refused(refusal)) => findings.push(of_plugin(&each.next, &refusal)),
                Err(MakeError::NotMade(error)) => findings.push(whole(&each.next, &error.to_string())),
            }
        }
        (all, findings)
    }

    async fn make_one(&self, each: &PipelinePreparation) -> Result<MadePipeline, MakeError> {
        let Some(plugins) = &each.plugins else { return Ok(MadePipeline::Nothing) };
        match (each.way, &each.before) {
            (Way::Update, Some(before)) => {
                start::try_connectors(&each.next, plugins, &each.connectors).await?;
                Ok(MadePipeline::Update(self.stages_of_update(each, before, plugins).await?))
            }
            (Way::Start, _) if !self.dry_run => {
                let cancel = CancellationToken::new();
                let (kept, connectors) = (each.kept.clone(), &each.connectors);
                let made = start::prepare(
                    &each.next,
                    plugins,
                    connectors,
                    kept,
                    &self.store,
                    &self.metrics,
                    &cancel,
                );
                let (made, kept) = Box::pin(made).await.map_err(MakeError::of)?;
                Ok(MadePipeline::Start(Box::new((made, kept))))
            }
            _ => {
                start::try_connectors(&each.next, plugins, &each.connectors).await?;
                let states: Vec<_> = each.next.transforms.iter().map(|_| HostState::default()).collect();
                let made = instances::stages(&each.next, plugins, &states, &Metrics::default()).await?;
                retire(made.stages.into_iter().flat_map(|(_, _, instances)| instances).collect()).await;
                Ok(MadePipeline::Nothing)
            }
        }
    }

    /// The stages of a pipeline that changes in place.
    async fn stages_of_update(
        &self,
        each: &PipelinePreparation,
        before: &config::Pipeline,
        plugins: &[Plugin],
    ) -> Result<Vec<StageUpdate>, PluginRefusal> {
        let next = &each.next;
        let mut stages = Vec::with_capacity(next.transforms.len());
        for ((transform, plugin), state) in next.transforms.iter().zip(plugins).zip(&each.kept.states) {
            let change = before.transform(&transform.name).map(|before| transform.change_since(before));
            let setup = || instances::setup(next, transform, state.clone(), &self.metrics);
            let stage = match change {
                Some(StageChange::None) => StageUpdate::Kept(transform.name.as_str().into()),
                Some(StageChange::Adjusted) => StageUpdate::Adjusted(transform.clone()),
                Some(change @ (StageChange::Renewed | StageChange::SharedOut)) => {
                    let setup = setup();
                    let instances = begin(transform, plugin, &setup).await;
                    let instances = self.or_retire(instances, &mut stages).await?;
                    let shares_out = change == StageChange::SharedOut;
                    StageUpdate::Renewed { parts: (transform.clone(), setup, instances), shares_out }
                }
                None => {
                    let setup = setup();
                    let instances = begin(transform, plugin, &setup).await;
                    let instances = self.or_retire(instances, &mut stages).await?;
                    StageUpdate::Added((transform.clone(), setup, instances))
                }
            };
            stages.push(stage);
        }
        let made = stages.last().and_then(|stage| stage.instances().first());
        let known = made
            .zip(next.transforms.last())
            .map(|(instance, last)| check_outputs(next, last.plugin.shown(), instance.description()));
        let checked = match known {
            Some(checked) => checked,
            None => look_at_outputs(next, plugins).await,
        };
        self.or_retire(checked, &mut stages).await?;
        Ok(stages)
    }

    /// Gives instances up that were made where one after them is refused.
    async fn or_retire<T>(
        &self,
        result: Result<T, PluginRefusal>,
        stages: &mut Vec<StageUpdate>,
    ) -> Result<T, PluginRefusal> {
        if result.is_err() {
            retire(std::mem::take(stages).into_iter().flat_map(StageUpdate::into_instances).collect()).await;
        }
        result
    }

    /// Opens what is to be opened before anything changes.
    async fn open(
        &self,
        each: PipelinePreparation,
        made: MadePipeline,
        late: Option<String>,
    ) -> Result<PreparedPipeline, OpenError> {
        let PipelinePreparation { next, before, kept, connectors, .. } = each;
        match (made, before) {
            (MadePipeline::Nothing, _) => Ok(PreparedPipeline::Late(late)),
            (MadePipeline::Start(made), _) => {
                let (made, kept) = *made;
                // What peers send is not read before it starts, however soon they find its path open.
                let expecting = self.ends.listeners().expecting(&next);
                let ends = Box::new(self.ends.open(&next, kept.position.clone(), &connectors).await?);
                let start = PreparedStart { made, kept, ends, connectors, expecting };
                Ok(PreparedPipeline::Start(Box::new(start)))
            }
            (MadePipeline::Update(stages), before) => {
                let (sinks, dead_letter) = match before {
                    Some(before) if !self.dry_run => {
                        self.ends.open_changed(&next, &before, &connectors).await?
                    }
                    _ => (Vec::new(), DeadLetterUpdate::Kept),
                };
                let update = PreparedUpdate { stages, sinks, dead_letter, kept, connectors };
                Ok(PreparedPipeline::Update(Box::new(update)))
            }
        }
    }
}

/// What was made for a pipeline, while nothing is open.
enum MadePipeline {
    Update(Vec<StageUpdate>),
    Start(Box<(MadeStages, Kept)>),
    Nothing,
}

impl MadePipeline {
    fn into_instances(self) -> Vec<crate::plugin::Instance> {
        match self {
            Self::Update(stages) => stages.into_iter().flat_map(StageUpdate::into_instances).collect(),
            Self::Start(made) => made.0.stages.into_iter().flat_map(|(_, _, instances)| instances).collect(),
            Self::Nothing => Vec::new(),
        }
    }
}

/// Why the stages of a pipeline were not made.
enum MakeError {
    Refused(PluginRefusal),
    NotMade(StartError),
}

impl MakeError {
    fn of(error: StartError) -> Self {
        match error {
            StartError::Refused(refusal) => Self::Refused(refusal),
            other => Self::NotMade(other),
        }
    }
}

impl From<PluginRefusal> for MakeError {
    fn from(refusal: PluginRefusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The instances of a stage as `init` makes them.
async fn begin(
    transform: &config::Transform,
    plugin: &Plugin,
    setup: &Setup,
) -> Result<Vec<crate::plugin::Instance>, PluginRefusal> {
    instantiate(plugin, setup).await.map_err(|fault| PluginRefusal::Init {
        pipeline: setup.pipeline.to_string(),
        transform: setup.transform.to_string(),
        plugin: transform.plugin.shown().to_owned(),
        fault,
    })
}

/// Whether the last transform has the outputs that sinks take: an instance that runs is not asked.
async fn look_at_outputs(pipeline: &config::Pipeline, plugins: &[Plugin]) -> Result<(), PluginRefusal> {
    let Some((last, plugin)) = pipeline.transforms.iter().zip(plugins).next_back() else { return Ok(()) };
    let setup = instances::setup(pipeline, last, HostState::default(), &Metrics::default());
    let instances = begin(last, plugin, &setup).await?;
    let checked = check_outputs(pipeline, last.plugin.shown(), instances[0].description());
    retire(instances).await;
    checked
}

/// A pipeline with the sinks alone that it does not have in common with another.
fn only_new_ends(pipeline: &config::Pipeline, other: &config::Pipeline) -> config::Pipeline {
    let is_new = |sink: &&SinkConfig| other.same_sink(sink).is_none();
    let has_letters = pipeline.dead_letter.as_ref().map(|sink| &sink.kind);
    let other_letters = other.dead_letter.as_ref().map(|sink| &sink.kind);
    config::Pipeline {
        sinks: pipeline.sinks.iter().filter(is_new).cloned().collect(),
        dead_letter: pipeline.dead_letter.clone().filter(|_| has_letters != other_letters),
        ..config::Pipeline::new(&pipeline.name, SourceConfig::Stdin(StdinSource { format: Format::Jsonl }))
    }
}

fn refused(findings: Vec<CheckFinding>) -> Result<(), Vec<CheckFinding>> {
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

fn whole(pipeline: &config::Pipeline, why: &str) -> CheckFinding {
    let part = Part::OfPipeline(pipeline.name.clone(), PipelinePart::Whole);
    CheckFinding::error(part, format!("pipeline {}: {why}", pipeline.name))
}

fn of_open(pipeline: &config::Pipeline, error: &OpenError) -> CheckFinding {
    whole(pipeline, &error.to_string())
}

/// A refusal of a plugin, where its place in the file is.
fn of_plugin(pipeline: &config::Pipeline, refusal: &PluginRefusal) -> CheckFinding {
    let index = |name: &str| pipeline.transforms.iter().position(|transform| transform.name == name);
    let part = match refusal {
        PluginRefusal::Init { transform, .. } => index(transform).map(PipelinePart::PluginConfig),
        PluginRefusal::State { transform, .. } => index(transform).map(PipelinePart::Plugin),
        PluginRefusal::Connector { endpoint, .. } => {
            let mut connectors = pipeline.connectors();
            connectors.position(|(end, _)| end == endpoint).map(PipelinePart::ConnectorConfig)
        }
        PluginRefusal::Output { output, .. } => {
            pipeline.sinks.iter().enumerate().find_map(|(sink, config)| {
                let config::Outputs::Named(names) = &config.outputs else { return None };
                let output = names.iter().position(|name| name.shown() == output)?;
                Some(PipelinePart::Output { sink, output })
            })
        }
    };
    let part = Part::OfPipeline(pipeline.name.clone(), part.unwrap_or(PipelinePart::Whole));
    CheckFinding::error(part, refusal)
}
