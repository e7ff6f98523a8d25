//! The reference of every key, made of the declarations of the tables: what `docs/configuration.md` says
//! after its introduction.

use super::client::ClientTlsKeys;
use super::pipeline::{DeadLetter, Pipeline, SinkConfig, SourceConfig};
use super::read::Table as _;
use super::root::{Config, TABLES};
use super::server_tls::ServerTlsKeys;
use super::shape::{Absent, CaseOf, Key, Kind, Known, Shape, choices, known};
use super::units::show_size;
use std::ptr;

const ENDPOINTS: &str = "WebSocket endpoints";
const DEAD_LETTERS: &str = "[pipelines.dead_letter]";
/// A higher limit is none that anybody meets.
const OPEN_ENDED: i64 = 1_000_000;

/// What the keys that decide say, together.
type Choice = Vec<CaseOf>;

/// A key, and the choices under which a table may have it.
struct KeyRow {
    key: &'static Key,
    of: Vec<Choice>,
}

/// A text that grows by sections.
#[derive(Default)]
struct Reference {
    text: String,
    written: Vec<&'static Shape>,
}

/// Every key, in Markdown.
pub fn reference() -> String {
    let mut reference = Reference::default();
    let (source, sink) = (SourceConfig::shape(), SinkConfig::shape());
    let (sources, sinks) = (choices(&source.parts), choices(&sink.parts));
    let (mut of_sources, mut of_sinks) = (rows(source), rows(sink));
    let of_endpoints = in_common(&mut of_sources, &mut of_sinks);
    for (header, shape) in TABLES.map(|(header, shape)| (header, shape())) {
        if reference.written.iter().any(|written| ptr::eq(*written, shape)) {
            continue;
        }
        reference.heading(2, &format!("`{header}`"), doc_of(shape));
        if ptr::eq(shape, source) {
            reference.table(&of_sources, "type", &sources);
        } else if ptr::eq(shape, sink) {
            reference.table(&of_sinks, "type", &sinks);
        } else {
            reference.table(&rows(shape), "", &[]);
        }
    }
    reference.heading(2, &format!("`{DEAD_LETTERS}`"), doc_of(DeadLetter::shape()));
    reference.text += "It is any sink but `reply`, and takes no `outputs`.\n";
    reference.heading(2, ENDPOINTS, "the keys of sources and of sinks with `type = \"websocket\"`");
    let modes: Vec<Choice> = of_endpoints.first().map(|mode| mode.of.clone()).unwrap_or_default();
    reference.table(&of_endpoints, "mode", &modes);
    reference.text
}

/// The keys of a shape, the deciding ones first.
fn rows(shape: &'static Shape) -> Vec<KeyRow> {
    let mut rows: Vec<KeyRow> = Vec::new();
    for choice in choices(&shape.parts) {
        for name in known(&shape.parts, &choice) {
            let Known::Key(key) = name else { continue };
            match rows.iter_mut().find(|row| is_same(row.key, key)) {
                Some(row) => row.of.push(choice.clone()),
                None => rows.push(KeyRow { key, of: vec![choice.clone()] }),
            }
        }
    }
    let decides = |row: &KeyRow| row.of.iter().flatten().any(|(tag, _)| *tag == row.key.name);
    rows.sort_by_key(|row| !decides(row));
    rows
}

/// Takes out of both what they have in common where they are WebSockets.
fn in_common(sources: &mut Vec<KeyRow>, sinks: &mut Vec<KeyRow>) -> Vec<KeyRow> {
    let mut common = Vec::new();
    for source in &mut *sources {
        let Some(sink) = sinks.iter_mut().find(|sink| is_same(sink.key, source.key)) else { continue };
        let is_shared = |choice: &Choice| choice[0] == ("type", "websocket") && sink.of.contains(choice);
        let (shared, own): (Vec<_>, Vec<_>) = std::mem::take(&mut source.of).into_iter().partition(is_shared);
        source.of = own;
        sink.of.retain(|choice| !shared.contains(choice));
        let of = shared.into_iter().map(|choice| choice[1..].to_vec()).collect();
        common.push(KeyRow { key: source.key, of });
    }
    for rows in [sources, sinks, &mut common] {
        rows.retain(|row| !row.of.is_empty());
    }
    common
}

fn is_same(a: &Key, b: &Key) -> bool {
    (a.name, a.doc, &a.absent) == (b.name, b.doc, &b.absent)
}

/// What the key that leads to a table says of it.
fn doc_of(table: &Shape) -> &'static str {
    let leads =
        |key: &Key| matches!(key.kind, Kind::Table(shape) | Kind::Tables(shape) if ptr::eq(shape(), table));
    let rows = rows(Config::shape()).into_iter().chain(rows(Pipeline::shape()));
    rows.map(|row| row.key).find(|key| leads(key)).map_or("", |key| key.doc)
}

