//! What is wrong with a component, as far as its names tell it.

use crate::plugin::{CONTRACT_VERSION, Inspection, Need};

/// What is said of a component that is none.
const NO_PLUGIN: &str =
    "it is no plugin: it exports no tidemill:plugin/transformer and no tidemill:plugin/dialler";

/// Why no host of this version can run it, if that can be told from its names.
pub(super) fn problem(inspection: &Inspection) -> Option<String> {
    let Some(contract) = &inspection.contract else {
        return Some(NO_PLUGIN.to_owned());
    };
    let track = |version: &str| version.rsplit_once('.').map(|(track, _)| track.to_owned());
    if track(contract) != track(CONTRACT_VERSION) {
        return Some(format!("it is for the contract {contract}, and this host speaks {CONTRACT_VERSION}"));
    }
    let missing = inspection.imports.iter().filter(|import| import.need == Need::Unavailable);
    let missing: Vec<_> = missing.map(|import| import.name.as_str()).collect();
    (!missing.is_empty())
        .then(|| format!("it imports what this host does not provide: {}", missing.join(", ")))
}
