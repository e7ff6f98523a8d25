//! The standard streams: full, without a reader, and with one that takes nothing.

use super::*;
use std::io::{BufRead, BufReader};

#[test]
fn a_pipeline_whose_standard_output_nobody_reads_any_more_fails_without_a_panic() {
    let folder = Folder::default();
    folder.install("forward", &plugin("forward"));
    fs::write(folder.path("in.jsonl"), lines(0..300_000)).unwrap();
    let config = pipeline("type = \"file\", path = \"in.jsonl\"", "type = \"stdout\"");
    let run = start(&folder, &config, |command| {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    });
    let mut command = Command::new(binary());
    command.args(["plugin", "run", "plugins/forward.wasm"]).current_dir(folder.path(""));
    command.stdin(File::open(folder.path("in.jsonl")).unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for mut child in [run, command.spawn().unwrap()] {
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert_eq!(first, lines(0..1));
        let mut log = String::new();
        child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        assert_eq!(exit_code(&mut child), Some(1), "{log}");
        assert!(log.contains("failed to write stdout: Broken pipe"), "{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
fn a_standard_output_that_is_full_is_the_end_of_a_plugin_that_is_run_alone() {
    let folder = Folder::default();
    // Fewer than are read at once, and more.
    for count in [3, 5_000] {
        fs::write(folder.path("in.jsonl"), lines(0..count)).unwrap();
        let mut command = Command::new(binary());
        command.args(["plugin", "run"]).arg(plugin("forward")).current_dir(folder.path(""));
        command.stdin(File::open(folder.path("in.jsonl")).unwrap());
        let ran = command.stdout(File::create("/dev/full").unwrap()).output().unwrap();
        let log = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(1), "{log}");
        let errors: Vec<_> = log.lines().filter(|line| line.starts_with("error: ")).collect();
        let [error] = errors[..] else { panic!("{log}") };
        assert!(error.starts_with("error: sink stdout: failed to write stdout: No space left"), "{log}");
        assert!(!log.contains("\"payload\""), "no message is a dead letter: {log}");
    }
}

#[test]
fn a_log_and_an_answer_that_nobody_reads_change_no_exit_code() {
    let folder = Folder::default();
    fs::write(folder.path("in.jsonl"), lines(0..10)).unwrap();
    let config = pipeline("type = \"file\", path = \"in.jsonl\"", "type = \"file\", path = \"out.jsonl\"");
    fs::write(folder.path("tidemill.toml"), &config).unwrap();
    fs::write(folder.path("wrong.toml"), "[[pipelines]]\n").unwrap();
    for (arguments, code) in [
        (&["run", "-v"][..], 0),
        (&["run", "-v", "--log-format", "json"], 0),
        (&["check"], 0),
        (&["check", "--json"], 0),
        (&["check", "-c", "wrong.toml"], 78),
        (&["probe", "ws://127.0.0.1:9/"], 1),
        (&["replay", "none.jsonl"], 1),
        (&["record", "ws://127.0.0.1:9/", "-o", "none/x"], 1),
        (&["--version"], 0),
        (&["nonsense"], 2),
    ] {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(folder.path("")).stdin(Stdio::null());
        // Nobody reads from the start on.
        let (reader, writer) = std::io::pipe().unwrap();
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        drop(reader);
        let mut child = command.spawn().unwrap();
        drop(command);
        assert_eq!(exit_code(&mut child), Some(code), "{arguments:?}");
    }
    assert_eq!(fs::read_to_string(folder.path("out.jsonl")).unwrap(), lines(0..10).repeat(2));
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure_that_is_told() {
    let folder = Folder::default();
    let config = pipeline("type = \"stdin\"", "type = \"stdout\"");
    fs::write(folder.path("tidemill.toml"), &config).unwrap();
    fs::write(folder.path("wrong.toml"), "[[pipelines]]\n").unwrap();
    for (arguments, code) in [
        (&["check"][..], 1),
        (&["check", "--json"], 1),
        (&["check", "--json", "-c", "wrong.toml"], 78),
        (&["schema"], 1),
        (&["schema", "--markdown"], 1),
        (&["plugins"], 1),
        (&["completions", "bash"], 1),
        (&["man"], 1),
        (&["init", "-c", "new.toml"], 1),
        (&["--help"], 1),
    ] {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(folder.path("")).stdin(Stdio::null());
        let ended = command.stdout(File::create("/dev/full").unwrap()).output().unwrap();
        let log = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {log}");
        assert!(log.contains("error: failed to write to standard output: No space left"), "{log}");
    }
}

#[test]
fn a_standard_output_that_nobody_takes_from_holds_the_end_up_no_longer_than_the_grace_period() {
    let folder = Folder::default();
    fs::write(folder.path("in.jsonl"), lines(0..100_000)).unwrap();
    let config = pipeline("type = \"file\", path = \"in.jsonl\"", "type = \"stdout\"");
    let mut child = start(&folder, &config, |command| {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    });
    // It has written; what is left is more than a pipe holds.
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    terminate(&child);
    assert_eq!(exit_code(&mut child), Some(1));
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains("the grace period ran out"), "{log}");
}

#[test]
fn a_demo_that_nobody_watches_any_more_ends() {
    let folder = Folder::default();
    let plugins = plugin("vwap");
    let recording = root().join("examples/data/binance-combined-20240808.jsonl.gz");
    let mut command = Command::new(binary());
    command
        .args(["demo", "--speed", "max", "--recording"])
        .arg(recording)
        .arg("--plugins")
        .arg(plugins.parent().unwrap());
    command.current_dir(folder.path("")).stdin(Stdio::null()).stderr(Stdio::piped());
    let (reader, writer) = std::io::pipe().unwrap();
    let mut child = command.stdout(writer).spawn().unwrap();
    drop((command, reader));
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(exit_code(&mut child), Some(1), "{log}");
    assert!(log.contains("failed to write stdout: Broken pipe"), "{log}");
}

#[test]
fn a_log_that_nobody_takes_from_holds_up_neither_messages_nor_the_end() {
    let folder = Folder::default();
    make_fifo(&folder.path("fifo"));
    // A pipe that has no room from the start on.
    let (_reader, mut log) = std::io::pipe().unwrap();
    let mode = rustix::fs::fcntl_getfl(&log).unwrap();
    rustix::fs::fcntl_setfl(&log, mode | rustix::fs::OFlags::NONBLOCK).unwrap();
    while log.write(&[b'x'; 4096]).is_ok() {}
    while log.write(b"x").is_ok() {}
    rustix::fs::fcntl_setfl(&log, mode).unwrap();
    let config = pipeline("type = \"file\", path = \"fifo\"", "type = \"file\", path = \"out.jsonl\"");
    let mut child = start(&folder, &config, |command| {
        command.arg("-v").stderr(log);
    });
    let mut writer = OpenOptions::new().write(true).open(folder.path("fifo")).unwrap();
    writer.write_all(lines(0..100).as_bytes()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while fs::read_to_string(folder.path("out.jsonl")).unwrap_or_default() != lines(0..100) {
        assert!(Instant::now() < deadline, "messages do not go through");
        std::thread::sleep(Duration::from_millis(5));
    }
    terminate(&child);
    assert_eq!(exit_code(&mut child), Some(0));
}
