//! Decimal numbers, as JSON numbers and as the strings that exchanges send.

/// Powers of ten that an `f64` holds exactly.
const EXACT_POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// The nearest `f64` of a decimal number: a sign, digits with or without a point, an exponent. Neither
/// blanks, nor `Infinity`, nor what is too large to be finite.
pub(crate) fn parse(number: &[u8]) -> Option<f64> {
    if let Some(short) = parse_short(number) {
        return Some(short);
    }
    let unsigned = number.strip_prefix(b"-").or_else(|| number.strip_prefix(b"+")).unwrap_or(number);
    // The standard library reads `inf`, `infinity` and `nan` as well, all of which start with a letter.
    if !unsigned.first().is_some_and(|&byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let number: f64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    number.is_finite().then_some(number)
}

/// A decimal number that is whole, exactly: `7`, `7.0` and `70e-1` alike.
pub(crate) fn whole(number: &[u8]) -> Option<i64> {
    let number = std::str::from_utf8(number).ok()?;
    if let Ok(plain) = number.parse() {
        return Some(plain);
    }
    let (negative, unsigned) = match number.strip_prefix('-') {
        Some(unsigned) => (true, unsigned),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    if exponent == 0 && !fraction.is_empty() {
        // As prices are, most of which are no whole numbers.
        return None;
    }
    let digits = format!("{whole}{fraction}");
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    // Tens behind the digits that are not 0: all that are in front of the point, and what the exponent says.
    let places = i64::try_from(whole.len()).ok()?.checked_sub(i64::try_from(significant.len()).ok()?)?;
    let scale = 10u64.checked_pow(u32::try_from(places.checked_add(exponent)?).ok()?)?;
    let magnitude = significant.parse::<u64>().ok()?.checked_mul(scale)?;
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// Appends a finite number as the shortest JSON that reads as the same `f64`.
pub(crate) fn append(number: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
}

/// Of at most 15 digits with or without a point, which is nearly all there are. Both the digits and the
/// power of ten are exact then, and so one division rounds correctly.
#[inline]
fn parse_short(number: &[u8]) -> Option<f64> {
    let (negative, digits) = match number {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.len() > 16 {
        return None;
    }
    let mut mantissa = 0u64;
    let mut point = None;
    for (at, &byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => mantissa = mantissa * 10 + u64::from(byte - b'0'),
            b'.' if point.is_none() => point = Some(at),
            _ => return None,
        }
    }
    let decimals = point.map_or(0, |point| digits.len() - point - 1);
    let count = digits.len() - usize::from(point.is_some());
    if count == 0 || count > 15 {
        return None;
    }
    let magnitude = mantissa as f64 / EXACT_POWERS[decimals];
    Some(if negative { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimal_numbers_are_read_and_nothing_else_is() {
        for (text, number) in [
            ("0", 0.0),
            ("-0.5", -0.5),
            ("61837.63000000", 61837.63),
            ("123456789012345678", 123456789012345678.0),
            ("9007199254740993", 9007199254740992.0),
            ("1e3", 1000.0),
            ("1.5E-2", 0.015),
            ("+7", 7.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("007", 7.0),
            ("1e-400", 0.0),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(number), "{text}");
        }
        for text in [
            "", "-", "+", ".", "-.", "e5", "1e", "1 ", " 1", "1,5", "0x10", "inf", "-inf", "Infinity", "NaN",
            "nan", "1e999", "1..2", "1.2.3", "--1", "+-1", "1_000", "٣",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_exact_however_they_are_written() {
        for (text, number) in [
            ("7", 7),
            ("-7.0", -7),
            ("+7.", 7),
            ("7e0", 7),
            ("70.0e-1", 7),
            ("0.7E+1", 7),
            ("007.00", 7),
            ("1.5e3", 1500),
            ("0e99", 0),
            ("-0.0", 0),
            (".0", 0),
            ("9007199254740993.0", 9007199254740993),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808.0", i64::MIN),
            ("9223372036854775807000e-3", i64::MAX),
        ] {
            assert_eq!(whole(text.as_bytes()), Some(number), "{text}");
        }
        for text in [
            "",
            "-",
            "+",
            ".",
            "e1",
            "7.5",
            "75e-1",
            "1e-1",
            "9223372036854775808",
            "1e19",
            "1e400",
            "1e",
            "7.0.0",
            "--7",
            "+-7",
            "7e9223372036854775807",
            "1e99999999999999999999",
            " 7",
            "7 ",
            "1_0",
            "NaN",
            "٣",
        ] {
            assert_eq!(whole(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_short_way_is_as_exact_as_the_long_one(text in "-?[0-9]{0,16}(\\.[0-9]{0,16})?") {
            prop_assert_eq!(parse(text.as_bytes()), text.parse::<f64>().ok());
        }

        #[test]
        fn a_whole_number_is_the_one_that_is_read(text in "-?[0-9]{0,12}(\\.[0-9]{0,3})?(e-?[0-3])?") {
            let number = text.parse::<f64>().ok().filter(|number| number.fract() == 0.0);
            prop_assert_eq!(whole(text.as_bytes()).map(|whole| whole as f64), number);
        }

        #[test]
        fn every_number_that_is_printed_is_read_again(number in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL) {
            let text = serde_json::to_string(&number)?;
            prop_assert_eq!(parse(text.as_bytes()), Some(number));
            let mut written = Vec::new();
            append(number, &mut written);
            prop_assert_eq!(String::from_utf8(written).unwrap(), text);
        }
    }
}
