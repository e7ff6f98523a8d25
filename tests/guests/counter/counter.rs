//! Puts its version and a running count before each message, `v1 17 MESSAGE`, and carries the count
//! through swaps: whoever reads the output sees which version had a message, and whether one was
//! lost, doubled or out of order. The host keeps a count of its own for it, and the last message, so that a test
//! sees whether what the host keeps and the snapshot are of one moment.

use std::io::Write;
use tidemill_plugin::{Description, Emissions, Message, NoConfig, Out, Plugin, Result, export, log, state};

/// The version of the package that this source is built in.
const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION_MAJOR"));

/// The keys of what the host keeps.
const KEPT_COUNT: &str = "count";
const LAST_MESSAGE: &str = "last";
const FINISHED: &str = "finished";

struct Counter {
    count: u64,
}

export!(Counter);

impl Plugin for Counter {
    type Config = NoConfig;

    fn new(_: NoConfig, _: &mut Description) -> Result<Self> {
        if state::get(FINISHED).is_some() {
            return Err("what the end before set is still there".into());
        }
        Ok(Self { count: 0 })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        self.count += 1;
        let mut emission = out.emit();
        write!(emission, "{VERSION} {} ", self.count)?;
        emission.bytes(message.as_bytes());
        let kept = state::get(KEPT_COUNT)
            .map_or(Ok(0), |kept| kept.as_slice().try_into().map(u64::from_le_bytes))?;
        state::set(KEPT_COUNT, &(kept + 1).to_le_bytes())?;
        state::set(LAST_MESSAGE, message.as_bytes())?;
        Ok(())
    }

    fn finish(&mut self, _: &mut Emissions) -> Result {
        // Only for the end: no start is to find it.
        state::set(KEPT_COUNT, b"finished")?;
        state::set(FINISHED, b"finished")?;
        log::info("finished");
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
