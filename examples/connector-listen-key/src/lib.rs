//! Binance's way: a listen key is the path to dial, and has to be kept alive for as long as the connection stands.

use serde::Deserialize;
use std::time::Duration;
use tidemill_plugin::connector::{Attempt, Connector, Dial, Setup};
use tidemill_plugin::http::Request;
use tidemill_plugin::{Result, export_connector, json, state};

export_connector!(ListenKey);

/// What stands in `config` of `before_connect`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenKey {
    /// Where keys are given (POST) and kept alive (PUT).
    url: String,
    /// How often the key is kept alive.
    #[serde(with = "tidemill_plugin::duration")]
    keep_alive: Duration,
}

#[derive(Deserialize)]
struct Given {
    #[serde(rename = "listenKey")]
    listen_key: String,
}

/// Where the host keeps the key: it outlives an instance that fails.
const KEY: &str = "listen-key";

impl Connector for ListenKey {
    type Config = Self;

    fn new(config: Self, setup: &mut Setup) -> Result<Self> {
        setup.tick_every(config.keep_alive);
        Ok(config)
    }

    fn before_connect(&mut self, dial: &mut Dial, _: &Attempt) -> Result {
        let answer = Request::post(&self.url).send()?.success()?;
        let Given { listen_key } = json::decode(&answer.body)?;
        dial.url = format!("{}/{listen_key}", dial.url.trim_end_matches('/'));
        state::set(KEY, listen_key.as_bytes())
    }

    fn tick(&mut self, _: u64) -> Result {
        let Some(key) = state::get(KEY) else { return Ok(()) };
        let url = format!("{}?listenKey={}", self.url, String::from_utf8(key)?);
        Request::new("PUT", url).send()?.success()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_plugin::http::Response;
    use tidemill_plugin::testing::{Answers, ConnectorHarness};

    #[test]
    fn the_key_is_dialled_and_kept_alive() {
        let config = r#"{"url":"https://example.com/key","keep_alive":"30m"}"#;
        let mut connector =
            ConnectorHarness::<ListenKey>::try_new(config).expect("it takes its configuration");
        assert_eq!(connector.tick_ms(), 1_800_000);
        connector.host.answers = Answers::by(|_| Ok(Response::new(200, r#"{"listenKey":"k1"}"#)));
        let dial = connector.before_connect(Dial::new("wss://example.com/ws")).expect("there is a key");
        assert_eq!(dial.url, "wss://example.com/ws/k1");
        connector.tick(1).expect("it is kept alive");
        let asked = connector.host.requests.last().expect("it was asked");
        assert_eq!((&*asked.method, &*asked.url), ("PUT", "https://example.com/key?listenKey=k1"));
    }
}
