//! What a configuration file is told when it is wrong, word for word, and what comes out when it is
//! right.
//!
//! Each `tests/config/NAME.toml` has a `NAME.err` with the errors, or a `NAME.ok` with the warnings and
//! the configuration; `docs/configuration.md` has every key. `GOLDEN=write cargo test --workspace
//! --test config` writes them anew.

use std::fs;
use std::path::{Path, PathBuf};
use tidemill::config::{Config, Environment, Format, Pipeline, SourceConfig, load, parse, reference, schema};

fn environment() -> Environment {
    let variables = [
        ("TOKEN", "s3cr3t"),
        ("PORT", "9000"),
        ("NOT_A_PORT", "s3cr3t-port"),
        ("URL", "http://user:s3cr3t@example.com/"),
        ("FEED", "wss://feed.example.com/s3cr3t"),
        ("FOLDER", "s3cr3t-folder"),
        ("NODE", "s3cr3t-node"),
        ("EMPTY", ""),
    ];
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// What a file is told, and the extension of the golden file it belongs in.
fn outcome(name: &str, bytes: &[u8]) -> (&'static str, String) {
    match parse(Path::new(name), bytes, &environment()) {
        Ok(loaded) => {
            let warnings: String =
                loaded.warnings.iter().map(|warning| warning.render_warning(false)).collect();
            ("ok", format!("{warnings}{:#?}\n", loaded.config))
        }
        Err(errors) => ("err", errors.to_string()),
    }
}

#[test]
fn every_file_is_told_what_its_golden_file_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let rewrite = std::env::var_os("GOLDEN").is_some();
    let mut wrong = Vec::new();
    let mut refused = 0;
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    for file in files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let (extension, told) = outcome(name, &fs::read(&file).unwrap());
        refused += usize::from(extension == "err");
        assert!(!told.contains("s3cr3t"), "{name} shows a secret:\n{told}");
        let golden = file.with_extension(extension);
        if rewrite {
            fs::write(&golden, &told).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != told {
            wrong.push(format!("{} should be:\n{told}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused >= 25, "only {refused} files are refused");
}

#[test]
fn every_key_is_in_the_documentation_as_the_table_has_it() {
    const MARK: &str =
        "<!-- From here on written by `GOLDEN=write cargo test --workspace --test config`. -->\n";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = fs::read_to_string(&file).unwrap();
    let (introduction, rest) = text.split_once(MARK).expect("the mark is there");
    let reference = reference();
    if std::env::var_os("GOLDEN").is_some() {
        fs::write(&file, format!("{introduction}{MARK}{reference}")).unwrap();
    } else {
        assert!(rest == reference, "{} should end in:\n{reference}", file.display());
    }
}

#[test]
fn the_schema_has_every_key_with_its_type_range_and_default() {
    let schema = schema();
    let port = &schema["properties"]["server"]["properties"]["port"];
    assert_eq!(port["anyOf"][0], serde_json::json!({ "type": "integer", "minimum": 0, "maximum": 65535 }));
    assert_eq!((port["default"].as_i64(), port["description"].as_str().is_some()), (Some(10081), true));
    assert_eq!(schema["additionalProperties"], false);
    let pipeline = &schema["properties"]["pipelines"]["items"];
    assert_eq!(pipeline["required"], serde_json::json!(["name", "source", "sinks"]));
    let sources = pipeline["properties"]["source"]["oneOf"].as_array().expect("choices");
    let of = |case: &serde_json::Value| {
        let word = |tag: &str| case["properties"][tag]["const"].as_str().unwrap_or_default().to_owned();
        (word("type"), word("mode"), case["properties"]["url"].is_object(), case["required"].to_string())
    };
    let client = r#"["type","url"]"#;
    let cases = [
        ("websocket", "client", true, client),
        ("websocket", "server", false, r#"["type","mode"]"#),
        ("file", "", false, r#"["type","path"]"#),
        ("stdin", "", false, r#"["type"]"#),
    ];
    let expected =
        cases.map(|(kind, mode, url, required)| (kind.to_owned(), mode.to_owned(), url, required.to_owned()));
    assert_eq!(sources.iter().map(of).collect::<Vec<_>>(), expected);
}

#[test]
fn the_example_of_the_documentation_is_a_configuration() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = fs::read_to_string(&file).unwrap();
    let (_, example) = text.split_once("```toml\n").expect("it has an example");
    let (example, _) = example.split_once("```").expect("it ends");
    let loaded = parse(&file, example.as_bytes(), &environment()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!((loaded.config.pipelines.len(), loaded.warnings.len()), (1, 0));
}

#[test]
fn a_missing_file_is_named() {
    let errors = load(Path::new("no/such/tidemill.toml"), &environment()).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "no/such/tidemill.toml: there is no such configuration file\n\
         hint: `-c FILE` names another, and `tidemill init` writes a first one\n"
    );
}

#[test]
fn a_file_that_is_not_utf_8_is_told_where() {
    let (_, told) = outcome("f.toml", b"[server]\nhost = \"\xff\"\n");
    assert!(told.starts_with("f.toml:2:9: the file is not UTF-8 from here on\n"), "{told}");
}

#[test]
fn a_byte_order_mark_moves_no_column() {
    for text in ["[servr]\n", "\u{feff}[servr]\n"] {
        let (_, told) = outcome("f.toml", text.as_bytes());
        assert!(told.starts_with("f.toml:1:2: unknown key `servr`\n 1 | [servr]\n   |  ^^^^^\n"), "{told}");
    }
    let (_, told) = outcome("f.toml", b"\xef\xbb\xbfa = \"\xff\"\n");
    assert!(told.starts_with("f.toml:1:6: the file is not UTF-8 from here on\n"), "{told}");
    let (extension, _) = outcome("f.toml", "\u{feff}# nothing\n".as_bytes());
    assert_eq!(extension, "ok");
}

/// A configuration of so many pipelines, each with endpoints of its own path at one listener.
fn pipelines(count: usize) -> String {
    let pipeline = |n| {
        format!(
            r#"
            [[pipelines]]
            name = "p{n}"
            source = {{ type = "websocket", mode = "server", path = "/in/{n}", idle_timeout = "5s" }}
            transforms = [{{ plugin = "vwap", config = {{ n = {n} }} }}]
            [[pipelines.sinks]]
            type = "websocket"
            mode = "server"
            path = "/rooms/{{room}}/{n}"
            [[pipelines.sinks]]
            type = "websocket"
            mode = "server"
            path = "/in/{n}"
            "#
        )
    };
    (0..count).map(pipeline).collect()
}

/// The processor time that this thread has used.
fn processor_time() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.try_into().expect("it is not negative")
}

#[test]
fn reading_a_file_takes_time_in_proportion_to_its_endpoints() {
    let time = |text: &str| {
        let once = || {
            let start = processor_time();
            let outcome = parse(Path::new("f.toml"), text.as_bytes(), &environment());
            (processor_time() - start, outcome.map(|loaded| loaded.config.pipelines.len()).ok())
        };
        (0..3).map(|_| once()).min().expect("three times")
    };
    let (few, many) = (pipelines(125), pipelines(2_000));
    let (few, many) = (time(&few), time(&many));
    assert_eq!((few.1, many.1), (Some(125), Some(2_000)));
    // Sixteen times as many: in proportion it is 16 times the work, by pairs it would be 256 times.
    assert!(many.0 < few.0 * 64, "{:?} for 125 pipelines, {:?} for 2,000", few.0, many.0);
    // As many errors as pipelines, each of which names a line.
    let wrong = |count| pipelines(count).replace("idle_timeout", "idle_timeuot");
    let (few, many) = (wrong(125), wrong(2_000));
    let (few, many) = (time(&few), time(&many));
    assert!(many.0 < few.0 * 64, "{:?} for 125 errors, {:?} for 2,000", few.0, many.0);
}

#[test]
fn paths_are_relative_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidemill.toml");
    let text = r#"
        [plugins]
        cache = "/var/cache/tidemill"
        [[pipelines]]
        name = "p"
        source = { type = "file", path = "../in.jsonl" }
        sinks = [{ type = "stdout" }]
    "#;
    fs::write(&file, text).unwrap();
    let config = load(&file, &environment()).unwrap().config;
    assert_eq!(*config.plugins.dir, *folder.path().join("plugins"));
    assert_eq!(*config.plugins.cache, *Path::new("/var/cache/tidemill"));
    let SourceConfig::File(file) = &config.pipelines[0].source else { panic!("a file") };
    assert_eq!(*file.path, folder.path().join("../in.jsonl"));
}

/// The configuration of a text that must be right.
fn config(text: &str) -> Config {
    parse(Path::new("f.toml"), text.as_bytes(), &environment())
        .unwrap_or_else(|errors| panic!("{errors}"))
        .config
}

fn pipeline(ends: &str) -> Pipeline {
    config(&format!("[[pipelines]]\nname = \"p\"\n{ends}")).pipelines.remove(0)
}

#[test]
fn what_is_left_out_is_what_the_types_have_as_default() {
    use tidemill::config::{Buffer, Endpoint, MessageType, Peers, Server, SinkKind, Transform};
    let empty = config("");
    assert_eq!(empty, Config::default());
    let pipeline = pipeline(
        r#"
        source = { type = "websocket", url = "ws://a/" }
        transforms = [{ plugin = "vwap" }]
        sinks = [{ type = "websocket", mode = "server" }, { type = "websocket", url = "ws://b/" }]
        dead_letter = { type = "file", path = "dead.jsonl" }
        "#,
    );
    let SourceConfig::WebSocket(source) = &pipeline.source else { panic!("a socket") };
    assert_eq!(source.endpoint, Endpoint::client("ws://a/"));
    assert_eq!(pipeline.transforms, [Transform::new("vwap")]);
    let SinkKind::WebSocket(server) = &pipeline.sinks[0].kind else { panic!("a socket") };
    assert_eq!(server.endpoint, Endpoint::server("/", &Server::default()));
    assert_eq!((server.peers, server.message_type), (Peers::default(), MessageType::Auto));
    let SinkKind::WebSocket(client) = &pipeline.sinks[1].kind else { panic!("a socket") };
    assert_eq!((&client.endpoint, client.buffer), (&Endpoint::client("ws://b/"), Buffer::default()));
    let SinkKind::File(file) = pipeline.dead_letter.unwrap().kind else { panic!("a file") };
    assert_eq!((file.format, file.append), (Format::Jsonl, true));
}

#[test]
fn endpoints_of_one_path_take_from_each_other_what_they_leave_out() {
    use std::time::Duration;
    use tidemill::config::SinkKind;
    let pipeline = pipeline(
        r#"
        source = { type = "websocket", mode = "server", path = "/p", ping.interval = "0s" }
        sinks = [{ type = "websocket", mode = "server", path = "/p", idle_timeout = "5s" }]
        "#,
    );
    let SourceConfig::WebSocket(source) = &pipeline.source else { panic!("a socket") };
    let SinkKind::WebSocket(sink) = &pipeline.sinks[0].kind else { panic!("a socket") };
    assert_eq!(source.endpoint, sink.endpoint);
    assert_eq!((source.endpoint.ping, source.endpoint.idle_timeout), (None, Some(Duration::from_secs(5))));
}

#[test]
fn secrets_are_in_the_configuration_and_not_in_what_it_shows() {
    let pipeline = pipeline(
        r#"
        source = { type = "websocket", url = "${FEED}", headers = { Authorization = "Bearer ${TOKEN}" } }
        transforms = [{ plugin = "p", config = { token = "${TOKEN}", list = ["${TOKEN}", 1, 2.0, true] } }]
        sinks = [{ type = "file", path = "${FOLDER}/out.jsonl" }]
        "#,
    );
    assert!(!format!("{pipeline:?}").contains("s3cr3t"));
    assert_eq!(
        pipeline.transforms[0].config.json().expose(),
        r#"{"token":"s3cr3t","list":["s3cr3t",1,2.0,true]}"#
    );
    assert_eq!(pipeline.transforms[0].config.json().shown(), r#"{"token":"***","list":["***",1,2.0,true]}"#);
}
