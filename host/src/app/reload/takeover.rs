//! A reload that takes over: nothing of it can be refused any more. What fails for one pipeline is told, and that one
//! goes on as it was.
//!
//! New pipelines begin at once, those that change in place are told, those that are gone or are replaced stop. What
//! needs something that these have starts once all of them have ended.

use super::prepare::{PreparedPipeline, PreparedReload, PreparedUpdate};
use super::{Plan, PlannedPipeline};
use crate::app::attempt::SwapAttempt;
use crate::app::decision::Decision;
use crate::app::instances::retire;
use crate::app::job::ReloadJob;
use crate::app::task::Task;
use crate::config;
use crate::control::{ReloadClass, ReloadReport, ReloadedPipeline};
use crate::pipeline::{Control, Departure, NotRenewed, Update, Updated};
use crate::verdict::{AskedBy, CarriedState, SwapOutcome, UsePlace, UseVerdict};
use crate::websocket::Registration;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long stages and sinks that go may take to be through with what they have.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long peers may take to leave a sink that has gone, and between two looks.
const LAST_PEERS: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);

/// A reload that takes over.
pub(super) struct Takeover {
    pub(super) report: ReloadReport,
    /// Plugins of which no other version is swapped in meanwhile.
    pub(super) held: Vec<String>,
    /// Pipelines that change in place, with what they are then.
    updating: BTreeMap<String, Updating>,
    /// Pipelines whose old sinks have not gone yet.
    departing: usize,
    /// Pipelines that are removed.
    removed: Vec<String>,
    /// Pipelines that start once those that go have ended.
    late: Vec<LatePipeline>,
    /// Likewise, and they have been started.
    started: Vec<LatePipeline>,
}

/// A pipeline that was told to change in place.
struct Updating {
    next: Arc<config::Pipeline>,
    before: Arc<config::Pipeline>,
    prepared: crate::app::pipelines::Reconfiguration,
}

/// A pipeline that starts late.
struct LatePipeline {
    next: Arc<config::Pipeline>,
    before: Option<Arc<config::Pipeline>>,
    /// The peers of paths that it has before and after.
    peers: Vec<Registration>,
    /// It is configured so, and is not to run.
    stays_down: bool,
}

impl Task {
    /// Begins to take over.
    pub(super) fn take_over(&mut self, plan: Plan, prepared: PreparedReload, held: Vec<String>) -> Takeover {
        let mut prepared: BTreeMap<Arc<str>, PreparedPipeline> = prepared.into_iter().collect();
        let planned: Vec<PlannedPipeline> = plan.changing().cloned().collect();
        let mut takeover = Takeover {
            report: plan.into_report(),
            held,
            updating: BTreeMap::new(),
            departing: 0,
            removed: Vec::new(),
            late: Vec::new(),
            started: Vec::new(),
        };
        // Peers of a path that stays are kept before anybody leaves it.
        let mut kept = BTreeMap::new();
        for each in &planned {
            if let (Some(PreparedPipeline::Late(_)), Some(next)) = (prepared.get(&*each.name), &each.next) {
                kept.insert(each.name.clone(), self.ends.hold_peers(next));
            }
        }
        for PlannedPipeline { name, next, before, .. } in planned {
            match (prepared.remove(&*name), next, before) {
                (None, None, _) => {
                    self.pipelines.remove_for_good(&name);
                    takeover.removed.push(name);
                }
                (Some(PreparedPipeline::Start(start)), Some(next), _) => {
                    let begun = self.pipelines.add_opened(&mut self.plugins, &next, *start);
                    if !begun {
                        takeover.tell(&name, |told| {
                            told.error = Some("another pipeline took its name".to_owned());
                        });
                    }
                }
                (Some(PreparedPipeline::Update(update)), Some(next), Some(before)) => {
                    self.change_in_place(&mut takeover, next, before, *update);
                }
                (Some(PreparedPipeline::Late(reason)), Some(next), before) => {
                    if let Some(reason) = reason {
                        takeover.tell(&name, |told| {
                            told.class = ReloadClass::Replaced;
                            told.reasons.push(reason);
                        });
                    }
                    let peers = kept.remove(&name).unwrap_or_default();
                    let stays_down = self.pipelines.stays_down(&name, takeover.class(&name));
                    if before.is_some() && !stays_down {
                        self.pipelines.stop_for(&next);
                    }
                    takeover.late.push(LatePipeline { next, before, peers, stays_down });
                }
                _ => {}
            }
        }
        takeover
    }

