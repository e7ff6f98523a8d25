//! The commands of a checkout: `cargo xtask COMMAND`.

mod author_waits;
mod bench;
mod builtin;
mod conformance;
mod demo;
mod deny;
mod dist;
mod guests;
mod plugin_costs;
mod plugins;
mod test;
mod tools;

use clap::Parser;
use std::error::Error;
use std::path::PathBuf;

/// What one does in a checkout of Tidemill.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Replay the recorded exchange, run the host on it, show and serve live one-minute VWAP.
    Demo {
        /// Passed on to `tidemill demo`: `--once`, `--speed N|max`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Install a `tidemill` that needs nothing else: the shipped plugins and the demo are built in.
    Install {
        /// Passed on to `cargo install`: `--root DIR`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build what is published: a static binary, packed as an archive and for Debian.
    Dist(dist::Args),
    /// Check licences, sources and versions of all dependencies.
    Deny,
    /// Run all tests, after installing and building what they need.
    Test {
        /// Passed on to `cargo test`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure the host against reference relays, in one run.
    Bench(bench::Args),
    /// Measure what each shipped plugin takes for a message of the demo's recording, and print a table.
    PluginCosts(plugin_costs::Args),
    /// Measure what an author waits for in each language: for a new plugin, and for what was saved to run.
    AuthorWaits(author_waits::Args),
    /// Run the Autobahn test suite against the host, as a server and as a client.
    Conformance,
    /// Build the guests of the tests.
    Guests(guests::Args),
    /// Build the plugins that come with Tidemill.
    Plugins {
        /// The folder that they are put in.
        #[arg(short, long, value_name = "DIR", default_value = "target/plugins")]
        out: PathBuf,
    },
}

fn main() -> Result<(), Box<dyn Error>> {
    match Command::parse() {
        Command::Demo { arguments } => demo::run_demo(&arguments),
        Command::Install { arguments } => builtin::install(&arguments),
        Command::Dist(args) => dist::run_dist(&args),
        Command::Deny => deny::check(),
        Command::Test { arguments } => test::run_tests(&arguments),
        Command::Bench(args) => bench::run(&args),
        Command::PluginCosts(args) => plugin_costs::measure(&args),
        Command::AuthorWaits(args) => author_waits::measure(&args),
        Command::Conformance => conformance::run(),
        Command::Guests(args) => guests::command(&args),
        Command::Plugins { out } => plugins::build(&out).map(drop),
    }
}
