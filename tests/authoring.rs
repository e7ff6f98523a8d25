//! The way of a plugin's author, in each language, as its tutorial says it: a new folder, its tests, the component, and a
//! change of the source that reaches a running host. What is missing is fetched once, into `tools` of the target folder.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "authoring/cargo.rs"]
mod cargo;
#[path = "authoring/dev.rs"]
mod dev;
#[path = "authoring/mistakes.rs"]
mod mistakes;
#[path = "authoring/stopping.rs"]
mod stopping;

use futures_util::StreamExt as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;
use tempfile::TempDir;
use tidemill_tests::host::binary;
use tidemill_tests::pages::{Reader, Step, steps};
use tidemill_tests::peers::{Feed, dial};
use tidemill_tests::sockets::soon;
use tidemill_tests::tools;
use tokio_tungstenite::tungstenite::Message;

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

/// In C and in Go a connector is built in no time; that the others build, too, is the same template and the same way.
#[test]
fn a_connector_is_built_and_tested() {
    for (language, title, main) in [("c", "C", "plugin.c"), ("go", "Go", "plugin.go")] {
        let author = Author { folder: TempDir::new().unwrap(), main };
        author.succeeds(&["plugin", "new", "fee", "--lang", language, "--kind", "connector"]);
        let said = author.succeeds(&["plugin", "test", "fee"]);
        assert!(said.contains(&format!("the tests in {title} pass\n")), "{said}");
        let said = author.succeeds(&["plugin", "build", "fee"]);
        assert!(said.starts_with("fee/fee.wasm: connector, "), "{said}");
    }
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

/// The commands that work with a component take the folder, too, and have the component that is of its sources.
#[test]
fn the_folder_of_a_plugin_is_built_whatever_times_its_files_have() {
    let author = Author::new("c", "plugin.c");
    let told = |output: &Output| (text(&output.stdout), text(&output.stderr));
    let (inspected, progress) = told(&author.run(&["plugin", "inspect", "fee"]));
    assert!(inspected.starts_with("fee: transform of the contract 0.1.0, "), "{inspected}");
    assert!(progress.contains("compiling fee\n") && author.path("fee.wasm").is_file(), "{progress}");

    let trade = ["--text", r#"{"data":{"e":"trade","p":"2.5","q":"3"}}"#];
    let run = |plugin: &[&str]| told(&author.run(&[&["plugin", "run"], plugin, &trade].concat()));
    let (sent, progress) = run(&["fee"]);
    assert!(sent.contains(r#""notional":7.5"#), "{sent}{progress}");
    fs::copy(author.path("fee.wasm"), author.path("before.wasm")).unwrap();
    author.edit("/notional", "/worth");
    let source = fs::File::options().write(true).open(author.path("plugin.c")).unwrap();
    source.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let (sent, progress) = run(&["fee"]);
    assert!(sent.contains(r#""worth":7.5"#) && progress.contains("compiling fee\n"), "{sent}{progress}");
    let (compared, _) = run(&["fee/before.wasm", "--diff", "fee/"]);
    assert!(compared.contains(r#"+ {"data":{"e":"trade","p":"2.5","q":"3"},"worth":7.5}"#), "{compared}");
    let input = "fee/cases/first.in.jsonl";
    let measured = author.succeeds(&["plugin", "bench", "fee", "--input", input]);
    assert!(measured.lines().nth(1).unwrap().starts_with("fee "), "{measured}");

    // What does not compile does not run in an older version.
    author.edit("/worth\");", "/worth\")");
    let error = author.fails(&["plugin", "run", "fee", "--text", "{}"]);
    assert!(error.contains("error: plugin.c:"), "{error}");
    fs::create_dir(author.folder.path().join("empty")).unwrap();
    let error = author.fails(&["plugin", "inspect", "empty"]);
    assert!(error.contains("empty is not the folder of a plugin"), "{error}");
}
