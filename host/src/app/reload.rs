//! The configuration read again while the host runs: what has changed in it takes over, or nothing does.
//!
//! One reload goes on at a time; others wait. It reads the file, compares it with what runs (`plan.rs`), waits for the
//! plugins it needs, and prepares everything that can be refused (`prepare.rs`): instances with their new
//! configuration, agreements, addresses, new ends. Only then do pipelines take over (`takeover.rs`). While it goes on
//! no other version of a plugin that it is about is swapped in: one of the two comes first.

mod order;
mod plan;
mod prepare;
mod read_again;
mod takeover;

pub(super) use order::{ReloadEvent, Reloads};
pub(super) use plan::{Plan, PlannedPipeline};
pub(super) use prepare::{PipelinePreparation, PreparedReload, PreparedStart, Way};
pub(super) use read_again::ReadAgain;

use super::job::ReloadJob;
use super::task::Task;
use crate::config::{Part, PipelinePart};
use crate::control::{ControlError, ReloadClass, ReloadCommand, ReloadInput, ReloadReport};
use crate::websocket::PendingReconfiguration;
use prepare::Preparation;
use read_again::ReadOrder;
use std::collections::BTreeSet;
use std::time::Duration;
use takeover::Takeover;
use tokio::time::Instant;

/// So long a reload waits for a plugin whose file is in the folder and that nobody has looked at yet: the folder is
/// looked at more often.
const UNSEEN_PATIENCE: Duration = Duration::from_secs(4);

/// A reload that goes on.
pub(super) struct Reload {
    order: ReloadCommand,
    step: ReloadStep,
}

/// How far a reload has come.
enum ReloadStep {
    /// The file is read.
    Reading,
    /// It waits for plugins that are being compiled or swapped, and for the first start of all pipelines.
    Gathering { plan: Box<Plan>, since: Instant },
    /// What can be refused is prepared.
    Preparing { plan: Box<Plan>, agreed: PendingReconfiguration, held: Vec<String> },
    /// Pipelines take over.
    TakingOver(Box<Takeover>),
}

impl Task {
    /// A reload was asked for: it begins when those before it are done.
    pub(super) fn order_reload(&mut self, order: ReloadCommand) {
        if let Err(refused) = self.reloads.add(order) {
            tracing::warn!("configuration not reloaded: other reloads wait already");
            answer(refused, Err(ControlError::Reloading));
        }
    }

    /// Something of a reload has happened.
    pub(super) fn reload_happened(&mut self, event: ReloadEvent) {
        match event {
            ReloadEvent::Rung => {
                self.order_reload(ReloadCommand { input: ReloadInput::File, dry_run: false, answer: None });
            }
            ReloadEvent::Done(ReloadJob::Read(read)) => {
                let Some(Reload { order, step: ReloadStep::Reading }) = self.reloads.current.take() else {
                    return;
                };
                let plan = (*read).and_then(|reread| self.pipelines.plan(reread));
                match plan {
                    Ok(plan) => {
                        let step = ReloadStep::Gathering { plan: Box::new(plan), since: Instant::now() };
                        self.reloads.current = Some(Reload { order, step });
                    }
                    Err(error) => self.refuse(order, error),
                }
            }
            ReloadEvent::Done(ReloadJob::Prepared(prepared)) => {
                let step = self.reloads.current.take();
                let Some(Reload { order, step: ReloadStep::Preparing { plan, agreed, held } }) = step else {
                    return;
                };
                match *prepared {
                    Err(findings) => {
                        drop(agreed);
                        let added = plan.changing().filter(|planned| planned.class == ReloadClass::Added);
                        added.for_each(|planned| self.metrics.forget(&planned.name));
                        let error = plan.refusal(findings);
                        self.give_back(&held);
                        self.refuse(order, error);
                    }
                    Ok(_) if order.dry_run => {
                        drop(agreed);
                        self.give_back(&held);
                        let report = ReloadReport { dry_run: true, ..plan.into_report() };
                        answer(order, Ok(report));
                    }
                    Ok(prepared) => {
                        agreed.keep();
                        let takeover = self.take_over(*plan, prepared, held);
                        let step = ReloadStep::TakingOver(Box::new(takeover));
                        self.reloads.current = Some(Reload { order, step });
                    }
                }
            }
            ReloadEvent::Done(ReloadJob::Updated { pipeline, result }) => {
                self.with_takeover(|task, takeover| task.updated(takeover, &pipeline, result));
            }
            ReloadEvent::Done(ReloadJob::Departed { pipeline, departure }) => {
                self.with_takeover(|task, takeover| task.departed(takeover, &pipeline, departure));
            }
        }
    }

