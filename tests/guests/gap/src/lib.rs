//! Watches the numbers of a feed, and closes its connection where one is missing: what is emitted to `back`, which
//! a sink of replies takes, has `__meta_close`.
//!
//! A message is a number, or `close CODE REASON`, or `last CODE REASON`, which says "bye" before.

use std::collections::BTreeMap;
use tidemill_plugin::{Description, Message, NoConfig, Out, Output, Plugin, Read, Result, Write, export};

struct Gap {
    connection: Read,
    close: Write,
    back: Output,
    /// The last number of each connection.
    last: BTreeMap<String, u64>,
}

export!(Gap);

impl Plugin for Gap {
    type Config = NoConfig;

    fn new(_: NoConfig, description: &mut Description) -> Result<Self> {
        Ok(Self {
            connection: description.read("__meta_connection"),
            close: description.write("__meta_close"),
            back: description.output("back"),
            last: BTreeMap::new(),
        })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        let text = message.as_text().ok_or("not a text")?;
        let said = match text.split_once(' ') {
            Some(("close", how)) => Some((how.to_owned(), "")),
            Some(("last", how)) => Some((how.to_owned(), "bye")),
            _ => {
                let number: u64 = text.parse()?;
                out.forward();
                let connection = message.metadata(self.connection).to_owned();
                let last = self.last.insert(connection, number);
                let missing = last.map_or(0, |last| number.saturating_sub(last + 1));
                (missing > 0).then(|| (format!("4000 gap of {missing}"), ""))
            }
        };
        if let Some((how, payload)) = said {
            out.emit().to(self.back).set(self.close, &how).text(payload);
        }
        Ok(())
    }
}
