//! The contract's fixture guest in Rust, with the SDK: `../README.md` says what it does.

mod commands;
mod fields;

use commands::Commands;
use fields::{Filter, Notional, Shown, Symbol};
use std::io::Write as _;
use std::time::Duration;
use tidemill_plugin::{Batch, Description, Emissions, Message, Out, Outcome, Part, Plugin, Result, export};

struct Contract {
    mode: Mode,
    commands: Commands,
    count: u64,
}

/// What decides what becomes of a message.
enum Mode {
    /// Its text.
    Commands,
    /// Nothing: the plugin does not see it.
    Blind,
    Fields(Shown),
    Filter(Filter),
    Notional(Notional),
    Symbol(Symbol),
}

#[derive(serde::Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Config {
    refuse: bool,
    observe: bool,
    blind: bool,
    json: bool,
    guards: bool,
    fields: bool,
    filter: bool,
    notional: bool,
    symbol: bool,
}

export!(Contract);

impl Plugin for Contract {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        if config.refuse {
            return Err("refused, as asked".into());
        }
        if config.blind {
            description.without_payloads();
        }
        if config.json {
            description.only_json();
        }
        if config.guards {
            description.guards();
        }
        description.tick_every(Duration::from_millis(50));
        let commands = Commands::new(config.observe, description);
        let mode = match config {
            Config { fields: true, .. } => Mode::Fields(Shown::new(description)?),
            Config { filter: true, .. } => Mode::Filter(Filter::new(description)?),
            Config { notional: true, .. } => Mode::Notional(Notional::new(description)?),
            Config { symbol: true, .. } => Mode::Symbol(Symbol::new(description)?),
            Config { blind: true, .. } => Mode::Blind,
            _ => Mode::Commands,
        };
        Ok(Self { mode, commands, count: 0 })
    }

    // An error of `process` rejects one message; only here the whole call can end with one.
    fn process_batch(&mut self, batch: &Batch, outcome: &mut Outcome) -> Result {
        if matches!(self.mode, Mode::Commands) {
            self.commands.begin(batch)?;
        }
        for message in batch.messages() {
            let mut out = outcome.of(message);
            if let Err(error) = self.process(message, &mut out) {
                out.reject(error);
            }
            if outcome.is_stopped() {
                break;
            }
        }
        Ok(())
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        self.count += 1;
        match &self.mode {
            Mode::Commands => self.commands.obey(message, self.count, out)?,
            Mode::Blind => out.forward(),
            Mode::Fields(fields) => fields.decide(message, out),
            Mode::Filter(filter) => filter.decide(message, out),
            Mode::Notional(notional) => notional.decide(message, out),
            Mode::Symbol(symbol) => symbol.decide(message, out),
        }
        Ok(())
    }

    fn tick(&mut self, now_us: u64, out: &mut Emissions) -> Result {
        if self.count > 0 {
            write!(out.emit().set(self.commands.mark(), "timer"), "tick:{now_us}:{}", self.count)?;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Emissions) -> Result {
        write!(out.emit().to(self.commands.side()), "finish:{}", self.count)?;
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>> {
        Ok((self.count > 0).then(|| self.count.to_string().into_bytes()))
    }

    fn restore_part(&mut self, snapshots: &[Vec<u8>], part: Part) -> Result {
        self.count = 0;
        for line in snapshots.iter().flat_map(|snapshot| snapshot.split(|&byte| byte == b'\n')) {
            let line = std::str::from_utf8(line)?;
            let (key, count) = line.split_once('=').unwrap_or(("", line));
            let count: u64 = count.parse().map_err(|_| "not a count")?;
            let is_kept = if key.is_empty() { part.number == 0 } else { part.has(key) };
            self.count += if is_kept { count } else { 0 };
        }
        Ok(())
    }
}