    fn with_takeover(&mut self, act: impl FnOnce(&mut Self, &mut Takeover)) {
        if let Some(Reload { order, step: ReloadStep::TakingOver(mut takeover) }) =
            self.reloads.current.take()
        {
            act(self, &mut takeover);
            self.reloads.current = Some(Reload { order, step: ReloadStep::TakingOver(takeover) });
        }
    }

    /// Takes a reload as far as it can go now. Answers with the moment at which to ask again, if nothing happens
    /// before.
    pub(super) fn advance_reload(&mut self) -> Option<Instant> {
        loop {
            match self.reloads.current.take() {
                None => {
                    let order = self.reloads.waiting.pop_front()?;
                    let step = self.begin(&order);
                    self.reloads.current = Some(Reload { order, step });
                }
                Some(Reload { order, step: ReloadStep::Gathering { plan, since } }) => {
                    match self.gather(order, plan, since) {
                        Some(again) => return again,
                        None => continue,
                    }
                }
                Some(Reload { order, step: ReloadStep::TakingOver(mut takeover) }) => {
                    if !self.advance_takeover(&mut takeover) {
                        self.reloads.current = Some(Reload { order, step: ReloadStep::TakingOver(takeover) });
                        return None;
                    }
                    let Takeover { report, held, .. } = *takeover;
                    self.give_back(&held);
                    log(&report);
                    answer(order, Ok(report));
                }
                waiting => {
                    self.reloads.current = waiting;
                    return None;
                }
            }
        }
    }

