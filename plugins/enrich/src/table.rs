//! The table of a configuration: rows by their key, each as what it adds to a message.

use serde::Deserialize;
use serde_json::Value as Tree;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use tidemill_plugin::csv::Separator;
use tidemill_plugin::json::Value;
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

    /// What a row adds that has these columns.
    fn row(&mut self, columns: Vec<(&str, Tree)>) -> Result<Row> {
        if let Some(into) = self.into {
            let object: Tree = columns.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            return Ok(Row(vec![(into, object.to_string().into())]));
        }
        let mut members = Vec::with_capacity(columns.len());
        for (name, value) in columns {
            let edit = match self.columns.get(name) {
                Some(edit) => *edit,
                None => {
                    let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
                    *self.columns.entry(name.to_owned()).or_insert(self.description.edit(&pointer)?)
                }
            };
            members.push((edit, value.to_string().into()));
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
            let columns = others.map(|(_, (name, field))| (name.as_ref(), Tree::from(field.as_ref())));
            table.add(&record[place], number, members.row(columns.collect())?)?;
        }
        Ok(table)
    }

    fn of_json(text: &str, key: &str, members: &mut Members<'_>) -> Result<Self> {
        let rows: Vec<serde_json::Map<String, Tree>> = serde_json::from_str(text)
            .map_err(|error| format!("`table` is no JSON list of objects, one for each row: {error}"))?;
        let mut table = Self { rows: HashMap::new() };
        for (row, number) in rows.iter().zip(1..) {
            let value = row
                .get(key)
                .ok_or_else(|| format!("`table`: row {number} has no {key:?}, which `key` names"))?;
            let json = value.to_string();
            let label = Value::of_checked(json.as_bytes()).label();
            let columns = row
                .iter()
                .filter(|(name, _)| *name != key)
                .map(|(name, value)| (name.as_str(), value.clone()));
            table.add(&label, number, members.row(columns.collect())?)?;
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
