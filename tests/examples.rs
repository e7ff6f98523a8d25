//! The examples do what their pages say: each is run as it is, on its recorded input, and its output
//! compared with what is expected. The demo's windows are computed again, by other means.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::SinkExt;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tidemill_tests::host::{Host, binary};
use tidemill_tests::peers::dial;
use tidemill_tests::sockets::{stopped, text};
use tidemill_tests::{plugin, root};
use tokio_tungstenite::tungstenite::Message;

/// As far apart as two orders of summing may be.
const TOLERANCE: f64 = 1e-9;
/// Between two messages to somebody who may not be there yet.
const BETWEEN_PROBES: Duration = Duration::from_millis(50);

fn example(name: &str) -> PathBuf {
    root().join("examples").join(name)
}

/// A server that plays a file once, as fast as it is read.
fn replay(file: &Path) -> (Host, String) {
    let mut command = Command::new(binary());
    command.args(["replay", "--log-format", "json", "--listen", "127.0.0.1:0", "--once", "--speed", "max"]);
    let replay = Host::start(command.arg(file));
    let url = replay.logged("replaying", |fields| Some(fields.get("url")?.as_str()?.to_owned()));
    (replay, url)
}

fn run(name: &str, variables: &[(&str, &str)]) -> Host {
    plugin("forward");
    let mut command = Command::new(binary());
    command.args(["run", "--log-format", "json", "-c"]).arg(example(name).join("tidemill.toml"));
    Host::start(command.envs(variables.iter().copied()))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("output is JSON lines")).collect()
}

/// Whether two windows are the same, but for the order in which their sums were made.
fn is_same_window(a: &Value, b: &Value) -> bool {
    let exact = ["symbol", "window_start", "window_end", "count", "final"];
    let close = |key: &str| {
        let (a, b) = (a[key].as_f64().unwrap_or(f64::NAN), b[key].as_f64().unwrap_or(f64::NAN));
        (a - b).abs() <= TOLERANCE * b.abs()
    };
    exact.iter().all(|key| a[key] == b[key]) && close("vwap") && close("volume")
}

fn by_symbol_and_time(window: &Value) -> (String, i64) {
    (window["symbol"].to_string(), window["window_start"].as_i64().unwrap_or(0))
}

fn assert_same_windows(mut got: Vec<Value>, mut expected: Vec<Value>) {
    got.sort_by_key(by_symbol_and_time);
    expected.sort_by_key(by_symbol_and_time);
    assert_eq!(got.len(), expected.len(), "{got:#?}");
    for (got, expected) in got.iter().zip(&expected) {
        assert!(is_same_window(got, expected), "{got} is not {expected}");
    }
}

#[test]
fn binance_vwap_prints_what_is_expected() {
    let (replay, url) = replay(&example("binance-vwap").join("input.jsonl.gz"));
    let host = run("binance-vwap", &[("FEED", &url)]);
    assert!(replay.wait().status.success());
    let ended = host.stop();
    assert!(ended.status.success(), "{}", ended.log);
    let expected = fs::read_to_string(example("binance-vwap").join("expected.jsonl")).unwrap();
    assert_same_windows(lines(&ended.output), lines(&expected));
}

#[test]
fn combined_streams_gives_every_stream_its_file() {
    let out = tempfile::tempdir().unwrap();
    let (replay, url) = replay(&example("combined-streams").join("input.jsonl.gz"));
    let host = run("combined-streams", &[("FEED", &url), ("OUT", out.path().to_str().unwrap())]);
    assert!(replay.wait().status.success());
    let ended = host.stop();
    assert!(ended.status.success(), "{}", ended.log);
    let expected = |name: &str| fs::read_to_string(example("combined-streams/expected").join(name)).unwrap();
    for name in ["btc.jsonl", "trades.jsonl"] {
        assert_eq!(fs::read_to_string(out.path().join(name)).unwrap(), expected(name), "{name}");
    }
    let mut quotes = String::new();
    let packed = fs::File::open(out.path().join("quotes.jsonl.gz")).unwrap();
    std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(packed), &mut quotes).unwrap();
    // A recording: the time of receipt stands before each message.
    let texts: String = quotes.lines().map(|line| format!("{}\n", line.split_once(' ').unwrap().1)).collect();
    assert_eq!(texts, expected("quotes.jsonl"));
    let dead = lines(&fs::read_to_string(out.path().join("dead.jsonl")).unwrap());
    let refused: Vec<_> = dead.iter().map(|letter| letter["payload"].as_str().unwrap()).collect();
    assert_eq!(refused, ["not JSON", "{\"stream\":\"btcusdt@trade\"}"]);
    assert!(dead.iter().all(|letter| letter["reason"] == "rejected" && letter["stage"] == "demux"));
}

