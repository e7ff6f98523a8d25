//! Files, FIFOs and the standard streams as users have them: full, torn, without a reader, and gone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use rustix::process::Signal;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tidemill_tests::host::{Folder, Host, PATIENCE, binary};
use tidemill_tests::peers::{Feed, dial};
use tidemill_tests::sockets::{close_code_at_the_end, until};
use tidemill_tests::{guest, plugin, root};
use tokio_tungstenite::tungstenite::Message;

/// A pipeline without transforms; the tables of its source and of its sink.
fn pipeline(source: &str, sink: &str) -> String {
    format!("[[pipelines]]\nname = \"p\"\nsource = {{ {source} }}\nsinks = [{{ name = \"out\", {sink} }}]\n")
}

/// Numbers as lines of JSON.
fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Starts a host without an HTTP API, with a log of text; what its streams are is the caller's.
fn start(folder: &Folder, config: &str, streams: impl FnOnce(&mut Command)) -> Child {
    fs::write(folder.path("tidemill.toml"), config).unwrap();
    let mut command = Command::new(binary());
    command.args(["run", "--grace", "1s"]).current_dir(folder.path("")).stdin(Stdio::null());
    streams(command.stdout(Stdio::null()).stderr(Stdio::null()));
    command.spawn().unwrap()
}

/// The exit code, which comes soon.
fn exit_code(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn terminate(child: &Child) {
    signal(child, Signal::TERM);
}

fn signal(child: &Child, signal: Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).unwrap();
}

fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    MultiGzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

/// A pipeline whose plugin emits all at once, at the end of a file, to a file sink and to another one.
fn burst(folder: &Folder, path: &str, symbols: usize) -> Host {
    folder.install("vwap", &plugin("vwap"));
    let trade =
        |n| format!("{{\"data\":{{\"e\":\"trade\",\"s\":\"S{n}\",\"p\":\"1\",\"q\":\"2\",\"T\":1000}}}}\n");
    fs::write(folder.path("in.jsonl"), (0..symbols).map(trade).collect::<String>()).unwrap();
    folder.run(&format!(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "p"
        source = {{ type = "file", path = "in.jsonl" }}
        transforms = [{{ plugin = "vwap" }}]
        sinks = [
          {{ type = "file", name = "file", path = "{path}" }},
          {{ type = "websocket", name = "served", mode = "server", path = "/out", include_metadata = true }},
        ]
        "#
    ))
}

#[test]
fn every_answer_of_a_file_sink_is_taken_however_much_a_plugin_emits_at_once() {
    const SYMBOLS: usize = 60_000;
    let folder = Folder::default();
    let host = burst(&folder, "out.jsonl", SYMBOLS);
    host.wait_until("all are delivered", |now| {
        now.count("tidemill_messages_delivered_total", &["sink=\"file\""]) == SYMBOLS as u64
            && now.count("tidemill_messages_in_flight", &[]) == 0
    });
    assert!(host.stop().status.success());
    assert_eq!(fs::read_to_string(folder.path("out.jsonl")).unwrap().lines().count(), SYMBOLS);
}

#[test]
fn on_a_full_disk_every_message_is_counted_as_lost() {
    const SYMBOLS: usize = 60_000;
    let folder = Folder::default();
    let host = burst(&folder, "/dev/full", SYMBOLS);
    host.wait_until("all are counted", |now| {
        let lost = ["stage=\"file\"", "reason=\"sink_unavailable\""];
        now.count("tidemill_messages_dropped_total", &lost) == SYMBOLS as u64
            && now.count("tidemill_messages_in_flight", &[]) == 0
    });
    assert!(host.log().contains("failed to write /dev/full: No space left on device"), "{}", host.log());
    assert!(host.stop().status.success());
}

