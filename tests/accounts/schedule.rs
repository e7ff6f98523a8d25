//! What happens to the pipeline, step by step.

use crate::configured::Configured;
use crate::ends::{Collector, Mood, Peer, Producer, id, locked};
use crate::plan::{Plan, Word};
use crate::rule::Scrape;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemill_tests::guest;
use tidemill_tests::host::{Folder, Host, PATIENCE};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Messages that may wait for the source before the schedule sends no more.
const MOST_WAITING: u64 = 4000;
/// Steps that a failure tells of.
const TOLD_STEPS: usize = 60;
/// Peers of the server sink that come and go, beside one that stays.
const WILD_PEERS: usize = 3;
/// For each instance as many faults in a row as open a circuit, and one.
const STORM: usize = 6;
/// A circuit that opened costs seconds: more would be nothing but waiting.
const MOST_STORMS: u32 = 3;
/// Of one retry, fewer than open a circuit.
const RETRIED_FAULTS: usize = 2;
/// Between two attempts to start the pipeline: a version of the plugin is compiled meanwhile.
const RESTART_INTERVAL: Duration = Duration::from_millis(500);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// A run of the schedule.
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) folder: Folder,
    pub(crate) host: Arc<Host>,
    pub(crate) plan: Plan,
    pub(crate) producer: Producer,
    pub(crate) collector: Collector,
    /// Reads always, from before the first message to the end.
    pub(crate) steady: Peer,
    pub(crate) wild: Vec<Peer>,
    rng: fastrand::Rng,
    number: u64,
    told: VecDeque<String>,
    before: BTreeMap<String, i64>,
    /// What is undone at a later step.
    due: Vec<(u64, Undo)>,
    pipeline: Pipeline,
    contents: Contents,
    pub(crate) configured: Configured,
    storms: u32,
    /// Dead letters that are being retried, and whether that goes on.
    retrying: Option<JoinHandle<u16>>,
    /// The configuration is being read again, and whether that goes on.
    reloading: Option<JoinHandle<(u16, String)>>,
    /// The messages of the dialled sink's dead letters that may have reached it after all.
    pub(crate) retried_to_sink: HashSet<String>,
    began: Instant,
    pub(crate) scrapes: u64,
}

#[derive(Clone, Copy, Debug)]
enum Undo {
    Collector,
    Peer(usize),
    Start,
}

enum Pipeline {
    Runs,
    Stopping(JoinHandle<u16>),
    Stopped,
}

/// What is put into the plugin folder.
struct Contents {
    good: Vec<Vec<u8>>,
    /// A plugin that refuses the configuration.
    bad: Vec<u8>,
    /// No plugin.
    refused: Vec<u8>,
    put: usize,
}

impl Contents {
    fn read() -> Self {
        let read = |name| std::fs::read(guest(name).expect("guests in Rust are built")).unwrap();
        let steered = read("steered");
        let good = (0..3).map(|version| with_section(&steered, version)).collect();
        let refused = steered[..steered.len() / 2].to_vec();
        Self { good, bad: read("counter-v1"), refused, put: 0 }
    }

    fn good(&mut self) -> &[u8] {
        self.put += 1;
        &self.good[self.put % self.good.len()]
    }
}

/// The same component with another digest: a custom section says nothing that counts.
fn with_section(component: &[u8], version: u8) -> Vec<u8> {
    const NAME: &[u8] = b"version";
    let mut section = vec![u8::try_from(NAME.len()).expect("it is short")];
    section.extend_from_slice(NAME);
    section.push(version);
    let mut whole = component.to_vec();
    whole.extend_from_slice(&[0, u8::try_from(section.len()).expect("it is short")]);
    whole.extend_from_slice(&section);
    whole
}

