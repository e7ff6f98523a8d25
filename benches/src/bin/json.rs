//! What it costs to find two fields in a JSON message, beside other readers, in one run.
//!
//! `cargo run --release -p tidemill-bench --bin json`; with `--features rivals` sonic-rs and simd-json take part. Every
//! reader checks the whole message. All take turns in each round, so that a machine that slows down slows all of them, and
//! the best round of each counts: figures of two runs cannot be compared, ratios can.
#![expect(clippy::print_stdout, reason = "a command for a terminal")]

use serde::Deserialize;
use std::hint::black_box;
use std::time::Instant;
use tidemill_bench::document::Document;
use tidemill_json::Fields;

const ROUNDS: usize = 200;
/// So many messages that a look at the clock does not count.
const MESSAGES: usize = 1_000;

/// The two fields, for readers that fill a struct.
#[derive(Deserialize)]
struct Trade {
    price: f64,
    qty: f64,
}

/// A reader and its best round.
struct Reader<'a> {
    name: &'static str,
    read: Box<dyn FnMut() + 'a>,
    best_ns: f64,
}

fn main() {
    for size_bytes in [100, 1_000] {
        let text = Document::new(size_bytes).text;
        let mut readers = readers(&text);
        for _ in 0..ROUNDS {
            for reader in &mut readers {
                let start = Instant::now();
                for _ in 0..MESSAGES {
                    (reader.read)();
                }
                let ns = start.elapsed().as_nanos() as f64 / MESSAGES as f64;
                reader.best_ns = reader.best_ns.min(ns);
            }
        }
        println!("two fields of {} bytes", text.len());
        let typed_ns =
            readers.iter().find(|reader| reader.name == TYPED).map_or(f64::NAN, |reader| reader.best_ns);
        for Reader { name, best_ns, .. } in &readers {
            println!("  {name:<38} {best_ns:>7.0} ns {:>6.2} of typed", best_ns / typed_ns);
        }
    }
}

const TYPED: &str = "serde_json, a struct";

fn readers(text: &str) -> Vec<Reader<'_>> {
    let mut readers = vec![
        reader("tidemill-json, spans", {
            let mut fields = Fields::default();
            let [price, quantity] =
                ["/price", "/qty"].map(|pointer| fields.add(pointer).expect("it is a pointer"));
            move || {
                let found = fields.find(black_box(text)).expect("it is JSON");
                black_box((found.get(price), found.get(quantity)));
            }
        }),
        reader("tidemill-json, numbers", {
            let mut fields = Fields::default();
            let [price, quantity] =
                ["/price", "/qty"].map(|pointer| fields.add(pointer).expect("it is a pointer"));
            move || {
                let found = fields.find(black_box(text)).expect("it is JSON");
                let number = |field| found.get(field).and_then(|value| value.number());
                black_box((number(price), number(quantity)));
            }
        }),
        reader(TYPED, move || {
            let trade: Trade = serde_json::from_str(black_box(text)).expect("it is JSON");
            black_box((trade.price, trade.qty));
        }),
        reader("serde_json, a tree", move || {
            let tree: serde_json::Value = serde_json::from_str(black_box(text)).expect("it is JSON");
            black_box((tree.pointer("/price"), tree.pointer("/qty")));
        }),
    ];
    readers.extend(rivals(text));
    readers
}

fn reader<'a>(name: &'static str, read: impl FnMut() + 'a) -> Reader<'a> {
    Reader { name, read: Box::new(read), best_ns: f64::INFINITY }
}

#[cfg(not(feature = "rivals"))]
fn rivals(_: &str) -> Vec<Reader<'_>> {
    Vec::new()
}

#[cfg(feature = "rivals")]
fn rivals(text: &str) -> Vec<Reader<'_>> {
    let mut buffers = simd_json::Buffers::new(text.len());
    let mut copy = text.as_bytes().to_vec();
    vec![
        reader("sonic-rs, a struct", move || {
            let trade: Trade = sonic_rs::from_str(black_box(text)).expect("it is JSON");
            black_box((trade.price, trade.qty));
        }),
        reader("simd-json, a tape (writes to a copy)", move || {
            copy.copy_from_slice(text.as_bytes());
            let tape =
                simd_json::to_tape_with_buffers(black_box(&mut copy), &mut buffers).expect("it is JSON");
            black_box(&tape);
        }),
    ]
}
