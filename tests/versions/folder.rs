//! Versions that the plugin folder brings.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_good_version_is_told_with_what_it_carried_and_a_first_load_is_no_swap() {
    let mut scene = Scene::new().await;
    let (first, second) = (content("counter-v1"), content("counter-v2"));
    scene.folder.put("x", &first);
    let host = scene.run("");
    scene.passes("a", "v1 1 a").await;
    assert_eq!(blocking(|| verdicts(&host)), [Value::Null; 0]);
    scene.folder.put("x", &second);
    let there = json!({
        "plugin": "x", "outcome": "swapped", "version": version(&second), "previous": version(&first),
        "asked_by": "folder", "error": null, "folder_error": null, "uses": [swapped("carried")],
    });
    assert_eq!(blocking(|| decided(&host, 1))[0], there);
    scene.passes("b", "v2 2 b").await;
    scene.folder.put("x", &first);
    let back = json!({
        "plugin": "x", "outcome": "swapped", "version": version(&first), "previous": version(&second),
        "asked_by": "folder", "error": null, "folder_error": null, "uses": [swapped("carried")],
    });
    assert_eq!(blocking(|| decided(&host, 2)), [back, there], "the newest first");
    scene.passes("c", "v1 3 c").await;
    blocking(|| {
        let counted = |now: &Counted, outcome: &str| {
            now.count("tidemill_plugin_swaps_total", &[&format!("outcome=\"{outcome}\"")])
        };
        let now = host.metrics();
        assert_eq!((counted(&now, "swapped"), counted(&now, "rejected")), (2, 0));
        let line = host.logged("the verdict", |fields| {
            (fields["message"] == "swap decided" && fields["version"] == version(&first))
                .then(|| fields.clone())
        });
        let told = [&line["plugin"], &line["outcome"], &line["previous"], &line["asked_by"], &line["uses"]];
        assert_eq!(
            told,
            [&json!("x"), &json!("swapped"), &json!(version(&second)), &json!("folder"), &json!(1)]
        );
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_refuses_the_configuration_is_rejected_and_the_one_before_goes_on() {
    let mut scene = Scene::new().await;
    let (filter, notional) = (shipped("filter"), shipped("notional"));
    scene.folder.put("x", &filter);
    let host = scene.run(r#"config = { where = [{ field = "/n", op = "exists" }] }"#);
    scene.passes("{\"n\":1}", "{\"n\":1}").await;
    scene.folder.put("x", &notional);
    let why = "plugin x does not start: init refused its configuration: unknown key `where`: known here: \
               `price`, `quantity`, `above`";
    let verdict = json!({
        "plugin": "x", "outcome": "rejected", "version": version(&notional), "previous": version(&filter),
        "asked_by": "folder", "error": format!("pipeline p, transform x: {why}"), "folder_error": null, "uses": [rejected(Some(why))],
    });
    assert_eq!(blocking(|| decided(&host, 1)), [verdict]);
    scene.passes("{\"n\":2}", "{\"n\":2}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_lacks_an_output_which_a_sink_takes_is_rejected() {
    let mut scene = Scene::new().await;
    let (first, second) = (content("moody"), shipped("forward"));
    scene.folder.put("x", &first);
    let host = blocking(|| {
        scene.folder.run(&scene.pipeline("").replace("sinks = [{", "sinks = [{ outputs = [\"side\"],"))
    });
    scene.passes("side", "side").await;
    scene.folder.put("x", &second);
    let why = "a sink takes the output \"side\", which plugin x does not have (it has: default)";
    let verdict = json!({
        "plugin": "x", "outcome": "rejected", "version": version(&second), "previous": version(&first),
        "asked_by": "folder", "error": format!("pipeline p: {why}"), "folder_error": null, "uses": [rejected(Some(why))],
    });
    assert_eq!(blocking(|| decided(&host, 1)), [verdict]);
    scene.passes("side", "side").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_refuses_the_state_stays_away_and_one_that_cannot_have_it_starts_fresh() {
    let mut scene = Scene::new().await;
    let hostile = content("hostile");
    scene.folder.put("x", &hostile);
    let host = scene.run(r#"config = { behaviour = "error", where = "restore" }"#);
    scene.passes("1", "1").await;
    let next = another(&hostile, 1);
    scene.folder.put("x", &next);
    let why = "restore failed: an error that was asked for";
    let verdict = json!({
        "plugin": "x", "outcome": "rejected", "version": version(&next), "previous": version(&hostile),
        "asked_by": "folder", "error": format!("pipeline p, transform x: {why}"), "folder_error": null, "uses": [rejected(Some(why))],
    });
    assert_eq!(blocking(|| decided(&host, 1)), [verdict]);
    scene.passes("2", "2").await;
    assert!(blocking(|| host.stop()).status.success());

    let mut scene = Scene { folder: scene.folder, ..Scene::new().await };
    let host = scene.run(r#"config = { behaviour = "panic", where = "snapshot" }"#);
    scene.passes("3", "3").await;
    let after = another(&hostile, 2);
    scene.folder.put("x", &after);
    let verdict = json!({
        "plugin": "x", "outcome": "swapped", "version": version(&after), "previous": version(&next),
        "asked_by": "folder", "error": null, "folder_error": null, "uses": [swapped("fresh")],
    });
    assert_eq!(blocking(|| decided(&host, 1)), [verdict]);
    scene.passes("4", "4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_version_before_fails_again_and_again_its_last_good_snapshot_is_carried() {
    let mut scene = Scene::new().await;
    let moody = content("moody");
    scene.folder.put("x", &moody);
    let host = scene.run("");
    scene.passes("count", "1").await;
    // No instance of it starts any more, and what follows waits.
    for text in ["no-start", "trap", "after"] {
        scene.feed.text(text).await;
    }
    blocking(|| {
        let is_paused = |now: &Counted| now.count("tidemill_plugin_paused", &["pipeline=\"p\""]) == 1;
        host.wait_until("it is paused", is_paused);
    });
    let next = shipped("forward");
    scene.folder.put("x", &next);
    let verdict = json!({
        "plugin": "x", "outcome": "swapped", "version": version(&next), "previous": version(&moody),
        "asked_by": "folder", "error": null, "folder_error": null, "uses": [swapped("older")],
    });
    assert_eq!(blocking(|| decided(&host, 1)), [verdict]);
    assert_eq!(scene.collector.text().await, "trap");
    assert_eq!(scene.collector.text().await, "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_use_takes_a_version_and_another_does_not_each_says_so() {
    let scene = Scene::new().await;
    let hostile = content("hostile");
    scene.folder.put("x", &hostile);
    let other = Scene::new().await;
    let config = scene.pipeline(r#"config = { behaviour = "panic", where = "process" }"#)
        + &other
            .pipeline(r#"name = "y", config = { behaviour = "error", where = "restore" }"#)
            .replace("\"p\"", "\"q\"");
    let host = blocking(|| {
        let host = scene.folder.run(&config);
        host.wait_until("both run", |now| now.count("tidemill_pipelines", &["state=\"running\""]) == 2);
        host
    });
    let next = another(&hostile, 1);
    scene.folder.put("x", &next);
    let why = "restore failed: an error that was asked for";
    let refuses =
        json!({ "pipeline": "q", "transform": "y", "outcome": "rejected", "state": null, "error": why });
    let verdict = json!({
        "plugin": "x", "outcome": "swapped", "version": version(&next), "previous": version(&hostile),
        "asked_by": "folder", "error": format!("pipeline q, transform y: {why}"),
        "folder_error": null, "uses": [swapped("carried"), refuses],
    });
    assert_eq!(blocking(|| decided(&host, 1)), [verdict]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_content_that_is_replaced_twice_before_it_runs_the_newest_runs_and_the_rest_is_superseded() {
    let scene = Scene::new().await;
    let hostile = content("hostile");
    let versions = [1, 2, 3].map(|number| another(&hostile, number));
    blocking(|| {
        let host = scene.run_beside_slow(&hostile);
        for next in &versions {
            scene.folder.put("x", next);
            host.logged("it is found", |fields| {
                (fields["message"] == "plugin version found" && fields["version"] == version(next))
                    .then_some(())
            });
        }
        let superseded = |content: &[u8]| {
            json!({
                "plugin": "x", "outcome": "superseded", "version": version(content), "previous": version(&hostile),
                "asked_by": "folder", "error": "newer content came first", "folder_error": null, "uses": [],
            })
        };
        let verdict = json!({
            "plugin": "x", "outcome": "swapped", "version": version(&versions[2]), "previous": version(&hostile),
            "asked_by": "folder", "error": null, "folder_error": null, "uses": [swapped("carried")],
        });
        assert_eq!(decided(&host, 3), [verdict, superseded(&versions[1]), superseded(&versions[0])]);
        let swaps = host.metrics().count("tidemill_plugin_swaps_total", &[]);
        assert_eq!(swaps, 1, "what is superseded is no swap");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_has_a_verdict_whether_a_pipeline_uses_it_or_not() {
    let mut scene = Scene::new().await;
    let first = content("counter-v1");
    scene.folder.put("x", &first);
    scene.folder.put("at-start", b"garbage");
    let config = format!("[plugins]\nmax_size = \"1MiB\"\n{}", scene.pipeline(""));
    let host = blocking(|| scene.folder.run(&config));
    let no_component = |text: &str| format!("failed to load plugin {text}: the file is not WebAssembly");
    let at_start = json!({
        "plugin": "at-start", "outcome": "rejected", "version": version(b"garbage"), "previous": null,
        "asked_by": "start", "error": no_component("at-start"), "folder_error": null, "uses": [],
    });
    assert_eq!(blocking(|| decided(&host, 1))[0], at_start);
    scene.folder.put("x", b"no component");
    let used = json!({
        "plugin": "x", "outcome": "rejected", "version": version(b"no component"), "previous": version(&first),
        "asked_by": "folder", "error": no_component("x"), "folder_error": null, "uses": [],
    });
    assert_eq!(blocking(|| decided(&host, 2)), [used.clone(), at_start.clone()]);
    scene.folder.put("x", &vec![0; (1 << 20) + 1]);
    let too_large = json!({
        "plugin": "x", "outcome": "rejected", "version": null, "previous": version(&first),
        "asked_by": "folder", "error": "it has 1048577 bytes, and `max_size` is 1048576: build it for release and \
        without debug information, or raise `max_size` under [plugins]", "folder_error": null, "uses": [],
    });
    assert_eq!(blocking(|| decided(&host, 3)), [too_large, used, at_start]);
    scene.passes("a", "v1 1 a").await;
    let rejected =
        blocking(|| host.metrics()).count("tidemill_plugin_swaps_total", &["outcome=\"rejected\""]);
    assert_eq!(rejected, 2, "what no pipeline uses is none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_of_a_plugin_that_no_pipeline_uses_has_a_verdict_without_uses() {
    let scene = Scene::new().await;
    let (first, second) = (content("counter-v1"), content("counter-v2"));
    scene.folder.put("x", &first);
    scene.folder.put("unused", &first);
    let host = scene.run("");
    blocking(|| {
        host.logged("it is loaded", |fields| {
            (fields["message"] == "plugin loaded" && fields["plugin"] == "unused").then_some(())
        });
    });
    scene.folder.put("unused", &second);
    let verdict = json!({
        "plugin": "unused", "outcome": "swapped", "version": version(&second), "previous": version(&first),
        "asked_by": "folder", "error": null, "folder_error": null, "uses": [],
    });
    assert_eq!(blocking(|| decided(&host, 1)), [verdict]);
    assert_eq!(blocking(|| host.metrics()).count("tidemill_plugin_swaps_total", &[]), 0);
}
