//! A plugin under test: its calls go the way that the host's would.

use super::{Host, Processed};
use crate::bindings::tidemill::plugin::types;
use crate::instance::Instance;
use crate::{Description, Message, NoConfig, Out, Part, Plugin, Result};
use tidemill_json::{Document, Fields, Value};

/// An instance of a plugin, called natively.
///
/// What crosses is checked as the host would check it: a plugin that breaks the contract panics here.
pub struct Harness<P> {
    instance: Instance<P>,
    description: types::Description,
    /// The host that the plugin sees.
    pub host: Host,
}

/// A message for a plugin under test. A `&str` is a text message, a `&[u8]` a binary one.
#[derive(Clone, Debug, Default)]
pub struct Input {
    bytes: Vec<u8>,
    binary: bool,
    received_us: u64,
    metadata: Vec<(String, String)>,
}

/// A function that `export!(fn ...)` exports, as a plugin that a [`Harness`] takes.
pub struct Function(fn(Message<'_>, &mut Out<'_>) -> Result);

impl<P: Plugin> Harness<P> {
    /// Makes the plugin out of its configuration, a JSON object.
    ///
    /// # Errors
    /// The text with which the configuration is refused.
    pub fn try_new(config: &str) -> Result<Self, String> {
        let mut host = Host::default();
        let facts = [("pipeline", "test"), ("transform", "test"), ("instance", "0"), ("instances", "1")];
        let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let instance = host.during(|| Instance::init(config, facts))?;
        Ok(Self { description: instance.description(), instance, host })
    }

    /// Gives the plugin one batch.
    ///
    /// # Panics
    /// If the call as a whole is at fault, or the outcome breaks the contract.
    pub fn process<I: Into<Input>>(&mut self, messages: impl IntoIterator<Item = I>) -> Processed {
        let messages: Vec<Input> = messages.into_iter().map(Into::into).collect();
        assert!(!messages.is_empty(), "the host never sends an empty batch");
        let mut refused = Vec::new();
        let mut kept = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            match Fields::default().find(message.document()).map(drop) {
                Err(invalid) if self.description.json => refused.push((index, invalid.to_string())),
                _ => kept.push((index, message)),
            }
        }
        if kept.is_empty() {
            return Processed { rejected: refused, ..Processed::default() };
        }
        let (indices, kept): (Vec<usize>, Vec<&Input>) = kept.into_iter().unzip();
        let batch = self.batch(&kept);
        let outcome = self.host.during(|| self.instance.process(batch));
        let outcome = outcome.unwrap_or_else(|error| panic!("process failed: {error}"));
        Processed::of_batch(&self.description, &kept, outcome).among(&indices, refused)
    }

    /// Calls the timer. The host's clock is set to `now_us`.
    ///
    /// # Panics
    /// If the call is at fault, or what is emitted breaks the contract.
    pub fn tick(&mut self, now_us: u64) -> Processed {
        self.host.now_us = now_us;
        let emissions = self.host.during(|| self.instance.tick(now_us));
        let emissions = emissions.unwrap_or_else(|error| panic!("tick failed: {error}"));
        Processed::of_call(&self.description, emissions)
    }

    /// Says that no message will follow.
    ///
    /// # Panics
    /// If the call is at fault, or what is emitted breaks the contract.
    pub fn finish(&mut self) -> Processed {
        let emissions = self.host.during(|| self.instance.finish());
        let emissions = emissions.unwrap_or_else(|error| panic!("finish failed: {error}"));
        Processed::of_call(&self.description, emissions)
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// The plugin's own.
    pub fn snapshot(&mut self) -> Result<Option<Vec<u8>>, String> {
        self.host.during(|| self.instance.snapshot())
    }

    /// Goes on from a snapshot.
    ///
    /// # Errors
    /// The text with which it is refused.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), String> {
        self.restore_part(&[snapshot.to_vec()], Part { number: 0, of: 1 })
    }

    /// Goes on from the snapshots of all instances there were, as this one of those there are.
    ///
    /// # Errors
    /// The text with which they are refused.
    pub fn restore_part(&mut self, snapshots: &[Vec<u8>], part: Part) -> Result<(), String> {
        self.host.during(|| self.instance.restore(snapshots, part))
    }

    /// The names of the outputs that the plugin has beside `default`.
    pub fn outputs(&self) -> &[String] {
        &self.description.outputs
    }

    /// The interval of the timer that the plugin asked for, in milliseconds; 0 is none.
    pub fn tick_ms(&self) -> u32 {
        self.description.tick_ms
    }

    fn batch(&self, messages: &[&Input]) -> types::Batch {
        let binary: Vec<u8> = messages.iter().map(|message| u8::from(message.binary)).collect();
        let packed = types::Packed {
            data: messages.iter().flat_map(|message| message.bytes.iter().copied()).collect(),
            ends: ends(messages.iter().map(|message| message.bytes.len())),
            binary: binary.contains(&1).then_some(binary),
        };
        let column = |key: &String| {
            let values: Vec<&str> = messages.iter().map(|message| message.value(key)).collect();
            match values.iter().all(|value| *value == values[0]) {
                true => types::Column::Same(values[0].to_owned()),
                false => types::Column::Packed(types::Texts {
                    data: values.concat().into_bytes(),
                    ends: ends(values.iter().map(|value| value.len())),
                }),
            }
        };
        let metadata = self.description.reads.iter().map(column);
        let columns: Vec<_> =
            metadata.chain(self.fields(messages).into_iter().map(types::Column::Field)).collect();
        types::Batch {
            count: u32::try_from(messages.len()).expect("the messages of a test can be counted"),
            payloads: self.description.payloads.then_some(types::Payloads::Packed(packed)),
            times: self.description.times.then(|| messages.iter().map(|m| m.received_us).collect()),
            columns: (!columns.is_empty()).then_some(columns),
        }
    }

    fn fields(&self, messages: &[&Input]) -> Vec<types::Values> {
        let about = &self.description.fields;
        let mut pointers = Fields::default();
        let fields: Vec<_> = about.iter().map(|field| pointers.add(&field.pointer)).collect();
        let column = |(about, field): (&types::Field, &Result<tidemill_json::Field, _>)| {
            let field = *field.as_ref().expect("the SDK asks for JSON pointers");
            let mut pointers = pointers.clone();
            let values = messages.iter().map(|message| {
                let found = pointers.find(message.document()).ok();
                let value = found.and_then(|found| found.get(field));
                match about.kind {
                    types::Kind::Number => value.and_then(Value::number).map(|number| number.to_string()),
                    types::Kind::Text => value.and_then(Value::string).map(String::from),
                    types::Kind::Json => value.map(|value| String::from_utf8_lossy(value.raw()).into_owned()),
                }
            });
            let values: Vec<Option<String>> = values.collect();
            if about.kind == types::Kind::Number {
                let number = |value: &Option<String>| {
                    value.as_ref().map_or(f64::NAN, |n| n.parse().unwrap_or(f64::NAN))
                };
                return types::Values::Numbers(values.iter().map(number).collect());
            }
            let absent: Vec<u8> = values.iter().map(|value| u8::from(value.is_none())).collect();
            types::Values::Packed(types::OptionalTexts {
                data: values.iter().flatten().flat_map(|text| text.bytes()).collect(),
                ends: ends(values.iter().map(|value| value.as_ref().map_or(0, String::len))),
                absent: absent.contains(&1).then_some(absent),
            })
        };
        about.iter().zip(&fields).map(column).collect()
    }
}

