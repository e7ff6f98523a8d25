//! Recordings that are played again: plugins are told the same of time and chance, and are answered what they were
//! answered, without a network.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use tidemill_tests::host::{Folder, Host, binary};
use tidemill_tests::peers::{Feed, dial};
use tidemill_tests::sockets::text;
use tidemill_tests::{guest, plugin};

/// When the first message of a recording was received: years ago.
const FIRST_NS: u64 = 1_723_100_000_000_000_000;

fn rust_guest(name: &str) -> PathBuf {
    guest(name).expect("guests in Rust are built")
}

/// `tidemill plugin run` in a folder, on a file of it.
fn plugin_run(folder: &Folder, plugin: &str, args: &[&str], input: &str) -> String {
    let mut command = Command::new(binary());
    command.args(["plugin", "run"]).arg(rust_guest(plugin)).args(args).current_dir(folder.path(""));
    succeeded(&command.stdin(File::open(folder.path(input)).unwrap()).output().unwrap())
}

fn succeeded(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a pipeline from a file through a plugin to another file gives.
fn played(folder: &Folder, input: &str, format: &str, transform: &str) -> String {
    let _ = fs::remove_file(folder.path("out.jsonl"));
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "p"
        source = {{ type = "file", path = "{input}", format = "{format}" }}
        transforms = [{{ {transform} }}]
        sinks = [{{ type = "file", path = "out.jsonl" }}]
        "#
    ));
    host.becomes("p", "finished");
    assert!(host.stop().status.success());
    fs::read_to_string(folder.path("out.jsonl")).unwrap()
}

