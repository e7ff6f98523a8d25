//! What runs for a command ends with it, wherever it is told to stop, and what it has left on the disk goes.

use super::Author;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use tidemill_tests::host::{PATIENCE, binary};
use tidemill_tests::tools;

/// In the place of a compiler: it has a process of its own that works, and keeps files, and does not end. Both hold the
/// pipe `alive` open.
const COMPILER: &str = r#"#!/bin/sh
exec 9> "$ALIVE"
sleep 100 &
mktemp -d > /dev/null
echo begun >&9
wait
"#;

/// Has a command begin to compile and sends it a signal, alone: gives its exit code, what it says, and what is left in the
/// folder of temporary files. Compilers are gone when this returns.
#[track_caller]
fn stopped(author: &Author, arguments: &[&str], signal: Signal) -> (Option<i32>, String, Vec<OsString>) {
    let folder = author.folder.path();
    let (alive, temporary, programs) = (folder.join("alive"), folder.join("tmp"), folder.join("bin"));
    let mut command = Command::new(binary());
    command.current_dir(folder).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", programs.display())).env("TIDEMILL_TOOLS", tools());
    command.env("TMPDIR", &temporary).env("ALIVE", &alive);
    let child = command.spawn().unwrap();
    let (sender, said) = sync_channel(2);
    thread::spawn(move || {
        let mut reader = BufReader::new(fs::File::open(alive).unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let _ = sender.send(line);
        // Until the last that could write is gone.
        let _ = reader.read_to_end(&mut Vec::new());
        let _ = sender.send("ended".to_owned());
    });
    assert_eq!(said.recv_timeout(PATIENCE).unwrap(), "begun\n", "{arguments:?}");
    kill_process(Pid::from_child(&child), signal).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.recv_timeout(PATIENCE).as_deref(), Ok("ended"), "{arguments:?}: {told}");
    let left = fs::read_dir(temporary).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    (output.status.code(), told, left)
}

fn write_program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_compiler_ends_with_the_command_that_it_runs_for() {
    let author = Author::new("go", "plugin.go");
    let folder = author.folder.path();
    write_program(&folder.join("bin/go"), COMPILER);
    fs::create_dir(folder.join("tmp")).unwrap();
    assert!(Command::new("mkfifo").arg(folder.join("alive")).status().unwrap().success());
    let input = "fee/cases/first.in.jsonl";
    for (arguments, signal, code) in [
        (&["plugin", "build", "fee"][..], Signal::TERM, 130),
        (&["plugin", "build", "fee"], Signal::INT, 130),
        (&["plugin", "test", "fee"], Signal::TERM, 130),
        (&["plugin", "run", "fee"], Signal::TERM, 130),
        (&["plugin", "bench", "fee", "--input", input], Signal::TERM, 130),
        (&["plugin", "inspect", "fee"], Signal::TERM, 130),
        (&["dev", "fee", "--feed", "ws://127.0.0.1:9/"], Signal::TERM, 0),
    ] {
        let (ended, told, left) = stopped(&author, arguments, signal);
        assert_eq!((ended, left), (Some(code), vec![]), "{arguments:?}: {told}");
        assert!(!told.contains("error: "), "{arguments:?}: {told}");
    }
}
