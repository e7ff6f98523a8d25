//! The way of a plugin's author, in each language, as its tutorial says it: a new folder, its tests, the component, and a
//! change of the source that reaches a running host. What is missing is fetched once, into `tools` of the target folder.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::StreamExt as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidemill_tests::host::{PATIENCE, binary};
use tidemill_tests::pages::{Reader, Step, steps};
use tidemill_tests::peers::{Feed, dial};
use tidemill_tests::sockets::soon;
use tidemill_tests::{guest, tools};
use tokio_tungstenite::tungstenite::Message;

/// A message that each template keeps, with what it adds.
const TRADE: &str = r#"{"data":{"e":"trade","p":"2.5","q":"3"}}"#;

/// A plugin that is written here.
struct Author {
    folder: TempDir,
    main: &'static str,
}

impl Author {
    /// Makes the folder `fee`.
    fn new(language: &str, main: &'static str) -> Self {
        let author = Self { folder: TempDir::new().unwrap(), main };
        author.succeeds(&["plugin", "new", "fee", "--lang", language]);
        author
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join("fee").join(file)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.current_dir(self.folder.path()).env("TIDEMILL_TOOLS", tools()).args(arguments);
        command.output().unwrap()
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (said, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {said}{errors}");
        said
    }

    /// What is said on standard error, by a command that ends with 1.
    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{arguments:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stderr)
    }

