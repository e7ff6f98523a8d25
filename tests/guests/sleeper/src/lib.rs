//! Sleeps and works in turn, by the clocks of WASI, and never comes back: at each message, or in `init`.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "only a component sleeps"))]

use std::hint::black_box;
use tidemill_plugin::{Description, Message, Out, Plugin, Result, export};

/// Shorter than any deadline, so that only their sum is too long.
const SLEEP_NS: u64 = 200_000_000;
/// Long enough to be seen running between two sleeps.
const ROUNDS_OF_WORK: u64 = 10_000_000;

mod wasi {
    wit_bindgen::generate!({
        inline: "
            package guest:sleeper;

            world sleeper {
                import wasi:clocks/monotonic-clock@0.2.0;
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
                    subscribe-duration: func(when: duration) -> pollable;
                }
            }
        ",
        generate_all,
    });
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// `process` or `init`.
    r#where: String,
}

struct Sleeper;

export!(Sleeper);

impl Plugin for Sleeper {
    type Config = Config;

    fn new(config: Config, _: &mut Description) -> Result<Self> {
        if config.r#where == "init" {
            sleep_and_work_for_ever();
        }
        Ok(Self)
    }

    fn process(&mut self, _: Message<'_>, _: &mut Out<'_>) -> Result {
        sleep_and_work_for_ever()
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