    /// Tells a pipeline that runs what it is from now on.
    fn change_in_place(
        &mut self,
        takeover: &mut Takeover,
        next: Arc<config::Pipeline>,
        before: Arc<config::Pipeline>,
        update: PreparedUpdate,
    ) {
        let PreparedUpdate { stages, sinks, dead_letter, kept, connectors } = update;
        let name = next.name.clone();
        let reconfiguration = self.pipelines.reconfiguration(&name, &stages, kept, connectors);
        let Some((control, prepared)) = reconfiguration else {
            // It has ended since, or was removed.
            let stays_down = true;
            takeover.late.push(LatePipeline { next, before: Some(before), peers: Vec::new(), stays_down });
            return;
        };
        let (verdict, answer) = oneshot::channel();
        let (patience, metrics) = (PATIENCE, self.metrics.clone());
        let update = Update { stages, sinks, dead_letter, patience, metrics, verdict };
        takeover.updating.insert(name.clone(), Updating { next, before, prepared });
        self.reloads.jobs.spawn(async move {
            let result = match control.send(Control::Update(Box::new(update))).await {
                Ok(()) => answer.await.ok(),
                Err(_) => None,
            };
            let result = match result {
                Some(mut updated) => {
                    retire(std::mem::take(&mut updated.retired)).await;
                    Some(updated)
                }
                None => None,
            };
            ReloadJob::Updated { pipeline: name, result }
        });
    }

    /// A pipeline has changed in place, or has not.
    pub(super) fn updated(&mut self, takeover: &mut Takeover, pipeline: &str, result: Option<Updated>) {
        let Some(Updating { next, before, prepared }) = takeover.updating.remove(pipeline) else { return };
        let Some(Updated { outcome, ended_probations, pause, departure, .. }) = result else {
            // It ends, and goes on as it is configured then.
            self.pipelines.configure(&self.plugins.registry, &next);
            return;
        };
        let pause_us = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
        match outcome {
            Ok(renewed) => {
                tracing::info!(pipeline, pause_us, "pipeline changed in place");
                self.pipelines.reconfigured(&next, prepared);
                let uses = renewed.iter().map(|stage| (&stage.transform, Ok(stage.state)));
                self.record(&next, uses.collect(), Some(pause_us));
                let mut warnings = Vec::new();
                for stage in renewed {
                    let lost = match (&stage.refusal, stage.state) {
                        (Some(fault), _) => {
                            format!(
                                "does not share out the state of another number of instances, and starts without: {fault}"
                            )
                        }
                        (None, CarriedState::Older) => "goes on with its last good snapshot".to_owned(),
                        (None, CarriedState::Fresh) => {
                            "starts without its state, which could not be had".to_owned()
                        }
                        (None, CarriedState::Carried | CarriedState::None) => continue,
                    };
                    warnings.push(format!("transform {}: its plugin {lost}", stage.transform));
                }
                for transform in ended_probations {
                    let over = "the version before is not put back any more if its plugin faults";
                    warnings.push(format!("transform {transform}: this change ends its probation; {over}"));
                }
                self.pipelines.warn(pipeline, warnings.clone());
                takeover.tell(pipeline, |told| told.warnings.extend(warnings));
            }
            Err(NotRenewed { transform, why }) => {
                self.ends.note_again(&before);
                self.record(&next, vec![(&transform, Err(why.clone()))], None);
                takeover.tell(pipeline, |told| told.error = Some(format!("transform {transform}: {why}")));
                return;
            }
        }
        takeover.departing += 1;
        let gone: Vec<String> = before.sinks.iter().map(|sink| sink.name.clone()).collect();
        let gone: Vec<String> =
            gone.into_iter().filter(|name| next.sinks.iter().all(|sink| sink.name != *name)).collect();
        let (name, connections) = (pipeline.to_owned(), self.ends.connections().clone());
        self.reloads.jobs.spawn(async move {
            // A pipeline that ends meanwhile has told what it gave up.
            let departure = departure.await.unwrap_or_default();
            let left = async {
                while gone.iter().any(|sink| connections.has(&name, sink)) {
                    tokio::time::sleep(LOOK).await;
                }
            };
            let _ = tokio::time::timeout(LAST_PEERS, left).await;
            ReloadJob::Departed { pipeline: name, departure }
        });
    }

