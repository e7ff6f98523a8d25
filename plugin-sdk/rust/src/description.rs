//! What a plugin asks of the host, collected while it is made.
//!
//! Each request gives a handle, so that an output or a metadata key that was not asked for cannot be
//! used by mistake.

use crate::bindings::tidemill::plugin::types;
use crate::fields::{Edit, Json, Number, Text};
use crate::json::{Fields, InvalidPointer};
use std::time::Duration;

/// What the host takes of a description at most.
const MAX_OUTPUTS: usize = 1024;
const MAX_METADATA_KEYS: usize = 128;
const MAX_FIELDS: usize = 64;
const MAX_NAME_BYTES: usize = 256;
/// The limits of a transform that sets none, where the host does not say them.
const DEFAULT_MEMORY_BYTES: u64 = 64 << 20;
const DEFAULT_OUTPUT_BYTES: u64 = 16 << 20;

/// What a plugin is and asks for, given its configuration.
#[derive(Debug, Default)]
pub struct Description {
    outputs: Vec<String>,
    reads: Vec<String>,
    writes: Vec<String>,
    fields: Vec<types::Field>,
    edits: Vec<String>,
    is_only_json: bool,
    is_without_payloads: bool,
    times: bool,
    tick_ms: u32,
    guards: bool,
    facts: Vec<(String, String)>,
}

/// A named way out of the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Output(u16);

/// A metadata key that the plugin reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read(usize);

/// A metadata key that the plugin sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write(usize);

impl Output {
    /// The output that every plugin has: `default`.
    pub const DEFAULT: Self = Self(0);

    pub(crate) fn number(self) -> u16 {
        self.0
    }
}

impl Read {
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

impl Write {
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

impl Description {
    /// The output with this name; `default` is always there.
    ///
    /// # Panics
    /// At the 65,536th name: outputs are numbered with 16 bits.
    pub fn output(&mut self, name: &str) -> Output {
        if name == "default" {
            return Output::DEFAULT;
        }
        let number = index_of(&mut self.outputs, name) + 1;
        Output(u16::try_from(number).expect("a plugin has fewer than 65,536 outputs"))
    }

    /// Asks for a metadata key of every message.
    pub fn read(&mut self, key: &str) -> Read {
        Read(index_of(&mut self.reads, key))
    }

    /// Announces a metadata key that the plugin may set.
    pub fn write(&mut self, key: &str) -> Write {
        Write(index_of(&mut self.writes, key))
    }

    /// Asks for a JSON field of every message as a number: that of a JSON number, or of a string that holds
    /// one.
    ///
    /// # Errors
    /// It is not a JSON pointer.
    pub fn number(&mut self, pointer: &str) -> Result<Number, InvalidPointer> {
        self.field(pointer, types::Kind::Number).map(Number)
    }

    /// Asks for a JSON field of every message as what a string says.
    ///
    /// # Errors
    /// It is not a JSON pointer.
    pub fn text(&mut self, pointer: &str) -> Result<Text, InvalidPointer> {
        self.field(pointer, types::Kind::Text).map(Text)
    }

    /// Asks for a JSON field of every message as it stands there.
    ///
    /// # Errors
    /// It is not a JSON pointer.
    pub fn json(&mut self, pointer: &str) -> Result<Json, InvalidPointer> {
        self.field(pointer, types::Kind::Json).map(Json)
    }

    /// Announces a member of JSON objects that the plugin may set or remove in the messages that it forwards.
    ///
    /// # Errors
    /// It is not a JSON pointer.
    pub fn edit(&mut self, pointer: &str) -> Result<Edit, InvalidPointer> {
        Fields::default().add(pointer)?;
        Ok(Edit(index_of(&mut self.edits, pointer)))
    }

    /// Asks for no message that is not JSON: the host rejects it, and the plugin never sees it.
    pub fn only_json(&mut self) {
        self.is_only_json = true;
    }

    /// Does without the payloads: [`as_bytes`](crate::Message::as_bytes) is empty, and nothing is copied.
    pub fn without_payloads(&mut self) {
        self.is_without_payloads = true;
    }

    /// What the host says of where the plugin runs: `pipeline`, `transform`, `instance` and others of
    /// `wit/transform.wit`, and its limits `memory_bytes` and `output_bytes`.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Says that the plugin is there to keep something from going on, as one that redacts or encrypts is: the host warns
    /// where `on_error = "pass"` would let a message go on as it came that the plugin rejects or fails on.
    pub fn guards(&mut self) {
        self.guards = true;
    }

    /// Asks for the time at which each message was received.
    pub fn times(&mut self) {
        self.times = true;
    }

    /// Asks for [`tick`](crate::Plugin::tick) this often, in whole milliseconds and at least one. The
    /// transform's `tick` key in the host's configuration overrides it.
    pub fn tick_every(&mut self, interval: Duration) {
        self.tick_ms = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX).max(1);
    }

    /// The memory that the plugin may have: `limits.memory` of the transform, or what that is by default.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.bytes("memory_bytes", DEFAULT_MEMORY_BYTES)
    }

    /// How much one call may send: `limits.output` of the transform, or what that is by default.
    pub(crate) fn output_bytes(&self) -> u64 {
        self.bytes("output_bytes", DEFAULT_OUTPUT_BYTES)
    }

