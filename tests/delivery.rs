//! What is delivered does what it says with nothing but itself: the binary in an empty folder, its built-in
//! plugins, and the Debian package, unpacked.
//!
//! `cargo xtask test` builds the binary with everything in it. One that was built by `cargo build` alone has
//! no plugins; then the tests that need them are skipped by name, and fail with `CI=true`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::SinkExt;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::LazyLock;
use tempfile::TempDir;
use tidemill_tests::host::{Folder, Host, binary};
use tidemill_tests::peers::dial;
use tidemill_tests::pipelines::serve;
use tidemill_tests::sockets::{stopped, text};
use tidemill_tests::{is_to_skip, plugin, root, xtask_always};
use tokio_tungstenite::tungstenite::Message;

/// A command of the binary in this folder.
fn tidemill(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(folder).args(arguments);
    command
}

/// What a command in this folder says, which must end well.
fn said(folder: &Path, arguments: &[&str]) -> String {
    let output = tidemill(folder, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The plugins that a configuration in this folder can name.
fn plugins(folder: &Path) -> Vec<Value> {
    let listed: Value = serde_json::from_str(&said(folder, &["plugins", "--json"])).unwrap();
    listed["plugins"].as_array().unwrap().clone()
}

fn version(folder: &Path, name: &str) -> String {
    let all = plugins(folder);
    let plugin = all.iter().find(|plugin| plugin["name"] == name).unwrap();
    plugin["version"].as_str().unwrap().to_owned()
}

/// Whether the binary has no built-in plugins, and the test cannot be made.
fn lacks_plugins() -> bool {
    static LACKS: LazyLock<bool> = LazyLock::new(|| {
        let folder = TempDir::new().unwrap();
        plugins(folder.path()).is_empty()
    });
    *LACKS && is_to_skip("the binary has no built-in plugins; `cargo xtask test` builds one that has")
}

/// A host that runs what `init` wrote, on free ports.
fn run(folder: &Path, variables: &[(&str, &str)]) -> Host {
    let mut command = tidemill(folder, &["run", "--log-format", "json"]);
    command.env("PORT", "0").env("TIDEMILL_ADMIN", "127.0.0.1:0").envs(variables.iter().copied());
    Host::start(&mut command).with_admin()
}

/// A stage runs this version from now on, or it is the first of the plugin.
fn wait_for_version(host: &Host, version: &str, message: &str) {
    host.logged(message, |fields| {
        (fields["message"] == message && fields["version"] == version).then_some(())
    });
}

#[test]
fn a_feed_is_initialised_checked_and_run_in_an_empty_folder() {
    if lacks_plugins() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let told = said(folder.path(), &["init"]);
    assert!(told.contains("tidemill check") && told.contains("tidemill run"), "{told}");
    let checked: Value = serde_json::from_str(&said(folder.path(), &["check", "--json"])).unwrap();
    assert_eq!((&checked["ok"], checked["warnings"].as_array().unwrap().len()), (&Value::Bool(true), 0));

    let recording = root().join("examples/data/binance-combined-20240808.jsonl.gz");
    let mut command =
        tidemill(folder.path(), &["replay", "--log-format", "json", "--once", "--speed", "max"]);
    let feed = Host::start(command.args(["--listen", "127.0.0.1:0"]).arg(recording));
    let url = feed.logged("replaying", |fields| Some(fields.get("url")?.as_str()?.to_owned()));
    let host = run(folder.path(), &[("FEED", &url)]);
    host.listening("websocket");
    assert!(feed.wait().status.success());
    let admin = host.admin().to_string();
    said(folder.path(), &["health", "--admin", &admin]);
    said(folder.path(), &["health", "--ready", "--admin", &admin]);
    let ended = host.stop();
    assert!(ended.status.success(), "{}", ended.log);
    let trades: Vec<Value> =
        ended.output.lines().map(|line| serde_json::from_str(line).expect("output is JSON lines")).collect();
    let quantity = |trade: &Value| trade["data"]["q"].as_str().unwrap().parse::<f64>().unwrap();
    assert!(!trades.is_empty() && trades.iter().all(|trade| quantity(trade) > 0.1), "{}", trades.len());
    let gone = tidemill(folder.path(), &["health", "--admin", &admin]).output().unwrap();
    assert_eq!(gone.status.code(), Some(1), "{}", String::from_utf8_lossy(&gone.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_initialised_checked_and_run_in_an_empty_folder() {
    if lacks_plugins() {
        return;
    }
    let folder = TempDir::new().unwrap();
    said(folder.path(), &["init", "--server"]);
    said(folder.path(), &["check"]);
    let host = run(folder.path(), &[]);
    let address = host.listening("websocket");
    let (mut dashboard, mut device) = (dial(address, "/out").await, dial(address, "/in").await);
    for text in [r#"{"temperature":20}"#, "no JSON", r#"{"temperature":31.5}"#] {
        device.send(Message::text(text)).await.unwrap();
    }
    assert_eq!(text(&mut dashboard).await, r#"{"temperature":31.5}"#);
    let ended = stopped(host, [dashboard, device]).await;
    assert!(ended.status.success(), "{}", ended.log);
    let dead = fs::read_to_string(folder.path().join("dead.jsonl")).unwrap();
    assert!(dead.contains("no JSON"), "{dead}");
}

#[test]
fn init_overwrites_nothing() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("tidemill.toml");
    fs::write(&file, "mine").unwrap();
    for arguments in [&["init"][..], &["init", "--server"]] {
        let Output { status, stderr, .. } = tidemill(folder.path(), arguments).output().unwrap();
        let told = String::from_utf8(stderr).unwrap();
        assert!(status.code() == Some(1) && told.contains("there is a tidemill.toml already"), "{told}");
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "mine");
    said(folder.path(), &["init", "-c", "other.toml"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_takes_over_from_a_built_in_plugin_which_takes_over_when_it_goes() {
    if lacks_plugins() {
        return;
    }
    let folder = Folder::default();
    let built_in = version(&folder.path("."), "notional");
    let host = folder.run(&serve(r#"{ plugin = "notional" }"#));
    let address = host.listening("websocket");
    let (mut reader, mut writer) = (dial(address, "/out").await, dial(address, "/in").await);
    let mut through = async |expected: &str| {
        writer.send(Message::text(r#"{"price":200,"qty":2}"#)).await.unwrap();
        assert_eq!(text(&mut reader).await, expected);
    };
    through(r#"{"price":200,"qty":2,"notional":400.0}"#).await;

    folder.install("notional", &plugin("forward"));
    let file = version(&folder.path("."), "notional");
    wait_for_version(&host, &file, "plugin swapped");
    through(r#"{"price":200,"qty":2}"#).await;

    fs::remove_file(folder.path("plugins/notional.wasm")).unwrap();
    wait_for_version(&host, &built_in, "plugin swapped");
    through(r#"{"price":200,"qty":2,"notional":400.0}"#).await;
    let ended = stopped(host, [reader, writer]).await;
    assert!(ended.status.success(), "{}", ended.log);
}

#[test]
fn a_file_that_is_no_plugin_stands_before_the_built_in_one_until_it_goes() {
    if lacks_plugins() {
        return;
    }
    let folder = Folder::default();
    folder.put("forward", b"no component");
    let host = folder.run(&serve(r#"{ plugin = "forward" }"#));
    host.says("pipeline waits for a plugin whose file cannot run");
    assert!(!host.log().contains("built-in plugin taken"), "{}", host.log());
    fs::remove_file(folder.path("plugins/forward.wasm")).unwrap();
    host.says("pipeline running");
    assert!(host.stop().status.success());
}

#[test]
fn plugins_are_listed_with_where_they_come_from_and_what_uses_them() {
    if lacks_plugins() {
        return;
    }
    let folder = Folder::default();
    folder.install("vwap", &plugin("forward"));
    folder.put("mine", b"whatever it is");
    let config = r#"
        [[pipelines]]
        name = "p"
        source = { type = "stdin" }
        transforms = [{ plugin = "vwap", name = "prices", limits = { memory = "8MiB" } }, { plugin = "yours" }]
        sinks = [{ type = "stdout" }]
    "#;
    fs::write(folder.path("tidemill.toml"), config).unwrap();
    let all = plugins(&folder.path("."));
    let names: Vec<_> = all.iter().map(|plugin| plugin["name"].as_str().unwrap()).collect();
    let shipped = fs::read_dir(root().join("plugins")).unwrap().map(|entry| entry.unwrap().path());
    let shipped = shipped.filter(|folder| folder.join("Cargo.toml").is_file());
    let shipped = shipped.map(|folder| folder.file_name().unwrap().to_str().unwrap().to_owned());
    let mut expected: Vec<String> = shipped.chain(["mine", "yours"].map(str::to_owned)).collect();
    expected.sort();
    assert_eq!(names, expected);
    let of = |name: &str| all.iter().find(|plugin| plugin["name"] == name).unwrap();
    assert_eq!((&of("vwap")["file"], &of("vwap")["built_in"]), (&"plugins/vwap.wasm".into(), &true.into()));
    assert_eq!(of("vwap")["version"], of("forward")["version"], "the file is a copy of the other plugin");
    assert_eq!(of("vwap")["uses"][0]["transform"], "prices");
    assert_eq!(of("vwap")["uses"][0]["limits"]["memory_bytes"], 8 << 20);
    assert_eq!((&of("yours")["version"], &of("yours")["built_in"]), (&Value::Null, &false.into()));
    let table = said(&folder.path("."), &["plugins"]);
    let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(line("vwap").contains("plugins/vwap.wasm, before the built-in one"), "{table}");
    assert!(line("vwap").contains("p/prices (memory 8MiB, deadline 250ms, output 16MiB)"), "{table}");
    assert!(line("demux").contains("built in") && line("yours").contains("missing"), "{table}");
}

#[test]
fn a_built_in_plugin_is_tried_by_its_name() {
    if lacks_plugins() {
        return;
    }
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("in.jsonl"), "{\"price\":200,\"qty\":2}\n").unwrap();
    let mut command = tidemill(folder.path(), &["plugin", "run", "notional"]);
    let output = command.stdin(fs::File::open(folder.path().join("in.jsonl")).unwrap()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(told, "{\"price\":200,\"qty\":2,\"notional\":400.0}\n", "{output:?}");
}

#[test]
fn a_plugin_that_is_not_there_is_told_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    let output = tidemill(folder.path(), &["plugin", "run", "notionl"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    let (error, hint) = told.split_once('\n').unwrap();
    assert!(error.starts_with("error: failed to read notionl: No such file"), "{told}");
    let wanted = if plugins(folder.path()).is_empty() {
        "hint: this build has no built-in plugins; `cargo xtask install`"
    } else {
        "hint: did you mean the built-in plugin `notional`? `tidemill plugins`"
    };
    assert!(hint.starts_with(wanted), "{told}");
}

#[test]
fn a_demo_names_the_folder_that_it_cannot_make() {
    let folder = TempDir::new().unwrap();
    let mut demo = tidemill(folder.path(), &["demo", "--once"]);
    let output = demo.env("TMPDIR", folder.path().join("none")).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    let wanted = format!("error: failed to make the folder {}/none/tidemill-demo-", folder.path().display());
    assert!(told.starts_with(&wanted) && told.contains("\nhint: TMPDIR"), "{told}");
}

#[test]
fn the_demo_runs_in_an_empty_folder_and_leaves_it_empty() {
    let (folder, temporary) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut command = tidemill(folder.path(), &["demo", "--log-format", "json", "--once", "--speed", "max"]);
    command.env("TMPDIR", temporary.path());
    if plugins(folder.path()).is_empty() {
        // What a build without plugins says.
        let output = command.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("this build has no built-in plugins"), "{told}");
        lacks_plugins();
        return;
    }
    let ended = Host::start(&mut command).wait();
    assert!(ended.status.success(), "{}", ended.log);
    assert!(ended.log.contains("74,867 messages in"), "{}", ended.log);
    let is_empty = |folder: &TempDir| fs::read_dir(folder.path()).unwrap().next().is_none();
    assert!(is_empty(&folder) && is_empty(&temporary));
}

#[test]
fn every_command_has_a_manual_page_and_every_shell_completions() {
    let folder = TempDir::new().unwrap();
    let page = said(folder.path(), &["man"]);
    said(folder.path(), &["man", "-o", "pages"]);
    for command in ["run", "check", "init", "plugins", "plugin-run", "demo", "health", "completions", "man"] {
        let file = folder.path().join(format!("pages/tidemill-{command}.1"));
        assert!(fs::read_to_string(file).unwrap().contains(".TH"), "{command}");
        let name = command.split('-').next().unwrap();
        assert!(page.contains(&format!("tidemill\\-{name}")), "{command}: {page}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = said(folder.path(), &["completions", shell]);
        assert!(script.contains("replay"), "{shell}: {script}");
    }
    let reference = said(folder.path(), &["schema", "--markdown"]);
    assert!(reference.starts_with("# Configuration") && reference.contains("| `max_size` |"), "{reference}");
}

#[test]
fn systemd_finds_no_fault_in_the_unit() {
    let has_systemd = Command::new("systemd-analyze").arg("--version").output().is_ok();
    if !has_systemd && is_to_skip("there is no systemd-analyze to verify the unit with") {
        return;
    }
    let tree = TempDir::new().unwrap();
    let unit = "usr/lib/systemd/system/tidemill.service";
    for (from, to) in
        [(root().join("xtask/package/tidemill.service"), unit), (binary().into(), "usr/bin/tidemill")]
    {
        fs::create_dir_all(tree.path().join(to).parent().unwrap()).unwrap();
        fs::copy(from, tree.path().join(to)).unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify.args([
        "verify",
        "--man=no",
        "--recursive-errors=no",
        &format!("--root={}", tree.path().display()),
    ]);
    let output = verify.arg(format!("/{unit}")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_debian_package_unpacks_and_its_service_answers_and_stops() {
    let has_dpkg = Command::new("dpkg").arg("--version").output().is_ok_and(|output| output.status.success());
    if !has_dpkg && is_to_skip("there is no dpkg to unpack the Debian package with") {
        return;
    }
    let folder = TempDir::new().unwrap();
    let (out, tree) = (folder.path().join("dist"), folder.path().join("root"));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    xtask_always(&["dist", "debian", "--binary", &path(binary()), "-o", &path(&out)]);
    let mut files = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
    let package = files.find(|file| file.extension().is_some_and(|is| is == "deb")).expect("it is made");
    let dpkg = |arguments: &[&str]| {
        let output = Command::new("dpkg").args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    dpkg(&["-x", &path(&package), &path(&tree)]);
    let described = dpkg(&["--field", &path(&package), "Package", "Architecture"]);
    assert!(
        described.contains("Package: tidemill") && described.contains("Architecture: amd64"),
        "{described}"
    );
    for file in ["usr/share/man/man1/tidemill.1.gz", "usr/share/bash-completion/completions/tidemill"] {
        assert!(tree.join(file).is_file(), "{file}");
    }

    // The unit's command line, in the unpacked tree instead of the root, with what systemd sets.
    let unit = fs::read_to_string(tree.join("usr/lib/systemd/system/tidemill.service")).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("it starts something");
    let mut words = line.split(' ').map(|word| match word.strip_prefix('/') {
        Some(place) => path(&tree.join(place)),
        None => word.to_owned(),
    });
    let state = tree.join("var/lib/tidemill");
    fs::create_dir_all(&state).unwrap();
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(["--log-format", "json"]).current_dir(&state);
    command.env("STATE_DIRECTORY", &state).env("CACHE_DIRECTORY", tree.join("var/cache/tidemill"));
    let host = Host::start(command.env("TIDEMILL_ADMIN", "127.0.0.1:0")).with_admin();
    assert_eq!(host.get("/healthz").0, 200);
    assert_eq!(host.get("/readyz").0, 200);
    let ended = host.stop();
    assert!(ended.status.success(), "{}", ended.log);
    assert!(state.join("plugins").is_dir() && !tree.join("etc/tidemill/plugins").exists());

    // The pipeline that its configuration shows is right, too.
    let file = tree.join("etc/tidemill/tidemill.toml");
    let text = fs::read_to_string(&file).unwrap();
    let at = text.find("# [[pipelines]]").expect("it shows one");
    let shown: String =
        text[at..].lines().map(|line| format!("{}\n", line.trim_start_matches(['#', ' ']))).collect();
    fs::write(&file, format!("{}{shown}", &text[..at])).unwrap();
    said(&state, &["check", "-c", &path(&file)]);
}

#[test]
fn a_wrong_argument_is_told_how_it_is_written_and_a_missing_file_who_writes_one() {
    let folder = TempDir::new().unwrap();
    let cases: [(&[&str], i32, &str); 5] = [
        (&["run"], 78, "`tidemill init` writes a first one"),
        (&["replay", "feed.jsonl", "--listen", "9001"], 2, "write it as \"127.0.0.1:9001\""),
        (&["health", "--admin", "10080"], 2, "write it as \"127.0.0.1:10080\""),
        (&["health", "--admin", "http://127.0.0.1:10080"], 2, "write it as \"127.0.0.1:10080\""),
        (&["run", "--grace", "5"], 2, "write it as \"250ms\""),
    ];
    for (arguments, code, told) in cases {
        let output = Command::new(binary()).args(arguments).current_dir(folder.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && text.contains(told), "{arguments:?}: {text}");
    }
}
