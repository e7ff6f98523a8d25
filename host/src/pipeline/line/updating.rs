//! How a line takes over another configuration, between two calls.
//!
//! First it comes to rest as far as that is needed: what waits for a stage that goes is worked off, and dead letters
//! that their sink has are written, within a time. Then the state of the stages that have new instances is carried
//! into these; if that fails for one, everything goes on as it was. From then on nothing can fail: plugins that go are
//! told that no message will follow, and stages, sinks and the outputs that they take are changed at one moment, and
//! each message goes on where it waits.

use super::{GraceOver, Line, Reading};
use crate::config::DEAD_LETTER;
use crate::pipeline::dead_letters::{DeadLetterSink, Place};
use crate::pipeline::generations::Generations;
use crate::pipeline::outlets::NextOutlet;
use crate::pipeline::stage::{Broken, Carried, Stage};
use crate::pipeline::update::{
    DeadLetterUpdate, NotRenewed, RenewedStage, SinkUpdate, StageParts, StageUpdate, Update, Updated,
};
use crate::plugin::Instance;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// What is known of the state of the stages that have new instances, by their labels.
type CarriedStates = BTreeMap<Arc<str>, Carried>;

impl Line {
    /// Takes over another configuration, or goes on as it was.
    pub(super) async fn update(&mut self, update: Update) -> Result<(), GraceOver> {
        if update.verdict.is_closed() {
            return Ok(());
        }
        let (departing, departure) = oneshot::channel();
        let until = Instant::now() + update.patience;
        let going = self.going(&update.stages);
        let gone = going.iter().filter(|(_, stays)| !stays).map(|(number, _)| *number).collect();
        let awaits_letters = matches!(update.dead_letter, DeadLetterUpdate::Exchanged(_));
        self.come_to_rest(going, awaits_letters, until).await?;
        if self.ends.stop().is_some() {
            // What comes first is done first. Whoever waits for the verdict is told that there is none.
            return Ok(());
        }
        let Update { mut stages, sinks, dead_letter, patience, metrics, verdict } = update;
        let started = Instant::now();
        let carried = match self.carry(&mut stages).await? {
            Ok(carried) => carried,
            Err(error) => {
                let (outcome, pause) = (Err(error), started.elapsed());
                let retired = stages.into_iter().flat_map(StageUpdate::into_instances).collect();
                let ended_probations = Vec::new();
                let _ = verdict.send(Updated { outcome, ended_probations, pause, retired, departure });
                return Ok(());
            }
        };
        self.finish_gone(gone, until).await?;
        let mut retired = Vec::new();
        let mut ended_probations = Vec::new();
        let (renewed, given_up) =
            self.exchange_stages(stages, carried, &metrics, &mut retired, &mut ended_probations);
        let sinks = sinks.into_iter().map(|SinkUpdate { name, takes, end }| {
            let account = metrics.sink(&self.name, &name).account;
            NextOutlet { place: Place { stage: name, account, plugin: None }, takes, end }
        });
        let sinks = sinks.collect();
        let outputs = self.stages.last().map_or(&[][..], Stage::outputs);
        self.ends.outlets.update(sinks, outputs, patience, departing);
        self.ends.outlets.told_of(given_up);
        if let DeadLetterUpdate::Exchanged(next) = dead_letter {
            let next = next
                .map(|sink| DeadLetterSink { sink: *sink, metrics: metrics.sink(&self.name, DEAD_LETTER) });
            self.ends.outlets.exchange_dead_letters(next, patience);
        }
        self.is_clear = false;
        self.generations.iter_mut().for_each(Generations::want);
        // Whoever asked may have given up just now; it stands all the same.
        let (outcome, pause) = (Ok(renewed), started.elapsed());
        let _ = verdict.send(Updated { outcome, ended_probations, pause, retired, departure });
        Ok(())
    }

