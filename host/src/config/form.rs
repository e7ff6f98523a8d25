//! What the value of a key may be: strings, numbers, durations, sizes, words, lists and tables. Those that
//! one key alone has stand beside its table.

use super::interpolate::Files;
use super::json;
use super::read::{
    Becomes, Form, Item, Read, Table, TableReader, Words, describe, in_file_order, integer, wide_integer,
};
use super::report::Span;
use super::shape::Kind;
use super::units::{parse_duration, parse_size, show_duration, show_size};
use super::{EndpointText, FilePath, PluginConfig, Redacted};
use std::marker::PhantomData;
use std::time::Duration;
use toml::de::DeValue;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const TIB: u64 = 1 << 40;
/// Offsets into a batch are 32 bits wide; this leaves room for one large message beside a full one.
const MOST_BYTES: u64 = GIB;
/// Queues and batches are counted in memory: more messages than this is a slip of the pen.
pub(super) const MOST_MESSAGES: i64 = 10_000_000;
const MOST_CONNECTIONS: i64 = 10_000_000;

/// Bytes of a message, or of a batch.
pub(super) type Bytes = Memory<1, MOST_BYTES>;
/// Messages of a queue.
pub(super) type QueueLength = Count<1, MOST_MESSAGES>;
pub(super) type ConnectionCount = Count<1, MOST_CONNECTIONS>;

fn quoted(text: impl std::fmt::Display) -> String {
    format!("\"{text}\"")
}

/// What a string is that stands for something.
pub(super) trait Element {
    type Value;
    const TAKES_FILES: bool = false;

    /// `None` where it is none, which is reported; `key` is what errors name.
    fn of(reader: &mut TableReader<'_, '_>, key: &str, text: EndpointText, at: &Span) -> Option<Self::Value>;

    fn show(value: &Self::Value) -> String;
}

/// One string.
pub(super) struct One<E>(PhantomData<E>);

impl<E: Element> Form for One<E> {
    type Value = E::Value;
    type At = Span;
    const TAKES_FILES: bool = E::TAKES_FILES;
    const KIND: Kind = Kind::Text;

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let text = reader.text(key, Self::KIND, E::TAKES_FILES, value)?;
        Some((E::of(reader, key, text, &value.span())?, value.span()))
    }

    fn show(value: &E::Value) -> String {
        E::show(value)
    }
}

/// Any string.
pub(super) struct AnyText;

/// A string.
pub(super) type Text = One<AnyText>;

impl Element for AnyText {
    type Value = Redacted;

    fn of(_: &mut TableReader<'_, '_>, _: &str, text: EndpointText, _: &Span) -> Option<Redacted> {
        Some(text.known().clone())
    }

    fn show(value: &Redacted) -> String {
        quoted(value)
    }
}

/// Any string that the texts of files may stand in.
pub(super) struct AnyTextOfFiles;

/// A string that the texts of files may stand in.
pub(super) type TextOfFiles = One<AnyTextOfFiles>;

impl Element for AnyTextOfFiles {
    type Value = EndpointText;
    const TAKES_FILES: bool = true;

    fn of(_: &mut TableReader<'_, '_>, _: &str, text: EndpointText, _: &Span) -> Option<EndpointText> {
        Some(text)
    }

    fn show(value: &EndpointText) -> String {
        quoted(value)
    }
}

/// The path of a file or folder, relative to the configuration file.
pub(super) struct PathOf;

impl Form for PathOf {
    type Value = FilePath;
    type At = Span;
    const KIND: Kind = Kind::Path;

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let text = reader.text(key, Self::KIND, false, value)?;
        if text.known().expose().is_empty() {
            reader.report.error(&value.span(), format!("`{key}` is empty"));
            return None;
        }
        Some((reader.path(text.known()), value.span()))
    }

    fn show(value: &FilePath) -> String {
        quoted(value)
    }
}

/// `true` or `false`.
pub(super) struct Flag;

impl Form for Flag {
    type Value = bool;
    type At = Span;
    const KIND: Kind = Kind::Bool;

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let flag =
            reader.scalar(key, Self::KIND, value, |value| value.as_bool(), |text| text.parse().ok())?;
        Some((flag, value.span()))
    }

    fn show(value: &bool) -> String {
        value.to_string()
    }
}

