//! `swap` of a transform: how a new version of its plugin takes over.

use super::form::{AnyDuration, Whole};
use super::read::TableReader;
use std::time::Duration;

/// At a thousand messages a second, a fortnight.
const MOST_MESSAGES: i64 = 1_000_000_000;
/// The most messages that a version can be made to see before it takes over.
pub const MOST_SHADOWED: u64 = MOST_MESSAGES.unsigned_abs();
const MOST_FAULTS: i64 = 1_000_000;

table! {
    /// How a new version of a plugin takes over.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct SwapSettings / SwapSettingsAt {
        /// Before it takes over, a new version sees so many messages beside the old one: what it answers is compared,
        /// and goes nowhere. One that faults is rejected.
        shadow: u64 = key(Whole<u64, 0, MOST_MESSAGES>, default(0));
        /// For so long after a swap the old version is kept, with its state, and put back if the new one faults too
        /// often.
        probation: Duration = key(AnyDuration, default(Duration::ZERO));
        /// The new version may fault so often within `probation`; one fault more puts the old one back.
        max_faults: u64 = key(Whole<u64, 0, MOST_FAULTS>, default(0));
    }
    check check_swap;
}

with_defaults!(SwapSettings);

fn check_swap(settings: &mut SwapSettings, at: &SwapSettingsAt, reader: &mut TableReader<'_, '_>) {
    if let (Some(at), 1.., Duration::ZERO) = (&at.max_faults, settings.max_faults, settings.probation) {
        reader.report.error_with_hint(
            at,
            "`max_faults` counts within `probation`, and there is none",
            "`probation = \"1m\"` keeps the old version for so long",
        );
    }
}
