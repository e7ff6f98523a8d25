//! `cargo xtask conformance`: the Autobahn suite against the host, as a server and as a client.
//!
//! A pipeline of a source and a reply sink is the echo that the suite asks for. As a server, the suite
//! dials it for every case. As a client, the source dials the suite again and again, each time the url
//! of the next case. Both pass through what pipelines use, and nothing else.
//!
//! The cases 12.* and 13.* are left out: they are about compression.
#![expect(clippy::print_stdout, reason = "a command for a terminal")]

use crate::tools::{self, Result, Tools, cargo, root, say, target};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The suite calls the host so.
const AGENT: &str = "tidemill";
/// Longest time for all cases of a role; they take half a minute.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks at whether something has come to pass.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// What is as good as passed: the order of failing is looser than asked for, or nothing was asked.
const PASSED: [&str; 3] = ["OK", "NON-STRICT", "INFORMATIONAL"];

/// Runs the suite in both roles.
///
/// # Errors
/// There is no Python 2.7, something does not build or run, or a case fails.
pub(crate) fn run() -> Result {
    match tools::autobahn()? {
        Tools::In(suite) => {
            say("building the host");
            tools::run(cargo().current_dir(root()).args(["build", "--quiet", "--workspace", "--bins"]))?;
            Site::try_new(suite)?.run()
        }
        Tools::Missing(missing) => Err(format!("the Autobahn suite cannot run: {missing}").into()),
    }
}

/// Runs the suite in both roles where there is a Python 2.7, and says so where there is none.
///
/// # Errors
/// Something does not build or run, or a case fails.
pub(crate) fn run_where_possible() -> Result {
    match tools::autobahn()? {
        Tools::In(suite) => Site::try_new(suite)?.run(),
        Tools::Missing(missing) => {
            say(&format!("the Autobahn suite is skipped: {missing}"));
            Ok(())
        }
    }
}

/// Where it happens.
struct Site {
    host: PathBuf,
    suite: PathBuf,
    work: PathBuf,
}

impl Site {
    /// With the host that was built before: the tests build it, and with other features it would be built
    /// a second time.
    fn try_new(suite: PathBuf) -> Result<Self> {
        let work = target().join("conformance");
        match fs::remove_dir_all(&work) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(&work)?,
        }
        Ok(Self { host: target().join("debug/tidemill"), suite, work })
    }

    fn run(&self) -> Result {
        let roles = [("server", self.as_server()?), ("client", self.as_client()?)];
        for (role, report) in &roles {
            println!("{role}:\n{}", report.table());
        }
        for (role, report) in &roles {
            println!("{role}: {} cases, {} failed", report.cases.len(), report.failed());
        }
        let failed: usize = roles.iter().map(|(_, report)| report.failed()).sum();
        if failed == 0 {
            Ok(())
        } else {
            Err(format!("{failed} cases failed; see {}", self.work.display()).into())
        }
    }

    /// The suite dials the host.
    fn as_server(&self) -> Result<Report> {
        let work = self.role("server")?;
        let mut host = self.host(
            &work,
            r#"
            [server]
            port = 0

            [[pipelines]]
            name = "echo"
            source = { type = "websocket", mode = "server", max_message_size = "64MiB" }
            sinks = [{ type = "reply" }]
            "#,
        )?;
        let url = format!("ws://{}", host.said("websocket listening address=")?);
        let spec = json!({
            "outdir": work.join("report"),
            "servers": [{ "agent": AGENT, "url": url }],
            "cases": ["*"],
            "exclude-cases": ["12.*", "13.*"],
            "exclude-agent-cases": {},
        });
        let mut suite = self.wstest(&work, "fuzzingclient", &spec)?;
        suite.until("the suite's end", |suite| Ok(suite.child.try_wait()?.map(drop)))?;
        Report::read(&work)
    }

    /// The host dials the suite.
    fn as_client(&self) -> Result<Report> {
        let work = self.role("client")?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let spec = json!({
            "outdir": work.join("report"),
            "url": format!("ws://{address}"),
            "cases": ["*"],
            "exclude-cases": ["12.*", "13.*"],
            "exclude-agent-cases": {},
        });
        let mut suite = self.wstest(&work, "fuzzingserver", &spec)?;
        let cases = suite.said("Ok, will run ")?;
        let cases = cases.split(' ').next().unwrap_or_default().parse::<usize>()?;
        suite.listens(address)?;
        let mut urls: Vec<String> =
            (1..=cases).map(|case| format!("ws://{address}/runCase?case={case}&agent={AGENT}")).collect();
        urls.push(format!("ws://{address}/updateReports?agent={AGENT}&shutdownOnComplete=true"));
        // Each attempt takes the next url: every case once, then the report, which ends the suite.
        let mut host = self.host(
            &work,
            &format!(
                r#"
                [[pipelines]]
                name = "echo"
                source = {{ type = "websocket", url = {urls:?}, max_message_size = "64MiB", reconnect = {{ delay = "20ms", max_delay = "20ms", jitter = 0 }} }}
                sinks = [{{ type = "reply" }}]
                "#
            ),
        )?;
        suite.until("the suite's end", |suite| match host.child.try_wait()? {
            Some(status) => Err(format!("the host ended with {status}; see {}", host.log.display()).into()),
            None => Ok(suite.child.try_wait()?.map(drop)),
        })?;
        let report = Report::read(&work)?;
        if report.cases.len() == cases { Ok(report) } else { Err("a case has not ended in time".into()) }
    }

    fn role(&self, role: &str) -> Result<PathBuf> {
        say(&format!("running the suite against the host as a {role}"));
        let work = self.work.join(role);
        fs::create_dir_all(&work)?;
        Ok(work)
    }

    fn host(&self, work: &Path, config: &str) -> Result<Running> {
        fs::write(work.join("tidemill.toml"), config)?;
        let mut host = Command::new(&self.host);
        host.arg("run").current_dir(work);
        Running::start(&mut host, &work.join("host.log"))
    }

    fn wstest(&self, work: &Path, mode: &str, spec: &serde_json::Value) -> Result<Running> {
        let file = work.join("suite.json");
        fs::write(&file, spec.to_string())?;
        let mut suite = Command::new(self.suite.join("python"));
        suite.arg("-u").arg(self.suite.join("wstest")).args(["--webport", "0", "-m", mode, "-s"]).arg(file);
        Running::start(suite.current_dir(work), &work.join("suite.log"))
    }
}

