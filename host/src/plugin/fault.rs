//! What went wrong in an instance, and what went wrong in loading a plugin.
//!
//! wasmtime's errors end here: what leaves this folder is a kind and a text for people.

use super::frames::{self, Frame};
use super::memory::GrowthRefusal;
use crate::config::Redacted;
use crate::foreign_text;
use std::time::Duration;
use wasmtime::{FrameInfo, Trap, WasmBacktrace};

/// The ways in which an instance fails: the `kind` label of `tidemill_plugin_faults_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// It trapped, or answered a call with an error.
    Trap,
    /// It ran longer than a call may.
    Deadline,
    /// It failed after it was refused memory.
    Memory,
    /// It returned more than a call may.
    Output,
    /// What it returned breaks the contract.
    Invalid,
    /// It could not be instantiated, or `init` failed or refused the configuration.
    Init,
    /// The call of `snapshot` failed.
    Snapshot,
    /// `restore` failed or refused the state.
    Restore,
}

impl FaultKind {
    /// The kind as the label `kind` of metrics has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Output => "output",
            Self::Invalid => "invalid",
            Self::Init => "init",
            Self::Snapshot => "snapshot",
            Self::Restore => "restore",
        }
    }
}

impl std::fmt::Display for FaultKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failed call. Unless the instance only said no, it is of no further use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Fault {
    /// What kind of failure.
    pub kind: FaultKind,
    /// What happened, for the person who reads the log or the dead letters.
    pub detail: String,
    /// Whether the guest returned, with an error: a refusal, not a crash.
    pub is_refusal: bool,
}

impl Fault {
    pub(crate) fn new(kind: FaultKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), is_refusal: false }
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(FaultKind::Invalid, detail)
    }

    /// The guest answered `function` with an error.
    pub(super) fn answered(function: &str, text: &str, refusal: Option<GrowthRefusal>) -> Self {
        let detail = format!("{function} failed: {text}");
        let fault = match refusal {
            Some(refusal) => Self::new(FaultKind::Memory, format!("{detail} ({refusal})")),
            None => Self::new(FaultKind::Trap, detail),
        };
        Self { is_refusal: true, ..fault }
    }

    /// The call of `function` did not return. `words` are what the guest said of it.
    pub(super) fn failed(
        function: &str,
        error: &wasmtime::Error,
        refusal: Option<GrowthRefusal>,
        words: Option<String>,
    ) -> Self {
        if error.chain().any(|cause| cause.to_string().contains(HOSTCALL_FUEL)) {
            let detail = format!("{function} handed more to the host than limits.output allows");
            return Self::new(FaultKind::Output, detail);
        }
        let cause = error.root_cause();
        if let Some(refusal) = refusal {
            let then = words.unwrap_or_else(|| cause.to_string());
            return Self::new(FaultKind::Memory, format!("{function} {refusal}; then: {then}"));
        }
        if error.downcast_ref::<Trap>().is_none() && error.downcast_ref::<WasmBacktrace>().is_none() {
            // The call came back, and what it returned could not be read out of its memory.
            return Self::invalid(format!("{function} returned what cannot be read: {cause}"));
        }
        let words = words.map_or_else(String::new, |words| format!("{words}; "));
        Self::new(FaultKind::Trap, format!("{words}{function}: {cause}{}", place(error)))
    }

    /// The call of `function` was ended since it ran longer than it may.
    pub(super) fn late(function: &str, deadline: Duration, error: &wasmtime::Error) -> Self {
        Self::new(FaultKind::Deadline, format!("{function} ran longer than {deadline:?}{}", place(error)))
    }

    /// The same, as it may be shown.
    pub(super) fn shown(self, config: &Redacted) -> Self {
        Self { detail: config.told(&self.detail), ..self }
    }

    /// The same failure in one of the calls that have a kind of their own.
    pub(super) fn of_kind(self, kind: FaultKind) -> Self {
        Self { kind, ..self }
    }
}

/// Where in the guest it was, as far as that is known.
fn place(error: &wasmtime::Error) -> String {
    let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames).unwrap_or_default();
    frames::shown(frames.iter().flat_map(named))
}

/// The functions of a frame, of which all but the last are part of that: their names and, where they are known, their
/// lines.
fn named(frame: &FrameInfo) -> Vec<Frame<'_>> {
    let symbols = frame.symbols().iter();
    let symbols = symbols
        .filter_map(|symbol| Some(Frame { name: symbol.name()?, place: symbol.file().zip(symbol.line()) }));
    let symbols: Vec<_> = symbols.collect();
    if symbols.is_empty() {
        return frame.func_name().map(|name| Frame { name, place: None }).into_iter().collect();
    }
    symbols
}