/// A whole number, both ends included.
pub(super) struct Whole<T, const LEAST: i64, const MOST: i64>(PhantomData<T>);

/// How many; not negative.
pub(super) type Count<const LEAST: i64, const MOST: i64> = Whole<usize, LEAST, MOST>;
/// A port; 0 takes a free one.
pub(super) type Port = Whole<u16, 0, { u16::MAX as i64 }>;

fn integer_of<F: Form>(
    reader: &mut TableReader<'_, '_>,
    key: &str,
    value: &Item<'_>,
    range: (i64, i64),
) -> Option<i64> {
    let written = |value: &DeValue<'_>| value.as_integer().map(wide_integer);
    let number = reader.scalar(key, F::KIND, value, written, |text| text.parse().ok())?;
    reader.within(key, &value.span(), &number, (range.0.into(), range.1.into()), i128::to_string)?;
    i64::try_from(number).ok()
}

impl<T: TryFrom<i64> + ToString, const LEAST: i64, const MOST: i64> Form for Whole<T, LEAST, MOST> {
    type Value = T;
    type At = Span;
    const KIND: Kind = Kind::Integer(LEAST, MOST);

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let number = integer_of::<Self>(reader, key, value, (LEAST, MOST))?;
        Some((T::try_from(number).ok()?, value.span()))
    }

    fn show(value: &T) -> String {
        value.to_string()
    }
}

/// How many at most; -1 is no limit.
pub(super) struct Limit;

impl Form for Limit {
    type Value = Option<u32>;
    type At = Span;
    const KIND: Kind = Kind::Integer(-1, u32::MAX as i64);

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let number = integer_of::<Self>(reader, key, value, (-1, u32::MAX.into()))?;
        Some((u32::try_from(number).ok(), value.span()))
    }

    fn show(value: &Option<u32>) -> String {
        value.map_or("-1".to_owned(), |limit| limit.to_string())
    }
}

/// A share of a whole: 0 to 1.
pub(super) struct Fraction;

impl Form for Fraction {
    type Value = f64;
    type At = Span;
    const KIND: Kind = Kind::Number(0.0, 1.0);

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let share = reader.scalar(key, Self::KIND, value, as_number, |text| text.parse().ok())?;
        reader.within(key, &value.span(), &share, (0.0, 1.0), f64::to_string)?;
        Some((share, value.span()))
    }

    fn show(value: &f64) -> String {
        value.to_string()
    }
}

/// A duration of at least so many nanoseconds.
pub(super) struct Lasting<const LEAST: u64>;

/// A duration that may be nothing.
pub(super) type AnyDuration = Lasting<0>;
/// A duration that must be something.
pub(super) type SomeDuration = Lasting<1>;

impl<const LEAST: u64> Form for Lasting<LEAST> {
    type Value = Duration;
    type At = Span;
    const KIND: Kind = Kind::Duration(Duration::from_nanos(LEAST));

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let duration = reader.unit(key, Self::KIND, value, parse_duration)?;
        if duration < Duration::from_nanos(LEAST) {
            let message = format!("`{key}` must be longer than {}", show_duration(duration));
            reader.report.error(&value.span(), message);
            return None;
        }
        Some((duration, value.span()))
    }

    fn show(value: &Duration) -> String {
        quoted(show_duration(*value))
    }
}

/// A size in bytes, both ends included.
pub(super) struct SizeOf<T, const LEAST: u64, const MOST: u64>(PhantomData<T>);

/// A size of something that is not held in memory.
pub(super) type Size<const LEAST: u64, const MOST: u64> = SizeOf<u64, LEAST, MOST>;
/// A size of something that is held in memory.
pub(super) type Memory<const LEAST: u64, const MOST: u64> = SizeOf<usize, LEAST, MOST>;

impl<T: TryFrom<u64> + TryInto<u64> + Copy, const LEAST: u64, const MOST: u64> Form
    for SizeOf<T, LEAST, MOST>
{
    type Value = T;
    type At = Span;
    const KIND: Kind = Kind::Size(LEAST, MOST);

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let bytes = reader.unit(key, Self::KIND, value, parse_size)?;
        reader.within(key, &value.span(), &bytes, (LEAST, MOST), |bytes| show_size(*bytes))?;
        Some((T::try_from(bytes).ok()?, value.span()))
    }

    fn show(value: &T) -> String {
        quoted(show_size((*value).try_into().unwrap_or(MOST)))
    }
}

