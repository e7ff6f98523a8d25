//! Has an endpoint dial with the header `Authorization`, which holds a token out of the configuration.

use serde::Deserialize;
use tidemill_plugin::connector::{Attempt, Connector, Dial, Setup};
use tidemill_plugin::{Result, export_connector};

export_connector!(Token);

/// What stands in `config` of `before_connect`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    token: String,
}

impl Connector for Token {
    type Config = Self;

    fn new(config: Self, _: &mut Setup) -> Result<Self> {
        Ok(config)
    }

    /// Changes what is about to be dialled.
    fn before_connect(&mut self, dial: &mut Dial, _: &Attempt) -> Result {
        dial.set_header("Authorization", format!("Bearer {}", self.token));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_plugin::testing::ConnectorHarness;

    #[test]
    fn the_token_is_in_the_handshake() {
        let mut connector = ConnectorHarness::<Token>::try_new(r#"{"token":"t0ken"}"#).expect("it takes its configuration");
        let dial = connector.before_connect(Dial::new("wss://example.com/")).expect("it dials");
        assert_eq!(dial.header("authorization"), Some("Bearer t0ken"));
    }
}
