//! A large plugin runs as soon as its code is there, and its optimised code takes over while messages flow: one
//! version, one swap, and what it knew goes on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidemill::app::Settings;
use tidemill::config::{Config, Endpoint, Pipeline, Plugins, Transform};
use tidemill::plugin::Engine;
use tidemill_tests::host::{Counted, Folder, Host};
use tidemill_tests::peers::{Collector, Feed};
use tidemill_tests::sockets::until;
use tidemill_tests::{guest, padded};

/// A version of the counter that is large.
fn large(counter: &str) -> Vec<u8> {
    padded(&guest(counter).expect("guests in Rust are built"))
}

fn run(folder: &Folder, feed: &Feed, collector: &Collector) -> Host {
    folder.run(&format!(
        r#"
        [[pipelines]]
        name = "p"
        source = {{ type = "websocket", url = "{}" }}
        transforms = [{{ plugin = "counter" }}]
        sinks = [{{ type = "websocket", url = "{}" }}]
        "#,
        feed.url(),
        collector.url(),
    ))
}

/// Waits until the log has a line about this version of the plugin, and gives its fields.
fn said(host: &Host, message: &str, content: &[u8]) -> Value {
    let version = tidemill::plugin::version_of(content);
    tokio::task::block_in_place(|| {
        host.logged(message, |fields| {
            (fields["message"] == message && fields["version"] == *version).then(|| fields.clone())
        })
    })
}

async fn passes(feed: &Feed, collector: &mut Collector, text: &str, counted: &str) {
    feed.text(text).await;
    assert_eq!(collector.text().await, counted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_plugin_runs_at_once_and_its_optimised_code_takes_over_with_its_state() {
    let folder = Folder::default();
    let (first, second) = (large("counter-v1"), large("counter-v2"));
    folder.put("counter", &first);
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let host = run(&folder, &feed, &collector);
    assert_eq!(said(&host, "plugin loaded", &first)["optimised"], false);
    passes(&feed, &mut collector, "a", "v1 1 a").await;
    assert_eq!(said(&host, "code exchanged", &first)["state"], "carried");
    passes(&feed, &mut collector, "b", "v1 2 b").await;

    folder.put("counter", &second);
    assert_eq!(said(&host, "plugin swapped", &second)["state"], "carried");
    passes(&feed, &mut collector, "c", "v2 3 c").await;
    assert_eq!(said(&host, "code exchanged", &second)["state"], "carried");
    passes(&feed, &mut collector, "d", "v2 4 d").await;
    tokio::task::block_in_place(|| {
        let now = host.metrics();
        assert_eq!(
            now.count("tidemill_plugin_swaps_total", &["outcome=\"swapped\""]),
            1,
            "one version, one swap"
        );
        assert_eq!(now.count("tidemill_plugin_swaps_total", &["outcome=\"rejected\""]), 0);
        assert!(host.stop().status.success());
    });

    // The optimised code is kept.
    let host = run(&folder, &feed, &collector);
    let loaded = said(&host, "plugin loaded", &second);
    assert_eq!((&loaded["cached"], &loaded["optimised"]), (&Value::Bool(true), &Value::Bool(true)));
    tokio::task::block_in_place(|| assert!(host.stop().status.success()));
}

/// The new code is the same version: it does not begin with a clean record.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_fails_again_and_again_does_so_with_its_optimised_code_too_and_it_is_told_once() {
    let folder = Folder::default();
    let hostile = padded(&guest("hostile").expect("guests in Rust are built"));
    folder.put("hostile", &hostile);
    let feed = Feed::open().await;
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "p"
        source = {{ type = "websocket", url = "{}" }}
        transforms = [{{ plugin = "hostile", on_error = "drop", config = {{ behaviour = "panic" }} }}]
        sinks = [{{ type = "stdout" }}]
        "#,
        feed.url(),
    ));
    for _ in 0..64 {
        feed.text("poison").await;
    }
    said(&host, "code exchanged", &hostile);
    tokio::task::block_in_place(|| {
        let faults = |now: &Counted| now.count("tidemill_plugin_faults_total", &["kind=\"trap\""]);
        let before = faults(&host.metrics());
        host.wait_until("two more are tried alone", |now| faults(now) >= before + 2);
        let told = host.log().matches("the plugin fails again and again").count();
        assert_eq!(told, 1, "{}", host.log());
    });
}

/// What it knows would be lost with the instance.
#[test]
fn a_large_connector_runs_once_its_optimised_code_is_there() {
    let engine = Engine::try_new(None).unwrap();
    let is_optimised = |name: &'static str| {
        let (engine, wasm) = (engine.clone(), padded(&guest(name).expect("guests in Rust are built")));
        // A thread of its own, since it loses its priority.
        let loaded = std::thread::spawn(move || engine.load_standing_back(name, &wasm).unwrap());
        loaded.join().unwrap().is_optimised()
    };
    assert!(is_optimised("minting"));
    assert!(!is_optimised("counter-v1"));
}

/// Whether optimised code is kept in a cache: no other is.
fn has_optimised_code(cache: &Path) -> bool {
    let mut files = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
    files.any(|file| file.extension().is_some_and(|ending| ending == "code"))
}

/// The next version is about to be saved.
#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_of_one_who_is_writing_it_is_not_optimised() {
    let feed = Feed::open().await;
    let start = async |folder: &Path, is_authoring: bool| {
        let (dir, cache) = (folder.join("plugins"), folder.join("cache"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("counter.wasm"), large("counter-v1")).unwrap();
        let plugins = Plugins { dir: dir.into(), cache: cache.into(), ..Plugins::default() };
        let pipeline = Pipeline::new("p", Endpoint::client(feed.url())).through(Transform::new("counter"));
        let config = Config {
            plugins,
            pipelines: vec![pipeline.to(Endpoint::client(feed.url()))],
            ..Config::default()
        };
        let settings = Settings { is_authoring, ..Settings::default() };
        tidemill::app::Host::start_with(config, settings).await.unwrap()
    };
    let (usual, authoring) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let begun = Instant::now();
    let host = start(usual.path(), false).await;
    until(|| has_optimised_code(&usual.path().join("cache"))).await;
    let enough = begun.elapsed() + Duration::from_secs(1);
    host.stop().await.unwrap();

    let host = start(authoring.path(), true).await;
    tokio::time::sleep(enough).await;
    host.stop().await.unwrap();
    assert!(!has_optimised_code(&authoring.path().join("cache")));
}
