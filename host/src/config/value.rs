//! Checks one value against its kind, with the variables of its strings filled in.

use super::check::Checker;
use super::interpolate::{Filled, Problem, fill};
use super::section::{Section, Span, Value};
use super::shape::{Key, Kind, Word, nearest};
use super::units::{parse_duration, parse_size, show_duration, show_size};
use super::{EndpointText, FilePath, Redacted, json};
use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

impl Checker<'_, '_> {
    /// The value of a key, if it is right; otherwise the errors are reported.
    pub(super) fn value(&mut self, key: &Key, value: &Spanned<DeValue<'_>>) -> Option<Value> {
        let at = &value.span();
        match key.kind {
            Kind::Text => self.text(key, value).map(Value::Text),
            Kind::Path => {
                let text = self.text(key, value)?.known().clone();
                if text.expose().is_empty() {
                    self.report.error(at, format!("`{}` is empty", key.name));
                    return None;
                }
                Some(Value::Path(FilePath::relative_to(self.report.folder(), &text)))
            }
            Kind::Bool => {
                self.scalar(key, value, |value| value.as_bool(), |text| text.parse().ok()).map(Value::Bool)
            }
            Kind::Integer(least, most) => {
                let integer = self.scalar(key, value, as_integer, |text| text.parse().ok())?;
                self.within(key, at, &integer, &least, &most, i64::to_string)?;
                Some(Value::Integer(integer))
            }
            Kind::Number(least, most) => {
                let number = self.scalar(key, value, as_number, |text| text.parse().ok())?;
                self.within(key, at, &number, &least, &most, f64::to_string)?;
                Some(Value::Number(number))
            }
            Kind::Duration(least) => {
                let duration = self.unit(key, value, parse_duration)?;
                if duration < least {
                    self.report
                        .error(at, format!("`{}` must be longer than {}", key.name, show_duration(duration)));
                    return None;
                }
                Some(Value::Duration(duration))
            }
            Kind::Size(least, most) => {
                let bytes = self.unit(key, value, parse_size)?;
                self.within(key, at, &bytes, &least, &most, |bytes| show_size(*bytes))?;
                Some(Value::Size(bytes))
            }
            Kind::OneOf(words) => {
                let text = self.text(key, value)?;
                self.word(key, words, text.known(), at)?;
                Some(Value::Text(text))
            }
            Kind::Texts => self.texts(key, value).map(Value::Texts),
            Kind::TextOrTexts if value.get_ref().is_str() => {
                self.text(key, value).map(|text| Value::Texts(vec![(text, at.clone())]))
            }
            Kind::TextOrTexts => {
                let texts = self.texts(key, value)?;
                if texts.is_empty() {
                    self.report.error(at, format!("`{}` is empty", key.name));
                    return None;
                }
                Some(Value::Texts(texts))
            }
            Kind::Messages => {
                let messages = self.array(key, value)?.iter().map(|message| match message.get_ref() {
                    DeValue::Table(_) => self.json(key, message),
                    _ => self.text(key, message),
                });
                let messages: Vec<_> = messages.collect();
                let with_place = |message: Option<EndpointText>| Some((message?, at.clone()));
                messages.into_iter().map(with_place).collect::<Option<_>>().map(Value::Texts)
            }
            Kind::Map => {
                let mut map = Vec::new();
                for (name, value) in super::check::in_file_order(self.table(key, value)?) {
                    let at = value.span();
                    let DeValue::String(text) = value.get_ref() else {
                        let got = describe(value.get_ref());
                        self.report.error(&at, format!("`{}` must be a string, got {got}", name.get_ref()));
                        continue;
                    };
                    if let Some(filled) = self.fill(name.get_ref(), key.takes_files, text, &at) {
                        map.push((name.get_ref().to_string(), filled.text, name.span()));
                    }
                }
                Some(Value::Map(map))
            }
            Kind::Json => {
                self.table(key, value)?;
                self.json(key, value).map(Value::Json)
            }
            Kind::Table(shape) => {
                let table = self.table(key, value)?;
                Some(Value::Section(self.section(shape, table, at)))
            }
            Kind::Tables(shape) => {
                let mut sections = Vec::new();
                for element in self.array(key, value)?.iter() {
                    let table = self.table(key, element)?;
                    sections.push(self.section(shape, table, &element.span()));
                }
                Some(Value::Sections(sections))
            }
        }
    }

