//! A running host is steered by the command line: `tidemill pipelines` and `tidemill connections` are calls of its HTTP
//! API, with tables for people and the API's own answers for machines.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use tidemill_tests::commands::{Told, tidemill, tidemill_of};
use tidemill_tests::host::{Folder, Host};
use tidemill_tests::impostor::{answer, impostor};
use tidemill_tests::peers::{Collector, Feed, Received, dial};
use tidemill_tests::pipelines::FAST;
use tidemill_tests::{guest, plugin};

/// What it prints where all is well.
fn said(host: &Host, folder: &Folder, args: &[&str]) -> String {
    let (code, text, errors) = tidemill_of(host, folder, args);
    assert_eq!(code, Some(0), "{args:?}: {errors}");
    text
}

fn asked(host: &Host, method: &str, path: &str) -> Value {
    tokio::task::block_in_place(|| host.json(method, path, &Value::Null)).1
}

/// The words of the line that begins with a word.
fn row<'t>(table: &'t str, first: &str) -> Vec<&'t str> {
    let found = table.lines().find(|line| line.split("  ").next() == Some(first));
    let line = found.unwrap_or_else(|| panic!("no line of {first}:\n{table}"));
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_are_listed_and_shown_with_what_went_through() {
    let folder = Folder::default();
    folder.install("notional", &plugin("notional"));
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "the first"
        source = {{ type = "websocket", url = "{}", {FAST} }}
        transforms = [{{ plugin = "notional", config = {{ above = 10 }} }}]
        sinks = [{{ type = "websocket", name = "out", url = "{}", {FAST} }}]

        [[pipelines]]
        name = "waits"
        source = {{ type = "websocket", url = "{}", {FAST} }}
        transforms = [{{ plugin = "absent" }}]
        sinks = [{{ type = "websocket", url = "{}", {FAST} }}]
        "#,
        feed.url(),
        collector.url(),
        feed.url(),
        collector.url(),
    ));
    for text in [r#"{"price":20,"qty":1}"#, r#"{"price":1,"qty":1}"#, "no JSON"] {
        feed.text(text).await;
    }
    assert!(collector.text().await.contains("notional"));
    tokio::task::block_in_place(|| {
        host.wait_until("all are at their ends", |now| {
            now.count("tidemill_messages_delivered_total", &["sink=\"out\""]) == 1
                && now.count("tidemill_messages_dropped_total", &["stage=\"notional\""]) == 1
        });
    });
    let table = said(&host, &folder, &["pipelines", "list"]);
    let head = row(&table, "PIPELINE");
    assert_eq!(head[..4], ["PIPELINE", "STATE", "SINCE", "RECEIVED"], "{table}");
    let first = row(&table, "the first");
    // Received, delivered, dropped, dead letters, in flight.
    assert_eq!((first[1], &first[3..]), ("running", &["3", "1", "1", "0", "0"][..]), "{table}");
    assert!(first[2].ends_with(" s ago"), "{table}");
    let waits = row(&table, "waits");
    assert_eq!((waits[1], *waits.last().unwrap()), ("waiting", "waits for absent"), "{table}");

    let shown = said(&host, &folder, &["pipelines", "show", "the first"]);
    assert!(shown.starts_with("pipeline \"the first\" is running\nsince "), "{shown}");
    assert_eq!(row(&shown, "source"), ["source", "source", "3", "0"], "{shown}");
    assert_eq!(
        row(&shown, "notional"),
        ["notional", "transform", "3", "1", "1", "0", "1 rejected", "0"],
        "{shown}"
    );
    assert_eq!(row(&shown, "out"), ["out", "sink", "1", "1", "0", "0"], "{shown}");

    let printed: Value =
        serde_json::from_str(&said(&host, &folder, &["pipelines", "list", "--json"])).unwrap();
    assert_eq!(printed, asked(&host, "GET", "/api/v1/pipelines"), "the answer of the API as it is");
    let printed = said(&host, &folder, &["pipelines", "show", "waits", "--json"]);
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed, asked(&host, "GET", "/api/v1/pipelines/waits"));
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_added_from_a_file_stopped_started_and_removed() {
    let folder = Folder::default();
    folder.install("forward", &plugin("forward"));
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let host = folder.run("");
    assert_eq!(said(&host, &folder, &["pipelines", "list"]), "no pipelines\n");
    let toml = format!(
        r#"
        [[pipelines]]
        name = "a b"
          [pipelines.source]
          type = "websocket"
          url = "{}"
          {FAST}
          [[pipelines.transforms]]
          plugin = "forward"
          [[pipelines.sinks]]
          type = "websocket"
          url = "{}"
        "#,
        feed.url(),
        collector.url(),
    );
    std::fs::write(folder.path("listed.toml"), &toml).unwrap();
    let bare = toml.replace("[[pipelines]]\n", "").replace("pipelines.", "");
    std::fs::write(folder.path("bare.toml"), bare.replace("a b", "c")).unwrap();
    let json = json!({
        "name": "d", "source": { "type": "websocket", "url": feed.url() },
        "transforms": [{ "plugin": "absent" }],
        "sinks": [{ "type": "websocket", "url": collector.url() }],
    });
    std::fs::write(folder.path("d.JSON"), json.to_string()).unwrap();

    assert_eq!(said(&host, &folder, &["pipelines", "add", "listed.toml"]), "pipeline \"a b\" is running\n");
    feed.text("1").await;
    assert_eq!(collector.text().await, "1");
    let (code, _, errors) = tidemill_of(&host, &folder, &["pipelines", "add", "listed.toml"]);
    let told = "error: there is a pipeline \"a b\" already\nhint: choose another name";
    assert!(code == Some(1) && errors.starts_with(told), "{errors}");
    assert_eq!(said(&host, &folder, &["pipelines", "stop", "a b"]), "pipeline \"a b\" is stopped\n");
    assert!(matches!(collector.received.recv().await, Some(Received::Closed(_))));
    let added = said(&host, &folder, &["pipelines", "add", "bare.toml", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&added).unwrap()["state"], "running");
    let waits = said(&host, &folder, &["pipelines", "add", "d.JSON"]);
    assert_eq!(waits, "pipeline \"d\" is waiting: waits for absent\n");
    assert_eq!(said(&host, &folder, &["pipelines", "remove", "c"]), "removed: pipeline \"c\"\n");
    assert!(matches!(collector.received.recv().await, Some(Received::Closed(_))));
    assert_eq!(said(&host, &folder, &["pipelines", "start", "a b"]), "pipeline \"a b\" is running\n");
    feed.text("2").await;
    assert_eq!(collector.text().await, "2");
    assert_eq!(said(&host, &folder, &["pipelines", "remove", "d", "--json"]), "null\n");
    for what in ["show", "start", "stop", "remove"] {
        let (code, _, errors) = tidemill_of(&host, &folder, &["pipelines", what, "d"]);
        assert!(
            code == Some(1) && errors.starts_with("error: there is no pipeline \"d\"\nhint: "),
            "{what}: {errors}"
        );
        assert!(errors.ends_with("`tidemill pipelines list` lists them\n"), "{errors}");
    }
    for what in ["show", "start", "stop", "remove"] {
        let (_, _, errors) = tidemill_of(&host, &folder, &["pipelines", what, "a c"]);
        let hint = "\nhint: did you mean \"a b\"? `tidemill pipelines list` lists them\n";
        assert!(errors.ends_with(hint), "{what}: {errors}");
    }
    let all = asked(&host, "GET", "/api/v1/pipelines");
    assert_eq!(all["pipelines"].as_array().unwrap().len(), 1, "{all}");
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_file_of_a_pipeline_is_told_where_it_stands() {
    let folder = Folder::default();
    folder.install("counter", &guest("counter-v1").expect("guests in Rust are built"));
    let host = folder.run("");
    let add = |name: &str, text: &str| {
        std::fs::write(folder.path(name), text).unwrap();
        let (code, told, errors) = tidemill_of(&host, &folder, &["pipelines", "add", name]);
        assert_eq!((code, &*told), (Some(78), ""), "{errors}");
        errors
    };
    let text = "name = \"p\"\n\n[source]\ntype = \"websocket\"\nurl = \"ws://127.0.0.1:1/\"\ncodex = \"json\"\n\n[[sinks]]\ntype = \"stdout\"\nformat = \"xml\"\n";
    let errors = add("p.toml", text);
    let key = "p.toml:6:9: unknown key `codex`\n 6 | codex = \"json\"\n   |         ^^^^^^\nhint: did you mean `codec`?\n";
    assert!(errors.contains(key), "{errors}");
    assert!(errors.contains("p.toml:10:10: `format` must be one of"), "{errors}");
    // What only the host finds has no place.
    let refused = "name = \"p\"\nsource = { type = \"websocket\", url = \"ws://127.0.0.1:1/\" }\nsinks = [{ type = \"stdout\" }]\ntransforms = [{ plugin = \"counter\", config = { unknown = 1 } }]\n";
    let errors = add("refused.toml", refused);
    assert!(errors.starts_with("error: ") && errors.contains("counter"), "{errors}");
    for (name, text, told) in [
        ("syntax.toml", "name = \n", "syntax.toml:1:8: "),
        (
            "two.toml",
            "[[pipelines]]\nname = \"a\"\n[[pipelines]]\nname = \"b\"\n",
            "the file has 2 pipelines, and one is added at a time",
        ),
        (
            "more.toml",
            "[plugins]\ndir = \"x\"\n[[pipelines]]\nname = \"a\"\n",
            "more.toml:1:1: `plugins` is no part of a pipeline",
        ),
        ("broken.json", "{\n\"name\": \"p\",\n}", "broken.json:3:1: the file is not JSON: "),
        (
            "wrong.json",
            "{\"name\": \"p\", \"sinks\": []}",
            "wrong.json: /sinks: a pipeline needs at least one sink",
        ),
        (
            "p.yaml",
            "name: p\n",
            "p.yaml: the file is neither TOML nor JSON\nhint: its ending says what it is",
        ),
    ] {
        let errors = add(name, text);
        assert!(errors.contains(told), "{name}: {errors}");
    }
    let (code, _, errors) = tidemill_of(&host, &folder, &["pipelines", "add", "none.toml"]);
    assert!(code == Some(78) && errors.starts_with("none.toml: failed to read the file: "), "{errors}");
    assert_eq!(asked(&host, "GET", "/api/v1/pipelines"), json!({ "pipelines": [] }));
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_listed_closed_and_tried() {
    let folder = Folder::default();
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let host = folder.run(&format!(
        r#"
        [server]
        port = 0

        [[pipelines]]
        name = "dials"
        source = {{ type = "websocket", url = "{}", {FAST} }}
        sinks = [{{ type = "websocket", name = "out", url = "{}", {FAST} }}]

        [[pipelines]]
        name = "listens"
        source = {{ type = "websocket", mode = "server", path = "/rooms/{{room}}", metadata = {{ room = "path:room" }} }}
        sinks = [{{ type = "websocket", mode = "server", path = "/out" }}]
        "#,
        feed.url(),
        collector.url(),
    ));
    feed.text("1").await;
    assert_eq!(collector.text().await, "1");
    let peer = dial(host.listening("websocket"), "/rooms/red").await;
    tokio::task::block_in_place(|| {
        host.wait_until("it is there", |now| {
            now.count("tidemill_connections", &["pipeline=\"listens\"", "state=\"connected\""]) == 1
        });
    });
    let tables = said(&host, &folder, &["connections"]);
    assert_eq!(said(&host, &folder, &["connections", "list"]).lines().count(), tables.lines().count());
    let (endpoints, connections) = tables.split_once("\n\n").unwrap();
    let source =
        endpoints.lines().find(|line| line.starts_with("dials") && line.contains(" source ")).unwrap();
    assert!(source.contains(" connected ") && source.contains(&feed.url()), "{tables}");
    let line = connections.lines().find(|line| line.contains("listens")).unwrap();
    assert!(line.contains("room=red") && line.contains("127.0.0.1:"), "{tables}");
    let line = connections.lines().find(|line| line.contains(" out ")).unwrap();
    let id = line.split(' ').next().unwrap();
    assert_eq!(said(&host, &folder, &["connections", "close", id]), format!("closed: {id}\n"));
    assert_eq!(collector.received.recv().await, Some(Received::Closed(Some(1008))));
    let (code, _, errors) = tidemill_of(&host, &folder, &["connections", "close", id]);
    assert!(
        code == Some(1) && errors.starts_with(&format!("error: no connection \"{id}\"\nhint: ")),
        "{errors}"
    );
    feed.text("2").await;
    assert_eq!(collector.text().await, "2");
    drop(peer);

    std::fs::write(folder.path("feed.toml"), format!("type = \"websocket\"\nurl = \"{}\"\n", feed.url()))
        .unwrap();
    let away = "{\"type\": \"websocket\", \"url\": \"ws://127.0.0.1:1/\"}";
    std::fs::write(folder.path("away.json"), away).unwrap();
    std::fs::write(folder.path("wrong.toml"), "type = \"websocket\"\nurl = \"http://a/\"\n").unwrap();
    // The feed serves one client at a time: the handshake is all that is tried.
    let other = Feed::open().await;
    std::fs::write(folder.path("other.toml"), format!("type = \"websocket\"\nurl = \"{}\"\n", other.url()))
        .unwrap();
    assert_eq!(said(&host, &folder, &["connections", "check", "other.toml"]), "reachable\n");
    let (code, told, errors) = tidemill_of(&host, &folder, &["connections", "check", "away.json"]);
    assert_eq!((code, &*told), (Some(1), ""));
    assert!(errors.starts_with("error: failed to connect to WebSocket ws://127.0.0.1:1/"), "{errors}");
    let (code, told, _) = tidemill_of(&host, &folder, &["connections", "check", "away.json", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["reachable"]), (Some(1), &json!(false)), "{told}");
    let (code, _, errors) = tidemill_of(&host, &folder, &["connections", "check", "wrong.toml"]);
    assert!(
        code == Some(78) && errors.starts_with("wrong.toml:2:7: websocket url must start with"),
        "{errors}"
    );
    assert!(tokio::task::block_in_place(|| host.stop()).status.success());
}

#[test]
fn where_no_host_answers_every_command_says_where_and_what_to_do() {
    let folder = Folder::default();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    std::fs::write(folder.path("p.toml"), "name = \"p\"\n").unwrap();
    for args in [
        &["pipelines", "list"][..],
        &["pipelines", "show", "p"],
        &["pipelines", "add", "p.toml"],
        &["pipelines", "remove", "p"],
        &["pipelines", "start", "p"],
        &["pipelines", "stop", "p"],
        &["connections"],
        &["connections", "close", "c"],
        &["connections", "check", "p.toml"],
    ] {
        let (code, _, told) = told_at(&folder, args, &nobody);
        let expected = format!("error: no host answers at {nobody}: ");
        assert!(code == Some(1) && told.starts_with(&expected), "{args:?}: {told}");
        assert!(
            told.ends_with("\nhint: `--admin`, or TIDEMILL_ADMIN, is the `listen` of its [admin]\n"),
            "{told}"
        );
    }
    for args in
        [&["pipelines"][..], &["pipelines", "show"], &["connections", "close"], &["pipelines", "list", "x"]]
    {
        assert_eq!(tidemill(&folder, args).0, Some(2), "{args:?}");
    }
}

/// Every command that speaks to a running host, in a folder with the files that they send.
const COMMANDS: [&[&str]; 25] = [
    &["pipelines", "list"],
    &["pipelines", "show", "p"],
    &["pipelines", "add", "p.toml"],
    &["pipelines", "remove", "p"],
    &["pipelines", "start", "p"],
    &["pipelines", "stop", "p", "--json"],
    &["connections"],
    &["connections", "close", "c"],
    &["connections", "check", "p.toml"],
    &["deadletter", "list"],
    &["deadletter", "show", "x-1"],
    &["deadletter", "retry", "x-1"],
    &["deadletter", "retry", "--all", "--json"],
    &["deadletter", "retry", "--file", "dead.jsonl"],
    &["state", "list"],
    &["state", "list", "p"],
    &["state", "export", "p"],
    &["state", "clear", "p"],
    &["plugins"],
    &["plugins", "--swaps"],
    &["swap", "p.wasm"],
    &["rollback", "p"],
    &["reload"],
    &["health"],
    &["health", "--ready"],
];

/// What a command says to this address.
fn told_at(folder: &Folder, args: &[&str], address: &str) -> Told {
    tidemill(folder, &[args, &["--admin", address]].concat())
}

fn with_files() -> Folder {
    let folder = Folder::default();
    std::fs::write(folder.path("p.toml"), "name = \"p\"\n").unwrap();
    std::fs::write(folder.path("p.wasm"), "wasm").unwrap();
    let letter = json!({ "pipeline": "p", "stage": "s", "reason": "trap", "payload": "x" });
    std::fs::write(folder.path("dead.jsonl"), format!("{letter}\n")).unwrap();
    folder
}

#[test]
fn what_does_not_answer_as_a_host_is_none_whatever_it_says() {
    let folder = with_files();
    let list = r#"{"pipelines":[7],"endpoints":[7],"deadletters":[7],"plugins":[7],"swaps":[7],"total":0}"#;
    let other_json = ["{}", "[]", "\"ok\"", "null", r#"{"pipelines": {}, "status": 200}"#, list];
    let others = other_json.map(|body| answer(200, body)).into_iter().chain([
        answer(200, "It works!"),
        answer(200, ""),
        answer(404, "<h1>Not found</h1>"),
        answer(409, r#"{"error": "conflict"}"#),
        answer(500, r#"{"message": "no"}"#),
        answer(302, r#"{"error": {"code": "a", "message": "b"}}"#),
        b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
    ]);
    for said in others {
        let shown = String::from_utf8_lossy(&said).into_owned();
        let address = impostor(move |_, _| said.clone());
        for args in COMMANDS {
            let (code, told, errors) = told_at(&folder, args, &address);
            let expected = format!("{address} does not answer as a Tidemill host: ");
            assert_eq!(code, Some(1), "{args:?} to {shown}: {told}{errors}");
            assert!(errors.contains(&expected), "{args:?} to {shown}: {told}{errors}");
            assert!(
                errors.ends_with("\nhint: `--admin`, or TIDEMILL_ADMIN, is the `listen` of its [admin]\n"),
                "{args:?}: {errors}"
            );
        }
    }
}

#[test]
fn a_host_that_leaves_in_the_middle_was_there() {
    let folder = with_files();
    let whole = answer(200, r#"{"status": "ok"}"#);
    for said in [Vec::new(), b"HTTP/1.1 200 OK\r\n".to_vec(), whole[..whole.len() - 3].to_vec()] {
        let address = impostor(move |_, _| said.clone());
        for args in COMMANDS {
            let (code, _, errors) = told_at(&folder, args, &address);
            let expected = format!("the connection to the host at {address} broke before it had answered: ");
            assert!(code == Some(1) && errors.contains(&expected), "{args:?}: {errors}");
            let only_asks = matches!(
                args,
                ["connections" | "plugins" | "health", ..] | [_, "list" | "show" | "export", ..]
            );
            let is_order = !only_asks || matches!(args, [_, "close" | "check", ..]);
            assert_eq!(errors.contains("\nhint: whether it did what it was asked is not known"), is_order);
        }
    }
}

#[test]
fn a_name_has_at_least_one_character() {
    let folder = with_files();
    for args in [
        &["pipelines", "show", ""][..],
        &["pipelines", "remove", ""],
        &["connections", "close", ""],
        &["deadletter", "show", ""],
        &["deadletter", "retry", ""],
        &["deadletter", "retry", "x-1", ""],
        &["deadletter", "list", "--pipeline", ""],
        &["state", "export", ""],
        &["state", "clear", "p", ""],
        &["state", "list", ""],
        &["rollback", ""],
        &["rollback", "x", "--to", ""],
        &["swap", "p.wasm", "--name", ""],
    ] {
        let (code, _, errors) = told_at(&folder, args, "127.0.0.1:1");
        assert!(code == Some(2) && errors.contains("it is empty"), "{args:?}: {errors}");
    }
    for args in [
        &["deadletter", "list", "--limit", "0"][..],
        &["deadletter", "list", "--limit", "1001"],
        &["swap", "p.wasm", "--shadow", "1000000001"],
    ] {
        let (code, _, errors) = told_at(&folder, args, "127.0.0.1:1");
        assert!(code == Some(2) && errors.contains("is not in "), "{args:?}: {errors}");
    }
}
