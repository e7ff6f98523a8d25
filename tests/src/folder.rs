//! A folder in which hosts run: the configuration and the plugins.

use crate::host::{Host, PATIENCE, binary};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// A folder for a host: its configuration and its plugins.
#[derive(Debug)]
pub struct Folder {
    dir: TempDir,
}

impl Default for Folder {
    fn default() -> Self {
        let dir = TempDir::new().expect("a temporary folder can be made");
        std::fs::create_dir(dir.path().join("plugins")).expect("the folder is empty");
        Self { dir }
    }
}

impl Folder {
    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a component into the plugin folder, all at once as users are told to.
    ///
    /// # Panics
    /// If it cannot be copied.
    pub fn install(&self, name: &str, component: &Path) {
        self.put(name, &std::fs::read(component).expect("components can be read"));
    }

    /// Puts a file with this content into the plugin folder, likewise.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn put(&self, name: &str, content: &[u8]) {
        let whole = self.path(&format!("plugins/.{name}.new"));
        std::fs::write(&whole, content).expect("the folder can be written");
        std::fs::rename(whole, self.path(&format!("plugins/{name}.wasm"))).expect("in one folder");
    }

    /// The same for a version that does as the component does and has another digest.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn install_another_version(&self, name: &str, component: &Path) {
        let mut wasm = std::fs::read(component).expect("components can be read");
        // A custom section, two bytes long: a name of one.
        wasm.extend([0, 2, 1, b'x']);
        let next = self.path("another-version.wasm");
        std::fs::write(&next, wasm).expect("the folder can be written");
        self.install(name, &next);
    }

    /// Writes the configuration file, with an HTTP API on a free port: all at once, since a host may read it. `config`
    /// is the rest of the file.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn configure(&self, config: &str) {
        let whole = self.path(".tidemill.toml.new");
        std::fs::write(&whole, format!("[admin]\nlisten = \"127.0.0.1:0\"\n\n{config}"))
            .expect("the folder can be written");
        std::fs::rename(whole, self.path("tidemill.toml")).expect("in one folder");
    }

    /// Runs a host here, with an HTTP API on a free port. `config` is the rest of the file.
    ///
    /// # Panics
    /// If it does not start, with its log.
    pub fn run(&self, config: &str) -> Host {
        self.run_with_grace(PATIENCE / 2, config)
    }

    /// Runs a host whose grace period is this long.
    ///
    /// # Panics
    /// If it does not start, with its log.
    pub fn run_with_grace(&self, grace: Duration, config: &str) -> Host {
        Host::start(&mut self.command(grace, config)).with_admin()
    }

    /// Runs a host whose standard output goes into a pipe that nobody reads any more, as that of
    /// `tidemill run | head` does.
    ///
    /// # Panics
    /// If it does not start, with its log.
    pub fn run_unread(&self, grace: Duration, config: &str) -> Host {
        Host::start_unread(&mut self.command(grace, config)).with_admin()
    }

    /// The command that runs a host here, with an HTTP API on a free port. `config` is the rest of the
    /// file, which is written.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn command(&self, grace: Duration, config: &str) -> Command {
        self.configure(config);
        let grace = format!("{}ms", grace.as_millis());
        let mut command = Command::new(binary());
        command.args(["run", "--log-format", "json", "--grace", &grace]).current_dir(self.dir.path());
        command
    }
}
