//! Changes JSON messages: takes a part of them, computes members, sets, renames, picks and drops them.
//!
//! The keys of the configuration are steps, which are made in this order: `unwrap`, `let` and `compute`, `set`,
//! `rename`, `pick`, `drop`, `omit_empty`. Where they only set and drop members, the host makes the edits, and no payload
//! crosses; otherwise the message is written anew (`tree.rs`), of which what does not change keeps its bytes.

mod contradictions;
mod expression;
mod tree;

use expression::{Computed, Expression, is_of_name};
use serde::Deserialize;
use std::collections::BTreeMap;
use tidemill_plugin::json::{Value, names};
use tidemill_plugin::{Description, Edit, Json, Message, Out, Plugin, Result, export};
use tree::{Node, Path};

export!(Map);

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    unwrap: Option<String>,
    r#let: BTreeMap<String, String>,
    compute: BTreeMap<String, String>,
    set: BTreeMap<String, serde_json::Value>,
    rename: BTreeMap<String, String>,
    pick: Vec<String>,
    drop: Vec<String>,
    omit_empty: bool,
}

struct Map {
    names: Names,
    steps: Steps,
    way: Way,
}

/// The numbers that expressions may name.
struct Names {
    /// By their places; none of what no expression names.
    fields: Vec<(String, Option<Json>)>,
    values: Vec<Option<f64>>,
    stack: Vec<f64>,
}

/// What is done with each message.
struct Steps {
    compute: Vec<(Path, Expression)>,
    /// Values as JSON.
    set: Vec<(Path, String)>,
    rename: Vec<(Path, Path)>,
    pick: Vec<Path>,
    drop: Vec<Path>,
    omit_empty: bool,
}

/// Who makes the steps.
enum Way {
    /// The host, by edits of these members: those of `compute`, then of `set`, then of `drop`.
    Edits(Vec<Edit>),
    /// The plugin, which writes the message anew, or this part of it.
    Anew(Option<Json>),
}

impl Plugin for Map {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        description.only_json();
        if !config.pick.is_empty() || !config.drop.is_empty() {
            description.guards();
        }
        let unwrap = config.unwrap.as_deref();
        let part =
            unwrap.map(|pointer| description.json(pointer).map_err(|error| format!("`unwrap`: {error}")));
        let part = part.transpose()?;
        let known: Vec<String> = config.r#let.keys().cloned().collect();
        let steps = Steps::try_of(&config, &known)?;
        let names = Names::try_of(&config, &steps, description)?;
        let way = if part.is_none() && steps.are_edits() {
            description.without_payloads();
            let edits = steps.edited().map(|path| description.edit(path.pointer()));
            Way::Edits(edits.collect::<Result<_, _>>()?)
        } else {
            Way::Anew(part)
        };
        Ok(Self { names, steps, way })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        let Self { names, steps, way } = self;
        names.read(message)?;
        match way {
            Way::Edits(edits) => {
                out.forward();
                steps.edit(names, edits, out);
            }
            Way::Anew(part) => {
                let node = match part {
                    None => Node::of(message.as_bytes()),
                    Some(part) => Node::Raw(message.get(*part).ok_or("the message has nothing to unwrap")?),
                };
                let node = steps.make(names, node)?;
                node.write(&mut out.emit())?;
            }
        }
        Ok(())
    }
}

impl Names {
    fn try_of(config: &Config, steps: &Steps, description: &mut Description) -> Result<Self> {
        let mut fields = Vec::new();
        for (place, (name, pointer)) in config.r#let.iter().enumerate() {
            if !name.starts_with(|c: char| is_of_name(c) && !c.is_ascii_digit())
                || !name.chars().all(is_of_name)
            {
                return Err(format!(
                    "`let`: {name:?} is no name: it is made of letters, digits and `_`, and begins with no digit"
                )
                .into());
            }
            // Names are those of the part that is unwrapped.
            let whole = format!("{}{pointer}", config.unwrap.as_deref().unwrap_or_default());
            // That of the part is checked by itself: with the other before it, it could be one.
            names(pointer).map_err(|error| format!("`let.{name}`: {error}"))?;
            let is_used =
                steps.compute.iter().any(|(_, expression)| expression.names().any(|used| used == place));
            fields.push((name.clone(), is_used.then(|| description.json(&whole)).transpose()?));
        }
        Ok(Self { values: vec![None; fields.len()], fields, stack: Vec::new() })
    }

    /// Reads the numbers of a message.
    ///
    /// # Errors
    /// One is there and is no number.
    fn read(&mut self, message: Message<'_>) -> Result {
        for ((name, field), value) in self.fields.iter().zip(&mut self.values) {
            *value = match field.and_then(|field| message.get(field)) {
                None => None,
                Some(found) => Some(found.number().ok_or_else(|| format!("`{name}` is no number"))?),
            };
        }
        Ok(())
    }

    fn evaluate(&mut self, expression: &Expression) -> Option<Computed> {
        expression.evaluate(&self.values, &mut self.stack)
    }
}