    /// The stages that have to be worked off first, each with whether it stays: those that go, or all where those that
    /// stay come in another order.
    fn going(&self, updates: &[StageUpdate]) -> Vec<(usize, bool)> {
        let stays = |stage: &Stage| updates.iter().any(|each| each.name() == &**stage.name());
        let kept: Vec<&str> =
            self.stages.iter().filter(|stage| stays(stage)).map(|stage| &**stage.name()).collect();
        let is_known = |each: &&StageUpdate| kept.contains(&each.name());
        let is_reordered = !updates.iter().filter(is_known).map(StageUpdate::name).eq(kept.iter().copied());
        let going = self.stages.iter().enumerate().filter(|(_, stage)| is_reordered || !stays(stage));
        going.map(|(number, stage)| (number, stays(stage))).collect()
    }

    /// Works off what waits for these stages; has the sink of dead letters write what it has if it goes; and waits for
    /// a generation that is on its way to the disk.
    async fn come_to_rest(
        &mut self,
        going: Vec<(usize, bool)>,
        awaits_letters: bool,
        until: Instant,
    ) -> Result<(), GraceOver> {
        loop {
            let is_busy = |line: &Self| going.iter().any(|(number, _)| line.stages[*number].has_work());
            while is_busy(self) && Instant::now() < until && self.call_next(Reading::On).await? {}
            let Self { ends, stages, timer, is_clear, generations, .. } = self;
            let pause = stages.iter().rposition(Stage::is_next).and_then(|next| stages[next].held_until());
            let is_over = ends.until(|ends, cx| {
                *is_clear = ends.outlets.poll_drive(cx).is_ready();
                ends.poll_held(cx);
                ends.poll_control(cx);
                let is_written = match generations.as_mut() {
                    // One that is not written is in the next.
                    Some(generations) => generations.poll_written(cx, stages).is_ready(),
                    None => true,
                };
                let is_settled = |(number, stays): &(usize, bool)| {
                    let stage = &stages[*number];
                    // Dead letters of a stage that goes are still its own.
                    !stage.has_work() && (*stays || stage.account().counts().in_flight == 0)
                };
                let are_written = !awaits_letters || ends.outlets.dead_letters.is_sink_idle();
                if ends.stop().is_some() || is_written && are_written && going.iter().all(is_settled) {
                    return Poll::Ready(true);
                }
                if timer.poll(cx, Some(pause.map_or(until, |pause| pause.min(until)))).is_ready() {
                    return Poll::Ready(Instant::now() >= until);
                }
                let can_work =
                    *is_clear && pause.is_none() && going.iter().any(|(n, _)| stages[*n].is_next());
                if can_work { Poll::Ready(false) } else { Poll::Pending }
            });
            if is_over.await? {
                return Ok(());
            }
        }
    }

    /// Tells the plugins of the stages that go that no message will follow; what they give goes the way of all they gave.
    /// No other stage is called: the state of some of them is carried already.
    async fn finish_gone(&mut self, gone: Vec<usize>, until: Instant) -> Result<(), GraceOver> {
        for number in gone {
            // What others that go have given at their end.
            while self.stages[number].is_next() && !self.stages[number].is_held() && Instant::now() < until {
                self.ends.during(self.stages[number].work(&mut self.given)).await?;
                self.hand_over(number);
            }
            let finished =
                self.ends.during(self.stages[number].finish(self.time_us, &mut self.given)).await?;
            self.hand_over(number);
            if let Err(Broken(error)) = finished {
                tracing::error!(pipeline = %self.name, error, "a transform that goes lost what it had gathered");
            }
        }
        Ok(())
    }

    /// Carries the state of each stage that has new instances into these; or says why one does not give it or take
    /// it.
    async fn carry(
        &mut self,
        updates: &mut [StageUpdate],
    ) -> Result<Result<CarriedStates, NotRenewed>, GraceOver> {
        let mut carried = CarriedStates::new();
        for update in updates {
            let StageUpdate::Renewed { parts: (transform, setup, instances), shares_out } = update else {
                continue;
            };
            let Some(stage) = self.stages.iter_mut().find(|stage| *stage.name() == setup.transform) else {
                continue;
            };
            let name = setup.transform.clone();
            if stage.holds_results_back() && !stage.is_shared_like(transform) {
                let why = "what its instances have done waits for a message that one of them has put off, or fails on again \
                           and again: try again";
                return Ok(Err(NotRenewed { transform: name, why: why.to_owned() }));
            }
            let next = std::mem::take(instances);
            let (next, result) = self.ends.during(stage.carry_into(setup, next, *shares_out)).await?;
            *instances = next;
            match result {
                Ok(state) => drop(carried.insert(name, state)),
                Err(fault) => return Ok(Err(NotRenewed { transform: name, why: fault.to_string() })),
            }
        }
        Ok(Ok(carried))
    }

