//! What the JSON fields of a message say is to become of it.

use std::io::Write as _;
use tidemill_plugin::{Description, Edit, Json, Message, Number, Out, Result, Text};

/// What is forwarded by [`Filter`].
const ABOVE: f64 = 100.0;
const SYMBOL: &str = "BTCUSDT";

/// Shows the fields of a message, or edits it.
pub(crate) struct Shown {
    order: Text,
    price: Number,
    text: Text,
    values: [Json; 2],
    double: Edit,
    notes: [Edit; 2],
}

impl Shown {
    pub(crate) fn new(description: &mut Description) -> Result<Self> {
        Ok(Self {
            price: description.number("/price")?,
            order: description.text("/do")?,
            text: description.text("/a~1b")?,
            values: [description.json("/set/0")?, description.json("/set/1")?],
            double: description.edit("/price")?,
            notes: [description.edit("/note")?, description.edit("/deep/note")?],
        })
    }

    pub(crate) fn decide(&self, message: Message<'_>, out: &mut Out<'_>) {
        match message.get(self.order) {
            Some("drop") => {}
            Some("show") => self.show(message, out),
            Some("edit") => {
                out.forward();
                if let Some(price) = message.get(self.price) {
                    out.set(self.double, 2.0 * price);
                }
                for (value, note) in self.values.into_iter().zip(self.notes) {
                    match message.get(value) {
                        Some(value) if value.raw() == b"\"\"" => out.remove(note),
                        Some(value) => out.set(note, value),
                        None => {}
                    }
                }
            }
            _ => out.forward(),
        }
    }

    fn show(&self, message: Message<'_>, out: &mut Out<'_>) {
        let cents = message.get(self.price).map(|price| format!("{}", (100.0 * price).round()));
        let value = |field: Json| message.get(field).map_or(b"-".as_slice(), |value| value.raw());
        let mut emission = out.emit();
        // Writing to an emission does not fail.
        let _ = write!(emission, "{}|", cents.as_deref().unwrap_or("-"));
        emission = emission.text(message.get(self.text).unwrap_or("-"));
        for field in self.values {
            emission = emission.text("|").bytes(value(field));
        }
    }
}

/// Forwards by two fields.
pub(crate) struct Filter {
    price: Number,
    symbol: Text,
}

impl Filter {
    pub(crate) fn new(description: &mut Description) -> Result<Self> {
        Ok(Self { price: description.number("/p")?, symbol: description.text("/s")? })
    }

    pub(crate) fn decide(&self, message: Message<'_>, out: &mut Out<'_>) {
        if message.get(self.price).is_some_and(|price| price > ABOVE)
            && message.get(self.symbol) == Some(SYMBOL)
        {
            out.forward();
        }
    }
}

/// Emits one field.
pub(crate) struct Symbol {
    symbol: Text,
}

impl Symbol {
    pub(crate) fn new(description: &mut Description) -> Result<Self> {
        Ok(Self { symbol: description.text("/s")? })
    }

    pub(crate) fn decide(&self, message: Message<'_>, out: &mut Out<'_>) {
        out.emit().text(message.get(self.symbol).unwrap_or("-"));
    }
}

/// Adds what a trade was worth.
pub(crate) struct Notional {
    price: Number,
    quantity: Number,
    notional: Edit,
}

impl Notional {
    pub(crate) fn new(description: &mut Description) -> Result<Self> {
        Ok(Self {
            price: description.number("/p")?,
            quantity: description.number("/q")?,
            notional: description.edit("/notional")?,
        })
    }

    pub(crate) fn decide(&self, message: Message<'_>, out: &mut Out<'_>) {
        out.forward();
        if let (Some(price), Some(quantity)) = (message.get(self.price), message.get(self.quantity)) {
            out.set(self.notional, price * quantity);
        }
    }
}
