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

    proptest! {
        #[test]
        fn the_short_way_is_as_exact_as_the_long_one(text in "-?[0-9]{0,16}(\\.[0-9]{0,16})?") {
            prop_assert_eq!(parse(text.as_bytes()), text.parse::<f64>().ok());
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
