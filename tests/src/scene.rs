//! A pipeline with a real plugin between ends that the test works by hand: what is sent, when what comes out is
//! taken, and what the pipeline is told.

use crate::texts;
use std::sync::Arc;
use std::time::Duration;
use tidemill::config::{self, Limits, MessageKey, OnError, Outputs, PluginConfig, Redacted};
use tidemill::message::Message;
use tidemill::pipeline::{
    self, Control, Ended, Parts, Persistence, ProbationTerms, RolledBack, ShadowOffer, Shadowed, Swap,
    Swapped, VersionChange,
};
use tidemill::plugin::{FirstAnswers, HostState, Instance, Plugin, PluginKind, Setup, StatePart};
use tidemill::sink::{self, Receipt, Sink, Work};
use tidemill::source::{self, Source, SourceChunk, SourceFeed};
use tidemill::telemetry::{Counts, Metrics};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Longer than anything here takes, on a slow machine too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running pipeline, named `p`, and its ends.
#[derive(Debug)]
pub struct Scene {
    /// What is sent goes in here.
    pub feed: Option<SourceFeed>,
    /// What comes out.
    pub work: Work,
    /// What the pipeline is told.
    pub control: mpsc::Sender<Control>,
    /// The pipeline's end.
    pub line: JoinHandle<Ended>,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// What the instances of the first stage are made with.
    pub setup: Setup,
}

/// How the stages of a scene differ from the usual one.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the keys of a transform")]
pub struct Stage {
    pub config: &'static str,
    pub on_error: OnError,
    pub limits: Limits,
    pub retries: usize,
    pub max_batch: usize,
    pub instances: u32,
    pub key: Option<MessageKey>,
    /// So many stages of the same kind.
    pub stages: usize,
}

impl Default for Stage {
    fn default() -> Self {
        Self {
            config: "{}",
            on_error: OnError::DeadLetter,
            limits: Limits::default(),
            retries: 5,
            max_batch: 256,
            instances: 1,
            key: None,
            stages: 1,
        }
    }
}

impl Stage {
    fn transform(&self, plugin: &Plugin, name: &str) -> config::Transform {
        config::Transform {
            name: name.to_owned(),
            config: PluginConfig::plain(self.config),
            on_error: self.on_error,
            limits: self.limits,
            retries: self.retries,
            max_batch: self.max_batch,
            instances: self.instances as usize,
            key: self.key.clone(),
            ..config::Transform::new(&**plugin.name())
        }
    }
}

/// An instance for each part of a setup.
///
/// # Panics
/// If one does not start.
pub async fn instances(plugin: &Plugin, setup: &Setup) -> Vec<Instance> {
    let mut all = Vec::new();
    for setup in setup.of_each() {
        all.push(plugin.instantiate(&setup).await.expect("the guest starts"));
    }
    all
}

impl Scene {
    /// A pipeline of such stages, each with the plugin; the stages are named for it, with their numbers from the
    /// second on.
    ///
    /// # Panics
    /// If the plugin does not start.
    pub async fn open(plugin: &Plugin, stage: Stage) -> Self {
        let metrics = Arc::new(Metrics::default());
        let (feed, queue) = source::queue();
        let (sink, work) = sink::queue(metrics.sink("p", "out"));
        let mut transforms = Vec::new();
        for n in 0..stage.stages {
            let number = if n == 0 { String::new() } else { n.to_string() };
            let name = format!("{}{number}", plugin.name());
            let setup = Setup {
                pipeline: "p".into(),
                transform: name.as_str().into(),
                kind: PluginKind::Transform,
                part: StatePart { number: 0, of: stage.instances },
                config: Redacted::plain(stage.config),
                limits: stage.limits,
                is_replay: false,
                state: HostState::default(),
                http: None,
                metrics: metrics.guest("p", &name),
                is_shadow: false,
                retries: 5,
                first_answers: FirstAnswers::default(),
            };
            let instances = instances(plugin, &setup).await;
            transforms.push((stage.transform(plugin, &name), setup, instances));
        }
        let setup = transforms[0].1.clone();
        let parts = Parts {
            name: "p".into(),
            source: Source::Queue(queue),
            transforms,
            sinks: vec![("out".into(), Outputs::All, Sink::Queue(sink))],
            dead_letter: None,
            kept: None,
            persistence: Persistence::KeepsGoing,
            durable: None,
        };
        let (line, control) = pipeline::build(parts, &metrics);
        let line = tokio::spawn(line.run(|| ()));
        Self { feed: Some(feed), work, control, line, metrics, setup }
    }

    /// One chunk, which the pipeline takes as one batch.
    ///
    /// # Panics
    /// If the pipeline has ended.
    pub async fn send<T: AsRef<str>>(&self, words: &[T]) {
        let chunk = SourceChunk { messages: texts(words), ..SourceChunk::default() };
        self.feed.as_ref().expect("it is not at its end").push(chunk).await.expect("the pipeline lives");
    }

