//! Which window a trade belongs to, and when a window is closed: by event time, or by silence.
//!
//! Windows are half-open, aligned to the epoch, and exist from their first trade on. Silence is measured
//! by the times at which messages were received, by the next message of the symbol as well as by the
//! timer, so what a recording gives does not depend on how fast it is read. Nothing here knows messages
//! or JSON.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use tidemill_plugin::Result;

/// Times in messages lie this close to the epoch, in milliseconds: exact as an `f64`, and 285,000 years.
const MAX_TIME_MS: f64 = 9_007_199_254_740_992.0;
/// One of so many symbols is forgotten at once, so that looking for the one that was silent longest is
/// not done for every new symbol.
const FORGOTTEN_SHARE: usize = 64;

/// One trade, its numbers checked.
pub(crate) struct Trade {
    quantity: f64,
    turnover: f64,
    time_ms: i64,
}

/// What a window has seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    #[serde(with = "bits")]
    pub(crate) volume: f64,
    #[serde(with = "bits")]
    turnover: f64,
    pub(crate) count: u64,
}

/// The windows of one symbol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    /// Open ones, in the order of their time.
    open: Vec<Window>,
    /// The end of the newest closed one: what is older is late.
    closed_until_ms: Option<i64>,
    /// When the last message was received.
    received_us: u64,
    /// The number of that message among those of all symbols.
    #[serde(default)]
    turn: u64,
}

/// The windows of all symbols.
pub(crate) struct Windows {
    length_ms: i64,
    lateness_ms: i64,
    idle_close_us: Option<u64>,
    max_symbols: usize,
    series: BTreeMap<String, Series>,
    /// How many messages came.
    turn: u64,
}

/// What became of a trade.
#[derive(Debug, PartialEq)]
pub(crate) struct Arrival {
    /// It is older than the newest closed window's end, and does not count.
    pub(crate) is_late: bool,
    /// These windows are closed since, by its time or because it came after silence.
    pub(crate) closed: Vec<Window>,
}

impl Trade {
    pub(crate) fn try_new(price: f64, quantity: f64, time_ms: f64) -> Result<Self> {
        let turnover = price * quantity;
        if !turnover.is_finite() {
            return Err("price times quantity is too large".into());
        }
        if time_ms.abs() > MAX_TIME_MS {
            return Err("the time is out of range".into());
        }
        Ok(Self { quantity, turnover, time_ms: time_ms.floor() as i64 })
    }
}

impl Window {
    /// The volume-weighted average price, if there was volume.
    pub(crate) fn vwap(&self) -> Option<f64> {
        (self.volume != 0.0).then(|| self.turnover / self.volume)
    }

    fn add(&mut self, trade: &Trade) {
        self.volume += trade.quantity;
        self.turnover += trade.turnover;
        self.count += 1;
    }
}

impl Windows {
    pub(crate) fn new(
        length: Duration,
        lateness: Duration,
        idle_close: Duration,
        max_symbols: usize,
    ) -> Self {
        let idle_close_us = u64::try_from(idle_close.as_micros()).unwrap_or(u64::MAX);
        Self {
            length_ms: milliseconds(length).max(1),
            lateness_ms: milliseconds(lateness),
            idle_close_us: (idle_close_us > 0).then_some(idle_close_us),
            max_symbols,
            series: BTreeMap::new(),
            turn: 0,
        }
    }

    /// Forgets those symbols that were silent longest, if there is no room for this one, and gives their
    /// open windows to `write`. How many that were.
    pub(crate) fn make_room(
        &mut self,
        symbol: &str,
        mut write: impl FnMut(&str, &Window) -> Result,
    ) -> Result<usize> {
        let count = self.series.len();
        if count < self.max_symbols || self.series.contains_key(symbol) {
            return Ok(0);
        }
        let mut turns: Vec<u64> = self.series.values().map(|series| series.turn).collect();
        let surplus = count - self.max_symbols + (self.max_symbols / FORGOTTEN_SHARE).max(1);
        let (_, newest_forgotten, _) = turns.select_nth_unstable(surplus.min(count) - 1);
        let newest_forgotten = *newest_forgotten;
        for (symbol, series) in self.series.extract_if(.., |_, series| series.turn <= newest_forgotten) {
            series.open.iter().try_for_each(|window| write(&symbol, window))?;
        }
        Ok(count - self.series.len())
    }

