//! Who asks for a reload: a signal, a command, whoever saves the file; and several of them at once.

use crate::site::{Site, class, relay, whole};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use tidemill_tests::commands::tidemill_of;
use tidemill_tests::peers::{Collector, Feed};

/// Two configurations of a pipeline: one forwards, and one counts too.
struct Two {
    feed: Feed,
    collector: Collector,
}

impl Two {
    async fn open() -> Self {
        Self { feed: Feed::open().await, collector: Collector::open().await }
    }

    fn config(&self, number: u32) -> String {
        let transforms = format!("{{ plugin = \"forward\", name = \"stage{number}\" }}");
        relay("p", &self.feed.url(), &transforms, &self.collector.url())
    }

    /// Waits until one of them is in force, and messages go through it.
    async fn holds(&mut self, site: &Site, number: u32) {
        tokio::task::block_in_place(|| {
            let label = format!("transform=\"stage{number}\"");
            site.host().wait_until(&format!("configuration {number}"), |now| {
                now.text
                    .lines()
                    .any(|line| line.starts_with("tidemill_stage_messages_in") && line.contains(&label))
            });
        });
        self.feed.text(number.to_string()).await;
        assert_eq!(self.collector.text().await, number.to_string());
    }
}

fn site() -> Site {
    let site = Site::default();
    site.install("forward", "forward");
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_reads_the_file_again_and_a_file_that_is_wrong_does_not_end_the_host() {
    let mut two = Two::open().await;
    let site = site().run(&two.config(1));
    two.holds(&site, 1).await;
    let hang_up =
        || kill_process(Pid::from_raw(site.host().id().cast_signed()).unwrap(), Signal::HUP).unwrap();
    site.write(&two.config(2));
    hang_up();
    two.holds(&site, 2).await;
    site.write("[[pipelines]]\nname = 7\n");
    hang_up();
    site.host().logged("that it is refused", |fields| {
        let is_it = fields.get("message")?.as_str()? == "configuration not reloaded: nothing was changed";
        is_it.then(|| assert!(fields["error"].as_str().unwrap().starts_with("tidemill.toml:"), "{fields}"))
    });
    site.write(&two.config(3));
    hang_up();
    two.holds(&site, 3).await;
    assert_eq!(site.counted("tidemill_connects_total", &["outcome=\"connected\""]).await, 2);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_saved_in_whatever_way_is_taken_up_by_a_host_that_watches_it() {
    let mut two = Two::open().await;
    let site = site().run_watching(&two.config(1));
    two.holds(&site, 1).await;
    let path = site.path("tidemill.toml");
    fs::write(&path, whole("", &two.config(2))).unwrap();
    two.holds(&site, 2).await;
    fs::write(site.path("new"), whole("", &two.config(3))).unwrap();
    fs::rename(site.path("new"), &path).unwrap();
    two.holds(&site, 3).await;
    fs::rename(&path, site.path("tidemill.toml~")).unwrap();
    fs::write(&path, whole("", &two.config(4))).unwrap();
    two.holds(&site, 4).await;
    // As a folder of Kubernetes is swapped; paths stay relative to the file as it is named.
    for number in [5, 6] {
        fs::create_dir(site.path(&format!("..{number}"))).unwrap();
        fs::write(site.path(&format!("..{number}/tidemill.toml")), whole("", &two.config(number))).unwrap();
        symlink(format!("..{number}"), site.path("..data_tmp")).unwrap();
        fs::rename(site.path("..data_tmp"), site.path("..data")).unwrap();
        if number == 5 {
            symlink("..data/tidemill.toml", site.path("link")).unwrap();
            fs::rename(site.path("link"), &path).unwrap();
        }
        two.holds(&site, number).await;
    }
    assert_eq!(site.counted("tidemill_connects_total", &["outcome=\"connected\""]).await, 2);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_shows_a_table_or_json_and_ends_with_what_came_of_it() {
    let two = Two::open().await;
    let site = site().run(&two.config(1));
    let run = |arguments: &[&str]| tidemill_of(site.host(), &site.folder, &[&["reload"], arguments].concat());
    site.write(&two.config(2));
    let (code, out, _) = run(&["--dry-run", "--json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, class(&told, "p"), &told["dry_run"]), (Some(0), "updated".to_owned(), &json!(true)));
    let (code, out, _) = run(&[]);
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(code, Some(0), "{out}");
    assert_eq!(
        (&lines[0][..], &lines[1][..2]),
        (&["PIPELINE", "CLASS", "REASONS"][..], &["p", "updated"][..])
    );
    let (_, out, _) = run(&[]);
    assert!(out.contains("unchanged"), "{out}");
    site.write("[[pipelines]]\nname = 7\n");
    let (code, out, error) = run(&[]);
    assert_eq!((code, out.as_str()), (Some(78), ""));
    assert!(error.contains("tidemill.toml:5:8: `name` must be a string"), "{error}");
    let (code, out, _) = run(&["--json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["errors"][0]["line"]), (Some(78), &json!(4)), "{told}");
    assert_eq!(site.json("POST", "/api/v1/reload?dry=1", Value::Null).await.0, 400);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_swaps_and_stops_at_once_leave_a_host_that_works_and_counts_right() {
    const ROUNDS: u32 = 12;
    let mut two = Two::open().await;
    let site = site().run(&two.config(1));
    two.holds(&site, 1).await;
    std::thread::scope(|scope| {
        let threads = [
            scope.spawn(|| {
                for number in 0..ROUNDS {
                    site.write(&two.config(number % 3));
                    let (status, told) = site.host().json("POST", "/api/v1/reload", &Value::Null);
                    assert_eq!(status, 200, "{told}");
                }
            }),
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let (status, told) = site.host().json("POST", "/api/v1/reload", &Value::Null);
                    assert_eq!(status, 200, "{told}");
                }
            }),
            scope.spawn(|| {
                for number in 0..ROUNDS {
                    if number % 2 == 0 {
                        site.folder.install_another_version("forward", &tidemill_tests::plugin("forward"));
                    } else {
                        site.install("forward", "forward");
                    }
                }
            }),
            scope.spawn(|| {
                for number in 0..ROUNDS {
                    let what = if number % 2 == 0 { "stop" } else { "start" };
                    let (status, told) =
                        site.host().json("POST", &format!("/api/v1/pipelines/p/{what}"), &Value::Null);
                    assert!([200, 202, 409].contains(&status), "{what}: {told}");
                }
            }),
        ];
        tokio::task::block_in_place(|| threads.into_iter().for_each(|thread| thread.join().unwrap()));
    });
    site.change(&two.config(9)).await;
    let (status, told) = site.json("POST", "/api/v1/pipelines/p/start", Value::Null).await;
    assert_eq!(status, 200, "{told}");
    two.feed.text("after all").await;
    while two.collector.received.recv().await.unwrap()
        != tidemill_tests::peers::Received::Text("after all".to_owned())
    {}
    let shown = site.get("/api/v1/config").await;
    assert_eq!(shown["pipelines"][0]["transforms"][0]["name"], "stage9");
    assert!(!site.log().contains("panicked"), "{}", site.log());
    site.stop().await;
}