/// The heading of a table that a key leads to.
fn title(name: &str, table: &Shape) -> String {
    let headers = TABLES.map(|(header, shape)| (header, shape()));
    match headers.into_iter().find(|(_, shape)| ptr::eq(*shape, table)) {
        Some((header, _)) => format!("`{header}`"),
        None if ptr::eq(table, DeadLetter::shape()) => format!("`{DEAD_LETTERS}`"),
        None if ptr::eq(table, ServerTlsKeys::shape()) => format!("`{name}` of a server"),
        None if ptr::eq(table, ClientTlsKeys::shape()) => format!("`{name}` of a client"),
        None => format!("`{name}`"),
    }
}

/// Where a link to a heading leads.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_ascii_alphanumeric() || " _-".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Which of all choices these are: `websocket` where they are all that begin so.
fn label(of: &[Choice], all: &[Choice]) -> String {
    if all.is_empty() || of.len() == all.len() {
        return "any".to_owned();
    }
    let mut labels: Vec<String> = Vec::new();
    for choice in of {
        let whole = |choices: &[Choice]| choices.iter().filter(|other| other[0] == choice[0]).count();
        let words: Vec<_> = choice.iter().map(|(_, word)| *word).collect();
        let label = if whole(of) == whole(all) { words[0].to_owned() } else { words.join(" ") };
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    labels.join(", ")
}

fn in_words(key: &Key) -> String {
    match &key.kind {
        Kind::Text => "string".to_owned(),
        Kind::Path => "path".to_owned(),
        Kind::Bool => "`true` or `false`".to_owned(),
        Kind::Integer(least, most) if *most < OPEN_ENDED => format!("whole number, {least} to {most}"),
        Kind::Integer(least, _) => format!("whole number, {least} or more"),
        Kind::Number(least, most) => format!("number, {least} to {most}"),
        Kind::Duration(least) if least.is_zero() => "duration".to_owned(),
        Kind::Duration(_) => "duration, not zero".to_owned(),
        Kind::Size(1, _) => "size".to_owned(),
        Kind::Size(least, most) => format!("size, {} to {}", show_size(*least), show_size(*most)),
        Kind::OneOf(words) => {
            words().iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ")
        }
        Kind::Texts => "list of strings".to_owned(),
        Kind::TextOrTexts => "string, or list of strings".to_owned(),
        Kind::Messages => "list of strings and tables".to_owned(),
        Kind::Map => "table of strings".to_owned(),
        Kind::Json => "any table".to_owned(),
        Kind::Table(shape) => format!("[table](#{})", anchor(&title(key.name, shape()))),
        Kind::Tables(shape) => format!("[list of tables](#{})", anchor(&title(key.name, shape()))),
    }
}

/// As it would be written in a file.
fn default(key: &Key) -> String {
    match (&key.absent, &key.kind) {
        (Absent::Required, _) => "required".to_owned(),
        (Absent::None, _) => String::new(),
        (Absent::Settled(says), _) => (*says).to_owned(),
        (Absent::Default(_), Kind::Table(_)) => "its defaults".to_owned(),
        (Absent::Default(text), _) => format!("`{text}`"),
    }
}

/// What is said of a key, as a sentence: errors quote some of it within one.
fn sentence(says: &str) -> String {
    let end = if says.ends_with('.') { "" } else { "." };
    let is_word = says.split(' ').next().is_some_and(|word| word.chars().all(char::is_alphabetic));
    let (first, rest) = says.split_at(usize::from(is_word));
    format!("{}{rest}{end}", first.to_uppercase())
}

impl Reference {
    fn heading(&mut self, level: usize, title: &str, says: &str) {
        self.text += &format!("\n{} {title}\n\n{}\n", "#".repeat(level), sentence(says));
    }

    /// A table, and then those that its keys lead to. `tag` is the key that decides among `all` choices.
    fn table(&mut self, rows: &[KeyRow], tag: &str, all: &[Choice]) {
        if tag == "type" {
            let link = anchor(ENDPOINTS);
            self.text +=
                &format!("With `type = \"websocket\"` it has the keys of [{ENDPOINTS}](#{link}), too.\n");
        }
        let column = |cell: &str| if tag.is_empty() { String::new() } else { format!(" {cell} |") };
        let (head, line) = (column(&format!("with `{tag}`")), column("---"));
        self.text +=
            &format!("\n| key |{head} value | default | meaning |\n| --- |{line} --- | --- | --- |\n");
        for row in rows {
            let Key { name, doc, takes_files, .. } = row.key;
            let (case, kind, default) = (column(&label(&row.of, all)), in_words(row.key), default(row.key));
            let files = if *takes_files { " Takes `${file:}`." } else { "" };
            self.text += &format!("| `{name}` |{case} {kind} | {default} | {}{files} |\n", sentence(doc));
        }
        for key in rows.iter().map(|row| row.key) {
            let Kind::Table(shape) = key.kind else { continue };
            let shape = shape();
            let has_section = title(key.name, shape).starts_with("`[");
            let is_written = has_section || self.written.iter().any(|written| ptr::eq(*written, shape));
            if !is_written {
                self.written.push(shape);
                let what = key.doc.split(';').next().unwrap_or_default();
                self.heading(3, &title(key.name, shape), what);
                self.table(&self::rows(shape), "", &[]);
            }
        }
    }
}
