//! The commands of a checkout: `cargo xtask COMMAND`.

mod bench;
mod guests;
mod plugins;
mod tools;

use clap::Parser;
use std::error::Error;
use std::path::PathBuf;

/// What one does in a checkout of Tidemill.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Measure the host against reference relays, in one run.
    Bench(bench::Args),
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
        Command::Bench(args) => bench::run(&args),
        Command::Guests(args) => guests::command(&args),
        Command::Plugins { out } => plugins::build(&out).map(drop),
    }
}
