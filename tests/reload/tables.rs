//! Files in the configuration of a plugin: their texts count from each load, reload and swap on, and from nothing else.

use super::site::{Site, class, relay};
use serde_json::{Value, json};
use tidemill_tests::host::Folder;
use tidemill_tests::peers::{Collector, Feed};
use tidemill_tests::plugin;

const TRANSFORM: &str = r#"{ plugin = "enrich", config = { table = "${file:table.csv}" } }"#;
const ASKED: &str = r#"{"s":"BTC"}"#;

fn table(site: &Site, name: &str) {
    std::fs::write(site.path("table.csv"), format!("symbol,name\nBTC,{name}\n")).unwrap();
}

fn answered(name: &str) -> String {
    format!(r#"{{"s":"BTC","name":"{name}"}}"#)
}

/// Offers another version of the plugin, and gives the verdict.
async fn swap(site: &Site, padding: u8) -> (u16, Value) {
    let mut component = std::fs::read(plugin("enrich")).unwrap();
    // A custom section: its length, that of its name, the name, and a byte that tells versions apart.
    component.extend([0, 3, 1, b'x', padding]);
    let path = "/api/v1/plugins/enrich";
    let (status, answer) = tokio::task::block_in_place(|| {
        site.host().send("PUT", path, &[("Content-Type", "application/wasm")], &component)
    });
    (status, serde_json::from_str(&answer).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_counts_from_the_next_reload_or_swap_on_and_its_connections_stay() {
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let site = Site::default();
    site.install("enrich", "enrich");
    table(&site, "one");
    let config = relay("p", &feed.url(), TRANSFORM, &collector.url());
    let site = site.run(&config);
    let mut asks = async |name: &str| {
        feed.text(ASKED).await;
        assert_eq!(collector.text().await, answered(name));
    };
    asks("one").await;
    table(&site, "two");
    asks("one").await;

    let (_, told) = site.reload("?dry_run=true").await;
    assert_eq!(class(&told, "p"), "updated");
    asks("one").await;
    let (status, told) = site.reload("").await;
    assert_eq!((status, class(&told, "p").as_str()), (200, "updated"), "{told}");
    assert_eq!(told["pipelines"][0]["reasons"], json!(["transform enrich: a file of `config` has changed"]));
    asks("two").await;
    assert_eq!(class(&site.reload("").await.1, "p"), "unchanged");

    table(&site, "three");
    let (status, verdict) = swap(&site, 1).await;
    assert_eq!(status, 200, "{verdict}");
    asks("three").await;
    assert_eq!(class(&site.reload("").await.1, "p"), "unchanged", "the swap has read it");
    table(&site, "two");
    assert_eq!(class(&site.reload("").await.1, "p"), "updated", "what runs is another text");
    asks("two").await;

    let shown = site.get("/api/v1/config").await;
    assert_eq!(shown["pipelines"][0]["transforms"][0]["config"], json!({ "table": "${file:table.csv}" }));
    assert_eq!(site.counted("tidemill_connects_total", &["outcome=\"connected\""]).await, 2);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_had_or_is_refused_changes_nothing() {
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let site = Site::default();
    site.install("enrich", "enrich");
    table(&site, "one");
    let site = site.run(&relay("p", &feed.url(), TRANSFORM, &collector.url()));
    let mut asks = async |name: &str| {
        feed.text(ASKED).await;
        assert_eq!(collector.text().await, answered(name));
    };
    asks("one").await;

    std::fs::write(site.path("table.csv"), "name\none\n").unwrap();
    let refused = "`table` has no column \"symbol\", which `key` names, but \"name\"";
    let (status, told) = site.reload("").await;
    assert!(status == 422 && told.to_string().contains(&refused.replace('"', "\\\"")), "{told}");
    let (status, verdict) = swap(&site, 1).await;
    assert!(status == 409 && verdict["error"].as_str().unwrap().contains(refused), "{verdict}");
    asks("one").await;

    std::fs::remove_file(site.path("table.csv")).unwrap();
    let (status, told) = site.reload("").await;
    let told = told.to_string();
    assert!(status == 422 && told.contains("`table`: failed to read "), "{told}");
    assert!(told.contains("table.csv: No such file"), "{told}");
    let (status, verdict) = swap(&site, 2).await;
    assert!(
        status == 409 && verdict["error"].as_str().unwrap().contains("table.csv: No such file"),
        "{verdict}"
    );
    asks("one").await;

    // A stop and a start by the API load it anew.
    table(&site, "two");
    assert_eq!(site.json("POST", "/api/v1/pipelines/p/stop", Value::Null).await.0, 200);
    assert_eq!(site.json("POST", "/api/v1/pipelines/p/start", Value::Null).await.0, 200);
    site.becomes("p", "running").await;
    site.stop().await;
}

#[test]
fn check_names_the_file_the_key_and_the_place() {
    let folder = Folder::default();
    folder.install("enrich", &plugin("enrich"));
    let config = format!(
        "[[pipelines]]\nname = \"p\"\nsource = {{ type = \"stdin\" }}\ntransforms = [{TRANSFORM}]\nsinks = [{{ type = \"stdout\" }}]\n"
    );
    std::fs::write(folder.path("tidemill.toml"), config).unwrap();
    let check = || {
        let mut check = std::process::Command::new(tidemill_tests::host::binary());
        let checked = check.arg("check").current_dir(folder.path("")).output().unwrap();
        (checked.status.code(), String::from_utf8(checked.stderr).unwrap())
    };
    let (code, told) = check();
    assert_eq!(code, Some(78), "{told}");
    assert!(
        told.starts_with("tidemill.toml:4:55: `table`: failed to read table.csv: No such file"),
        "{told}"
    );
    for (content, error) in [
        (&b"\xff"[..], "`table`: failed to read table.csv: it is not UTF-8"),
        (&vec![b'x'; (16 << 20) + 1], "`table`: failed to read table.csv: it has more than 16 MiB"),
    ] {
        std::fs::write(folder.path("table.csv"), content).unwrap();
        let (code, told) = check();
        assert!(code == Some(78) && told.contains(error), "{told}");
    }
    std::fs::write(folder.path("table.csv"), "symbol,name\n").unwrap();
    assert_eq!(check().0, Some(0));
}
