//! What can be done in any call: never coming back, taking too much, falling over.

use crate::bindings::tidemill::plugin::{log, state};
use std::hint::black_box;

/// The key under which `state_then_panic` remembers something.
pub(crate) const STATE_KEY: &str = "remembered";

/// Lines of the flood, and what each says: more than a person reads, with what a terminal obeys.
const FLOOD_LINES: usize = 20_000;
const FLOOD_LINE: &str = "\x1b[2J\x1b[31mflood\r\nflood flood flood flood flood flood flood flood flood";

/// Taken at a time until there is no more.
const BOMB_STEP_BYTES: usize = 1 << 20;

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
