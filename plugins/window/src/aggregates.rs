//! What is computed of the messages of a window: sums, averages, extremes, first and last values.
//!
//! What a window has seen is a count and a row of numbers, of which each aggregate has none, one or two.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use tidemill_plugin::windows::Aggregation;
use tidemill_plugin::{Description, Json, Message, Result};

/// An aggregate as it is configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    op: Op,
    field: Option<String>,
    weight: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    First,
    Last,
    Vwap,
}

/// The aggregates of a window.
#[derive(Clone, Debug)]
pub(crate) struct Aggregates {
    all: Vec<Aggregate>,
    /// How many numbers a window has.
    numbers: usize,
    /// The least that is written of a window with them, in bytes.
    written_bytes: usize,
    /// The same as it was configured: what the numbers of a snapshot mean.
    meaning: String,
}

#[derive(Clone, Debug)]
struct Aggregate {
    name: String,
    op: Op,
    /// The places of its field and of its weight among those that are read.
    field: usize,
    weight: usize,
    /// The place of its first number.
    at: usize,
}

/// The fields of a message that aggregates are made of, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inputs {
    fields: Vec<(String, Json)>,
}

/// What was read of a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    /// The time of the message, which is exact.
    time_ms: f64,
    /// The numbers of the fields.
    values: Vec<f64>,
}

/// What a window has seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    count: u64,
    numbers: Box<[f64]>,
}

impl Op {
    /// How many numbers it has of a window. With a value that is one of two, the time of its message is kept.
    fn numbers(self) -> usize {
        match self {
            Self::Count => 0,
            Self::Sum | Self::Avg | Self::Min | Self::Max => 1,
            Self::First | Self::Last | Self::Vwap => 2,
        }
    }

    /// Those numbers where nothing was seen.
    fn empty(self) -> &'static [f64] {
        match self {
            Self::Count => &[],
            Self::Sum | Self::Avg => &[0.0],
            Self::Min => &[f64::INFINITY],
            Self::Max => &[f64::NEG_INFINITY],
            Self::First => &[f64::INFINITY, 0.0],
            Self::Last => &[f64::NEG_INFINITY, 0.0],
            Self::Vwap => &[0.0, 0.0],
        }
    }
}

impl Aggregates {
    /// Checks what is configured, and asks for its fields. `taken` are the names of other members of what is emitted.
    ///
    /// # Errors
    /// An aggregate that cannot be meant; the text names it.
    pub(crate) fn try_of(
        rules: &BTreeMap<String, Rule>,
        taken: &[&str],
        inputs: &mut Inputs,
        description: &mut Description,
    ) -> Result<Self> {
        // An object with a member for each name: two quotes, a colon, a value, and what stands before the next.
        let names = taken.iter().copied().chain(rules.keys().map(String::as_str));
        let written_bytes = 1 + names.map(|name| name.len() + 5).sum::<usize>();
        let mut aggregates = Self { all: Vec::new(), numbers: 0, written_bytes, meaning: String::new() };
        for (name, Rule { op, field, weight }) in rules {
            if taken.contains(&name.as_str()) {
                return Err(format!(
                    "`aggregates.{name}`: the name stands for something else in what is emitted: give it another"
                )
                .into());
            }
            let mut input = |key: &str, pointer: &Option<String>, is_needed: bool| -> Result<usize> {
                let key = format!("aggregates.{name}.{key}");
                match (pointer, is_needed) {
                    (Some(pointer), true) => {
                        let place = inputs.place(pointer, description);
                        place.map_err(|error| format!("`{key}`: {error}").into())
                    }
                    (None, true) => Err(format!("missing key `{key}`: this `op` needs it").into()),
                    (Some(_), false) => Err(format!("`{key}`: this `op` takes none").into()),
                    (None, false) => Ok(0),
                }
            };
            // What is counted may be named: it has to be there, and a number, as everywhere.
            let field_place = input("field", field, *op != Op::Count || field.is_some())?;
            let weight_place = input("weight", weight, *op == Op::Vwap)?;
            aggregates.all.push(Aggregate {
                name: name.clone(),
                op: *op,
                field: field_place,
                weight: weight_place,
                at: aggregates.numbers,
            });
            aggregates.numbers += op.numbers();
            let parts = [Some(name), field.as_ref(), weight.as_ref()].into_iter().flatten();
            let parts: Vec<_> = parts.map(String::as_str).collect();
            let separator = if aggregates.meaning.is_empty() { "" } else { "; " };
            aggregates.meaning.push_str(&format!("{separator}{op:?} {}", parts.join(" ")));
        }
        Ok(aggregates)
    }

