//! Recordings: made and torn, and played as a source.

use super::*;
use rustix::process::Signal;
use tidemill_tests::guest;
use tidemill_tests::sockets::{close_code_at_the_end, until};

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
