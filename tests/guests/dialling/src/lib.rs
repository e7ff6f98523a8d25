//! A connector, of which there is one in each language. Of the first dial it adds its key and a first message; before a
//! later one it does what the ending of the last says: `order:argument`.

use std::time::Duration;
use tidemill_plugin::connector::{Attempt, Connector, Dial, Later, Setup};
use tidemill_plugin::http::Request;
use tidemill_plugin::{Result, export_connector};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    key: String,
    #[serde(default)]
    tick_ms: u64,
}

struct Dialling {
    key: String,
}

export_connector!(Dialling);

impl Connector for Dialling {
    type Config = Config;

    fn new(config: Config, setup: &mut Setup) -> Result<Self> {
        setup.tick_every(Duration::from_millis(config.tick_ms));
        Ok(Self { key: config.key })
    }

    fn before_connect(&mut self, dial: &mut Dial, attempt: &Attempt) -> Result {
        let Some(last) = &attempt.last else {
            dial.set_header("Authorization", format!("Bearer {}", self.key));
            dial.send_first("hello żółw");
            return Ok(());
        };
        let (order, argument) = last.detail.split_once(':').unwrap_or((&last.detail, ""));
        match order {
            "told" => {
                let (status, code) = (last.status.unwrap_or(0), last.close_code.unwrap_or(0));
                let told = format!("{} {} {status} {code} {}", attempt.number, last.outcome, last.lasted_ms);
                dial.set_header("X-Told", told);
            }
            "url" => argument.clone_into(&mut dial.url),
            "ask" => {
                let answer = Request::get(argument).send()?;
                dial.set_header("X-Answer", answer.text()?);
            }
            "later" => return Err(Later::new(argument, Duration::from_millis(250)).into()),
            _ => return Err(argument.into()),
        }
        Ok(())
    }

    fn tick(&mut self, now_us: u64) -> Result {
        if now_us.is_multiple_of(2) { Ok(()) } else { Err(format!("{now_us} is odd").into()) }
    }
}