#[tokio::test]
async fn websocket_server_passes_alerts_from_devices_to_dashboards() {
    let out = tempfile::tempdir().unwrap();
    let host = run("websocket-server", &[("PORT", "0"), ("OUT", out.path().to_str().unwrap())]);
    let address = host.listening("websocket");
    let mut dashboard = dial(address, "/out").await;
    let mut device = dial(address, "/in").await;
    // Its handshake is answered before it joins: the dashboard is there once it gets something.
    let probe = r#"{"device":"probe","temperature":99}"#;
    loop {
        device.send(Message::text(probe)).await.unwrap();
        if tokio::time::timeout(BETWEEN_PROBES, text(&mut dashboard)).await.is_ok() {
            break;
        }
    }
    let input = fs::read_to_string(example("websocket-server").join("input.jsonl")).unwrap();
    for line in input.lines() {
        device.send(Message::text(line)).await.unwrap();
    }
    let expected = fs::read_to_string(example("websocket-server").join("expected.jsonl")).unwrap();
    for line in expected.lines() {
        let mut alert = text(&mut dashboard).await;
        while alert == probe {
            alert = text(&mut dashboard).await;
        }
        assert_eq!(alert, line);
    }
    let ended = stopped(host, [dashboard, device]).await;
    assert!(ended.status.success(), "{}", ended.log);
    let dead = lines(&fs::read_to_string(out.path().join("dead.jsonl")).unwrap());
    assert_eq!(dead.len(), 1);
    assert_eq!((&dead[0]["payload"], &dead[0]["reason"]), (&"no reading".into(), &"decode".into()));
}

/// VWAP of every symbol and minute, by the plainest means: a tree of each message, sums of floats.
fn windows_of(recording: &str) -> Vec<Value> {
    let mut sums: BTreeMap<(String, i64), (f64, f64, u64)> = BTreeMap::new();
    for line in recording.lines() {
        let message: Value = serde_json::from_str(line.split_once(' ').unwrap().1).unwrap();
        let trade = &message["data"];
        if trade["e"] != "trade" {
            continue;
        }
        let number = |key: &str| trade[key].as_str().unwrap().parse::<f64>().unwrap();
        let time = trade["T"].as_i64().unwrap();
        let key = (trade["s"].as_str().unwrap().to_owned(), time - time % 60_000);
        let (turnover, volume, count) = sums.entry(key).or_default();
        *turnover += number("p") * number("q");
        *volume += number("q");
        *count += 1;
    }
    let last: BTreeMap<String, i64> = sums.keys().cloned().collect();
    let window = |((symbol, start), (turnover, volume, count)): ((String, i64), (f64, f64, u64))| {
        serde_json::json!({
            "final": start != last[&symbol], "symbol": symbol, "window_start": start,
            "window_end": start + 60_000, "vwap": turnover / volume, "volume": volume, "count": count,
        })
    };
    sums.into_iter().map(window).collect()
}

#[test]
fn the_demo_computes_every_window_of_the_recording_and_loses_nothing() {
    let file = root().join("examples/data/binance-combined-20240808.jsonl.gz");
    let mut command = Command::new(binary());
    command.args(["demo", "--log-format", "json", "--once", "--speed", "max", "--recording"]).arg(&file);
    command.arg("--plugins").arg(plugin("vwap").parent().unwrap());
    let ended = Host::start(&mut command).wait();
    assert!(ended.status.success(), "{}", ended.log);
    assert!(ended.log.contains("74,867 messages in"), "{}", ended.log);
    let mut recording = String::new();
    let packed = fs::File::open(file).unwrap();
    std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(packed), &mut recording).unwrap();
    assert_same_windows(lines(&ended.output), windows_of(&recording));
}
