//! `tidemill run`: the pipelines of a configuration, until they end or a signal comes.

use super::arguments::{ConfigFile, duration};
use super::{Exit, block_on_within, complain, environment, is_terminal, load, tell};
use crate::app::{self, Settings};
use crate::config::{BodyReader, Config, ReloadFile};
use crate::file_watch::{self, FileWatch};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Open files beside connections: plugins, logs, listeners.
const OTHER_FILES: u64 = 64;

#[derive(Debug, clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    config: ConfigFile,
    /// At a signal, how long what is in flight may take to reach its end.
    #[arg(long, value_parser = duration, default_value = "10s", value_name = "DURATION")]
    grace: Duration,
    /// Take over what changes in the configuration file, as soon as it is saved.
    #[arg(long)]
    watch: bool,
}

impl Run {
    pub(super) fn execute(self) -> Exit {
        // Whatever comes after this is news.
        let file = ReloadFile::new(&self.config.file, environment());
        if self.watch {
            file.last_read().note(file_watch::content(&self.config.file));
        }
        let loaded = match load(&self.config.file) {
            Ok(loaded) => loaded,
            Err(errors) => {
                tell(errors.render(is_terminal()));
                return Exit::Configuration;
            }
        };
        for warning in &loaded.warnings {
            let line = warning.place.as_ref().map(|place| place.line);
            let (file, hint) = (warning.file.display(), warning.hint.as_deref());
            tracing::warn!(warning = warning.message, %file, line, hint, "odd configuration");
        }
        raise_open_files(&loaded.config);
        let reload = Arc::<Notify>::default();
        let watch = self.watch.then(|| {
            let bell = reload.clone();
            FileWatch::start(&self.config.file, file.last_read().clone(), move || bell.notify_one())
        });
        let _watch = match watch.transpose() {
            Ok(watch) => watch,
            Err(error) => {
                complain(format!("failed to watch the configuration file: {error}"));
                return Exit::Failure;
            }
        };
        block_on_within(Some(self.grace), Some(reload.clone()), |shutdown| async move {
            let reader = BodyReader::new(&self.config.file, environment());
            let settings =
                Settings { grace: self.grace, reader, file: Some(file), reload, ..Settings::default() };
            match app::run(loaded.config, settings, shutdown).await {
                Ok(()) => Exit::Success,
                Err(error) => {
                    complain(&error);
                    if error.is_configuration() { Exit::Configuration } else { Exit::Failure }
                }
            }
        })
    }
}

/// Raises the soft limit of open files to the hard one: every connection is one. Warns where that is
/// fewer than the listeners may have.
fn raise_open_files(config: &Config) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "limit of open files stays as it is");
        limit = getrlimit(Resource::Nofile);
    }
    let connections = config.listeners().len() as u64 * config.server.max_connections as u64;
    if let Some(files) = limit.current.filter(|files| *files < connections + OTHER_FILES) {
        tracing::warn!(
            connections,
            files,
            hint = "raise the limit of open files, or lower max_connections",
            "max_connections does not fit the limit of open files"
        );
    }
}
