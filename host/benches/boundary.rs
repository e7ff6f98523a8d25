//! What it costs to hand a batch to a plugin and to check what comes back, in each language.
//!
//! `cargo xtask guests` and `cargo xtask plugins`, then `cargo bench --workspace --bench boundary [-- FILTER]`. It
//! prints the table of docs/performance.md: nanoseconds a message, in batches of 1, 16 and 256. A filter is a part of
//! a row's name, such as `c/emit`, or a size of batches. Guests that were not built are left out, by name.
//!
//! The messages are JSON texts of 105 bytes. `forward` sends them through, `filter` forwards by two fields that the
//! host finds, `add` edits one number into each, and `emit` makes a new message of one of their fields. `echo` emits
//! each message as it is, `mark` also sets one metadata value of each emission, and `observe` forwards, and shows the
//! guest one metadata column and the times.
//!
//! Everything is measured in turn, and that again and again; the best of all turns counts, for whatever else the
//! machine does can only add to it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints what it found")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemill::config::Limits;
use tidemill::message::metadata::{Metadata, Origin};
use tidemill::message::{Message, Payload};
use tidemill::plugin::{Engine, FirstAnswers, HostState, Instance, Plugin, PluginKind, Setup, StatePart};
use tidemill::telemetry::Metrics;
use tokio::runtime::Runtime;

const LANGUAGES: [&str; 5] = ["rust", "c", "go", "javascript", "python"];
const BATCHES: [usize; 3] = [1, 16, 256];
const JSON: &str = r#"{"e":"trade","E":1723075200123,"s":"BTCUSDT","t":37482,"p":"57123.45","q":"0.01820000","T":1723075200120}"#;
/// How often everything is measured.
const TURNS: usize = 9;
/// How long each measurement takes at least.
const TURN: Duration = Duration::from_millis(20);