    /// Reads the configuration.
    fn begin(&mut self, order: &ReloadCommand) -> ReloadStep {
        let (input, file) = (order.input.clone(), self.reloads.file.clone());
        let (in_force, plugin_dir) =
            (self.reloads.in_force.clone(), self.plugins.folder.path().to_path_buf());
        self.reloads.jobs.spawn_blocking(move || {
            let order = ReadOrder { input, file, in_force, plugin_dir };
            let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| order.read()));
            let panicked =
                || ControlError::Hung("reading it met a fault of the host; the log has the panic".to_owned());
            ReloadJob::Read(Box::new(read.unwrap_or_else(|_| Err(panicked()))))
        });
        ReloadStep::Reading
    }

    /// Begins to prepare once the plugins are there that are to come. Gives `None` where there is more to do now, and
    /// else the moment at which to ask again, if there is one.
    fn gather(&mut self, order: ReloadCommand, plan: Box<Plan>, since: Instant) -> Option<Option<Instant>> {
        let wait = |this: &mut Self, order, plan, again| {
            let step = ReloadStep::Gathering { plan, since };
            this.reloads.current = Some(Reload { order, step });
            Some(again)
        };
        if !self.pipelines.has_booted() {
            return wait(self, order, plan, None);
        }
        let plugins = plan.plugins();
        // Where nothing is changed, nothing has to be waited for.
        if !order.dry_run {
            plugins.iter().for_each(|plugin| self.plugins.intake.end_shadow(plugin));
            if plugins.iter().any(|plugin| self.plugins.intake.is_swapping(plugin)) {
                return wait(self, order, plan, None);
            }
        }
        let needed: BTreeSet<String> = plan.needed();
        let missing = needed.into_iter().filter(|plugin| self.plugins.registry.get(plugin).is_none());
        let (coming, absent): (Vec<_>, Vec<_>) =
            missing.collect::<Vec<_>>().into_iter().partition(|plugin| self.plugins.fall_back(plugin));
        if !coming.is_empty() {
            return wait(self, order, plan, None);
        }
        let is_unseen = |plugin: &String| {
            plan.in_folder.contains(plugin) && self.plugins.intake.why_refused(plugin).is_none()
        };
        let until = since + UNSEEN_PATIENCE;
        if absent.iter().any(is_unseen) && Instant::now() < until {
            return wait(self, order, plan, Some(until));
        }
        let findings = self.missing_where_it_runs(&plan, &absent);
        if !findings.is_empty() {
            let error = plan.refusal(findings);
            self.refuse(order, error);
            return None;
        }
        match self.ends.reconfigure(&plan.gone(), &plan.nexts()) {
            Ok(agreed) => {
                let held = if order.dry_run { Vec::new() } else { self.hold(plugins) };
                self.prepare(&order, &plan, &agreed);
                let step = ReloadStep::Preparing { plan, agreed, held };
                self.reloads.current = Some(Reload { order, step });
            }
            Err((pipeline, error)) => {
                let part = Part::OfPipeline(pipeline, PipelinePart::Whole);
                let error = plan.refusal(vec![super::CheckFinding::error(part, error)]);
                self.refuse(order, error);
            }
        }
        None
    }

    /// What is said of plugins that are not there, where a pipeline runs that cannot go on without them.
    fn missing_where_it_runs(&self, plan: &Plan, absent: &[String]) -> Vec<super::CheckFinding> {
        let mut findings = Vec::new();
        for planned in plan.changing().filter(|planned| !self.pipelines.does_nothing(&planned.name)) {
            let Some(next) = &planned.next else { continue };
            let transforms = (0..next.transforms.len()).map(PipelinePart::Plugin);
            let parts = transforms.chain((0..).map(PipelinePart::Connector));
            for (plugin, part) in next.plugins().zip(parts) {
                if !absent.iter().any(|absent| absent == plugin.expose()) {
                    continue;
                }
                let why = match self.plugins.intake.why_refused(plugin.expose()) {
                    Some(why) => format!("plugin {plugin} cannot run: {why}"),
                    None => format!("there is no {}/{plugin}.wasm", self.plugins.folder.path()),
                };
                let message = format!("pipeline {}: {why}; as it runs, it goes on", planned.name);
                findings
                    .push(super::CheckFinding::error(Part::OfPipeline(planned.name.clone(), part), message));
            }
        }
        findings
    }

    /// No other version of these plugins is swapped in until they are given back.
    fn hold(&mut self, plugins: BTreeSet<String>) -> Vec<String> {
        let current = plugins.into_iter().filter_map(|name| self.plugins.registry.get(&name));
        let current: Vec<_> = current.collect();
        for plugin in &current {
            // It is not skipped for newer content, which waits.
            drop(self.plugins.intake.begin_swap(plugin.name(), plugin.version(), None, false));
        }
        current.into_iter().map(|plugin| plugin.name().to_string()).collect()
    }

    /// Other versions that have come meanwhile have their turn.
    fn give_back(&mut self, held: &[String]) {
        for plugin in held {
            self.end_hold(plugin);
        }
    }

    /// Begins to prepare everything that can be refused.
    fn prepare(&mut self, order: &ReloadCommand, plan: &Plan, agreed: &PendingReconfiguration) {
        let mut pipelines = Vec::new();
        for planned in plan.changing() {
            let Some(next) = planned.next.clone() else { continue };
            let clashes = agreed.clashing.iter().any(|(pipeline, _)| *pipeline == planned.name);
            let way = match planned.class {
                ReloadClass::Updated if self.pipelines.is_up(&planned.name) => Way::Update,
                ReloadClass::Added if !clashes => Way::Start,
                _ => Way::Late,
            };
            pipelines.push(self.pipelines.preparation(&self.plugins, next, planned, way, clashes));
        }
        let preparation = Preparation {
            pipelines,
            others: self.pipelines.left_alone(plan),
            staying: self.pipelines.unchanged(plan),
            going: self.pipelines.going(plan),
            dry_run: order.dry_run,
            ends: self.ends.clone(),
            store: self.pipelines.store(),
            metrics: self.metrics.clone(),
        };
        self.reloads.jobs.spawn(async move { ReloadJob::Prepared(Box::new(preparation.run().await)) });
    }

    fn refuse(&mut self, order: ReloadCommand, error: ControlError) {
        // Who has sent something else is told by the answer.
        if matches!(order.input, ReloadInput::File) && !order.dry_run {
            tracing::error!(error = error.to_string(), "configuration not reloaded: nothing was changed");
        }
        answer(order, Err(error));
    }
}

fn answer(order: ReloadCommand, result: Result<ReloadReport, ControlError>) {
    if let Some(answer) = order.answer
        && answer.send(result).is_err()
    {
        tracing::debug!("who asked for a reload did not wait for it");
    }
}

/// Tells the log what a reload has done.
fn log(report: &ReloadReport) {
    for each in report.pipelines.iter().filter(|each| each.class != ReloadClass::Unchanged) {
        let (pipeline, class) = (&each.pipeline, each.class.as_str());
        let reasons = each.reasons.join("; ");
        match &each.error {
            None => tracing::info!(pipeline, class, reasons, "pipeline reloaded"),
            Some(error) => {
                tracing::error!(
                    pipeline,
                    class,
                    reasons,
                    error,
                    "pipeline not reloaded: it goes on as it was"
                );
            }
        }
        for warning in &each.warnings {
            tracing::warn!(pipeline, warning, "pipeline reloaded");
        }
    }
    for table in &report.restart_required {
        tracing::warn!(table, "what has changed here counts from the next start of the host on");
    }
    let changed = report.pipelines.iter().filter(|each| each.class != ReloadClass::Unchanged).count();
    tracing::info!(pipelines = report.pipelines.len(), changed, "configuration reloaded");
}
