//! Volume-weighted average prices of tumbling windows in event time, one series a symbol.
//!
//! This file reads messages and writes results; when a window is open, closed or late, the SDK knows (`windows`). A
//! message that lacks one of the fields, or that `where` does not match, is filtered. What is not JSON is rejected, and
//! so is a price, quantity or time that is no number.
//!
//! At most `max_symbols` symbols are remembered, or as many as there is room for. A new one beyond that makes it forget the
//! one that was silent longest: its open windows are emitted with `"final": false`, and `tidemill_guest_symbols_forgotten_total` counts the
//! symbols. One that comes back starts anew, and knows of no closed window for which a message could be late.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidemill_plugin::condition::{Conditions, Match, Op, Rule};
use tidemill_plugin::event_time::EventTime;
use tidemill_plugin::keyed::{Key, parts};
use tidemill_plugin::windows::{Aggregation, Window, WindowKind, WindowRules, Windows};
use tidemill_plugin::{
    Description, Emission, Emissions, Error, Json, Message, Out, Part, Plugin, Result, export, metrics,
};

export!(Vwap);

/// The counter of late messages.
const LATE: &str = "late";
/// The counter of symbols that were forgotten to make room.
const FORGOTTEN: &str = "symbols_forgotten";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    symbol: String,
    price: String,
    quantity: String,
    time: String,
    #[serde(rename = "where")]
    rules: Vec<Rule>,
    #[serde(with = "tidemill_plugin::duration")]
    window: Duration,
    #[serde(with = "tidemill_plugin::duration")]
    allowed_lateness: Duration,
    #[serde(with = "tidemill_plugin::duration")]
    idle_close: Duration,
    max_symbols: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            symbol: "/data/s".into(),
            price: "/data/p".into(),
            quantity: "/data/q".into(),
            time: "/data/T".into(),
            rules: vec![Rule { field: "/data/e".into(), op: Op::Eq, value: Some("trade".into()) }],
            window: Duration::from_secs(60),
            allowed_lateness: Duration::ZERO,
            idle_close: Duration::ZERO,
            max_symbols: None,
        }
    }
}

struct Vwap {
    symbol: Key,
    price: Json,
    quantity: Json,
    time: EventTime,
    conditions: Conditions,
    windows: Windows<Trades>,
    /// The fields as they were configured: what a snapshot means.
    meaning: String,
}

/// What is computed of the trades of a window.
struct Trades;

/// One trade, its numbers checked.
struct Trade {
    quantity: f64,
    turnover: f64,
}

/// What a window has seen.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Traded {
    volume: f64,
    turnover: f64,
    count: u64,
}

impl Aggregation for Trades {
    type Contents = Traded;
    type Reading = Trade;

    fn empty(&self) -> Traded {
        Traded::default()
    }

    fn add(&self, traded: &mut Traded, trade: &Trade) {
        traded.volume += trade.quantity;
        traded.turnover += trade.turnover;
        traded.count += 1;
    }

    fn emitted_bytes(&self) -> usize {
        r#"{"symbol":"","window_start":0,"window_end":0,"vwap":0.0,"volume":0.0,"count":1,"final":true}"#
            .len()
    }

    fn merge(&self, traded: &mut Traded, later: &Traded) {
        traded.volume += later.volume;
        traded.turnover += later.turnover;
        traded.count += later.count;
    }
}

impl Plugin for Vwap {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        description.only_json();
        description.without_payloads();
        let rules = WindowRules {
            kind: WindowKind::Tumbling { size: config.window },
            allowed_lateness: config.allowed_lateness,
            idle_close: config.idle_close,
            max_keys: config.max_symbols,
        };
        let field = |key: &str, pointer: &str, description: &mut Description| {
            description.json(pointer).map_err(|error| format!("`{key}`: {error}"))
        };
        Ok(Self {
            symbol: Key::compile("`symbol`", [&config.symbol], description)?,
            price: field("price", &config.price, description)?,
            quantity: field("quantity", &config.quantity, description)?,
            time: EventTime::compile(&config.time, description)
                .map_err(|error| format!("`time`: {error}"))?,
            conditions: Conditions::compile(&config.rules, Match::All, description)?,
            windows: Windows::try_new(&rules, Trades, description).map_err(|error| named(&error))?,
            meaning: format!(
                "`price` {} and `quantity` {} for the `symbol` {}",
                config.price, config.quantity, config.symbol
            ),
        })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        let (Some(symbol), Some(price), Some(quantity)) =
            (self.symbol.of(message)?, message.get(self.price), message.get(self.quantity))
        else {
            return Ok(());
        };
        if !self.conditions.hold(message) {
            return Ok(());
        }
        let Some(time_ms) = self.time.of(message)? else { return Ok(()) };
        let price = price.number().ok_or("the price is no number")?;
        let quantity = quantity.number().ok_or("the quantity is no number")?;
        let trade = Trade { quantity, turnover: price * quantity };
        if !trade.turnover.is_finite() {
            return Err("price times quantity is too large".into());
        }
        let received_us = message.received_us().unwrap_or(0);
        let is_late = self.windows.add(&symbol, time_ms, received_us, &trade, |window| {
            write(out.emit().binary(false), &symbol, window, true)
        })?;
        if is_late {
            metrics::add(LATE, 1.0);
        }
        let forgotten =
            self.windows.push_out(|symbol, window| write(out.emit().binary(false), symbol, window, false))?;
        if forgotten > 0 {
            metrics::add(FORGOTTEN, forgotten as f64);
        }
        Ok(())
    }

    fn tick(&mut self, now_us: u64, out: &mut Emissions) -> Result {
        self.windows.close_idle(now_us, |symbol, window| write(out.emit(), symbol, window, true))
    }

    fn finish(&mut self, out: &mut Emissions) -> Result {
        self.windows.close_all(out, |emission, symbol, window| write(emission, symbol, window, false))
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>> {
        self.windows.snapshot(&self.meaning).map(Some)
    }

    fn restore_part(&mut self, snapshots: &[Vec<u8>], part: Part) -> Result {
        self.windows.restore(snapshots, part, &self.meaning)
    }
}

/// What is wrong with windows, by the names that the keys of the configuration have here.
fn named(error: &Error) -> Error {
    error.to_string().replace("`size`", "`window`").replace("`max_keys`", "`max_symbols`").into()
}

/// What is emitted of a window.
#[derive(Serialize)]
struct Price<'a> {
    symbol: &'a str,
    window_start: i64,
    window_end: i64,
    vwap: Option<f64>,
    volume: f64,
    count: u64,
    #[serde(rename = "final")]
    is_final: bool,
}

fn write(emission: Emission<'_>, symbol: &str, window: &Window<Traded>, is_final: bool) -> Result {
    let Traded { volume, turnover, count } = window.contents;
    emission.json(&Price {
        symbol: &parts(symbol).next().unwrap_or_default(),
        window_start: window.start_ms,
        window_end: window.end_ms,
        vwap: (volume != 0.0).then(|| turnover / volume),
        volume,
        count,
        is_final,
    })?;
    Ok(())
}

#[cfg(test)]
mod tests;