impl Run {
    pub(crate) async fn start(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut contents = Contents::read();
        let folder = Folder::default();
        folder.put("steered", contents.good());
        let (producer, collector) = (Producer::open().await, Collector::open().await);
        // The listener closes with the pipeline, and peers come back to where it was.
        let server = free_address().await;
        let configured = Configured::draw(&mut rng, server, producer.address, collector.address);
        let host = folder.run(&configured.text());
        host.listening("websocket");
        let run = Self {
            seed,
            folder,
            host: Arc::new(host),
            plan: Plan::new(configured.on_error),
            producer,
            collector,
            steady: Peer::dial(server, Mood::Reads),
            wild: (0..WILD_PEERS).map(|_| Peer::dial(server, Mood::Reads)).collect(),
            rng,
            number: 0,
            told: [configured.to_string()].into(),
            before: BTreeMap::new(),
            due: Vec::new(),
            pipeline: Pipeline::Runs,
            contents,
            configured,
            storms: 0,
            retrying: None,
            reloading: None,
            retried_to_sink: HashSet::new(),
            began: Instant::now(),
            scrapes: 0,
        };
        run.steady_is_there().await;
        run
    }

    /// One step of the schedule.
    pub(crate) async fn step(&mut self) {
        self.number += 1;
        let (due, later) = self.due.iter().partition(|(step, _)| *step <= self.number);
        let due: Vec<(u64, Undo)> = due;
        self.due = later;
        for (_, undo) in due {
            self.undo(undo).await;
        }
        self.follow_pipeline().await;
        match self.rng.u32(..10_000) {
            0..4500 => self.burst(),
            4500..7000 => self.scrape(),
            7000..8800 => {
                let pause = Duration::from_micros(self.rng.u64(..3000));
                self.tell(&format!("pause {pause:?}"));
                tokio::time::sleep(pause).await;
            }
            8800..9300 => self.disturb_peer(),
            9300..9500 => self.disturb_collector(),
            9500..9600 => self.disturb_producer(),
            9600..9650 => self.swap(),
            9650..9665 => self.stop(),
            9665..9670 => self.storm(),
            9670..9720 => self.retry().await,
            9720..9735 => self.reload().await,
            _ => tokio::task::yield_now().await,
        }
    }

    fn burst(&mut self) {
        if self.producer.backlog() > MOST_WAITING {
            return;
        }
        let most = if self.rng.u32(..50) == 0 { 300 } else { 16 };
        let messages = self.rng.usize(1..=most);
        self.tell(&format!("send {messages}"));
        for _ in 0..messages {
            let message = self.plan.any(&mut self.rng);
            self.producer.send(message);
        }
    }

    fn storm(&mut self) {
        if self.storms == MOST_STORMS {
            return;
        }
        self.storms += 1;
        self.tell("send a storm of traps");
        for _ in 0..STORM * self.configured.instances[0] {
            let message = self.plan.next([Word::Trap, Word::Pass], 0);
            self.producer.send(message);
        }
    }

    /// Has dead letters enter again that fail as they did before, or go to the dialled sink.
    async fn retry(&mut self) {
        if self.retrying.as_ref().is_some_and(|retrying| !retrying.is_finished()) {
            return;
        }
        self.retrying_is_over().await;
        let reason = ["rejected", "trap", "output", "sink_unavailable"][self.rng.usize(..4)];
        let listed = self.letters_kept(reason);
        let mut ids: Vec<_> = listed.iter().map(|letter| letter["id"].clone()).collect();
        if reason == "sink_unavailable" {
            let payloads = listed.iter().filter_map(|letter| letter["payload"].as_str());
            self.retried_to_sink.extend(payloads.map(id));
        } else if reason != "rejected" {
            // More faults in a row would open the circuit.
            ids.truncate(RETRIED_FAULTS);
        }
        self.tell(&format!("retry {} {reason}", ids.len()));
        let host = self.host.clone();
        let body = json!({ "ids": ids }).to_string();
        self.retrying = Some(tokio::task::spawn_blocking(move || {
            host.ask("POST", "/api/v1/deadletters/retry", &[], &body).0
        }));
    }

    /// Changes the configuration, and has the host read it again. That may be refused: a stop or a version that is
    /// no good may have come first.
    async fn reload(&mut self) {
        if self.reloading.as_ref().is_some_and(|reloading| !reloading.is_finished()) {
            return;
        }
        self.reloading_is_over().await;
        self.configured.change(&mut self.rng);
        self.folder.configure(&self.configured.text());
        self.tell(&format!("reload: {}", self.configured));
        let host = self.host.clone();
        self.reloading =
            Some(tokio::task::spawn_blocking(move || host.ask("POST", "/api/v1/reload", &[], "")));
    }

