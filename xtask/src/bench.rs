//! `cargo xtask bench`: the host against reference relays, all in one run.
//!
//! Builds what takes part, runs every case of the matrix interleaved with the others, so that a
//! machine that slows down slows all of them, and reports medians and ratios. A run that others
//! disturbed is repeated. Figures of two runs of this command cannot be compared, ratios can.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command for a terminal")]

mod matrix;
mod table;

use crate::guests;
use crate::tools::cargo;
use matrix::{Case, Matrix};
use serde::Deserialize;
use std::error::Error;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// A run in which others used more of one processor than this is repeated, in percent.
const MAX_NOISE_PCT: f64 = 8.0;
/// So often; then the quietest counts.
const MAX_ATTEMPTS: usize = 4;
/// How long a run waits for a quiet machine.
const WAIT_QUIET_SECS: u32 = 30;

/// What is measured, and where the result goes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Short runs and few of them: to see that everything works.
    #[arg(long)]
    quick: bool,
    /// Runs of each case.
    #[arg(long, value_name = "N")]
    repetitions: Option<usize>,
    /// Only cases whose name contains this; may be given several times.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Only the reference relays: builds and runs no host.
    #[arg(long)]
    references: bool,
    /// Another build of the host that takes part in the same run: was it faster before a change?
    #[arg(long, value_name = "BINARY", conflicts_with_all = ["references", "write"])]
    baseline: Option<PathBuf>,
    /// Put the tables into docs/performance.md.
    #[arg(long)]
    write: bool,
    /// Measure the boundary between host and guest too (`cargo bench`).
    #[arg(long)]
    boundary: bool,
}

/// What one run of the load generator found.
#[derive(Clone, Debug, Deserialize)]
struct Run {
    msgs_s: f64,
    mb_s: f64,
    cpu_us: f64,
    relay_pct: f64,
    load_pct: f64,
    foreign_pct: f64,
    steal_pct: f64,
    switches_s: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    sent: u64,
    recv: u64,
    bad: u64,
    out_of_order: u64,
    missing: u64,
    rss_kb: u64,
    first_ms: Option<f64>,
}

impl Run {
    fn noise_pct(&self) -> f64 {
        self.foreign_pct + self.steal_pct
    }

    /// Whether every message came through, once and in order.
    fn is_exact(&self) -> bool {
        self.sent == self.recv && self.bad + self.out_of_order + self.missing == 0
    }
}

/// A case and its runs, one a repetition.
struct Measured {
    case: Case,
    runs: Vec<Run>,
}

/// Runs the benchmarks.
pub(crate) fn run(args: &Args) -> Result {
    let site = Site::prepare(args)?;
    let repetitions = args.repetitions.unwrap_or(if args.quick { 2 } else { 5 });
    let matrix = Matrix {
        host: !args.references,
        baseline: args.baseline.is_some(),
        node: site.node.is_some(),
        javascript: site.has_javascript,
        quick: args.quick,
    };
    let mut cases = matrix.cases();
    cases.retain(|case| args.only.is_empty() || args.only.iter().any(|only| case.name().contains(only)));
    let mut measured: Vec<Measured> =
        cases.into_iter().map(|case| Measured { case, runs: Vec::new() }).collect();
    let mut log = File::create(site.work.join("runs.jsonl"))?;
    for repetition in 1..=repetitions {
        for Measured { case, runs } in &mut measured {
            let run = site.measure_quietly(case, &mut log)?;
            eprintln!(
                "{repetition}/{repetitions}  {:<32} {:>9.0} msg/s  p99 {:>8.1} us  cpu {:>7.3} us  load {:>3.0} %  noise {:>4.1} %",
                case.name(),
                run.msgs_s,
                run.p99,
                run.cpu_us,
                run.load_pct,
                run.noise_pct()
            );
            runs.push(run);
        }
    }
    let tables = table::markdown(&measured, &site.description()?);
    println!("{tables}");
    if args.write {
        write_between_markers(&site.root.join("docs/performance.md"), &tables)?;
    }
    if args.boundary {
        finish(cargo().args(["bench", "--workspace", "--bench", "boundary"]))?;
    }
    let inexact = measured.iter().filter(|measured| !measured.runs.iter().all(Run::is_exact));
    let inexact: Vec<String> = inexact.map(|measured| measured.case.name()).collect();
    match inexact.is_empty() {
        true => Ok(()),
        false => Err(format!("messages were lost, repeated or changed by: {}", inexact.join(", ")).into()),
    }
}

/// The checkout, and what was built in it.
struct Site {
    root: PathBuf,
    /// Where cargo puts what it builds.
    target: PathBuf,
    /// Our own files in there: configurations, the host's cache, every run as JSON.
    work: PathBuf,
    /// The version of Node, if it is there.
    node: Option<String>,
    /// Whether the plugin in JavaScript is there.
    has_javascript: bool,
    /// The other build of the host.
    baseline: Option<PathBuf>,
}

