//! The command line: what can be typed, and what it means.
//!
//! Each command is a file that turns its arguments into calls of the layers below, and their result into
//! an [`Exit`]. Only here anything is printed, and only here the process ends.

mod arguments;
mod check;
mod connections;
mod dead_letters;
mod demo;
mod exit;
mod health;
mod init;
mod man;
mod part;
mod pipelines;
mod plugin;
mod plugins;
mod probe;
mod readable;
mod record;
mod reload;
mod replay;
mod run;
mod running_host;
mod schema;
mod scratch;
mod shape;
mod signals;
mod speed;
mod state;
mod table;
mod versions;

pub use exit::Exit;
pub(crate) use replay::{Recording, replay};
pub use speed::Speed;

use crate::config::{self, ConfigErrors, Environment, Loaded};
use crate::plugin::{CONTRACT_VERSION, WASMTIME_VERSION};
use crate::shutdown::Shutdown;
use crate::telemetry::{LogFormat, flush_log, init_log, say};
use clap::{Parser, Subcommand, ValueEnum};
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// How long the end of the process waits for its last words to be read: not at all by those who have
/// stopped reading.
const LOG_PATIENCE: Duration = Duration::from_millis(250);

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let version = env!("CARGO_PKG_VERSION");
    format!("{version}\nplugin contract {CONTRACT_VERSION}\nwasmtime {WASMTIME_VERSION}")
});

/// Runs WebAssembly plugins on WebSocket feeds.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version = VERSION.as_str(), max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
    /// Log more.
    #[arg(short, long, global = true)]
    verbose: bool,
    /// How log lines are written to standard error.
    #[arg(long, global = true, value_enum, default_value = "text", value_name = "FORMAT")]
    log_format: LogFormatArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormatArg {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run the pipelines of a configuration.
    Run(run::Run),
    /// Say what is wrong with a configuration, and with the plugins it names.
    #[command(visible_alias = "validate")]
    Check(check::CheckArgs),
    /// Write a first configuration, with comments.
    Init(init::Init),
    /// Print what the configuration file can have: its JSON Schema.
    Schema(schema::Schema),
    /// List plugins: those of a running host, or those that a configuration can name.
    Plugins(plugins::PluginsArgs),
    /// Send a new version of a plugin to a running host, and say what became of it.
    Swap(versions::SwapArgs),
    /// Have an earlier version of a plugin run again in a running host.
    Rollback(versions::RollbackArgs),
    /// Work with a plugin.
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    /// Show and clear what plugins know.
    #[command(subcommand)]
    State(state::StateCommand),
    /// Show and change the pipelines of a running host.
    #[command(subcommand)]
    Pipelines(pipelines::PipelinesCommand),
    /// Show, close and try the connections of a running host.
    Connections(connections::ConnectionsArgs),
    /// Show and retry the messages that failed in a running host.
    #[command(subcommand, name = "deadletter")]
    DeadLetter(dead_letters::DeadLetterCommand),
    /// Dial a WebSocket server once, and say what happened.
    Probe(probe::Probe),
    /// Write the messages of a WebSocket server to a file.
    Record(record::Record),
    /// Serve a recording as a WebSocket server, from its start to every peer.
    Replay(replay::Replay),
    /// Replay a recorded exchange, run the host on it, show and serve live one-minute VWAP.
    Demo(demo::Demo),
    /// Run a plugin on a feed while it is written: what is saved is built and swapped in, and messages are shown
    /// before and after.
    Dev(plugin::Dev),
    /// Have a running host read its configuration file again: what has changed takes over while the rest goes on.
    Reload(reload::ReloadArgs),
    /// Ask a running host whether it is well.
    Health(health::Health),
    /// Print a script that completes commands in a shell.
    Completions(man::Completions),
    /// Print the manual page.
    Man(man::Man),
}

