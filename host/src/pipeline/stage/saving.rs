//! What a stage saves: snapshots for the next instances and the next start, and for generations on the disk what has
//! changed.

use super::Stage;
use super::worker::Worker;
use crate::generation::TransformState;
use crate::plugin::Fault;
use bytes::Bytes;
use std::sync::Arc;
use tokio::time::Instant;

impl Stage {
    /// Saves the state of the instances of which that is due.
    ///
    /// # Cancel safety
    /// As [`Stage::work`].
    pub(in crate::pipeline) async fn save(&mut self) {
        let now = Instant::now();
        self.save_those(|worker| worker.save_due().is_some_and(|due| due <= now)).await;
    }

    /// Saves the plugin's state for the next start, before anything that only the end of its pipeline brings.
    ///
    /// # Cancel safety
    /// As [`Stage::work`].
    pub(in crate::pipeline) async fn seal(&mut self) {
        self.end_probation();
        self.save_those(|worker| worker.last_good.is_worth_keeping()).await;
        self.setup.state.seal();
    }

    /// Whether its state is written to the disk.
    pub(in crate::pipeline) fn is_durable(&self) -> bool {
        self.is_durable
    }

    /// Whether there is state that is to be written, and that no generation has.
    #[inline]
    pub(in crate::pipeline) fn is_unsaved(&self) -> bool {
        self.is_durable && self.workers.iter().any(|worker| worker.is_unsaved)
    }

    /// There is: the generation that has it is not on the disk.
    pub(in crate::pipeline) fn unsave(&mut self) {
        self.workers.iter_mut().for_each(|worker| worker.is_unsaved = true);
    }

    /// Whether its plugin has changed since the last snapshot.
    pub(in crate::pipeline) fn has_changed(&self) -> bool {
        self.workers.iter().any(|worker| worker.last_good.has_changed())
    }

    /// Saves what was changed since the last snapshots. Says whether the snapshots are of this moment now.
    ///
    /// # Cancel safety
    /// As [`Stage::work`].
    pub(in crate::pipeline) async fn save_now(&mut self) -> bool {
        self.save_those(|worker| worker.last_good.has_changed()).await
    }

    /// What was changed since this was last asked.
    pub(in crate::pipeline) fn take_changes(&mut self) -> TransformState {
        let state = &self.setup.state;
        let is_unsaved = self.workers.iter().any(|worker| worker.is_unsaved);
        self.workers.iter_mut().for_each(|worker| worker.is_unsaved = false);
        let snapshots = is_unsaved.then(|| state.snapshots());
        TransformState { name: self.setup.transform.clone(), values: state.take_changes(), snapshots }
    }

    /// Changes that were taken are not on the disk.
    pub(in crate::pipeline) fn give_back(&mut self, keys: Vec<Arc<str>>) {
        self.setup.state.give_back(keys);
    }

    /// Saves the state of the instances that are meant. Says whether all gave it.
    async fn save_those(&mut self, is_meant: impl Fn(&Worker) -> bool) -> bool {
        let job = |mut worker: Box<Worker>| async move {
            let is_saved = worker.take_snapshot().await.is_ok();
            (worker, is_saved)
        };
        self.each(is_meant, true, job).await.into_iter().all(|is_saved| is_saved)
    }
}

impl Worker {
    /// When the plugin's state is to be saved.
    pub(super) fn save_due(&self) -> Option<Instant> {
        self.last_good.due().filter(|_| self.instance.is_some())
    }

    /// Saves the plugin's state.
    ///
    /// # Cancel safety
    /// As [`Worker::work`].
    pub(super) async fn save(&mut self) {
        // A fault is counted and logged; the snapshot before remains the last good one.
        let _ = self.take_snapshot().await;
    }

    /// The last good snapshot is what the next start goes on with.
    pub(super) fn keep(&self) {
        self.setup.state.keep(self.setup.part, self.last_good.snapshot().cloned());
    }

    /// Makes the state now the last good one. A fault costs the instance; a refusal does not.
    pub(super) async fn take_snapshot(&mut self) -> Result<(), Fault> {
        let Some(instance) = &mut self.instance else { return Ok(()) };
        let fault = match instance.snapshot().await {
            Ok(snapshot) => {
                self.metrics.snapshot_bytes.set(snapshot.as_ref().map_or(0, Bytes::len) as i64);
                self.last_good.saved(snapshot, Instant::now());
                self.keep();
                return Ok(());
            }
            Err(fault) => fault,
        };
        self.metrics.faulted(fault.kind.as_str(), 1);
        let next_try_s = self.last_good.failed(Instant::now()).as_secs();
        let lost_state_ms = if fault.is_refusal { None } else { self.give_instance_up() };
        tracing::warn!(pipeline = %self.setup.pipeline, plugin = %self.plugin.name(),
                transform = %self.setup.transform, instance = self.setup.instance(), %fault, next_try_s,
            lost_state_ms, "the plugin gives no snapshot; a fault would cost the state since the last one");
        Err(fault)
    }
}
