//! Versions that somebody sends, or wants back.

use super::*;
use std::path::Path;
use std::thread;

const COMPONENT: &[(&str, &str)] = &[("Content-Type", "application/wasm")];

/// What sending a component comes to: the status and the answer as it is.
fn sent(host: &Host, path: &str, component: &[u8]) -> (u16, Value) {
    let (status, answer) = host.send("PUT", &format!("/api/v1/plugins/{path}"), COMPONENT, component);
    (status, serde_json::from_str(&answer).unwrap())
}

/// The same of a verdict, which is looked at.
fn tried(host: &Host, path: &str, component: &[u8]) -> (u16, Value) {
    let (status, verdict) = sent(host, path, component);
    assert_eq!(verdicts(host)[0], verdict, "it is kept as it was told");
    (status, steady(verdict))
}

/// What wanting a version back comes to.
fn rolled_back(host: &Host, path: &str) -> (u16, Value) {
    host.json("POST", &format!("/api/v1/plugins/{path}"), &Value::Null)
}

/// What is in a file of the plugin folder.
fn file(folder: &Folder, plugin: &str) -> Option<Vec<u8>> {
    std::fs::read(folder.path(&format!("plugins/{plugin}.wasm"))).ok()
}

/// A verdict of `x` that has swapped.
fn good(asked_by: &str, to: &[u8], from: &[u8], state: &str) -> Value {
    json!({
        "plugin": "x", "outcome": "swapped", "version": version(to), "previous": version(from),
        "asked_by": asked_by, "error": null, "folder_error": null, "uses": [swapped(state)],
    })
}

