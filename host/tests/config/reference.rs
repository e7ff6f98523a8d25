//! The reference of every key, made of the table of keys: what `docs/configuration.md` says after its
//! introduction.

use std::ptr;
use tidemill::config::keys::{CLIENT_TLS, DEAD_LETTER, PIPELINE, ROOT, SERVER_TLS, SINK, SOURCE, TABLES};
use tidemill::config::shape::{Absent, Key, Kind, Shape};
use tidemill::config::units::show_size;

const ENDPOINTS: &str = "WebSocket endpoints";
/// A higher limit is none that anybody meets.
const OPEN_ENDED: i64 = 1_000_000;

/// What the keys that decide say, as in `websocket`, `client`.
type Case = Vec<&'static str>;

/// A key, and the cases in which a table may have it.
struct Row {
    key: &'static Key,
    of: Vec<Case>,
    /// What it may say, if it is one that decides.
    choices: Vec<&'static str>,
}

/// A text that grows by sections.
#[derive(Default)]
struct Reference {
    text: String,
    written: Vec<&'static Shape>,
}

/// The whole reference.
pub(crate) fn reference() -> String {
    let mut reference = Reference::default();
    let (sources, sinks) = (cases(&SOURCE), cases(&SINK));
    let (mut of_sources, mut of_sinks) = (rows(&SOURCE), rows(&SINK));
    let of_endpoints = in_common(&mut of_sources, &mut of_sinks);
    for (header, shape) in TABLES {
        if reference.written.iter().any(|written| ptr::eq(*written, shape)) {
            continue;
        }
        reference.heading(2, &format!("`{header}`"), doc_of(shape));
        if ptr::eq(shape, &SOURCE) {
            reference.table(&of_sources, "type", &sources);
        } else if ptr::eq(shape, &SINK) {
            reference.table(&of_sinks, "type", &sinks);
        } else {
            reference.table(&rows(shape), "", &[]);
        }
    }
    reference.heading(2, "`[pipelines.dead_letter]`", doc_of(&DEAD_LETTER));
    let is_its = |case: &&Case| case[0] != "reply";
    let expected = sinks.iter().filter(is_its).cloned().collect::<Vec<_>>();
    assert_eq!(cases(&DEAD_LETTER), expected, "say below what it takes");
    reference.text += "It is any sink but `reply`, and takes no `outputs`.\n";
    reference.heading(2, ENDPOINTS, "the keys of sources and of sinks with `type = \"websocket\"`");
    reference.table(&of_endpoints, "mode", &[vec!["client"], vec!["server"]]);
    reference.text
}

/// The cases of a shape that this version does.
fn cases(shape: &'static Shape) -> Vec<Case> {
    let Shape::Choice { cases: of_shape, .. } = shape else { return vec![vec![]] };
    let built = of_shape.iter().filter_map(|case| Some((case.word, case.shape?)));
    let whole = |(word, shape)| cases(shape).into_iter().map(move |rest| [vec![word], rest].concat());
    built.flat_map(whole).collect()
}

/// The keys of a shape that this version does, the deciding ones first.
fn rows(shape: &'static Shape) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    match shape {
        Shape::Keys(groups) => {
            let keys = groups.iter().copied().flatten().filter(|key| key.built);
            rows.extend(keys.map(|key| Row { key, of: vec![vec![]], choices: vec![] }));
        }
        Shape::Choice { tag, cases: of_shape } => {
            let built = of_shape.iter().filter_map(|case| Some((case.word, case.shape?)));
            let choices = built.clone().map(|(word, _)| word).collect();
            rows.push(Row { key: tag, of: cases(shape), choices });
            for (word, shape) in built {
                for mut row in self::rows(shape) {
                    row.of.iter_mut().for_each(|case| case.insert(0, word));
                    match rows.iter_mut().find(|known| is_same(known.key, row.key)) {
                        Some(known) => known.of.extend(row.of),
                        None => rows.push(row),
                    }
                }
            }
        }
    }
    rows
}

/// Takes out of both what they have in common where they are WebSockets.
fn in_common(sources: &mut Vec<Row>, sinks: &mut Vec<Row>) -> Vec<Row> {
    let mut common = Vec::new();
    for source in &mut *sources {
        let Some(sink) = sinks.iter_mut().find(|sink| is_same(sink.key, source.key)) else { continue };
        let is_shared = |case: &Case| case[0] == "websocket" && sink.of.contains(case);
        let (shared, own) = std::mem::take(&mut source.of).into_iter().partition(is_shared);
        source.of = own;
        sink.of.retain(|case| !shared.contains(case));
        let of = shared.into_iter().map(|case: Case| case[1..].to_vec()).collect();
        common.push(Row { key: source.key, of, choices: source.choices.clone() });
    }
    for rows in [sources, sinks, &mut common] {
        rows.retain(|row| !row.of.is_empty());
    }
    common
}

