//! Letters of a file, which a pipeline may have written or may still be writing, are given to their pipelines again.

use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tidemill_tests::commands::command;
use tidemill_tests::impostor::{answer, impostor};

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_a_file_are_retried_and_what_is_none_is_told_with_its_line() {
    let folder = folder();
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let dead = "dead_letter = { type = \"file\", path = \"dead.jsonl\", format = \"jsonl\" }\n";
    let config = relay("p", &feed, &collector) + dead;
    let host = folder.run(&config);
    const LETTERS_OF_FILE: usize = 250;
    for n in 0..LETTERS_OF_FILE {
        feed.text(format!("letter {n}")).await;
    }
    until(&host, "they are written", |now| {
        now.count("tidemill_messages_dead_lettered_total", &[]) == LETTERS_OF_FILE as u64
    });
    assert!(tokio::task::block_in_place(|| host.stop()).status.success());
    assert!(matches!(collector.received.recv().await, Some(Received::Closed(_))));

    // Another life of the host, which has no letters, and a plugin that takes them.
    folder.install("notional", &plugin("forward"));
    let host = folder.run(&config);
    host.says("pipeline running");
    assert_eq!(listed(&host, "").1, 0);
    let mut text = std::fs::read_to_string(folder.path("dead.jsonl")).unwrap();
    let first = text.lines().next().unwrap().to_owned();
    text.insert_str(0, "no letter\n\n");
    text.push_str(&first.replace("\"pipeline\":\"p\"", "\"pipeline\":\"q\""));
    text.push('\n');
    std::fs::write(folder.path("mended.jsonl"), &text).unwrap();
    let (code, told, errors) = deadletter(&host, &folder, &["retry", "--file", "mended.jsonl", "--dry-run"]);
    assert_eq!((code, &*told), (Some(1), "250 dead letters would be retried\n"), "{errors}");
    let (code, told, errors) = deadletter(&host, &folder, &["retry", "--file", "mended.jsonl"]);
    assert_eq!((code, &*told), (Some(1), "250 dead letters retried\n"), "{errors}");
    let lines: Vec<_> = errors.lines().collect();
    assert!(lines[0].starts_with("mended.jsonl:1: no dead letter: "), "{errors}");
    assert!(!errors.contains("struct "), "{errors}");
    assert_eq!(lines[1..], ["mended.jsonl:253: there is no pipeline \"q\""], "{errors}");
    for n in 0..LETTERS_OF_FILE {
        assert_eq!(collector.text().await, format!("letter {n}"));
    }
    assert_eq!(counted(&host, "tidemill_messages_retried_total", &["stage=\"notional\""]), 250);
    assert_eq!(listed(&host, "").1, 0);

    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(format!("{first}\n").as_bytes()).unwrap();
    std::fs::write(folder.path("dead.jsonl.gz"), packed.finish().unwrap()).unwrap();
    let args = ["retry", "--file", "dead.jsonl.gz", "--reason", "rejected", "--rate", "10", "--json"];
    let (code, told, errors) = deadletter(&host, &folder, &args);
    assert_eq!(code, Some(0), "{errors}");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told, json!({ "dry_run": false, "retried": 1, "waiting": 0, "refused": [] }));
    assert_eq!(collector.text().await, "letter 0");
    let (code, told, _) =
        deadletter(&host, &folder, &["retry", "--file", "dead.jsonl.gz", "--reason", "trap"]);
    assert_eq!((code, &*told), (Some(0), "0 dead letters retried\n"));
    let args = ["retry", "--file", "dead.jsonl.gz", "--pipeline", "q"];
    let (code, told, errors) = deadletter(&host, &folder, &args);
    assert_eq!((code, &*told), (Some(1), "0 dead letters retried\n"), "{errors}");
    assert!(errors.starts_with("error: there is no pipeline \"q\"\nhint: "), "{errors}");
    let (code, _, errors) = deadletter(&host, &folder, &["retry", "--file", "none.jsonl"]);
    assert!(code == Some(1) && errors.contains("failed to read none.jsonl: "), "{errors}");
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_that_a_pipeline_writes_its_dead_letters_to_is_retried_as_far_as_it_goes() {
    const LETTERS_OF_FILE: u64 = 300;
    let folder = folder();
    let (feed, collector) = (Feed::open().await, Collector::open().await);
    for name in ["dead.jsonl", "dead.jsonl.gz"] {
        let dead = format!("dead_letter = {{ type = \"file\", path = \"{name}\", format = \"jsonl\" }}\n");
        let host = folder.run(&(relay("p", &feed, &collector) + &dead));
        for n in 0..LETTERS_OF_FILE {
            feed.text(format!("letter {n}")).await;
        }
        let written = |count: u64| {
            until(&host, "they are written", |now| {
                now.count("tidemill_messages_dead_lettered_total", &[]) == count
            });
        };
        written(LETTERS_OF_FILE);
        for times in [1, 2] {
            let (code, told, errors) = deadletter(&host, &folder, &["retry", "--file", name]);
            // Each time all that is there fails again.
            let count = LETTERS_OF_FILE * times;
            assert_eq!((code, &*told), (Some(0), &*format!("{count} dead letters retried\n")), "{errors}");
            written(2 * count);
        }
        assert!(tokio::task::block_in_place(|| host.stop()).status.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_too_large_to_be_kept_is_retried_from_a_file_and_holds_up_none_behind_it() {
    const MIB: usize = 1 << 20;
    let folder = folder();
    let feed = Feed::open().await;
    let host = folder.run(&format!(
        r#"
        [[pipelines]]
        name = "p"
        source = {{ type = "websocket", url = "{}", {FAST}, max_message_size = "64MiB" }}
        transforms = [{{ plugin = "notional" }}]
        sinks = [{{ type = "file", name = "out", path = "out.jsonl" }}]
        dead_letter = {{ type = "file", path = "dead.jsonl", format = "jsonl" }}
        "#,
        feed.url(),
    ));
    // As JSON the second takes twice as much, and the third a third more.
    let large = format!("text {}", "x".repeat(17 * MIB));
    let quotes = "\"".repeat(2 * MIB);
    let messages = [
        Message::text(large.clone()),
        Message::text(quotes.clone()),
        Message::binary(vec![0; 3 * MIB]),
        Message::text("small"),
    ];
    for message in messages {
        feed.send(message).await;
    }
    let letters = until_listed(&host, 4);
    let (_, told, _) = deadletter(&host, &folder, &["show", letters[3]["id"].as_str().unwrap()]);
    assert!(told.contains("if its pipeline writes dead letters to a file, it can be retried from there"));
    folder.install("notional", &plugin("forward"));
    host.says("plugin swapped");
    let (code, told, errors) = deadletter(&host, &folder, &["retry", "--file", "dead.jsonl"]);
    assert_eq!((code, &*told), (Some(0), "4 dead letters retried\n"), "{errors}");
    until(&host, "all are written", |now| {
        now.count("tidemill_messages_delivered_total", &["sink=\"out\""]) == 4
    });
    assert!(host.stop().status.success());
    let written = std::fs::read_to_string(folder.path("out.jsonl")).unwrap();
    let lines: Vec<_> = written.lines().collect();
    let binary = format!("{{\"$binary\":\"{}\"}}", "A".repeat(4 * MIB));
    assert!(lines == [&*large, &*quotes, &*binary, "small"], "each is as it was");
}

/// Letters of the pipeline `p` and this stage, a line each.
fn lines_of(stage: &str, payloads: &[String]) -> String {
    let line = |payload: &String| {
        json!({ "pipeline": "p", "stage": stage, "reason": "rejected", "payload": payload }).to_string()
            + "\n"
    };
    payloads.iter().map(line).collect()
}

#[test]
fn a_letter_that_is_larger_than_a_host_takes_is_told_with_its_line_and_the_others_go_on() {
    let folder = Folder::default();
    let payloads = ["small".to_owned(), "x".repeat(1 << 20), "small".to_owned()];
    std::fs::write(folder.path("dead.jsonl"), lines_of("s", &payloads)).unwrap();
    let address = impostor(|_, body| {
        if body.len() > 1 << 20 {
            let error = json!({ "code": "too_large", "message": "the body is larger than 1048576 bytes" });
            return answer(413, &json!({ "error": error }).to_string());
        }
        answer(200, &json!({ "dry_run": false, "retried": 1, "waiting": 0, "refused": [] }).to_string())
    });
    let args = ["deadletter", "retry", "--file", "dead.jsonl", "--admin", &address];
    let (code, text, errors) = tidemill(&folder, &args);
    assert_eq!((code, &*text), (Some(1), "2 dead letters retried\n"));
    let told =
        "dead.jsonl:2: the letter is larger than the host takes: the body is larger than 1048576 bytes\n";
    assert_eq!(errors, told);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_letters_of_a_file_keep_a_rate_from_piece_to_piece() {
    let folder = folder();
    let (feed, mut collector) = (Feed::open().await, Collector::open().await);
    let host = folder.run(&relay("p", &feed, &collector));
    host.says("pipeline running");
    let payloads = ["0", "1", "2"].map(|n| format!("{{\"price\": 200, \"qty\": {n}}}"));
    std::fs::write(folder.path("dead.jsonl"), lines_of("notional", &payloads)).unwrap();
    let began = Instant::now();
    let args = ["retry", "--file", "dead.jsonl", "--rate", "0.5"];
    let (code, told, errors) = deadletter(&host, &folder, &args);
    assert_eq!((code, &*told), (Some(0), "3 dead letters retried\n"), "{errors}");
    let took = began.elapsed();
    assert!(took > Duration::from_millis(3900), "three at one in two seconds took {took:?}");
    for _ in payloads {
        assert!(collector.text().await.contains("notional"));
    }
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_letters_of_a_file_wait_it_is_told_what_for() {
    let folder = Folder::default();
    let (feed, collector) = (Feed::open().await, Collector::open().await);
    let host = with_waiting_messages(&folder, &feed, &collector).await;
    let payloads = vec!["poison".to_owned(); 20];
    std::fs::write(folder.path("dead.jsonl"), lines_of("hostile", &payloads)).unwrap();
    let admin = host.admin().to_string();
    let mut command = command(&folder, &["deadletter", "retry", "--file", "dead.jsonl", "--admin", &admin]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    tokio::task::block_in_place(|| {
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        let expected = "note: lines 1 to 20 wait for pipeline \"p\" to take more messages: \
                        transform hostile: its plugin fails again and again, and its messages wait\n";
        assert_eq!(line, expected);
        // What has not entered is refused, and the command ends.
        assert_eq!(host.json("POST", "/api/v1/pipelines/p/stop", &Value::Null).0, 200);
        let told = std::io::read_to_string(errors).unwrap();
        assert!(
            told.contains("dead.jsonl:20: its pipeline stopped before the message had its turn"),
            "{told}"
        );
        assert_eq!(child.wait().unwrap().code(), Some(1));
    });
    assert!(tokio::task::block_in_place(|| host.stop()).log.contains("dead letters retried"));
}
