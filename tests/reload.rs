//! `tidemill.toml` read again while the host runs: what has changed takes over, in place where that can be, and no
//! connection and no message is lost that has nothing to do with it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "reload/asked.rs"]
mod asked;
#[path = "reload/crowd.rs"]
mod crowd;
#[path = "reload/ends.rs"]
mod ends;
#[path = "reload/one.rs"]
mod one;
#[path = "reload/site.rs"]
mod site;
#[path = "reload/stages.rs"]
mod stages;
#[path = "reload/tables.rs"]
mod tables;

use serde_json::{Value, json};
use site::{Site, class, relay};
use tidemill_tests::peers::{Collector, Feed, Received};

#[tokio::test(flavor = "multi_thread")]
async fn each_pipeline_is_of_a_class_and_a_dry_run_tells_it_and_changes_nothing() {
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let (other, mut replaced) = (Feed::open().await, Collector::open().await);
    let (from, to, replaced_url) = (feed.url(), collector.url(), replaced.url());
    let part = |name: &str, transforms: &str| relay(name, &from, transforms, &to);
    let idle = "{ type = \"websocket\", mode = \"server\", path = \"/idle\" }";
    let gone = format!(
        "[[pipelines]]\nname = \"gone\"\nsource = {idle}\nsinks = [{{ type = \"file\", path = \"gone.jsonl\" }}]\n"
    );
    let site = Site::default();
    site.install("forward", "forward");
    site.install("filter", "filter");
    let moved = |url: &str| relay("moved", url, "", &replaced_url);
    let before = format!(
        "[server]\nport = 0\n{}{gone}{}",
        part("same", "{ plugin = \"forward\" }"),
        moved(&other.url())
    );
    let site = site.run(&before);
    feed.text("1").await;
    assert_eq!(collector.text().await, "1");
    other.text("a").await;
    assert_eq!(replaced.text().await, "a");
    let (third, mut new) = (Feed::open().await, Collector::open().await);
    let (fourth, _more) = (Feed::open().await, Collector::open().await);
    site.write(&format!(
        "[server]\nport = 0\nmax_connections = 7\n{}{}{}",
        part("same", "{ plugin = \"forward\" }, { plugin = \"filter\", config = { where = [] } }"),
        moved(&third.url()),
        relay("new", &fourth.url(), "", &new.url()),
    ));
    let pipelines = |answer: &Value| {
        let all = answer["pipelines"].as_array().unwrap().iter();
        let told = all.map(|told| {
            format!("{} {}", told["pipeline"].as_str().unwrap(), told["class"].as_str().unwrap())
        });
        told.collect::<Vec<_>>()
    };
    let all = ["same updated", "moved replaced", "new added", "gone removed"];
    let shown_before = site.get("/api/v1/config").await;
    let (status, told) = site.reload("?dry_run=true").await;
    assert_eq!((status, pipelines(&told)), (200, all.map(str::to_owned).to_vec()), "{told}");
    assert_eq!((&told["dry_run"], &told["restart_required"]), (&json!(true), &json!(["server"])));
    assert_eq!(told["pipelines"][0]["reasons"], json!(["transform filter is new"]));
    assert_eq!(told["pipelines"][1]["reasons"], json!(["the source: `url` changed"]));
    assert_eq!(site.get("/api/v1/config").await, shown_before);
    feed.text("2").await;
    assert_eq!(collector.text().await, "2");

    let (status, told) = site.reload("").await;
    assert_eq!((status, pipelines(&told)), (200, all.map(str::to_owned).to_vec()), "{told}");
    assert_eq!(told["dry_run"], false);
    feed.text("{}").await;
    assert_eq!(collector.text().await, "{}");
    third.text("b").await;
    assert_eq!(replaced.received.recv().await, Some(Received::Closed(Some(1001))));
    assert_eq!(replaced.text().await, "b");
    fourth.text("c").await;
    assert_eq!(new.text().await, "c");
    let (status, _) = site.json("GET", "/api/v1/pipelines/gone", Value::Null).await;
    assert_eq!(status, 404);
    assert_eq!(
        site.counted("tidemill_connects_total", &["pipeline=\"same\"", "outcome=\"connected\""]).await,
        2
    );
    let shown = site.get("/api/v1/config").await;
    assert_eq!(shown["pipelines"].as_array().unwrap().len(), 3);
    assert_eq!(shown["server"]["max_connections"], 10_000, "what is in force, not what the file says");
    assert_eq!(shown["plugins"]["max_size"], "64MiB");
    let (_, told) = site.reload("").await;
    assert!(told["pipelines"].as_array().unwrap().iter().all(|told| told["class"] == "unchanged"), "{told}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_wrong_changes_nothing_and_every_error_is_told_with_its_place() {
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let site = Site::default();
    site.install("filter", "filter");
    let right = relay("p", &feed.url(), "{ plugin = \"filter\", config = { where = [] } }", &collector.url());
    let site = site.run(&right);
    feed.text("{}").await;
    assert_eq!(collector.text().await, "{}");
    for (from, to, message) in [
        ("where = []", "where = [", ""),
        ("source", "sauce", "unknown key `sauce`"),
        ("where = []", "where = 7", "plugin filter does not start"),
        ("sinks = [", "sinks = [{ type = \"stdout\", outputs = [\"none\"] }, ", "does not have"),
        ("plugin = \"filter\"", "plugin = \"absent\"", "there is no plugins/absent.wasm"),
        (
            "name = \"p\"",
            "name = \"p\"\ndead_letter = { type = \"file\", path = \"no/such/folder\" }",
            "no/such/folder",
        ),
        (
            "name = \"p\"",
            "name = \"p\"\ndead_letter = { type = \"websocket\", mode = \"server\", host = \"192.0.2.1\" }",
            "192.0.2.1",
        ),
    ] {
        assert!(right.contains(from), "{from}");
        site.write(&right.replace(from, to));
        for query in ["", "?dry_run=true"] {
            let (status, answer) = site.reload(query).await;
            let told = answer["error"]["message"].as_str().unwrap_or_default();
            assert!(status == 422 && told.contains(message), "{to}: {status} {answer}");
            let errors = answer["errors"].as_array().unwrap();
            for error in errors {
                assert_eq!(error["file"], "tidemill.toml");
                assert!(error["line"].as_u64().is_some() && error["column"].as_u64().is_some(), "{answer}");
            }
        }
    }
    std::fs::remove_file(site.path("tidemill.toml")).unwrap();
    let (status, answer) = site.reload("").await;
    assert_eq!(status, 422);
    assert_eq!(answer["errors"][0]["message"], "there is no such configuration file");
    feed.text("{\"a\":1}").await;
    assert_eq!(collector.text().await, "{\"a\":1}");
    site.write(&right);
    let (status, told) = site.reload("").await;
    assert_eq!((status, class(&told, "p")), (200, "unchanged".to_owned()), "{told}");
    assert_eq!(site.counted("tidemill_connects_total", &["outcome=\"connected\""]).await, 2);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_of_the_api_are_left_alone_and_one_that_it_stopped_stays_stopped_and_is_configured_anew() {
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let (from, to) = (feed.url(), collector.url());
    let site = Site::default();
    site.install("forward", "forward");
    let file = |transforms: &str| relay("file", &from, transforms, &to);
    let site = site.run(&format!("[server]\nport = 0\n{}", file("")));
    feed.text("0").await;
    assert_eq!(collector.text().await, "0");
    let made = json!({
        "name": "made",
        "source": { "type": "websocket", "mode": "server", "path": "/in" },
        "sinks": [{ "type": "websocket", "mode": "server", "path": "/out" }],
    });
    assert_eq!(site.json("POST", "/api/v1/pipelines", made).await.0, 201);
    assert_eq!(site.json("POST", "/api/v1/pipelines/file/stop", Value::Null).await.0, 200);
    site.write(&format!("[server]\nport = 0\n{}", file("{ plugin = \"forward\" }")));
    let (status, told) = site.reload("").await;
    assert_eq!((status, class(&told, "file")), (200, "updated".to_owned()), "{told}");
    assert_eq!(told["pipelines"].as_array().unwrap().len(), 1, "{told}");
    let (_, shown) = site.json("GET", "/api/v1/pipelines/file", Value::Null).await;
    assert_eq!((&shown["state"], &shown["transforms"][0]["plugin"]), (&json!("stopped"), &json!("forward")));
    let (_, shown) = site.json("GET", "/api/v1/pipelines/made", Value::Null).await;
    assert_eq!(shown["state"], "running");
    assert_eq!(site.json("POST", "/api/v1/pipelines/file/start", Value::Null).await.0, 200);
    assert_eq!(collector.received.recv().await, Some(Received::Closed(Some(1001))));
    feed.text("1").await;
    assert_eq!(collector.text().await, "1");
    site.write(&format!(
        "[server]\nport = 0\n{}{}",
        file(""),
        relay("made", &feed.url(), "", &collector.url())
    ));
    let (status, answer) = site.reload("").await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("taken")), "{answer}");
    let (_, shown) = site.json("GET", "/api/v1/pipelines/file", Value::Null).await;
    assert_eq!(shown["transforms"][0]["plugin"], "forward", "nothing was changed");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_has_failed_is_started_as_it_is_configured_now_and_one_that_lacks_its_plugin_waits() {
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let (from, to) = (feed.url(), collector.url());
    let site = Site::default();
    site.install("filter", "filter");
    let file = |config: &str| {
        let transforms = format!("{{ plugin = \"filter\", config = {config} }}");
        relay("p", &from, &transforms, &to)
    };
    let running = relay("other", &from, "", &to);
    let site = site.run(&(file("{ where = 7 }") + &running));
    site.becomes("p", "failed").await;
    let late = relay("late", &feed.url(), "{ plugin = \"late\" }", &collector.url());
    site.write(&(file("{ where = [] }") + &late));
    let (status, told) = site.reload("").await;
    assert_eq!(
        (status, class(&told, "p"), class(&told, "late")),
        (200, "updated".to_owned(), "added".to_owned()),
        "{told}"
    );
    site.becomes("p", "running").await;
    site.becomes("late", "waiting").await;
    site.install("late", "forward");
    site.becomes("late", "running").await;
    feed.text("{}").await;
    while collector.received.recv().await != Some(Received::Text("{}".to_owned())) {}
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_from_variables_is_shown_nowhere() {
    const SECRETS: [&str; 2] = ["s3cr3t-one", "s3cr3t-two"];
    let (feed, collector) = (Feed::open().await, Collector::open().await);
    let file = |name: &str| {
        format!(
            r#"
            [[pipelines]]
            name = "p"
            source = {{ type = "websocket", url = "{}" }}
            sinks = [{{ type = "websocket", url = "{}?token=${{{name}}}", headers = {{ X-Token = "${{{name}}}" }} }}]
            "#,
            feed.url(),
            collector.url()
        )
    };
    let site = Site::default();
    let variables = [("ONE", SECRETS[0]), ("TWO", SECRETS[1]), ("ADMIN", "s3cr3t-admin")];
    let site = site.run_with(&variables, "token = \"${ADMIN}\"", Some("s3cr3t-admin"), &file("ONE"));
    site.write_admin("token = \"${ADMIN}\"", &file("TWO"));
    let mut shown = Vec::new();
    shown.push(site.reload("?dry_run=true").await.1);
    let (status, told) = site.reload("").await;
    assert_eq!(status, 200, "{told}");
    assert_eq!(class(&told, "p"), "updated");
    assert!(told["pipelines"][0]["reasons"][0].as_str().unwrap().starts_with("sink sink0: "), "{told}");
    shown.push(told);
    shown.push(site.get("/api/v1/config").await);
    site.write_admin("token = \"${ADMIN}\"", &file("TWO").replace("?token", "?to ken&\\u0000"));
    shown.push(site.reload("").await.1);
    let text = serde_json::to_string(&shown).unwrap() + &site.log();
    assert!(!text.contains("s3cr3t"), "{text}");
    assert!(text.contains("***"));
    site.stop().await;
}
