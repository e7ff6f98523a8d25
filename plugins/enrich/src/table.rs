//! The table of a configuration: rows by their key, each as what it adds to a message.

use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use tidemill_plugin::csv::Separator;
use tidemill_plugin::json::{Fields, Kind, Value};
use tidemill_plugin::{Description, Edit, Result};

/// What some programs write at the start of a file in UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// Lines of CSV, of which the first names the columns.
    Csv,
    /// A list of objects.
    Json,
}

/// Rows by their key.
#[derive(Debug)]
pub(crate) struct Table {
    rows: HashMap<Box<str>, Row>,
}

/// What a row adds: members and their values as JSON.
#[derive(Clone, Debug)]
pub(crate) struct Row(Vec<(Edit, Box<str>)>);

/// Where the columns of rows go.
pub(crate) struct Members<'d> {
    /// The member that gets the whole row, if there is one; otherwise each column becomes a member.
    into: Option<Edit>,
    columns: HashMap<String, Edit>,
    description: &'d mut Description,
}

impl<'d> Members<'d> {
    pub(crate) fn try_of(into: Option<&str>, description: &'d mut Description) -> Result<Self> {
        let into = match into {
            None => None,
            Some("") => {
                return Err("`into`: \"\" is the whole message, and a member is meant, like \"/info\"".into());
            }
            Some(pointer) => Some(description.edit(pointer).map_err(|error| format!("`into`: {error}"))?),
        };
        Ok(Self { into, columns: HashMap::new(), description })
    }

    /// What a row adds that has these columns, their values as JSON.
    fn row(&mut self, columns: Vec<(Cow<'_, str>, String)>) -> Result<Row> {
        if let Some(into) = self.into {
            let members = columns.iter().map(|(name, json)| format!("{}:{json}", quoted(name)));
            let object = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
            return Ok(Row(vec![(into, object.into())]));
        }
        let mut members = Vec::with_capacity(columns.len());
        for (name, json) in columns {
            let edit = match self.columns.get(name.as_ref()) {
                Some(edit) => *edit,
                None => {
                    let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
                    *self.columns.entry(name.into_owned()).or_insert(self.description.edit(&pointer)?)
                }
            };
            members.push((edit, json.into()));
        }
        Ok(Row(members))
    }
}

impl Table {
    /// Reads a table, of which the column `key` is the key.
    ///
    /// # Errors
    /// It is not of the format, has no such column, or a key twice; the text names the row.
    pub(crate) fn parse(text: &str, format: Format, key: &str, members: &mut Members<'_>) -> Result<Self> {
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        match format {
            Format::Csv => Self::of_csv(text, key, members),
            Format::Json => Self::of_json(text, key, members),
        }
    }

    fn of_csv(text: &str, key: &str, members: &mut Members<'_>) -> Result<Self> {
        let mut records = Separator::default().records(text);
        let Some(names) = records.next().transpose().map_err(|error| format!("`table`: {error}"))? else {
            return Err("`table` is empty: its first line names the columns".into());
        };
        let Some(place) = names.iter().position(|name| name == key) else {
            return Err(
                format!("`table` has no column {key:?}, which `key` names, but {}", listed(&names)).into()
            );
        };
        if let Some(twice) = names.iter().enumerate().find(|(nth, name)| names[..*nth].contains(name)) {
            return Err(format!("`table` has two columns {:?}", twice.1).into());
        }
        let mut table = Self { rows: HashMap::new() };
        for (record, number) in records.zip(2..) {
            let record = record.map_err(|error| format!("`table`: {error}"))?;
            if let [field] = &record[..]
                && field.is_empty()
                && names.len() > 1
            {
                // A blank line, such as one at the end.
                continue;
            }
            if record.len() != names.len() {
                let (fields, columns) = (record.len(), names.len());
                return Err(format!(
                    "`table`: row {number} has {fields} fields, and there are {columns} columns"
                )
                .into());
            }
            let others = names.iter().zip(&record).enumerate().filter(|(nth, _)| *nth != place);
            let columns = others.map(|(_, (name, field))| (name.as_ref().into(), quoted(field)));
            table.add(&record[place], number, members.row(columns.collect())?)?;
        }
        Ok(table)
    }

    /// Values stay as they are written, whatever their numbers are.
    fn of_json(text: &str, key: &str, members: &mut Members<'_>) -> Result<Self> {
        let wrong = |why: &str| format!("`table` is no JSON list of objects, one for each row: {why}");
        let mut fields = Fields::default();
        let whole = fields.add("")?;
        let found = fields.find(text).map_err(|error| wrong(&error.to_string()))?;
        let Some(rows) = found.get(whole).filter(|rows| rows.kind() == Kind::Array) else {
            return Err(wrong("it is something else").into());
        };
        let mut table = Self { rows: HashMap::new() };
        for (row, number) in rows.elements().zip(1..) {
            if row.kind() != Kind::Object {
                return Err(wrong(&format!("row {number} is something else")).into());
            }
            let mut label = None;
            let mut columns: Vec<(Cow<'_, str>, String)> = Vec::new();
            for (name, value) in row.members() {
                let name = name
                    .string()
                    .ok_or_else(|| wrong(&format!("row {number} has a name that is no text")))?;
                if columns.iter().any(|(known, _)| *known == name) || name == key && label.is_some() {
                    return Err(format!("`table`: row {number} has {name:?} twice").into());
                }
                if name == key {
                    label = Some(value.label());
                } else {
                    columns.push((name, compact(value.raw())));
                }
            }
            let label =
                label.ok_or_else(|| format!("`table`: row {number} has no {key:?}, which `key` names"))?;
            table.add(&label, number, members.row(columns)?)?;
        }
        Ok(table)
    }

    fn add(&mut self, key: &str, number: usize, row: Row) -> Result {
        match self.rows.entry(key.into()) {
            Entry::Vacant(place) => drop(place.insert(row)),
            Entry::Occupied(_) => {
                return Err(
                    format!("`table`: row {number} has the key {key:?}, which a row before it has").into()
                );
            }
        }
        Ok(())
    }

    /// The row of a key.
    #[inline]
    pub(crate) fn row(&self, key: &str) -> Option<&Row> {
        self.rows.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

impl Row {
    /// The members that it sets, and their values.
    pub(crate) fn members(&self) -> impl Iterator<Item = (Edit, Value<'_>)> {
        self.0.iter().map(|(edit, json)| (*edit, Value::of_checked(json.as_bytes())))
    }
}

fn listed<S: AsRef<str>>(names: &[S]) -> String {
    names.iter().map(|name| format!("{:?}", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// A text as JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// JSON without the blanks around its values, of which a message may be one line.
fn compact(json: &[u8]) -> String {
    let (mut is_in_string, mut is_escaped) = (false, false);
    let is_kept = |byte: &u8| {
        let is_kept = is_in_string || !byte.is_ascii_whitespace();
        is_in_string ^= *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_kept
    };
    let bytes = json.iter().copied().filter(is_kept).collect();
    String::from_utf8(bytes).expect("of UTF-8 only blanks were left out")
}