impl Site {
    fn prepare(args: &Args) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("xtask is not in a checkout")?;
        let executable = std::env::current_exe()?;
        let target = executable.ancestors().nth(2).ok_or("xtask was not built by cargo")?;
        let work = target.join("bench");
        fs::create_dir_all(&work)?;
        eprintln!("building the load generator, the relays and the host");
        let mut build = cargo();
        build.args(["build", "--release", "--bins"]);
        match args.references {
            true => build.args(["--package", "tidemill-bench"]),
            // Packages built alone would want the dependencies with other features.
            false => build.arg("--workspace"),
        };
        finish(&mut build)?;
        let mut has_javascript = false;
        if !args.references {
            let all = target.join("plugins");
            finish(Command::new(&executable).args(["plugins", "-o"]).arg(&all))?;
            // A host loads all that is in its folder.
            let plugins = work.join("plugins");
            for pipeline in ["forward", "notional"] {
                let (folder, name) = (plugins.join(pipeline), format!("{pipeline}.wasm"));
                fs::create_dir_all(&folder)?;
                fs::copy(all.join(&name), folder.join(&name))?;
            }
            match guests::in_javascript(&root.join("benches/javascript/plugin.js"))? {
                Ok(component) => {
                    let folder = plugins.join("javascript");
                    fs::create_dir_all(&folder)?;
                    fs::write(folder.join("javascript.wasm"), component)?;
                    has_javascript = true;
                }
                Err(missing) => eprintln!("the plugin in JavaScript is left out: {missing}"),
            }
            for (name, text) in matrix::configurations(&plugins, &work.join("cache")) {
                fs::write(work.join(name), text)?;
            }
        }
        let node = prepare_node(&root.join("benches/node"), &target.join("bench-node"))?;
        // The relays run in another folder.
        let baseline = args.baseline.as_deref().map(fs::canonicalize).transpose()?;
        Ok(Self { root: root.into(), target: target.into(), work, node, has_javascript, baseline })
    }

    /// Measures a case until others left it alone.
    fn measure_quietly(&self, case: &Case, log: &mut File) -> Result<Run> {
        let mut quietest: Option<Run> = None;
        for _ in 0..MAX_ATTEMPTS {
            let run = self.measure(case, log)?;
            let noise_pct = run.noise_pct();
            if quietest.as_ref().is_none_or(|quietest| noise_pct < quietest.noise_pct()) {
                quietest = Some(run);
            }
            if noise_pct <= MAX_NOISE_PCT {
                break;
            }
        }
        quietest.ok_or_else(|| "no attempt was made".into())
    }

    fn measure(&self, case: &Case, log: &mut File) -> Result<Run> {
        let release = self.target.join("release");
        let mut load = Command::new(release.join("load"));
        load.args(["--name", &case.name()]).args(["--wait-quiet", &WAIT_QUIET_SECS.to_string()]);
        load.args(case.load_arguments()).arg("--relay").arg(case.relay_command(
            &release,
            &self.target,
            self.baseline.as_deref(),
        ));
        let output = load.current_dir(&self.work).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(format!("{} could not be measured", case.name()).into());
        }
        log.write_all(&output.stdout)?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The machine and the tools, in a line.
    fn description(&self) -> Result<String> {
        let processor = fs::read_to_string("/proc/cpuinfo")?;
        let model = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let model = model.map_or("an unnamed processor", |(_, model)| model.trim());
        let processors = std::thread::available_parallelism()?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let kernel = kernel.split('-').next().unwrap_or_default().trim();
        let rustc = version(Command::new("rustc").arg("--version"))?;
        let rustc = rustc.split_whitespace().nth(1).unwrap_or_default();
        let node = self.node.as_ref().map_or_else(String::new, |node| format!(", Node {node}"));
        Ok(format!("{model}, {processors} processors, Linux {kernel}, Rust {rustc}{node}"))
    }
}

/// Installs the Node relay; the version of Node, or `None` where it is not there.
fn prepare_node(from: &Path, to: &Path) -> Result<Option<String>> {
    let Ok(node) = version(Command::new("node").arg("--version")) else {
        eprintln!("node is not installed: its rows are left out");
        return Ok(None);
    };
    fs::create_dir_all(to)?;
    for file in ["relay.mjs", "package.json", "package-lock.json"] {
        fs::copy(from.join(file), to.join(file))?;
    }
    eprintln!("installing the Node relay");
    let installed = finish(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(to));
    if let Err(error) = installed {
        eprintln!("{error}: the rows of Node are left out");
        return Ok(None);
    }
    Ok(Some(node.trim_start_matches('v').to_owned()))
}

fn version(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?.trim().to_owned()),
        false => Err(format!("{:?} failed", command.get_program()).into()),
    }
}

fn finish(command: &mut Command) -> Result {
    let shown = format!("{} {:?}", command.get_program().display(), command.get_args().collect::<Vec<_>>());
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{shown} failed: {status}").into()),
        Err(error) => Err(format!("failed to start {shown}: {error}").into()),
    }
}

const BEGIN: &str = "<!-- bench: begin -->\n";
const END: &str = "<!-- bench: end -->";

/// Puts a text into the place that a page has for it.
///
/// # Errors
/// The page has none, or cannot be read or written.
pub(crate) fn write_between_markers(path: &Path, text: &str) -> Result {
    let document = fs::read_to_string(path)?;
    let replaced = between_markers(&document, text)
        .ok_or_else(|| format!("{} has no place for the tables: {BEGIN}{END}", path.display()))?;
    Ok(fs::write(path, replaced)?)
}

fn between_markers(document: &str, text: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{text}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_replace_what_was_between_the_markers() {
        let document = format!("head\n{BEGIN}old\n{END}\ntail\n");
        let replaced = between_markers(&document, "new").expect("both markers are there");
        assert_eq!(replaced, format!("head\n{BEGIN}\nnew\n{END}\ntail\n"));
        assert_eq!(between_markers("no markers", "new"), None);
    }
}