impl Harness<Function> {
    /// Tests a function that `export!(fn ...)` exports.
    pub fn function(function: fn(Message<'_>, &mut Out<'_>) -> Result) -> Self {
        let instance = Instance::of(Function(function), Description::default());
        Self { description: instance.description(), instance, host: Host::default() }
    }
}

impl Plugin for Function {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &mut Description) -> Result<Self> {
        Ok(Self(|_, _| Ok(())))
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        (self.0)(message, out)
    }
}

impl Input {
    /// With the time at which it was received, in microseconds since the Unix epoch.
    pub fn received_us(mut self, received_us: u64) -> Self {
        self.received_us = received_us;
        self
    }

    /// With a metadata value.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.metadata.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn document(&self) -> Document<'_> {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => text.into(),
            Err(_) => self.bytes.as_slice().into(),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn is_binary(&self) -> bool {
        self.binary
    }

    fn value(&self, key: &str) -> &str {
        self.metadata.iter().find(|(known, _)| known == key).map_or("", |(_, value)| value)
    }
}

impl From<&str> for Input {
    fn from(text: &str) -> Self {
        Self { bytes: text.into(), ..Self::default() }
    }
}

impl From<String> for Input {
    fn from(text: String) -> Self {
        Self { bytes: text.into(), ..Self::default() }
    }
}

impl From<&[u8]> for Input {
    fn from(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), binary: true, ..Self::default() }
    }
}

/// Where each text of a row ends, given their lengths.
fn ends(lengths: impl Iterator<Item = usize>) -> Vec<u32> {
    let ends = lengths.scan(0, |end, length| {
        *end += length;
        Some(u32::try_from(*end).expect("the messages of a test fit 4 GiB"))
    });
    ends.collect()
}
