//! A host as users run it: the binary, its log, its HTTP API and its metrics.

pub use crate::folder::Folder;
use crate::log::Log;
use crate::prometheus;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for anything: a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long pipelines beside the first may take to open their paths.
const OTHERS_OPEN: Duration = Duration::from_secs(1);
/// Between two looks at something.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// The binary `tidemill`, built if it is not up to date.
///
/// # Panics
/// If it does not build.
pub fn binary() -> &'static Path {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
        // Tests are in `deps` of the folder where binaries are.
        let test = std::env::current_exe().expect("a test has a file");
        let binary = test.ancestors().nth(2).expect("a test is in target/<profile>/deps").join("tidemill");
        // `cargo test --workspace` has just built it; alone it wants its dependencies with other features.
        if crate::is_prepared() && binary.is_file() {
            return binary;
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.current_dir(crate::root()).args([
            "build",
            "--quiet",
            "--package",
            "tidemill",
            "--bin",
            "tidemill",
        ]);
        assert!(build.status().expect("cargo can be run").success(), "the host does not build");
        binary
    });
    &BUILT
}

/// A running host. Dropping it ends it at once.
#[derive(Debug)]
pub struct Host {
    child: Child,
    log: Log,
    /// What it writes to its standard output, unless nobody reads that.
    output: Option<JoinHandle<String>>,
    admin: Option<SocketAddr>,
    token: Option<String>,
}

/// How a host ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub output: String,
    /// Its log.
    pub log: String,
}

