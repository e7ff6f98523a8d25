//! What the tests of the whole host share: guests and plugins as files, and what it takes to run one.
//!
//! Guests in Rust and the shipped plugins are built on demand, by `cargo xtask`; guests in other
//! languages too where their tools are installed, which `cargo xtask guests` does. What cannot be
//! built is skipped by name; with `CI=true` it fails instead.

pub mod authority;
pub mod commands;
pub mod exchange;
mod folder;
pub mod host;
pub mod impostor;
mod log;
pub mod pages;
pub mod peers;
pub mod pipelines;
pub mod prometheus;
pub mod proxy;
pub mod scene;
pub mod sockets;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use tidemill::config::Limits;
use tidemill::message::metadata::{Metadata, Origin};
use tidemill::message::{Message, Payload};
use tidemill::plugin::{Engine, FirstAnswers, HostState, Plugin, PluginKind, Setup, StatePart};
use tidemill::telemetry::Metrics;

/// The file of a guest of `tests/guests`: `asking`, `asking-<language>`, `contract-<language>`, `counter-v1`,
/// `counter-v2`, `dialling`, `dialling-<language>`, `endings-go`, `endings-javascript`, `gap`, `hostile`, `minting`,
/// `moody`, `sleeper`, `steered`, `tally`, `trial-v1` or `trial-v2`; or the plugin of an example, which is named like its
/// folder. `None` if it is skipped; why, xtask has said on standard error.
///
/// # Panics
/// If it does not build.
pub fn guest(name: &str) -> Option<PathBuf> {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
        xtask(&["guests", "--installed"]);
        root().join("target/guests")
    });
    let file = BUILT.join(format!("{name}.wasm"));
    file.exists().then_some(file)
}

/// The file of a shipped plugin.
///
/// # Panics
/// If it does not build, or there is none of this name.
pub fn plugin(name: &str) -> PathBuf {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
        xtask(&["plugins"]);
        root().join("target/plugins")
    });
    let file = BUILT.join(format!("{name}.wasm"));
    assert!(file.exists(), "there is no plugin {name} in plugins/");
    file
}

/// What `cargo xtask guests` installs for a language, and `cargo xtask test` for the browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// A virtual environment.
    Python,
    /// A folder with `node_modules`.
    Node,
    /// The same, with what drives Chromium, which is there then.
    Browser,
}

/// The folder of a language's programs (Python) or packages (Node); `None`, which is said, where they
/// are not installed.
///
/// # Panics
/// If they are not installed and `CI=true`: there nothing is skipped.
pub fn tool(tool: Tool) -> Option<PathBuf> {
    let (name, folder) = match tool {
        Tool::Python => ("python", "bin"),
        Tool::Node => ("node", ""),
        Tool::Browser => ("browser", ""),
    };
    let tools = tools().join(name);
    if tools.join("installed").exists() {
        return Some(tools.join(folder));
    }
    is_to_skip(&format!("the tools of {name} are not installed; `cargo xtask test` does it"));
    None
}

/// The folder of all tools, each in one of its own.
pub fn tools() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("tools")
}

/// Says that a test is skipped, and why.
///
/// # Panics
/// If `CI=true`: there nothing is skipped.
#[expect(clippy::print_stderr, reason = "a skipped test says that it is, and why")]
pub fn is_to_skip(why: &str) -> bool {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
    eprintln!("skipped: {why}");
    true
}

/// Loads a file, with compiled code kept in `target/tests-cache` from one run to the next.
///
/// # Panics
/// If it is not a plugin.
pub fn load(file: &Path) -> Plugin {
    let name = file.file_stem().and_then(|name| name.to_str()).expect("guests have names");
    let wasm = std::fs::read(file).expect("guests can be read");
    engine().load(name, &wasm).expect("guests are plugins")
}

/// Loads a file as the host does that has no code of it: compiled to be there soon.
///
/// # Panics
/// If it is not a plugin.
pub fn load_quickly(file: &Path) -> Plugin {
    let name = file.file_stem().and_then(|name| name.to_str()).expect("guests have names").to_owned();
    let wasm = padded(file);
    // It gives up the priority of its thread.
    let compiling = std::thread::spawn(move || engine().load_standing_back(&name, &wasm));
    let plugin = compiling.join().expect("the compiler does not panic").expect("guests are plugins");
    assert!(!plugin.is_optimised(), "it is too small to be compiled twice");
    plugin
}

/// More than a plugin has that is optimised at once.
const PADDING_BYTES: u32 = 1 << 20;

/// What is in a component's file, and so much that it is a large one, though there is no more of it to compile.
///
/// # Panics
/// If the file cannot be read.
pub fn padded(file: &Path) -> Vec<u8> {
    let mut wasm = std::fs::read(file).expect("guests can be read");
    // A custom section: its length as four groups of seven bits, a name of one byte, and nothing that means anything.
    let length = PADDING_BYTES + 2;
    wasm.push(0);
    wasm.extend((0..4).map(|group| (length >> (7 * group)) as u8 & 0x7f | if group < 3 { 0x80 } else { 0 }));
    wasm.extend([1, b'x']);
    wasm.resize(wasm.len() + PADDING_BYTES as usize, 0);
    wasm
}

/// The engine that all tests of a process share.
///
/// # Panics
/// If this machine cannot run plugins.
pub fn engine() -> &'static Engine {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
        Engine::try_new(Some(&root().join("target/tests-cache").into())).expect("plugins run on this machine")
    });
    &ENGINE
}

/// What an instance is given, with this configuration and no state.
pub fn setup(config: &str) -> Setup {
    Setup {
        pipeline: "test".into(),
        transform: "guest".into(),
        kind: PluginKind::Transform,
        part: StatePart::WHOLE,
        config: config.into(),
        limits: Limits::default(),
        is_replay: false,
        state: HostState::default(),
        http: None,
        metrics: Metrics::default().guest("test", "guest"),
        is_shadow: false,
        retries: 5,
        first_answers: FirstAnswers::default(),
    }
}

/// Text messages without metadata, received one microsecond after the other, the first at 1.
pub fn texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Vec<Message> {
    let origin: Arc<Origin> = Arc::default();
    let message = |(text, time): (T, u64)| Message {
        payload: Payload::text(text.as_ref()),
        metadata: Metadata::new(origin.clone(), time),
    };
    texts.into_iter().zip(1..).map(message).collect()
}

/// The root of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of the checkout")
}

/// Whether `cargo xtask test` runs the tests, which has built everything before.
fn is_prepared() -> bool {
    std::env::var_os("TIDEMILL_TESTS_PREPARED").is_some()
}

/// Runs a task of the checkout that builds what tests need, unless that was done.
fn xtask(arguments: &[&str]) {
    if !is_prepared() {
        xtask_always(arguments);
    }
}

/// Runs a task of the checkout. cargo runs tests when it has given its locks back, so that it can be
/// called again.
///
/// # Panics
/// If it does not end well.
pub fn xtask_always(arguments: &[&str]) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut task = Command::new(cargo);
    task.current_dir(root()).args(["run", "--quiet", "--package", "xtask", "--"]).args(arguments);
    let status = task.status().expect("cargo can be run");
    assert!(status.success(), "cargo xtask {} ended with {status}", arguments.join(" "));
}
