//! The instance of a worker over the faults of its plugin: how it ends, and how the next one starts.

use super::worker::Worker;
use crate::plugin::{Fault, FaultKind, Instance, StatePart};
use std::time::Duration;
use tokio::time::Instant;

impl Worker {
    pub(super) fn install(&mut self, instance: Instance) {
        self.metrics.memory_bytes.set(instance.memory_bytes() as i64);
        self.instance = Some(instance);
    }

    /// The same as [`Worker::start`]; where no instance starts, the messages wait, or there is a fault that the
    /// next of them fails with.
    pub(super) async fn start_if_needed(&mut self) -> Result<(), Option<Fault>> {
        let Err(fault) = self.start().await.map(drop) else { return Ok(()) };
        self.metrics.faulted(fault.kind.as_str(), 1);
        if self.is_condemned_by(&fault) {
            return Err(Some(fault));
        }
        let pause = self.circuit.does_not_start(Instant::now());
        let Some(pause) = pause else { return Err(Some(fault)) };
        self.show_pause(pause, Some(&fault));
        Err(None)
    }

    /// The running instance, or a new one after a fault, with the last good snapshot; if that is refused
    /// now, without.
    pub(super) async fn start(&mut self) -> Result<&mut Instance, Fault> {
        if self.instance.is_none() {
            let mut instance = self.instantiate().await?;
            if let Some(snapshot) = self.last_good.snapshot()
                && let Err(fault) = instance.restore(std::slice::from_ref(snapshot), StatePart::WHOLE).await
            {
                tracing::error!(pipeline = %self.setup.pipeline, plugin = %self.plugin.name(),
                transform = %self.setup.transform, instance = self.setup.instance(), %fault,
                    "the plugin refuses its own snapshot after a fault and starts without state");
                self.metrics.faulted(fault.kind.as_str(), 1);
                self.metrics.state_lost.inc();
                self.last_good.forget();
                self.is_unsaved = true;
                self.keep();
                instance = self.instantiate().await?;
            }
            self.install(instance);
            if let Some(beside) = &mut self.beside {
                beside.begin_anew(self.last_good.snapshot().cloned());
            }
        }
        Ok(self.instance.as_mut().expect("it was just installed"))
    }

    /// A new instance of the version that runs. The sinks were told its outputs: it must have the same.
    async fn instantiate(&mut self) -> Result<Instance, Fault> {
        let instance = self.plugin.instantiate(&self.setup).await?;
        if instance.description().outputs != self.outputs {
            let detail = "init described other outputs than it did before, with the same configuration";
            return Err(Fault::new(FaultKind::Init, detail));
        }
        Ok(instance)
    }

    /// Throws the instance away.
    pub(super) fn faulted(&mut self, fault: &Fault) {
        self.metrics.faulted(fault.kind.as_str(), 1);
        // What was lost by faults that were not told is told with the next that is.
        self.untold_loss_ms = self.untold_loss_ms.max(self.give_instance_up());
        if let Some(held_back) = self.log.allow() {
            let lost_state_ms = self.untold_loss_ms.take();
            tracing::warn!(pipeline = %self.setup.pipeline, plugin = %self.plugin.name(),
                transform = %self.setup.transform, instance = self.setup.instance(), %fault,
                lost_state_ms, held_back, "plugin fault");
        }
    }

    /// The next instance starts with the last good snapshot. Says how old that is, if there was state
    /// since, which is lost.
    pub(super) fn give_instance_up(&mut self) -> Option<u64> {
        self.instance = None;
        if !self.last_good.lost() {
            return None;
        }
        self.metrics.state_lost.inc();
        Some(u64::try_from(self.last_good.age().as_millis()).unwrap_or(u64::MAX))
    }

    /// Counts a fault of a version in its probation. Says whether there were too many, so that the version before is
    /// put back.
    pub(super) fn is_condemned_by(&self, fault: &Fault) -> bool {
        self.probation.as_ref().is_some_and(|faults| faults.count(fault))
    }

    /// Whether there were too many faults.
    pub(super) fn is_condemned(&self) -> bool {
        self.probation.as_ref().is_some_and(|faults| faults.is_exceeded())
    }

    /// A fault for which there is nothing smaller to try.
    pub(super) fn count_against(&mut self) {
        if let Some(pause) = self.circuit.faulted(Instant::now()) {
            self.pieces.clear();
            self.show_pause(pause, None);
        }
    }

    fn show_pause(&self, pause: Duration, fault: Option<&Fault>) {
        self.metrics.paused.set(1);
        if !self.circuit.has_reopened() {
            let fault = fault.map(tracing::field::display);
            tracing::error!(pipeline = %self.setup.pipeline, plugin = %self.plugin.name(),
                transform = %self.setup.transform, instance = self.setup.instance(), fault,
                pause_s = pause.as_secs(),
                "the plugin fails again and again; its messages wait, and one is tried from time to time");
        }
    }

    pub(super) fn close_circuit(&mut self) {
        self.circuit.close();
        self.metrics.paused.set(0);
    }
}
