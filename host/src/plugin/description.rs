//! What a plugin says of itself when it is given its configuration: its outputs, the metadata and the JSON
//! fields that it reads and writes, and the form in which it takes them. Nothing of it is believed before it
//! was checked.

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
/// Most JSON fields, and most places that are edited: each is looked for in every message.
const MAX_FIELDS: usize = 64;
/// The option of a plugin that keeps something from going on, and the value that says so.
const GUARDS: (&str, &str) = ("guards", "true");
/// Longest name of an output or of a metadata key, and longest JSON pointer.
const MAX_NAME_BYTES: usize = 256;

/// How a plugin wants what crosses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnForm {
    /// All bytes in a row.
    Packed,
    /// One value a message.
    Each,
}

/// A place in messages that are JSON, and what a plugin wants of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its JSON pointer.
    pub pointer: Arc<str>,
    /// What is wanted of it.
    pub kind: FieldKind,
}

/// What a plugin wants of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// Its value as a number.
    Number,
    /// What a string says.
    Text,
    /// Its value as it stands in the message.
    Json,
}

/// What a plugin said of itself, given its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its named outputs beside "default", in the order of their numbers from 1.
    pub outputs: Vec<Arc<str>>,
    /// The metadata keys it sees.
    pub reads: Vec<Arc<str>>,
    /// The metadata keys that it may set.
    pub writes: Vec<Arc<str>>,
    /// The JSON fields that it sees.
    pub fields: Vec<Field>,
    /// The JSON pointers of the places that it may change.
    pub edits: Vec<Arc<str>>,
    /// Whether it only sees messages that are JSON.
    pub needs_json: bool,
    /// How it wants what crosses.
    pub form: ColumnForm,
    /// Whether it sees the payloads.
    pub payloads: bool,
    /// Whether it sees when messages were received.
    pub times: bool,
    /// How often it wants its timer called.
    pub tick: Option<Duration>,
    /// Whether a message that it rejects must not go on as it came: it is there to hide something.
    pub guards: bool,
}

impl Description {
    /// Checks what `init` has answered with.
    ///
    /// # Errors
    /// A fault of kind `invalid`, if a list is too long, or a name is not one that can be used.
    pub(super) fn try_new(described: wit::Description) -> Result<Self, Fault> {
        // Options are room to grow: what is not known is ignored.
        let wit::Description {
            outputs,
            reads,
            writes,
            fields,
            edits,
            json,
            form,
            payloads,
            times,
            tick_ms,
            options,
        } = described;
        if let Some(name) = outputs.iter().find(|name| matches!(name.as_str(), "default" | "*")) {
            return Err(Fault::invalid(format!("init described an output {name:?}, a name the host uses")));
        }
        let kinds: Vec<FieldKind> = fields.iter().map(|field| field.kind.into()).collect();
        let pointers = pointers("fields", fields.into_iter().map(|field| field.pointer).collect())?;
        let fields = pointers.into_iter().zip(kinds).map(|(pointer, kind)| Field { pointer, kind });
        let edits = places("edits", edits)?;
        Ok(Self {
            outputs: names("outputs", outputs, MAX_OUTPUTS)?,
            reads: names("reads", reads, MAX_KEYS)?,
            writes: names("writes", writes, MAX_KEYS)?,
            fields: fields.collect(),
            edits,
            needs_json: json,
            form: match form {
                wit::Form::Packed => ColumnForm::Packed,
                wit::Form::Each => ColumnForm::Each,
            },
            payloads,
            times,
            tick: (tick_ms > 0).then(|| Duration::from_millis(tick_ms.into())),
            guards: options.iter().any(|(name, value)| (name.as_str(), value.as_str()) == GUARDS),
        })
    }
}

#[cfg(test)]
impl Description {
    /// Of a plugin that asks for payloads and nothing else.
    pub(super) fn plain(form: ColumnForm) -> Self {
        Self {
            outputs: Vec::new(),
            reads: Vec::new(),
            writes: Vec::new(),
            fields: Vec::new(),
            edits: Vec::new(),
            needs_json: false,
            form,
            payloads: true,
            times: false,
            tick: None,
            guards: false,
        }
    }
}

impl From<wit::Kind> for FieldKind {
    fn from(kind: wit::Kind) -> Self {
        match kind {
            wit::Kind::Number => Self::Number,
            wit::Kind::Text => Self::Text,
            wit::Kind::Json => Self::Json,
        }
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

/// Checks JSON pointers (RFC 6901), and that they are no more and no longer than they may be.
fn pointers(list: &str, pointers: Vec<String>) -> Result<Vec<Arc<str>>, Fault> {
    if pointers.len() > MAX_FIELDS {
        return Err(Fault::invalid(format!(
            "init described {} {list}, more than {MAX_FIELDS}",
            pointers.len()
        )));
    }
    for pointer in &pointers {
        let length = pointer.len();
        if length > MAX_NAME_BYTES {
            return Err(Fault::invalid(format!(
                "init described a pointer of {length} bytes in {list}, more than {MAX_NAME_BYTES}"
            )));
        }
        let is_escaped = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if !is_escaped || !(pointer.is_empty() || pointer.starts_with('/')) {
            return Err(Fault::invalid(format!(
                "init described {pointer:?} in {list}, which is no JSON pointer"
            )));
        }
    }
    Ok(pointers.into_iter().map(Arc::from).collect())
}

/// Checks JSON pointers to places inside of a document, of which none may lie in another.
fn places(list: &str, places: Vec<String>) -> Result<Vec<Arc<str>>, Fault> {
    let places = pointers(list, places)?;
    for (n, place) in places.iter().enumerate() {
        if place.is_empty() {
            return Err(Fault::invalid(format!(
                "init described {place:?} in {list}, which is the whole message"
            )));
        }
        let is_in = |other: &Arc<str>| {
            place.strip_prefix(&**other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if let Some((_, other)) = places.iter().enumerate().find(|(m, other)| *m != n && is_in(other)) {
            return Err(Fault::invalid(format!(
                "init described {place:?} and {other:?} in {list}: one is in the other"
            )));
        }
    }
    Ok(places)
}
