//! Dead letters of a running host: kept whatever becomes of their pipelines, looked at, and given to them again, over
//! HTTP and by the command line.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "dead_letters/files.rs"]
mod files;
#[path = "dead_letters/retries.rs"]
mod retries;

use serde_json::{Value, json};
use std::fmt::Write as _;
use tidemill_tests::commands::{Told, tidemill, tidemill_of};
use tidemill_tests::host::{Counted, Folder, Host};
use tidemill_tests::peers::{Collector, Feed, Received};
use tidemill_tests::pipelines::FAST;
use tidemill_tests::{guest, plugin};
use tokio_tungstenite::tungstenite::Message;

const LETTERS: &str = "/api/v1/deadletters";

/// A pipeline from a feed to a collector, through `notional`, which rejects what is not JSON.
fn relay(name: &str, feed: &Feed, collector: &Collector) -> String {
    format!(
        r#"
        [[pipelines]]
        name = "{name}"
        source = {{ type = "websocket", url = "{}", {FAST} }}
        transforms = [{{ plugin = "notional" }}]
        sinks = [{{ type = "websocket", name = "out", url = "{}", {FAST} }}]
        "#,
        feed.url(),
        collector.url(),
    )
}

fn folder() -> Folder {
    let folder = Folder::default();
    folder.install("notional", &plugin("notional"));
    folder
}

/// Asks without holding up the peers, which run in this test's own task.
fn asked(host: &Host, method: &str, path: &str, body: &Value) -> (u16, Value) {
    tokio::task::block_in_place(|| host.json(method, path, body))
}

/// The letters that are listed with this query, and how many there are of them.
fn listed(host: &Host, query: &str) -> (Vec<Value>, u64) {
    let (status, answer) = asked(host, "GET", &format!("{LETTERS}{query}"), &Value::Null);
    assert_eq!(status, 200, "{answer}");
    (answer["deadletters"].as_array().unwrap().clone(), answer["total"].as_u64().unwrap())
}

/// Waits until so many are listed, and gives them.
fn until_listed(host: &Host, count: u64) -> Vec<Value> {
    tokio::task::block_in_place(|| {
        host.wait_until(&format!("{count} letters"), |_| listed(host, "").1 == count);
    });
    listed(host, "?limit=1000").0
}

fn retry(host: &Host, body: &Value) -> Value {
    let (status, answer) = asked(host, "POST", &format!("{LETTERS}/retry"), body);
    assert_eq!(status, 200, "{answer}");
    answer
}

fn counted(host: &Host, metric: &str, labels: &[&str]) -> u64 {
    tokio::task::block_in_place(|| host.metrics()).count(metric, labels)
}

fn until(host: &Host, what: &str, is_so: impl FnMut(&Counted) -> bool) {
    tokio::task::block_in_place(|| host.wait_until(what, is_so));
}

/// A host whose pipeline `p` has a plugin that fails again and again, so that its messages wait.
async fn with_waiting_messages(folder: &Folder, feed: &Feed, collector: &Collector) -> Host {
    folder.install("hostile", &guest("hostile").expect("guests in Rust are built"));
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "p"
        source = {{ type = "websocket", url = "{}" }}
        transforms = [{{ plugin = "hostile", config = {{ behaviour = "panic" }} }}]
        sinks = [{{ type = "websocket", url = "{}" }}]
        "#,
        feed.url(),
        collector.url(),
    ));
    for _ in 0..16 {
        feed.text("poison").await;
    }
    until(&host, "messages wait", |now| now.count("tidemill_plugin_paused", &["pipeline=\"p\""]) == 1);
    host
}