/// How wasmtime words that the limit of `set_hostcall_fuel` was reached; its error type is private.
const HOSTCALL_FUEL: &str = "fuel allocated for hostcalls has been exhausted";

/// Why the engine could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime does not run on this machine.
    #[error("failed to start the plugin engine: {0}")]
    Runtime(String),
    /// The folder of compiled code cannot be used.
    #[error("failed to use the plugin cache {path}: {reason}")]
    Cache {
        /// The path of the folder.
        path: crate::config::FilePath,
        /// What the system or the check said.
        reason: String,
    },
}

/// Why a file is not a plugin that can run here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to load plugin {plugin}: {problem}")]
pub struct LoadError {
    /// The name of the plugin.
    pub plugin: String,
    /// What is wrong with it.
    pub problem: LoadProblem,
}

/// What can be wrong with a plugin file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadProblem {
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// No WebAssembly at all.
    #[error("the file is not WebAssembly")]
    NotWasm,
    /// A module where a component is needed.
    #[error("the file is a core WebAssembly module, not a component")]
    CoreModule,
    /// It ends too early.
    #[error("the file is cut short: {0}")]
    Truncated(String),
    /// WebAssembly, but not valid.
    #[error("the component is not valid: {0}")]
    Malformed(String),
    /// Its functions are async.
    #[error("the component has functions that are async, and nothing in a plugin is")]
    Async,
    /// It made the compiler fail.
    #[error("the compiler failed on the component: {0}")]
    Uncompilable(String),
    /// It has neither a `transformer` nor a `dialler`.
    #[error("the component exports no tidemill:plugin/transformer and no tidemill:plugin/dialler, but {0}")]
    NoPlugin(String),
    /// It has one of a contract that this host does not speak.
    #[error("the component exports {0}, this host speaks tidemill:plugin@{version}", version = super::CONTRACT_VERSION)]
    OtherContract(String),
    /// It has one whose functions are not the contract's.
    #[error("what the component exports does not match the contract: {0}")]
    Mismatch(String),
    /// It needs what nobody here provides.
    #[error("the component imports what this host does not provide: {0}")]
    MissingImports(String),
}

impl LoadProblem {
    /// What the words of a reader of WebAssembly come to that has found it invalid.
    pub(super) fn invalid(text: String) -> Self {
        // A section that says that it is longer than what is left is at the end of half a file.
        let ends_in_a_section = text.contains("section range") && text.contains("out of bounds");
        if ends_in_a_section || text.contains("unexpected end") {
            Self::Truncated(text)
        } else {
            Self::Malformed(text)
        }
    }

    /// The same, as it may be shown: much of it are names that the file has.
    pub(super) fn shown(mut self) -> Self {
        match &mut self {
            Self::Empty | Self::NotWasm | Self::CoreModule | Self::Async => {}
            Self::Truncated(text)
            | Self::Malformed(text)
            | Self::Uncompilable(text)
            | Self::NoPlugin(text)
            | Self::OtherContract(text)
            | Self::Mismatch(text)
            | Self::MissingImports(text) => *text = foreign_text::shown(text),
        }
        self
    }
}

impl LoadError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match &self.problem {
            LoadProblem::Empty | LoadProblem::Truncated(_) => {
                Some("was it still being written? move finished files into the folder")
            }
            LoadProblem::NotWasm => Some("a plugin is a WebAssembly component, a `.wasm` file"),
            LoadProblem::CoreModule => Some(
                "`tidemill plugin build` makes a component; so do wasm-component-ld and `wasm-tools component new`",
            ),
            LoadProblem::Async => {
                Some("make them synchronous: what a plugin asks of the host is there when the call returns")
            }
            LoadProblem::Malformed(_) | LoadProblem::Uncompilable(_) => {
                Some("build it again with a released toolchain")
            }
            LoadProblem::NoPlugin(_) | LoadProblem::Mismatch(_) => {
                Some("build it for the world `transform` of wit/transform.wit, or for `connector`")
            }
            LoadProblem::OtherContract(_) => Some("build it with the SDK of this host's version"),
            LoadProblem::MissingImports(_) => {
                Some("a plugin may import the interfaces of tidemill:plugin and wasi:cli with its kin")
            }
        }
    }
}