/// A process that writes a log; dropping it ends it.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let file = fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().map_err(|error| format!("failed to run {command:?}: {error}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Looks again and again, for as long as the process runs.
    fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let has_ended = self.child.try_wait()?.is_some();
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            if has_ended || Instant::now() > deadline {
                return Err(format!("waited in vain for {what}; see {}", self.log.display()).into());
            }
            sleep(LOOK_INTERVAL);
        }
    }

    /// What follows `words` on the first line of the log that has them.
    fn said(&mut self, words: &str) -> Result<String> {
        self.until(words, |running| {
            let lines =
                BufReader::new(fs::File::open(&running.log)?).lines().map_while(std::result::Result::ok);
            let mut rests = lines.filter_map(|line| Some(line.split_once(words)?.1.to_owned()));
            Ok(rests.next())
        })
    }

    fn listens(&mut self, address: SocketAddr) -> Result {
        self.until("the suite to listen", |_| Ok(TcpStream::connect(address).ok().map(drop)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the suite found out, by case.
struct Report {
    cases: BTreeMap<Case, Found>,
}

/// The number of a case: `7.1.6`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Case(Vec<u32>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    behavior: String,
    behavior_close: String,
}

impl Report {
    fn read(work: &Path) -> Result<Self> {
        let file = work.join("report/index.json");
        let text = fs::read_to_string(&file)
            .map_err(|error| format!("the suite has left no {}: {error}", file.display()))?;
        let mut agents: BTreeMap<String, BTreeMap<String, Found>> = serde_json::from_str(&text)?;
        let cases = agents.remove(AGENT).ok_or("the suite has run no case")?;
        let cases = cases.into_iter().map(|(case, found)| Ok((Case::parse(&case)?, found)));
        Ok(Self { cases: cases.collect::<Result<_>>()? })
    }

    fn failed(&self) -> usize {
        self.cases.values().filter(|found| !found.has_passed()).count()
    }

    /// As Markdown: what became of the cases of each section, and those that are not simply OK.
    fn table(&self) -> String {
        let mut sections: BTreeMap<u32, [usize; 4]> = BTreeMap::new();
        for (case, found) in &self.cases {
            let verdict = if found.has_passed() { &*found.behavior } else { "FAILED" };
            let column = PASSED.iter().position(|passed| *passed == verdict).unwrap_or(PASSED.len());
            sections.entry(case.0[0]).or_default()[column] += 1;
        }
        let mut table =
            "| section | OK | NON-STRICT | INFORMATIONAL | failed |\n|---|---|---|---|---|\n".to_owned();
        for (section, [ok, non_strict, informational, failed]) in sections {
            let _ = writeln!(table, "| {section} | {ok} | {non_strict} | {informational} | {failed} |");
        }
        for (case, found) in
            self.cases.iter().filter(|(_, found)| found.behavior != "OK" || !found.has_passed())
        {
            let _ = writeln!(table, "{case}: {}, close {}", found.behavior, found.behavior_close);
        }
        table
    }
}

impl Case {
    fn parse(text: &str) -> Result<Self> {
        Ok(Self(text.split('.').map(str::parse).collect::<std::result::Result<_, _>>()?))
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let numbers: Vec<_> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

impl Found {
    fn has_passed(&self) -> bool {
        [&self.behavior, &self.behavior_close].iter().all(|verdict| PASSED.contains(&verdict.as_str()))
    }
}
