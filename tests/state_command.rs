//! `tidemill state` and the HTTP API behind it: what plugins know is listed, exported and cleared, through a running
//! host or from the folder.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use tidemill_tests::commands::{Told, tidemill, tidemill_of};
use tidemill_tests::guest;
use tidemill_tests::host::{Folder, Host};
use tidemill_tests::peers::{Collector, Feed, Received};
use tidemill_tests::pipelines::relay;

/// What the counter says of one message "x": its count, in eight bytes, and the last message.
const COUNT: &str = "AQAAAAAAAAA=";
const LAST: &str = "eA==";

fn folder() -> Folder {
    let folder = Folder::default();
    folder.install("counter", &guest("counter-v1").expect("guests in Rust are built"));
    folder
}

/// Two pipelines of one feed each, one durable.
struct Pipelines {
    feeds: [Feed; 2],
    collectors: [Collector; 2],
}

impl Pipelines {
    async fn open() -> Self {
        let feeds = [Feed::open().await, Feed::open().await];
        Self { feeds, collectors: [Collector::open().await, Collector::open().await] }
    }

    fn config(&self) -> String {
        let pipeline = |name: &str, index: usize| {
            let transforms = format!("{{ plugin = \"counter\", state = \"{name}\" }}");
            let (feed, collector) = (&self.feeds[index], &self.collectors[index]);
            relay(&format!("the {name} one"), &feed.url(), &transforms, &collector.url())
        };
        let pipelines = pipeline("durable", 0) + &pipeline("memory", 1);
        format!("[state]\ninterval = \"10ms\"\n{pipelines}")
    }

    /// Each of them counts a message.
    async fn count(&mut self, expected: u64) {
        for (feed, collector) in self.feeds.iter().zip(&mut self.collectors) {
            feed.text("x").await;
            assert_eq!(collector.text().await, format!("v1 {expected} x"));
        }
    }

    async fn closed(&mut self) {
        for collector in &mut self.collectors {
            assert!(matches!(collector.received.recv().await, Some(Received::Closed(_))));
        }
    }
}

/// A host whose pipelines have counted a message each, which is written.
async fn counted(folder: &Folder) -> (Host, Pipelines) {
    let mut pipelines = Pipelines::open().await;
    let host = folder.run(&pipelines.config());
    pipelines.count(1).await;
    tokio::task::block_in_place(|| until_written(&host));
    (host, pipelines)
}

/// What `tidemill state` says in a folder.
fn state(folder: &Folder, args: &[&str]) -> Told {
    tidemill(folder, &[&["state"], args].concat())
}

/// What `tidemill state` says of a running host.
fn state_of(host: &Host, folder: &Folder, args: &[&str]) -> Told {
    tidemill_of(host, folder, &[&["state"], args].concat())
}

