//! `tidemill run`: the pipelines of a configuration, until they end or a signal comes.

use super::{ConfigFile, Exit, block_on, complain, duration, is_terminal, load, tell};
use crate::app::{self, AppError, Settings};
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(super) struct Run {
    #[command(flatten)]
    config: ConfigFile,
    /// At a signal, how long what is in flight may take to reach its end.
    #[arg(long, value_parser = duration, default_value = "10s", value_name = "DURATION")]
    grace: Duration,
}

impl Run {
    pub(super) fn execute(self) -> Exit {
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
        raise_open_files();
        block_on(|shutdown| async move {
            let settings = Settings { grace: self.grace, ..Settings::default() };
            match app::run(loaded.config, settings, shutdown).await {
                Ok(()) => Exit::Success,
                Err(error) => {
                    complain(&error);
                    if matches!(error, AppError::Refused(_)) { Exit::Configuration } else { Exit::Failure }
                }
            }
        })
    }
}

/// Raises the soft limit of open files to the hard one: every connection is one.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "limit of open files stays as it is");
    }
}
