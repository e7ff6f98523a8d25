//! Keeps the messages whose price is above a limit, and adds what the trade was worth.
//!
//! `"notional": price * quantity` becomes the last member of the object, or takes the place of the one that is
//! there; all other bytes stay as they were. A message that lacks one of the fields is filtered. What is not JSON is rejected, and so is a
//! price or quantity that is no number.

use serde::Deserialize;
use tidemill_plugin::{Description, Edit, Json, Message, Out, Plugin, Result, export};

export!(Notional);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    price: String,
    quantity: String,
    above: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { price: "/price".into(), quantity: "/qty".into(), above: 100.0 }
    }
}

struct Notional {
    price: Json,
    quantity: Json,
    notional: Edit,
    above: f64,
}

impl Plugin for Notional {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        description.only_json();
        description.without_payloads();
        Ok(Self {
            // As JSON: what is no number is rejected, which a field that crosses as a number could not tell from
            // one that is not there.
            price: description.json(&config.price).map_err(|error| format!("`price`: {error}"))?,
            quantity: description.json(&config.quantity).map_err(|error| format!("`quantity`: {error}"))?,
            notional: description.edit("/notional")?,
            above: config.above,
        })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        let (Some(price), Some(quantity)) = (message.get(self.price), message.get(self.quantity)) else {
            return Ok(());
        };
        let price = price.number().ok_or("the price is no number")?;
        let quantity = quantity.number().ok_or("the quantity is no number")?;
        if price <= self.above {
            return Ok(());
        }
        let notional = price * quantity;
        if !notional.is_finite() {
            return Err("price times quantity is too large".into());
        }
        out.forward();
        out.set(self.notional, notional);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_plugin::testing::{Harness, Processed};

    fn process(config: &str, message: &str) -> Processed {
        Harness::<Notional>::try_new(config).unwrap().process([message])
    }

    #[test]
    fn the_value_becomes_the_last_member_and_other_bytes_stay() {
        for (message, sent) in [
            (r#"{"price":123.45,"qty":1.5}"#, r#"{"price":123.45,"qty":1.5,"notional":185.175}"#),
            (
                r#"{"qty":"2","price":"101.0","x":[{}]}"#,
                r#"{"qty":"2","price":"101.0","x":[{}],"notional":202.0}"#,
            ),
            (" {\"price\" : 1e3,\t\"qty\":0 }\n", " {\"price\" : 1e3,\t\"qty\":0 ,\"notional\":0.0}\n"),
            (r#"{"notional" : "?","price":101,"qty":1}"#, r#"{"notional" : 101.0,"price":101,"qty":1}"#),
            (r#"{"price":1e200,"qty":1e-250}"#, r#"{"price":1e200,"qty":1e-250,"notional":1e-50}"#),
        ] {
            assert_eq!(process("{}", message).texts(), [sent]);
        }
    }

    #[test]
    fn what_is_not_above_or_lacks_a_field_is_filtered() {
        for message in [
            r#"{"price":100,"qty":1}"#,
            r#"{"price":"99.9","qty":1}"#,
            r#"{"price":200}"#,
            r#"{"qty":1}"#,
            "[1]",
            "3",
        ] {
            assert!(process("{}", message).is_empty(), "{message}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_rejected() {
        for (message, reason) in [
            (r#"{"price":"x","qty":1}"#, "the price is no number"),
            (r#"{"price":null,"qty":1}"#, "the price is no number"),
            (r#"{"price":1,"qty":[2]}"#, "the quantity is no number"),
            (r#"{"price":1e999,"qty":2}"#, "the price is no number"),
            (r#"{"price":1e300,"qty":1e300}"#, "price times quantity is too large"),
            (r#"{"price":101,"qty":1"#, "not JSON (at byte 20)"),
            (r#"{"price":101,"qty":1}}"#, "not JSON (at byte 21)"),
        ] {
            let processed = process("{}", message);
            assert!(processed.sent.is_empty());
            assert_eq!(processed.rejected, [(0, reason.to_owned())], "{message}");
        }
        let processed = process(r#"{"price":"/0","quantity":"/1"}"#, "[200,1]");
        assert_eq!(processed.rejected, [(0, "the message has no object for /notional".to_owned())]);
    }

    #[test]
    fn fields_and_limit_are_configured() {
        let config = r#"{"price":"/data/p","quantity":"/data/q","above":0}"#;
        let sent = process(config, r#"{"data":{"p":"2","q":"3"}}"#);
        assert_eq!(sent.texts(), [r#"{"data":{"p":"2","q":"3"},"notional":6.0}"#]);
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        for (config, error) in [
            (r#"{"price":"p"}"#, "`price`: \"p\" is not a JSON pointer: it must start with `/`, like \"/p\""),
            (
                r#"{"quantity":"q"}"#,
                "`quantity`: \"q\" is not a JSON pointer: it must start with `/`, like \"/q\"",
            ),
            (r#"{"above":"100"}"#, "`above` must be a number, got a string"),
        ] {
            assert_eq!(Harness::<Notional>::try_new(config).err().as_deref(), Some(error));
        }
    }

    #[test]
    fn a_binary_message_stays_binary() {
        let mut plugin = Harness::<Notional>::try_new("{}").unwrap();
        let processed =
            plugin.process([&br#"{"price":101,"qty":1}"#[..], b"{\"price\":101,\"qty\":1,\"x\":\"\xff\"}"]);
        assert!(processed.sent[0].binary);
        assert_eq!(processed.rejected, [(1, "not JSON (not UTF-8)".to_owned())]);
    }
}
