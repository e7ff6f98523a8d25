//! A checker of accounts: a pipeline of two stages and three sinks under a schedule of load, pauses,
//! faults, swaps, versions on trial, reloads, stops, and ends that stall, reset, leave and return. At every scrape, at whatever
//! moment, the accounting rule holds exactly; at the end every message is where it must be, once.
//!
//! The schedule is drawn from a seed: `TIDEMILL_ACCOUNTS_SEED=7 cargo test --test accounts`, and
//! `TIDEMILL_ACCOUNTS_STEPS=100000` makes it longer. A failure tells its seed. What the host and the
//! kernel make of the schedule in time is theirs, so a seed is a strong hint and no proof.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "accounts/configured.rs"]
mod configured;
#[path = "accounts/ends.rs"]
mod ends;
#[path = "accounts/plan.rs"]
mod plan;
#[path = "accounts/rule.rs"]
mod rule;
#[path = "accounts/schedule.rs"]
mod schedule;
#[path = "accounts/settle.rs"]
mod settle;

use schedule::Run;

/// Unless the environment names another.
const SEED: u64 = 9;
const STEPS: u64 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_in_exactly_one_place_at_every_scrape_and_at_the_end() {
    let mut run = Run::start(number("TIDEMILL_ACCOUNTS_SEED", SEED)).await;
    for _ in 0..number("TIDEMILL_ACCOUNTS_STEPS", STEPS) {
        run.step().await;
    }
    run.settle().await;
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |value| value.parse().expect("a number"))
}