    /// Puts the stages of the update into the place of those that are there. Says how the state of each fared that
    /// has new instances, and what those that go had to give up; adds the stages whose probation ends by it.
    fn exchange_stages(
        &mut self,
        updates: Vec<StageUpdate>,
        mut carried: CarriedStates,
        metrics: &Arc<crate::telemetry::Metrics>,
        retired: &mut Vec<Instance>,
        ended_probations: &mut Vec<Arc<str>>,
    ) -> (Vec<RenewedStage>, Vec<(Arc<str>, u64)>) {
        let mut before = std::mem::take(&mut self.stages);
        let numbers: BTreeMap<Arc<str>, usize> =
            before.iter().enumerate().map(|(number, stage)| (stage.name().clone(), number)).collect();
        let mut take = |name: &Arc<str>| {
            let index = before.iter().position(|stage| stage.name() == name)?;
            Some(before.remove(index))
        };
        let mut renewed = Vec::new();
        let new = |(transform, setup, instances): StageParts| {
            Stage::new(&transform, setup, instances, self.persistence, metrics)
        };
        for update in updates {
            let stage = match update {
                StageUpdate::Kept(name) => take(&name),
                StageUpdate::Adjusted(transform) => take(&transform.name.as_str().into()).map(|mut stage| {
                    stage.adjust(&transform);
                    stage
                }),
                StageUpdate::Added(parts) => Some(new(parts)),
                StageUpdate::Renewed { parts: (transform, setup, mut instances), .. } => {
                    let name = setup.transform.clone();
                    if let Some(Carried { state, refusal, snapshots }) = carried.remove(&name) {
                        setup.state.keep_all(snapshots);
                        renewed.push(RenewedStage { transform: name.clone(), state, refusal });
                    }
                    // Those that were tried before are in front.
                    let tried = instances.len() - setup.part.of as usize;
                    retired.extend(instances.drain(..tried));
                    let old = take(&name);
                    if let Some(old) = &old {
                        ended_probations.extend(old.is_on_probation().then(|| name.clone()));
                        if !old.is_of(&transform.plugin) {
                            metrics.forget_transform(&self.name, &name);
                        } else if old.instances() != instances.len() {
                            metrics.forget_instances(&self.name, &name);
                        }
                    }
                    let mut stage = new((transform, setup, instances));
                    if let Some(mut old) = old {
                        stage.take_over(&mut old);
                        retired.extend(old.into_instances());
                    }
                    Some(stage)
                }
            };
            self.stages.extend(stage);
        }
        for (number, stage) in self.stages.iter_mut().enumerate() {
            if numbers.get(stage.name()) != Some(&number) && stage.moved() {
                ended_probations.push(stage.name().clone());
            }
        }
        let mut given_up = Vec::new();
        for mut stage in before {
            let lost = stage.give_up();
            if lost > 0 {
                given_up.push((stage.name().clone(), lost));
            } else {
                stage.account().retire();
            }
            retired.extend(stage.into_instances());
        }
        (renewed, given_up)
    }
}

impl StageUpdate {
    /// The label of the stage.
    fn name(&self) -> &str {
        match self {
            Self::Kept(name) => name,
            Self::Adjusted(transform) => &transform.name,
            Self::Renewed { parts: (transform, ..), .. } | Self::Added((transform, ..)) => &transform.name,
        }
    }

    /// The instances that it brings.
    pub fn instances(&self) -> &[Instance] {
        match self {
            Self::Kept(_) | Self::Adjusted(_) => &[],
            Self::Renewed { parts: (_, _, instances), .. } | Self::Added((_, _, instances)) => instances,
        }
    }

    /// The instances that it has brought, to be dropped elsewhere.
    pub fn into_instances(self) -> Vec<Instance> {
        match self {
            Self::Kept(_) | Self::Adjusted(_) => Vec::new(),
            Self::Renewed { parts: (_, _, instances), .. } | Self::Added((_, _, instances)) => instances,
        }
    }
}
