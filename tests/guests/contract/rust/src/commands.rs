//! What the text of a message says is to become of it.

use std::io::Write as _;
use std::time::Duration;
use tidemill_plugin::state::{self, Change};
use tidemill_plugin::{Batch, Description, Message, Out, Output, Read, Result, Write};

/// What becomes of a message by its text.
pub(crate) struct Commands {
    side: Output,
    room: Option<Read>,
    mark: Write,
    /// What the host's state has for the messages of a batch that ask for it, the next one last.
    loaded: Vec<Option<Vec<u8>>>,
}

impl Commands {
    pub(crate) fn new(observe: bool, description: &mut Description) -> Self {
        if observe {
            description.times();
        }
        Self {
            side: description.output("side"),
            room: observe.then(|| description.read("room")),
            mark: description.write("mark"),
            loaded: Vec::new(),
        }
    }

    pub(crate) fn mark(&self) -> Write {
        self.mark
    }

    pub(crate) fn side(&self) -> Output {
        self.side
    }

    /// Does for the whole batch what is done once a batch.
    pub(crate) fn begin(&mut self, batch: &Batch) -> Result {
        let (mut changes, mut keys) = (Vec::new(), Vec::new());
        let is_early = |message: &Message<'_>| {
            [&b"fail"[..], b"save", b"load"].iter().any(|command| message.as_bytes().starts_with(command))
        };
        for message in batch.messages().filter(is_early) {
            match cut(message.as_bytes()) {
                (b"fail", why) => return Err(text(why)?.into()),
                (b"save", rest) => changes.push(change(rest)?),
                (b"load", key) => keys.push(text(key)?.to_owned()),
                _ => {}
            }
        }
        if !changes.is_empty() {
            state::set_many(&changes)?;
        }
        if !keys.is_empty() {
            self.loaded = state::get_many(&keys);
            self.loaded.reverse();
        }
        Ok(())
    }

    pub(crate) fn obey(&mut self, message: Message<'_>, count: u64, out: &mut Out<'_>) -> Result {
        let bytes = message.as_bytes();
        if !message.is_text() {
            let reversed: Vec<u8> = bytes.iter().rev().copied().collect();
            out.emit().bytes(&reversed);
            return Ok(());
        }
        let (command, rest) = cut(bytes);
        match command {
            b"forward" if rest == b"side" => out.forward_to(self.side),
            b"mark" => {
                out.forward();
                out.set_metadata(self.mark, mark(rest)?);
            }
            b"drop" | b"save" => {}
            b"emit" => self.emit(rest, out)?,
            b"both" => {
                out.forward();
                out.emit().bytes(rest);
            }
            b"room" => {
                out.emit().text(self.room.map_or("", |room| message.metadata(room)));
            }
            b"time" => write!(out.emit(), "{}", message.received_us().unwrap_or(0))?,
            b"count" => write!(out.emit(), "{count}")?,
            b"load" => {
                out.emit().bytes(self.loaded.pop().flatten().as_deref().unwrap_or(b"-"));
            }
            b"later" => {
                let (after, why) = cut(rest);
                out.retry(text(why)?, Duration::from_millis(text(after)?.parse()?));
            }
            b"reject" => return Err(text(rest)?.into()),
            _ => out.forward(),
        }
        Ok(())
    }

    /// `OUTPUT:MARK:TEXT`
    fn emit(&self, order: &[u8], out: &mut Out<'_>) -> Result {
        let (output, order) = cut(order);
        let (value, payload) = cut(order);
        let output = if output == b"side" { self.side } else { Output::DEFAULT };
        let emission = out.emit().to(output);
        match value {
            b"" => emission,
            value => emission.set(self.mark, mark(value)?),
        }
        .bytes(payload);
        Ok(())
    }
}

/// `KEY:TTL:VALUE`
fn change(order: &[u8]) -> Result<Change> {
    let (key, order) = cut(order);
    let (ttl, value) = cut(order);
    let key = text(key)?;
    let ttl_ms = text(ttl)?.parse()?;
    Ok(match value {
        b"-" => Change::remove(key),
        value => Change { ttl_ms, ..Change::set(key, value) },
    })
}

fn mark(value: &[u8]) -> Result<&str> {
    text(if value == b"-" { b"" } else { value })
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
