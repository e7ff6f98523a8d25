//! A connector that does what a server tells it before each dial: a line of the answer is a thing to do, and what
//! the request says is what the connector was told.

use std::hint::black_box;
use std::time::Duration;
use tidemill_plugin::connector::{Attempt, Connector, Dial, Later, Setup};
use tidemill_plugin::http::Request;
use tidemill_plugin::{Result, export_connector, log, state};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The server.
    url: String,
    /// How often the timer is wanted, in milliseconds.
    #[serde(default)]
    tick_ms: u64,
}

struct Minting {
    url: String,
    /// How often this instance was asked.
    calls: u32,
}

export_connector!(Minting);

/// What counts the questions of all instances.
const KEPT: &str = "calls";

impl Connector for Minting {
    type Config = Config;

    fn new(config: Config, setup: &mut Setup) -> Result<Self> {
        setup.tick_every(Duration::from_millis(config.tick_ms));
        Ok(Self { url: config.url, calls: 0 })
    }

    fn before_connect(&mut self, dial: &mut Dial, attempt: &Attempt) -> Result {
        self.calls += 1;
        let kept = state::get(KEPT).and_then(|kept| String::from_utf8(kept).ok()?.parse::<u32>().ok());
        let kept = kept.unwrap_or(0) + 1;
        state::set(KEPT, kept.to_string().as_bytes())?;
        let mut url = format!("{}?number={}&calls={}&kept={kept}", self.url, attempt.number, self.calls);
        if let Some(last) = &attempt.last {
            url.push_str(&format!("&outcome={}", last.outcome));
            url.extend(last.status.map(|status| format!("&status={status}")));
            url.extend(last.close_code.map(|code| format!("&code={code}")));
        }
        let answer = Request::get(url).send()?.success()?;
        answer.text()?.lines().try_for_each(|line| act(line, dial))
    }

    fn tick(&mut self, _: u64) -> Result {
        let answer = Request::get(format!("{}?tick", self.url)).send()?;
        match answer.text()? {
            "trap" => panic!("as the server says"),
            "fail" => Err("as the server says".into()),
            _ => Ok(()),
        }
    }
}

fn act(line: &str, dial: &mut Dial) -> Result {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "token" => {
            dial.set_header("Authorization", format!("Bearer {rest}"));
            dial.set_query("token", rest);
            dial.send_first(format!(r#"{{"op":"auth","token":"{rest}"}}"#));
        }
        "subprotocol" => dial.subprotocols.push(rest.to_owned()),
        "url" => rest.clone_into(&mut dial.url),
        "header" => {
            let (name, value) = rest.split_once(' ').ok_or("a header has a value")?;
            dial.set_header(name, value);
        }
        "later" => {
            let (ms, reason) = rest.split_once(' ').ok_or("a reason follows")?;
            return Err(Later::new(reason, Duration::from_millis(ms.parse()?)).into());
        }
        "refuse" => return Err(rest.into()),
        "say" => log::warn(rest),
        "trap" => panic!("{rest}"),
        "spin" => loop {
            black_box(0);
        },
        _ => return Err(format!("what is {word}?").into()),
    }
    Ok(())
}
