//! What a hostile plugin can do to a pipeline: the counter that names it moves, only the message at
//! fault is lost, a neighbour notices nothing, and the host lives.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use tidemill_tests::host::{Folder, Host, binary};
use tidemill_tests::peers::{Collector, Feed};
use tidemill_tests::sockets::until;
use tidemill_tests::{guest, plugin};
use tokio::net::TcpListener;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Messages through each pipeline; one in a thousand is poison.
const MESSAGES: usize = 3000;

struct Scene {
    folder: Folder,
    host: Host,
    hostile: (Feed, Collector),
    neighbour: (Feed, Collector),
}

async fn scene(behaviour: &str) -> Scene {
    let folder = Folder::default();
    folder.install("hostile", &guest("hostile").expect("guests in Rust are built"));
    folder.install("forward", &plugin("forward"));
    let hostile = (Feed::open().await, Collector::open().await);
    let neighbour = (Feed::open().await, Collector::open().await);
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "hostile"
        source = {{ type = "websocket", url = "{}" }}
        transforms = [{{ plugin = "hostile", config = {{ behaviour = "{behaviour}" }} }}]
        sinks = [{{ type = "websocket", url = "{}", outputs = ["*"] }}]
        dead_letter = {{ type = "file", path = "dead.jsonl", format = "jsonl" }}

        [[pipelines]]
        name = "neighbour"
        source = {{ type = "websocket", url = "{}" }}
        transforms = [{{ plugin = "forward" }}]
        sinks = [{{ type = "websocket", url = "{}" }}]
        "#,
        hostile.0.url(),
        hostile.1.url(),
        neighbour.0.url(),
        neighbour.1.url(),
    ));
    Scene { folder, host, hostile, neighbour }
}

fn text(n: usize) -> String {
    if n % 1000 == 500 { "poison".to_owned() } else { n.to_string() }
}

/// Runs both pipelines; gives the dead letters, checked to be the poison alone.
async fn poisoned(behaviour: &str, reason: &str, kind: &str) {
    let mut scene = scene(behaviour).await;
    for n in 0..MESSAGES {
        scene.hostile.0.text(text(n)).await;
        scene.neighbour.0.text(n.to_string()).await;
    }
    for n in 0..MESSAGES {
        assert_eq!(scene.neighbour.1.text().await, n.to_string());
    }
    for n in (0..MESSAGES).filter(|n| text(*n) != "poison") {
        assert_eq!(scene.hostile.1.text().await, n.to_string(), "{behaviour}");
    }
    let host = scene.host;
    let labels = ["pipeline=\"hostile\"", "stage=\"hostile\"", &format!("reason=\"{reason}\"")];
    let metrics = host.wait_until("the dead letters are written", |now| {
        now.count("tidemill_messages_dead_lettered_total", &labels) == 3
    });
    let faults = ["pipeline=\"hostile\"", &format!("kind=\"{kind}\"")];
    assert!(metrics.count("tidemill_plugin_faults_total", &faults) >= 3, "{}", metrics.text);
    assert_eq!(metrics.count("tidemill_plugin_faults_total", &["pipeline=\"neighbour\""]), 0);
    let stage = ["pipeline=\"hostile\"", "transform=\"hostile\""];
    let passed = metrics.count("tidemill_messages_passed_total", &stage);
    assert_eq!(passed, MESSAGES as u64 - 3);
    let ended = host.stop();
    assert!(ended.status.success(), "{}", ended.log);
    let letters = std::fs::read_to_string(scene.folder.path("dead.jsonl")).unwrap();
    let letters: Vec<serde_json::Value> =
        letters.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(letters.len(), 3);
    for letter in letters {
        assert_eq!((&letter["payload"], &letter["reason"]), (&"poison".into(), &reason.into()));
        assert_eq!((&letter["plugin"], &letter["stage"]), (&"hostile".into(), &"hostile".into()));
        assert!(letter["version"].as_str().unwrap().starts_with("sha256:"));
    }
}

