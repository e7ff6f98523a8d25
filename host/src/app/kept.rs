//! What a pipeline goes on with when it is started again: in this host, or after it.

use crate::config::{self, StateStore};
use crate::generation::{Generation, Position, TransformState};
use crate::pipeline::Resume;
use crate::plugin::HostState;
use crate::store::{Store, StoreError};
use std::collections::BTreeSet;

/// What the host keeps of a pipeline for as long as it is configured.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Of each transform, in order.
    pub(super) states: Vec<HostState>,
    /// How far its source was read when that was so, where it can go on from there.
    pub(super) position: Option<Position>,
    /// Transforms that were in memory alone, and have nothing on the disk yet.
    new_on_disk: BTreeSet<String>,
    /// The source is another one: how far the one before was read says nothing of it.
    is_new_source: bool,
    /// Durable state is that of the newest generation, or newer than what is on the disk, and of one moment.
    is_whole: bool,
}

impl Kept {
    /// Of a pipeline that has never run.
    pub(super) fn new(pipeline: &config::Pipeline) -> Self {
        let states = pipeline.transforms.iter().map(|_| HostState::default()).collect();
        Self { states, position: None, new_on_disk: BTreeSet::new(), is_new_source: false, is_whole: false }
    }

    /// Makes sure that durable state is whole, and waits for the disk if it is not.
    pub(super) async fn load(
        &mut self,
        pipeline: &config::Pipeline,
        store: &Store,
    ) -> Result<(), StoreError> {
        if self.is_whole || !pipeline.is_durable() {
            return Ok(());
        }
        let Generation { position, mut transforms } = store.load(&pipeline.name).await?;
        for (transform, state) in pipeline.transforms.iter().zip(&self.states) {
            if transform.state == StateStore::Durable {
                let known = transforms.iter_mut().find(|known| *known.name == *transform.name);
                if known.is_none() && self.new_on_disk.remove(&transform.name) {
                    // The first generation is to have all of it.
                    state.note_changes();
                    state.give_back(state.entries().into_iter().map(|(key, _)| key));
                    continue;
                }
                let TransformState { values, snapshots, .. } = known.map(std::mem::take).unwrap_or_default();
                state.replace(values, snapshots.unwrap_or_default());
            }
        }
        (self.position, self.is_whole) = (position.filter(|_| !self.is_new_source), true);
        Ok(())
    }

    /// What is not durable, of each transform by its label.
    pub(super) fn in_memory(&self, pipeline: &config::Pipeline) -> Vec<(String, HostState)> {
        let all = pipeline.transforms.iter().zip(&self.states);
        let in_memory = all.filter(|(transform, _)| transform.state == StateStore::Memory);
        in_memory.map(|(transform, state)| (transform.name.clone(), state.clone())).collect()
    }

    /// Forgets what is kept of a pipeline that does not run, or of one of its transforms. Says whether anything was.
    pub(super) fn clear(&mut self, pipeline: &config::Pipeline, transform: Option<&str>) -> bool {
        let all = pipeline.transforms.iter().zip(&self.states);
        let mut meant = all.filter(|(known, _)| transform.is_none_or(|name| known.name == name));
        let was_there = meant.any(|(known, state)| !state.shown(&known.name).is_empty());
        let Some(transform) = transform else {
            *self = Self::new(pipeline);
            return was_there;
        };
        let Some(index) = pipeline.transforms.iter().position(|known| known.name == transform) else {
            return false;
        };
        self.states[index] = HostState::default();
        if pipeline.transforms[index].state == StateStore::Durable {
            // As the disk has it from now on.
            self.states[index].replace(Vec::new(), Vec::new());
        }
        was_there
    }

    /// The pipeline is configured anew: what is kept of a transform is kept by its name.
    pub(super) fn configure(&mut self, before: &config::Pipeline, next: &config::Pipeline) {
        let known = std::mem::take(&mut self.states);
        let known: Vec<_> = before.transforms.iter().zip(known).collect();
        let find = |name: &str| known.iter().find(|(transform, _)| transform.name == name);
        for transform in &next.transforms {
            let state = match find(&transform.name) {
                Some((before, state)) => {
                    if before.state == StateStore::Memory && transform.state == StateStore::Durable {
                        self.new_on_disk.insert(transform.name.clone());
                        self.is_whole = false;
                    }
                    state.clone()
                }
                None => {
                    self.is_whole &= transform.state == StateStore::Memory;
                    HostState::default()
                }
            };
            self.states.push(state);
        }
        if next.reads_elsewhere(before) {
            (self.position, self.is_new_source) = (None, true);
        }
    }

    /// The pipeline runs: from now on what is kept changes.
    pub(super) fn begin(&mut self) {
        (self.is_whole, self.is_new_source) = (false, false);
    }

    /// The pipeline has ended.
    pub(super) fn end(&mut self, resume: Resume) {
        self.states.iter().for_each(HostState::rewind);
        (self.position, self.is_whole) = match resume {
            Resume::Here(position) => (position, true),
            Resume::Newest => (None, false),
        };
    }
}