/// Does what the command line of the process says.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            // What is wrong, the help, or the version.
            let printed = told.print();
            return if told.use_stderr() { Exit::Usage } else { answered(printed, Exit::Success) }.into();
        }
    };
    let format = match cli.log_format {
        LogFormatArg::Text => LogFormat::Text,
        LogFormatArg::Json => LogFormat::Json,
    };
    if let Err(error) = init_log(format, cli.verbose) {
        complain(error);
        return Exit::Usage.into();
    }
    let exit = match cli.command {
        CliCommand::Run(run) => run.execute(),
        CliCommand::Check(check) => check.execute(),
        CliCommand::Init(init) => init.execute(),
        CliCommand::Schema(schema) => schema.execute(),
        CliCommand::Plugins(plugins) => plugins.execute(),
        CliCommand::Swap(swap) => swap.execute(),
        CliCommand::Rollback(rollback) => rollback.execute(),
        CliCommand::Plugin(plugin) => plugin.execute(cli.verbose),
        CliCommand::State(state) => state.execute(),
        CliCommand::Pipelines(pipelines) => pipelines.execute(),
        CliCommand::Connections(connections) => connections.execute(),
        CliCommand::DeadLetter(dead_letters) => dead_letters.execute(),
        CliCommand::Probe(probe) => probe.execute(),
        CliCommand::Record(record) => record.execute(),
        CliCommand::Replay(replay) => replay.execute(),
        CliCommand::Demo(demo) => demo.execute(),
        CliCommand::Dev(dev) => dev.execute(cli.verbose),
        CliCommand::Reload(reload) => reload.execute(),
        CliCommand::Health(health) => health.execute(),
        CliCommand::Completions(completions) => completions.execute(),
        CliCommand::Man(man) => man.execute(),
    };
    // Of threads that nobody waits for.
    scratch::remove_all();
    flush_log(LOG_PATIENCE);
    exit.into()
}

/// Runs the body of a command on a runtime, with a shutdown that signals request.
fn block_on<F: Future<Output = Exit>>(body: impl FnOnce(Shutdown) -> F) -> Exit {
    block_on_within(None, None, body)
}

/// Likewise; if the shutdown has a grace period, the process ends soon after it, whatever hangs. SIGHUP rings `reload`
/// where there is one, and is a wish to stop elsewhere.
fn block_on_within<F: Future<Output = Exit>>(
    grace: Option<Duration>,
    reload: Option<Arc<Notify>>,
    body: impl FnOnce(Shutdown) -> F,
) -> Exit {
    let shutdown = Shutdown::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let (runtime, signals) = match runtime.and_then(|runtime| {
        let signals = signals::SignalWatch::start(shutdown.clone(), grace, reload)?;
        Ok((runtime, signals))
    }) {
        Ok(started) => started,
        Err(error) => {
            complain(format!("failed to start: {error}"));
            return Exit::Failure;
        }
    };
    let exit = runtime.block_on(body(shutdown));
    // Nothing waits for a thread that cannot be interrupted.
    runtime.shutdown_background();
    drop(signals);
    exit
}

/// Does the work of a command on a thread of its own, and has it told. The first signal ends the command, wherever that
/// thread is then.
fn block_on_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    told: impl FnOnce(T) -> Exit,
) -> Exit {
    block_on(|shutdown| async move {
        tokio::select! {
            biased;
            () = shutdown.requested() => Exit::Interrupted,
            // What panics there was told by the panic.
            done = tokio::task::spawn_blocking(work) => done.map_or(Exit::Failure, told),
        }
    })
}

/// Reads the configuration file, or says what is wrong with it.
fn load(file: &Path) -> Result<Loaded, ConfigErrors> {
    config::load(file, &environment())
}

/// The variables of the process that are text.
fn environment() -> Environment {
    let variables = std::env::vars_os();
    let text =
        variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    text.collect()
}

/// Writes the answer of a command to standard output, and says how the command ends that was to end so.
fn answer(text: &str, exit: Exit) -> Exit {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    drop(stdout);
    answered(written, exit)
}

/// How a command ends whose answer was written so. Whoever closed the pipe wants no more of it, which is no
/// failure; an answer that is lost otherwise is one.
fn answered(written: io::Result<()>, exit: Exit) -> Exit {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(format!("failed to write to standard output: {error}"));
            if exit == Exit::Success { Exit::Failure } else { exit }
        }
        Ok(()) | Err(_) => exit,
    }
}

/// Says what went wrong, on standard error.
fn complain(error: impl Display) {
    // Where nobody listens, the exit code remains.
    say(&format!("error: {error}\n"), LOG_PATIENCE);
}

/// Says something on standard error as it is, however long it takes somebody to read it.
fn tell(text: impl Display) {
    flush_log(LOG_PATIENCE);
    let _ = write!(io::stderr(), "{text}");
}

