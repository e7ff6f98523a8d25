//! Plugins: the only door to wasmtime.
//!
//! An [`Engine`] loads [`Plugin`]s, a plugin makes [`Instance`]s, an instance is given batches of
//! messages and answers with an [`Outcome`]. A plugin that is a connector makes [`ConnectorInstance`]s, which say
//! what is dialled. Nothing that a guest does or returns can do more than
//! end its instance with a [`Fault`]: memory, running time and output are limited, and everything
//! that comes back is checked before anyone sees it. No type of wasmtime leaves this folder.

mod batch;
mod bindings;
mod cache;
mod call;
mod columns;
mod compiler;
mod connector;
mod description;
mod edits;
mod emissions;
mod engine;
mod exported;
mod fault;
mod fields;
mod forward;
mod frames;
mod functions;
mod http;
mod imports;
mod inspect;
mod instance;
mod json_places;
mod kind;
mod last_words;
mod limits;
mod log;
mod memory;
mod notes;
mod outcome;
mod part;
mod process_export;
mod replay;
mod requests;
mod rows;
mod setup;
mod state;
mod ticker;
mod wasi;
mod writings;

pub use connector::{ConnectorInstance, DialAttempt, DialEnding, DialRefusal, PlannedDial};
pub use description::{ColumnForm, Description, Field, FieldKind};
pub use edits::Edited;
pub use emissions::Emissions;
pub use engine::{Engine, Plugin, version_of};
pub use fault::{EngineError, Fault, FaultKind, LoadError, LoadProblem};
pub use forward::Forward;
pub use http::{AnswerRoom, Http, HttpError, HttpRequest, HttpResponse};
pub use inspect::{Import, Inspection, Need, inspect};
pub use instance::Instance;
pub use kind::PluginKind;
pub use limits::CallTime;
pub use notes::{CallNotes, FirstAnswers};
pub use outcome::{Outcome, Rejection, Retry};
pub use part::StatePart;
pub use setup::Setup;
pub use state::HostState;
pub use writings::Writings;

/// The version of the contract in `wit/` that this host speaks.
pub const CONTRACT_VERSION: &str = "0.1.0";
/// The version of wasmtime that runs the plugins.
pub const WASMTIME_VERSION: &str = "48.0.8";

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    /// The digest of the contract without its comments. It never changes again: see "The plugin contract and its
    /// versions" in ARCHITECTURE.md for what to do in its place.
    const FROZEN: &str = "26f1983e769039cc7704fc8063cde1a8717e4544db8a723da68d8b80d9d96968";

    #[test]
    fn the_contract_has_the_shape_in_which_it_was_frozen() {
        let wit = include_str!("../wit/transform.wit");
        let code = wit.lines().map(|line| line.split("//").next().unwrap_or("").trim());
        let code: Vec<&str> = code.filter(|line| !line.is_empty()).collect();
        let digest = Sha256::digest(code.join(" "));
        assert_eq!(super::cache::hex(&digest), FROZEN);
    }
}