    /// What the numbers of a window mean.
    pub(crate) fn meaning(&self) -> &str {
        &self.meaning
    }

    /// Writes the aggregates of a window as members of an object, each behind a comma.
    pub(crate) fn write(&self, seen: &Seen, out: &mut impl Write) -> Result {
        for Aggregate { name, op, at, .. } in &self.all {
            out.write_all(b",")?;
            serde_json::to_writer(&mut *out, name)?;
            out.write_all(b":")?;
            let number = |place: usize| seen.numbers[at + place];
            let value = match op {
                Op::Count => {
                    write!(out, "{}", seen.count)?;
                    continue;
                }
                Op::Sum | Op::Min | Op::Max => number(0),
                Op::Avg => number(0) / seen.count as f64,
                Op::First | Op::Last => number(1),
                // Without any weight there is no average: that is no number, for which null is written.
                Op::Vwap => number(0) / number(1),
            };
            serde_json::to_writer(&mut *out, &value)?;
        }
        Ok(())
    }
}

impl Aggregation for Aggregates {
    type Contents = Seen;
    type Reading = Reading;

    fn empty(&self) -> Seen {
        let numbers = self.all.iter().flat_map(|aggregate| aggregate.op.empty());
        Seen { count: 0, numbers: numbers.copied().collect() }
    }

    fn heap_bytes(&self) -> usize {
        self.numbers * size_of::<f64>()
    }

    fn emitted_bytes(&self) -> usize {
        self.written_bytes
    }

    #[inline]
    fn add(&self, seen: &mut Seen, Reading { time_ms, values }: &Reading) {
        seen.count += 1;
        for aggregate in &self.all {
            let numbers = &mut seen.numbers[aggregate.at..];
            match aggregate.op {
                Op::Count => {}
                Op::Sum | Op::Avg => numbers[0] += values[aggregate.field],
                Op::Min => numbers[0] = numbers[0].min(values[aggregate.field]),
                Op::Max => numbers[0] = numbers[0].max(values[aggregate.field]),
                // Of two of one time, the one that came earlier is the first.
                Op::First if *time_ms < numbers[0] => {
                    numbers[..2].copy_from_slice(&[*time_ms, values[aggregate.field]]);
                }
                Op::Last if *time_ms >= numbers[0] => {
                    numbers[..2].copy_from_slice(&[*time_ms, values[aggregate.field]]);
                }
                Op::First | Op::Last => {}
                Op::Vwap => {
                    numbers[0] += values[aggregate.field] * values[aggregate.weight];
                    numbers[1] += values[aggregate.weight];
                }
            }
        }
    }

    fn merge(&self, seen: &mut Seen, later: &Seen) {
        seen.count += later.count;
        for aggregate in &self.all {
            let numbers = &mut seen.numbers[aggregate.at..];
            let later = &later.numbers[aggregate.at..];
            match aggregate.op {
                Op::Count => {}
                Op::Sum | Op::Avg => numbers[0] += later[0],
                Op::Min => numbers[0] = numbers[0].min(later[0]),
                Op::Max => numbers[0] = numbers[0].max(later[0]),
                Op::First if later[0] < numbers[0] => numbers[..2].copy_from_slice(&later[..2]),
                Op::Last if later[0] >= numbers[0] => numbers[..2].copy_from_slice(&later[..2]),
                Op::First | Op::Last => {}
                Op::Vwap => {
                    numbers[0] += later[0];
                    numbers[1] += later[1];
                }
            }
        }
    }
}

impl Inputs {
    fn place(&mut self, pointer: &str, description: &mut Description) -> Result<usize> {
        if let Some(place) = self.fields.iter().position(|(known, _)| known == pointer) {
            return Ok(place);
        }
        self.fields.push((pointer.to_owned(), description.json(pointer)?));
        Ok(self.fields.len() - 1)
    }

    /// Reads the numbers of a message. Says whether they are all there.
    ///
    /// # Errors
    /// One is there, and is no number; the text names it.
    #[inline]
    pub(crate) fn read(&self, message: Message<'_>, time_ms: i64, reading: &mut Reading) -> Result<bool> {
        reading.time_ms = time_ms as f64;
        reading.values.clear();
        for (pointer, field) in &self.fields {
            let Some(value) = message.get(*field) else { return Ok(false) };
            reading.values.push(value.number().ok_or_else(|| format!("{pointer} is no number"))?);
        }
        Ok(true)
    }
}
