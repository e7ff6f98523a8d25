//! What is done on the disk once a version runs: its content is kept among those that ran, and what somebody sent is
//! written into the plugin folder.

use super::attempt::SwapAttempt;
use crate::plugin_folder::{Candidate, Folder, FolderWriter};
use crate::plugin_history::PluginHistory;
use std::time::Duration;

/// Longest that the plugin folder is waited for.
const DEADLINE: Duration = Duration::from_secs(30);

/// What is to be done for a content that begins to run.
#[derive(Debug)]
pub(super) struct Keeping {
    content: Candidate,
    history: PluginHistory,
    /// None: the folder is where it came from.
    writer: Option<FolderWriter>,
}

/// What became of the plugin folder's file, if it was to be written.
pub(super) type FolderWritten = Option<Result<(), String>>;

impl Keeping {
    /// For an attempt that has content.
    pub(super) fn of(attempt: &SwapAttempt, folder: &Folder, history: &PluginHistory) -> Option<Self> {
        let content = attempt.content.clone()?;
        let writer = attempt.is_asked().then(|| folder.writer(&content.name));
        Some(Self { content, history: history.clone(), writer })
    }

    /// Does it; `has_run` says whether a pipeline runs the content.
    pub(super) async fn keep(self, has_run: bool) -> FolderWritten {
        let Self { content, history, writer } = self;
        let is_to_be_written = writer.is_some();
        let kept = tokio::task::spawn_blocking(move || {
            if has_run {
                keep(&history, &content);
            }
            writer.map(|writer| writer.write(&content.wasm).map_err(|error| error.to_string()))
        });
        match tokio::time::timeout(DEADLINE, kept).await {
            Ok(Ok(written)) => written,
            Ok(Err(_)) => is_to_be_written
                .then(|| Err("writing it met a fault of the host; the log has the panic".into())),
            Err(_) => {
                let text = format!("the plugin folder was not written after {} s", DEADLINE.as_secs());
                is_to_be_written.then_some(Err(text))
            }
        }
    }
}

/// Keeps a content that begins to run; where that fails, the content runs all the same. Blocks.
pub(super) fn keep(history: &PluginHistory, content: &Candidate) {
    if let Err(error) = history.ran(content) {
        let Candidate { name, version, .. } = content;
        tracing::warn!(plugin = name, version, %error, "a version that runs cannot be kept for later");
    }
}
