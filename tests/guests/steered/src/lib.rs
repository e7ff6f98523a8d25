//! Does with each message what the message says: `ID FIRST SECOND ...` is words, and the configuration
//! tells an instance which of them is meant for it. So a test knows beforehand what becomes of every
//! message in each stage.
//!
//! What is emitted is the message again, its `ID` followed by `.a0`, `.a1` and so on where the word is
//! the first, by `.b0` where it is the second.

use std::hint::black_box;
use tidemill_plugin::{Description, Message, Out, Output, Plugin, Result, export, log, metrics, random};

/// More than a test lets a call return.
const FLOOD_BYTES: usize = 4 << 20;
/// Taken at a time until there is no more.
const HOG_STEP_BYTES: usize = 1 << 20;
/// Of one call, each of them a few bytes.
const MANY_EMISSIONS: usize = 10_000;
const MANY_LINES: usize = 5_000;
const MANY_CHANGES: usize = 20_000;
/// So many metrics that no host keeps them all.
const MANY_NAMES: usize = 500;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The place of the word that is meant for this instance.
    word: usize,
}

struct Steered {
    word: usize,
    side: Output,
    /// How many messages there were, carried from version to version.
    count: u64,
}

export!(Steered);

impl Plugin for Steered {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        Ok(Self { word: config.word, side: description.output("side"), count: 0 })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        self.count += 1;
        let text = message.as_text().ok_or("not a text")?;
        match text.split(' ').nth(self.word).ok_or("no word for this stage")? {
            "pass" => out.forward(),
            "filter" => {}
            "both" => {
                out.forward();
                self.emit(out, text, 1);
            }
            "emit2" => self.emit(out, text, 2),
            "emit3" => self.emit(out, text, 3),
            "side" => out.forward_to(self.side),
            "random" => drop(out.emit().text(&random::next().to_string())),
            "reject" => return Err("as the message says".into()),
            "trap" => panic!("as the message says"),
            "spin" => loop {
                black_box(0);
            },
            "flood" => {
                out.emit().bytes(&vec![b'x'; FLOOD_BYTES]);
            }
            "hog" => hog(),
            "many" => (0..MANY_EMISSIONS).for_each(|_| drop(out.emit().text("x"))),
            "lines" => (0..MANY_LINES).for_each(|n| log::warn(format_args!("line {n}"))),
            "changes" => (0..MANY_CHANGES).for_each(|n| {
                metrics::add("changes", 1.0);
                metrics::set(&format!("gauge_{}", n % MANY_NAMES), 1.0);
            }),
            word => return Err(format!("no such word: {word}").into()),
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>> {
        Ok(Some(self.count.to_le_bytes().into()))
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result {
        self.count = u64::from_le_bytes(snapshot.try_into()?);
        Ok(())
    }
}

impl Steered {
    fn emit(&self, out: &mut Out<'_>, text: &str, count: usize) {
        let (id, rest) = text.split_once(' ').unwrap_or((text, ""));
        let letter = char::from(b'a' + u8::try_from(self.word.saturating_sub(1)).unwrap_or(0));
        for n in 0..count {
            out.emit().text(&format!("{id}.{letter}{n} {rest}"));
        }
    }
}

fn hog() {
    let mut taken = Vec::new();
    loop {
        taken.push(black_box(vec![1_u8; HOG_STEP_BYTES]));
    }
}
