//! What Go's runtime may do badly in a guest: each thing ends in a fault that says what it was, or goes on, and
//! the host lives. `tests/guests/endings-go` does them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;
use std::time::{Duration, SystemTime};
use tidemill::config::Limits;
use tidemill::plugin::{FaultKind, Forward, Instance, Plugin, Setup};
use tidemill_tests::host::Folder;
use tidemill_tests::peers::{Collector, Feed};
use tidemill_tests::{guest, load, root, setup, texts};

/// The guest; `None` where there is no Go.
fn endings() -> Option<Plugin> {
    guest("endings-go").map(|file| load(&file))
}

/// What a call ends in, and what it says. The instance is not called again, and the next one is not harmed.
async fn fault_of(order: &str) -> Option<(FaultKind, String)> {
    let plugin = endings()?;
    let limits = Limits { deadline: Duration::from_millis(500), ..Limits::default() };
    let setup = Setup { limits, ..setup("{}") };
    let mut instance = plugin.instantiate(&setup).await.unwrap();
    let fault = instance.process(&texts(["a", order])).await.expect_err(order);
    instance.process(&texts(["a"])).await.expect_err("an instance at fault is not called again");
    let mut next = plugin.instantiate(&setup).await.unwrap();
    assert_eq!(next.process(&texts(["a"])).await.unwrap().forward, Forward::All);
    Some((fault.kind, fault.detail))
}

async fn start() -> Option<Instance> {
    Some(endings()?.instantiate(&setup("{}")).await.unwrap())
}

/// The text that a message makes the guest emit.
async fn answer(instance: &mut Instance, order: &str) -> String {
    let outcome = instance.process(&texts([order])).await.unwrap();
    outcome.emissions.payload(0).as_text().unwrap().to_owned()
}

#[tokio::test]
async fn a_panic_ends_in_a_trap_with_its_text() {
    let Some((kind, detail)) = fault_of("panic").await else { return };
    assert_eq!(kind, FaultKind::Trap);
    let source = std::fs::read_to_string(root().join("tests/guests/endings-go/guest.go")).unwrap();
    let line = source.lines().position(|line| line.contains("panic(\"a panic that")).unwrap() + 1;
    let told = format!("panic: a panic that was asked for (at guest.go:{line}); process: ");
    assert!(detail.starts_with(&told), "{detail}");
}

#[tokio::test]
async fn a_long_panic_is_cut_and_its_place_is_not() {
    let source = std::fs::read_to_string(root().join("tests/guests/endings-go/guest.go")).unwrap();
    for (order, begins, panics) in [
        ("panic:long", "panic: a long panic żółw żółw ", "panic(\"a long"),
        ("panic:lines", "panic: a panic of ~~~", "panic(\"a panic of"),
    ] {
        let Some((kind, detail)) = fault_of(order).await else { return };
        assert_eq!(kind, FaultKind::Trap);
        let line = source.lines().position(|line| line.contains(panics)).unwrap() + 1;
        let place = format!("... (at guest.go:{line}); process: ");
        assert!(detail.starts_with(begins) && detail.contains(&place), "{detail}");
    }
}

#[tokio::test]
async fn a_deadlock_ends_in_a_trap_that_says_so() {
    let Some((kind, detail)) = fault_of("deadlock").await else { return };
    assert_eq!(kind, FaultKind::Trap);
    assert!(detail.starts_with("fatal error: all goroutines are asleep - deadlock!"), "{detail}");
}

#[tokio::test]
async fn an_exit_ends_in_a_trap_that_says_so() {
    for order in ["exit:", "exit:x", "exit:xx"] {
        let Some((kind, detail)) = fault_of(order).await else { return };
        assert_eq!(kind, FaultKind::Trap);
        assert!(detail.starts_with("fatal error: the plugin called os.Exit; process: "), "{detail}");
    }
}

#[tokio::test]
async fn a_recursion_without_end_ends_in_a_trap() {
    let Some((kind, detail)) = fault_of("recurse").await else { return };
    assert_eq!(kind, FaultKind::Trap, "{detail}");
    assert!(detail.contains("stack"), "{detail}");
}

#[tokio::test]
async fn memory_and_time_end_at_their_limits() {
    let Some((kind, detail)) = fault_of("bomb").await else { return };
    assert_eq!(kind, FaultKind::Memory, "{detail}");
    let Some((kind, detail)) = fault_of("spin").await else { return };
    assert_eq!(kind, FaultKind::Deadline, "{detail}");
}

