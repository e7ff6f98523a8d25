//! Puts its version and a running count before each message, `v1 17 MESSAGE`, and carries the count
//! through swaps: whoever reads the output sees which version had a message, and whether one was
//! lost, doubled or out of order.

use std::io::Write;
use tidemill_plugin::{Description, Message, NoConfig, Out, Plugin, Result, export};

/// The version of the package that this source is built in.
const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION_MAJOR"));

struct Counter {
    count: u64,
}

export!(Counter);

impl Plugin for Counter {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &mut Description) -> Result<Self> {
        Ok(Self { count: 0 })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        self.count += 1;
        let mut emission = out.emit();
        write!(emission, "{VERSION} {} ", self.count)?;
        emission.bytes(message.as_bytes());
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
