//! `tidemill plugin test`: the tests of a plugin in its own language, and its recorded cases: what comes out of the
//! component for `cases/NAME.in.jsonl` is compared with `cases/NAME.out.jsonl`, line by line.

use super::build::{Built, NotBuilt, PluginFolder, build, near, progress, scratch};
use super::single::{AlonePlugin, PIPELINE, PluginOptions};
use crate::cli::scratch::Scratch;
use crate::cli::{Exit, answer, block_on, complain};
use crate::config::{DEAD_LETTER, FilePath, Format, Outputs};
use crate::pipeline::{self, Parts, Persistence};
use crate::plugin::PluginKind;
use crate::sink::lines as line_sink;
use crate::source;
use crate::telemetry::Metrics;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tidemill_authoring::{Effort, Project};

/// What the files of a case end in.
const INPUT: &str = ".in.jsonl";
/// Different lines of a case that are shown.
const MOST_DIFFERENT: usize = 20;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PluginTest {
    #[command(flatten)]
    folder: PluginFolder,
    /// Write what comes out into the cases, in the place of what was expected.
    #[arg(long)]
    update: bool,
    /// What the plugin may ask for over HTTP in its cases, as an entry of `allow`; can be given again.
    #[arg(long, value_name = "ENTRY")]
    allow: Vec<String>,
}

/// Recorded input, and what is expected of it.
struct RecordedCase {
    name: String,
    input: PathBuf,
    output: PathBuf,
    /// What the plugin is given.
    options: PluginOptions,
}

/// What came of a case.
struct CaseOutcome {
    lines: Vec<String>,
    /// Messages that were rejected, or failed.
    failed: Vec<FailedMessage>,
}

/// A message that did not come out.
struct FailedMessage {
    /// The plugin did not reject it: it has met a fault.
    is_fault: bool,
    why: String,
}

impl PluginTest {
    pub(super) fn execute(self, is_verbose: bool) -> Exit {
        block_on(|shutdown| async move {
            let tested = tokio::select! {
                biased;
                () = shutdown.requested() => return Exit::Interrupted,
                tested = self.run() => tested,
            };
            match tested {
                Ok((text, exit)) => answer(&text, exit),
                Err(error) => {
                    error.complain(is_verbose);
                    Exit::Failure
                }
            }
        })
    }

    async fn run(self) -> Result<(String, Exit), NotBuilt> {
        let Self { folder, update, allow } = self;
        // It may take its time: it has a thread of its own, which a signal does not wait for.
        let native = tokio::task::spawn_blocking(move || test_natively(&folder));
        let (project, built) = native.await.map_err(|error| NotBuilt::of(error.to_string()))??;
        let mut text = format!("the tests in {} pass\n", project.language().title());
        if built.inspection.kind == Some(PluginKind::Connector) {
            text.push_str("a connector sees no messages, and has no cases\n");
            return Ok((text, Exit::Success));
        }
        let cases = cases(project.folder(), &allow).map_err(NotBuilt::of)?;
        if cases.is_empty() {
            text.push_str("there are no cases: a file cases/NAME.in.jsonl has a message a line\n");
            return Ok((text, Exit::Success));
        }
        match try_all((project.name(), built.wasm), &cases, update).await {
            Ok((told, exit)) => Ok((text + &told, exit)),
            // Only an error of the command itself ends it before all cases are told.
            Err(error) => {
                complain(error);
                Ok((text, Exit::Failure))
            }
        }
    }
}

/// Runs the tests of a plugin in its own language, and then builds it.
fn test_natively(folder: &PluginFolder) -> Result<(Project, Built), NotBuilt> {
    let scratch = scratch()?;
    let (project, tools) = folder.open(&scratch)?;
    project.test(&tools, &progress)?;
    let built = build(&project, Effort::Full, &tools)?;
    Ok((project, built))
}

async fn try_all(
    (name, wasm): (&str, Vec<u8>),
    cases: &[RecordedCase],
    is_update: bool,
) -> Result<(String, Exit), String> {
    let plugin = AlonePlugin::load(name, wasm).await?;
    let scratch = Scratch::try_new("test")?;
    let (mut text, mut exit) = (String::new(), Exit::Success);
    for case in cases {
        let outcome = match case.run(&plugin, scratch.path()).await {
            Ok(outcome) => outcome,
            Err(error) => {
                let _ = writeln!(text, "case {}: {error}", case.name);
                exit = Exit::Failure;
                continue;
            }
        };
        if is_update {
            let _ = writeln!(text, "{}", case.update(&outcome)?);
        } else {
            let (told, is_same) = case.compare(&outcome)?;
            text.push_str(&told);
            if !is_same {
                exit = Exit::Failure;
            }
        }
        for failed in &outcome.failed {
            let _ = writeln!(text, "  {}", failed.why);
            if failed.is_fault {
                exit = Exit::Failure;
            }
        }
    }
    Ok((text, exit))
}

/// The cases of a plugin, by name.
fn cases(folder: &Path, allow: &[String]) -> Result<Vec<RecordedCase>, String> {
    let folder = folder.join("cases");
    let failed = |path: &Path, error: std::io::Error| format!("failed to read {}: {error}", path.display());
    let listed = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(|error| failed(&folder, error))?,
    };
    let mut cases = Vec::new();
    for entry in listed {
        let file = entry.map_err(|error| failed(&folder, error))?.file_name();
        let Some(name) = file.to_str().and_then(|file| file.strip_suffix(INPUT)) else { continue };
        let path = folder.join(format!("{name}.config.json"));
        let config = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => "{}".to_owned(),
            read => read.map_err(|error| failed(&path, error))?,
        };
        serde_json::from_str::<Value>(&config)
            .map_err(|error| format!("{}: not JSON: {error}", path.display()))?;
        let (input, output) = (folder.join(&file), folder.join(format!("{name}.out.jsonl")));
        let options = PluginOptions::of_case(&config, allow);
        cases.push(RecordedCase { name: name.to_owned(), input, output, options });
    }
    cases.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(cases)
}

