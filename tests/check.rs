//! `tidemill check`: what it tells about a configuration and the plugins it names, with which exit code,
//! and what it leaves alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;
use tidemill_tests::host::{Folder, PATIENCE, binary};
use tidemill_tests::{guest, plugin};

/// Runs `check` in a folder, on this configuration: the exit code, and the answer in JSON.
fn check(folder: &Path, config: &str, more: &[&str]) -> (Option<i32>, Value) {
    check_by(Command::new(binary()), folder, config, more)
}

/// The same, by a command that runs the binary.
fn check_by(mut command: Command, folder: &Path, config: &str, more: &[&str]) -> (Option<i32>, Value) {
    fs::write(folder.join("tidemill.toml"), config).unwrap();
    let output = command.args(["check", "--json"]).args(more).current_dir(folder).output().unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    let answer = serde_json::from_str(&answer)
        .unwrap_or_else(|_| panic!("{answer}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), answer)
}

/// The one error, or the one warning, of an answer, and what its place has in the file.
fn only<'a>(answer: &'a Value, level: &str, config: &str) -> (&'a str, String, &'a Value) {
    let all = answer[level].as_array().unwrap();
    assert_eq!(all.len(), 1, "{answer}");
    let number = |name: &str| usize::try_from(all[0][name].as_u64().expect("it has a place")).unwrap();
    let line = config.lines().nth(number("line") - 1).unwrap();
    let from_there = line.chars().skip(number("column") - 1).collect();
    (all[0]["message"].as_str().unwrap(), from_there, &all[0]["hint"])
}

/// A pipeline with these transforms and sinks.
fn pipeline(transforms: &str, sinks: &str) -> String {
    format!(
        "[[pipelines]]\nname = \"p\"\nsource = {{ type = \"file\", path = \"in.jsonl\" }}\n\
         transforms = {transforms}\nsinks = {sinks}\n"
    )
}

const DEMUX: &str = r#"{ plugin = "demux", config = { by = "/s", outputs = { a = "btc" } } }"#;

#[test]
fn a_missing_plugin_is_a_warning_at_its_place_with_the_nearest_name() {
    let folder = Folder::default();
    folder.install("demux", &plugin("demux"));
    folder.install("forward", &plugin("forward"));
    let config = pipeline(
        r#"[{ plugin = "forward" }, { plugin = "forwrd" }]"#,
        r#"[{ type = "stdout", outputs = ["btc"] }]"#,
    );
    // Nobody knows yet which outputs the last transform has: that of the first proves nothing.
    let (code, answer) = check(&folder.path("."), &config, &[]);
    assert_eq!((code, &answer["ok"], &answer["errors"]), (Some(0), &json!(true), &json!([])), "{answer}");
    let (message, place, hint) = only(&answer, "warnings", &config);
    assert_eq!(message, "pipeline p: there is no plugins/forwrd.wasm yet; the pipeline waits for it");
    assert!(place.starts_with("\"forwrd\""), "{place}");
    assert_eq!(hint, "did you mean \"forward\"?");
}

#[test]
fn an_unknown_output_is_an_error_at_its_place_with_the_nearest_name() {
    let folder = Folder::default();
    folder.install("demux", &plugin("demux"));
    folder.install("forward", &plugin("forward"));
    let sinks = r#"[{ type = "stdout" }, { type = "stdout", name = "s", outputs = ["default", "btd"] }]"#;
    let config = pipeline(&format!("[{DEMUX}]"), sinks);
    let (code, answer) = check(&folder.path("."), &config, &[]);
    assert_eq!(code, Some(78), "{answer}");
    let (message, place, hint) = only(&answer, "errors", &config);
    assert!(message.contains("the output \"btd\", which plugin demux does not have"), "{message}");
    assert!(place.starts_with("\"btd\""), "{place}");
    assert_eq!(hint, "did you mean \"btc\"?");

    let config = pipeline(
        &format!("[{DEMUX}, {{ plugin = \"forward\" }}]"),
        r#"[{ type = "stdout", outputs = ["btc"] }]"#,
    );
    let (code, answer) = check(&folder.path("."), &config, &[]);
    assert_eq!(code, Some(78), "{answer}");
    let (_, place, hint) = only(&answer, "errors", &config);
    assert!(place.starts_with("\"btc\""), "{place}");
    assert_eq!(hint, "the transform `demux` has it, but sinks take the outputs of the last transform");
}

#[test]
fn outputs_of_a_transform_that_is_not_the_last_are_a_warning_at_it() {
    let folder = Folder::default();
    folder.install("demux", &plugin("demux"));
    folder.install("forward", &plugin("forward"));
    let config = pipeline(&format!("[{DEMUX}, {{ plugin = \"forward\" }}]"), r#"[{ type = "stdout" }]"#);
    let (code, answer) = check(&folder.path("."), &config, &[]);
    assert_eq!(code, Some(0), "{answer}");
    let (message, place, hint) = only(&answer, "warnings", &config);
    assert_eq!(
        message,
        "pipeline p: what transform demux sends to the output \"btc\" is dropped: sinks take the outputs of the last \
         transform"
    );
    assert!(place.starts_with("\"demux\""), "{place}");
    assert_eq!(hint, "let demux be the last transform");
    let config = pipeline(
        r#"[{ plugin = "demux", config = { by = "/s", outputs = { a = "a", b = "b" } } }, { plugin = "forward" }]"#,
        r#"[{ type = "stdout" }]"#,
    );
    let (_, answer) = check(&folder.path("."), &config, &[]);
    assert!(
        only(&answer, "warnings", &config).0.contains("to the output \"a\", and to others, is"),
        "{answer}"
    );
}

#[test]
fn messages_that_pass_a_plugin_which_is_there_to_hide_something_are_a_warning_at_it() {
    let folder = Folder::default();
    let key = r#"key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=""#;
    for (plugin_name, config, warns) in [
        ("redact", r#"fields = ["/a"]"#, true),
        ("encrypt", key, true),
        ("decrypt", key, false),
        ("map", r#"drop = ["/a"]"#, true),
        ("map", r#"pick = ["/a"]"#, true),
        ("map", r#"set = { "/a" = 1 }"#, false),
        ("filter", r#"where = [{ field = "/a", op = "exists" }]"#, false),
    ] {
        if !folder.path(&format!("plugins/{plugin_name}.wasm")).exists() {
            folder.install(plugin_name, &plugin(plugin_name));
        }
        for on_error in ["pass", "dead_letter"] {
            let transform = format!(
                r#"[{{ plugin = "{plugin_name}", config = {{ {config} }}, on_error = "{on_error}" }}]"#
            );
            let config = pipeline(&transform, r#"[{ type = "stdout" }]"#);
            let (code, answer) = check(&folder.path("."), &config, &[]);
            assert_eq!(code, Some(0), "{answer}");
            if warns && on_error == "pass" {
                let (message, place, _) = only(&answer, "warnings", &config);
                let why = format!(
                    "pipeline p, transform {plugin_name}: with `on_error = \"pass\"` a message that plugin \
                     {plugin_name} rejects or fails on goes on as it came, with what the plugin is there to hide"
                );
                assert_eq!(message, why);
                assert!(place.starts_with(&format!("\"{plugin_name}\"")), "{place}");
            } else {
                assert_eq!(answer["warnings"], json!([]), "{transform}");
            }
        }
    }
}

#[test]
fn a_plugin_that_refuses_its_configuration_is_told_at_it() {
    let folder = Folder::default();
    folder.install("vwap", &plugin("vwap"));
    let transforms = r#"[{ plugin = "vwap", config = { window = "soon" } }, { plugin = "vwap", name = "b", config = { window = "late" } }]"#;
    let config = pipeline(transforms, r#"[{ type = "stdout" }]"#);
    let (code, answer) = check(&folder.path("."), &config, &[]);
    assert_eq!(code, Some(78), "{answer}");
    let errors = answer["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2, "every transform is looked at: {answer}");
    for (error, text) in errors.iter().zip(["{ window = \"soon\"", "{ window = \"late\""]) {
        let column = usize::try_from(error["column"].as_u64().unwrap()).unwrap();
        let line = config.lines().nth(3).unwrap();
        assert_eq!(error["line"], 4);
        assert!(line[column - 1..].starts_with(text), "{error}");
    }

    fs::write(folder.path("plugins/broken.wasm"), "no component").unwrap();
    let config = pipeline(r#"[{ plugin = "broken" }]"#, r#"[{ type = "stdout" }]"#);
    let (code, answer) = check(&folder.path("."), &config, &[]);
    assert_eq!(code, Some(78), "{answer}");
    let (message, place, _) = only(&answer, "errors", &config);
    assert!(message.starts_with("plugin broken: ") && place.starts_with("\"broken\""), "{answer}");
}

/// Every file and folder below, without the folder itself.
fn everything_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        found.push(entry.path());
        if entry.path().is_dir() {
            found.extend(everything_in(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn check_makes_no_plugin_folder_and_opens_no_file() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("out.jsonl"), "kept\n").unwrap();
    let sinks =
        r#"[{ type = "file", path = "out.jsonl", append = false }, { type = "file", path = "new.jsonl" }]"#;
    let config = pipeline("[]", sinks);
    let (code, answer) = check(folder.path(), &config, &[]);
    assert_eq!(code, Some(0), "{answer}");
    let cache = folder.path().join(".tidemill");
    let found: Vec<_> =
        everything_in(folder.path()).into_iter().filter(|path| !path.starts_with(&cache)).collect();
    assert_eq!(found, ["out.jsonl", "tidemill.toml"].map(|name| folder.path().join(name)));
    assert_eq!(fs::read_to_string(folder.path().join("out.jsonl")).unwrap(), "kept\n");
}

#[test]
fn a_signal_ends_a_check_or_a_run_of_a_plugin_that_does_not_come_to_an_end() {
    let folder = Folder::default();
    folder.install("hostile", &guest("hostile").expect("guests in Rust are built"));
    let spins = r#"[{ plugin = "hostile", config = { behaviour = "endless_loop", where = "init" } }]"#;
    let config = pipeline(spins, r#"[{ type = "stdout", format = "jsonl" }]"#);
    fs::write(folder.path("tidemill.toml"), config).unwrap();
    let order = r#"{"behaviour":"endless_loop","where":"init"}"#;
    let run = ["plugin", "run", "plugins/hostile.wasm", "--config", order];
    for arguments in [&["check", "--json"][..], &run] {
        let mut command = Command::new(binary());
        let command = command.args(arguments).current_dir(folder.path("."));
        let streams = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = streams.spawn().unwrap();
        // Once the thread of the signals is there, they are obeyed.
        let threads = PathBuf::from(format!("/proc/{}/task", child.id()));
        let is_signals =
            |thread: &Path| fs::read_to_string(thread.join("comm")).is_ok_and(|name| name == "signals\n");
        let deadline = Instant::now() + PATIENCE;
        while !fs::read_dir(&threads).unwrap().any(|thread| is_signals(&thread.unwrap().path())) {
            assert!(Instant::now() < deadline, "it waits for no signals");
            std::thread::yield_now();
        }
        rustix::process::kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        // With 78, and the plugin's fault, once that has run into its deadline.
        assert_eq!(child.wait().unwrap().code(), Some(130), "{arguments:?}");
    }
}

#[test]
fn check_does_without_a_cache_that_cannot_be_written() {
    let folder = Folder::default();
    folder.install("forward", &plugin("forward"));
    // Below a file there can be no folder, whoever asks for it.
    let config = format!(
        "plugins = {{ cache = \"tidemill.toml/cache\" }}\n{}",
        pipeline(r#"[{ plugin = "forward" }]"#, r#"[{ type = "stdout" }]"#)
    );
    let (code, answer) = check(&folder.path("."), &config, &[]);
    assert_eq!((code, &answer["ok"]), (Some(0), &json!(true)), "{answer}");
    let (message, place, hint) = only(&answer, "warnings", &config);
    assert!(message.starts_with("failed to use the plugin cache tidemill.toml/cache: "), "{message}");
    assert!(place.starts_with("\"tidemill.toml/cache\""), "{place}");
    assert!(hint.as_str().unwrap().starts_with("a start fails with it"), "{hint}");
}

#[test]
fn a_plugin_folder_that_is_none_and_can_never_be_made_is_an_error_at_its_place() {
    let folder = Folder::default();
    for dir in ["tidemill.toml", "tidemill.toml/plugins/new"] {
        let config = format!(
            "plugins = {{ dir = \"{dir}\" }}\n{}",
            pipeline(r#"[{ plugin = "forward" }]"#, r#"[{ type = "stdout" }]"#)
        );
        let (code, answer) = check(&folder.path("."), &config, &[]);
        assert_eq!(code, Some(78), "{answer}");
        let (message, place, _) = only(&answer, "errors", &config);
        assert!(message.starts_with(&format!("failed to create the plugin folder {dir}: ")), "{message}");
        assert!(message.to_lowercase().contains("not a directory"), "{message}");
        assert!(place.starts_with(&format!("\"{dir}\"")), "{place}");
        let run = Command::new(binary()).arg("run").current_dir(folder.path(".")).output().unwrap();
        let log = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.code() == Some(78) && log.contains(message), "{log}");
    }
}

/// The binary as a user to whom folders can be denied, which root is only without its privileges.
fn without_privileges() -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(binary());
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all"]).arg(binary());
    command
}

#[test]
fn folders_of_plugins_that_are_denied_are_told() {
    let folder = Folder::default();
    fs::create_dir(folder.path("denied")).unwrap();
    let deny = |mode| fs::set_permissions(folder.path("denied"), fs::Permissions::from_mode(mode)).unwrap();
    let of = |plugins: &str| {
        let rest = pipeline("[]", r#"[{ type = "stdout" }]"#);
        format!("plugins = {{ {plugins} }}\n{rest}")
    };
    for (mode, plugins) in [(0o300, "dir = \"denied\""), (0o500, "dir = \"denied/new\"")] {
        deny(mode);
        let (code, answer) = check_by(without_privileges(), &folder.path("."), &of(plugins), &[]);
        assert_eq!(code, Some(78), "{answer}");
        assert!(only(&answer, "errors", &of(plugins)).0.contains("Permission denied"), "{answer}");
    }
    deny(0o500);
    let config = of("cache = \"denied\"");
    let (code, answer) = check_by(without_privileges(), &folder.path("."), &config, &[]);
    assert_eq!((code, &answer["ok"]), (Some(0), &json!(true)), "{answer}");
    let (message, place, _) = only(&answer, "warnings", &config);
    assert!(message.starts_with("the plugin cache denied cannot be written: "), "{message}");
    assert!(place.starts_with("\"denied\""), "{place}");
    deny(0o700);
}

#[test]
fn a_url_that_check_accepts_is_dialled_as_it_was_meant() {
    let folder = Folder::default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").unwrap();
        head
    });
    let config = format!(
        "[[pipelines]]\nname = \"p\"\nsource = {{ type = \"websocket\", url = \
         \"WS://me:p^w|@127.0.0.1:{port}/größe/{{a}}?q=ä\" }}\nsinks = [{{ type = \"stdout\" }}]\n"
    );
    let (code, answer) = check(&folder.path("."), &config, &["--connect"]);
    assert_eq!(code, Some(1), "the peer refuses: {answer}");
    let head = peer.join().unwrap();
    assert_eq!(head[0], "GET /gr%C3%B6%C3%9Fe/%7Ba%7D?q=%C3%A4 HTTP/1.1");
    assert!(head.iter().any(|line| line == "Authorization: Basic bWU6cF53fA=="), "{head:?}");
}

#[test]
fn the_schema_of_the_file_is_printed_as_json() {
    let output = Command::new(binary()).arg("schema").output().unwrap();
    assert!(output.status.success());
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&schema["title"], &schema["type"]), (&json!("tidemill.toml"), &json!("object")));
}