/// One of a few strings.
pub(super) struct Word<W>(PhantomData<W>);

impl<W: Words> Form for Word<W> {
    type Value = W;
    type At = Span;
    const KIND: Kind = Kind::OneOf(words::<W>);

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let at = value.span();
        let text = reader.text(key, Self::KIND, false, value)?;
        let meant = W::all().into_iter().find(|(word, _)| *word == text.known().expose());
        if meant.is_none() {
            match W::LATER.iter().find(|word| **word == text.known().expose()) {
                Some(word) => reader.word_not_built(key, word, &at),
                None => reader.not_one_of(key, text.known(), &words::<W>(), &at),
            }
        }
        meant.map(|(_, meant)| (meant, at))
    }

    fn show(value: &W) -> String {
        let word = W::all().into_iter().find(|(_, meant)| meant == value);
        quoted(word.map_or("", |(word, _)| word))
    }
}

fn words<W: Words>() -> Vec<&'static str> {
    W::all().into_iter().map(|(word, _)| word).collect()
}

/// Where a list, or a table of strings, is written.
#[derive(Clone, Debug)]
pub(super) struct ListAt {
    pub(super) whole: Span,
    /// Where each of its values is that is right; in a table, where each name is.
    pub(super) each: Vec<Span>,
    /// How many are written, right or wrong.
    pub(super) written: usize,
}

/// A list of strings.
pub(super) struct List<E>(PhantomData<E>);

impl<E: Element> Form for List<E> {
    type Value = Vec<E::Value>;
    type At = ListAt;
    const TAKES_FILES: bool = E::TAKES_FILES;
    const KIND: Kind = Kind::Texts;

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let texts = reader.texts(key, Self::KIND, E::TAKES_FILES, value)?;
        let mut values = Vec::with_capacity(texts.len());
        let mut at = ListAt { whole: value.span(), each: Vec::new(), written: texts.len() };
        for (text, place) in texts {
            if let Some(value) = E::of(reader, key, text, &place) {
                values.push(value);
                at.each.push(place);
            }
        }
        Some((values, at))
    }

    fn show(value: &Vec<E::Value>) -> String {
        let elements: Vec<_> = value.iter().map(E::show).collect();
        format!("[{}]", elements.join(", "))
    }
}

/// What the names and strings of a table of strings are.
pub(super) trait MapEntry {
    type Value;
    const TAKES_FILES: bool = false;

    /// `None` where it is none, which is reported.
    fn of(reader: &mut TableReader<'_, '_>, name: &str, text: EndpointText, at: &Span)
    -> Option<Self::Value>;
}

/// A table of strings.
pub(super) struct Map<E>(PhantomData<E>);

impl<E: MapEntry> Form for Map<E> {
    type Value = Vec<(String, E::Value)>;
    type At = ListAt;
    const TAKES_FILES: bool = E::TAKES_FILES;
    const KIND: Kind = Kind::Map;

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let written = in_file_order(reader.entries(key, Self::KIND, value)?);
        let mut entries = Vec::new();
        let mut at = ListAt { whole: value.span(), each: Vec::new(), written: written.len() };
        let files = if E::TAKES_FILES { Files::Secret } else { Files::Refused };
        for (name, value) in written {
            let place = value.span();
            let DeValue::String(text) = value.get_ref() else {
                let got = describe(value.get_ref());
                reader.report.error(&place, format!("`{}` must be a string, got {got}", name.get_ref()));
                continue;
            };
            let Some(filled) = reader.fill(name.get_ref(), files, text, &place) else { continue };
            if let Some(value) = E::of(reader, name.get_ref(), filled.text, &name.span()) {
                entries.push((name.get_ref().to_string(), value));
                at.each.push(name.span());
            }
        }
        Some((entries, at))
    }

    fn show(_: &Self::Value) -> String {
        "{}".to_owned()
    }
}

/// Any table, as JSON, in which files are data that is read for it.
pub(super) struct JsonWithData;

