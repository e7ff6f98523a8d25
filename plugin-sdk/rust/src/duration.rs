//! Durations in configurations, as the host writes its own: `"250ms"`, `"1.5s"`, `"1m30s"`, `"1d"`.
//!
//! ```
//! #[derive(serde::Deserialize)]
//! struct Config {
//!     #[serde(with = "tidemill_plugin::duration")]
//!     window: std::time::Duration,
//! }
//! ```

use serde::de::{self, Deserializer, Unexpected};
use std::fmt;
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

/// What a text must be that is no duration.
const FORM: &str = "a duration such as \"250ms\" or \"10s\"";
const ORDER: &str = "a duration whose units go from the largest to the smallest, each once, as in \"1m30s\"";
const LENGTH: &str = "a duration of at most 213503 days";

/// Reads a duration, for `#[serde(with = "tidemill_plugin::duration")]`.
///
/// # Errors
/// It is not one or more numbers with the units `d`, `h`, `m`, `s`, `ms`, `us` or `ns`, each at most once and in
/// this order.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    deserializer.deserialize_str(Reader)
}

struct Reader;

impl de::Visitor<'_> for Reader {
    type Value = Duration;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(FORM)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        parse(text).map_err(|expected| E::invalid_value(Unexpected::Str(text), &expected))
    }
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

/// A duration in whole milliseconds; `key` is that of the configuration, which errors name.
///
/// # Errors
/// It has a fraction of one.
pub fn milliseconds(key: &str, duration: Duration) -> crate::Result<i64> {
    whole(key, duration, 1_000_000, "milliseconds")
}

/// A duration in whole microseconds; `key` is that of the configuration, which errors name.
///
/// # Errors
/// It has a fraction of one.
pub fn microseconds(key: &str, duration: Duration) -> crate::Result<i64> {
    whole(key, duration, 1_000, "microseconds")
}

fn whole(key: &str, duration: Duration, unit_ns: u128, units: &str) -> crate::Result<i64> {
    if !duration.as_nanos().is_multiple_of(unit_ns) {
        return Err(format!("`{key}` must be whole {units}, got {duration:?}").into());
    }
    Ok(i64::try_from(duration.as_nanos() / unit_ns).unwrap_or(i64::MAX))
}

/// The host's grammar; `tests/durations.txt` has the cases that both are held to. The error is what the text must be.
fn parse(text: &str) -> Result<Duration, &'static str> {
    let mut rest = text;
    let mut total: u128 = 0;
    let mut smallest = u128::MAX;
    loop {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(FORM)?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(FORM)?;
        if *unit >= smallest {
            return Err(ORDER);
        }
        smallest = *unit;
        total = total.checked_add(times(number, *unit)?).ok_or(LENGTH)?;
        if after.is_empty() {
            return u64::try_from(total).map(Duration::from_nanos).map_err(|_| LENGTH);
        }
        rest = after;
    }
}

/// A decimal number of a unit, if it comes out whole.
fn times(number: &str, unit: u128) -> Result<u128, &'static str> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_dangling = number.contains('.') && fraction.is_empty();
    if whole.is_empty() || is_dangling || fraction.contains('.') || fraction.len() > MAX_PLACES {
        return Err(FORM);
    }
    let scale = 10u128.pow(fraction.len() as u32);
    let digits = format!("{whole}{fraction}").parse::<u128>().ok();
    let product = digits.and_then(|digits| digits.checked_mul(unit)).ok_or(LENGTH)?;
    if product.is_multiple_of(scale) { Ok(product / scale) } else { Err(FORM) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_whole_number_of_units_is_refused_and_not_rounded() {
        let refused = |read: crate::Result<i64>| read.unwrap_err().to_string();
        assert_eq!(milliseconds("size", Duration::from_millis(1500)).unwrap(), 1500);
        assert_eq!(microseconds("per", Duration::from_micros(500)).unwrap(), 500);
        assert_eq!(milliseconds("size", Duration::MAX).ok(), None);
        let size = milliseconds("size", Duration::from_micros(1500));
        assert_eq!(refused(size), "`size` must be whole milliseconds, got 1.5ms");
        let per = microseconds("per", Duration::from_nanos(7));
        assert_eq!(refused(per), "`per` must be whole microseconds, got 7ns");
    }

    #[test]
    fn durations_are_read_as_the_host_reads_them() {
        let cases = include_str!("../tests/durations.txt");
        for case in cases.lines().filter(|line| !line.starts_with('#')) {
            let (text, nanoseconds) = case.rsplit_once(' ').unwrap();
            let expected = nanoseconds.parse().ok().map(Duration::from_nanos);
            assert_eq!(parse(text.trim_matches('"')).ok(), expected, "{case}");
        }
    }

    #[test]
    fn what_is_no_duration_is_told_by_its_mistake() {
        for (text, expected) in [
            ("", FORM),
            ("10", FORM),
            ("10sec", FORM),
            ("0.1ns", FORM),
            ("1s1m", ORDER),
            ("1s1s", ORDER),
            ("584y", FORM),
            ("213504d", LENGTH),
            ("99999999999999999999999999999999999999999s", LENGTH),
        ] {
            assert_eq!(parse(text), Err(expected), "{text}");
        }
    }
}
