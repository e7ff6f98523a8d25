//! Durations in configurations, as the host writes its own: `"250ms"`, `"1.5s"`, `"1m30s"`, `"1d"`.
//!
//! ```
//! #[derive(serde::Deserialize)]
//! struct Config {
//!     #[serde(with = "tidemill_plugin::duration")]
//!     window: std::time::Duration,
//! }
//! ```

use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;
use std::time::Duration;

/// Units of time, in nanoseconds.
const UNITS: [(&str, u128); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];
/// Most digits behind the point: more than any unit has places.
const MAX_PLACES: usize = 18;

/// Reads a duration, for `#[serde(with = "tidemill_plugin::duration")]`.
///
/// # Errors
/// It is not one or more numbers with the units `d`, `h`, `m`, `s`, `ms`, `us` or `ns`, each at most once and in
/// this order.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| {
        de::Error::custom(format!("{text:?} is not a duration such as \"250ms\", \"10s\" or \"1m30s\""))
    })
}

/// Durations that may be left out, for `#[serde(default, with = "tidemill_plugin::duration::optional")]`.
pub mod optional {
    use serde::{Deserialize, Deserializer};
    use std::time::Duration;

    #[derive(Deserialize)]
    struct Given(#[serde(with = "super")] Duration);

    /// Reads a duration that is there.
    ///
    /// # Errors
    /// As for one that must be there.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Option::<Given>::deserialize(deserializer).map(|given| given.map(|Given(duration)| duration))
    }
}

/// The host's grammar; `tests/durations.txt` has the cases that both are held to.
fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total: u128 = 0;
    let mut smallest = u128::MAX;
    loop {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, unit) = UNITS.iter().find(|(name, size)| *name == unit && *size < smallest)?;
        smallest = *unit;
        total = total.checked_add(times(number, *unit)?)?;
        if after.is_empty() {
            return u64::try_from(total).ok().map(Duration::from_nanos);
        }
        rest = after;
    }
}

/// A decimal number of a unit, if it comes out whole.
fn times(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_dangling = number.contains('.') && fraction.is_empty();
    if whole.is_empty() || is_dangling || fraction.contains('.') || fraction.len() > MAX_PLACES {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let product = format!("{whole}{fraction}").parse::<u128>().ok()?.checked_mul(unit)?;
    product.is_multiple_of(scale).then(|| product / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_the_host_reads_them() {
        let cases = include_str!("../tests/durations.txt");
        for case in cases.lines().filter(|line| !line.starts_with('#')) {
            let (text, nanoseconds) = case.rsplit_once(' ').unwrap();
            let expected = nanoseconds.parse().ok().map(Duration::from_nanos);
            assert_eq!(parse(text.trim_matches('"')), expected, "{case}");
        }
    }
}
