//! What a plugin says of itself when it is given its configuration: its outputs, the metadata that it reads
//! and writes, and the form in which it takes payloads. Nothing of it is believed before it was checked.

use super::bindings::tidemill::plugin::types as wit;
use super::fault::Fault;
use crate::foreign_text;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Most named outputs that a plugin may describe.
const MAX_OUTPUTS: usize = 1024;
/// Most metadata keys in each direction: each is looked up for every message.
const MAX_KEYS: usize = 128;
/// Longest name of an output or of a metadata key.
const MAX_NAME_BYTES: usize = 256;

/// How a plugin wants its payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadForm {
    /// All bytes in a row.
    Packed,
    /// One value a message.
    Each,
}

/// What a plugin said of itself, given its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its named outputs beside "default", in the order of their numbers from 1.
    pub outputs: Vec<Arc<str>>,
    /// The metadata keys it sees.
    pub reads: Vec<Arc<str>>,
    /// The metadata keys its emissions may set.
    pub writes: Vec<Arc<str>>,
    /// How it wants its payloads.
    pub form: PayloadForm,
    /// Whether it sees when messages were received.
    pub times: bool,
    /// How often it wants its timer called.
    pub tick: Option<Duration>,
}

impl Description {
    /// Checks what `init` has answered with.
    ///
    /// # Errors
    /// A fault of kind `invalid`, if a list is too long, or a name is not one that can be used.
    pub(super) fn try_new(described: wit::Description) -> Result<Self, Fault> {
        let wit::Description { outputs, reads, writes, payloads, times, tick_ms, options: _ } = described;
        if let Some(name) = outputs.iter().find(|name| matches!(name.as_str(), "default" | "*")) {
            return Err(Fault::invalid(format!("init described an output {name:?}, a name the host uses")));
        }
        Ok(Self {
            outputs: names("outputs", outputs, MAX_OUTPUTS)?,
            reads: names("reads", reads, MAX_KEYS)?,
            writes: names("writes", writes, MAX_KEYS)?,
            form: match payloads {
                wit::Form::Packed => PayloadForm::Packed,
                wit::Form::Each => PayloadForm::Each,
            },
            times,
            tick: (tick_ms > 0).then(|| Duration::from_millis(tick_ms.into())),
        })
    }
}

/// Checks that names are there, differ, can be shown, and are no more and no longer than they may be.
fn names(list: &str, names: Vec<String>, most: usize) -> Result<Vec<Arc<str>>, Fault> {
    if names.len() > most {
        return Err(Fault::invalid(format!("init described {} {list}, more than {most}", names.len())));
    }
    if let Some(name) = names.iter().find(|name| name.len() > MAX_NAME_BYTES) {
        let length = name.len();
        return Err(Fault::invalid(format!(
            "init described a name of {length} bytes in {list}, more than {MAX_NAME_BYTES}"
        )));
    }
    let mut known = BTreeSet::new();
    for name in &names {
        if name.is_empty() || !foreign_text::is_plain(name) {
            return Err(Fault::invalid(format!("init described {name:?} in {list}, which is no name")));
        }
        if !known.insert(name) {
            return Err(Fault::invalid(format!("init described {name:?} twice in {list}")));
        }
    }
    Ok(names.into_iter().map(Arc::from).collect())
}