fn json_of((code, text, errors): Told) -> Value {
    assert_eq!(code, Some(0), "{errors}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A row of `state list` once the count is written.
fn row(name: &str, is_durable: bool) -> Value {
    // Two keys, `count` and `last`, and their values.
    json!({ "transform": name, "durable": is_durable, "keys": 2, "state_bytes": 18, "snapshot_bytes": 8 })
}

fn until_written(host: &Host) {
    host.wait_until("state is written", |_| {
        let (_, answer) = host.json("GET", "/api/v1/state", &Value::Null);
        answer["pipelines"][0]["transforms"] == json!([row("counter", true)])
    });
}

fn tell(host: &Host, pipeline: &str, what: &str) {
    let (status, answer) = host.json("POST", &format!("/api/v1/pipelines/{pipeline}/{what}"), &Value::Null);
    assert_eq!(status, 200, "{answer}\n{}", host.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_host_lists_and_exports_what_plugins_know_and_clears_it_where_they_do_not_run() {
    let folder = folder();
    let (host, mut pipelines) = counted(&folder).await;
    tokio::task::block_in_place(|| {
        let asked = |args: &[&str]| state_of(&host, &folder, args);

        let all = json_of(asked(&["list", "--json"]));
        let [durable, memory] = &all["pipelines"].as_array().unwrap()[..] else { panic!("{all}") };
        assert_eq!(durable["pipeline"], "the durable one");
        assert!(durable["written"].as_u64().is_some() && durable["file_bytes"].as_u64() > Some(0), "{all}");
        assert_eq!(memory["pipeline"], "the memory one");
        assert_eq!((&memory["written"], &memory["file_bytes"]), (&Value::Null, &json!(0)));
        assert_eq!(memory["transforms"], json!([row("counter", false)]));
        let (code, table, _) = asked(&["list"]);
        assert_eq!(code, Some(0));
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].starts_with("PIPELINE") && lines[1].contains("durable") && lines[1].contains("2"));
        assert!(lines[1].ends_with(" ago") && lines[2].starts_with("the memory one"), "{table}");
        let one = json_of(asked(&["list", "the memory one", "--json"]));
        assert_eq!(one["pipelines"].as_array().unwrap().len(), 1);

        for pipeline in ["the durable one", "the memory one"] {
            let exported = json_of(asked(&["export", pipeline]));
            let counter = json!({
                "state": { "count": COUNT, "last": LAST }, "snapshots": [COUNT], "position": null,
            });
            assert_eq!(exported, json!({ "transforms": { "counter": counter } }));
            assert_eq!(json_of(asked(&["export", pipeline, "counter"])), exported);

            // While it runs, it is its plugin's.
            let (code, _, errors) = asked(&["clear", pipeline]);
            assert_eq!(code, Some(1));
            assert!(errors.contains(&format!("pipeline \"{pipeline}\" is not stopped\nhint: ")), "{errors}");
            let path = format!("/api/v1/state/{}", pipeline.replace(' ', "%20"));
            let (status, answer) = host.json("DELETE", &path, &Value::Null);
            assert_eq!((status, &answer["error"]["code"]), (409, &json!("running")), "{answer}");
            for args in [&["export", "x"][..], &["export", pipeline, "x"], &["clear", "x"]] {
                let (code, _, errors) = asked(args);
                let told = match args.len() {
                    2 => "nothing is kept of pipeline \"x\"\n".to_owned(),
                    _ => format!("nothing is kept of transform \"x\" of pipeline \"{pipeline}\"\n"),
                };
                assert!(code == Some(1) && errors.contains(&told), "{args:?}: {errors}");
            }
            tell(&host, &pipeline.replace(' ', "%20"), "stop");
        }
        for args in [&["clear", "the durable one", "counter"][..], &["clear", "the memory one"]] {
            let (code, text, errors) = asked(args);
            assert_eq!((code, text.starts_with("cleared: ")), (Some(0), true), "{errors}");
        }
        assert_eq!(json_of(asked(&["list", "--json"]))["pipelines"][0]["transforms"], json!([]));
        let (_, answer) = host.json("GET", "/api/v1/state/the%20memory%20one", &Value::Null);
        assert_eq!(answer["error"]["code"], "not_found");
        for pipeline in ["the%20durable%20one", "the%20memory%20one"] {
            tell(&host, pipeline, "start");
        }
    });
    pipelines.closed().await;
    // From the start of everything.
    pipelines.count(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_host_answers_the_folder_is_read_and_cleared() {
    let folder = folder();
    let (host, mut pipelines) = counted(&folder).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    tokio::task::block_in_place(|| {
        // The host has it open.
        let listed = json_of(state(&folder, &["list", "--json", "-c", "tidemill.toml"]));
        let error = listed["pipelines"][0]["error"].as_str().unwrap();
        assert!(error.ends_with("is in use by another host"), "{listed}");
        let (code, _, errors) = state(&folder, &["clear", "the durable one", "-c", "tidemill.toml"]);
        assert!(code == Some(1) && errors.contains("is in use by another host"), "{errors}");
        assert!(host.stop().status.success());
    });
    pipelines.closed().await;

    for from in [["-c", "tidemill.toml"], ["--admin", &nobody]] {
        let asked = |args: &[&str]| state(&folder, &[args, &from].concat());
        let listed = asked(&["list", "--json"]);
        let note = &listed.2;
        assert_eq!(note.contains("no host answers at "), from[0] == "--admin", "{note}");
        let listed = json_of(listed);
        assert_eq!(listed["pipelines"].as_array().unwrap().len(), 1, "{listed}");
        assert_eq!(listed["pipelines"][0]["transforms"], json!([row("counter", true)]));
        let exported = json_of(asked(&["export", "the durable one"]));
        assert_eq!(exported["transforms"]["counter"]["state"]["count"], COUNT);
        let (code, _, errors) = asked(&["export", "the memory one"]);
        assert!(
            code == Some(1) && errors.contains("nothing is kept of pipeline \"the memory one\""),
            "{errors}"
        );
    }
    let (code, text, _) = state(&folder, &["clear", "the durable one", "--admin", &nobody]);
    assert_eq!((code, &*text), (Some(0), "cleared: pipeline \"the durable one\"\n"));
    assert_eq!(
        json_of(state(&folder, &["list", "--json", "-c", "tidemill.toml"])),
        json!({ "pipelines": [] })
    );
    let _host = folder.run(&pipelines.config());
    pipelines.count(1).await;
}

#[test]
fn state_is_for_who_shows_the_token() {
    let folder = Folder::default();
    let host = folder.run("token = \"t0ken\"");
    for (method, path) in
        [("GET", "/api/v1/state"), ("GET", "/api/v1/state/p"), ("DELETE", "/api/v1/state/p/t")]
    {
        assert_eq!(host.json(method, path, &Value::Null).0, 401, "{method} {path}");
    }
    let host = host.with_token("t0ken");
    let (code, _, errors) = state_of(&host, &folder, &["list"]);
    assert!(code == Some(1) && errors.contains("the token is missing or wrong\nhint: `--token`"), "{errors}");
    let listed = state_of(&host, &folder, &["list", "--json", "--token", "t0ken"]);
    assert_eq!(json_of(listed), json!({ "pipelines": [] }));
}

#[test]
fn the_state_of_a_pipeline_that_was_removed_stays_until_it_is_cleared() {
    let folder = folder();
    std::fs::write(folder.path("in.jsonl"), "x\n").unwrap();
    let host = folder.run(
        r#"
        [[pipelines]]
        name = "p"
        source = { type = "file", path = "in.jsonl" }
        transforms = [{ plugin = "counter", state = "durable" }]
        sinks = [{ type = "file", path = "out.jsonl" }]
        "#,
    );
    until_written(&host);
    host.becomes("p", "finished");
    assert_eq!(host.json("DELETE", "/api/v1/pipelines/p", &Value::Null).0, 204);
    let (status, exported) = host.json("GET", "/api/v1/state/p/counter", &Value::Null);
    assert_eq!((status, &exported["transforms"]["counter"]["snapshots"]), (200, &json!([COUNT])));
    assert_eq!(exported["transforms"]["counter"]["position"]["offset"], 2);
    assert_eq!(host.json("DELETE", "/api/v1/state/p", &Value::Null).0, 204);
    assert_eq!(host.json("DELETE", "/api/v1/state/p", &Value::Null).0, 404);
    assert_eq!(host.json("GET", "/api/v1/state", &Value::Null).1, json!({ "pipelines": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_kept_nothing_is_said_to_be_cleared() {
    let folder = folder();
    let (host, _pipelines) = counted(&folder).await;
    tokio::task::block_in_place(|| {
        for pipeline in ["the durable one", "the memory one"] {
            tell(&host, &pipeline.replace(' ', "%20"), "stop");
            for (args, what) in [
                (
                    vec!["clear", pipeline, "counter"],
                    format!("transform \"counter\" of pipeline \"{pipeline}\""),
                ),
                (vec!["clear", pipeline], format!("pipeline \"{pipeline}\"")),
            ] {
                let ask = || state_of(&host, &folder, &args);
                // The file of the durable one is there without its transform.
                if args.len() == 3 || pipeline == "the durable one" {
                    assert_eq!(ask(), (Some(0), format!("cleared: {what}\n"), String::new()));
                }
                let error =
                    format!("error: nothing is kept of {what}\nhint: `tidemill state list` lists what is\n");
                assert_eq!(ask(), (Some(1), String::new(), error));
            }
        }
        assert!(host.stop().status.success());
    });
}

#[test]
fn a_damaged_file_is_listed_as_such_and_can_be_cleared() {
    let folder = Folder::default();
    std::fs::create_dir_all(folder.path(".tidemill/state")).unwrap();
    std::fs::write(folder.path(".tidemill/state/p.redb"), "not what it was").unwrap();
    std::fs::write(folder.path("tidemill.toml"), "").unwrap();
    let asked = |args: &[&str]| state(&folder, &[args, &["-c", "tidemill.toml"]].concat());
    let (code, table, _) = asked(&["list"]);
    assert!(code == Some(0) && table.lines().nth(1).unwrap().contains("p.redb"), "{table}");
    let (code, _, errors) = asked(&["export", "p"]);
    assert!(code == Some(1) && errors.contains("p.redb"), "{errors}");
    assert_eq!(asked(&["clear", "p"]).0, Some(0));
    assert_eq!(json_of(asked(&["list", "--json"])), json!({ "pipelines": [] }));
}