/// Whether standard error is a terminal, which understands colours.
fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// This port of the loopback address, or another if it is taken.
async fn free_port(wanted: u16) -> io::Result<u16> {
    let listener = match TcpListener::bind(("127.0.0.1", wanted)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(("127.0.0.1", 0)).await?,
    };
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_version_says_the_contracts_and_the_runtimes_too() {
        let version = Cli::command().render_version();
        assert!(version.contains(&format!("plugin contract {CONTRACT_VERSION}")), "{version}");
        assert!(version.contains(&format!("wasmtime {WASMTIME_VERSION}")), "{version}");
    }

    #[test]
    fn what_is_documented_can_be_typed() {
        let lines = [
            "tidemill run",
            "tidemill run -c other.toml --grace 10s -v --log-format json",
            "tidemill run --watch",
            "tidemill reload --dry-run --json --admin 127.0.0.1:10080 --token t",
            "tidemill check -c other.toml --json",
            "tidemill check --connect",
            "tidemill validate",
            "tidemill plugin new fee --lang python",
            "tidemill plugin new fee --lang c --kind connector",
            "tidemill plugin build fee -o fee.wasm",
            "tidemill dev fee",
            "tidemill dev --feed wss://example.com/stream --config {\"above\":1}",
            "tidemill dev --feed in.jsonl --speed max --allow https://a.example",
            "tidemill plugin test --update",
            "tidemill plugin run vwap.wasm --config {\"window\":\"1s\"}",
            "tidemill plugin run x.wasm --allow https://a.example --allow https://b.example --http {\"timeout\":\"1s\"}",
            "tidemill plugin run x.wasm --format recording",
            "tidemill plugin run x.wasm --text {\"price\":1} --text -1",
            "tidemill plugin run x.wasm --diff y.wasm",
            "tidemill plugin bench x.wasm --input in.jsonl.gz --config {\"above\":1} --json",
            "tidemill plugin inspect vwap.wasm --json",
            "tidemill probe wss://example.com/x?y=z --header X-Key:1 --header a:b --subprotocol v1 --json",
            "tidemill record wss://example.com -o out.jsonl.gz --count 10 --for 10m",
            "tidemill record wss://example.com -o out.jsonl --plugin x.wasm --allow https://a.example",
            "tidemill replay in.jsonl.gz --listen 127.0.0.1:9001 --speed max --once",
            "tidemill replay in.jsonl.gz --speed 2.5",
            "tidemill demo --once --speed max",
            "tidemill demo --recording a.jsonl --recording b.jsonl --plugins p",
            "tidemill init",
            "tidemill init --server -c other.toml",
            "tidemill plugins --json",
            "tidemill state list --json --admin 127.0.0.1:10080 --token t",
            "tidemill state list p -c other.toml",
            "tidemill state export p vwap",
            "tidemill state clear p",
            "tidemill pipelines list --json --admin 127.0.0.1:10080 --token t",
            "tidemill pipelines show p",
            "tidemill pipelines add p.toml",
            "tidemill pipelines remove p",
            "tidemill pipelines start p",
            "tidemill pipelines stop p",
            "tidemill connections --json",
            "tidemill connections list",
            "tidemill connections close c1",
            "tidemill connections check source.toml",
            "tidemill deadletter list --pipeline p --reason rejected",
            "tidemill deadletter show x-1",
            "tidemill deadletter retry x-1 x-2",
            "tidemill deadletter retry --all --pipeline p --reason trap --rate 2.5 --dry-run --json",
            "tidemill deadletter retry --file dead.jsonl --rate 10",
            "tidemill plugins --swaps --json",
            "tidemill swap vwap.wasm --name v --state fresh --shadow 100 --probation 5m --json",
            "tidemill rollback vwap --to sha256:12ab",
            "tidemill schema --markdown",
            "tidemill health --ready --admin 127.0.0.1:10080 --timeout 1s",
            "tidemill completions zsh",
            "tidemill man -o pages",
        ];
        for line in lines {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in [
            "tidemill",
            "tidemill run --grace 10",
            "tidemill state clear",
            "tidemill swap",
            "tidemill swap a.wasm --state old",
            "tidemill swap a.wasm --probation 5",
            "tidemill rollback",
            "tidemill plugins --swaps -c tidemill.toml",
            "tidemill pipelines show",
            "tidemill deadletter list --reason ejected",
            "tidemill deadletter retry",
            "tidemill deadletter retry --all x-1",
            "tidemill deadletter retry --all --file dead.jsonl",
            "tidemill deadletter retry --all --rate 0",
            "tidemill probe http://example.com",
            "tidemill probe ws:///path",
            "tidemill probe ws://example.com --header nameless",
            "tidemill replay x --speed 0",
            "tidemill plugin run x --config {",
            "tidemill plugin bench x",
            "tidemill plugin run x --text a --format recording",
            "tidemill plugin new fee",
            "tidemill plugin new fee --lang cobol",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