    fn bytes(&self, fact: &str, default: u64) -> u64 {
        self.fact(fact).and_then(|bytes| bytes.parse().ok()).unwrap_or(default)
    }

    pub(crate) fn with_facts(facts: Vec<(String, String)>) -> Self {
        Self { facts, ..Self::default() }
    }

    /// Says in words of the configuration what the host would refuse in words of the contract.
    ///
    /// # Errors
    /// There is more of something than the host takes, or a name that it does not take.
    pub(crate) fn check(&self) -> crate::Result {
        for (count, most, what) in [
            (self.outputs.len(), MAX_OUTPUTS, "outputs"),
            (self.reads.len(), MAX_METADATA_KEYS, "metadata keys of each message"),
            (self.writes.len(), MAX_METADATA_KEYS, "metadata keys to set"),
            (self.fields.len(), MAX_FIELDS, "JSON fields of each message"),
            (self.edits.len(), MAX_FIELDS, "members to set or remove"),
        ] {
            if count > most {
                return Err(format!("the configuration names {count} {what}, and {most} are the most").into());
            }
        }
        let pointers = self.fields.iter().map(|field| &field.pointer).chain(&self.edits);
        for name in self.outputs.iter().chain(&self.reads).chain(&self.writes) {
            if name.is_empty() || name.contains(char::is_control) {
                return Err(format!("{name:?} cannot be the name of an output or of a metadata key").into());
            }
        }
        if self.outputs.iter().any(|name| name == "*") {
            return Err("\"*\" cannot be the name of an output: it stands for all of them".into());
        }
        let mut names = self.outputs.iter().chain(&self.reads).chain(&self.writes).chain(pointers);
        match names.find(|name| name.len() > MAX_NAME_BYTES) {
            None => Ok(()),
            Some(name) => Err(format!(
                "the configuration has a name or JSON pointer of {} bytes, and {MAX_NAME_BYTES} are the most",
                name.len()
            )
            .into()),
        }
    }

    pub(crate) fn reads(&self) -> usize {
        self.reads.len()
    }

    pub(crate) fn writes(&self) -> usize {
        self.writes.len()
    }

    pub(crate) fn edits(&self) -> usize {
        self.edits.len()
    }

    fn field(&mut self, pointer: &str, kind: types::Kind) -> Result<usize, InvalidPointer> {
        Fields::default().add(pointer)?;
        let known = self.fields.iter().position(|field| field.pointer == pointer && field.kind == kind);
        Ok(known.unwrap_or_else(|| {
            self.fields.push(types::Field { pointer: pointer.to_owned(), kind });
            self.fields.len() - 1
        }))
    }

    pub(crate) fn to_wit(&self) -> types::Description {
        types::Description {
            outputs: self.outputs.clone(),
            reads: self.reads.clone(),
            writes: self.writes.clone(),
            fields: self.fields.clone(),
            edits: self.edits.clone(),
            json: self.is_only_json,
            form: types::Form::Packed,
            payloads: !self.is_without_payloads,
            times: self.times,
            tick_ms: self.tick_ms,
            options: self.guards.then(|| ("guards".to_owned(), "true".to_owned())).into_iter().collect(),
        }
    }
}

/// The place of a name in a list, which it joins if it is new.
fn index_of(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_asked_for_twice_is_one_output() {
        let mut description = Description::default();
        let btc = description.output("btc");
        let eth = description.output("eth");
        assert_eq!((btc.number(), eth.number()), (1, 2));
        assert_eq!(description.output("btc"), btc);
        assert_eq!(description.output("default"), Output::DEFAULT);
        assert_eq!(description.to_wit().outputs, ["btc", "eth"]);
    }

    #[test]
    fn what_the_host_would_not_take_is_refused_in_words_of_the_configuration() {
        let refused = |ask: &dyn Fn(&mut Description)| {
            let mut description = Description::default();
            ask(&mut description);
            description.check().err().map(|error| error.to_string())
        };
        let outputs = |count: u32| {
            refused(&|of| {
                (0..count).for_each(|n| _ = of.output(&n.to_string()));
            })
        };
        assert_eq!(outputs(1024), None);
        let error = "the configuration names 1025 outputs, and 1024 are the most";
        assert_eq!(outputs(1025).as_deref(), Some(error));
        let star = refused(&|of| _ = of.output("*"));
        assert_eq!(star.as_deref(), Some("\"*\" cannot be the name of an output: it stands for all of them"));
        assert_eq!(refused(&|of| _ = of.read("*")), None);
        let broken = refused(&|of| _ = of.read("a\nb"));
        assert_eq!(broken.as_deref(), Some("\"a\\nb\" cannot be the name of an output or of a metadata key"));
        let long = |bytes: usize| refused(&|of| _ = of.json(&format!("/{}", "x".repeat(bytes - 1))));
        assert_eq!(long(256), None);
        let error = "the configuration has a name or JSON pointer of 257 bytes, and 256 are the most";
        assert_eq!(long(257).as_deref(), Some(error));
    }

    #[test]
    fn a_tick_is_never_rounded_down_to_none() {
        let mut description = Description::default();
        description.tick_every(Duration::from_micros(10));
        assert_eq!(description.to_wit().tick_ms, 1);
    }
}