/// What `tidemill deadletter` says.
fn deadletter(host: &Host, folder: &Folder, args: &[&str]) -> Told {
    tidemill_of(host, folder, &[&["deadletter"], args].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_message_is_listed_and_shown_and_leaves_the_list_when_it_enters_again() {
    let folder = folder();
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let host = folder.run(&relay("p", &feed, &collector));
    feed.text("no JSON").await;
    feed.send(Message::binary(vec![0xff, 0])).await;
    let letters = until_listed(&host, 2);
    let (newest, oldest) = (&letters[0], &letters[1]);
    assert_eq!((&newest["payload_base64"], &newest["payload"]), (&json!("/wA="), &Value::Null));
    assert_eq!((&oldest["payload"], &oldest["payload_bytes"]), (&json!("no JSON"), &json!(7)));
    assert_eq!((&oldest["pipeline"], &oldest["stage"]), (&json!("p"), &json!("notional")));
    assert_eq!((&oldest["plugin"], &oldest["reason"]), (&json!("notional"), &json!("rejected")));
    assert!(oldest["version"].as_str().unwrap().starts_with("sha256:"), "{oldest}");
    assert_eq!((&oldest["enters"], &oldest["waiting"]), (&json!(["notional"]), &json!(false)));
    assert_eq!(oldest["metadata"]["__meta_source"], feed.url());
    let id = oldest["id"].as_str().unwrap().to_owned();
    assert_eq!(asked(&host, "GET", &format!("{LETTERS}/{id}"), &Value::Null), (200, oldest.clone()));
    let dropped = ["stage=\"notional\"", "reason=\"rejected\""];
    assert_eq!(counted(&host, "tidemill_messages_dropped_total", &dropped), 2, "there is no sink for them");

    // It fails again, twice: each time there is another letter.
    let of_the_text = || listed(&host, "").0.into_iter().find(|letter| letter["payload"] == "no JSON");
    for times in ["1", "2"] {
        let id = of_the_text().unwrap()["id"].clone();
        let dry = retry(&host, &json!({ "ids": [id], "dry_run": true }));
        assert_eq!(dry, json!({ "dry_run": true, "retried": 1, "waiting": 0, "refused": [] }));
        let answer = retry(&host, &json!({ "ids": [id] }));
        assert_eq!(answer, json!({ "dry_run": false, "retried": 1, "waiting": 0, "refused": [] }));
        until(&host, "it has failed again", |_| {
            of_the_text().is_some_and(|letter| letter["metadata"]["__meta_retried"] == times)
        });
        let id = of_the_text().unwrap()["id"].as_str().unwrap().to_owned();
        let (code, text, _) = deadletter(&host, &folder, &["show", &id]);
        assert!(code == Some(0) && text.contains(&format!("__meta_retried = {times}\n")), "{text}");
        assert!(text.ends_with("as text\nno JSON\n"), "{text}");
    }
    let (status, answer) = asked(&host, "GET", &format!("{LETTERS}/{id}"), &Value::Null);
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("not_found")), "it is gone: {answer}");
    let gone = retry(&host, &json!({ "ids": [id, "none"] }));
    assert_eq!((&gone["retried"], gone["refused"].as_array().unwrap().len()), (&json!(0), 2), "{gone}");

    // A plugin that takes them comes.
    folder.install("notional", &plugin("forward"));
    host.says("plugin swapped");
    let answer = retry(&host, &json!({ "all": true, "pipeline": "p", "reason": "rejected" }));
    assert_eq!(answer["retried"], 2, "{answer}");
    let mut came = [collector.received.recv().await.unwrap(), collector.received.recv().await.unwrap()];
    came.sort_by_key(|received| matches!(received, Received::Binary(_)));
    assert_eq!(came, [Received::Text("no JSON".to_owned()), Received::Binary(vec![0xff, 0])]);
    assert_eq!(listed(&host, "").1, 0);
    until(&host, "all is delivered", |now| {
        now.count("tidemill_messages_delivered_total", &["sink=\"out\""]) == 2
    });
    let retried =
        counted(&host, "tidemill_messages_retried_total", &["pipeline=\"p\"", "stage=\"notional\""]);
    let entered = counted(&host, "tidemill_stage_messages_in_total", &["transform=\"notional\""]);
    assert_eq!((retried, entered), (4, 6), "what came in is what was received, and what was retried");
    let (_, shown) = asked(&host, "GET", "/api/v1/pipelines/p", &Value::Null);
    assert_eq!(shown["counters"]["transforms"]["notional"]["retried"], 4, "{shown}");
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_outlive_stop_and_start_and_stay_listed_when_their_pipeline_is_removed() {
    let folder = folder();
    let (feed, collector) = (Feed::open().await, Collector::open().await);
    let host = folder.run(&relay("p", &feed, &collector));
    feed.text("one").await;
    feed.text("two").await;
    until_listed(&host, 2);
    let tell = |what: &str| asked(&host, "POST", &format!("/api/v1/pipelines/p/{what}"), &Value::Null).0;
    let refused = |why: &str| {
        let answer = retry(&host, &json!({ "all": true }));
        assert_eq!(
            (&answer["retried"], answer["refused"].as_array().unwrap().len()),
            (&json!(0), 2),
            "{answer}"
        );
        assert!(answer["refused"][0]["error"].as_str().unwrap().contains(why), "{answer}");
        let (all, total) = listed(&host, "");
        assert!(total == 2 && all.iter().all(|letter| letter["waiting"] == false), "{all:?}");
    };
    assert_eq!(tell("stop"), 200);
    refused("pipeline \"p\" does not run: it is stopped");
    let (code, told, errors) = deadletter(&host, &folder, &["retry", "--all"]);
    assert_eq!((code, &*told), (Some(1), "0 dead letters retried\n"));
    assert!(errors.contains(": pipeline \"p\" does not run: it is stopped"), "{errors}");
    assert_eq!(tell("start"), 200);
    assert_eq!(retry(&host, &json!({ "all": true }))["retried"], 2);
    until(&host, "both have failed again", |_| {
        let (all, _) = listed(&host, "");
        all.len() == 2 && all.iter().all(|letter| letter["metadata"]["__meta_retried"] == "1")
    });
    assert_eq!(asked(&host, "DELETE", "/api/v1/pipelines/p", &Value::Null).0, 204);
    refused("there is no pipeline \"p\"");
    let (all, _) = listed(&host, "?pipeline=p");
    assert_eq!((&all[0]["enters"], all.len()), (&json!([]), 2));
    assert_eq!(all[0]["not_retryable"], "there is no pipeline \"p\"");
    // Another of its name has no such stage.
    let other = json!({
        "name": "p", "source": { "type": "websocket", "url": feed.url() },
        "sinks": [{ "type": "websocket", "url": collector.url() }],
    });
    assert_eq!(asked(&host, "POST", "/api/v1/pipelines", &other).0, 201);
    refused("pipeline \"p\" has no stage \"notional\" any more");
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_failures_keeps_the_newest_thousand_and_the_list_has_pages_and_filters() {
    const LINES: usize = 50_000;
    let folder = folder();
    let mut lines = String::new();
    for n in 0..LINES {
        writeln!(lines, "line {n}").unwrap();
    }
    std::fs::write(folder.path("in.jsonl"), lines).unwrap();
    std::fs::write(folder.path("odd.jsonl"), "odd\n").unwrap();
    let pipeline = |name: &str, file: &str| {
        format!(
            r#"
            [[pipelines]]
            name = "{name}"
            source = {{ type = "file", path = "{file}" }}
            transforms = [{{ plugin = "notional" }}]
            sinks = [{{ type = "file", path = "{name}.out" }}]
            "#
        )
    };
    let host = folder.run(&(pipeline("flood", "in.jsonl") + &pipeline("other", "odd.jsonl")));
    until(&host, "both have finished", |now| now.count("tidemill_pipelines", &["state=\"finished\""]) == 2);
    let dropped = ["pipeline=\"flood\"", "reason=\"rejected\""];
    assert_eq!(counted(&host, "tidemill_messages_dropped_total", &dropped), LINES as u64);
    let (page, total) = listed(&host, "?pipeline=flood&limit=3");
    assert!(total >= 999, "{total}");
    let payloads: Vec<_> = page.iter().map(|letter| letter["payload"].as_str().unwrap()).collect();
    assert_eq!(payloads, ["line 49999", "line 49998", "line 49997"]);
    let next = format!("?pipeline=flood&limit=2&before={}", page[2]["id"].as_str().unwrap());
    assert_eq!(listed(&host, &next).0[0]["payload"], "line 49996");
    assert_eq!(listed(&host, "").0.len(), 100);
    assert_eq!(listed(&host, "?limit=1000").0.len(), 1000);
    assert_eq!(listed(&host, "?limit=1").0.len(), 1);
    assert_eq!(listed(&host, "?reason=trap"), (Vec::new(), 0));
    for (query, told) in [
        ("?reason=ejected", "there is no reason `ejected`"),
        ("?limit=many", "`limit=many` cannot be: it is a number from 1 to 1000"),
        ("?limit=0", "`limit=0` cannot be: it is a number from 1 to 1000"),
        ("?limit=1001", "`limit=1001` cannot be: it is a number from 1 to 1000"),
        ("?limit=-1", "it is a number from 1 to 1000"),
        ("?limit=100000000000000000000", "it is a number from 1 to 1000"),
        ("?page=2", "`page` is no parameter"),
        ("?limit=1&limit=2", "`limit` is there twice"),
    ] {
        let (status, answer) = asked(&host, "GET", &format!("{LETTERS}{query}"), &Value::Null);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(status == 400 && message.contains(told), "{query}: {answer}");
    }
    let (status, answer) = asked(&host, "GET", &format!("{LETTERS}?reason=reject"), &Value::Null);
    assert_eq!((status, &answer["error"]["hint"]), (400, &json!("did you mean `rejected`?")));
    let (status, answer) = asked(&host, "GET", &format!("{LETTERS}?pipeline=floot"), &Value::Null);
    let hint = "did you mean \"flood\"? GET /api/v1/pipelines lists them";
    assert_eq!((status, &answer["error"]["hint"]), (404, &json!(hint)), "{answer}");
    for (body, status, told) in [
        (json!(7), 422, "invalid type: integer `7`, expected an object that says which letters are meant"),
        (json!({ "all": true, "pipeline": "none" }), 404, "there is no pipeline \"none\""),
        (json!({}), 422, "one of `ids`, `all` and `letters`"),
        (json!({ "ids": [], "all": true }), 422, "one of `ids`, `all` and `letters`"),
        (json!({ "all": true, "rate": 0 }), 422, "`rate` must be between"),
        (json!({ "all": true, "reason": "x" }), 400, "there is no reason `x`"),
        (json!({ "every": true }), 422, "unknown field `every`"),
        (json!({ "ids": vec!["x"; 1001] }), 422, "at most 1000 letters"),
    ] {
        let (got, answer) = asked(&host, "POST", &format!("{LETTERS}/retry"), &body);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(got == status && message.contains(told), "{body}: {got} {answer}");
    }
    let answer = retry(&host, &json!({ "all": true, "pipeline": "flood" }));
    assert!(answer["refused"][0]["error"].as_str().unwrap().contains("it is finished"), "{answer}");

    let (code, table, _) = deadletter(&host, &folder, &["list", "--pipeline", "flood", "--limit", "2"]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!((code, lines.len()), (Some(0), 4), "{table}");
    assert!(
        lines[0].starts_with("ID ") && lines[1].contains(" ago ") && lines[1].contains("line 49999"),
        "{table}"
    );
    assert!(lines[3].starts_with("2 of "), "{table}");
    for command in [&["list", "--pipeline", "floot"][..], &["retry", "--all", "--pipeline", "floot"]] {
        let (code, told, errors) = deadletter(&host, &folder, command);
        let expected = "error: there is no pipeline \"floot\"\n\
                        hint: did you mean \"flood\"? `tidemill pipelines list` lists them\n";
        assert_eq!((code, &*told, &*errors), (Some(1), "", expected));
    }
    let (code, _, errors) = deadletter(&host, &folder, &["show", "none"]);
    assert!(code == Some(1) && errors.contains("\nhint: `tidemill deadletter list` lists"), "{errors}");
    let (_, printed, _) =
        deadletter(&host, &folder, &["list", "--reason", "rejected", "--json", "--limit", "3"]);
    let (_, answer) = asked(&host, "GET", &format!("{LETTERS}?reason=rejected&limit=3"), &Value::Null);
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), answer, "the answer of the API as it is");
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_has_a_bound_in_bytes_and_what_is_larger_is_kept_with_its_beginning() {
    const MIB: usize = 1 << 20;
    let folder = folder();
    let (feed, collector) = (Feed::open().await, Collector::open().await);
    let config =
        relay("p", &feed, &collector).replacen(FAST, &format!("{FAST}, max_message_size = \"32MiB\""), 1);
    let host = folder.run(&config);
    for n in 0..24 {
        feed.text(format!("{n} {}", "x".repeat(MIB))).await;
    }
    until(&host, "all have failed", |now| {
        now.count("tidemill_messages_dropped_total", &["reason=\"rejected\""]) == 24
    });
    // It is counted first.
    until(&host, "the last is listed", |_| {
        listed(&host, "?limit=1").0[0]["payload"].as_str().unwrap().starts_with("23 x")
    });
    let (all, total) = listed(&host, "");
    assert!((14..=15).contains(&total), "{total} of 1 MiB and a little");
    assert_eq!(
        (&all[0]["payload_truncated"], all[0]["payload"].as_str().unwrap().len()),
        (&json!(true), 256)
    );
    let id = all[0]["id"].as_str().unwrap();
    let (_, whole) = asked(&host, "GET", &format!("{LETTERS}/{id}"), &Value::Null);
    assert_eq!(
        (&whole["payload_truncated"], whole["payload"].as_str().unwrap().len()),
        (&json!(false), MIB + 3)
    );

    feed.text(format!("huge {}", "x".repeat(20 * MIB))).await;
    until(&host, "it has failed", |now| {
        now.count("tidemill_messages_dropped_total", &["pipeline=\"p\""]) == 25
    });
    until(&host, "its letter is listed", |_| listed(&host, "?limit=1").0[0]["payload_bytes"] == 20 * MIB + 5);
    let (all, total) = listed(&host, "");
    assert!(total >= 15, "what is left of it takes little: {total}");
    assert_eq!(all[0]["payload_truncated"], true);
    assert!(all[0]["not_retryable"].as_str().unwrap().contains("too large to be kept whole"), "{}", all[0]);
    let answer = retry(&host, &json!({ "ids": [all[0]["id"]] }));
    assert!(answer["refused"][0]["error"].as_str().unwrap().contains("too large"), "{answer}");
    assert!(host.stop().status.success());
}

#[test]
fn where_no_host_answers_the_command_says_where_and_what_to_do() {
    let folder = Folder::default();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for args in [&["list"][..], &["show", "x"], &["retry", "--all"]] {
        let (code, _, told) = tidemill(&folder, &[&["deadletter"], args, &["--admin", &nobody]].concat());
        let expected = format!("error: no host answers at {nobody}: ");
        assert!(code == Some(1) && told.starts_with(&expected), "{args:?}: {told}");
        assert!(
            told.contains("\nhint: `--admin`, or TIDEMILL_ADMIN, is the `listen` of its [admin]\n"),
            "{told}"
        );
    }
    let host = folder.run("token = \"t0ken\"");
    for (method, path) in
        [("GET", LETTERS), ("GET", "/api/v1/deadletters/x"), ("POST", "/api/v1/deadletters/retry")]
    {
        assert_eq!(host.json(method, path, &Value::Null).0, 401, "{method} {path}");
    }
    let (code, _, errors) = deadletter(&host, &folder, &["list"]);
    assert!(code == Some(1) && errors.contains("the token is missing or wrong\nhint: `--token`"), "{errors}");
    let (code, told, _) = deadletter(&host, &folder, &["list", "--token", "t0ken"]);
    assert_eq!((code, &*told), (Some(0), "no dead letters\n"));
    let (code, _, errors) = deadletter(&host, &folder, &["retry", "x-1", "--token", "t0ken"]);
    assert!(code == Some(1) && errors.contains("x-1: it is not kept"), "{errors}");
    let (code, _, _) = deadletter(&host, &folder, &["retry", "x-1", "--all"]);
    assert_eq!(code, Some(2));
}
