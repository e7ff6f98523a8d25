//! Keeps the trades that are worth more than `above`, with a field more: `notional`, what the trade was worth.

use serde::Deserialize;
use tidemill_plugin::{Description, Edit, Message, Number, Out, Plugin, Result, Text, export};

export!(Trades);

/// What stands in `config` at the transform.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    above: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { above: 0.0 }
    }
}

struct Trades {
    above: f64,
    event: Text,
    price: Number,
    quantity: Number,
    notional: Edit,
}

impl Plugin for Trades {
    type Config = Config;

    /// What is wanted of each message, and what may be changed in it.
    fn new(config: Config, description: &mut Description) -> Result<Self> {
        description.only_json();
        description.without_payloads();
        Ok(Self {
            above: config.above,
            event: description.text("/data/e")?,
            price: description.number("/data/p")?,
            quantity: description.number("/data/q")?,
            notional: description.edit("/notional")?,
        })
    }

    /// Decides on one message. One that nothing is said of is filtered.
    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        if message.get(self.event) != Some("trade") {
            return Ok(());
        }
        let (Some(price), Some(quantity)) = (message.get(self.price), message.get(self.quantity)) else {
            return Ok(());
        };
        let notional = price * quantity;
        if notional > self.above {
            out.forward();
            out.set(self.notional, notional);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_plugin::testing::Harness;

    #[test]
    fn a_trade_says_what_it_was_worth() {
        let mut plugin = Harness::<Trades>::try_new(r#"{"above":1}"#).expect("the plugin takes its configuration");
        let sent = plugin.process([
            r#"{"data":{"e":"trade","p":"2.5","q":"3"}}"#,
            r#"{"data":{"e":"trade","p":"2.5","q":"0.1"}}"#,
            r#"{"data":{"e":"depthUpdate"}}"#,
        ]);
        assert_eq!(sent.texts(), [r#"{"data":{"e":"trade","p":"2.5","q":"3"},"notional":7.5}"#]);
    }
}