impl Host {
    /// Runs a command of the host that writes its log as JSON.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(command: &mut Command) -> Self {
        let (mut this, stdout) = Self::spawn(command);
        this.output = Some(std::thread::spawn(move || {
            let mut text = String::new();
            let _ = BufReader::new(stdout).read_to_string(&mut text);
            text
        }));
        this
    }

    /// The same, with a standard output whose reader has gone.
    pub(crate) fn start_unread(command: &mut Command) -> Self {
        Self::spawn(command).0
    }

    fn spawn(command: &mut Command) -> (Self, ChildStdout) {
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("the host starts");
        let stderr = child.stderr.take().expect("it is piped");
        let stdout = child.stdout.take().expect("it is piped");
        (Self { child, log: Log::read(stderr), output: None, admin: None, token: None }, stdout)
    }

    /// The same host; what is asked of it shows this token of `[admin]`.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(format!("Bearer {token}"));
        self
    }

    /// The same host, once its HTTP API listens.
    ///
    /// # Panics
    /// If that does not come in time.
    #[must_use]
    pub fn with_admin(mut self) -> Self {
        self.admin = Some(self.listening("http api"));
        self
    }

    /// Waits for a line of the log: `find` is given its fields.
    ///
    /// # Panics
    /// If it does not come in time.
    pub fn logged<T>(&self, what: &str, find: impl Fn(&serde_json::Value) -> Option<T>) -> T {
        let found = self.log.wait_for(Instant::now() + PATIENCE, find);
        found.unwrap_or_else(|| panic!("not in the log in time: {what}\n{}", self.log()))
    }

    /// Waits for a line of the log that has this text, in whatever field. The log is written by a thread of its own,
    /// and a moment behind what it tells.
    ///
    /// # Panics
    /// If it does not come in time.
    pub fn says(&self, text: &str) {
        self.logged(text, |fields| {
            let mut values = fields.as_object()?.values();
            values.any(|value| value.as_str().is_some_and(|value| value.contains(text))).then_some(())
        });
    }

    /// Waits until the log has so many lines with this text.
    ///
    /// # Panics
    /// If they do not come in time, or if there are more.
    pub fn says_times(&self, text: &str, times: usize) {
        let told = || self.log().lines().filter(|line| line.contains(text)).count();
        self.wait_until(&format!("{times} times in the log: {text}"), |_| told() >= times);
        assert_eq!(told(), times, "{text}\n{}", self.log());
    }

    /// The address that the log says something listens on: `http api` or `websocket`.
    ///
    /// # Panics
    /// If the log does not say so in time.
    pub fn listening(&self, what: &str) -> SocketAddr {
        let address = self.address_of(what);
        // A listener opens with its first path; others of the same host may be a moment behind. One that a
        // test keeps from starting is not waited for in earnest.
        let deadline = Instant::now() + OTHERS_OPEN;
        let starting = |now: &Counted| now.count("tidemill_pipelines", &["state=\"starting\""]);
        while self.admin.is_some() && starting(&self.metrics()) > 0 && Instant::now() < deadline {
            std::thread::sleep(LOOK_INTERVAL);
        }
        address
    }

    /// The same, as soon as the first path of it is open.
    ///
    /// # Panics
    /// If the log does not say so in time.
    pub fn address_of(&self, what: &str) -> SocketAddr {
        self.logged(&format!("{what} listening"), |fields| {
            let is_it = fields.get("message")?.as_str()?.strip_suffix(" listening")? == what;
            if is_it { fields.get("address")?.as_str()?.parse().ok() } else { None }
        })
    }

    /// The address of the HTTP API.
    ///
    /// # Panics
    /// If it has none.
    pub fn admin(&self) -> SocketAddr {
        self.admin.expect("it is set once the host has started")
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The memory that it has in RAM now.
    ///
    /// # Panics
    /// If the system does not tell.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kilobytes.expect("the system tells it in kB") << 10
    }

    /// Status and body of a page of the HTTP API.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path, &[], "")
    }

    /// Status and body of what the HTTP API answers; a body is sent as JSON. A header replaces the usual
    /// one of its name.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        self.send(method, path, headers, body.as_bytes())
    }

    /// The same with a body that may be anything; it is sent as JSON, unless a header says otherwise.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
        let admin = self.admin();
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        let host = admin.to_string();
        let mut usual = vec![("Host", host.as_str())];
        if !body.is_empty() {
            usual.push(("Content-Type", "application/json"));
        }
        usual.extend(self.token.as_deref().map(|token| ("Authorization", token)));
        usual.retain(|(name, _)| headers.iter().all(|(other, _)| !other.eq_ignore_ascii_case(name)));
        for (name, value) in usual.iter().chain(headers) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut stream = TcpStream::connect(admin).expect("the api listens");
        // It may answer before it has read all.
        let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n", body.len());
        let _ = stream.write_all(body);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers with text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head ends with an empty line");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a head has a status"), body.to_owned())
    }

    /// Status and JSON of what the HTTP API answers.
    ///
    /// # Panics
    /// If it does not answer, or not in JSON.
    pub fn json(&self, method: &str, path: &str, body: &serde_json::Value) -> (u16, serde_json::Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = self.ask(method, path, &[], &body);
        if answer.is_empty() {
            return (status, serde_json::Value::Null);
        }
        (status, serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}")))
    }

    /// The table of connections: the rows of all endpoints.
    ///
    /// # Panics
    /// If the HTTP API does not answer.
    pub fn endpoints(&self) -> Vec<serde_json::Value> {
        let (status, answer) = self.json("GET", "/api/v1/connections", &serde_json::Value::Null);
        assert_eq!(status, 200, "{answer}");
        answer["endpoints"].as_array().expect("they are listed").clone()
    }

    /// The row of an endpoint in the table of connections, if it has one.
    ///
    /// # Panics
    /// As [`Self::endpoints`].
    pub fn endpoint(&self, pipeline: &str, endpoint: &str) -> Option<serde_json::Value> {
        let is_it = |row: &serde_json::Value| row["pipeline"] == pipeline && row["endpoint"] == endpoint;
        self.endpoints().into_iter().find(is_it)
    }

    /// Waits until a pipeline has a state.
    ///
    /// # Panics
    /// If that takes too long.
    pub fn becomes(&self, pipeline: &str, state: &str) {
        let labels = [format!("pipeline=\"{pipeline}\""), format!("state=\"{state}\"")];
        self.wait_until(&format!("{pipeline} is {state}"), |now| {
            now.count("tidemill_pipelines", &labels.each_ref().map(String::as_str)) == 1
        });
    }

    /// The metrics now.
    ///
    /// # Panics
    /// If they are not what a scraper takes.
    pub fn metrics(&self) -> Counted {
        let text = self.get("/metrics").1;
        if let Err(error) = prometheus::parse(&text) {
            panic!("/metrics is not valid: {error}\n{text}");
        }
        Counted { text }
    }

    /// Waits until the metrics are as described.
    ///
    /// # Panics
    /// If that takes too long, with the metrics and the log.
    pub fn wait_until(&self, what: &str, mut is_so: impl FnMut(&Counted) -> bool) -> Counted {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let metrics = self.metrics();
            if is_so(&metrics) {
                return metrics;
            }
            assert!(Instant::now() < deadline, "not in time: {what}\n{}\n{}", metrics.text, self.log());
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Asks it to stop, as a service manager would, and waits for its end.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn stop(mut self) -> Ended {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        self.ended()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in time.
    pub fn wait(mut self) -> Ended {
        self.ended()
    }

    fn ended(&mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it was started here") {
                break status;
            }
            assert!(Instant::now() < deadline, "the host does not end:\n{}", self.log());
            std::thread::sleep(LOOK_INTERVAL);
        };
        self.log.end();
        let output = self.output.take().map(|output| output.join().expect("reading does not panic"));
        let output = output.unwrap_or_default();
        Ended { status, output, log: self.log() }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Metrics in the text format.
#[derive(Clone, Debug)]
pub struct Counted {
    /// All of them.
    pub text: String,
}

impl Counted {
    /// The sum of the samples of a metric that have these labels, such as `sink="out"`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let samples = self.text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
        let samples = samples.filter_map(|sample| sample.split_once("} "));
        let wanted =
            samples.filter(|(found, _)| labels.iter().all(|label| found.split(',').any(|l| l == *label)));
        wanted.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
    }

    /// As a whole number, for what counts messages.
    pub fn count(&self, name: &str, labels: &[&str]) -> u64 {
        self.sum(name, labels) as u64
    }
}
