//! A newcomer's walk: the commands of the README and of the quick start, typed in an empty folder, one after the other.

use serde_json::Value;
use std::fs;
use std::process::Command;
use std::time::Duration;
use tidemill_tests::host::binary;
use tidemill_tests::is_to_skip;
use tidemill_tests::pages::{Reader, Step, steps};
use tidemill_tests::peers::Feed;
use tokio::task::JoinHandle;

/// A trade that everything here keeps.
const TRADE: &str =
    r#"{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","p":"60000","q":"3","T":1}}"#;

/// Whether the binary has no built-in plugins, which the pages name.
fn lacks_plugins() -> bool {
    let listed =
        Command::new(binary()).args(["plugins", "--json"]).current_dir(std::env::temp_dir()).output();
    let listed: Value = serde_json::from_slice(&listed.unwrap().stdout).unwrap();
    let lacks = listed["plugins"].as_array().unwrap().is_empty();
    lacks && is_to_skip("the binary has no built-in plugins; `cargo xtask test` builds one that has")
}

/// A feed on which trades go on, and whoever sends them.
async fn feed() -> (String, JoinHandle<()>) {
    let feed = Feed::open().await;
    let url = feed.url();
    let sending = tokio::spawn(async move {
        loop {
            feed.text(TRADE).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    (url, sending)
}

/// Walks through a page, and leaves out what has tests of its own. Gives how many commands were typed.
async fn walk(page: &str, has_a_test: impl Fn(&str) -> bool) -> usize {
    let (url, sending) = feed().await;
    let mut reader = Reader::default();
    reader.set("FEED", url);
    reader.set("ROOM_TOKEN", "t0ken");
    fs::write(reader.path("in.jsonl"), format!("{TRADE}\n")).unwrap();
    let mut typed = 0;
    tokio::task::block_in_place(|| {
        for step in steps(page) {
            match &step {
                Step::Command(command, _) if has_a_test(command) => continue,
                Step::Command(..) => typed += 1,
                // Whole configurations are right; parts of one are not looked at.
                Step::Code(language, text) if language == "toml" => {
                    if text.contains("[[pipelines]]") {
                        fs::write(reader.path("shown.toml"), text).unwrap();
                        reader.take(&Step::Command("tidemill check -c shown.toml".to_owned(), None));
                    }
                    continue;
                }
                _ => {}
            }
            reader.take(&step);
        }
    });
    sending.abort();
    typed
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_can_be_typed() {
    if lacks_plugins() {
        return;
    }
    // What starts with `cargo` is for a checkout; that is how these tests are run.
    let has_a_test = |command: &str| command.starts_with("cargo ") || command.starts_with("tidemill dev ");
    assert!(walk("README.md", has_a_test).await >= 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quick_start_can_be_typed() {
    if lacks_plugins() {
        return;
    }
    assert!(walk("docs/quick-start.md", |_| false).await >= 11);
}