    /// Counts a trade, received at `received_us`, and closes what its time closes.
    pub(crate) fn add(&mut self, symbol: &str, trade: &Trade, received_us: u64) -> Arrival {
        if !self.series.contains_key(symbol) {
            self.series.insert(symbol.to_owned(), Series::new());
        }
        let series = self.series.get_mut(symbol).expect("the symbol has a series by now");
        let idle_us = received_us.saturating_sub(std::mem::replace(&mut series.received_us, received_us));
        self.turn += 1;
        series.turn = self.turn;
        let mut closed = Vec::new();
        if self.idle_close_us.is_some_and(|idle_close_us| idle_us >= idle_close_us) {
            closed = series.close(|_| true);
        }
        if series.closed_until_ms.is_some_and(|end_ms| trade.time_ms < end_ms) {
            return Arrival { is_late: true, closed };
        }
        let lateness_ms = self.lateness_ms;
        closed.extend(series.close(|window| trade.time_ms >= window.end_ms.saturating_add(lateness_ms)));
        series.window(trade.time_ms, self.length_ms).add(trade);
        Arrival { is_late: false, closed }
    }

    /// Closes the windows of symbols of which no message was received for long enough.
    pub(crate) fn close_idle(
        &mut self,
        now_us: u64,
        mut write: impl FnMut(&str, &Window) -> Result,
    ) -> Result {
        let Some(idle_close_us) = self.idle_close_us else { return Ok(()) };
        for (symbol, series) in &mut self.series {
            if now_us.saturating_sub(series.received_us) >= idle_close_us {
                series.close(|_| true).iter().try_for_each(|window| write(symbol, window))?;
            }
        }
        Ok(())
    }

    /// All open windows, by symbol and time.
    pub(crate) fn open(&self) -> impl Iterator<Item = (&str, &Window)> {
        self.series
            .iter()
            .flat_map(|(symbol, series)| series.open.iter().map(move |window| (&**symbol, window)))
    }

    pub(crate) fn series(&self) -> &BTreeMap<String, Series> {
        &self.series
    }

    pub(crate) fn set_series(&mut self, series: BTreeMap<String, Series>) {
        self.turn = series.values().map(|series| series.turn).max().unwrap_or(0);
        self.series = series;
    }
}

impl Series {
    fn new() -> Self {
        Self { open: Vec::new(), closed_until_ms: None, received_us: 0, turn: 0 }
    }

    /// Closes the windows that `closes` names.
    fn close(&mut self, closes: impl Fn(&Window) -> bool) -> Vec<Window> {
        let closed: Vec<Window> = self.open.extract_if(.., |window| closes(window)).collect();
        let newest_ms = closed.iter().map(|window| window.end_ms).max();
        self.closed_until_ms = self.closed_until_ms.max(newest_ms);
        closed
    }

    /// The open window of this time. One that a snapshot brought may be of another length.
    fn window(&mut self, time_ms: i64, length_ms: i64) -> &mut Window {
        let holds = |window: &Window| (window.start_ms..window.end_ms).contains(&time_ms);
        let place = self.open.iter().position(holds).unwrap_or_else(|| {
            let place = self.open.partition_point(|window| window.start_ms <= time_ms);
            let start_ms = time_ms.div_euclid(length_ms).saturating_mul(length_ms);
            let end_ms = start_ms.saturating_add(length_ms);
            self.open.insert(place, Window { start_ms, end_ms, volume: 0.0, turnover: 0.0, count: 0 });
            place
        });
        &mut self.open[place]
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Sums travel in snapshots as their bits: a swap must not change a digit of a result.
mod bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        number.to_bits().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }
}
