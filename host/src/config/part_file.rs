//! A part of a configuration in a file of its own, TOML or JSON by its ending, as the HTTP API takes it: JSON, and
//! where in the file each value of it stands.
//!
//! Nothing is filled in and nothing is checked but that it is TOML or JSON: the host that gets it does that, and
//! names what is wrong by JSON pointers.

use super::body::Mistake;
use super::error::{ConfigError, ConfigErrors, LineIndex};
use super::file::{BYTE_ORDER_MARK, syntax};
use super::read::{in_file_order, integer};
use super::report::{Report, Span};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The name of the list that a pipeline stands in in a configuration.
const PIPELINES: &str = "pipelines";

/// A table in a file of its own.
#[derive(Clone, Debug)]
pub(crate) struct PartFile {
    path: PathBuf,
    text: String,
    json: String,
    /// Where the values of the JSON stand in the text, by their pointers.
    places: BTreeMap<String, Span>,
}

impl PartFile {
    /// Reads a file that has one table.
    ///
    /// # Errors
    /// It cannot be read, or is neither TOML nor JSON.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let bytes = std::fs::read(path)
            .map_err(|error| ConfigErrors::whole(path, format!("failed to read the file: {error}"), None))?;
        Self::parse(path, &bytes)
    }

    /// Reads a file that has one pipeline, alone or as the only one of `[[pipelines]]`.
    ///
    /// # Errors
    /// As [`PartFile::load`], or it has another number of pipelines, or something beside them.
    pub(crate) fn load_pipeline(path: &Path) -> Result<Self, ConfigErrors> {
        Self::load(path)?.of_list()
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, ConfigErrors> {
        let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        let text = std::str::from_utf8(bytes)
            .map_err(|_| ConfigErrors::whole(path, "the file is not UTF-8", None))?;
        let ending = path.extension().map(OsStr::to_ascii_lowercase);
        match ending.as_ref().and_then(|ending| ending.to_str()) {
            Some("toml") => Self::of_toml(path, text),
            Some("json") => Self::of_json(path, text),
            _ => {
                let hint = "its ending says what it is: `.toml` or `.json`".to_owned();
                Err(ConfigErrors::whole(path, "the file is neither TOML nor JSON", Some(hint)))
            }
        }
    }

    fn of_toml(path: &Path, text: &str) -> Result<Self, ConfigErrors> {
        let mut report = Report::of_file(path, text);
        let Some(document) = syntax(&mut report, text) else { return Err(report.into_errors()) };
        let mut written =
            WrittenJson { json: String::new(), pointer: String::new(), places: BTreeMap::new() };
        written.places.insert(String::new(), 0..0);
        written.table(document.get_ref(), &mut report);
        if !report.errors.is_empty() {
            return Err(report.into_errors());
        }
        let WrittenJson { json, places, .. } = written;
        Ok(Self { path: path.to_owned(), text: text.to_owned(), json, places })
    }

    fn of_json(path: &Path, text: &str) -> Result<Self, ConfigErrors> {
        if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
            let before = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len);
            let at = before.sum::<usize>() + error.column().saturating_sub(1);
            let mut report = Report::of_file(path, text);
            report.error(&(at..at + 1), format!("the file is not JSON: {error}"));
            return Err(report.into_errors());
        }
        let (text, json) = (text.to_owned(), text.to_owned());
        Ok(Self { path: path.to_owned(), text, json, places: BTreeMap::new() })
    }

    /// The pipeline, where the file is a list of one.
    fn of_list(self) -> Result<Self, ConfigErrors> {
        let Ok(mut whole) = serde_json::from_str::<BTreeMap<String, &RawValue>>(&self.json) else {
            return Ok(self);
        };
        let Some(list) = whole.remove(PIPELINES) else { return Ok(self) };
        let mistake = |pointer: String, message: String| Mistake { pointer, message, hint: None };
        let mut mistakes: Vec<_> = whole
            .keys()
            .map(|name| mistake(format!("/{name}"), format!("`{name}` is no part of a pipeline")))
            .collect();
        let list: Vec<&RawValue> = serde_json::from_str(list.get()).unwrap_or_default();
        if list.len() != 1 {
            let message = format!("the file has {} pipelines, and one is added at a time", list.len());
            mistakes.push(mistake(format!("/{PIPELINES}"), message));
        }
        let (true, [pipeline]) = (mistakes.is_empty(), &list[..]) else { return Err(self.errors(mistakes)) };
        let json = pipeline.get().to_owned();
        let first = format!("/{PIPELINES}/0");
        let inner = self
            .places
            .iter()
            .filter_map(|(pointer, place)| Some((pointer.strip_prefix(&first)?.to_owned(), place.clone())));
        let places = inner.collect();
        Ok(Self { json, places, ..self })
    }

    /// The table as JSON.
    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    /// What a host found wrong with it, where it stands in the file.
    pub(crate) fn errors(&self, mistakes: impl IntoIterator<Item = Mistake>) -> ConfigErrors {
        let lines = LineIndex::of(&self.text);
        let errors = mistakes.into_iter().map(|Mistake { pointer, message, hint }| {
            let span = self.span(&pointer);
            let message = match span {
                None if !pointer.is_empty() => format!("{pointer}: {message}"),
                _ => message,
            };
            ConfigError { file: self.path.clone(), place: span.map(|span| lines.place(span)), message, hint }
        });
        ConfigErrors::new(errors.collect())
    }

    /// Where a value stands, or what is around it.
    fn span(&self, pointer: &str) -> Option<Span> {
        let mut pointer = pointer;
        loop {
            if let Some(span) = self.places.get(pointer) {
                return Some(span.clone());
            }
            pointer = &pointer[..pointer.rfind('/')?];
        }
    }
}

