//! Who may ask the HTTP API, and for what.

use super::*;
use std::io::{Read, Write};

#[tokio::test(flavor = "multi_thread")]
async fn only_who_knows_the_token_and_is_no_foreign_page_may_ask() {
    let folder = Folder::default();
    let host = folder.run("token = \"s3cr3t\"\n");
    let token = ("Authorization", "Bearer s3cr3t");
    let ask = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        let (status, answer) = host.ask(method, path, headers, body);
        let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
        (status, answer["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ask("GET", path, &[], "").0, 200, "{path}");
    }
    for path in ["/metrics", "/api/v1/pipelines", "/api/v1/connections", "/nowhere"] {
        assert_eq!(ask("GET", path, &[], ""), (401, "unauthorized".to_owned()), "{path}");
        let wrong = [("Authorization", "Bearer s3cr3")];
        assert_eq!(ask("GET", path, &wrong, ""), (401, "unauthorized".to_owned()), "{path}");
        let basic = [("Authorization", "Basic s3cr3t")];
        assert_eq!(ask("GET", path, &basic, "").0, 401, "{path}");
    }
    assert_eq!(ask("GET", "/api/v1/pipelines", &[token], "").0, 200);
    assert_eq!(ask("GET", "/nowhere", &[token], ""), (404, "not_found".to_owned()));
    for (header, code) in [
        (("Host", "evil.example:10080"), "foreign_host"),
        (("Origin", "http://evil.example"), "foreign_origin"),
        (("Origin", "null"), "foreign_origin"),
    ] {
        assert_eq!(ask("GET", "/healthz", &[token, header], ""), (403, code.to_owned()));
        assert_eq!(ask("POST", "/api/v1/pipelines", &[token, header], "{}"), (403, code.to_owned()));
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let headers = [token, ("Content-Type", content_type)];
        assert_eq!(ask("POST", "/api/v1/pipelines", &headers, "{}"), (415, "media_type".to_owned()));
    }
    let large = format!("\"{}\"", "x".repeat(2 << 20));
    assert_eq!(ask("POST", "/api/v1/pipelines", &[token], &large), (413, "too_large".to_owned()));
    assert!(host.stop().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_a_body_takes_no_variable_and_names_no_file() {
    let folder = Folder::default();
    let collector = Collector::open().await;
    let url = format!("{}?home=${{HOME}}", collector.url());
    let pipeline = json!({
        "name": "p",
        "source": { "type": "websocket", "url": url },
        "sinks": [{ "type": "file", "path": "out.jsonl" }],
    });
    let secret = json!({
        "type": "websocket", "url": collector.url(), "headers": { "X-File": "${file:/etc/hostname}" },
    });
    let host = folder.run("");
    let told = |answer: &Value| -> Vec<String> {
        let errors = answer["error"]["errors"].as_array().unwrap().iter();
        let mut told: Vec<_> = errors.map(|each| each["path"].as_str().unwrap().to_owned()).collect();
        told.sort();
        told
    };
    let (status, answer) = json(&host, "POST", "/api/v1/pipelines", pipeline.clone()).await;
    assert_eq!((status, told(&answer)), (422, vec!["/sinks/0/type".to_owned(), "/source/url".to_owned()]));
    let (status, answer) = json(&host, "POST", "/api/v1/connections/check", secret.clone()).await;
    assert_eq!((status, told(&answer)), (422, vec!["/headers/X-File".to_owned()]), "{answer}");
    assert!(!folder.path("out.jsonl").exists());
    assert!(host.stop().status.success());

    let host = folder.run("token = \"t\"").with_token("t");
    assert_eq!(json(&host, "POST", "/api/v1/pipelines", pipeline).await.0, 201);
    assert_eq!(json(&host, "POST", "/api/v1/connections/check", secret).await.0, 200);
    assert!(host.stop().status.success());
}

#[test]
fn half_a_request_holds_up_no_shutdown_and_more_than_256_connections_take_no_more_files() {
    let folder = Folder::default();
    let host = folder.run("");
    let files = || std::fs::read_dir(format!("/proc/{}/fd", host.id())).unwrap().count();
    let before = files();
    let half = || {
        let mut stream = std::net::TcpStream::connect(host.admin()).unwrap();
        stream.write_all(b"GET /healthz HTT").unwrap();
        stream
    };
    let mut halves: Vec<_> = (0..300).map(|_| half()).collect();
    // One of the first is answered, so that all that have a seat have been accepted by then.
    halves[255].write_all(b"P/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    halves[255].read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(files() <= before + 260, "{} files, and {before} before", files());
    let ended = host.stop();
    assert!(ended.status.success(), "{}", ended.log);
    drop(halves);
}