    /// What stands for a key that is left out. `keys.rs` is tested to have defaults of the right kind.
    pub(super) fn default(&mut self, key: &Key, text: &str, header: &Span) -> Value {
        let inner = text.trim_matches(['[', ']']);
        match key.kind {
            Kind::Text | Kind::OneOf(_) => Value::Text(EndpointText::plain(text)),
            Kind::Path => Value::Path(FilePath::relative_to(self.report.folder(), &Redacted::plain(text))),
            Kind::Bool => Value::Bool(text == "true"),
            Kind::Integer(..) => Value::Integer(text.parse().unwrap_or_default()),
            Kind::Number(..) => Value::Number(text.parse().unwrap_or_default()),
            Kind::Duration(_) => Value::Duration(parse_duration(text).unwrap_or_default()),
            Kind::Size(..) => Value::Size(parse_size(text).unwrap_or_default()),
            Kind::Texts | Kind::TextOrTexts | Kind::Messages => {
                let texts = inner.split(',').filter(|text| !text.is_empty());
                Value::Texts(texts.map(|text| (EndpointText::plain(text), header.clone())).collect())
            }
            Kind::Map => Value::Map(Vec::new()),
            Kind::Json => Value::Json(EndpointText::plain(text)),
            Kind::Table(shape) => Value::Section(self.section(shape, &DeTable::new(), header)),
            Kind::Tables(_) => Value::Sections(Vec::<Section>::new()),
        }
    }

    /// A string with its variables filled in.
    pub(super) fn text(&mut self, key: &Key, value: &Spanned<DeValue<'_>>) -> Option<EndpointText> {
        match value.get_ref() {
            DeValue::String(text) => {
                self.fill(key.name, key.takes_files, text, &value.span()).map(|filled| filled.text)
            }
            _ => self.wrong_type(key, key.kind.describe(), value),
        }
    }

    /// A string with its variables filled in; `key` is what errors name.
    pub(super) fn fill(&mut self, key: &str, takes_files: bool, text: &str, at: &Span) -> Option<Filled> {
        let problems = match fill(text, self.environment, self.report.folder()) {
            Ok(filled) if filled.text.has_files() && !takes_files => {
                self.report.error_with_hint(
                    at,
                    format!("`${{file:...}}` cannot be used in `{key}`"),
                    "only strings that an endpoint needs to connect are read from files",
                );
                return None;
            }
            Ok(filled) => return Some(filled),
            Err(problems) => problems,
        };
        let literal = "a literal `${` is written `$${`";
        for problem in problems {
            match problem {
                Problem::Unset(name) => self.report.error_with_hint(
                    at,
                    format!("the environment variable `{name}` of `{key}` is not set"),
                    format!("set it, or give a default: `${{{name}:-default}}`"),
                ),
                Problem::Unclosed => {
                    self.report.error_with_hint(at, format!("`${{` without `}}` in `{key}`"), literal);
                }
                Problem::Name(name) => self.report.error_with_hint(
                    at,
                    format!("`{name}` in `{key}` is not the name of an environment variable"),
                    literal,
                ),
                Problem::NoPath => {
                    self.report.error(at, format!("`${{file:}}` without a path in `{key}`"));
                }
            }
        }
        None
    }