impl Form for JsonWithData {
    type Value = PluginConfig;
    type At = Span;
    const TAKES_FILES: bool = true;
    const KIND: Kind = Kind::Json;

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        reader.entries(key, Self::KIND, value)?;
        let mut json = EndpointText::plain("");
        if !json::write(reader, Files::Data, key, value, &mut json) {
            return None;
        }
        match PluginConfig::read(json) {
            Ok(config) => Some((config, value.span())),
            Err(error) => {
                reader.report.error(&value.span(), format!("`{key}`: {error}"));
                None
            }
        }
    }

    fn show(value: &PluginConfig) -> String {
        value.to_string()
    }
}

/// Any table, as JSON, in which files are secrets that are read whenever it is used.
pub(super) struct JsonWithSecrets;

impl Form for JsonWithSecrets {
    type Value = EndpointText;
    type At = Span;
    const TAKES_FILES: bool = true;
    const KIND: Kind = Kind::Json;

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        reader.entries(key, Self::KIND, value)?;
        let mut json = EndpointText::plain("");
        let is_right = json::write(reader, Files::Secret, key, value, &mut json);
        is_right.then(|| (json, value.span()))
    }

    fn show(value: &EndpointText) -> String {
        value.shown().to_owned()
    }
}

/// Messages: strings, and tables that stand for their JSON.
pub(super) struct Messages;

impl Form for Messages {
    type Value = Vec<EndpointText>;
    type At = Span;
    const TAKES_FILES: bool = true;
    const KIND: Kind = Kind::Messages;

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let messages = reader.array(key, Self::KIND, value)?.iter().map(|message| match message.get_ref() {
            DeValue::Table(_) => {
                let mut json = EndpointText::plain("");
                json::write(reader, Files::Secret, key, message, &mut json).then_some(json)
            }
            _ => reader.text(key, Self::KIND, true, message),
        });
        let messages: Vec<_> = messages.collect();
        Some((messages.into_iter().collect::<Option<_>>()?, value.span()))
    }

    fn show(_: &Vec<EndpointText>) -> String {
        "[]".to_owned()
    }
}

/// A table.
pub(super) struct Sub<T>(PhantomData<T>);

impl<T: Table> Form for Sub<T> {
    type Value = T;
    type At = T::At;
    const KIND: Kind = Kind::Table(T::shape);

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let table = reader.entries(key, Self::KIND, value)?;
        Some(reader.table(table, &value.span()))
    }

    fn show(_: &T) -> String {
        "{}".to_owned()
    }
}

/// A table that the host has in another form.
pub(super) struct SubAs<K, T>(PhantomData<(K, T)>);

impl<T, K: Becomes<T>> Form for SubAs<K, T> {
    type Value = T;
    type At = K::At;
    const KIND: Kind = Kind::Table(K::shape);

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        Sub::<K>::read(reader, key, value).map(|(table, at)| (table.become_it(), at))
    }

    fn show(_: &T) -> String {
        "{}".to_owned()
    }
}

/// An array of tables.
pub(super) struct Subs<T>(PhantomData<T>);

/// Where an array of tables is written, and where the keys of each are.
#[derive(Clone, Debug)]
pub(super) struct SubsAt<A> {
    pub(super) whole: Span,
    pub(super) each: Vec<A>,
}

impl<T: Table> Form for Subs<T> {
    type Value = Vec<T>;
    type At = SubsAt<T::At>;
    const KIND: Kind = Kind::Tables(T::shape);

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let mut tables = Vec::new();
        let mut at = SubsAt { whole: value.span(), each: Vec::new() };
        for element in reader.array(key, Self::KIND, value)?.iter() {
            let table = reader.entries(key, Self::KIND, element)?;
            let (table, places) = reader.table(table, &element.span());
            tables.push(table);
            at.each.push(places);
        }
        Some((tables, at))
    }

    fn show(_: &Vec<T>) -> String {
        "[]".to_owned()
    }
}

fn as_number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(number) => number.as_str().parse().ok(),
        #[expect(clippy::cast_precision_loss, reason = "a number with a unit range has few digits")]
        DeValue::Integer(number) => integer(number).map(|number| number as f64),
        _ => None,
    }
}