    /// Replaces a text in the source of the plugin.
    #[track_caller]
    fn edit(&self, from: &str, to: &str) {
        let path = self.path(self.main);
        let source = fs::read_to_string(&path).unwrap();
        assert!(source.contains(from), "{from}: {source}");
        fs::write(&path, source.replace(from, to)).unwrap();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Does what a tutorial says, in its order: a new plugin passes its tests, runs, and is exchanged for one whose source was
/// changed; a mistake is told with its place.
async fn is_written_and_runs(language: &str) {
    let feed = Feed::open().await;
    let mut reader = Reader::default();
    reader.set("FEED", feed.url());
    let mut checked = 0;
    for step in steps(&format!("docs/tutorials/{language}.md")) {
        let command = if let Step::Command(command, _) = &step { command.as_str() } else { "" };
        if command.starts_with("tidemill dev") {
            // It has a test of its own, for which one language is enough.
            continue;
        }
        tokio::task::block_in_place(|| reader.take(&step));
        let member = match command {
            "tidemill run" => "notional",
            command if command.starts_with("tidemill swap") => "worth",
            _ => continue,
        };
        let address = tokio::task::block_in_place(|| reader.address());
        // While a plugin is built nobody would read, nor answer the pings of the host.
        let mut peer = dial(address, "/trades").await;
        for (price, is_enough) in [("1", false), ("2500.5", true)] {
            let trade = format!(r#"{{"data":{{"e":"trade","p":"{price}","q":"3"}}"#);
            feed.text(format!("{trade}}}")).await;
            if is_enough {
                let sent = soon(peer.next()).await.unwrap().unwrap();
                assert_eq!(sent, Message::text(format!(r#"{trade},"{member}":7501.5}}"#)));
            }
        }
        checked += 1;
    }
    assert_eq!(checked, 2, "the page has a host that runs, and a swap");
    let ended = tokio::task::block_in_place(|| reader.take_host().stop());
    assert!(ended.status.success(), "{}", ended.log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_in_rust() {
    is_written_and_runs("rust").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_in_javascript() {
    is_written_and_runs("javascript").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_in_typescript() {
    is_written_and_runs("typescript").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_in_python() {
    is_written_and_runs("python").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_in_go() {
    is_written_and_runs("go").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_in_c() {
    is_written_and_runs("c").await;
}

/// In C a connector is built in no time; that the others build, too, is the same template and the same way.
#[test]
fn a_connector_is_built_and_tested() {
    let author = Author { folder: TempDir::new().unwrap(), main: "plugin.c" };
    author.succeeds(&["plugin", "new", "fee", "--lang", "c", "--kind", "connector"]);
    let said = author.succeeds(&["plugin", "test", "fee"]);
    assert!(said.contains("the tests in C pass\n"), "{said}");
    let said = author.succeeds(&["plugin", "build", "fee"]);
    assert!(said.starts_with("fee/fee.wasm: connector, "), "{said}");
}

#[test]
fn cases_are_compared_line_by_line_and_written_anew_when_asked() {
    let author = Author::new("c", "plugin.c");
    let (output, input) = (author.path("cases/first.out.jsonl"), author.path("cases/first.in.jsonl"));
    let right = fs::read_to_string(&output).unwrap();
    fs::write(&output, right.replace("15460.375", "1")).unwrap();
    let said = author.run(&["plugin", "test", "fee"]);
    let told = text(&said.stdout);
    assert_eq!(said.status.code(), Some(1), "{told}");
    for line in
        ["case first: not as fee/cases/first.out.jsonl says\n", "  line 1 expected  ", "  line 1 got       "]
    {
        assert!(told.contains(line), "{told}");
    }
    author.succeeds(&["plugin", "test", "fee", "--update"]);
    assert_eq!(fs::read_to_string(&output).unwrap(), right);

    // What is rejected is told, and comes out nowhere.
    fs::write(
        author.path("cases/second.in.jsonl"),
        format!("no JSON\n{}", fs::read_to_string(input).unwrap()),
    )
    .unwrap();
    let said = author.succeeds(&["plugin", "test", "fee", "--update"]);
    assert!(
        said.contains("cases/second.out.jsonl is written, 2 lines\n") && said.contains("(no JSON)"),
        "{said}"
    );
    fs::write(author.path("cases/second.config.json"), r#"{"abov":1}"#).unwrap();
    let said = text(&author.run(&["plugin", "test", "fee"]).stdout);
    assert!(said.contains("case second: failed to start fee") && said.contains("abov"), "{said}");
}

#[test]
fn what_is_there_stays_and_what_is_no_plugin_is_told() {
    let author = Author::new("go", "plugin.go");
    let before = fs::read(author.path("plugin.go")).unwrap();
    let error = author.fails(&["plugin", "new", "fee", "--lang", "rust"]);
    assert!(error.contains("there is a fee already, and it stays as it is"), "{error}");
    assert!(!author.path("Cargo.toml").exists() && fs::read(author.path("plugin.go")).unwrap() == before);
    for (arguments, told) in [
        (&["plugin", "new", "Fee!", "--lang", "go"][..], "a name starts with a lower-case letter"),
        (&["plugin", "new", "test", "--lang", "go"], "that means something else"),
        (
            &["plugin", "new", "a", "--lang", "go", "--kind", "connector"],
            "the SDK for Go has no connectors; Rust, JavaScript, TypeScript, Python and C have them",
        ),
    ] {
        let output = author.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(told), "{}", text(&output.stderr));
    }
    let error = author.fails(&["plugin", "build", "fee/cases"]);
    assert!(
        error.contains("fee/cases is not the folder of a plugin") && error.contains("plugin new"),
        "{error}"
    );
    let error = author.fails(&["plugin", "build", "nowhere"]);
    assert!(error.contains("nowhere"), "{error}");
    assert!(!Path::new("nowhere").exists());
}

/// `tidemill dev` while it runs, and what it says.
struct Dev {
    child: Child,
    lines: Receiver<String>,
}

impl Dev {
    fn start(author: &Author, feed: &str) -> Self {
        let mut command = Command::new(binary());
        command.current_dir(author.folder.path()).env("TIDEMILL_TOOLS", tools());
        command.args(["dev", "fee", "--feed", feed]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = sync_channel(1024);
        forward(child.stdout.take().unwrap(), sender.clone());
        forward(child.stderr.take().unwrap(), sender);
        Self { child, lines }
    }

    /// Waits for a line that begins so.
    #[track_caller]
    fn says(&self, beginning: &str) -> String {
        let (deadline, mut said) = (Instant::now() + PATIENCE, Vec::new());
        loop {
            let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                panic!("it does not say {beginning}: {}", said.join("\n"));
            };
            if line.starts_with(beginning) {
                return line;
            }
            said.push(line);
        }
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.lines.iter().collect::<Vec<_>>().join("\n"));
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It is gone already where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Gives the lines of a stream to a test, as long as it wants any.
fn forward(stream: impl Read + Send + 'static, to: SyncSender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            if line.ok().and_then(|line| to.send(line).ok()).is_none() {
                return;
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_runs_and_what_is_wrong_leaves_the_version_before() {
    let author = Author::new("c", "plugin.c");
    let feed = Feed::open().await;
    let dev = Dev::start(&author, &feed.url());
    let sending = tokio::spawn(async move {
        loop {
            feed.text(TRADE).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let dev = tokio::task::spawn_blocking(move || {
        assert_eq!(dev.says("before  "), format!("before  {TRADE}"));
        let after =
            |field: &str| format!(r#"after   {{"data":{{"e":"trade","p":"2.5","q":"3"}},"{field}":7.5}}"#);
        dev.says(&after("notional"));
        author.edit("tm_forward(out, message);", "tm_forward(out, messag);");
        let error = dev.says("error: ");
        assert!(error.starts_with("error: plugin.c:") && error.contains("messag"), "{error}");
        dev.says("the version before runs on");
        dev.says(&after("notional"));
        author.edit("tm_forward(out, messag);", "tm_forward(out, message);");
        author.edit("/notional", "/worth");
        dev.says("fee runs in the new version");
        dev.says(&after("worth"));
        // A fault is told with its reason beside the message.
        author.edit("double value;", "double value; if (above == 0) __builtin_trap();");
        dev.says("fee runs in the new version");
        let failed = dev.says("failed  ");
        assert!(failed.starts_with("failed  trap: "), "{failed}");
        dev
    });
    let dev = dev.await.unwrap();
    sending.abort();
    dev.stop();
}

/// What a plugin does wrong when it runs, as the first dead letter tells it.
#[track_caller]
fn fails_when_it_runs(language: &str, main: &'static str, from: &str, to: &str) -> String {
    let author = Author::new(language, main);
    author.edit(from, to);
    author.succeeds(&["plugin", "build", "fee"]);
    let mut run = Command::new(binary());
    run.current_dir(author.folder.path()).args(["plugin", "run", "fee/fee.wasm"]);
    let output = run.stdin(fs::File::open(author.path("cases/first.in.jsonl")).unwrap()).output().unwrap();
    let told = text(&output.stderr);
    let letter = told.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
    letter.unwrap_or_else(|| panic!("{told}"))["detail"].as_str().unwrap().to_owned()
}

#[test]
fn a_bigint_is_told_with_what_to_write_instead() {
    let (from, to) = ("if (notional > above) {", "if (notional > above) {\n      notional * 2n;");
    let error = fails_when_it_runs("javascript", "plugin.js", from, to);
    assert!(error.contains("write Number(x)") && error.contains("plugin.js:16"), "{error}");
}

#[test]
fn a_goroutine_that_is_left_running_is_told_with_its_line() {
    let to = "go func() { select {} }()\n\t\t\tif name";
    let error = fails_when_it_runs("go", "plugin.go", "if name", to);
    assert!(error.contains("a goroutine that Process started at plugin.go:28 still runs"), "{error}");
    assert!(error.contains("sync.WaitGroup"), "{error}");
}

#[test]
fn what_the_standard_library_cannot_do_is_told_with_what_to_ask_instead() {
    let from = "let notional = price * quantity;";
    let to = "std::time::Instant::now();\n        let notional = price * quantity;";
    let error = fails_when_it_runs("rust", "src/lib.rs", from, to);
    assert!(error.contains("not implemented on this platform") && error.contains("::clock"), "{error}");

    let author = Author::new("c", "plugin.c");
    author.edit("#include \"worth.h\"", "#include \"worth.h\"\n#include <stdio.h>");
    author.edit("double value;", "double value; puts(\"trade\");");
    let error = author.fails(&["plugin", "build", "fee"]);
    assert!(error.contains("a plugin has no system") && error.contains("tm_log"), "{error}");
}

#[test]
fn an_import_that_comes_too_late_is_told_with_its_line() {
    let author = Author::new("python", "plugin.py");
    author.edit(
        "        notional = message.price",
        "        import colorsys\n        notional = message.price",
    );
    let error = author.fails(&["plugin", "build", "fee"]);
    let told = "error: plugin.py:26: colorsys is imported within process, when there are no files any more: import it at the";
    assert!(error.contains(told), "{error}");
}

/// What files can be in the place of a plugin that this host takes.
#[test]
fn a_file_that_is_no_plugin_of_this_host_is_told_in_a_sentence() {
    let Some(whole) = guest("asking") else { return };
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("p.wasm");
    let whole = fs::read(whole).unwrap();
    let component = |text: &str| wat::parse_str(text).unwrap();
    for (wasm, told) in [
        (
            component("(module)"),
            "error: failed to load plugin p: the file is a core WebAssembly module, not a component",
        ),
        (
            component(r#"(component (instance $i) (export "wasi:http/handler@0.2.0" (instance $i)))"#),
            "error: failed to load plugin p: the component exports no tidemill:plugin/transformer",
        ),
        (
            component(
                r#"(component (instance $i) (export "tidemill:plugin/transformer@0.2.0" (instance $i)))"#,
            ),
            "error: failed to load plugin p: the component exports tidemill:plugin/transformer@0.2.0, this host speaks",
        ),
        (
            component(
                r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))
                (func $f async (canon lift (core func $i "f"))) (instance $x (export "process" (func $f)))
                (export "tidemill:plugin/transformer@0.1.0" (instance $x)))"#,
            ),
            "error: failed to load plugin p: the component has functions that are async, and nothing in a plugin is",
        ),
        (whole[..whole.len() / 2].to_vec(), "error: failed to load plugin p: the file is cut short"),
        (
            whole,
            "error: failed to start p: it imports tidemill:plugin/http@0.1.0, and no requests are granted",
        ),
    ] {
        fs::write(&file, wasm).unwrap();
        let mut run = Command::new(binary());
        let output =
            run.current_dir(folder.path()).args(["plugin", "run", "p.wasm"]).stdin(Stdio::null()).output();
        let output = output.unwrap();
        let error = text(&output.stderr);
        assert!(!output.status.success() && error.contains(told), "{told}: {error}");
        let has_hint = error.contains("hint: ") || error.contains("would grant them");
        assert!(has_hint, "{error}");
    }
}
