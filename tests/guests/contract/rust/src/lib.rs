//! The contract's fixture guest in Rust, with the SDK: `../README.md` says what it does.

use std::io::Write as _;
use std::time::Duration;
use tidemill_plugin::{
    Batch, Description, Emissions, Message, Out, Outcome, Output, Plugin, Read, Result, Write, export,
};

struct Contract {
    side: Output,
    room: Option<Read>,
    mark: Write,
    count: u64,
}

#[derive(serde::Deserialize)]
struct Config {
    #[serde(default)]
    refuse: bool,
    #[serde(default)]
    observe: bool,
}

export!(Contract);

impl Plugin for Contract {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        if config.refuse {
            return Err("refused, as asked".into());
        }
        if config.observe {
            description.times();
        }
        description.tick_every(Duration::from_millis(50));
        Ok(Self {
            side: description.output("side"),
            room: config.observe.then(|| description.read("room")),
            mark: description.write("mark"),
            count: 0,
        })
    }

    // An error of `process` rejects one message; only here the whole call can end with one.
    fn process_batch(&mut self, batch: &Batch, outcome: &mut Outcome) -> Result {
        for message in batch.messages() {
            if let (b"fail", why) = cut(message.as_bytes()) {
                return Err(text(why)?.into());
            }
            let mut out = outcome.of(message);
            if let Err(error) = self.process(message, &mut out) {
                out.reject(error);
            }
        }
        Ok(())
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        self.count += 1;
        let bytes = message.as_bytes();
        if !message.is_text() {
            let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
            out.emit().bytes(&reversed);
            return Ok(());
        }
        let (command, rest) = cut(bytes);
        match command {
            b"forward" if rest == b"side" => out.forward_to(self.side),
            b"drop" => {}
            b"emit" => self.emit(rest, out)?,
            b"both" => {
                out.forward();
                out.emit().bytes(rest);
            }
            b"room" => {
                out.emit().text(self.room.map_or("", |room| message.metadata(room)));
            }
            b"time" => write!(out.emit(), "{}", message.received_us().unwrap_or(0))?,
            b"count" => write!(out.emit(), "{}", self.count)?,
            b"reject" => return Err(text(rest)?.into()),
            _ => out.forward(),
        }
        Ok(())
    }

    fn tick(&mut self, now_us: u64, out: &mut Emissions) -> Result {
        if self.count > 0 {
            write!(out.emit().set(self.mark, "timer"), "tick:{now_us}:{}", self.count)?;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Emissions) -> Result {
        write!(out.emit().to(self.side), "finish:{}", self.count)?;
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>> {
        Ok((self.count > 0).then(|| self.count.to_string().into_bytes()))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result {
        self.count = text(snapshot)?.parse().map_err(|_| "not a count")?;
        Ok(())
    }
}

impl Contract {
    /// `OUTPUT:MARK:TEXT`
    fn emit(&self, order: &[u8], out: &mut Out<'_>) -> Result {
        let (output, order) = cut(order);
        let (mark, payload) = cut(order);
        let output = if output == b"side" { self.side } else { Output::DEFAULT };
        let emission = out.emit().to(output);
        match mark {
            b"" => emission,
            b"-" => emission.set(self.mark, ""),
            mark => emission.set(self.mark, text(mark)?),
        }
        .bytes(payload);
        Ok(())
    }
}

/// What is before the first colon, and what is after.
fn cut(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|&byte| byte == b':') {
        Some(colon) => (&bytes[..colon], &bytes[colon + 1..]),
        None => (bytes, &[]),
    }
}

fn text(bytes: &[u8]) -> Result<&str> {
    Ok(std::str::from_utf8(bytes)?)
}
