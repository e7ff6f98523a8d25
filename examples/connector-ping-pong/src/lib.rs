//! HTX's way: pings are messages, `{"ping":1492420473027}`, and each wants its number back on the same connection.

use tidemill_plugin::{Description, Json, Message, NoConfig, Out, Output, Plugin, Result, export};

export!(PingPong);

struct PingPong {
    ping: Json,
    pong: Output,
}

impl Plugin for PingPong {
    type Config = NoConfig;

    fn new(_: NoConfig, description: &mut Description) -> Result<Self> {
        description.only_json();
        description.without_payloads();
        Ok(Self { ping: description.json("/ping")?, pong: description.output("pong") })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        match message.get(self.ping) {
            Some(number) => {
                let number = std::str::from_utf8(number.raw())?;
                out.emit().binary(false).to(self.pong).text(&format!("{{\"pong\":{number}}}"));
            }
            None => out.forward(),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_plugin::testing::Harness;

    #[test]
    fn a_ping_is_answered_with_its_number_and_goes_no_further() {
        let mut plugin = Harness::<PingPong>::try_new("{}").expect("there is nothing to configure");
        let sent = plugin.process([r#"{"ping":1492420473027}"#, r#"{"ch":"trades"}"#]);
        assert_eq!(sent.texts(), [r#"{"pong":1492420473027}"#, r#"{"ch":"trades"}"#]);
    }
}
