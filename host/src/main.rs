//! The program `tidemill`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidemill::cli::main()
}