/// JSON that is being written, and where its values come from.
struct WrittenJson {
    json: String,
    /// The pointer of the value that is being written.
    pointer: String,
    places: BTreeMap<String, Span>,
}

impl WrittenJson {
    fn value(&mut self, value: &Spanned<DeValue<'_>>, report: &mut Report<'_>) {
        self.places.insert(self.pointer.clone(), value.span());
        match value.get_ref() {
            DeValue::String(text) => self.json.push_str(&quoted(text)),
            DeValue::Integer(number) => match integer(number) {
                Some(number) => self.json.push_str(&number.to_string()),
                None => report.error(&value.span(), "the number is larger than 64 bits hold"),
            },
            DeValue::Float(number) => match number.as_str().parse::<f64>() {
                Ok(number) if number.is_finite() => {
                    self.json.push_str(&serde_json::Value::from(number).to_string());
                }
                _ => report.error(&value.span(), "the number is one that JSON does not have"),
            },
            DeValue::Boolean(value) => self.json.push_str(if *value { "true" } else { "false" }),
            DeValue::Datetime(date) => self.json.push_str(&quoted(&date.to_string())),
            DeValue::Array(elements) => {
                self.json.push('[');
                for (index, element) in elements.iter().enumerate() {
                    self.separate(index);
                    self.inner(&index.to_string(), element, report);
                }
                self.json.push(']');
            }
            DeValue::Table(table) => self.table(table, report),
        }
    }

    fn table(&mut self, table: &DeTable<'_>, report: &mut Report<'_>) {
        self.json.push('{');
        for (index, (name, value)) in in_file_order(table).into_iter().enumerate() {
            self.separate(index);
            self.json.push_str(&quoted(name.get_ref()));
            self.json.push(':');
            self.inner(name.get_ref(), value, report);
        }
        self.json.push('}');
    }

    /// A value one step further down.
    fn inner(&mut self, step: &str, value: &Spanned<DeValue<'_>>, report: &mut Report<'_>) {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&step.replace('~', "~0").replace('/', "~1"));
        self.value(value, report);
        self.pointer.truncate(length);
    }

    fn separate(&mut self, index: usize) {
        if index > 0 {
            self.json.push(',');
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str, text: &str) -> Result<PartFile, String> {
        let parsed = PartFile::parse(Path::new(name), text.as_bytes()).and_then(PartFile::of_list);
        parsed.map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_pipeline_stands_alone_or_as_the_only_one_of_a_list() {
        let bare = "name = \"p\"\n[source]\ntype = \"stdin\"\n[[sinks]]\ntype = \"stdout\"\nmax = 1.5\n";
        let json = r#"{"name":"p","source":{"type":"stdin"},"sinks":[{"type":"stdout","max":1.5}]}"#;
        let listed =
            bare.replace("[source]", "[pipelines.source]").replace("[[sinks]]", "[[pipelines.sinks]]");
        let listed = format!("[[pipelines]]\n{listed}");
        assert_eq!(parsed("p.toml", bare).expect("it is right").json(), json);
        assert_eq!(parsed("p.toml", &listed).expect("it is right").json(), json);
        assert_eq!(parsed("p.json", json).expect("it is right").json(), json);
        assert_eq!(parsed("P.TOML", bare).expect("it is right").json(), json);
        assert_eq!(parsed("P.Json", json).expect("it is right").json(), json);
        assert_eq!(
            parsed("p.json", &format!("{{\"pipelines\": [{json}]}}")).expect("it is right").json(),
            json
        );
    }

    #[test]
    fn what_a_host_finds_wrong_is_told_where_it_stands() {
        let text =
            "[[pipelines]]\nname = \"p\"\n  [pipelines.source]\n  type = \"stdin\"\n  codex = \"json\"\n";
        let mistake =
            |pointer: &str| Mistake { pointer: pointer.into(), message: "wrong".into(), hint: None };
        let file = parsed("p.toml", text).expect("it is TOML");
        let told = |pointer: &str| file.errors([mistake(pointer)]).to_string();
        assert!(told("/source/codex").starts_with("p.toml:5:11: wrong\n 5 |   codex = \"json\"\n"));
        assert!(told("/source/missing").starts_with("p.toml:3:3: wrong\n"), "{}", told("/source/missing"));
        assert!(told("/sinks").starts_with("p.toml:1:1: wrong\n"), "{}", told("/sinks"));
        let json = parsed("p.json", "{\"name\": \"p\"}").expect("it is JSON");
        assert_eq!(json.errors([mistake("/sinks")]).to_string(), "p.json: /sinks: wrong\n");
    }

    #[test]
    fn what_is_no_file_of_one_pipeline_is_told() {
        let cases = [
            ("p.toml", "name = \n", "p.toml:1:8: "),
            ("p.toml", "[[pipelines]]\n[[pipelines]]\n", "the file has 2 pipelines"),
            (
                "p.toml",
                "[server]\nport = 1\n[[pipelines]]\n",
                "p.toml:1:1: `server` is no part of a pipeline",
            ),
            ("p.json", "{\n \"name\": }", "p.json:2:10: the file is not JSON: "),
            ("p.json", "{\"pipelines\": []}", "the file has 0 pipelines"),
            ("p.yaml", "", "p.yaml: the file is neither TOML nor JSON\nhint: its ending"),
        ];
        for (name, text, told) in cases {
            let error = parsed(name, text).expect_err("it is none");
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
