//! `tidemill dev`: what is saved runs, what is wrong is told, and nothing is left behind.

use super::Author;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use tidemill_tests::host::{PATIENCE, binary};
use tidemill_tests::peers::Feed;
use tidemill_tests::tools;

/// A message that each template keeps, with what it adds.
const TRADE: &str = r#"{"data":{"e":"trade","p":"2.5","q":"3"}}"#;

/// It looks at the sources five times a second.
const SEVERAL_LOOKS: Duration = Duration::from_secs(1);

/// `tidemill dev` while it runs, and what it says.
struct Dev {
    child: Child,
    lines: Receiver<String>,
}

impl Dev {
    fn start(author: &Author, feed: &str) -> Self {
        let mut command = Command::new(binary());
        command.current_dir(author.folder.path()).env("TIDEMILL_TOOLS", tools());
        // What it keeps as files is looked at in the end.
        let temporary = author.folder.path().join("tmp");
        fs::create_dir(&temporary).unwrap();
        command.env("TMPDIR", &temporary);
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

    #[track_caller]
    fn does_not_say(&self, beginning: &str, within: Duration) {
        let deadline = Instant::now() + within;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            assert!(!line.starts_with(beginning), "{line}");
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// How it ended, and what it said until then.
    fn ended(mut self) -> (ExitStatus, String) {
        let said = self.lines.iter().collect::<Vec<_>>().join("\n");
        (self.child.wait().unwrap(), said)
    }

    fn stop(self) {
        self.signal(Signal::INT);
        let (status, said) = self.ended();
        assert!(status.success(), "{status}: {said}");
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
        author.edit("double value;", "double value;\n  if (above == 0) __builtin_trap();");
        dev.says("fee runs in the new version");
        let failed = dev.says("failed  ");
        assert!(
            failed.starts_with("failed  trap: ") && failed.contains("in process (plugin.c:25)"),
            "{failed}"
        );
        dev
    });
    let dev = dev.await.unwrap();
    sending.abort();
    dev.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_fails_is_shown_among_many_and_many_are_counted() {
    let author = Author::new("c", "plugin.c");
    author.edit(
        "double value;",
        "double value;\n  if (tm_get_number(message, price) == 13) {\n    tm_reject(out, message, TM(\"unlucky\"));\n    return;\n  }",
    );
    let feed = Feed::open().await;
    let dev = Dev::start(&author, &feed.url());
    let sending = tokio::spawn(async move {
        let unlucky = TRADE.replace("2.5", "13");
        // Far more often than messages are shown; then all of them.
        for _ in 0..20 {
            for n in 0..50 {
                feed.text(if n == 31 { &unlucky } else { TRADE }).await;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        loop {
            feed.text(&unlucky).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let dev = tokio::task::spawn_blocking(move || {
        for _ in 0..3 {
            dev.says(&format!("before  {}", TRADE.replace("2.5", "13")));
            assert_eq!(dev.says("failed  "), "failed  rejected: unlucky");
        }
        let counted = dev.says("failed  (");
        assert!(counted.ends_with(" more, which are not shown)"), "{counted}");
        dev
    });
    let dev = dev.await.unwrap();
    sending.abort();
    dev.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_source_is_built_and_a_second_signal_leaves_nothing_behind() {
    let author = Author::new("c", "plugin.c");
    let feed = Feed::open().await;
    let dev = Dev::start(&author, &feed.url());
    let temporary = author.folder.path().join("tmp");
    let dev = tokio::task::spawn_blocking(move || {
        dev.says("fee runs on ");
        for other in
            ["README.md", "plugin.c~", ".plugin.c.swp", "plugin_test.c", "notes.txt", "cases/more.in.jsonl"]
        {
            fs::write(author.path(other), "changed").unwrap();
        }
        dev.does_not_say("compiling", SEVERAL_LOOKS);
        author.edit("/notional", "/worth");
        dev.says("compiling fee");
        dev.says("fee runs in the new version");
        // Two at once: the second comes while the first is obeyed.
        dev.signal(Signal::INT);
        dev.signal(Signal::TERM);
        (author, dev.ended())
    });
    let (_author, (status, said)) = dev.await.unwrap();
    let left: Vec<_> = fs::read_dir(temporary).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, Vec::<std::ffi::OsString>::new(), "{status}: {said}");
}
