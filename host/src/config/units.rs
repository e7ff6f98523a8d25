//! Durations and sizes as they are written: `"250ms"`, `"1m30s"`, `"64KiB"`.

use std::time::Duration;

/// Units of time, in nanoseconds.
const TIMES: [(&str, u128); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Units of size, in bytes.
const SIZES: [(&str, u128); 10] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A duration: numbers with units, each smaller than the one before, `"250ms"`, `"1.5s"`, `"1m30s"`. `None`
/// for anything else, and for more than 584 years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total: u128 = 0;
    let mut smallest = u128::MAX;
    loop {
        let (amount, after) = number(rest)?;
        let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = lookup(&TIMES, unit).filter(|unit| *unit < smallest)?;
        smallest = unit;
        total = total.checked_add(amount.times(unit)?)?;
        if after.is_empty() {
            return u64::try_from(total).ok().map(Duration::from_nanos);
        }
        rest = after;
    }
}

/// A size in bytes: a number and a unit, `"64KiB"`, `"1.5 GiB"`, `"512B"`. `None` for anything else.
pub fn parse_size(text: &str) -> Option<u64> {
    let (amount, unit) = number(text.trim())?;
    u64::try_from(amount.times(lookup(&SIZES, unit.trim_start())?)?).ok()
}

/// A duration in the largest unit that says it in one whole number.
pub fn show_duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let fits = |(_, unit): &&(&str, u128)| nanoseconds.is_multiple_of(*unit) && nanoseconds >= *unit;
    match TIMES.iter().rev().find(fits) {
        Some((name, unit)) => format!("{}{name}", nanoseconds / unit),
        None => "0s".into(),
    }
}

/// A size in the largest binary unit that says it in one whole number.
pub fn show_size(bytes: u64) -> String {
    let fits =
        |(_, unit): &&(&str, u128)| u128::from(bytes).is_multiple_of(*unit) && u128::from(bytes) >= *unit;
    match SIZES[..5].iter().rev().find(fits) {
        Some((name, unit)) => format!("{}{name}", u128::from(bytes) / unit),
        None => format!("{bytes}B"),
    }
}

/// A decimal number, exact: `digits / scale`.
struct Amount {
    digits: u128,
    scale: u128,
}

impl Amount {
    /// The amount of a unit, if it comes out whole.
    fn times(&self, unit: u128) -> Option<u128> {
        let product = self.digits.checked_mul(unit)?;
        product.is_multiple_of(self.scale).then(|| product / self.scale)
    }
}

/// The decimal number that `text` starts with, and what follows.
fn number(text: &str) -> Option<(Amount, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let dangling = number.contains('.') && fraction.is_empty();
    if whole.is_empty() || dangling || fraction.contains('.') || fraction.len() > 18 {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let digits = format!("{whole}{fraction}").parse().ok()?;
    Some((Amount { digits, scale }, rest))
}

fn lookup(units: &[(&str, u128)], unit: &str) -> Option<u128> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same cases hold for what plugins read with the SDK.
    #[test]
    fn durations_are_numbers_with_units() {
        let cases = include_str!("durations.txt");
        for case in cases.lines().filter(|line| !line.starts_with('#')) {
            let (text, nanoseconds) = case.rsplit_once(' ').expect("a text and a number");
            let expected = nanoseconds.parse().ok().map(Duration::from_nanos);
            assert_eq!(parse_duration(text.trim_matches('"')), expected, "{case}");
        }
    }

    #[test]
    fn sizes_are_a_number_and_a_unit() {
        let cases = [
            ("64KiB", Some(65_536)),
            ("1.5 GiB", Some(1_610_612_736)),
            ("16MB", Some(16_000_000)),
            ("512B", Some(512)),
            ("64", None),
            ("64kib", None),
            ("0.5B", None),
            ("1e3B", None),
            ("17179869184GiB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_size(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(nanoseconds: u64, bytes: u64) {
            let duration = Duration::from_nanos(nanoseconds);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
            prop_assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in ".*") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
