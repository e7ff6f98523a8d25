//! `tidemill check`: what is wrong with a configuration, and with the plugins it names.

use super::arguments::ConfigFile;
use super::{Exit, answer, block_on, complain, is_terminal, load, tell};
use crate::app::{self, CheckFinding};
use crate::config::{Config, ConfigError, Loaded};
use crate::connector::CurrentPlugins;
use serde_json::json;
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// Dial every client endpoint once, too.
    #[arg(long)]
    connect: bool,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// What checking came to.
#[derive(Default)]
struct Findings {
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigError>,
    /// Peers that cannot be reached.
    away: Vec<ConfigError>,
}

impl CheckArgs {
    pub(super) fn execute(self) -> Exit {
        let mut findings = Findings::default();
        match load(&self.config.file) {
            Err(errors) => findings.errors = errors.iter().cloned().collect(),
            Ok(loaded) => {
                let (this, findings) = (&self, &mut findings);
                let looked = block_on(|shutdown| async move {
                    tokio::select! {
                        biased;
                        () = shutdown.requested() => Exit::Interrupted,
                        exit = this.look(loaded, findings) => exit,
                    }
                });
                if looked != Exit::Success {
                    return looked;
                }
            }
        }
        let exit = match (findings.errors.is_empty(), findings.away.is_empty()) {
            (true, true) => Exit::Success,
            (true, false) => Exit::Failure,
            (false, _) => Exit::Configuration,
        };
        answer(&self.tell(&findings), exit)
    }

    /// Looks at the plugins and, if that was asked for, at the peers of a file that can be read.
    async fn look(&self, loaded: Loaded, findings: &mut Findings) -> Exit {
        let Loaded { config, places, warnings, .. } = loaded;
        findings.warnings = warnings;
        let checked = match app::check(&config).await {
            Ok(checked) => checked,
            Err(error) => {
                complain(&error);
                return if error.is_configuration() { Exit::Configuration } else { Exit::Failure };
            }
        };
        if self.connect && checked.errors.is_empty() {
            findings.away = away(&self.config.file, &config, checked.plugins).await;
        }
        let said = |CheckFinding { part, message, hint }| places.said(&part, message, hint);
        findings.errors.extend(checked.errors.into_iter().map(said));
        findings.warnings.extend(checked.warnings.into_iter().map(said));
        Exit::Success
    }

    /// Tells people what there is, and gives the answer for standard output.
    fn tell(&self, findings: &Findings) -> String {
        let Findings { errors, warnings, away } = findings;
        let errors: Vec<_> = errors.iter().chain(away).collect();
        let mut answer = if self.json {
            let errors: Vec<_> = errors.into_iter().map(ConfigError::to_json).collect();
            let warnings: Vec<_> = warnings.iter().map(ConfigError::to_json).collect();
            json!({ "ok": errors.is_empty(), "errors": errors, "warnings": warnings }).to_string()
        } else {
            let colour = is_terminal();
            let warnings = warnings.iter().map(|warning| warning.render_warning(colour));
            let told: Vec<_> =
                errors.iter().map(|error| error.render_error(colour)).chain(warnings).collect();
            tell(told.join("\n"));
            match errors.len() {
                0 => format!("{}: ok", self.config.file.display()),
                1 => "1 error".to_owned(),
                errors => format!("{errors} errors"),
            }
        };
        answer.push('\n');
        answer
    }
}

/// The client endpoints whose peers are away.
async fn away(file: &Path, config: &Config, plugins: CurrentPlugins) -> Vec<ConfigError> {
    let unreachable = app::check_connections(config, plugins).await.into_iter();
    let said = unreachable.map(|(pipeline, end, why)| ConfigError {
        hint: why.hint,
        ..ConfigError::whole(file, format!("pipeline {pipeline}, {end}: {}", why.error))
    });
    said.collect()
}
