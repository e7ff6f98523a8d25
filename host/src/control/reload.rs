//! What a reload makes of each pipeline of the configuration.

/// What a reload has done, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadReport {
    /// Whether nothing was changed: it was asked what would be.
    pub dry_run: bool,
    /// The pipelines of the configuration, in its order, and then those that are gone.
    pub pipelines: Vec<ReloadedPipeline>,
    /// The tables that have changed and count only from the next start of the host on.
    pub restart_required: Vec<String>,
}

/// What a reload makes of one pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadedPipeline {
    /// The name of the pipeline.
    pub pipeline: String,
    /// What becomes of the pipeline.
    pub class: ReloadClass,
    /// What has changed, in plain words and without values.
    pub reasons: Vec<String>,
    /// What whoever has asked should know.
    pub warnings: Vec<String>,
    /// Why it goes on as it was, if it does: what can only be known while it takes over has failed.
    pub error: Option<String>,
}

/// What a reload makes of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadClass {
    /// The pipeline is what it was.
    Unchanged,
    /// The pipeline is new, and starts.
    Added,
    /// The pipeline is gone: it stops first, as it does when it is told to.
    Removed,
    /// What has changed is changed in place.
    Updated,
    /// The pipeline stops, and then starts as it is configured now.
    Replaced,
}

impl ReloadClass {
    /// The class as the API and the log have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Updated => "updated",
            Self::Replaced => "replaced",
        }
    }
}

impl ReloadReport {
    /// Whether a pipeline goes on as it was, though it was to change.
    pub fn has_failed(&self) -> bool {
        self.pipelines.iter().any(|pipeline| pipeline.error.is_some())
    }
}
