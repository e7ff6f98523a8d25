//! Sleeps and works in turn, by the clocks of WASI, and never comes back: at each message, or in `init`. Or it
//! answers each message with what WASI says of time and chance, before and after it has slept.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "only a component sleeps"))]

use std::hint::black_box;
use tidemill_plugin::{Description, Message, Out, Plugin, Result, export};

/// Shorter than any deadline, so that only their sum is too long.
const SLEEP_NS: u64 = 200_000_000;
/// What it sleeps where it wakes again; a real sleep of so long would be missed by nobody.
const NAP_NS: u64 = 20_000_000;
/// Long enough to be seen running between two sleeps.
const ROUNDS_OF_WORK: u64 = 10_000_000;

mod wasi {
    wit_bindgen::generate!({
        inline: "
            package guest:sleeper;

            world sleeper {
                import wasi:clocks/monotonic-clock@0.2.0;
                import wasi:clocks/wall-clock@0.2.0;
                import wasi:random/random@0.2.0;
                import wasi:random/insecure@0.2.0;
                import wasi:random/insecure-seed@0.2.0;
            }

            package wasi:io@0.2.0 {
                interface poll {
                    resource pollable {
                        block: func();
                    }
                }
            }

            package wasi:clocks@0.2.0 {
                interface monotonic-clock {
                    use wasi:io/poll@0.2.0.{pollable};
                    type duration = u64;
                    type instant = u64;
                    now: func() -> instant;
                    subscribe-instant: func(when: instant) -> pollable;
                    subscribe-duration: func(when: duration) -> pollable;
                }
                interface wall-clock {
                    record datetime {
                        seconds: u64,
                        nanoseconds: u32,
                    }
                    now: func() -> datetime;
                }
            }

            package wasi:random@0.2.0 {
                interface random {
                    get-random-bytes: func(len: u64) -> list<u8>;
                }
                interface insecure {
                    get-insecure-random-u64: func() -> u64;
                }
                interface insecure-seed {
                    insecure-seed: func() -> tuple<u64, u64>;
                }
            }
        ",
        generate_all,
    });
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// `process`, `init` or `nowhere`.
    r#where: String,
}

struct Sleeper {
    never_wakes: bool,
    /// What WASI said in `init`.
    first: String,
}

export!(Sleeper);

impl Plugin for Sleeper {
    type Config = Config;

    fn new(config: Config, _: &mut Description) -> Result<Self> {
        if config.r#where == "init" {
            sleep_and_work_for_ever();
        }
        Ok(Self { never_wakes: config.r#where == "process", first: told() })
    }

    fn process(&mut self, _: Message<'_>, out: &mut Out<'_>) -> Result {
        if self.never_wakes {
            sleep_and_work_for_ever();
        }
        let before = told();
        nap();
        out.emit().text(&format!("{} {before} {}", self.first, told()));
        Ok(())
    }
}

fn sleep_and_work_for_ever() -> ! {
    loop {
        #[cfg(target_arch = "wasm32")]
        wasi::wasi::clocks::monotonic_clock::subscribe_duration(SLEEP_NS).block();
        for round in 0..ROUNDS_OF_WORK {
            black_box(round);
        }
    }
}

#[cfg(target_arch = "wasm32")]
fn told() -> String {
    use wasi::wasi::clocks::{monotonic_clock, wall_clock};
    use wasi::wasi::random::{insecure, insecure_seed, random};
    let wall = wall_clock::now();
    format!(
        "{}.{:09} {} {:?} {} {:?}",
        wall.seconds,
        wall.nanoseconds,
        monotonic_clock::now(),
        random::get_random_bytes(4),
        insecure::get_insecure_random_u64(),
        insecure_seed::insecure_seed()
    )
}

#[cfg(not(target_arch = "wasm32"))]
fn told() -> String {
    String::new()
}

/// Until a moment, and for a time.
fn nap() {
    #[cfg(target_arch = "wasm32")]
    {
        use wasi::wasi::clocks::monotonic_clock::{now, subscribe_duration, subscribe_instant};
        subscribe_instant(now() + NAP_NS).block();
        let until = now() + NAP_NS;
        while now() < until {
            subscribe_duration(NAP_NS / 10).block();
        }
    }
}
