//! A pipeline: one source, the transforms its messages go through, the sinks they reach.
//!
//! Built from parts that are ready to run, it owns them in one task ([`Line`]) until it ends. It
//! knows sources, sinks and plugins by their common faces only; who makes them is no matter here.

mod control;
mod dead_letters;
mod ends;
mod generations;
mod line;
mod merge;
mod outlets;
mod recovery;
mod retries;
mod stage;
mod update;

pub use control::{
    Control, Ended, Ending, ProbationTerms, Resume, RolledBack, ShadowCounts, ShadowOffer, ShadowOutcome,
    Shadowed, Swap, Swapped, VersionChange,
};
pub use line::{LAST_GOODBYE, Line};
pub use recovery::Persistence;
pub use stage::{Compared, ComparedInput, SideBySide, share_out};
pub use update::{
    DeadLetterUpdate, Departure, NotRenewed, RenewedStage, SinkUpdate, StageParts, StageUpdate, Update,
    Updated,
};

use crate::config::{self, DEAD_LETTER, SOURCE};
use crate::dead_letters::KeptLetters;
use crate::plugin::{Instance, Setup};
use crate::sink::Sink;
use crate::source::Source;
use crate::store::GenerationWriter;
use crate::telemetry::{Metrics, SourceMetrics};
use dead_letters::{DeadLetterSink, DeadLetters, Place};
use ends::Ends;
use generations::Generations;
use outlets::{Outlet, Outlets};
use stage::Stage;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Swaps, retries and stops that may wait for a pipeline.
const CONTROLS: usize = 4;

/// The parts of a pipeline, each ready to run.
#[derive(Debug)]
pub struct Parts {
    /// The name of the pipeline.
    pub name: Arc<str>,
    /// Where messages come from.
    pub source: Source,
    /// For each transform its configuration, a setup, and an instance made with each part of that.
    pub transforms: Vec<(config::Transform, Setup, Vec<Instance>)>,
    /// For each sink its name, the outputs it takes, and its end.
    pub sinks: Vec<(Arc<str>, config::Outputs, Sink)>,
    /// Where messages go that failed.
    pub dead_letter: Option<Sink>,
    /// Where they are kept beside that, if anybody may look at them there.
    pub kept: Option<KeptLetters>,
    /// How it takes it that something fails again and again.
    pub persistence: Persistence,
    /// Where the state of durable transforms is written, and how often; needed only where there are such.
    pub durable: Option<(GenerationWriter, Duration)>,
}

/// A pipeline that is ready to run, and the channel it listens to.
pub fn build(parts: Parts, metrics: &Metrics) -> (Line, mpsc::Sender<Control>) {
    let Parts { name, source, transforms, sinks, dead_letter, kept, persistence, durable } = parts;
    let stages: Vec<Stage> = transforms
        .into_iter()
        .map(|(transform, setup, instances)| Stage::new(&transform, setup, instances, persistence, metrics))
        .collect();
    let outlets = sinks
        .into_iter()
        .map(|(sink_name, takes, sink)| {
            let account = metrics.sink(&name, &sink_name).account;
            Outlet::new(sink, takes, Place { stage: sink_name, account, plugin: None })
        })
        .collect();
    let dead_letter =
        dead_letter.map(|sink| DeadLetterSink { sink, metrics: metrics.sink(&name, DEAD_LETTER) });
    let dead_letters = DeadLetters::new(name.clone(), dead_letter, kept, persistence);
    let outputs = stages.last().map_or(&[][..], Stage::outputs).to_vec();
    let outlets = Outlets::new(outlets, dead_letters, &outputs);
    let (sender, control) = mpsc::channel(CONTROLS);
    let SourceMetrics { account, paused } = metrics.source(&name);
    let place = Place { stage: SOURCE.into(), account, plugin: None };
    let ends = Ends::new(source, place, paused, outlets, control);
    let generations = durable
        .map(|(writer, interval)| Generations::new(name.clone(), writer, interval, metrics.state(&name)));
    (Line::new(metrics.ledger(&name), ends, stages, generations, (name, persistence)), sender)
}
