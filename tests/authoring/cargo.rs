//! What cargo would miss: sources that are older than what was built of others, and plugins of one name.

use super::{Author, text};
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tidemill_tests::host::binary;

/// A message that the template keeps, with what it adds.
const TRADE: &str = r#"{"data":{"e":"trade","p":"2.5","q":"3"}}"#;

#[test]
fn each_folder_is_built_of_its_own_sources_as_they_are() {
    let shared = TempDir::new().unwrap();
    let [author, other] = [(); 2].map(|()| Author::new("rust", "src/lib.rs"));
    let (source, kept) = (author.path("src/lib.rs"), author.path("lib.rs.before"));
    fs::copy(&source, &kept).unwrap();
    let before = SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(&kept).unwrap().set_modified(before).unwrap();
    author.edit("/notional", "/worth");
    let builds = [&author, &other].map(|author| {
        let mut build = Command::new(binary());
        build.current_dir(author.folder.path()).args(["plugin", "build", "fee"]);
        // Where everybody's cargo builds into one folder, and the two have one name.
        build.env("CARGO_TARGET_DIR", shared.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        build.spawn().unwrap()
    });
    for build in builds {
        let output = build.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    for (author, member) in [(&author, "worth"), (&other, "notional")] {
        let sent = author.succeeds(&["plugin", "run", "fee/fee.wasm", "--text", TRADE]);
        assert!(sent.contains(&format!(r#""{member}":7.5"#)), "{sent}");
    }
    assert_eq!(fs::read_dir(shared.path()).unwrap().count(), 0);

    // To cargo, what is older than what it has built is as it was.
    let told = author.fails(&["plugin", "test", "fee"]);
    assert!(told.contains("error: the tests in Rust fail"), "{told}");
    fs::rename(kept, &source).unwrap();
    author.succeeds(&["plugin", "test", "fee"]);
}
