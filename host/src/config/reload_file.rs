//! The configuration file of a host that runs, read again.

use super::error::ConfigErrors;
use super::file::{parse, parse_holding, read};
use super::{Config, Environment, Loaded};
use crate::file_watch::LastRead;
use std::fmt;
use std::path::{Path, PathBuf};

/// A configuration file, and the variables that its `${}` are taken from.
#[derive(Clone)]
pub struct ReloadFile {
    path: PathBuf,
    environment: Environment,
    last_read: LastRead,
}

/// What a configuration file says that was read again.
#[derive(Clone, Debug)]
pub struct Reread {
    /// The configuration; its `[server]` is the one in force.
    pub loaded: Loaded,
    /// The tables that have changed and count only from the next start of the host on.
    pub restart_required: Vec<String>,
}

impl ReloadFile {
    /// The file of this name, read as [`super::load`] reads it.
    pub fn new(path: impl Into<PathBuf>, environment: Environment) -> Self {
        Self { path: path.into(), environment, last_read: LastRead::default() }
    }

    /// What was read of it last, for whoever watches it.
    pub(crate) fn last_read(&self) -> &LastRead {
        &self.last_read
    }

    /// The path of the file, as it is named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file. What endpoints take from `[server]` they take from that of the configuration in force, since
    /// a changed one counts from the next start on.
    ///
    /// # Errors
    /// All errors of the file, or that it cannot be read. One that is empty was just made, or is a pipe that was read
    /// before: nobody means to remove all pipelines by it.
    pub fn read_again(&self, in_force: &Config) -> Result<Reread, ConfigErrors> {
        if std::fs::metadata(&self.path).is_ok_and(|found| !found.is_file()) {
            // Reading it might wait for whoever writes it, and holds up all that comes behind.
            return Err(ConfigErrors::whole(
                &self.path,
                "the configuration file is no file that can be read again",
                None,
            ));
        }
        let bytes = read(&self.path)?;
        self.last_read.note(Some(bytes.clone()));
        if bytes.trim_ascii().is_empty() {
            let hint = "a file that has a comment and no pipeline removes all of them";
            return Err(ConfigErrors::whole(
                &self.path,
                "the configuration file is empty",
                Some(hint.into()),
            ));
        }
        let mut loaded = parse(&self.path, &bytes, &self.environment)?;
        let restart_required = loaded.config.needs_restart(in_force);
        if loaded.config.server != in_force.server {
            loaded = parse_holding(Some(&in_force.server), &self.path, &bytes, &self.environment)?;
        }
        Ok(Reread { loaded, restart_required })
    }
}

impl Config {
    /// The tables beside the pipelines that differ from those in force.
    pub fn needs_restart(&self, in_force: &Self) -> Vec<String> {
        let differs = [
            ("plugins", self.plugins != in_force.plugins),
            ("server", self.server != in_force.server),
            ("state", self.state != in_force.state),
            ("admin", self.admin != in_force.admin),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned()).collect()
    }

    /// The tables beside the pipelines.
    #[must_use]
    pub fn without_pipelines(&self) -> Self {
        let Self { plugins, server, state, admin, .. } = self.clone();
        Self { plugins, server, state, admin, pipelines: Vec::new() }
    }
}

impl fmt::Debug for ReloadFile {
    /// The environment has secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReloadFile").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_keep_what_they_have_of_a_server_table_that_counts_from_the_next_start_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tidemill.toml");
        let pipeline = "[[pipelines]]\nname = \"p\"\nsource = { type = \"websocket\", mode = \"server\" }\n\
                        sinks = [{ type = \"stdout\" }]\n";
        let file = ReloadFile::new(&path, Environment::new());
        std::fs::write(&path, format!("[server]\nport = 7\n{pipeline}")).expect("it is ours");
        let in_force = super::super::load(&path, &Environment::new()).expect("it is right").config;
        let again = file.read_again(&in_force).expect("it is right");
        assert_eq!((&again.loaded.config, &again.restart_required[..]), (&in_force, &[][..]));
        for empty in ["", " \n"] {
            std::fs::write(&path, empty).expect("it is ours");
            let errors = file.read_again(&in_force).expect_err("it is empty").to_string();
            assert!(errors.contains("the configuration file is empty"), "{errors}");
        }
        for changed in
            ["[server]\nport = 8\n", "", "[server]\nmax_connections = 9\n[plugins]\nwatch = false\n"]
        {
            std::fs::write(&path, format!("{changed}{pipeline}")).expect("it is ours");
            let again = file.read_again(&in_force).expect("it is right");
            assert_eq!(again.loaded.config.pipelines, in_force.pipelines, "{changed}");
            assert_eq!(
                again.restart_required[..].contains(&"plugins".to_owned()),
                changed.contains("plugins")
            );
            assert!(again.restart_required.contains(&"server".to_owned()));
        }
    }
}