#[test]
fn what_wasi_says_of_time_and_chance_is_the_same_in_each_replay_and_nobody_waits() {
    let folder = Folder::default();
    folder.install("sleeper", &rust_guest("sleeper"));
    // More than is read at once.
    let long = "x".repeat(300);
    let line = |n: u64| format!("{} {long}\n", FIRST_NS + n * 1_000_000);
    fs::write(folder.path("in.recording"), (0..1000).map(line).collect::<String>()).unwrap();
    let transform = "plugin = \"sleeper\", config = { where = \"nowhere\" }, max_batch = 7";
    let first = played(&folder, "in.recording", "recording", transform);
    assert_eq!(first, played(&folder, "in.recording", "recording", transform));
    let lines: std::collections::BTreeSet<&str> = first.lines().collect();
    assert_eq!(lines.len(), 1000, "chance is still chance, and time goes on");
    let told = first.lines().next().unwrap();
    // Before the first message there is no time; then it is that of the last message of the batch.
    assert!(told.starts_with("0.000000000 ") && told.contains(" 1723100000.006000000 "), "{told}");

    let args = ["--config", r#"{"where":"nowhere"}"#];
    let replay = |format: &[&str]| plugin_run(&folder, "sleeper", &[&args, format].concat(), "in.recording");
    let first = replay(&["--format", "recording"]);
    assert_eq!(first, replay(&["--format", "recording"]));
    // Who is not in a replay waits for its time, and has it by the clocks of the machine.
    fs::write(folder.path("in.recording"), "a\nb\n").unwrap();
    assert_ne!(replay(&[]), replay(&[]));
}

#[test]
fn timers_of_a_replay_are_called_between_the_messages_whatever_the_batches_are() {
    let folder = Folder::default();
    folder.install("vwap", &plugin("vwap"));
    folder.install("forward", &plugin("forward"));
    let trade = |ms: u64, symbol: &str, price: u64| {
        let (ns, at_ms) = (FIRST_NS + ms * 1_000_000, FIRST_NS / 1_000_000 + ms);
        format!(
            "{ns} {{\"data\":{{\"e\":\"trade\",\"s\":\"{symbol}\",\"p\":{price},\"q\":1,\"T\":{at_ms}}}}}\n"
        )
    };
    // The first windows are idle in the gap, and the second of A before the last message, whose window ends with it.
    let lines =
        [trade(0, "A", 1), trade(40, "B", 5), trade(90, "A", 3), trade(9_000, "A", 7), trade(9_900, "B", 9)];
    fs::write(folder.path("in.recording"), lines.concat()).unwrap();
    let transforms = |max_batch: usize| {
        format!(
            "plugin = \"forward\", max_batch = {max_batch} }}, {{ plugin = \"vwap\", max_batch = {max_batch}, \
             config = {{ window = \"1s\", idle_close = \"500ms\" }}"
        )
    };
    let first = played(&folder, "in.recording", "recording", &transforms(1));
    let told = first.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let told: Vec<_> =
        told.map(|told| format!("{} {} {}", told["symbol"], told["vwap"], told["final"])).collect();
    // B was idle for long enough before A was.
    assert_eq!(told, ["\"B\" 5.0 true", "\"A\" 2.0 true", "\"A\" 7.0 true", "\"B\" 9.0 false"]);
    for max_batch in [2, 3, 256] {
        assert_eq!(
            first,
            played(&folder, "in.recording", "recording", &transforms(max_batch)),
            "{max_batch}"
        );
    }
}

#[test]
fn timer_and_clock_are_told_the_moment_in_the_recording_and_no_timer_comes_before_the_first_message() {
    let folder = Folder::default();
    folder.install("moody", &rust_guest("moody"));
    let line = |ms: u64| format!("{} after\n", FIRST_NS + ms * 1_000_000);
    fs::write(folder.path("in.recording"), [0, 999, 1_000, 4_700].map(line).concat()).unwrap();
    let transform = "plugin = \"moody\", config = { tick_ms = 1000, tells_time = true }";
    let moment = |ms: u64| format!("{0} {0}", FIRST_NS / 1_000 + ms * 1_000);
    let expected = ["after", "after", &moment(1_000), "after", &moment(4_000), "after", "final 0"];
    let told = played(&folder, "in.recording", "recording", transform);
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}

/// A server of this machine: says how often it was asked, and what; on `/echo` the header `authorization` too.
struct Server {
    origin: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        std::thread::spawn({
            let asked = asked.clone();
            move || {
                while let Ok((stream, _)) = listener.accept() {
                    let mut stream = BufReader::new(stream);
                    let (mut line, mut proof, mut body_bytes) = (String::new(), String::new(), 0);
                    stream.read_line(&mut line).unwrap();
                    loop {
                        let mut header = String::new();
                        stream.read_line(&mut header).unwrap();
                        match header.trim_end().to_lowercase().split_once(": ") {
                            None => break,
                            Some(("authorization", value)) => proof = value.to_owned(),
                            Some(("content-length", value)) => body_bytes = value.parse().unwrap(),
                            Some(_) => {}
                        }
                    }
                    let mut body = vec![0; body_bytes];
                    stream.read_exact(&mut body).unwrap();
                    let path = line.split(' ').nth(1).unwrap().to_owned();
                    let number = {
                        let mut asked = asked.lock().unwrap();
                        asked.push(proof.clone());
                        asked.len()
                    };
                    let proof = if path == "/echo" { proof } else { String::new() };
                    let answer = format!("{number}: {path} {}{proof}", String::from_utf8(body).unwrap());
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
                    stream.get_mut().write_all(format!("{head}{answer}").as_bytes()).unwrap();
                }
            }
        });
        Self { origin, asked }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plugin_was_answered_is_recorded_and_played_back_without_a_network() {
    let folder = Folder::default();
    fs::write(folder.path("token"), "s3cret\n").unwrap();
    let server = Server::start();
    let origin = server.origin.as_str();
    let feed = Feed::open().await;
    let messages = [
        format!("GET {origin}/a"),
        format!("GET {origin}/a\nGET {origin}/b"),
        format!("POST {origin}/a # what is sent"),
        format!("GET {origin}/echo"),
        "GET https://elsewhere.example/".to_owned(),
    ];
    for message in &messages {
        feed.text(message).await;
    }
    let config = format!(r#"{{"init":"{origin}/init"}}"#);
    let live = tokio::task::block_in_place(|| {
        let mut record = Command::new(binary());
        record.args(["record", &feed.url(), "-o", "feed.recording", "--count", "5", "--config", &config]);
        record.arg("--plugin").arg(rust_guest("asking")).args(["--allow", origin]);
        record.args(["--http", r#"{"headers":{"Authorization":"Bearer ${file:token}"}}"#]);
        succeeded(&record.current_dir(folder.path("")).output().unwrap())
    });
    assert_eq!(server.asked(), 6, "{live}");
    assert!(server.asked.lock().unwrap().iter().all(|proof| proof == "bearer s3cret"));
    for answer in ["200 1: /init", "/a what is sent", "/echo bearer ***", "elsewhere.example is not granted"]
    {
        assert!(live.contains(answer), "{answer}: {live}");
    }
    let recording = fs::read_to_string(folder.path("feed.recording")).unwrap();
    assert!(!recording.contains("s3cret") && recording.contains("{\"$http\":"), "{recording}");
    assert_eq!(recording.lines().count(), 5 + 7, "{recording}");

    tokio::task::block_in_place(|| {
        let run = |args: &[&str], input: &str| {
            plugin_run(
                &folder,
                "asking",
                &[&["--config", &config, "--format", "recording"], args].concat(),
                input,
            )
        };
        assert_eq!(run(&[], "feed.recording"), live);
        assert_eq!(run(&["--allow", origin], "feed.recording"), live);
        // In a pipeline too, packed or not.
        folder.install("asking", &rust_guest("asking"));
        let transform =
            format!("plugin = \"asking\", config = {{ init = \"{origin}/init\" }}, allow = [\"{origin}\"]");
        assert_eq!(played(&folder, "feed.recording", "recording", &transform), live);
        let packed = File::create(folder.path("feed.recording.gz")).unwrap();
        let mut packer = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
        packer.write_all(recording.as_bytes()).unwrap();
        packer.finish().unwrap();
        assert_eq!(played(&folder, "feed.recording.gz", "recording", &transform), live);

        // What was not recorded is refused by name; what is asked more often is answered as it was last.
        let more =
            format!("{recording}9 GET {origin}/a\n9 GET {origin}/other\n9 POST {origin}/a # otherwise\n");
        fs::write(folder.path("more.recording"), more).unwrap();
        let told = run(&[], "more.recording");
        let told: Vec<_> = told.lines().skip(5).collect();
        let last = live.lines().nth(1).unwrap().split_once("/a").unwrap().0.rsplit("200 ").next().unwrap();
        assert_eq!(told[0], format!("200 {last}/a "));
        for (told, request) in told[1..].iter().zip(["GET", "POST"]) {
            let expected = format!("the request is denied: {request} {origin}");
            assert!(told.starts_with(&expected) && told.contains("is not in the recording"), "{told}");
        }
        // Where the recording is no file, nobody is asked either.
        let mut piped = Command::new(binary());
        piped.args(["plugin", "run", "--format", "recording"]).arg(rust_guest("asking"));
        let mut piped =
            piped.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        piped.stdin.take().unwrap().write_all(format!("9 GET {origin}/a\n").as_bytes()).unwrap();
        let told = succeeded(&piped.wait_with_output().unwrap());
        assert!(told.contains("it is no file, and can be read only once"), "{told}");
        // A damaged one is told by its name.
        let damaged = recording.replacen("\"request\"", "\"reqest\"", 1);
        fs::write(folder.path("damaged.recording"), damaged).unwrap();
        let told = played(&folder, "damaged.recording", "recording", &transform);
        assert!(told.contains("damaged.recording: its HTTP exchange 1 is damaged: missing field"), "{told}");
        assert_eq!(server.asked(), 6, "nobody was asked again");
    });

    // Peers of a replay get the messages alone.
    let mut replay = Command::new(binary());
    replay.args(["replay", "feed.recording", "--listen", "127.0.0.1:0", "--log-format", "json"]);
    let host = Host::start(replay.current_dir(folder.path("")));
    let address = tokio::task::block_in_place(|| {
        host.logged("it replays", |fields| {
            let url = fields.get("url")?.as_str()?;
            url.strip_prefix("ws://")?.trim_end_matches('/').parse().ok()
        })
    });
    let mut peer = dial(address, "/").await;
    for message in &messages {
        assert_eq!(text(&mut peer).await, *message);
    }
}

#[test]
fn options_of_a_plugin_are_checked_as_in_a_configuration_and_are_for_a_plugin() {
    let run = |args: &[&str]| {
        let output = Command::new(binary()).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (option, value, told) in [
        ("--allow", "http://example.com", "error: --allow: "),
        ("--http", r#"{"timeot":"1s"}"#, "error: --http: unknown key `timeot`"),
    ] {
        let mut args = vec!["plugin", "run", "x.wasm", option, value];
        if option == "--http" {
            args.extend(["--allow", "https://example.com"]);
        }
        let (code, errors) = run(&args);
        assert!(code == Some(2) && errors.contains(told), "{errors}");
    }
    let (code, errors) = run(&["record", "ws://127.0.0.1:9/", "-o", "x", "--allow", "https://example.com"]);
    assert!(code == Some(2) && errors.contains("are for the plugin that --plugin names"), "{errors}");
}