fn refusal(answer: &Value) -> (&str, &str) {
    (answer["error"]["code"].as_str().unwrap(), answer["error"]["message"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_is_sent_runs_is_written_into_the_folder_and_is_no_second_swap() {
    let mut scene = Scene::new().await;
    let (first, second) = (content("counter-v1"), content("counter-v2"));
    scene.folder.put("x", &first);
    let host = scene.run("");
    scene.passes("a", "v1 1 a").await;
    let verdict = good("api", &second, &first, "carried");
    assert_eq!(blocking(|| tried(&host, "x", &second)), (200, verdict));
    assert_eq!(file(&scene.folder, "x").as_ref(), Some(&second));
    scene.passes("b", "v2 2 b").await;
    let verdict = good("api", &first, &second, "fresh");
    assert_eq!(blocking(|| tried(&host, "x?state=fresh", &first)), (200, verdict));
    scene.passes("c", "v1 1 c").await;
    // The same once more changes nothing, unless it is to begin anew.
    let mut runs = swapped("none");
    runs["state"] = Value::Null;
    let again = json!({
        "plugin": "x", "outcome": "swapped", "version": version(&first), "previous": version(&first),
        "asked_by": "api", "error": null, "folder_error": null, "uses": [runs],
    });
    assert_eq!(blocking(|| tried(&host, "x", &first)), (200, again));
    scene.passes("d", "v1 2 d").await;
    let verdict = good("api", &first, &first, "fresh");
    assert_eq!(blocking(|| tried(&host, "x?state=fresh", &first)), (200, verdict));
    scene.passes("e", "v1 1 e").await;
    // What the folder says of all that is nothing; a change of it is told.
    scene.folder.put("x", &second);
    blocking(|| {
        let all = decided(&host, 5);
        assert_eq!(all[0], good("folder", &second, &first, "carried"));
        host.says_times("plugin version found", 5);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_a_pipeline_refuses_is_answered_with_the_verdict_and_not_written() {
    let mut scene = Scene::new().await;
    let (filter, notional) = (shipped("filter"), shipped("notional"));
    scene.folder.put("x", &filter);
    let host = scene.run(r#"config = { where = [{ field = "/n", op = "exists" }] }"#);
    scene.passes("{\"n\":1}", "{\"n\":1}").await;
    let why = "plugin x does not start: init refused its configuration: unknown key `where`: known here: \
               `price`, `quantity`, `above`";
    let verdict = json!({
        "plugin": "x", "outcome": "rejected", "version": version(&notional), "previous": version(&filter),
        "asked_by": "api", "error": format!("pipeline p, transform x: {why}"), "folder_error": null,
        "uses": [rejected(Some(why))],
    });
    assert_eq!(blocking(|| tried(&host, "x", &notional)), (409, verdict));
    assert_eq!(file(&scene.folder, "x"), Some(filter));
    scene.passes("{\"n\":2}", "{\"n\":2}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_component_or_comes_in_the_wrong_way_is_refused_and_changes_nothing() {
    let mut scene = Scene::new().await;
    let first = content("counter-v1");
    scene.folder.put("x", &first);
    let config = format!("token = \"secret\"\n[plugins]\nmax_size = \"512KiB\"\n{}", scene.pipeline(""));
    let host = blocking(|| scene.folder.run(&config).with_token("secret"));
    scene.passes("a", "v1 1 a").await;
    blocking(|| {
        let (status, answer) = sent(&host, "x", b"garbage");
        let why = "failed to load plugin x: the file is not WebAssembly";
        assert_eq!((status, refusal(&answer)), (422, ("not_a_plugin", why)));
        let verdict = json!({
            "plugin": "x", "outcome": "rejected", "version": version(b"garbage"), "previous": version(&first),
            "asked_by": "api", "error": why, "folder_error": null, "uses": [],
        });
        assert_eq!(decided(&host, 1), [verdict], "it was an attempt");
        let (status, answer) = sent(&host, "x", &vec![0; (512 << 10) + 1]);
        assert_eq!((status, refusal(&answer)), (413, ("too_large", "the body is larger than 524288 bytes")));
        let (status, answer) = sent(&host, "x", b"");
        assert_eq!((status, refusal(&answer).0), (422, "not_a_plugin"));
        let (status, answer) = sent(&host, ".hidden", &first);
        let name = ("invalid", "a plugin cannot be called \".hidden\"");
        assert_eq!((status, refusal(&answer)), (422, name));
        assert_eq!(sent(&host, "..%2Fx", &first).0, 422);
        for query in ["state=old", "shadow=-1", "probation=1", "shade=1"] {
            let (status, answer) = sent(&host, &format!("x?{query}"), &first);
            assert_eq!((status, refusal(&answer).0), (400, "bad_request"), "{query}: {answer}");
        }
        let path = "/api/v1/plugins/x";
        let wrong = [("Content-Type", "application/json")];
        let told = |headers: &[(&str, &str)]| {
            let (status, answer) = host.send("PUT", path, headers, &first);
            let answer: Value = serde_json::from_str(&answer).unwrap();
            (status, answer["error"]["message"].as_str().unwrap().to_owned())
        };
        let says = "the body says that it is application/json, and this path takes application/wasm";
        assert_eq!(told(&wrong), (415, says.to_owned()));
        let silent = "the body does not say what it is, and this path takes application/wasm";
        assert_eq!(told(&[("Content-Type", "")]), (415, silent.to_owned()));
        let nobody = [COMPONENT[0], ("Authorization", "Bearer nobody")];
        assert_eq!(host.send("PUT", path, &nobody, &first).0, 401);
        let page = [COMPONENT[0], ("Origin", "http://evil.example")];
        assert_eq!(host.send("PUT", path, &page, &first).0, 403);
        assert_eq!(host.send("POST", "/api/v1/pipelines", COMPONENT, &first).0, 415, "other paths take JSON");
        assert_eq!(verdicts(&host).len(), 1, "nothing else was an attempt");
    });
    assert_eq!(file(&scene.folder, "x"), Some(first));
    scene.passes("b", "v1 2 b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_no_pipeline_uses_is_checked_and_written_and_one_that_is_waited_for_starts() {
    let mut scene = Scene::new().await;
    let (first, second) = (content("counter-v1"), content("counter-v2"));
    let host = scene.run("");
    let unused = |content: &[u8], previous: Option<&[u8]>| {
        json!({
            "plugin": "unused", "outcome": "swapped", "version": version(content),
            "previous": previous.map(version), "asked_by": "api", "error": null, "folder_error": null, "uses": [],
        })
    };
    blocking(|| {
        assert_eq!(tried(&host, "unused", &first), (200, unused(&first, None)));
        assert_eq!(tried(&host, "unused", &second), (200, unused(&second, Some(&first))));
        assert_eq!(file(&scene.folder, "unused"), Some(second));
        assert_eq!(sent(&host, "unused", b"garbage").0, 422);
        assert_eq!(host.metrics().count("tidemill_plugin_swaps_total", &[]), 0);
        let (status, verdict) = tried(&host, "x", &first);
        assert_eq!((status, &verdict["previous"]), (200, &Value::Null));
        assert_eq!(host.metrics().count("tidemill_plugin_swaps_total", &[]), 0, "a first load is none");
    });
    scene.passes("a", "v1 1 a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_is_told_and_the_version_runs_all_the_same() {
    let mut scene = Scene::new().await;
    let (first, second) = (content("counter-v1"), content("counter-v2"));
    scene.folder.put("x", &first);
    let host = scene.run("");
    scene.passes("a", "v1 1 a").await;
    // A folder in the place of the file.
    std::fs::remove_file(scene.folder.path("plugins/x.wasm")).unwrap();
    std::fs::create_dir(scene.folder.path("plugins/x.wasm")).unwrap();
    blocking(|| {
        let all = decided(&host, 1);
        assert_eq!((&all[0]["outcome"], &all[0]["version"]), (&json!("rejected"), &Value::Null));
        let (status, mut verdict) = tried(&host, "x", &second);
        let told = verdict["folder_error"].take();
        let told = told.as_str().unwrap();
        assert!(told.starts_with("failed to write x.wasm in the plugin folder plugins: "), "{told}");
        assert_eq!((status, verdict), (200, good("api", &second, &first, "carried")));
    });
    scene.passes("b", "v2 2 b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_are_sent_the_newer_runs_and_whoever_sent_the_other_is_told() {
    let scene = Scene::new().await;
    let hostile = content("hostile");
    let [older, same, newer] = [1, 1, 2].map(|number| another(&hostile, number));
    blocking(|| {
        let host = scene.run_beside_slow(&hostile);
        thread::scope(|threads| {
            let found = |count: usize| {
                host.wait_until("it is found", |_| {
                    host.log().matches("plugin version found").count() >= count
                });
            };
            let first = threads.spawn(|| sent(&host, "x", &older));
            found(1);
            // Who sends the same waits with the other.
            let second = threads.spawn(|| sent(&host, "x", &same));
            found(2);
            let third = threads.spawn(|| tried(&host, "x", &newer));
            let superseded = json!({
                "plugin": "x", "outcome": "superseded", "version": version(&older), "previous": version(&hostile),
                "asked_by": "api", "error": "newer content came first", "folder_error": null, "uses": [],
            });
            for answer in [first, second] {
                let (status, verdict) = answer.join().unwrap();
                assert_eq!((status, steady(verdict)), (409, superseded.clone()));
            }
            assert_eq!(third.join().unwrap(), (200, good("api", &newer, &hostile, "carried")));
        });
        assert_eq!(verdicts(&host).len(), 2);
        assert_eq!(file(&scene.folder, "x"), Some(newer));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_file_changes_while_a_component_is_sent_what_runs_in_the_end_is_what_the_folder_has() {
    let mut scene = Scene::new().await;
    let moody = content("moody");
    scene.folder.put("x", &moody);
    let host = scene.run("");
    scene.passes("a", "a").await;
    blocking(|| {
        for round in 0..20 {
            let (sent_one, put_one) = (another(&moody, 2 * round), another(&moody, 2 * round + 1));
            let (status, verdict) = thread::scope(|threads| {
                let answer = threads.spawn(|| sent(&host, "x", &sent_one));
                scene.folder.put("x", &put_one);
                answer.join().unwrap()
            });
            let outcome = verdict["outcome"].as_str().unwrap();
            assert!(matches!((status, outcome), (200, "swapped") | (409, "superseded")), "{verdict}");
            assert_eq!(verdict["version"], version(&sent_one));
            // Whatever came last, nothing that was found is on its way any more, and folder and host agree.
            host.wait_until("it is decided", |_| {
                let (_, plugin) = host.json("GET", "/api/v1/plugins/x", &Value::Null);
                let runs = plugin["uses"][0]["version"].as_str().unwrap().to_owned();
                let found = host.log().matches("plugin version found").count();
                file(&scene.folder, "x").map(|content| version(&content)) == Some(runs.clone())
                    && (runs == version(&put_one) || runs == version(&sent_one))
                    && verdicts(&host).len() >= found.min(100)
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn swaps_stops_and_removals_at_once_are_all_answered() {
    let scene = Scene::new().await;
    let versions = [content("counter-v1"), content("counter-v2")];
    scene.folder.put("x", &versions[0]);
    let config = format!("[server]\nport = 0\n{}", scene.pipeline(""));
    let host = blocking(|| scene.folder.run(&config));
    let extra = json!({
        "name": "extra",
        "source": { "type": "websocket", "mode": "server", "path": "/in" },
        "transforms": [{ "plugin": "x" }],
        "sinks": [{ "type": "websocket", "mode": "server", "path": "/out" }],
    });
    const ROUNDS: usize = 15;
    blocking(|| {
        thread::scope(|threads| {
            let swaps = threads.spawn(|| {
                for round in 0..ROUNDS {
                    let (status, verdict) = sent(&host, "x", &versions[(round + 1) % 2]);
                    assert_eq!((status, &verdict["outcome"]), (200, &json!("swapped")), "{verdict}");
                }
            });
            let stops = threads.spawn(|| {
                for _ in 0..ROUNDS {
                    for what in ["stop", "start"] {
                        let (status, answer) =
                            host.json("POST", &format!("/api/v1/pipelines/p/{what}"), &Value::Null);
                        assert!(matches!(status, 200 | 202), "{what}: {answer}");
                    }
                }
            });
            let removals = threads.spawn(|| {
                for _ in 0..ROUNDS {
                    let (status, answer) = host.json("POST", "/api/v1/pipelines", &extra);
                    assert_eq!(status, 201, "{answer}");
                    assert_eq!(host.json("DELETE", "/api/v1/pipelines/extra", &Value::Null).0, 204);
                }
            });
            for each in [swaps, stops, removals] {
                each.join().unwrap();
            }
        });
        let asked = verdicts(&host).into_iter().filter(|verdict| verdict["asked_by"] == "api").count();
        assert_eq!(asked, ROUNDS, "{:#?}\n{}", verdicts(&host), host.log());
        let (_, plugin) = host.json("GET", "/api/v1/plugins/x", &Value::Null);
        assert_eq!(plugin["version"], version(&versions[ROUNDS % 2]));
        assert_eq!(file(&scene.folder, "x"), Some(versions[ROUNDS % 2].clone()));
        assert!(host.stop().status.success());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_before_or_a_named_one_is_had_back_with_the_state_and_the_file() {
    let mut scene = Scene::new().await;
    let (first, second) = (content("counter-v1"), content("counter-v2"));
    scene.folder.put("x", &first);
    let host = scene.run("");
    scene.passes("a", "v1 1 a").await;
    blocking(|| {
        let (status, answer) = rolled_back(&host, "x/rollback");
        let why = "no other version of plugin \"x\" that ran before is kept";
        assert_eq!((status, refusal(&answer)), (409, ("version", why)));
        for path in ["plugins/x/rollback", "pipelines/p/stop", "pipelines/p/start", "reload"] {
            let body = json!({ "to": "sha256:0" });
            let (status, answer) = host.json("POST", &format!("/api/v1/{path}"), &body);
            let why = "the body says something, and this path takes none";
            assert_eq!((status, refusal(&answer)), (400, ("bad_request", why)), "{path}");
        }
        let (status, answer) = host.json("POST", "/api/v1/plugins/y/rollback", &json!({}));
        assert_eq!((status, refusal(&answer)), (404, ("not_found", "there is no plugin \"y\"")));
        assert_eq!(sent(&host, "x", &second).0, 200);
    });
    scene.passes("b", "v2 2 b").await;
    blocking(|| {
        let (status, verdict) = rolled_back(&host, "x/rollback");
        assert_eq!((status, steady(verdict)), (200, good("rollback", &first, &second, "carried")));
    });
    assert_eq!(file(&scene.folder, "x").as_ref(), Some(&first));
    scene.passes("c", "v1 3 c").await;
    blocking(|| {
        // What ran before is the other one now.
        let (status, verdict) = rolled_back(&host, "x/rollback");
        assert_eq!((status, steady(verdict)), (200, good("rollback", &second, &first, "carried")));
        let third = another(&first, 3);
        assert_eq!(sent(&host, "x", &third).0, 200);
        let begins = &version(&first)["sha256:".len()..][..12];
        let (status, verdict) = rolled_back(&host, &format!("x/rollback?to={begins}"));
        assert_eq!((status, steady(verdict)), (200, good("rollback", &first, &third, "carried")));
        let (status, answer) = rolled_back(&host, &format!("x/rollback?to={begins}"));
        let why = format!("plugin \"x\" runs the version {} already", version(&first));
        assert_eq!((status, refusal(&answer)), (409, ("version", why.as_str())));
        let (status, answer) = rolled_back(&host, "x/rollback?to=none");
        let (code, message) = refusal(&answer);
        let kept = [&first, &third, &second].map(|content| version(content)).join(", ");
        let why = format!("nothing like the version none is kept of plugin \"x\" (there is {kept})");
        assert_eq!((status, code, message), (404, "not_found", why.as_str()));
        assert_eq!(verdicts(&host).len(), 5, "what was refused at once was no attempt");
    });
    scene.passes("d", "v1 4 d").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_had_back_and_does_not_take_the_state_begins_anew_and_says_so() {
    let mut scene = Scene::new().await;
    let (counter, moody) = (content("counter-v1"), content("moody"));
    scene.folder.put("x", &counter);
    let host = scene.run("");
    scene.passes("a", "v1 1 a").await;
    assert_eq!(blocking(|| sent(&host, "x", &moody)).0, 200);
    scene.passes("count", "9").await;
    blocking(|| {
        let (status, verdict) = rolled_back(&host, "x/rollback");
        let (mut verdict, mut expected) = (steady(verdict), good("rollback", &counter, &moody, "fresh"));
        let why = verdict["uses"][0]["error"].take();
        let why = why.as_str().unwrap();
        assert!(why.starts_with("restore refused: ") || why.starts_with("restore failed: "), "{why}");
        expected["error"] = json!(format!("pipeline p, transform x: {why}"));
        assert_eq!((status, verdict), (200, expected));
    });
    scene.passes("b", "v1 1 b").await;
}

/// The files of a host's history, by the digests of their contents.
fn kept_files(folder: &Path) -> Vec<(String, std::path::PathBuf)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.join(".tidemill/cache/versions")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
                files.push((format!("sha256:{}", name.split_once('-').unwrap().1), path));
            }
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_five_versions_outlive_a_restart_and_damage_is_told() {
    let mut scene = Scene::new().await;
    let counter = content("counter-v1");
    let versions: Vec<_> = (0..7).map(|number| another(&counter, number)).collect();
    scene.folder.put("x", &versions[0]);
    let host = scene.run("");
    scene.passes("a", "v1 1 a").await;
    blocking(|| {
        for content in &versions[1..] {
            assert_eq!(sent(&host, "x", content).0, 200);
        }
        assert!(host.stop().status.success());
    });
    let mut scene = Scene { folder: scene.folder, ..Scene::new().await };
    let host = scene.run("");
    scene.passes("b", "v1 1 b").await;
    let listed = |host: &Host| {
        let (status, plugin) = host.json("GET", "/api/v1/plugins/x", &Value::Null);
        assert_eq!(status, 200);
        let versions = plugin["versions"].as_array().unwrap().clone();
        let shown = versions
            .iter()
            .map(|each| (each["version"].as_str().unwrap().to_owned(), each["available"] == true));
        shown.collect::<Vec<_>>()
    };
    let newest = |all: &[Vec<u8>]| {
        all.iter().rev().take(5).map(|content| (version(content), true)).collect::<Vec<_>>()
    };
    blocking(|| {
        assert_eq!(listed(&host), newest(&versions));
        let (status, verdict) = rolled_back(&host, "x/rollback");
        assert_eq!((status, steady(verdict)), (200, good("rollback", &versions[5], &versions[6], "carried")));
        assert!(host.stop().status.success());
    });
    let files = kept_files(&scene.folder.path(""));
    assert_eq!(files.len(), 5);
    let (_, path) = files.iter().find(|(is, _)| *is == version(&versions[6])).unwrap();
    std::fs::write(path, "damaged").unwrap();
    std::fs::write(path.with_file_name("notes.txt"), "of somebody else").unwrap();

    let mut scene = Scene { folder: scene.folder, ..Scene::new().await };
    let host = scene.run("");
    scene.passes("c", "v1 1 c").await;
    blocking(|| {
        host.says("an earlier version of a plugin cannot be had back");
        let mut expected: Vec<_> = [5, 6, 4, 3, 2].map(|at| (version(&versions[at]), at != 6)).into();
        assert_eq!(listed(&host), expected);
        let asked = version(&versions[6]);
        let (status, answer) = rolled_back(&host, &format!("x/rollback?to={asked}"));
        let why = format!("the kept version {asked} of plugin \"x\" cannot be had back: its file is damaged");
        assert_eq!((status, refusal(&answer)), (409, ("version", why.as_str())));
        let (status, verdict) = rolled_back(&host, "x/rollback");
        assert_eq!((status, steady(verdict)), (200, good("rollback", &versions[4], &versions[5], "carried")));
        // One that runs again is whole again.
        assert_eq!(sent(&host, "x", &versions[6]).0, 200);
        expected = [6, 4, 5, 3, 2].map(|at| (version(&versions[at]), true)).into();
        assert_eq!(listed(&host), expected);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_shown_with_its_versions_limits_and_uses() {
    let mut scene = Scene::new().await;
    let (first, second) = (content("counter-v1"), content("counter-v2"));
    scene.folder.put("x", &first);
    scene.folder.put("unused", &first);
    let host = scene.run(r#"limits = { memory = "32MiB" }"#);
    scene.passes("a", "v1 1 a").await;
    blocking(|| {
        assert_eq!(sent(&host, "x", &second).0, 200);
        let (status, mut plugin) = host.json("GET", "/api/v1/plugins/x", &Value::Null);
        assert_eq!(status, 200);
        let times: Vec<_> = plugin["versions"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .map(|each| (each["since"].take(), each["until"].take()))
            .collect();
        assert!(
            times[0].0.as_u64() > times[1].0.as_u64() && times[0].1.is_null() && times[1].1 == times[0].0,
            "{times:?}"
        );
        let limits = json!({ "memory_bytes": 32 << 20, "deadline_ms": 250.0, "output_bytes": 16 << 20 });
        let kept = |content: &[u8], is_current: bool| {
            json!({
                "version": version(content), "since": null, "until": null, "current": is_current,
                "rolled_back": false, "available": true, "error": null, "bytes": content.len(),
            })
        };
        let expected = json!({
            "name": "x", "version": version(&second), "versions": [kept(&second, true), kept(&first, false)],
            "limits": limits,
            "uses": [{
                "pipeline": "p", "transform": "x", "state": "running", "version": version(&second), "limits": limits,
            }],
        });
        assert_eq!(plugin, expected);
        let (status, all) = host.json("GET", "/api/v1/plugins", &Value::Null);
        assert_eq!(status, 200);
        let names: Vec<_> = all["plugins"].as_array().unwrap().iter().map(|plugin| &plugin["name"]).collect();
        assert_eq!(names, [&json!("unused"), &json!("x")]);
        assert_eq!((&all["plugins"][0]["versions"], &all["plugins"][0]["uses"]), (&json!([]), &json!([])));
        let (status, answer) = host.json("GET", "/api/v1/plugins/none", &Value::Null);
        assert_eq!((status, refusal(&answer)), (404, ("not_found", "there is no plugin \"none\"")));
    });
}