    /// Waits for the answer to the last reload.
    async fn reloading_is_over(&mut self) {
        if let Some(reloading) = self.reloading.take() {
            let (status, answer) = reloading.await.expect("asking does not panic");
            self.tell(&format!("reloaded: {status} {answer}"));
            if ![200, 409, 422].contains(&status) {
                self.fail("reloading failed");
            }
        }
    }

    /// The dead letters that the host keeps for one reason, the newest first.
    pub(crate) fn letters_kept(&self, reason: &str) -> Vec<Value> {
        let path = format!("/api/v1/deadletters?reason={reason}&limit=1000");
        let (status, answer) = tokio::task::block_in_place(|| self.host.json("GET", &path, &Value::Null));
        if status != 200 {
            self.fail(&format!("the dead letters are not listed: {status} {answer}"));
        }
        answer["deadletters"].as_array().cloned().unwrap_or_default()
    }

    /// Waits for the answer to the last retry.
    pub(crate) async fn retrying_is_over(&mut self) {
        if let Some(retrying) = self.retrying.take() {
            let status = retrying.await.expect("asking does not panic");
            self.tell(&format!("retried: {status}"));
            if status != 200 {
                self.fail("retrying was refused");
            }
        }
    }

    /// Reads the metrics and checks the rule.
    pub(crate) fn scrape(&mut self) {
        let text = tokio::task::block_in_place(|| self.host.metrics().text);
        let scrape = Scrape::read(&text);
        let mut violations = scrape.violations();
        let counters = scrape.counters();
        for (name, before) in &self.before {
            let now = counters.get(name).copied().unwrap_or(0);
            if now < *before {
                violations.push(format!("a counter that goes back: {name} from {before} to {now}"));
            }
        }
        self.before = counters;
        self.scrapes += 1;
        if !violations.is_empty() {
            self.fail(&format!("the accounts do not add up:\n  {}\n{text}", violations.join("\n  ")));
        }
    }

    fn disturb_peer(&mut self) {
        let peer = self.rng.usize(..self.wild.len());
        let mood = [Mood::Stalls, Mood::Resets, Mood::Leaves, Mood::Away][self.rng.usize(..4)];
        let most = if mood == Mood::Stalls && !self.configured.peers_block() { 1500 } else { 80 };
        let steps = self.rng.u64(10..most);
        self.tell(&format!("peer {peer} {mood:?} for {steps} steps"));
        self.wild[peer].set(mood);
        self.due.push((self.number + steps, Undo::Peer(peer)));
    }

    fn disturb_collector(&mut self) {
        let moods = [Mood::Stalls, Mood::Resets, Mood::Leaves, Mood::Away];
        let mood = moods[self.rng.usize(..moods.len())];
        let steps = self.rng.u64(10..80);
        self.tell(&format!("the dialled sink's server {mood:?} for {steps} steps"));
        self.collector.set(mood);
        self.due.push((self.number + steps, Undo::Collector));
    }

    fn disturb_producer(&mut self) {
        if self.producer.backlog() > MOST_WAITING {
            return;
        }
        if self.rng.bool() {
            self.tell("the source's server leaves in order");
            self.producer.leave();
        } else {
            self.tell("the source's server resets");
            self.producer.reset();
        }
    }

    fn swap(&mut self) {
        let (what, content) = match self.rng.u32(..10) {
            0..6 => ("good", self.contents.good()),
            6..8 => ("bad", &*self.contents.bad),
            _ => ("refused", &*self.contents.refused),
        };
        self.folder.put("steered", content);
        self.tell(&format!("a {what} version of the plugin"));
    }

    fn stop(&mut self) {
        if !matches!(self.pipeline, Pipeline::Runs) {
            return;
        }
        self.tell("stop the pipeline");
        self.producer.hold();
        let host = self.host.clone();
        let stopping =
            tokio::task::spawn_blocking(move || host.ask("POST", "/api/v1/pipelines/p/stop", &[], "").0);
        self.pipeline = Pipeline::Stopping(stopping);
    }

