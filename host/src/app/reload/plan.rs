//! What a reload is to do: each pipeline of the new configuration, compared with what runs.

use crate::app::CheckFinding;
use crate::config::{self, ConfigErrors, Places};
use crate::control::{ControlError, ReloadClass, ReloadReport, ReloadedPipeline};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is to become of all pipelines.
pub(in crate::app) struct Plan {
    /// In the order of the configuration, and then those that are gone.
    pub(in crate::app) pipelines: Vec<PlannedPipeline>,
    pub(in crate::app) restart_required: Vec<String>,
    /// Where the parts stand in their file, if they are of one.
    pub(in crate::app) places: Option<Places>,
    /// The plugins that the folder has a file of.
    pub(in crate::app) in_folder: BTreeSet<String>,
}

/// What is to become of a pipeline.
#[derive(Clone)]
pub(in crate::app) struct PlannedPipeline {
    pub(in crate::app) name: String,
    pub(in crate::app) class: ReloadClass,
    pub(in crate::app) reasons: Vec<String>,
    /// What it is from now on; `None` where it is gone.
    pub(in crate::app) next: Option<Arc<config::Pipeline>>,
    /// What it was; `None` where it is new.
    pub(in crate::app) before: Option<Arc<config::Pipeline>>,
}

impl PlannedPipeline {
    /// What is to become of a pipeline that was so, and is to be so.
    pub(in crate::app) fn compare(
        before: Option<Arc<config::Pipeline>>,
        next: Option<Arc<config::Pipeline>>,
    ) -> Option<Self> {
        let name = next.as_ref().or(before.as_ref())?.name.clone();
        let (class, reasons) = match (&before, &next) {
            (None, _) => (ReloadClass::Added, Vec::new()),
            (_, None) => (ReloadClass::Removed, Vec::new()),
            (Some(before), Some(next)) => {
                let changes = next.changes_since(before);
                let class = match (changes.is_empty(), changes.needs_an_end) {
                    (true, _) => ReloadClass::Unchanged,
                    (false, true) => ReloadClass::Replaced,
                    (false, false) => ReloadClass::Updated,
                };
                (class, changes.reasons)
            }
        };
        Some(Self { name, class, reasons, next, before })
    }
}

impl Plan {
    /// The pipelines that are not what they were.
    pub(in crate::app) fn changing(&self) -> impl Iterator<Item = &PlannedPipeline> {
        self.pipelines.iter().filter(|planned| planned.class != ReloadClass::Unchanged)
    }

    /// The plugins that pipelines name which change, before or after.
    pub(super) fn plugins(&self) -> BTreeSet<String> {
        let configs = self.changing().flat_map(|planned| planned.next.iter().chain(&planned.before));
        configs.flat_map(|config| config.plugins()).map(|plugin| plugin.expose().to_owned()).collect()
    }

    /// The plugins that they need.
    pub(super) fn needed(&self) -> BTreeSet<String> {
        let configs = self.changing().filter_map(|planned| planned.next.as_ref());
        configs.flat_map(|config| config.plugins()).map(|plugin| plugin.expose().to_owned()).collect()
    }

    /// The pipelines that are gone.
    pub(super) fn gone(&self) -> Vec<&str> {
        self.changing()
            .filter(|planned| planned.next.is_none())
            .map(|planned| planned.name.as_str())
            .collect()
    }

    /// The pipelines that change, as they are from now on.
    pub(super) fn nexts(&self) -> Vec<&config::Pipeline> {
        self.changing().filter_map(|planned| planned.next.as_deref()).collect()
    }

    /// Why it is not carried out: everything that is wrong.
    pub(super) fn refusal(&self, findings: Vec<CheckFinding>) -> ControlError {
        let Some(places) = &self.places else {
            let messages: Vec<_> = findings.into_iter().map(|finding| finding.message).collect();
            return ControlError::Refused(messages.join("; "));
        };
        let said = findings
            .into_iter()
            .map(|CheckFinding { part, message, hint }| places.said(&part, message, hint));
        match ConfigErrors::of(said.collect()) {
            Some(errors) => ControlError::Wrong(errors),
            None => {
                ControlError::Hung("the reload met a fault of the host; the log has the panic".to_owned())
            }
        }
    }

    /// What is told of it, if nothing fails.
    pub(super) fn into_report(self) -> ReloadReport {
        let pipelines = self.pipelines.into_iter().map(|planned| ReloadedPipeline {
            pipeline: planned.name,
            class: planned.class,
            reasons: planned.reasons,
            warnings: Vec::new(),
            error: None,
        });
        let pipelines = pipelines.collect();
        ReloadReport { dry_run: false, pipelines, restart_required: self.restart_required }
    }
}
