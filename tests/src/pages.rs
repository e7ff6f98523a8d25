//! Pages of the documentation as something to do: the commands of a page, what they print, and the changes between them.
//!
//! Commands stand in blocks that are indented by four spaces. A block of `text` right behind them is what the last one
//! prints, where `...` stands for anything; one that begins with `error: ` is of a command that ends with 1. A block of
//! `diff` changes a file, and one of `toml` whose first line is a comment with a file's name writes that file.

use crate::host::{Host, binary};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What a reader of a page does, or compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A line for the shell, and what it prints, if the page says that.
    Command(String, Option<String>),
    /// A file, as it is written.
    File(String, String),
    /// A change of a file: the lines that are there, and those that take their place.
    Edit(String, String, String),
    /// A block of code in a language.
    Code(String, String),
}

/// The steps of a page of the checkout, in their order.
///
/// # Panics
/// If the page cannot be read, or a block of it does not end.
pub fn steps(page: &str) -> Vec<Step> {
    let text = fs::read_to_string(crate::root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
    let mut steps = Vec::new();
    let mut lines = text.lines();
    let mut before = "";
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let found = step(language, &block, &mut steps);
            steps.extend(found);
        } else if line.starts_with("    ") && (before.is_empty() || before.starts_with("    ")) {
            let mut command = line.trim().to_owned();
            while command.ends_with('\\') {
                command.pop();
                command.push_str(lines.next().expect("a command goes on").trim());
            }
            steps.push(Step::Command(command, None));
        }
        before = line;
    }
    steps
}

fn step(language: &str, block: &[&str], before: &mut [Step]) -> Option<Step> {
    let whole = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    match (language, before.last_mut(), block) {
        ("text", Some(Step::Command(_, says)), _) => {
            *says = Some(whole(block));
            None
        }
        ("toml", _, [first, ..]) if first.starts_with("# ") && first.ends_with(".toml") => {
            Some(Step::File(first[2..].to_owned(), whole(block)))
        }
        ("diff", _, [from, _, changed @ ..]) => {
            let of = |sign: char| {
                let lines = changed.iter().filter(|line| line.starts_with([' ', sign]));
                whole(&lines.map(|line| &line[1..]).collect::<Vec<_>>())
            };
            Some(Step::Edit(from.trim_start_matches("--- ").to_owned(), of('-'), of('+')))
        }
        _ => Some(Step::Code(language.to_owned(), whole(block))),
    }
}

/// A reader at work in a folder of their own, with `tidemill` on the path.
#[derive(Debug)]
pub struct Reader {
    folder: TempDir,
    variables: Vec<(String, String)>,
    host: Option<Host>,
}

impl Default for Reader {
    fn default() -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let tools = crate::tools().into_os_string().into_string().expect("the folder's name is text");
        let path = std::env::var("PATH").unwrap_or_default();
        let programs = binary().parent().expect("it is in a folder").display();
        let variables =
            [("PATH", format!("{programs}:{path}")), ("TIDEMILL_TOOLS", tools), ("PORT", "0".into())];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        Self { folder, variables: variables.into(), host: None }
    }
}