    async fn follow_pipeline(&mut self) {
        match &mut self.pipeline {
            Pipeline::Stopping(stopping) if stopping.is_finished() => {
                let status = stopping.await.expect("asking does not panic");
                self.tell(&format!("the pipeline has stopped: {status}"));
                if status != 200 {
                    self.fail("stopping was refused");
                }
                self.pipeline = Pipeline::Stopped;
                let steps = self.rng.u64(1..30);
                self.due.push((self.number + steps, Undo::Start));
            }
            _ => {}
        }
    }

    async fn undo(&mut self, undo: Undo) {
        self.tell(&format!("undo {undo:?}"));
        match undo {
            Undo::Collector => self.collector.set(Mood::Reads),
            Undo::Peer(peer) => self.wild[peer].set(Mood::Reads),
            Undo::Start => self.start_again().await,
        }
    }

    /// Starts the pipeline. A version that it cannot start with may have come while it stood still, when
    /// nobody used the plugin: then a good one is put in its place.
    async fn start_again(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ask = || self.host.ask("POST", "/api/v1/pipelines/p/start", &[], "");
            let (status, answer) = tokio::task::block_in_place(ask);
            if status == 200 {
                break;
            }
            if Instant::now() > deadline {
                self.fail(&format!("starting was refused: {status} {answer}"));
            }
            self.tell(&format!("starting was refused: {status}"));
            self.folder.put("steered", self.contents.good());
            tokio::time::sleep(RESTART_INTERVAL).await;
        }
        self.steady_is_there().await;
        self.pipeline = Pipeline::Runs;
        self.producer.go_on();
    }

    /// Waits until the host counts the peer that stays among its own.
    async fn steady_is_there(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(address) = *locked(&self.steady.address) {
                let connections = tokio::task::block_in_place(|| self.host.get("/api/v1/connections").1);
                if connections.contains(&format!("\"{address}\"")) {
                    return;
                }
            }
            if Instant::now() > deadline {
                self.fail("the peer that stays does not get in");
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Ends all disturbances, and lets the pipeline run, as it was configured last.
    pub(crate) async fn calm_down(&mut self) {
        self.tell("calm down");
        self.reloading_is_over().await;
        self.collector.set(Mood::Reads);
        self.wild.iter().for_each(|peer| peer.set(Mood::Reads));
        self.folder.put("steered", self.contents.good());
        while !matches!(self.pipeline, Pipeline::Runs) {
            self.follow_pipeline().await;
            if matches!(self.pipeline, Pipeline::Stopped) {
                self.start_again().await;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        self.have_good_version();
        self.reload().await;
        let answered = self.reloading.take().expect("it was just asked for").await;
        let (status, answer) = answered.expect("asking does not panic");
        if status != 200 {
            self.fail(&format!("the last reload: {status} {answer}"));
        }
    }

    /// Has another good version take over at once, without a trial: it closes the circuits that storms have opened.
    pub(crate) fn have_good_version(&mut self) {
        self.tell("a good version without a trial");
        let headers = [("content-type", "application/wasm")];
        let path = "/api/v1/plugins/steered?shadow=0&probation=0s";
        let content = self.contents.good();
        let put = || self.host.send("PUT", path, &headers, content);
        let (status, answer) = tokio::task::block_in_place(put);
        // Another that was put into the folder meanwhile may have come first.
        if ![200, 409].contains(&status) {
            self.fail(&format!("a good version is refused: {status} {answer}"));
        }
    }

    fn tell(&mut self, what: &str) {
        if self.told.len() > TOLD_STEPS {
            self.told.remove(1);
        }
        self.told.push_back(format!("{:>6} {:>9.3?} {what}", self.number, self.began.elapsed()));
    }

    pub(crate) fn fail(&self, why: &str) -> ! {
        let told: Vec<_> = self.told.iter().map(String::as_str).collect();
        panic!(
            "seed {} at step {}: {why}\nthe last steps:\n{}\nthe log:\n{}",
            self.seed,
            self.number,
            told.join("\n"),
            tail(&self.host.log()),
        );
    }
}

/// An address on which nobody listens.
async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// The end of a log, which may be long.
fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(TOLD_STEPS)..].join("\n")
}