/// A row of the table.
struct Case {
    name: &'static str,
    /// The configuration; and that with which the payloads do not cross, if it can do without them.
    configs: [Option<&'static str>; 2],
    /// What stands before the JSON of each message.
    command: &'static str,
}

const CASES: [Case; 7] = [
    Case { name: "forward", configs: [Some("{}"), Some(r#"{"blind":true}"#)], command: "" },
    Case {
        name: "filter",
        configs: [Some(r#"{"filter":true}"#), Some(r#"{"filter":true,"blind":true}"#)],
        command: "",
    },
    Case {
        name: "add",
        configs: [Some(r#"{"notional":true}"#), Some(r#"{"notional":true,"blind":true}"#)],
        command: "",
    },
    Case {
        name: "emit",
        configs: [Some(r#"{"symbol":true}"#), Some(r#"{"symbol":true,"blind":true}"#)],
        command: "",
    },
    Case { name: "echo", configs: [Some("{}"), None], command: "emit:default::" },
    Case { name: "mark", configs: [Some("{}"), None], command: "emit:default:hot:" },
    Case { name: "observe", configs: [Some(r#"{"observe":true}"#), None], command: "" },
];

/// One measurement of a row: an instance and what it is given.
struct Cell {
    instance: Instance,
    messages: Vec<Message>,
    /// The shortest time of a call so far.
    best: Duration,
}

struct Row {
    name: String,
    /// With payloads and without, in batches of each size.
    cells: Vec<Option<Cell>>,
}

fn main() {
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let (sizes, filters): (Vec<String>, Vec<String>) =
        filters.into_iter().partition(|filter| filter.parse::<usize>().is_ok());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio starts");
    let target =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("host is in the checkout").join("target");
    let engine =
        Engine::try_new(Some(&target.join("tests-cache").into())).expect("plugins run on this machine");
    let mut rows = Vec::new();
    let shipped = target.join("plugins/forward.wasm");
    let guests = LANGUAGES.map(|name| (name, target.join(format!("guests/contract-{name}.wasm"))));
    for (name, file) in std::iter::once(("shipped", shipped)).chain(guests) {
        let cases = if name == "shipped" { &CASES[..1] } else { &CASES[..] };
        let wanted = |case: &&Case| {
            filters.is_empty() || filters.iter().any(|part| row_name(name, case).contains(part))
        };
        let mut cases = cases.iter().filter(wanted).peekable();
        if cases.peek().is_none() {
            continue;
        }
        let Some(plugin) = load(&engine, &file) else { continue };
        rows.extend(cases.map(|case| Row {
            name: row_name(name, case),
            cells: cells(&runtime, &plugin, case, name != "shipped"),
        }));
    }
    for _ in 0..TURNS {
        for cell in rows.iter_mut().flat_map(|row| row.cells.iter_mut().flatten()) {
            if sizes.is_empty() || sizes.contains(&cell.messages.len().to_string()) {
                let took = runtime.block_on(measure(cell));
                cell.best = cell.best.min(took);
            }
        }
    }
    print(&rows);
}

fn row_name(guest: &str, case: &Case) -> String {
    format!("{guest}/{}", case.name)
}

fn load(engine: &Engine, file: &Path) -> Option<Plugin> {
    let name = file.file_stem()?.to_str()?;
    match std::fs::read(file) {
        Ok(wasm) => Some(engine.load(name, &wasm).expect("what xtask builds is a plugin")),
        Err(error) => {
            eprintln!("{name} is left out: {}: {error}", file.display());
            None
        }
    }
}

fn cells(runtime: &Runtime, plugin: &Plugin, case: &Case, is_fixture: bool) -> Vec<Option<Cell>> {
    let configs = if is_fixture { case.configs } else { [case.configs[0], None] };
    let cell = |config: Option<&'static str>, batch| {
        config.map(|config| Cell {
            instance: runtime.block_on(plugin.instantiate(&setup(config))).expect("the fixture starts"),
            messages: messages(&format!("{}{JSON}", case.command), batch),
            best: Duration::MAX,
        })
    };
    configs.into_iter().flat_map(|config| BATCHES.map(|batch| cell(config, batch))).collect()
}

/// The time of one call, in the mean of as many as take long enough.
async fn measure(Cell { instance, messages, .. }: &mut Cell) -> Duration {
    let mut calls = 1;
    loop {
        let start = Instant::now();
        for _ in 0..calls {
            black_box(instance.process(messages).await.expect("the fixture answers"));
        }
        let took = start.elapsed();
        if took >= TURN {
            return took / calls;
        }
        calls *= 2;
    }
}

fn print(rows: &[Row]) {
    println!("| ns a message | payloads cross: 1 | 16 | 256 | without: 1 | 16 | 256 |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for row in rows {
        let cells = row.cells.iter().map(|cell| match cell {
            Some(cell) if cell.best < Duration::MAX => {
                let nanos = cell.best.as_nanos() as f64 / cell.messages.len() as f64;
                format!("{nanos:.*}", usize::from(nanos < 100.0))
            }
            _ => String::new(),
        });
        println!("| `{}` | {} |", row.name, cells.collect::<Vec<_>>().join(" | "));
    }
}

fn messages(text: &str, count: usize) -> Vec<Message> {
    let origin = Origin::new([("room", "lobby")]);
    let message =
        |time| Message { payload: Payload::text(text), metadata: Metadata::new(Arc::clone(&origin), time) };
    (1_723_075_200_000_000..).take(count).map(message).collect()
}

fn setup(config: &str) -> Setup {
    Setup {
        pipeline: "bench".into(),
        transform: "guest".into(),
        kind: PluginKind::Transform,
        part: StatePart::WHOLE,
        config: config.into(),
        limits: Limits::default(),
        is_replay: false,
        state: HostState::default(),
        http: None,
        metrics: Metrics::default().guest("bench", "guest"),
        is_shadow: false,
        retries: 5,
        first_answers: FirstAnswers::default(),
    }
}