    /// A number or a boolean, or a string that is one variable with such a value.
    fn scalar<T>(
        &mut self,
        key: &Key,
        value: &Spanned<DeValue<'_>>,
        written: impl Fn(&DeValue<'_>) -> Option<T>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let expected = key.kind.describe();
        let DeValue::String(text) = value.get_ref() else {
            return written(value.get_ref()).or_else(|| self.wrong_type(key, expected, value));
        };
        let filled = self.fill(key.name, false, text, &value.span())?;
        if !filled.is_one_variable {
            return self.wrong_type(key, expected, value);
        }
        parse(filled.text.known().expose().trim()).or_else(|| {
            let message = format!("`{}` must be {expected}, and what `{text}` stands for is not", key.name);
            self.report.error(&value.span(), message);
            None
        })
    }

    /// A string with a unit.
    fn unit<T>(
        &mut self,
        key: &Key,
        value: &Spanned<DeValue<'_>>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let expected = key.kind.describe();
        let DeValue::String(text) = value.get_ref() else { return self.wrong_type(key, expected, value) };
        let text = self.fill(key.name, false, text, &value.span())?.text;
        parse(text.known().expose()).or_else(|| {
            let message = format!("`{}` must be {expected}, got \"{text}\"", key.name);
            self.report.error(&value.span(), message);
            None
        })
    }

    fn texts(&mut self, key: &Key, value: &Spanned<DeValue<'_>>) -> Option<Vec<(EndpointText, Span)>> {
        let elements = self.array(key, value)?.iter();
        let texts: Vec<_> = elements.map(|text| Some((self.text(key, text)?, text.span()))).collect();
        texts.into_iter().collect()
    }

    /// A value as JSON, of which what came from variables is hidden.
    fn json(&mut self, key: &Key, value: &Spanned<DeValue<'_>>) -> Option<EndpointText> {
        let mut json = EndpointText::plain("");
        json::write(self, key, key.name, value, &mut json).then_some(json)
    }

    fn array<'v, 'i>(&mut self, key: &Key, value: &'v Spanned<DeValue<'i>>) -> Option<&'v DeArray<'i>> {
        value.get_ref().as_array().or_else(|| self.wrong_type(key, key.kind.describe(), value))
    }

    fn table<'v, 'i>(&mut self, key: &Key, value: &'v Spanned<DeValue<'i>>) -> Option<&'v DeTable<'i>> {
        value.get_ref().as_table().or_else(|| self.wrong_type(key, key.kind.describe(), value))
    }

    fn wrong_type<T>(&mut self, key: &Key, expected: &str, value: &Spanned<DeValue<'_>>) -> Option<T> {
        let message = format!("`{}` must be {expected}, got {}", key.name, describe(value.get_ref()));
        match (key.kind, value.get_ref()) {
            (Kind::Duration(_), DeValue::Integer(n)) => {
                self.report.error_with_hint(&value.span(), message, format!("write \"{n}ms\" or \"{n}s\""));
            }
            (Kind::Size(..), DeValue::Integer(n)) => {
                self.report.error_with_hint(&value.span(), message, format!("write \"{n}B\" or \"{n}KiB\""));
            }
            (Kind::Tables(_), DeValue::Table(_)) => {
                let hint = format!("write the header in double brackets: `[[pipelines.{}]]`", key.name);
                let hint = if key.name == "pipelines" { hint.replace("pipelines.", "") } else { hint };
                self.report.error_with_hint(&value.span(), message, hint);
            }
            (Kind::Table(_), DeValue::Array(_)) => {
                self.report.error_with_hint(&value.span(), message, "write the header in single brackets");
            }
            _ => self.report.error(&value.span(), message),
        }
        None
    }

    fn within<T: PartialOrd>(
        &mut self,
        key: &Key,
        at: &Span,
        value: &T,
        least: &T,
        most: &T,
        show: impl Fn(&T) -> String,
    ) -> Option<()> {
        if value >= least && value <= most {
            return Some(());
        }
        let (least, most) = (show(least), show(most));
        self.report.error(at, format!("`{}` must be between {least} and {most}", key.name));
        None
    }

    fn word(&mut self, key: &Key, words: &'static [Word], text: &Redacted, at: &Span) -> Option<()> {
        match words.iter().find(|word| word.text == text.expose()) {
            Some(word) if word.built => return Some(()),
            Some(word) => self.word_not_built(key, word.text, at),
            None => {
                self.not_one_of(key, text, words.iter().filter(|word| word.built).map(|word| word.text), at);
            }
        }
        None
    }

    pub(super) fn word_not_built(&mut self, key: &Key, word: &str, at: &Span) {
        self.report.error(at, format!("`{} = \"{word}\"` is not supported yet", key.name));
    }

    pub(super) fn not_one_of(
        &mut self,
        key: &Key,
        text: &Redacted,
        words: impl Iterator<Item = &'static str> + Clone,
        at: &Span,
    ) {
        let known: Vec<_> = words.clone().map(|word| format!("\"{word}\"")).collect();
        let message = format!("`{}` must be one of {}, got \"{text}\"", key.name, known.join(", "));
        match nearest(text.shown(), words) {
            Some(near) => self.report.error_with_hint(at, message, format!("did you mean \"{near}\"?")),
            None => self.report.error(at, message),
        }
    }
}

/// An integer as TOML writes it, if 64 bits hold it.
pub(super) fn integer(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn as_integer(value: &DeValue<'_>) -> Option<i64> {
    value.as_integer().and_then(integer)
}

fn as_number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(number) => number.as_str().parse().ok(),
        #[expect(clippy::cast_precision_loss, reason = "a number with a unit range has few digits")]
        DeValue::Integer(number) => integer(number).map(|number| number as f64),
        _ => None,
    }
}

fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