impl Reader {
    /// A path in the folder.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Sets a variable of the environment of all that is started from now on.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.push((name.to_owned(), value.into()));
    }

    /// Does what a step says. A host that is started is running then; other commands have ended.
    ///
    /// # Panics
    /// If it does not come out as the page says.
    pub fn take(&mut self, step: &Step) {
        match step {
            Step::Command(line, None)
                if line.split("  #").next().is_some_and(|line| line.trim() == "tidemill run") =>
            {
                self.start_host();
            }
            Step::Command(line, says) => self.run(line, says.as_deref()),
            Step::File(name, text) => fs::write(self.path(name), text).expect("the folder can be written"),
            Step::Edit(name, from, to) => {
                let old =
                    fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(old.matches(from.as_str()).count(), 1, "{name} has once:\n{from}\n{old}");
                fs::write(self.path(name), old.replace(from.as_str(), to))
                    .expect("the folder can be written");
            }
            Step::Code(language, text) => {
                assert!(is_in_a_file(self.folder.path(), text), "no file has this {language}:\n{text}");
            }
        }
    }

    fn run(&self, line: &str, says: Option<&str>) {
        let mut shell = Command::new("sh");
        shell
            .current_dir(self.folder.path())
            .envs(self.variables.iter().cloned())
            .args(["-c", &self.here(line)]);
        let output = shell.output().expect("there is a shell");
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let said = said.concat();
        let expected = says.is_some_and(|says| says.starts_with("error: "));
        assert_eq!(output.status.code(), Some(i32::from(expected)), "{line}\n{said}");
        for wanted in says.into_iter().flat_map(str::lines) {
            assert!(
                said.lines().any(|line| is_as(line, wanted)),
                "{line} does not say\n{wanted}\nbut\n{said}"
            );
        }
    }

    /// A line with the addresses of this reader's host in the place of those that hosts have by default.
    fn here(&self, line: &str) -> String {
        if self.host.is_none() || !line.contains("127.0.0.1:1008") {
            return line.to_owned();
        }
        let (admin, served) = (self.host().admin().to_string(), self.address().to_string());
        line.replace("127.0.0.1:10080", &admin).replace("127.0.0.1:10081", &served)
    }

    fn start_host(&mut self) {
        let mut command = Command::new(binary());
        command.current_dir(self.folder.path()).args(["run", "--log-format", "json"]);
        command.envs(self.variables.iter().cloned()).env("TIDEMILL_ADMIN", "127.0.0.1:0");
        let host = Host::start(&mut command).with_admin();
        // Whoever types the next command has seen this line.
        host.logged("a pipeline that runs", |fields| (fields["message"] == "pipeline running").then_some(()));
        self.set("TIDEMILL_ADMIN", host.admin().to_string());
        self.host = Some(host);
    }

    /// The host that runs.
    ///
    /// # Panics
    /// If none was started.
    pub fn host(&self) -> &Host {
        self.host.as_ref().expect("a host was started")
    }

    /// Where its WebSocket endpoints are.
    ///
    /// # Panics
    /// As [`Self::host`].
    pub fn address(&self) -> SocketAddr {
        self.host().listening("websocket")
    }

    /// Takes the host, which somebody else is to end.
    ///
    /// # Panics
    /// As [`Self::host`].
    pub fn take_host(&mut self) -> Host {
        self.host.take().expect("a host was started")
    }
}

/// Whether a line is as it is written, with anything in the place of each `...`, however wide its columns are.
fn is_as(line: &str, wanted: &str) -> bool {
    let narrow = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (line, wanted) = (narrow(line), narrow(wanted));
    let parts: Vec<&str> = wanted.split("...").collect();
    let mut rest = line.as_str();
    for (index, part) in parts.iter().enumerate() {
        let found = if index == 0 { rest.starts_with(part).then_some(0) } else { rest.find(part) };
        let Some(at) = found else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || wanted.ends_with("...")
}

/// Whether a file of the folder, which is no copy of an SDK, has this text.
fn is_in_a_file(folder: &Path, text: &str) -> bool {
    let entries =
        fs::read_dir(folder).expect("it can be listed").map(|entry| entry.expect("it can be listed").path());
    let mut entries = entries.filter(|path| !path.ends_with("sdk") && !path.ends_with("node_modules"));
    entries.any(|path| match path.is_dir() {
        true => is_in_a_file(&path, text),
        false => fs::read_to_string(&path).is_ok_and(|whole| whole.contains(text)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_anything_is_skipped_and_the_rest_is_compared() {
        for (line, wanted) in [
            ("plugin fee: swapped, 1a in the place of 2b", "plugin fee: swapped, ... in the place of ..."),
            ("error: a.c:1:2: no x here", "error: a.c:1:2: no x..."),
            ("a   b", "a b"),
        ] {
            assert!(is_as(line, wanted), "{line} {wanted}");
        }
        for (line, wanted) in [("a b c", "a b"), ("an error: x", "error: ..."), ("a", "a b")] {
            assert!(!is_as(line, wanted), "{line} {wanted}");
        }
    }
}
