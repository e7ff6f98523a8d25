//! The only door to the embedded database: what durable pipelines know, on disk.
//!
//! Each pipeline has a file of its own in the folder of `[state]`, so that one that is damaged fails one
//! pipeline. One thread does all the reading and writing; it gets generations through a bounded channel, and
//! writes each in one transaction, in two phases. So a file always has one whole generation, whenever the
//! process or the machine ends.

mod error;
mod file;
mod folder;
mod quota;
mod thread;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

pub use error::StoreError;
pub use folder::{Listed, ListedTransform, StoreFolder};
pub use thread::{GenerationWriter, Store, StoreThread};
