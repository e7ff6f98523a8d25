//! Volume-weighted average prices of tumbling windows in event time, one series a symbol.
//!
//! This file reads messages and writes results; `windows.rs` knows when a window is open, closed or
//! late. A message that lacks one of the fields, or that `where` does not match, is filtered. What is
//! not JSON is rejected, and so is a price, quantity or time that is no number.
//!
//! At most `max_symbols` symbols (200,000) are remembered. A new one beyond that makes it forget those
//! that were silent longest, the 64th part of all at once: their open windows are emitted with
//! `"final": false`, and `tidemill_guest_symbols_forgotten_total` counts the symbols. One that comes back
//! starts anew, and knows of no closed window for which a message could be late.

mod windows;

use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidemill_plugin::condition::{Conditions, Match, Op, Rule};
use tidemill_plugin::{
    Description, Emission, Emissions, Json, Message, Out, Plugin, Result, export, json, metrics,
};
use windows::{Arrival, Trade, Window, Windows};

export!(Vwap);

/// The counter of late messages.
const LATE: &str = "late";
/// The counter of symbols that were forgotten to make room.
const FORGOTTEN: &str = "symbols_forgotten";
/// Symbols that are remembered, if nothing else is said: with a window each they take two thirds of the
/// memory that a plugin has by default.
const MAX_SYMBOLS: usize = 200_000;

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
    max_symbols: usize,
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
            max_symbols: MAX_SYMBOLS,
        }
    }
}

struct Vwap {
    symbol: Json,
    price: Json,
    quantity: Json,
    time: Json,
    conditions: Conditions,
    windows: Windows,
}

impl Plugin for Vwap {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        if config.window.is_zero() {
            return Err("`window` must be longer than 0".into());
        }
        if config.max_symbols == 0 {
            return Err("`max_symbols` must be more than 0".into());
        }
        if !config.idle_close.is_zero() {
            description.times();
            description.tick_every(tick(config.idle_close));
        }
        description.only_json();
        description.without_payloads();
        Ok(Self {
            symbol: description.json(&config.symbol)?,
            price: description.json(&config.price)?,
            quantity: description.json(&config.quantity)?,
            time: description.json(&config.time)?,
            conditions: Conditions::compile(&config.rules, Match::All, description)?,
            windows: Windows::new(
                config.window,
                config.allowed_lateness,
                config.idle_close,
                config.max_symbols,
            ),
        })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        let (Some(symbol), Some(price), Some(quantity), Some(time)) = (
            message.get(self.symbol),
            message.get(self.price),
            message.get(self.quantity),
            message.get(self.time),
        ) else {
            return Ok(());
        };
        if !self.conditions.hold(message) {
            return Ok(());
        }
        let price = price.number().ok_or("the price is no number")?;
        let quantity = quantity.number().ok_or("the quantity is no number")?;
        let time_ms = time.number().ok_or("the time is no number")?;
        let trade = Trade::try_new(price, quantity, time_ms)?;
        let symbol = symbol.label();
        let forgotten = self
            .windows
            .make_room(&symbol, |symbol, window| write(out.emit().binary(false), symbol, window, false))?;
        if forgotten > 0 {
            metrics::add(FORGOTTEN, forgotten as f64);
        }
        let Arrival { is_late, closed } =
            self.windows.add(&symbol, &trade, message.received_us().unwrap_or(0));
        if is_late {
            metrics::add(LATE, 1.0);
        }
        for window in &closed {
            write(out.emit().binary(false), &symbol, window, true)?;
        }
        Ok(())
    }

    fn tick(&mut self, now_us: u64, out: &mut Emissions) -> Result {
        self.windows.close_idle(now_us, |symbol, window| write(out.emit(), symbol, window, true))
    }

    fn finish(&mut self, out: &mut Emissions) -> Result {
        self.windows.open().try_for_each(|(symbol, window)| write(out.emit(), symbol, window, false))
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>> {
        json::encode(self.windows.series()).map(Some)
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result {
        self.windows.set_series(json::decode(snapshot)?);
        Ok(())
    }
}

/// How often to look for windows to close: a tenth of the time that they may be idle, so that one closes
/// at most that much late, within bounds that keep an idle host idle.
fn tick(idle_close: Duration) -> Duration {
    (idle_close / 10).clamp(Duration::from_millis(10), Duration::from_secs(1))
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

fn write(emission: Emission<'_>, symbol: &str, window: &Window, is_final: bool) -> Result {
    emission.json(&Price {
        symbol,
        window_start: window.start_ms,
        window_end: window.end_ms,
        vwap: window.vwap(),
        volume: window.volume,
        count: window.count,
        is_final,
    })?;
    Ok(())
}

#[cfg(test)]
mod tests;