impl Steps {
    fn try_of(config: &Config, known: &[String]) -> Result<Self> {
        let paths = |key: &str, pointers: &[String]| -> Result<Vec<Path>> {
            pointers.iter().map(|pointer| Path::parse(key, pointer)).collect()
        };
        let compute = config.compute.iter().map(|(pointer, text)| {
            let key = format!("compute.{pointer}");
            let expression = Expression::parse(text, known).map_err(|error| format!("`{key}`: {error}"))?;
            Ok((Path::parse("compute", pointer)?, expression))
        });
        let set =
            config.set.iter().map(|(pointer, value)| Ok((Path::parse("set", pointer)?, value.to_string())));
        let rename = config.rename.iter().map(|(from, to)| {
            let (from, to) = (Path::parse("rename", from)?, Path::parse("rename", to)?);
            if from.crosses(&to) {
                return Err(format!("`rename`: one of {from} and {to} is inside the other").into());
            }
            Ok((from, to))
        });
        let steps = Self {
            compute: compute.collect::<Result<_>>()?,
            set: set.collect::<Result<_>>()?,
            rename: rename.collect::<Result<_>>()?,
            pick: paths("pick", &config.pick)?,
            drop: paths("drop", &config.drop)?,
            omit_empty: config.omit_empty,
        };
        contradictions::refuse(&steps)?;
        Ok(steps)
    }

    /// The members that are set or dropped.
    fn edited(&self) -> impl Iterator<Item = &Path> {
        let computed = self.compute.iter().map(|(path, _)| path);
        computed.chain(self.set.iter().map(|(path, _)| path)).chain(&self.drop)
    }

    /// Whether the host can make them: members are set and dropped, none of which is inside another. It would leave an
    /// element of an array where it is that is to be dropped.
    fn are_edits(&self) -> bool {
        let others_stay = self.rename.is_empty() && self.pick.is_empty() && !self.omit_empty;
        let are_apart = self.edited().all(|path| self.edited().all(|other| !path.crosses(other)));
        others_stay && are_apart && !self.drop.iter().any(Path::may_be_element)
    }

    fn edit(&self, names: &mut Names, edits: &[Edit], out: &mut Out<'_>) {
        let mut edits = edits.iter().copied();
        for ((_, expression), edit) in self.compute.iter().zip(&mut edits) {
            match names.evaluate(expression) {
                Some(Computed::Number(number)) => out.set(edit, number),
                Some(Computed::Truth(truth)) => out.set(edit, truth),
                None => {}
            }
        }
        for ((_, json), edit) in self.set.iter().zip(&mut edits) {
            out.set(edit, Value::of_checked(json.as_bytes()));
        }
        edits.for_each(|edit| out.remove(edit));
    }

    /// What becomes of a message.
    ///
    /// # Errors
    /// It has no object for a member that is to be set, or something that is to go would stay.
    fn make<'a>(&'a self, names: &mut Names, mut node: Node<'a>) -> Result<Node<'a>> {
        for (path, expression) in &self.compute {
            match names.evaluate(expression) {
                Some(Computed::Number(number)) => node.set(path, &Node::Number(number))?,
                Some(Computed::Truth(truth)) => node.set(path, &Node::Truth(truth))?,
                None => {}
            }
        }
        for (path, json) in &self.set {
            node.set(path, &Node::Raw(Value::of_checked(json.as_bytes())))?;
        }
        // All are taken before one is put, so that two may change places.
        let renamed: Vec<_> = self.rename.iter().map(|(from, to)| (to, node.take(from))).collect();
        for (to, taken) in renamed {
            taken.map_or(Ok(()), |taken| node.set(to, &taken))?;
        }
        if !self.pick.is_empty() {
            node.pick(&self.pick)?;
        }
        for path in &self.drop {
            node.drop_member(path)?;
        }
        if self.omit_empty {
            node.omit_empty();
        }
        Ok(node)
    }
}

#[cfg(test)]
mod tests;