#[tokio::test]
async fn an_endless_loop_costs_one_message() {
    poisoned("endless_loop", "deadline", "deadline").await;
}

#[tokio::test]
async fn a_memory_bomb_costs_one_message() {
    poisoned("memory_bomb", "memory", "memory").await;
}

#[tokio::test]
async fn a_deep_recursion_costs_one_message() {
    poisoned("deep_recursion", "trap", "trap").await;
}

#[tokio::test]
async fn a_panic_on_one_message_in_a_thousand_costs_those_messages() {
    poisoned("panic", "trap", "trap").await;
}

#[tokio::test]
async fn an_output_flood_costs_one_message() {
    poisoned("output_flood", "output", "output").await;
}

#[tokio::test]
async fn a_lying_offset_costs_one_message() {
    poisoned("end_beyond_data", "invalid", "invalid").await;
}

#[tokio::test]
async fn a_log_flood_is_cut_down_and_costs_nothing() {
    let mut scene = scene("log_flood").await;
    for n in 0..MESSAGES {
        scene.hostile.0.text(text(n)).await;
        scene.neighbour.0.text(n.to_string()).await;
    }
    for n in 0..MESSAGES {
        assert_eq!(scene.neighbour.1.text().await, n.to_string());
        assert_eq!(scene.hostile.1.text().await, text(n));
    }
    let ended = scene.host.stop();
    assert!(ended.status.success(), "{}", ended.log);
    let guest_lines = ended.log.lines().filter(|line| line.contains("\"target\":\"guest\"")).count();
    assert!(0 < guest_lines && guest_lines < 1000, "{guest_lines} lines of the guest were logged");
}

#[tokio::test]
async fn a_guest_that_sleeps_and_spins_in_turn_costs_one_message() {
    poisoned("sleep_and_spin", "deadline", "deadline").await;
}

#[tokio::test]
async fn emissions_that_would_fill_the_host_cost_one_message() {
    poisoned("empty_emissions", "output", "output").await;
}

