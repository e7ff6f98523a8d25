//! The commands of a checkout: `cargo xtask COMMAND`.

mod bench;

use clap::Parser;
use std::error::Error;

/// What one does in a checkout of Tidemill.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Measure the host against reference relays, in one run.
    Bench(bench::Args),
}

fn main() -> Result<(), Box<dyn Error>> {
    match Command::parse() {
        Command::Bench(args) => bench::run(&args),
    }
}