fn is_same(a: &Key, b: &Key) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

/// What the key that leads to a table says of it.
fn doc_of(table: &Shape) -> &'static str {
    let keys = ROOT.all_keys().into_iter().chain(PIPELINE.all_keys());
    let mut leading = keys
        .filter(|key| matches!(key.kind, Kind::Table(shape) | Kind::Tables(shape) if ptr::eq(shape, table)));
    leading.next().expect("every table has a key").doc
}

/// The heading of a table that a key leads to.
fn title(name: &str, table: &Shape) -> String {
    let headers = TABLES.into_iter().chain([("[pipelines.dead_letter]", &DEAD_LETTER)]);
    match headers.into_iter().find(|(_, shape)| ptr::eq(*shape, table)) {
        Some((header, _)) => format!("`{header}`"),
        None if ptr::eq(table, &SERVER_TLS) => format!("`{name}` of a server"),
        None if ptr::eq(table, &CLIENT_TLS) => format!("`{name}` of a client"),
        None => format!("`{name}`"),
    }
}

/// Where a link to a heading leads.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_ascii_alphanumeric() || " _-".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// Which of all cases these are: `websocket` where they are all that begin so.
fn label(of: &[Case], all: &[Case]) -> String {
    if all.is_empty() || of.len() == all.len() {
        return "any".to_owned();
    }
    let mut labels: Vec<String> = Vec::new();
    for case in of {
        let whole = |cases: &[Case]| cases.iter().filter(|other| other[0] == case[0]).count();
        let label = if whole(of) == whole(all) { case[0].to_owned() } else { case.join(" ") };
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    labels.join(", ")
}

fn either<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ")
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
        Kind::OneOf(words) => either(words.iter().filter(|word| word.built).map(|word| word.text)),
        Kind::Texts => "list of strings".to_owned(),
        Kind::TextOrTexts => "string, or list of strings".to_owned(),
        Kind::Messages => "list of strings and tables".to_owned(),
        Kind::Map => "table of strings".to_owned(),
        Kind::Json => "any table".to_owned(),
        Kind::Table(shape) => format!("[table](#{})", anchor(&title(key.name, shape))),
        Kind::Tables(shape) => format!("[list of tables](#{})", anchor(&title(key.name, shape))),
    }
}

/// As it would be written in a file.
fn default(key: &Key) -> String {
    let text = match key.absent {
        Absent::Required => return "required".to_owned(),
        Absent::None => return String::new(),
        Absent::Default(text) => text,
    };
    match key.kind {
        Kind::Bool | Kind::Integer(..) | Kind::Number(..) | Kind::Map | Kind::Json => format!("`{text}`"),
        Kind::Table(_) => "its defaults".to_owned(),
        _ if text == "[]" => format!("`{text}`"),
        Kind::Texts => format!("`[\"{}\"]`", &text[1..text.len() - 1]),
        _ => format!("`\"{text}\"`"),
    }
}

impl Reference {
    fn heading(&mut self, level: usize, title: &str, says: &str) {
        let (first, rest) = says.split_at(1);
        self.text += &format!("\n{} {title}\n\n{}{rest}.\n", "#".repeat(level), first.to_uppercase());
    }

    /// A table, and then those that its keys lead to. `choice` is the key that decides among `all` cases.
    fn table(&mut self, rows: &[Row], choice: &str, all: &[Case]) {
        if choice == "type" {
            let link = anchor(ENDPOINTS);
            self.text +=
                &format!("With `type = \"websocket\"` it has the keys of [{ENDPOINTS}](#{link}), too.\n");
        }
        let column = |cell: &str| if choice.is_empty() { String::new() } else { format!(" {cell} |") };
        let (head, line) = (column(&format!("with `{choice}`")), column("---"));
        self.text +=
            &format!("\n| key |{head} value | default | meaning |\n| --- |{line} --- | --- | --- |\n");
        for row in rows {
            let Key { name, doc, takes_files, .. } = row.key;
            let case = column(&label(&row.of, all));
            let kind =
                if row.choices.is_empty() { in_words(row.key) } else { either(row.choices.iter().copied()) };
            let files = if *takes_files { "; takes `${file:}`" } else { "" };
            let default = default(row.key);
            self.text += &format!("| `{name}` |{case} {kind} | {default} | {doc}{files} |\n");
        }
        for key in rows.iter().map(|row| row.key) {
            let Kind::Table(shape) = key.kind else { continue };
            let is_written = self.written.iter().any(|written| ptr::eq(*written, shape));
            if !is_written && matches!(shape, Shape::Keys(_)) {
                self.written.push(shape);
                let what = key.doc.split(';').next().unwrap_or_default();
                self.heading(3, &title(key.name, shape), what);
                self.table(&self::rows(shape), "", &[]);
            }
        }
    }
}
