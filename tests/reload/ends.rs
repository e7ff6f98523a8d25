//! Sinks and paths that come, go and change while messages go to others.

use crate::site::{Site, class};
use futures_util::SinkExt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tidemill_tests::peers::{Collector, Dialled, Feed, Received, dial};
use tidemill_tests::sockets::{received, soon, text, until};
use tokio_tungstenite::tungstenite::Message;

fn pipeline(feed: &Feed, sinks: &[String]) -> String {
    format!(
        "[server]\nport = 0\n[[pipelines]]\nname = \"p\"\nsource = {{ type = \"websocket\", url = \"{}\" }}\nsinks = [{}]\n",
        feed.url(),
        sinks.join(", ")
    )
}

fn client(name: &str, collector: &Collector, keys: &str) -> String {
    format!("{{ name = \"{name}\", type = \"websocket\", url = \"{}\"{keys} }}", collector.url())
}

/// The code of the close frame that a peer gets, and what came before it.
async fn close(peer: &mut Dialled) -> (Vec<String>, u16) {
    let mut texts = Vec::new();
    loop {
        match received(peer).await {
            Message::Text(text) => texts.push(text.to_string()),
            Message::Close(Some(frame)) => return (texts, frame.code.into()),
            other => panic!("no close frame: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_stays_keeps_its_connection_and_one_that_goes_gets_all_that_was_for_it_and_1001() {
    let (feed, mut stays, mut goes) = (Feed::open().await, Collector::open().await, Collector::open().await);
    let kept = client("kept", &stays, "");
    let site = Site::default().run(&pipeline(&feed, &[kept.clone(), client("gone", &goes, "")]));
    feed.text("first").await;
    assert_eq!((stays.text().await, goes.text().await), ("first".to_owned(), "first".to_owned()));
    for n in 0..500 {
        feed.text(n.to_string()).await;
    }
    // One that comes, in front of the others.
    let mut comes = Collector::open().await;
    let new = client("new", &comes, "");
    let told = site.change(&pipeline(&feed, &[new.clone(), kept.clone()])).await;
    assert_eq!(class(&told, "p"), "updated");
    let reasons = told["pipelines"][0]["reasons"].to_string();
    assert_eq!(reasons, "[\"sink new is new\",\"sink gone is gone\"]");
    let mut came = 0;
    let code = loop {
        match soon(goes.received.recv()).await.unwrap() {
            Received::Text(text) => {
                assert_eq!(text, came.to_string());
                came += 1;
            }
            Received::Closed(code) => break code,
            Received::Binary(_) => panic!("all are texts"),
        }
    };
    assert_eq!(code, Some(1001), "after {came}");
    feed.text("last").await;
    let mut first = None;
    loop {
        let text = comes.text().await;
        if text == "last" {
            break;
        }
        let number: u64 = text.parse().unwrap();
        assert_eq!(number, *first.get_or_insert(number), "in order");
        first = Some(number + 1);
    }
    assert_eq!(
        500 - first.map_or(0, |next| next - came),
        came,
        "each message went to the one or to the other"
    );
    for n in 0..500 {
        assert_eq!(stays.text().await, n.to_string());
    }
    assert_eq!(stays.text().await, "last");
    assert_eq!(site.counted("tidemill_connects_total", &["endpoint=\"kept\""]).await, 1);
    site.until_counted("tidemill_messages_delivered_total", &["sink=\"kept\""], 502).await;
    let shown = tokio::task::block_in_place(|| site.host().metrics().text);
    assert!(!shown.contains("\"gone\""), "what is gone is not shown: {shown}");
    // Another url is another connection; what it takes besides, none.
    let told =
        site.change(&pipeline(&feed, &[new.replace(" }", ", outputs = [\"*\"] }"), kept.clone()])).await;
    assert_eq!(class(&told, "p"), "updated");
    feed.text("again").await;
    assert_eq!((comes.text().await, stays.text().await), ("again".to_owned(), "again".to_owned()));
    let mut elsewhere = Collector::open().await;
    site.change(&pipeline(&feed, &[client("new", &elsewhere, ""), kept])).await;
    assert_eq!(comes.received.recv().await, Some(Received::Closed(Some(1001))));
    feed.text("elsewhere").await;
    assert_eq!(
        (elsewhere.text().await, stays.text().await),
        ("elsewhere".to_owned(), "elsewhere".to_owned())
    );
    assert_eq!(site.counted("tidemill_connects_total", &["endpoint=\"kept\""]).await, 1);
    assert_eq!(site.counted("tidemill_connects_total", &["endpoint=\"source\""]).await, 1);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_a_path_stay_where_other_endpoints_on_it_come_and_go() {
    let feed = Feed::open().await;
    let server = |name: &str, path: &str, keys: &str| {
        format!("{{ name = \"{name}\", type = \"websocket\", mode = \"server\", path = \"{path}\"{keys} }}")
    };
    let (a, b) = (server("a", "/x", ""), server("b", "/y", ""));
    let site = Site::default().run(&pipeline(&feed, &[a.clone(), b.clone()]));
    let address = site.host().listening("websocket");
    let (mut x, mut y) = (dial(address, "/x").await, dial(address, "/y").await);
    feed.text("1").await;
    assert_eq!((text(&mut x).await, text(&mut y).await), ("1".to_owned(), "1".to_owned()));
    // Another sink on the path of the first, and the first with other keys: nobody leaves.
    site.change(&pipeline(
        &feed,
        &[server("a", "/x", ", peer_buffer = 9"), b.clone(), server("c", "/x", "")],
    ))
    .await;
    feed.text("2").await;
    assert_eq!((text(&mut x).await, text(&mut x).await), ("2".to_owned(), "2".to_owned()));
    site.change(&pipeline(&feed, &[b.clone(), server("c", "/x", "")])).await;
    feed.text("3").await;
    assert_eq!(text(&mut x).await, "3");
    // The last of a path takes its peers with it.
    site.change(&pipeline(&feed, &[server("c", "/x", "")])).await;
    assert_eq!(close(&mut y).await, (vec!["2".to_owned(), "3".to_owned()], 1001));
    feed.text("4").await;
    assert_eq!(text(&mut x).await, "4");
    let rows = site.get("/api/v1/connections").await;
    assert_eq!(rows["endpoints"].as_array().unwrap().len(), 2, "{rows}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_a_path_that_a_replaced_pipeline_has_before_and_after_wait_for_it_and_are_not_refused() {
    let file = |extra: &str, more: &str| {
        format!(
            r#"
            [server]
            port = 0
            [[pipelines]]
            name = "p"
            source = {{ type = "websocket", mode = "server", path = "/in"{extra} }}
            sinks = [{{ type = "websocket", mode = "server", path = "/out" }}]
            {more}
            "#
        )
    };
    let site = Site::default().run(&file("", ""));
    let address = site.host().listening("websocket");
    let (mut sender, mut receiver) = (dial(address, "/in").await, dial(address, "/out").await);
    sender.send(Message::text("{\"n\":0}")).await.unwrap();
    assert_eq!(text(&mut receiver).await, "{\"n\":0}");
    for (round, extra) in [", codec = \"json\"", ", codec = \"text\"", ""].into_iter().enumerate() {
        let told = site.change(&file(extra, "")).await;
        assert_eq!(class(&told, "p"), "replaced", "{told}");
        let sent = format!("{{\"n\":{}}}", round + 1);
        sender.send(Message::text(sent.clone())).await.unwrap();
        assert_eq!(text(&mut receiver).await, sent, "both connections are the same");
    }
    // One that asks for more lets nobody stay who has not shown it.
    let told = site.change(&file(", auth = { bearer = [\"t\"] }", "")).await;
    assert_eq!(class(&told, "p"), "replaced", "{told}");
    assert_eq!(close(&mut sender).await.1, 1001);
    assert!(tokio_tungstenite::connect_async(format!("ws://{address}/in")).await.is_err());
    sender_is_welcome(&site, &file("", ""), &mut receiver).await;
    site.stop().await;
}

/// What is read for the source that goes is for that alone, and what comes then waits for the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_sends_on_while_its_pipeline_is_replaced_loses_and_doubles_nothing() {
    let file = |idle_s: usize| {
        format!(
            r#"
            [server]
            port = 0
            [[pipelines]]
            name = "p"
            source = {{ type = "websocket", mode = "server", path = "/in" }}
            [[pipelines.sinks]]
            type = "file"
            path = "all.txt"
            [[pipelines.sinks]]
            type = "websocket"
            mode = "server"
            path = "/out"
            idle_timeout = "{idle_s}s"
            "#
        )
    };
    let site = Site::default().run(&file(60));
    let address = site.host().listening("websocket");
    let mut sender = dial(address, "/in").await;
    let is_over = Arc::new(AtomicBool::new(false));
    let sending = {
        let is_over = is_over.clone();
        tokio::spawn(async move {
            let mut sent = 0;
            while !is_over.load(Ordering::Relaxed) {
                for _ in 0..16 {
                    sender.feed(Message::text(format!("{sent}"))).await.unwrap();
                    sent += 1;
                }
                soon(sender.flush()).await.unwrap();
                tokio::task::yield_now().await;
            }
            soon(sender.close(None)).await.unwrap();
            sent
        })
    };
    for round in 1..=20 {
        let told = site.change(&file(60 + round)).await;
        assert_eq!(class(&told, "p"), "replaced", "{told}");
    }
    is_over.store(true, Ordering::Relaxed);
    let sent: usize = sending.await.unwrap();
    let taken = || fs::read_to_string(site.path("all.txt")).unwrap();
    until(|| taken().lines().count() >= sent).await;
    let expected: Vec<_> = (0..sent).map(|number| number.to_string()).collect();
    assert!(taken().lines().eq(expected.iter().map(String::as_str)), "each once, in order");
    site.stop().await;
}

async fn sender_is_welcome(site: &Site, file: &str, receiver: &mut Dialled) {
    site.change(file).await;
    let address = site.host().listening("websocket");
    let mut sender = dial(address, "/in").await;
    sender.send(Message::text("again")).await.unwrap();
    assert_eq!(text(receiver).await, "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_does_not_start_as_it_is_configured_now_goes_on_as_it_was() {
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let site = Site::default();
    fs::write(site.path("short.jsonl"), "{}\n").unwrap();
    let sink = client("out", &collector, "");
    let file =
        |source: &str| format!("[[pipelines]]\nname = \"p\"\nsource = {{ {source} }}\nsinks = [{sink}]\n");
    let source = format!("type = \"websocket\", url = \"{}\"", feed.url());
    let site = site.run(&file(&source));
    feed.text("1").await;
    assert_eq!(collector.text().await, "1");
    // It is there when it is looked at, and cannot be read.
    site.write(&file("type = \"file\", path = \"plugins\""));
    let (status, told) = site.reload("").await;
    let error = told["pipelines"][0]["error"].as_str().unwrap_or_default();
    assert!(status == 200 && error.contains("plugins"), "{status} {told}");
    assert_eq!(collector.received.recv().await, Some(Received::Closed(Some(1001))));
    feed.text("2").await;
    assert_eq!(collector.text().await, "2");
    let shown = site.get("/api/v1/config").await;
    assert_eq!(shown["pipelines"][0]["source"]["type"], "websocket");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_get_a_sink_another_and_none_while_messages_fail() {
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let site = Site::default();
    let (source, sink) = (feed.url(), client("out", &collector, ""));
    let file = |letters: &str| {
        format!(
            "[[pipelines]]\nname = \"p\"\nsource = {{ type = \"websocket\", url = \"{source}\", codec = \"json\" }}\n\
             sinks = [{sink}]\n{letters}\n"
        )
    };
    let letters = |name: &str| format!("dead_letter = {{ type = \"file\", path = \"{name}.jsonl\" }}");
    let site = site.run(&file(""));
    let fail = async |what: &str| {
        feed.text(format!("no JSON {what}")).await;
        feed.text(format!("\"{what}\"")).await;
    };
    fail("0").await;
    assert_eq!(collector.text().await, "\"0\"");
    for (round, name) in ["a", "b"].into_iter().enumerate() {
        let told = site.change(&file(&letters(name))).await;
        assert_eq!(class(&told, "p"), "updated", "{told}");
        fail(name).await;
        assert_eq!(collector.text().await, format!("\"{name}\""));
        tokio::task::block_in_place(|| {
            site.host().wait_until("the letter is written", |now| {
                now.count("tidemill_messages_dead_lettered_total", &["stage=\"source\""]) == round as u64 + 1
            });
        });
    }
    let told = site.change(&file("")).await;
    assert_eq!(class(&told, "p"), "updated", "{told}");
    fail("none").await;
    assert_eq!(collector.text().await, "\"none\"");
    for name in ["a", "b"] {
        let written = fs::read_to_string(site.path(&format!("{name}.jsonl"))).unwrap();
        let lines: Vec<_> = written.lines().collect();
        assert!(lines.len() == 1 && lines[0].contains(&format!("no JSON {name}")), "{written}");
    }
    assert_eq!(site.counted("tidemill_messages_dropped_total", &["reason=\"decode\""]).await, 2);
    assert_eq!(site.counted("tidemill_connects_total", &["outcome=\"connected\""]).await, 2);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_whose_peer_is_away_is_given_up_in_time_and_that_is_counted_and_told() {
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    // Nobody answers there.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let away = format!(
        "{{ name = \"away\", type = \"websocket\", url = \"ws://{}/\", connect_timeout = \"1m\" }}",
        taken.local_addr().unwrap()
    );
    let kept = client("kept", &collector, "");
    let site = Site::default().run(&pipeline(&feed, &[away, kept.clone()]));
    for n in 0..10 {
        feed.text(n.to_string()).await;
        assert_eq!(collector.text().await, n.to_string());
    }
    let started = Instant::now();
    let config = pipeline(&feed, &[kept]);
    let reloading = site.change(&config);
    let flowing = async {
        for n in 10..20 {
            feed.text(n.to_string()).await;
            assert_eq!(collector.text().await, n.to_string(), "the others go on");
        }
    };
    let (told, ()) = tokio::join!(reloading, flowing);
    assert!(started.elapsed() < Duration::from_secs(25));
    assert_eq!(
        told["pipelines"][0]["warnings"][0],
        "away gave up 10 messages that it could not get through in time"
    );
    assert_eq!(
        site.counted("tidemill_messages_dropped_total", &["stage=\"away\"", "reason=\"shutdown\""]).await,
        10
    );
    site.stop().await;
}
