//! Metrics of pipelines, whose series go with their pipeline.

use super::labels::Labels;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard};

/// A family whose first label is the pipeline. Clones are one and the same.
pub(super) struct PipelineFamily<M, C = fn() -> M> {
    family: Family<Labels, M, C>,
    /// The family itself cannot be asked which series it has.
    known: Arc<Mutex<BTreeMap<String, Vec<Labels>>>>,
}

impl<M: Clone, C: MetricConstructor<M>> PipelineFamily<M, C> {
    /// The series of `family`, which has none yet.
    pub(super) fn new(family: Family<Labels, M, C>) -> Self {
        Self { family, known: Arc::default() }
    }

    /// The metric with these labels, which begins now if there is none.
    pub(super) fn get_or_create_owned(&self, of: &Labels) -> M {
        let mut known = self.lock();
        if self.family.get(of).is_none() {
            debug_assert_eq!(of[0].0, "pipeline", "series are found by it");
            known.entry(of[0].1.clone()).or_default().push(of.clone());
        }
        self.family.get_or_create_owned(of)
    }

    /// The metric with these labels, if there is one.
    pub(super) fn get(&self, of: &Labels) -> Option<M> {
        self.family.get(of).map(|metric| metric.clone())
    }

    /// Every metric of a pipeline.
    pub(super) fn all_of(&self, pipeline: &str) -> Vec<M> {
        let known = self.lock();
        let all = known.get(pipeline).into_iter().flatten();
        all.filter_map(|of| self.get(of)).collect()
    }

    /// Takes the series of a pipeline out. What still counts in them counts for nobody.
    pub(super) fn forget(&self, pipeline: &str) {
        for of in self.lock().remove(pipeline).into_iter().flatten() {
            self.family.remove(&of);
        }
    }

    /// Takes the series of a place of a pipeline out: those that have this label.
    pub(super) fn forget_place(&self, pipeline: &str, label: &str, place: &str) {
        let mut known = self.lock();
        let Some(all) = known.get_mut(pipeline) else { return };
        for of in all.extract_if(.., |of| of.iter().any(|(name, value)| *name == label && *value == place)) {
            self.family.remove(&of);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Labels>>> {
        self.known.lock().expect("nothing panics while it is held")
    }
}

impl<M, C: Clone> Clone for PipelineFamily<M, C> {
    fn clone(&self) -> Self {
        Self { family: self.family.clone(), known: self.known.clone() }
    }
}

impl<M: Debug, C> Debug for PipelineFamily<M, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.family.fmt(f)
    }
}
