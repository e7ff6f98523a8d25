//! Commands of the binary, as users type them.

use crate::host::{Folder, Host, binary};
use std::process::Command;

/// What a command says: its exit code, its output, and what went wrong.
pub type Told = (Option<i32>, String, String);

/// A command of the binary in a folder. The environment names no host to it.
pub fn command(folder: &Folder, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).current_dir(folder.path(""));
    command.env_remove("TIDEMILL_ADMIN").env_remove("TIDEMILL_TOKEN");
    command
}

/// What a command says. It does not hold up the peers, which may run in the test's own task.
///
/// # Panics
/// If it cannot be run, or what it says is no text.
pub fn said(command: &mut Command) -> Told {
    let output = tokio::task::block_in_place(|| command.output()).expect("it can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it says text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// What a command in a folder says.
///
/// # Panics
/// As [`said`].
pub fn tidemill(folder: &Folder, arguments: &[&str]) -> Told {
    said(&mut command(folder, arguments))
}

/// What a command says that asks a running host.
///
/// # Panics
/// As [`said`].
pub fn tidemill_of(host: &Host, folder: &Folder, arguments: &[&str]) -> Told {
    said(command(folder, arguments).args(["--admin", &host.admin().to_string()]))
}