    /// The next messages that come out.
    ///
    /// # Panics
    /// If there are none.
    pub async fn receive(&mut self, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        while all.len() < count {
            let batch = tokio::time::timeout(PATIENCE, self.work.next()).await.expect("messages come out");
            let batch = batch.expect("the pipeline lives");
            all.extend(said(&batch));
            self.work.done(Receipt { delivered: batch.len() as u64, failed: Vec::new() });
        }
        all
    }

    /// Everything that comes out until the end, and the end.
    ///
    /// # Panics
    /// If there is no end.
    pub async fn end(mut self) -> (Vec<String>, Ended, Arc<Metrics>) {
        self.feed = None;
        let mut all = Vec::new();
        while let Some(batch) = tokio::time::timeout(PATIENCE, self.work.next()).await.expect("an end comes")
        {
            all.extend(said(&batch));
            self.work.done(Receipt { delivered: batch.len() as u64, failed: Vec::new() });
        }
        drop(self.work);
        (all, self.line.await.expect("it does not panic"), self.metrics)
    }

    /// Waits until a metric of the pipeline has a value.
    ///
    /// # Panics
    /// If that never comes.
    pub async fn until(&self, what: &str, is_so: impl Fn(u64) -> bool) {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        let waited = tokio::time::timeout(PATIENCE, async {
            while !is_so(self.metric(what)) {
                looks.tick().await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{what} is {}", self.metric(what)));
    }

    /// Waits until the second stage was given messages, and has messages still.
    pub async fn until_waits_in_the_second_stage(&self) {
        self.until("tidemill_plugin_calls_total transform=\"moody1\"", |calls| calls >= 2).await;
    }

    /// As [`metric`].
    pub fn metric(&self, name: &str) -> u64 {
        metric(&self.metrics, name)
    }

    /// What the first stage has counted.
    pub fn counts(&self) -> Counts {
        self.metrics.stage_counts("p", &self.setup.transform)
    }

    /// Exchanges the plugin of the first stage for another, and says how that went.
    ///
    /// # Panics
    /// If the plugin does not start, or the pipeline has ended.
    pub async fn swap(&self, plugin: Plugin, config: &str) -> oneshot::Receiver<Swapped> {
        let setup = Setup { config: Redacted::plain(config), ..self.setup.clone() };
        let next = instances(&plugin, &setup).await;
        let (verdict, swapped) = oneshot::channel();
        let swap = Swap { stage: 0, next, fresh: false, probation: None, verdict };
        self.change(VersionChange::Swap(Box::new(swap))).await;
        swapped
    }

    /// Lets another version of the plugin see the next messages of the first stage beside the one that runs, and says
    /// how it fared.
    ///
    /// # Panics
    /// If the plugin does not start, or the pipeline has ended.
    pub async fn shadow(
        &self,
        plugin: Plugin,
        messages: u64,
        patience: Duration,
    ) -> oneshot::Receiver<Shadowed> {
        let setup = self.setup.beside();
        let candidates = instances(&plugin, &setup).await;
        let (verdict, shadowed) = oneshot::channel();
        let (begun, has_begun) = oneshot::channel();
        let offer =
            ShadowOffer { stage: 0, candidates, setup, messages, fresh: false, patience, begun, verdict };
        self.change(VersionChange::Shadow(Box::new(offer))).await;
        has_begun.await.expect("the pipeline lives");
        shadowed
    }

    /// Exchanges the plugin of the first stage for another, and keeps the one before for so long; says how the swap
    /// went, and whether the one before was put back.
    ///
    /// # Panics
    /// If the plugin does not start, the swap fails, or the pipeline has ended.
    pub async fn swap_on_probation(
        &self,
        plugin: Plugin,
        keeps: Duration,
        max_faults: u64,
    ) -> oneshot::Receiver<RolledBack> {
        let next = instances(&plugin, &self.setup).await;
        let (verdict, rolled_back) = oneshot::channel();
        let probation = Some(ProbationTerms { keeps, counts: keeps, max_faults, verdict });
        let (verdict, swapped) = oneshot::channel();
        let swap = Swap { stage: 0, next, fresh: false, probation, verdict };
        self.change(VersionChange::Swap(Box::new(swap))).await;
        let Swapped { outcome, .. } = swapped.await.expect("the pipeline lives");
        outcome.expect("the version takes over");
        rolled_back
    }

    /// Changes something about the version of the plugin.
    ///
    /// # Panics
    /// If the pipeline has ended.
    pub async fn change(&self, change: VersionChange) {
        self.control.send(Control::Change(change)).await.expect("the pipeline lives");
    }

    /// Tells the pipeline to stop.
    ///
    /// # Panics
    /// If it has ended.
    pub async fn stop(&self, grace: Duration) {
        let deadline = tokio::time::Instant::now() + grace;
        self.control.send(Control::Stop { deadline }).await.expect("the pipeline lives");
    }
}

fn said(batch: &[Message]) -> impl Iterator<Item = String> {
    batch.iter().map(|message| message.payload.as_text().expect("it is a text").to_owned())
}

/// The sum of the lines of a metric: its name, and a label where one is meant.
pub fn metric(metrics: &Metrics, name: &str) -> u64 {
    let (name, label) = name.split_once(' ').unwrap_or((name, ""));
    let text = metrics.encode();
    let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name) && line.contains(label);
    let values = text.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}
