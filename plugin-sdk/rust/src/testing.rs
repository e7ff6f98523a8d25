//! Unit tests of plugins, natively and without wasm.
//!
//! ```
//! use tidemill_plugin::{Message, NoConfig, Out, Plugin, Result, Description, testing::Harness};
//!
//! struct Echo;
//!
//! impl Plugin for Echo {
//!     type Config = NoConfig;
//!     fn new(_: NoConfig, _: &mut Description) -> Result<Self> {
//!         Ok(Self)
//!     }
//!     fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
//!         out.forward();
//!         out.emit().text("again: ").bytes(message.as_bytes());
//!         Ok(())
//!     }
//! }
//!
//! let mut plugin = Harness::<Echo>::try_new("{}").unwrap();
//! assert_eq!(plugin.process(["a", "b"]).texts(), ["a", "again: a", "b", "again: b"]);
//! ```

mod answers;
mod connector;
mod fakes;
mod harness;
mod outcome;

pub use answers::Answers;
pub(crate) use answers::answer;
pub use connector::ConnectorHarness;
pub use fakes::Host;
pub(crate) use fakes::host;
pub use harness::{Function, Harness, Input};
pub use outcome::{Processed, Retry, Sent};
