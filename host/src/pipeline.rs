//! A pipeline: one source, the transforms its messages go through, the sinks they reach.
//!
//! Built from parts that are ready to run, it owns them in one task ([`Line`]) until it ends. It
//! knows sources, sinks and plugins by their common faces only; who makes them is no matter here.

mod dead_letters;
mod line;
mod merge;
mod outlets;
mod stage;

pub use line::{Control, Ended, Ending, Line, Swap, Swapped};
pub use stage::CarriedState;

use crate::config::{self, DEAD_LETTER, SOURCE};
use crate::plugin::{Instance, Setup};
use crate::sink::Sink;
use crate::source::Source;
use crate::telemetry::Metrics;
use dead_letters::{DeadLetterSink, DeadLetters, Place};
use outlets::{Outlet, Outlets};
use stage::Stage;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Swaps and stops that may wait for a pipeline.
const CONTROLS: usize = 4;

/// The parts of a pipeline, each ready to run.
#[derive(Debug)]
pub struct Parts {
    /// Its name.
    pub name: Arc<str>,
    /// Where messages come from.
    pub source: Source,
    /// For each transform its configuration, and an instance made with the setup.
    pub transforms: Vec<(config::Transform, Setup, Instance)>,
    /// For each sink its name, the outputs it takes, and its end.
    pub sinks: Vec<(Arc<str>, config::Outputs, Sink)>,
    /// Where messages go that failed.
    pub dead_letter: Option<Sink>,
}

/// A pipeline that is ready to run, and the channel it listens to.
pub fn build(parts: Parts, metrics: &Metrics) -> (Line, mpsc::Sender<Control>) {
    let Parts { name, source, transforms, sinks, dead_letter } = parts;
    let place = |stage: Arc<str>| Place { losses: metrics.losses(&name, &stage), stage, plugin: None };
    let stages: Vec<Stage> = transforms
        .into_iter()
        .map(|(transform, setup, instance)| {
            let counters = metrics.stage(&name, &transform.name, transform.plugin.shown());
            Stage::new(&transform, setup, instance, counters)
        })
        .collect();
    let outlets = sinks
        .into_iter()
        .map(|(sink_name, takes, sink)| {
            let metrics = metrics.sink(&name, &sink_name);
            Outlet { sink, takes, place: place(sink_name), metrics }
        })
        .collect();
    let dead_letter =
        dead_letter.map(|sink| DeadLetterSink { sink, metrics: metrics.sink(&name, DEAD_LETTER) });
    let dead_letters = DeadLetters::new(name.clone(), dead_letter);
    let outputs = stages.last().map_or(&[][..], Stage::outputs).to_vec();
    let outlets = Outlets::new(outlets, dead_letters, &outputs);
    let (sender, control) = mpsc::channel(CONTROLS);
    let source_metrics = metrics.source(&name);
    let source_place = place(SOURCE.into());
    (Line::new(name, source, source_place, source_metrics, stages, outlets, control), sender)
}
