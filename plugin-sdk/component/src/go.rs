//! What a module of Go needs beside itself: the adapter in place of WASI.

use crate::world;

/// What Go's runtime imports its system from.
pub(crate) const WASI: &str = "wasi_snapshot_preview1";

/// The adapter, as text.
const ADAPTER: &str = include_str!("go/adapter.wat");

/// The adapter between what Go's runtime imports and what the host offers.
pub(crate) fn adapter() -> anyhow::Result<Vec<u8>> {
    world::embedded(wat::parse_str(ADAPTER)?, "tidemill:go/adapter")
}
