//! The commands for one plugin: its folder is made, built and tested, and it is run, measured and looked at without a
//! host.

mod bench;
mod build;
mod component;
mod dev;
mod diff;
mod inspect;
mod new;
mod problem;
mod run;
pub(super) mod single;
mod test;

pub(super) use dev::Dev;

use super::Exit;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum PluginCommand {
    /// Make the folder of a new plugin, which works as it is.
    New(new::PluginNew),
    /// Compile the plugin of a folder; what its language needs is fetched.
    Build(build::PluginBuild),
    /// Run the tests of a plugin and its recorded cases.
    Test(test::PluginTest),
    /// Run a plugin on lines of standard input, to standard output; messages that fail go to standard
    /// error. Or show where two differ.
    Run(run::PluginRun),
    /// Measure what a plugin takes for the messages of a file, beside one that does nothing.
    Bench(bench::PluginBench),
    /// Say what a plugin exports and imports, and what it needs of a configuration; nothing is run.
    Inspect(inspect::PluginInspect),
}

impl PluginCommand {
    pub(super) fn execute(self, is_verbose: bool) -> Exit {
        match self {
            Self::New(new) => new.execute(),
            Self::Build(build) => build.execute(is_verbose),
            Self::Test(test) => test.execute(is_verbose),
            Self::Run(run) => run.execute(),
            Self::Bench(bench) => bench.execute(),
            Self::Inspect(inspect) => inspect.execute(),
        }
    }
}