    /// Notes what became of the plugins of stages that were to have new instances, as of any other swap.
    fn record(
        &mut self,
        next: &config::Pipeline,
        stages: Vec<(&Arc<str>, Result<CarriedState, String>)>,
        swap_us: Option<u64>,
    ) {
        let mut plugins: BTreeMap<&str, Vec<UseVerdict>> = BTreeMap::new();
        for (name, result) in stages {
            let Some(transform) = next.transform(name) else { continue };
            let outcome = if result.is_ok() { SwapOutcome::Swapped } else { SwapOutcome::Rejected };
            plugins.entry(transform.plugin.expose()).or_default().push(UseVerdict {
                pipeline: next.name.clone(),
                place: UsePlace::Transform(name.to_string()),
                outcome,
                state: result.as_ref().ok().copied(),
                swap_us,
                error: result.err(),
                shadow: None,
            });
        }
        for (plugin, uses) in plugins {
            // What has changed is its configuration: it is the version that was current before.
            let version = self.plugins.registry.get(plugin).map(|plugin| plugin.version().to_string());
            let error = uses.iter().find_map(|each| each.error.clone());
            let outcome = if error.is_none() { SwapOutcome::Swapped } else { SwapOutcome::Rejected };
            let decision = Decision { outcome, previous: version.clone(), error, folder_error: None, uses };
            self.decided(plugin, version.as_deref(), SwapAttempt::new(AskedBy::Reload), decision);
        }
    }

    /// The sinks of a pipeline have gone that it does not have any more.
    pub(super) fn departed(&mut self, takeover: &mut Takeover, pipeline: &str, departure: Departure) {
        takeover.departing -= 1;
        for (place, messages) in departure.given_up {
            let warning =
                format!("{place} gave up {messages} messages that it could not get through in time");
            tracing::error!(pipeline, place = %place, messages, "messages were given up");
            takeover.tell(pipeline, |told| told.warnings.push(warning));
        }
        self.pipelines.forget_gone(pipeline);
    }

    /// Takes a reload further. Says whether it is done.
    pub(super) fn advance_takeover(&mut self, takeover: &mut Takeover) -> bool {
        for late in &mut takeover.late {
            // Somebody has started it as it was before, and wants it to run.
            if self.pipelines.has_started(&late.next.name) {
                self.pipelines.stop_for(&late.next);
                late.stays_down = false;
            }
        }
        let have_ended = !takeover.removed.iter().any(|name| self.pipelines.is_there(name))
            && takeover.late.iter().all(|late| self.pipelines.does_nothing(&late.next.name));
        // What changes in place may have let go of what others need.
        if !have_ended || !takeover.updating.is_empty() || takeover.departing > 0 {
            return false;
        }
        for late in std::mem::take(&mut takeover.late) {
            self.pipelines.configure(&self.plugins.registry, &late.next);
            if !late.stays_down {
                self.pipelines.begin(&mut self.plugins, &late.next.name);
                takeover.started.push(late);
            }
        }
        let started = std::mem::take(&mut takeover.started);
        for late in started {
            match self.pipelines.has_begun(&late.next.name) {
                None => takeover.started.push(late),
                Some(Ok(())) => {}
                Some(Err(error)) => self.begin_as_before(takeover, late, error),
            }
        }
        takeover.started.is_empty()
    }

    /// A pipeline does not start as it is configured now: it starts as it was before.
    fn begin_as_before(&mut self, takeover: &mut Takeover, late: LatePipeline, error: String) {
        let name = late.next.name.clone();
        takeover.tell(&name, |told| {
            told.error.get_or_insert(error);
        });
        let LatePipeline { before: Some(before), peers, stays_down, .. } = late else { return };
        self.ends.note_again(&before);
        self.pipelines.configure(&self.plugins.registry, &before);
        self.pipelines.begin(&mut self.plugins, &before.name);
        // Its peers are kept until it is there.
        takeover.started.push(LatePipeline { next: before, before: None, peers, stays_down });
    }
}

impl Takeover {
    fn tell(&mut self, pipeline: &str, tell: impl FnOnce(&mut ReloadedPipeline)) {
        if let Some(told) = self.report.pipelines.iter_mut().find(|told| told.pipeline == pipeline) {
            tell(told);
        }
    }

    fn class(&self, pipeline: &str) -> ReloadClass {
        let mut all = self.report.pipelines.iter();
        all.find(|told| told.pipeline == pipeline).map_or(ReloadClass::Unchanged, |told| told.class)
    }
}
