//! What can be done in any call: never coming back, taking too much, falling over.

use crate::bindings::tidemill::plugin::{log, metrics, state};
use crate::bindings::wasi::clocks::monotonic_clock::subscribe_duration;
use crate::bindings::wasi::random::random::get_random_bytes;
use std::hint::black_box;

/// The key under which `state_then_panic` remembers something.
pub(crate) const STATE_KEY: &str = "remembered";

/// Lines of the flood, and what each says: more than a person reads, with what a terminal obeys.
const FLOOD_LINES: usize = 20_000;
const FLOOD_LINE: &str = "\x1b[2J\x1b[31mflood\r\nflood flood flood flood flood flood flood flood flood";

/// Taken at a time until there is no more.
const BOMB_STEP_BYTES: usize = 1 << 20;

/// How long `sleep_and_spin` sleeps at a time, and how often it goes round before it sleeps again.
const SLEEP_NS: u64 = 50_000_000;
const ROUNDS: u32 = 3_000_000;
/// What `seed_and_wait` takes: as much as may be had.
const SEED_BYTES: u64 = 64 << 10;
const MOMENTS: usize = 1000;
const MOMENT_NS: u64 = 1_000_000;
/// Random bytes that are asked for at once: a second's work that nothing can interrupt.
const RANDOM_BYTES: u64 = 64 << 20;
/// Things to wait for that are held at once.
const HANDLES: usize = 100_000;
/// Changes of metrics in one call.
const CHANGES: u32 = 10_000;
/// Values of the state, each as large.
const VALUE_BYTES: usize = 1 << 20;
/// What a terminal and a reader of logs would take for lines of the host.
const FORGED: &str = "first line\n2030-01-01T00:00:00.000000Z ERROR tidemill::app: forged by a guest\x1b[31m";

type Act = fn() -> Result<(), String>;

const ACTS: &[(&str, Act)] = &[
    ("endless_loop", || {
        loop {
            black_box(0);
        }
    }),
    ("memory_bomb", || {
        let mut taken = Vec::new();
        loop {
            taken.push(black_box(vec![1_u8; BOMB_STEP_BYTES]));
        }
    }),
    ("deep_recursion", || {
        black_box(recurse(black_box(1)));
        Ok(())
    }),
    ("panic", || panic!("a panic that was asked for")),
    ("error", || Err("an error that was asked for".into())),
    ("log_flood", || {
        for _ in 0..FLOOD_LINES {
            log::write(log::Level::Warn, FLOOD_LINE);
        }
        Ok(())
    }),
    ("forge", || Err(FORGED.into())),
    ("sleep_and_spin", || {
        loop {
            subscribe_duration(SLEEP_NS).block();
            (0..ROUNDS).for_each(|n| {
                black_box(n);
            });
        }
    }),
    // What an honest guest does: a seed, and a moment's wait.
    ("seed_and_wait", || {
        let seed = get_random_bytes(SEED_BYTES);
        let moments: Vec<_> = (0..MOMENTS).map(|_| subscribe_duration(MOMENT_NS)).collect();
        moments.iter().for_each(crate::bindings::wasi::io::poll::Pollable::block);
        if u64::try_from(seed.len()) == Ok(SEED_BYTES) { Ok(()) } else { Err("a short seed".into()) }
    }),
    ("random_flood", || {
        loop {
            black_box(get_random_bytes(RANDOM_BYTES));
        }
    }),
    ("handle_flood", || {
        let held: Vec<_> = (0..HANDLES).map(|_| subscribe_duration(SLEEP_NS)).collect();
        black_box(held);
        Ok(())
    }),
    ("metric_changes", || {
        for n in 0..CHANGES {
            metrics::observe("took", f64::from(n % 2));
            metrics::add("seen", 1.0);
        }
        metrics::add("done_total", 1.0);
        Ok(())
    }),
    ("metric_names", || {
        for n in 0..CHANGES {
            metrics::add(&format!("name_{n}"), 1.0);
        }
        Ok(())
    }),
    ("metric_clashes", || {
        metrics::add("late", 1.0);
        metrics::add("late_total", 1.0);
        metrics::set("late", 1.0);
        metrics::set("late_total", 1.0);
        metrics::observe("took", 1.0);
        metrics::set("took_bucket", 1.0);
        metrics::add("took_count", 1.0);
        metrics::set("took", 1.0);
        metrics::set("Not A Name\n# TYPE forged gauge", 1.0);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            metrics::add("sum", value);
            metrics::set("level", value);
            metrics::observe("took", value);
        }
        Ok(())
    }),
    ("state_flood", || {
        let value = vec![1; VALUE_BYTES];
        let refused = (0..).map(|n: u32| state::set(&n.to_string(), &value)).find_map(Result::err);
        black_box(refused);
        Ok(())
    }),
    ("quote_config", || {
        let config = crate::CONFIG.with_borrow(String::clone);
        log::write(log::Level::Warn, &config);
        log::write(log::Level::Warn, &format!("{config:?}"));
        for word in config.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            metrics::add(word, 1.0);
        }
        Err(config)
    }),
    ("quote_config_in_a_panic", || panic!("{}", crate::CONFIG.with_borrow(String::clone))),
    ("state_then_panic", || {
        state::set(STATE_KEY, b"it happened")?;
        panic!("a panic after a change of state");
    }),
];

pub(crate) fn is_known(name: &str) -> bool {
    ACTS.iter().any(|(known, _)| *known == name)
}

/// Does what `name` says; nothing if it is not an act.
pub(crate) fn perform(name: &str) -> Result<(), String> {
    ACTS.iter().find(|(known, _)| *known == name).map_or(Ok(()), |(_, act)| act())
}

/// Never ends, and cannot be made a loop: it needs its frame after the call.
#[expect(unconditional_recursion, reason = "that is what it is for")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 16]);
    recurse(depth + 1) + frame[0]
}