impl RecordedCase {
    /// What comes out for the input.
    async fn run(&self, plugin: &AlonePlugin, folder: &Path) -> Result<CaseOutcome, String> {
        let metrics = Metrics::default();
        let (out, dead) = (folder.join("out.jsonl"), folder.join("dead.jsonl"));
        let failed = |error: std::io::Error| format!("failed to open the files of the case: {error}");
        let source =
            source::lines::file(&FilePath::plain(&self.input), Format::Jsonl, None).await.map_err(failed)?;
        let sink = metrics.sink(PIPELINE, "out");
        let sink =
            line_sink::file(&FilePath::plain(&out), Format::Jsonl, false, sink).await.map_err(failed)?;
        let rejected = metrics.sink(PIPELINE, DEAD_LETTER);
        let rejected =
            line_sink::file(&FilePath::plain(&dead), Format::Jsonl, false, rejected).await.map_err(failed)?;
        let transform = plugin.start(&self.options, &metrics).await.map_err(|(_, error)| error)?;
        let parts = Parts {
            name: PIPELINE.into(),
            source,
            transforms: vec![transform],
            sinks: vec![("out".into(), Outputs::All, sink)],
            dead_letter: Some(rejected),
            kept: None,
            persistence: Persistence::GivesUp,
            durable: None,
        };
        let (line, _control) = pipeline::build(parts, &metrics);
        super::single::outcome(line.run(|| ()).await)?;
        let read = |path: &Path| fs::read_to_string(path).map_err(failed);
        Ok(CaseOutcome {
            lines: lines(&read(&out)?),
            failed: read(&dead)?.lines().map(FailedMessage::of_letter).collect(),
        })
    }

    fn update(&self, outcome: &CaseOutcome) -> Result<String, String> {
        let text: String = outcome.lines.iter().map(|line| format!("{line}\n")).collect();
        if fs::read_to_string(&self.output).is_ok_and(|is| is == text) {
            return Ok(format!("case {}: as it was", self.name));
        }
        let written = fs::write(&self.output, text);
        written.map_err(|error| format!("failed to write {}: {error}", self.output.display()))?;
        Ok(format!("case {}: {} is written, {}", self.name, near(&self.output), counted(outcome.lines.len())))
    }

    /// Says whether what came out is what was expected, and where it is not.
    fn compare(&self, outcome: &CaseOutcome) -> Result<(String, bool), String> {
        let expected = match fs::read_to_string(&self.output) {
            Ok(text) => lines(&text),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let told = format!(
                    "case {}: there is no {}\n  hint: `--update` writes it\n",
                    self.name,
                    near(&self.output)
                );
                return Ok((told, false));
            }
            Err(error) => return Err(format!("failed to read {}: {error}", self.output.display())),
        };
        let differences = differences(&expected, &outcome.lines);
        if differences.is_empty() {
            return Ok((format!("case {}: {}, as expected\n", self.name, counted(expected.len())), true));
        }
        let mut told = format!("case {}: not as {} says\n", self.name, near(&self.output));
        for difference in differences.iter().take(MOST_DIFFERENT) {
            let _ = writeln!(told, "  {difference}");
        }
        if differences.len() > MOST_DIFFERENT {
            let _ = writeln!(told, "  ... and {} more", differences.len() - MOST_DIFFERENT);
        }
        Ok((told, false))
    }
}

fn counted(lines: usize) -> String {
    if lines == 1 { "1 line".to_owned() } else { format!("{lines} lines") }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

impl FailedMessage {
    /// What a dead letter says of it.
    fn of_letter(letter: &str) -> Self {
        let letter: Value = serde_json::from_str(letter).unwrap_or_default();
        let text = |key: &str| letter[key].as_str().unwrap_or_default();
        let why = format!("{}: {} ({})", text("reason"), text("detail"), text("payload"));
        Self { is_fault: text("reason") != "rejected", why }
    }
}

/// The lines that are not the same, each with its number: what lies between those that both begin and end with.
fn differences(expected: &[String], got: &[String]) -> Vec<String> {
    let same = |pair: &(&String, &String)| pair.0 == pair.1;
    let start = expected.iter().zip(got).take_while(same).count();
    let (expected, got) = (&expected[start..], &got[start..]);
    let end = expected.iter().rev().zip(got.iter().rev()).take_while(same).count();
    let (expected, got) = (&expected[..expected.len() - end], &got[..got.len() - end]);
    let mut differences = Vec::new();
    for index in 0..expected.len().max(got.len()) {
        let (expected, got) = (expected.get(index), got.get(index));
        if expected == got {
            continue;
        }
        let number = start + index + 1;
        differences.extend(expected.map(|line| format!("line {number} expected  {line}")));
        differences.extend(got.map(|line| format!("line {number} got       {line}")));
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn differ(expected: &str, got: &str, wanted: &[&str]) {
        let split = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(differences(&split(expected), &split(got)), wanted);
    }

    #[test]
    fn lines_are_compared_and_one_that_is_missing_moves_no_other() {
        differ("a b c", "a b c", &[]);
        differ("", "", &[]);
        differ("a b c", "a x c", &["line 2 expected  b", "line 2 got       x"]);
        differ("a b c", "a c", &["line 2 expected  b"]);
        differ("a c", "a b c", &["line 2 got       b"]);
        differ("a a", "a", &["line 2 expected  a"]);
        differ("", "a b", &["line 1 got       a", "line 2 got       b"]);
    }
}
