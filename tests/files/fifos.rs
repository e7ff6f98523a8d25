//! FIFOs as the ends of a pipeline: they hold up nobody, and lose nothing.

use super::*;

#[test]
fn a_fifo_as_a_source_holds_up_neither_the_api_nor_the_end() {
    let folder = Folder::default();
    make_fifo(&folder.path("fifo"));
    let config = pipeline("type = \"file\", path = \"fifo\"", "type = \"file\", path = \"out.jsonl\"");
    let host = folder.run(&format!("token = \"t\"\n{config}")).with_token("t");
    let second = serde_json::json!({
        "name": "second",
        "source": { "type": "file", "path": folder.path("fifo") },
        "sinks": [{ "type": "file", "path": folder.path("second.jsonl") }],
    });
    assert_eq!(host.json("POST", "/api/v1/pipelines", &second).0, 201);
    assert_eq!(host.json("DELETE", "/api/v1/pipelines/second", &serde_json::Value::Null).0, 204);
    let mut writer = OpenOptions::new().write(true).open(folder.path("fifo")).unwrap();
    writer.write_all(lines(0..3).as_bytes()).unwrap();
    host.wait_until("all are delivered", |now| {
        now.count("tidemill_messages_delivered_total", &["sink=\"out\""]) == 3
    });
    // The writer stays.
    assert!(host.stop().status.success());
    assert_eq!(fs::read_to_string(folder.path("out.jsonl")).unwrap(), lines(0..3));
}

#[test]
fn a_fifo_as_a_sink_waits_for_its_reader_and_gives_it_everything() {
    let folder = Folder::default();
    make_fifo(&folder.path("fifo"));
    fs::write(folder.path("in.jsonl"), lines(0..50_000)).unwrap();
    let host =
        folder.run(&pipeline("type = \"file\", path = \"in.jsonl\"", "type = \"file\", path = \"fifo\""));
    host.wait_until("messages wait", |now| now.count("tidemill_messages_received_total", &[]) > 0);
    assert_eq!(host.get("/api/v1/pipelines").0, 200);
    let mut text = String::new();
    File::open(folder.path("fifo")).unwrap().read_to_string(&mut text).unwrap();
    assert!(text == lines(0..50_000));
    assert!(host.stop().status.success());
}

#[test]
fn a_fifo_that_nobody_reads_ends_with_the_grace_period_and_its_messages_are_counted() {
    let folder = Folder::default();
    make_fifo(&folder.path("fifo"));
    fs::write(folder.path("in.jsonl"), lines(0..10)).unwrap();
    let config = pipeline("type = \"file\", path = \"in.jsonl\"", "type = \"file\", path = \"fifo\"");
    let host = folder.run_with_grace(Duration::from_secs(1), &config);
    host.wait_until("messages wait", |now| now.count("tidemill_messages_received_total", &[]) == 10);
    let ended = host.stop();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    assert!(ended.log.contains("the grace period ran out"), "{}", ended.log);
}
