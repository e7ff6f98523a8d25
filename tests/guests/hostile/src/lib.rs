//! A plugin that does what a plugin must not do: `README.md` says how it is asked to.
//!
//! It uses the bindings as they are, because the SDK cannot be made to lie.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "only a component exports anything"))]

mod acts;
mod lies;
mod state;

use bindings::exports::tidemill::plugin::transformer::Guest;
use bindings::tidemill::plugin::log;
use bindings::tidemill::plugin::types::{Batch, Description, Emissions, Forward, Outcome, Packed, Payloads};
use std::cell::RefCell;

mod bindings {
    // What the contract gives, and of WASI what can be abused.
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: r#"
            package test:hostile;

            world hostile {
                include tidemill:plugin/transform@0.1.0;
                import wasi:io/poll@0.2.0;
                import wasi:clocks/monotonic-clock@0.2.0;
                import wasi:random/random@0.2.0;
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

            package wasi:random@0.2.0 {
                interface random {
                    get-random-bytes: func(len: u64) -> list<u8>;
                }
            }
        "#,
        world: "test:hostile/hostile",
        generate_all,
        pub_export_macro: true,
    });
}

/// What the message that is waited for says.
const POISON: &[u8] = b"poison";
/// What the message says that asks for the value `state_then_panic` set.
const REMEMBERED: &[u8] = b"remembered";

/// What the configuration asks for.
#[derive(serde::Deserialize)]
struct Order {
    behaviour: String,
    #[serde(default = "process", rename = "where")]
    place: String,
}

fn process() -> String {
    "process".to_owned()
}

thread_local! {
    static ORDER: RefCell<Option<Order>> = const { RefCell::new(None) };
    /// The configuration as it came, for whoever quotes it.
    static CONFIG: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Order {
    /// The behaviour that is ordered for a place, if one is.
    fn at(place: &str) -> Option<String> {
        ORDER.with_borrow(|order| {
            order.as_ref().filter(|order| order.place == place).map(|order| order.behaviour.clone())
        })
    }
}

struct Hostile;

#[cfg(target_arch = "wasm32")]
#[expect(unsafe_code, unreachable_pub, reason = "wit-bindgen writes it so")]
mod component {
    use super::{Hostile, bindings};
    bindings::export!(Hostile with_types_in bindings);
}

impl Guest for Hostile {
    fn init(config: String, _facts: Vec<(String, String)>) -> Result<Description, String> {
        // As the SDK does.
        std::panic::set_hook(Box::new(|panic| log::write(log::Level::Error, &panic.to_string())));
        let order: Order = serde_json::from_str(&config).map_err(|error| error.to_string())?;
        let is_known = acts::is_known(&order.behaviour)
            || lies::is_known(&order.behaviour)
            || lies::is_description(&order.behaviour)
            || state::is_known(&order.behaviour);
        if !is_known {
            return Err(format!("no such behaviour: {}", order.behaviour));
        }
        CONFIG.set(config);
        ORDER.set(Some(order));
        act_at("init")?;
        Ok(lies::description(Order::at("init").as_deref()))
    }

    fn process(batch: Batch) -> Result<Outcome, String> {
        let Some(Payloads::Packed(packed)) = batch.payloads else { return Err("not packed".into()) };
        let messages = messages(&packed);
        let honest = Outcome {
            forward: Forward::All,
            forward_outputs: Vec::new(),
            forward_metadata: Vec::new(),
            edits: Vec::new(),
            emissions: None,
            rejections: Vec::new(),
            retry: None,
        };
        if messages == [REMEMBERED] {
            let value = bindings::tidemill::plugin::state::get(acts::STATE_KEY).unwrap_or_default();
            let emissions = Some(lies::emissions(&[value.as_slice()]));
            return Ok(Outcome { forward: Forward::Nothing, emissions, ..honest });
        }
        if !messages.contains(&POISON) {
            return Ok(honest);
        }
        act_at("process")?;
        if let Some(behaviour) = Order::at("process") {
            state::fill(&behaviour);
        }
        Ok(Order::at("process").and_then(|lie| lies::tell(&lie, &messages)).unwrap_or(honest))
    }

    fn tick(_now_us: u64) -> Result<Option<Emissions>, String> {
        act_at("tick")?;
        Ok(lie_at("tick"))
    }

    fn finish() -> Result<Option<Emissions>, String> {
        act_at("finish")?;
        Ok(lie_at("finish"))
    }

    fn snapshot() -> Result<Option<Vec<u8>>, String> {
        act_at("snapshot")?;
        Ok(Some(state::snapshot(Order::at("process").as_deref())))
    }

    fn restore(_snapshots: Vec<Vec<u8>>, _part: u32, _parts: u32) -> Result<(), String> {
        act_at("restore")
    }
}

fn act_at(place: &str) -> Result<(), String> {
    Order::at(place).map_or(Ok(()), |behaviour| acts::perform(&behaviour))
}

fn lie_at(place: &str) -> Option<Emissions> {
    lies::tell(&Order::at(place)?, &[b"one", b"two"])?.emissions
}

fn messages(packed: &Packed) -> Vec<&[u8]> {
    let mut start = 0;
    let slice = |&end: &u32| {
        let message = &packed.data[start..end as usize];
        start = end as usize;
        message
    };
    packed.ends.iter().map(slice).collect()
}
