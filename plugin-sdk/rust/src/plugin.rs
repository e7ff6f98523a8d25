//! The trait that a plugin implements.

use crate::{Batch, Description, Emissions, Message, Out, Outcome, Part, Result};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// A plugin: what it does with a message, and with time.
///
/// Only [`new`](Self::new) and [`process`](Self::process) must be written. One instance is only ever
/// called by one caller at a time. A panic is a fault: it is written to the host's log, the instance
/// is thrown away, and the host looks for the message at fault.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a plugin",
    label = "does not implement `tidemill_plugin::Plugin`",
    note = "`export!` takes the type that implements `Plugin`, or `fn NAME` for a function that decides on a message"
)]
pub trait Plugin: Sized + 'static {
    /// The transform's `config` table: a type that derives `serde::Deserialize`, or
    /// [`NoConfig`](crate::NoConfig). With `#[serde(deny_unknown_fields)]` a misspelt key is refused,
    /// and the person who wrote it sees the known ones. What is wrong otherwise is told with the path of the
    /// key, what it must be and what it is.
    type Config: DeserializeOwned;

    /// Makes the plugin, and says through `description` what it asks of the host: outputs, metadata, JSON
    /// fields, times, a timer.
    ///
    /// # Errors
    /// The configuration is refused with this text.
    fn new(config: Self::Config, description: &mut Description) -> Result<Self>;

    /// Decides on one message. One that `out` is told nothing of is filtered.
    ///
    /// # Errors
    /// The message is rejected with this text, and what `out` was told of it does not count.
    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result;

    /// Decides on a whole batch, for plugins that gain from seeing it at once. The default calls
    /// [`process`](Self::process) for one message after the other. Where they have emitted half of what one call may
    /// send, it has the host offer the others again, if the transform's `retries` let it.
    ///
    /// # Errors
    /// The whole call is at fault, as after a panic. To refuse single messages, use [`Out::reject`].
    fn process_batch(&mut self, batch: &Batch, outcome: &mut Outcome) -> Result {
        for message in batch.messages() {
            let is_full = outcome.is_full();
            let mut out = outcome.of(message);
            if is_full {
                out.retry("this call has sent as much as it may", Duration::ZERO);
            } else if let Err(error) = self.process(message, &mut out) {
                out.reject(error);
            }
            if outcome.is_stopped() {
                break;
            }
        }
        Ok(())
    }

    /// Called at the interval that the description asked for, also when no message comes. `now_us` is
    /// the host's time in microseconds since the Unix epoch.
    ///
    /// # Errors
    /// The call is at fault, as after a panic.
    fn tick(&mut self, now_us: u64, out: &mut Emissions) -> Result {
        let _ = (now_us, out);
        Ok(())
    }

    /// Called once, last, when no message will follow. Not called at a swap.
    ///
    /// # Errors
    /// The call is at fault, as after a panic.
    fn finish(&mut self, out: &mut Emissions) -> Result {
        let _ = out;
        Ok(())
    }

    /// The state that a newer version of the plugin, or this one after a restart, goes on from; `None`
    /// where there is none. [`json::encode`](crate::json::encode) makes it of any serde type.
    ///
    /// # Errors
    /// The snapshot is at fault, and the host goes on with the last good one.
    fn snapshot(&self) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// Goes on from the snapshot of this or an earlier version, before the first message. The default
    /// ignores it.
    ///
    /// # Errors
    /// The state is refused; at a swap the new version is, and the old one stays.
    fn restore(&mut self, snapshot: &[u8]) -> Result {
        let _ = snapshot;
        Ok(())
    }

    /// Goes on from the snapshots of all instances there were, of which this one keeps what belongs to its
    /// part: the keys that it [has](Part::has). The default [restores](Self::restore) one snapshot of which
    /// all is its own, and refuses to share.
    ///
    /// # Errors
    /// As [`restore`](Self::restore).
    fn restore_part(&mut self, snapshots: &[Vec<u8>], part: Part) -> Result {
        match snapshots {
            [] => Ok(()),
            [snapshot] if part.is_whole() => self.restore(snapshot),
            _ => Err("the plugin cannot share its state out between instances".into()),
        }
    }
}
