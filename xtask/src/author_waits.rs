//! `cargo xtask author-waits`: what the author of a plugin waits for in each language, until a new one is built, and in
//! `tidemill dev` until what was saved runs.
#![expect(clippy::print_stdout, reason = "the table is what the command is for")]

use crate::builtin::RECORDING;
use crate::tools::{Result, cargo, root, run, run_quietly, say, target};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};
use tidemill_authoring::Language;

/// What is changed in a source, to and fro: each template has it once.
const MEMBERS: [&str; 2] = ["/notional", "/worth"];
/// How long the machine has to itself before each save: what the one before has begun is done by then.
const REST: Duration = Duration::from_secs(5);

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only languages whose name contains this; may be given several times.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// How often a source is saved; the median is told.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    saves: u32,
}

/// Measures, and prints the rows of a table in Markdown.
///
/// # Errors
/// The host or a plugin does not build.
pub(crate) fn measure(args: &Args) -> Result {
    say("building the host; the first time this compiles wasmtime, which takes some minutes");
    run(cargo().args(["build", "--release", "--workspace", "--bin", "tidemill"]))?;
    let work = target().join("author-waits");
    println!("| language | new and first build | from a save until it runs |\n|---|--:|--:|");
    for language in Language::ALL {
        if !args.only.is_empty() && !args.only.iter().any(|only| language.name().contains(only.as_str())) {
            continue;
        }
        match fs::remove_dir_all(&work) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(&work)?,
        }
        say(&format!("a plugin in {}", language.title()));
        // What is fetched once is there before.
        make(&work, "first", language)?;
        let begun = Instant::now();
        make(&work, "fee", language)?;
        let first = begun.elapsed();
        let mut saves = saves(&work, args.saves)?;
        saves.sort();
        let median = saves[saves.len() / 2];
        println!("| {} | {:.1} s | {:.1} s |", language.title(), first.as_secs_f64(), median.as_secs_f64());
    }
    Ok(())
}

fn host(work: &Path) -> Command {
    let mut host = Command::new(target().join("release/tidemill"));
    host.current_dir(work).env("TIDEMILL_TOOLS", target().join("tools"));
    host
}

fn make(work: &Path, name: &str, language: Language) -> Result {
    run_quietly(host(work).args(["plugin", "new", name, "--lang", language.name()]))?;
    run_quietly(host(work).args(["plugin", "build", name]))
}

/// What it takes from each save until the new version runs, beside the recording of the demo.
fn saves(work: &Path, count: u32) -> Result<Vec<Duration>> {
    let mut dev = host(work);
    dev.args(["dev", "fee", "--feed"]).arg(root().join(RECORDING));
    let mut dev = dev.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let said = BufReader::new(dev.stderr.take().ok_or("it has no standard error")?);
    let measured = save(work, said, count);
    // It removes what it has written.
    run(Command::new("kill").arg(dev.id().to_string()))?;
    dev.wait()?;
    measured
}

fn save(work: &Path, said: BufReader<ChildStderr>, count: u32) -> Result<Vec<Duration>> {
    let mut lines = said.lines();
    let mut says = |words: &str| -> Result {
        for line in lines.by_ref() {
            let line = line?;
            match line {
                _ if line.contains(words) => return Ok(()),
                _ if line.starts_with("error: ") => return Err(line.into()),
                _ => {}
            }
        }
        Err(format!("tidemill dev has ended before it said: {words}").into())
    };
    says("fee runs on ")?;
    let main = main(&work.join("fee")).ok_or("no source has what is to be changed")?;
    let mut saves = Vec::new();
    let (mut from, mut to) = (MEMBERS[0], MEMBERS[1]);
    for _ in 0..count {
        std::thread::sleep(REST);
        let changed = fs::read_to_string(&main)?.replace(from, to);
        let begun = Instant::now();
        fs::write(&main, changed)?;
        says("fee runs in the new version")?;
        saves.push(begun.elapsed());
        std::mem::swap(&mut from, &mut to);
    }
    Ok(saves)
}

/// The source of a new plugin, in whichever language.
fn main(folder: &Path) -> Option<PathBuf> {
    let files = ["src/lib.rs", "plugin.js", "plugin.ts", "plugin.py", "plugin.go", "plugin.c"];
    let mut files = files.into_iter().map(|file| folder.join(file));
    files.find(|file| fs::read_to_string(file).is_ok_and(|text| text.contains(MEMBERS[0])))
}
