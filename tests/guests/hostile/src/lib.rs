//! A plugin that does what a plugin must not do: `README.md` says how it is asked to.
//!
//! It uses the bindings as they are, because the SDK cannot be made to lie.
#![cfg_attr(not(target_arch = "wasm32"), allow(dead_code, reason = "only a component exports anything"))]

mod acts;
mod lies;

use bindings::exports::tidemill::plugin::transformer::Guest;
use bindings::tidemill::plugin::state;
use bindings::tidemill::plugin::types::{
    Batch, Description, Emissions, Form, Forward, Outcome, Packed, Payloads,
};
use std::cell::RefCell;

mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "transform", pub_export_macro: true });
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
        let order: Order = serde_json::from_str(&config).map_err(|error| error.to_string())?;
        if !acts::is_known(&order.behaviour) && !lies::is_known(&order.behaviour) {
            return Err(format!("no such behaviour: {}", order.behaviour));
        }
        ORDER.set(Some(order));
        act_at("init")?;
        Ok(Description {
            outputs: vec!["side".into()],
            reads: Vec::new(),
            writes: vec!["mark".into()],
            payloads: Form::Packed,
            times: false,
            tick_ms: 10,
            options: Vec::new(),
        })
    }

    fn process(batch: Batch) -> Result<Outcome, String> {
        let Payloads::Packed(packed) = batch.payloads else { return Err("not packed".into()) };
        let messages = messages(&packed);
        let honest = Outcome {
            forward: Forward::All,
            forward_outputs: Vec::new(),
            emissions: None,
            rejections: Vec::new(),
        };
        if messages == [REMEMBERED] {
            let value = state::get(acts::STATE_KEY).unwrap_or_default();
            let emissions = Some(lies::emissions(&[value.as_slice()]));
            return Ok(Outcome { forward: Forward::Nothing, emissions, ..honest });
        }
        if !messages.contains(&POISON) {
            return Ok(honest);
        }
        act_at("process")?;
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
        Ok(Some(b"hostile".to_vec()))
    }

    fn restore(_snapshot: Vec<u8>) -> Result<(), String> {
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