#[test]
fn dead_letters_for_which_the_disk_is_too_full_are_counted_under_their_own_reason() {
    let folder = Folder::default();
    fs::write(folder.path("in.jsonl"), b"\xff\n".repeat(1_000)).unwrap();
    let dead_letter = "[pipelines.dead_letter]\ntype = \"file\"\npath = \"/dev/full\"\n";
    let config = pipeline("type = \"file\", path = \"in.jsonl\"", "type = \"file\", path = \"out.jsonl\"");
    let host = folder.run(&(config + dead_letter));
    host.wait_until("all are counted", |now| {
        let lost = ["stage=\"source\"", "reason=\"decode\""];
        now.count("tidemill_messages_dropped_total", &lost) == 1_000
            && now.count("tidemill_messages_dead_lettered_total", &[]) == 0
            && now.count("tidemill_messages_in_flight", &[]) == 0
    });
    // The log is written by a thread of its own.
    host.wait_until("the log says so", |_| host.log().contains("dead letter lost"));
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gzip_file_is_whole_again_after_a_kill_for_every_reader_and_can_be_appended_to() {
    let folder = Folder::default();
    let path = folder.path("out.jsonl.gz");
    for run in 0..3 {
        let feed = Feed::open().await;
        let sink = "type = \"file\", path = \"out.jsonl.gz\"";
        let host = folder.run(&pipeline(&format!("type = \"websocket\", url = \"{}\"", feed.url()), sink));
        for n in 0..1_000 {
            feed.text(format!("{{\"run\":{run},\"n\":{n}}}")).await;
        }
        host.wait_until("all are delivered", |now| {
            now.count("tidemill_messages_delivered_total", &["sink=\"out\""]) == 1_000
        });
        match run {
            0 => drop(host),
            // Killed, and what was written last is not there as a whole.
            1 => {
                drop(host);
                let file = OpenOptions::new().append(true).open(&path).unwrap();
                file.set_len(file.metadata().unwrap().len() - 3).unwrap();
            }
            _ => {
                assert!(host.log().contains("gzip file was torn, and is whole again"), "{}", host.log());
                assert!(host.stop().status.success());
            }
        }
    }
    let all = |run| (0..1_000).map(move |n| format!("{{\"run\":{run},\"n\":{n}}}\n"));
    let expected: String = (0..3).flat_map(all).collect();
    assert!(unpacked(&path) == expected);
    let unpacked = Command::new("gzip").arg("-dc").arg(&path).output().unwrap();
    assert!(unpacked.status.success() && unpacked.stdout == expected.as_bytes());
    let program = "import gzip, sys; sys.stdout.buffer.write(gzip.open(sys.argv[1]).read())";
    match Command::new("python3").args(["-c", program]).arg(&path).output() {
        Ok(read) => assert!(read.status.success() && read.stdout == expected.as_bytes()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "Python is optional here"),
    }
    let again = "type = \"file\", path = \"again.jsonl\"";
    let host = folder.run(&pipeline("type = \"file\", path = \"out.jsonl.gz\"", again));
    host.wait_until("all are read", |now| now.count("tidemill_messages_delivered_total", &[]) == 3_000);
    assert!(host.stop().status.success());
    assert!(fs::read_to_string(folder.path("again.jsonl")).unwrap() == expected);
}

#[test]
fn a_torn_last_line_is_ended_and_told_before_anything_is_appended() {
    let folder = Folder::default();
    fs::write(folder.path("in.jsonl"), "{\"n\":2}\n").unwrap();
    let torn = "{\"n\":1}\n{\"n\":";
    fs::write(folder.path("out.jsonl"), torn).unwrap();
    fs::write(folder.path("out.recording"), format!("1 {torn}")).unwrap();
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(torn.as_bytes()).unwrap();
    fs::write(folder.path("out.gz"), packed.finish().unwrap()).unwrap();
    let sink = |path, format| format!("{{ type = \"file\", path = \"{path}\", format = \"{format}\" }}");
    let host = folder.run(&format!(
        "[[pipelines]]\nname = \"p\"\nsource = {{ type = \"file\", path = \"in.jsonl\" }}\nsinks = [{}, {}, {}]\n",
        sink("out.jsonl", "jsonl"),
        sink("out.gz", "jsonl"),
        sink("out.recording", "recording"),
    ));
    host.wait_until("all are delivered", |now| now.count("tidemill_messages_delivered_total", &[]) == 3);
    assert_eq!(host.log().matches("last line of a file is not whole").count(), 3, "{}", host.log());
    assert!(host.stop().status.success());
    let expected = format!("{torn}\n{{\"n\":2}}\n");
    assert_eq!(fs::read_to_string(folder.path("out.jsonl")).unwrap(), expected);
    assert_eq!(unpacked(&folder.path("out.gz")), expected);
    let recording = fs::read_to_string(folder.path("out.recording")).unwrap();
    let appended = recording.strip_prefix(&format!("1 {torn}\n")).unwrap();
    assert!(appended.ends_with(" {\"n\":2}\n") && appended.lines().count() == 1, "{appended}");
}

#[test]
fn a_fifo_as_a_source_holds_up_neither_the_api_nor_the_end() {
    let folder = Folder::default();
    make_fifo(&folder.path("fifo"));
    let config = pipeline("type = \"file\", path = \"fifo\"", "type = \"file\", path = \"out.jsonl\"");
    let host = folder.run(&format!("token = \"t\"\n{config}")).with_token("t");
    let second = serde_json::json!({
        "name": "second",
        "source": { "type": "file", "path": folder.path("fifo") },
        "sinks": [{ "type": "file", "path": folder.path("second.jsonl") }],
    });
    assert_eq!(host.json("POST", "/api/v1/pipelines", &second).0, 201);
    assert_eq!(host.json("DELETE", "/api/v1/pipelines/second", &serde_json::Value::Null).0, 204);
    let mut writer = OpenOptions::new().write(true).open(folder.path("fifo")).unwrap();
    writer.write_all(lines(0..3).as_bytes()).unwrap();
    host.wait_until("all are delivered", |now| {
        now.count("tidemill_messages_delivered_total", &["sink=\"out\""]) == 3
    });
    // The writer stays.
    assert!(host.stop().status.success());
    assert_eq!(fs::read_to_string(folder.path("out.jsonl")).unwrap(), lines(0..3));
}

#[test]
fn a_fifo_as_a_sink_waits_for_its_reader_and_gives_it_everything() {
    let folder = Folder::default();
    make_fifo(&folder.path("fifo"));
    fs::write(folder.path("in.jsonl"), lines(0..50_000)).unwrap();
    let host =
        folder.run(&pipeline("type = \"file\", path = \"in.jsonl\"", "type = \"file\", path = \"fifo\""));
    host.wait_until("messages wait", |now| now.count("tidemill_messages_received_total", &[]) > 0);
    assert_eq!(host.get("/api/v1/pipelines").0, 200);
    let mut text = String::new();
    File::open(folder.path("fifo")).unwrap().read_to_string(&mut text).unwrap();
    assert!(text == lines(0..50_000));
    assert!(host.stop().status.success());
}

#[test]
fn a_fifo_that_nobody_reads_ends_with_the_grace_period_and_its_messages_are_counted() {
    let folder = Folder::default();
    make_fifo(&folder.path("fifo"));
    fs::write(folder.path("in.jsonl"), lines(0..10)).unwrap();
    let config = pipeline("type = \"file\", path = \"in.jsonl\"", "type = \"file\", path = \"fifo\"");
    let host = folder.run_with_grace(Duration::from_secs(1), &config);
    host.wait_until("messages wait", |now| now.count("tidemill_messages_received_total", &[]) == 10);
    let ended = host.stop();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    assert!(ended.log.contains("the grace period ran out"), "{}", ended.log);
}

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

#[tokio::test]
async fn a_recording_is_whole_when_the_terminal_closes_and_goes_on_where_that_is_ignored() {
    let folder = Folder::default();
    for is_ignored in [false, true] {
        let feed = Feed::open().await;
        // Whatever whoever runs the tests does about the signal.
        let hup = if is_ignored { "--ignore-signal=HUP" } else { "--default-signal=HUP" };
        let mut command = Command::new("env");
        command.arg(hup).arg(binary());
        command.args(["record", &feed.url(), "-o", "x.jsonl.gz"]).current_dir(folder.path(""));
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Taken once it is dialled, and then its signals are obeyed.
        feed.text("one").await;
        let written = || fs::metadata(folder.path("x.jsonl.gz")).is_ok_and(|file| file.len() > 0);
        until(written).await;
        signal(&child, Signal::HUP);
        if is_ignored {
            let before = fs::metadata(folder.path("x.jsonl.gz")).unwrap().len();
            feed.text("two").await;
            until(|| fs::metadata(folder.path("x.jsonl.gz")).unwrap().len() > before).await;
            terminate(&child);
        }
        let code = tokio::task::spawn_blocking(move || exit_code(&mut child)).await.unwrap();
        assert_eq!(code, Some(0));
        let text = unpacked(&folder.path("x.jsonl.gz"));
        let texts: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        assert_eq!(texts, if is_ignored { &["one", "two"][..] } else { &["one"] });
        fs::remove_file(folder.path("x.jsonl.gz")).unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_recording_that_is_played_once_is_an_error_that_names_it() {
    let folder = Folder::default();
    let recording = fs::read(root().join("examples/data/binance-combined-20240808.jsonl.gz")).unwrap();
    fs::write(folder.path("torn.jsonl.gz"), &recording[..recording.len() / 10]).unwrap();
    let mut replay = Command::new(binary());
    replay.args(["replay", "torn.jsonl.gz", "--listen", "127.0.0.1:0", "--speed", "max", "--once"]);
    let replay = Host::start(replay.args(["--log-format", "json"]).current_dir(folder.path("")));
    let address = replay.logged("where it listens", |fields| {
        let url = fields["url"].as_str().filter(|_| fields["message"] == "replaying")?;
        url.strip_prefix("ws://")?.strip_suffix('/')?.parse().ok()
    });
    let peer = tokio::spawn(close_code_at_the_end(dial(address, "/").await));
    let mut demo = Command::new(binary());
    let plugins = plugin("vwap");
    demo.args(["demo", "--speed", "max", "--recording", "torn.jsonl.gz", "--plugins"]);
    let demo = Host::start(demo.arg(plugins.parent().unwrap()).current_dir(folder.path("")));
    for host in [replay, demo] {
        let ended = tokio::task::spawn_blocking(move || host.wait()).await.unwrap();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
        assert!(ended.log.contains("error: failed to read torn.jsonl.gz: "), "{}", ended.log);
    }
    assert_eq!(peer.await.unwrap(), Some(1011));
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

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_packs_small_takes_no_more_memory_than_the_bounds_say() {
    const BOMBS: usize = 40;
    /// Unpacked they are 600 MiB; 16 MiB is the largest message, and few are held at once.
    const MOST_MIB: u64 = 300;
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![b'0'; 15 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    let source = "payload_compression = \"gzip\"";
    let folder = Folder::default();
    let feed = Feed::open().await;
    let config = pipeline(
        &format!("type = \"websocket\", url = \"{}\", {source}", feed.url()),
        "type = \"file\", path = \"/dev/null\"",
    );
    let host = folder.run(&config);
    for _ in 0..BOMBS {
        feed.send(Message::binary(bomb.clone())).await;
    }
    host.wait_until("all are delivered", |now| {
        now.count("tidemill_messages_delivered_total", &[]) == BOMBS as u64
    });
    let dialled = most_mib(&host);
    assert!(host.stop().status.success());

    let folder = Folder::default();
    let server = "type = \"websocket\", mode = \"server\", path = \"/in\", max_message_size = \"16MiB\"";
    let config = pipeline(&format!("{server}, {source}"), "type = \"file\", path = \"/dev/null\"");
    let host = folder.run(&format!("[server]\nport = 0\n\n{config}"));
    let mut peer = dial(host.listening("websocket"), "/in").await;
    for _ in 0..BOMBS {
        use futures_util::SinkExt as _;
        peer.send(Message::binary(bomb.clone())).await.unwrap();
    }
    host.wait_until("all are delivered", |now| {
        now.count("tidemill_messages_delivered_total", &[]) == BOMBS as u64
    });
    let accepted = most_mib(&host);
    assert!(host.stop().status.success());
    assert!(dialled < MOST_MIB && accepted < MOST_MIB, "{dialled} MiB dialled, {accepted} MiB accepted");
}

#[test]
fn a_line_without_an_end_is_counted_once_as_too_large_and_never_in_memory_as_a_whole() {
    const LINE_BYTES: u64 = 2 << 30;
    const MOST_MIB: u64 = 300;
    let folder = Folder::default();
    fs::write(folder.path("in.jsonl"), lines(0..2)).unwrap();
    let mut file = OpenOptions::new().append(true).open(folder.path("in.jsonl")).unwrap();
    // A hole of the file takes no room on the disk, and is read as zeros.
    file.set_len(file.metadata().unwrap().len() + LINE_BYTES).unwrap();
    file.write_all(format!("\n{}", lines(2..4)).as_bytes()).unwrap();
    let dead_letter = "[pipelines.dead_letter]\ntype = \"file\"\npath = \"dead.jsonl\"\n";
    let config = pipeline("type = \"file\", path = \"in.jsonl\"", "type = \"file\", path = \"out.jsonl\"");
    let host = folder.run(&format!("{config}{dead_letter}"));
    let now = host.wait_until("all are through", |now| {
        now.count("tidemill_messages_delivered_total", &["sink=\"out\""]) == 4
            && now.count("tidemill_messages_dead_lettered_total", &[]) == 1
    });
    let too_large = ["stage=\"source\"", "reason=\"too_large\""];
    assert_eq!(now.count("tidemill_messages_dead_lettered_total", &too_large), 1);
    assert_eq!(now.count("tidemill_messages_received_total", &[]), 5);
    let most = most_mib(&host);
    assert!(most < MOST_MIB, "{most} MiB");
    assert!(host.stop().status.success());
    assert_eq!(fs::read_to_string(folder.path("out.jsonl")).unwrap(), lines(0..4));
    let dead = fs::read_to_string(folder.path("dead.jsonl")).unwrap();
    assert!(dead.contains("its message may have 16 MiB"), "{dead}");
}

#[test]
fn vwap_closes_idle_windows_of_a_recording_by_the_times_of_the_recording() {
    const TRADES: u64 = 36_000;
    let folder = Folder::default();
    folder.install("vwap", &plugin("vwap"));
    // Half an hour of two symbols, years ago, a trade of each every 100 ms; one of them pauses for an hour.
    let trade = |n: u64| {
        let time_ms = 1_723_100_000_000 + n / 2 * 100 + if n >= TRADES / 2 { 3_600_000 } else { 0 };
        let symbol = ["BTC", "ETH"][(n % 2) as usize];
        let data = format!("{{\"e\":\"trade\",\"s\":\"{symbol}\",\"p\":\"1\",\"q\":\"1\",\"T\":{time_ms}}}");
        format!("{} {{\"data\":{data}}}\n", time_ms * 1_000_000)
    };
    fs::write(folder.path("in.recording"), (0..TRADES).map(trade).collect::<String>()).unwrap();
    let host = folder.run(
        r#"
        [[pipelines]]
        name = "p"
        source = { type = "file", path = "in.recording", format = "recording" }
        transforms = [{ plugin = "vwap", config = { window = "1m", idle_close = "5s" } }]
        sinks = [{ type = "file", path = "out.jsonl" }]
        "#,
    );
    let now = host.wait_until("all are through", |now| {
        now.count("tidemill_stage_messages_in_total", &[]) == TRADES
            && now.count("tidemill_messages_in_flight", &[]) == 0
            && fs::read_to_string(folder.path("out.jsonl")).is_ok_and(|text| text.contains("\"final\":false"))
    });
    assert_eq!(now.count("tidemill_guest_late_total", &[]), 0);
    assert!(host.stop().status.success());
    let out = fs::read_to_string(folder.path("out.jsonl")).unwrap();
    let windows: Vec<serde_json::Value> =
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let counted: u64 = windows.iter().map(|window| window["count"].as_u64().unwrap()).sum();
    assert_eq!(counted, TRADES);
}

#[test]
fn a_recording_gives_the_same_output_twice_whatever_the_plugin_draws() {
    let Some(steered) = guest("steered") else { return };
    let folder = Folder::default();
    folder.install("steered", &steered);
    let record = |n: u64| format!("{} m{n} random\n", 1_723_100_000_000_000_000 + n * 1_000_000);
    fs::write(folder.path("in.recording"), (0..1000).map(record).collect::<String>()).unwrap();
    let draws = |format: &str, input: &str, out: &str| {
        let transform = "transforms = [{ plugin = \"steered\", config = { word = 1 } }]\n";
        let ends = pipeline(
            &format!("type = \"file\", path = \"{input}\", format = \"{format}\""),
            &format!("type = \"file\", path = \"{out}\""),
        );
        let mut host = start(&folder, &format!("{ends}{transform}"), |_| {});
        assert_eq!(exit_code(&mut host), Some(0));
        let drawn = fs::read_to_string(folder.path(out)).unwrap();
        assert_eq!(drawn.lines().count(), 1000);
        drawn
    };
    let first = draws("recording", "in.recording", "first.jsonl");
    assert_eq!(first, draws("recording", "in.recording", "second.jsonl"));
    let different: std::collections::BTreeSet<&str> = first.lines().collect();
    assert!(different.len() > 990, "chance is still chance");
    // Without times of its own a source is no replay.
    let line = |n: u64| format!("m{n} random\n");
    fs::write(folder.path("in.jsonl"), (0..1000).map(line).collect::<String>()).unwrap();
    let live = draws("jsonl", "in.jsonl", "third.jsonl");
    assert_ne!(live, draws("jsonl", "in.jsonl", "fourth.jsonl"));
}

/// The most memory that a host has had, in MiB.
fn most_mib(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.id())).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    most.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}
