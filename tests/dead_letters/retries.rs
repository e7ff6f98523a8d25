//! Letters that enter their pipelines again: where, in which order, how fast, and what becomes of those that wait.

use super::*;
use futures_util::SinkExt;
use std::time::{Duration, Instant};
use tidemill_tests::peers::dial;
use tidemill_tests::sockets::{close_code_at_the_end, text};

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_the_source_enter_the_first_stage_or_the_sinks_and_those_of_a_sink_that_one_sink() {
    let folder = Folder::default();
    folder.install("forward", &plugin("forward"));
    let feeds = [Feed::open().await, Feed::open().await];
    let mut collectors = [Collector::open().await, Collector::open().await, Collector::open().await];
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "staged"
        source = {{ type = "websocket", url = "{}", codec = "json" }}
        transforms = [{{ plugin = "forward" }}]
        sinks = [{{ type = "websocket", url = "{}" }}]

        [[pipelines]]
        name = "plain"
        source = {{ type = "websocket", url = "{}", codec = "json" }}
        sinks = [{{ type = "websocket", name = "a", url = "{}" }}, {{ type = "websocket", name = "b", url = "{}" }}]
        "#,
        feeds[0].url(),
        collectors[0].url(),
        feeds[1].url(),
        collectors[1].url(),
        collectors[2].url(),
    ));
    feeds[0].text("odd").await;
    feeds[1].text("even").await;
    let letters = until_listed(&host, 2);
    for letter in &letters {
        assert_eq!((&letter["stage"], &letter["reason"]), (&json!("source"), &json!("decode")), "{letter}");
        let enters = if letter["pipeline"] == "plain" { json!(["a", "b"]) } else { json!(["forward"]) };
        assert_eq!(letter["enters"], enters, "{letter}");
    }
    assert_eq!(retry(&host, &json!({ "all": true, "reason": "decode" }))["retried"], 2);
    for (collector, text) in collectors.iter_mut().zip(["odd", "even", "even"]) {
        assert_eq!(collector.text().await, text);
    }
    let retried =
        |stage: &str| counted(&host, "tidemill_messages_retried_total", &[&format!("stage=\"{stage}\"")]);
    assert_eq!(["forward", "a", "b", "sink0"].map(retried), [1, 1, 1, 0]);
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_message_is_answered_on_its_connection_and_fails_where_that_is_gone() {
    let folder = folder();
    let host = folder.run(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "p"
        source = { type = "websocket", mode = "server", path = "/ask" }
        transforms = [{ plugin = "notional" }]
        sinks = [{ type = "reply", name = "back" }]
        "#,
    );
    let address = host.listening("websocket");
    let (mut stays, mut leaves) = (dial(address, "/ask").await, dial(address, "/ask").await);
    stays.send(Message::text("of one that stays")).await.unwrap();
    leaves.send(Message::text("of one that leaves")).await.unwrap();
    until_listed(&host, 2);
    leaves.close(None).await.unwrap();
    close_code_at_the_end(leaves).await;
    until(&host, "it has left", |now| {
        now.count("tidemill_connections", &["endpoint=\"source\"", "state=\"connected\""]) == 1
    });
    folder.install("notional", &plugin("forward"));
    host.says("plugin swapped");
    assert_eq!(retry(&host, &json!({ "all": true }))["retried"], 2);
    assert_eq!(text(&mut stays).await, "of one that stays");
    let letters = until_listed(&host, 1);
    assert_eq!((&letters[0]["stage"], &letters[0]["reason"]), (&json!("back"), &json!("sink_unavailable")));
    assert_eq!(letters[0]["payload"], "of one that leaves");
    // Into that sink, and once more to nobody.
    assert_eq!(retry(&host, &json!({ "all": true }))["retried"], 1);
    until(&host, "it has failed again", |_| {
        listed(&host, "").0.first().is_some_and(|letter| letter["metadata"]["__meta_retried"] == "2")
    });
    assert_eq!(counted(&host, "tidemill_messages_retried_total", &["stage=\"back\""]), 1);
    drop(stays);
    assert!(tokio::task::block_in_place(|| host.stop()).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_kept_and_what_still_waits_at_a_stop_is_in_the_list_again() {
    let folder = Folder::default();
    folder.install("notional", &plugin("notional"));
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let host = folder.run(&relay("p", &feed, &collector));
    for n in 0..14 {
        feed.text(format!("letter {n}")).await;
    }
    until_listed(&host, 14);
    folder.install("notional", &plugin("forward"));
    host.says("plugin swapped");
    let oldest: Vec<_> = listed(&host, "").0[4..].iter().map(|letter| letter["id"].clone()).collect();
    let began = Instant::now();
    assert_eq!(retry(&host, &json!({ "ids": oldest, "rate": 20 }))["retried"], 10);
    let took = began.elapsed();
    assert!(took > Duration::from_millis(350), "ten at twenty a second took {took:?}");
    for n in 0..10 {
        assert_eq!(collector.text().await, format!("letter {n}"), "in the order in which they failed");
    }
    let answer = retry(&host, &json!({ "all": true, "rate": 0.001 }));
    assert_eq!((&answer["retried"], &answer["waiting"]), (&json!(1), &json!(3)), "{answer}");
    assert_eq!(collector.text().await, "letter 10");
    let (all, _) = listed(&host, "");
    assert!(all.len() == 3 && all.iter().all(|letter| letter["waiting"] == true), "{all:?}");
    let again = retry(&host, &json!({ "ids": [all[0]["id"]] }));
    assert_eq!(again["refused"][0]["error"], "it waits to be retried already");
    // What comes from the source goes through meanwhile.
    feed.text("from the source").await;
    assert_eq!(collector.text().await, "from the source");
    assert_eq!(asked(&host, "POST", "/api/v1/pipelines/p/stop", &Value::Null).0, 200);
    let (all, _) = listed(&host, "");
    let payloads: Vec<_> = all.iter().map(|letter| letter["payload"].as_str().unwrap()).collect();
    assert_eq!(payloads, ["letter 13", "letter 12", "letter 11"]);
    assert!(all.iter().all(|letter| letter["waiting"] == false), "{all:?}");
    host.logged("what became of them", |fields| {
        let is_it = fields["message"] == "dead letters retried" && fields["refused"] == 3;
        (is_it && fields["entered"] == 1).then_some(())
    });
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_goes_on_over_a_reload_that_makes_other_instances() {
    const MANY: usize = 40;
    let folder = folder();
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let config = relay("p", &feed, &collector);
    let host = folder.run(&config);
    for n in 0..MANY {
        feed.text(format!("letter {n}")).await;
    }
    until_listed(&host, MANY as u64);
    folder.install("notional", &plugin("forward"));
    host.says("plugin swapped");
    tokio::task::block_in_place(|| {
        // Slow enough that the reload comes in the middle, on a machine that stands still for seconds, too.
        let body = json!({ "all": true, "rate": 5 });
        std::thread::scope(|scope| {
            let retried = scope.spawn(|| host.json("POST", &format!("{LETTERS}/retry"), &body).1);
            let delivered = |now: &Counted| now.count("tidemill_messages_delivered_total", &["sink=\"out\""]);
            host.wait_until("some have come", |now| delivered(now) >= 5);
            folder
                .configure(&config.replace("plugin = \"notional\"", "plugin = \"notional\", instances = 2"));
            let (status, answer) = host.json("POST", "/api/v1/reload", &Value::Null);
            assert_eq!((status, &answer["pipelines"][0]["class"]), (200, &json!("updated")), "{answer}");
            assert!(delivered(&host.metrics()) < MANY as u64, "the reload came in the middle");
            // It is answered after a while, and goes on.
            let answer = retried.join().unwrap();
            let counted = |key: &str| answer[key].as_u64().unwrap();
            assert_eq!(counted("retried") + counted("waiting"), MANY as u64, "{answer}");
        });
    });
    for n in 0..MANY {
        assert_eq!(collector.text().await, format!("letter {n}"));
    }
    assert_eq!(listed(&host, "").1, 0);
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_wait_in_the_list_while_their_plugin_fails_again_and_again() {
    let folder = Folder::default();
    let (feed, collector) = (Feed::open().await, Collector::open().await);
    let host = with_waiting_messages(&folder, &feed, &collector).await;
    let (all, total) = listed(&host, "");
    assert!(total >= 5, "{all:?}");
    let ids: Vec<_> = all.iter().map(|letter| letter["id"].clone()).collect();
    let answer = retry(&host, &json!({ "ids": ids }));
    let (entered, waiting) = (answer["retried"].as_u64().unwrap(), answer["waiting"].as_u64().unwrap());
    assert!(entered + waiting == total && waiting > 0, "what waits stands behind what came before: {answer}");
    let stopped = asked(&host, "POST", "/api/v1/pipelines/p/stop", &Value::Null);
    assert_eq!(stopped.0, 200);
    assert!(listed(&host, "").0.iter().all(|letter| letter["waiting"] == false));
    assert!(tokio::task::block_in_place(|| host.stop()).log.contains("dead letters retried"));
}
