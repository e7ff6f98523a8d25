//! Lines in the host's log, under the target `guest`.
//!
//! A line is written at once, whatever becomes of the call. The host escapes control characters and
//! limits the rate.

use std::fmt::Display;

pub use crate::bindings::tidemill::plugin::log::Level;

/// Writes a line for following single steps.
pub fn trace(text: impl Display) {
    write(Level::Trace, &text.to_string());
}

/// Writes a line for finding mistakes.
pub fn debug(text: impl Display) {
    write(Level::Debug, &text.to_string());
}

/// Writes a line about the normal course.
pub fn info(text: impl Display) {
    write(Level::Info, &text.to_string());
}

/// Writes a line about what may need attention.
pub fn warn(text: impl Display) {
    write(Level::Warn, &text.to_string());
}

/// Writes a line about what failed.
pub fn error(text: impl Display) {
    write(Level::Error, &text.to_string());
}

pub(crate) fn write(level: Level, text: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::tidemill::plugin::log::write(level, text);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::host(|host| host.log.push((level, text.to_owned())));
}
