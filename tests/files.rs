//! Files, FIFOs and the standard streams as users have them: full, torn, without a reader, and gone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "files/fifos.rs"]
mod fifos;
#[path = "files/recordings.rs"]
mod recordings;
#[path = "files/streams.rs"]
mod streams;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use rustix::process::Signal;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tidemill_tests::host::{Folder, Host, PATIENCE, binary};
use tidemill_tests::peers::{Feed, dial};
use tidemill_tests::{plugin, root};
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
    host.says("failed to write /dev/full: No space left on device");
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
    host.says("dead letter lost");
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
                host.says("gzip file was torn, and is whole again");
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
    host.says_times("last line of a file is not whole", 3);
    assert!(host.stop().status.success());
    let expected = format!("{torn}\n{{\"n\":2}}\n");
    assert_eq!(fs::read_to_string(folder.path("out.jsonl")).unwrap(), expected);
    assert_eq!(unpacked(&folder.path("out.gz")), expected);
    let recording = fs::read_to_string(folder.path("out.recording")).unwrap();
    let appended = recording.strip_prefix(&format!("1 {torn}\n")).unwrap();
    assert!(appended.ends_with(" {\"n\":2}\n") && appended.lines().count() == 1, "{appended}");
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

/// The most memory that a host has had, in MiB.
fn most_mib(host: &Host) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", host.id())).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    most.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}