#[tokio::test]
async fn metrics_of_a_hostile_guest_are_read_by_every_collector() {
    for behaviour in ["metric_clashes", "metric_names", "metric_changes"] {
        let mut scene = scene(behaviour).await;
        for text in ["poison", "poison", "after"] {
            scene.hostile.0.text(text).await;
            assert_eq!(scene.hostile.1.text().await, text);
        }
        // Which are checked to be valid.
        let metrics = scene.host.metrics();
        let ended = scene.host.stop();
        assert!(ended.status.success(), "{}", ended.log);
        let told = ended.log.matches("is not kept").count();
        assert!(told <= 64, "{told} refusals in the log");
        if behaviour == "metric_clashes" {
            let late = "tidemill_guest_late_total{pipeline=\"hostile\",transform=\"hostile\"} 4.0";
            assert!(metrics.text.contains(late), "{}", metrics.text);
            for name in ["took_bucket", "late_total", "Not A Name"] {
                assert!(ended.log.contains(name), "{name}: {}", ended.log);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_quotes_its_configuration_shows_no_secret_anywhere() {
    const SECRET: &str = "s3cr3t_of_the_host";
    let folder = Folder::default();
    folder.install("hostile", &guest("hostile").expect("guests in Rust are built"));
    let feed = Feed::open().await;
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "hostile"
        source = {{ type = "websocket", url = "{}" }}
        sinks = [{{ type = "stdout" }}]
        dead_letter = {{ type = "file", path = "dead.jsonl", format = "jsonl" }}
        [[pipelines.transforms]]
        plugin = "hostile"
        config = {{ behaviour = "quote_config", token = "${{TIDEMILL_NO_SUCH_VARIABLE:-{SECRET}}}" }}
        on_error = "dead_letter"
        "#,
        feed.url(),
    ));
    feed.text("poison").await;
    let metrics = host.wait_until("the dead letter is written", |now| {
        now.count("tidemill_messages_dead_lettered_total", &["pipeline=\"hostile\""]) == 1
    });
    let (_, ready) = host.get("/readyz");
    let (_, pipelines) = host.get("/api/v1/pipelines/hostile");
    let (_, kept) = host.get("/api/v1/deadletters");
    let ended = host.stop();
    let letters = std::fs::read_to_string(folder.path("dead.jsonl")).unwrap();
    assert!(letters.contains("***") && ended.log.contains("***"), "{letters}{}", ended.log);
    assert!(kept.contains("***"), "{kept}");
    for shown in [metrics.text, ready, pipelines, kept, ended.log, letters] {
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

#[tokio::test]
async fn a_guest_cannot_forge_a_line_of_the_log() {
    let folder = Folder::default();
    folder.install("hostile", &guest("hostile").expect("guests in Rust are built"));
    std::fs::write(
        folder.path("tidemill.toml"),
        r#"
        [[pipelines]]
        name = "hostile"
        source = { type = "file", path = "in.jsonl" }
        transforms = [{ plugin = "hostile", max_batch = 1, config = { behaviour = "forge" } }]
        sinks = [{ type = "stdout" }]
        "#,
    )
    .unwrap();
    // Fewer faults in a row than make the stage pause.
    std::fs::write(folder.path("in.jsonl"), "poison\nhonest\n".repeat(3)).unwrap();
    let ran = Command::new(binary())
        .args(["run", "--log-format", "text"])
        .current_dir(folder.path(""))
        .output()
        .unwrap();
    let log = String::from_utf8(ran.stderr).unwrap();
    assert!(log.contains("forged by a guest"), "{log}");
    assert!(!log.contains('\x1b'), "{log}");
    assert!(!log.lines().any(|line| line.starts_with("2030-01-01")), "{log}");
}

#[tokio::test]
async fn faults_without_number_are_few_lines_of_the_log() {
    const FAULTS: usize = 500;
    let folder = Folder::default();
    folder.install("hostile", &guest("hostile").expect("guests in Rust are built"));
    // Between two faults a call that succeeds, or the stage would pause.
    std::fs::write(folder.path("in.jsonl"), "poison\nhonest\n".repeat(FAULTS)).unwrap();
    std::fs::write(
        folder.path("tidemill.toml"),
        r#"
        [[pipelines]]
        name = "hostile"
        source = { type = "file", path = "in.jsonl" }
        transforms = [{ plugin = "hostile", max_batch = 1, config = { behaviour = "panic" } }]
        sinks = [{ type = "stdout" }]
        "#,
    )
    .unwrap();
    let mut run = Command::new(binary());
    let ran = run.args(["run", "--log-format", "text"]).current_dir(folder.path("")).output().unwrap();
    let log = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(String::from_utf8(ran.stdout).unwrap().lines().count(), FAULTS, "{log}");
    let fault = log.lines().find(|line| line.contains("plugin fault")).expect("it is told");
    assert!(fault.contains("pipeline=hostile"), "{fault}");
    // A second of faults is a line of each kind; the guest's own lines have a budget of 200 at once.
    let of_host = log.lines().filter(|line| !line.contains(" guest: ")).count();
    assert!(of_host < FAULTS / 5, "{of_host} lines for {FAULTS} faults:\n{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_cannot_forge_a_line_of_the_log_with_its_close_reason() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = Folder::default();
    let config = format!(
        r#"
        [[pipelines]]
        name = "p"
        source = {{ type = "websocket", url = "ws://{}/" }}
        sinks = [{{ type = "stdout" }}]
        "#,
        listener.local_addr().unwrap()
    );
    std::fs::write(folder.path("tidemill.toml"), config).unwrap();
    let mut command = Command::new(binary());
    let host = Host::start(command.args(["run", "--log-format", "text"]).current_dir(folder.path("")));
    let (stream, _) = listener.accept().await.unwrap();
    let mut peer = accept_async(stream).await.unwrap();
    let reason = "bad\n2030-01-01T00:00:00.000000Z ERROR tidemill: forged \x1b[31m".into();
    peer.close(Some(CloseFrame { code: CloseCode::Policy, reason })).await.unwrap();
    until(|| host.log().contains("connection lost")).await;
    let log = host.stop().log;
    let lost = log.lines().find(|line| line.contains("connection lost")).expect("it is told");
    assert!(lost.contains("connection{pipeline=p url="), "{lost}");
    assert!(
        log.contains(r"1008 bad\n2030-01-01T00:00:00.000000Z ERROR tidemill: forged \u{1b}[31m"),
        "{log}"
    );
    assert!(!log.contains('\x1b') && !log.lines().any(|line| line.starts_with("2030-01-01")), "{log}");
}

#[tokio::test]
async fn a_plugin_that_is_run_alone_finds_its_code_again() {
    let folder = Folder::default();
    let run = || {
        let file = plugin("forward");
        let mut run = Command::new(binary());
        let ran = run.args(["plugin", "run"]).arg(file).current_dir(folder.path("")).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    };
    let code = || {
        let entries = std::fs::read_dir(folder.path(".tidemill/cache")).unwrap();
        let metadata = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().metadata().unwrap();
        entries.map(|entry| metadata(entry).created().unwrap()).collect::<Vec<_>>()
    };
    run();
    let first = code();
    run();
    // The plugin's, and that of its functions alone.
    assert_eq!((first.len(), code()), (2, first));
}

#[test]
fn a_plugin_that_is_run_alone_and_fails_again_and_again_is_not_waited_for() {
    let folder = Folder::default();
    // Enough faults to have a pipeline of a host wait; then the plugin does not start again.
    let lines = format!("one\n{}no-start\ntrap\nlost\n", "trap\n".repeat(7));
    std::fs::write(folder.path("in.jsonl"), lines).unwrap();
    let mut run = Command::new(binary());
    run.args(["plugin", "run"]).arg(guest("moody").expect("guests in Rust are built"));
    run.current_dir(folder.path("")).stdin(std::fs::File::open(folder.path("in.jsonl")).unwrap());
    let ran = run.output().unwrap();
    let log = String::from_utf8_lossy(&ran.stderr);
    assert_eq!((ran.status.code(), &*ran.stdout), (Some(1), &b"one\n"[..]), "{log}");
    let dead = log.lines().filter(|line| line.starts_with("{\"time\"")).count();
    assert_eq!(dead, 9, "every other message is a dead letter: {log}");
    assert!(!log.contains("its messages wait"), "{log}");
}

#[tokio::test]
async fn a_wrong_world_and_a_truncated_file_leave_the_old_version_running() {
    let mut scene = scene("log_flood").await;
    scene.neighbour.0.text("before").await;
    assert_eq!(scene.neighbour.1.text().await, "before");
    let whole = std::fs::read(plugin("forward")).unwrap();
    let wrong = [
        ("truncated", whole[..whole.len() / 2].to_vec()),
        ("no component", b"\0asm\x01\0\0\0".to_vec()),
        ("another world", wat::parse_str("(component (import \"other:world/face\" (instance)))").unwrap()),
    ];
    let host = scene.host;
    for (n, (name, bytes)) in wrong.into_iter().enumerate() {
        let file = scene.folder.path(&format!("{n}.bin"));
        std::fs::write(&file, bytes).unwrap();
        scene.folder.install("forward", &file);
        host.wait_until(name, |now| {
            now.count("tidemill_plugin_swaps_total", &["plugin=\"forward\"", "outcome=\"rejected\""])
                == n as u64 + 1
        });
        scene.neighbour.0.text(name).await;
        assert_eq!(scene.neighbour.1.text().await, name);
    }
    let ended = host.stop();
    assert!(ended.status.success(), "{}", ended.log);
}