#[tokio::test]
async fn a_recovered_panic_is_no_fault() {
    let Some(mut instance) = start().await else { return };
    let text = answer(&mut instance, "recover").await;
    assert_eq!(text, "recovered: runtime error: invalid memory address or nil pointer dereference");
}

#[tokio::test]
async fn goroutines_work_and_to_sleep_takes_no_time() {
    let Some(mut instance) = start().await else { return };
    assert_eq!(answer(&mut instance, "goroutines").await, "499500");
    assert_eq!(answer(&mut instance, "sleep").await, "1h0m0s");
    assert_eq!(answer(&mut instance, "timeout").await, "in time");
}

#[tokio::test]
async fn a_guest_has_the_time_and_chance_of_the_host_and_no_files() {
    let Some(mut instance) = start().await else { return };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
    let told = answer(&mut instance, "clock").await.parse::<u128>().unwrap();
    assert!(told.abs_diff(now) < 60_000_000, "{told} at {now}");
    let error = answer(&mut instance, "file").await;
    assert!(error.starts_with("open /etc/passwd: "), "{error}");
    assert_ne!(answer(&mut instance, "random").await, answer(&mut instance, "random").await);
}

/// What an import returns is the guest's to free, also in the middle of a call.
#[tokio::test]
async fn what_the_host_keeps_comes_back_and_takes_no_memory() {
    let Some(plugin) = endings() else { return };
    // Time enough to copy 200 MB on a busy machine.
    let limits = Limits { deadline: Duration::from_secs(20), ..Limits::default() };
    let mut instance = plugin.instantiate(&Setup { limits, ..setup("{}") }).await.unwrap();
    assert_eq!(answer(&mut instance, "recall:1").await, "0");
    instance.process(&texts(["remember:100000"])).await.unwrap();
    assert_eq!(answer(&mut instance, "recall:1").await, "100000");
    let before = instance.memory_bytes();
    assert_eq!(answer(&mut instance, "recall:2000").await, "200000000");
    let grown = instance.memory_bytes() - before;
    assert!(grown <= 8 << 20, "{grown} bytes after 200 MB");
}

/// The host passes a batch while Go may have to collect garbage, when nothing of the host can be called: neither
/// its clock, which the collector reads, nor its log.
#[tokio::test]
async fn garbage_is_collected_while_the_host_passes_a_batch() {
    let Some(mut instance) = start().await else { return };
    let text = "x".repeat(1 << 20);
    for _ in 0..20 {
        for count in [1, 2, 5] {
            let outcome = instance.process(&texts(vec![&text; count])).await.unwrap();
            assert_eq!(outcome.emissions.len(), count);
        }
    }
}

// Waiting for the log must not keep the peers from their work.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_printed_is_in_the_log_line_by_line() {
    let Some(file) = guest("endings-go") else { return };
    let folder = Folder::default();
    folder.install("endings", &file);
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "printing"
        source = {{ type = "websocket", url = "{}" }}
        transforms = [{{ plugin = "endings" }}]
        sinks = [{{ type = "websocket", url = "{}" }}]
        "#,
        feed.url(),
        collector.url()
    ));
    feed.text("print").await;
    for line in [
        "printed to standard output,",
        "in two lines",
        "printed to standard error",
        "no UTF-8: ??( żółw 🐢",
        "without an end",
    ] {
        host.says(line);
    }
    feed.text("long").await;
    feed.text("done").await;
    assert_eq!(collector.text().await, "done");
    let ended = host.stop();
    assert!(ended.status.success(), "it ended with {}", ended.status);
    assert_eq!(ended.log.matches('~').count(), 10_000, "a long line is told in pieces");
}

/// What the SDK makes of a plugin's answers is tested in Go.
#[test]
fn the_sdk_passes_its_own_tests() {
    if guest("endings-go").is_none() {
        return;
    }
    let mut go = Command::new("go");
    go.current_dir(root().join("plugin-sdk/go")).args(["test", "./..."]);
    let go = go.env("GOPROXY", "off").env("GOTOOLCHAIN", "local").env("GOFLAGS", "").env("GOWORK", "off");
    let output = go.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
