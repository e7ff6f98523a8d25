//! JSON documents at random, and changes to them.

use proptest::prelude::*;

/// Names as they may be spelt; `a`, `b` and `0` also with escapes.
fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        r#""a""#,
        r#""b""#,
        r#""\u0061""#,
        r#""0""#,
        r#""\u0030""#,
        r#""""#,
        r#""a/~""#,
        r#""é""#,
        r#""a longer name""#,
        r#""x\"a""#,
    ])
}

fn blank() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "", "", " ", "\n\t", "\r\n  "])
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "true",
            "false",
            "null",
            "0",
            "-0",
            "1",
            "-12.50",
            "0.001e+7",
            "3E-2",
            "123456789012",
            r#""""#,
            r#""61837.63000000""#,
            r#""\"\\\/\b\f\n\r\t\u00e9""#,
            r#""\ud83d\ude00""#,
            r#""sixteen bytes, or a few more of them""#,
            r#""fifteen bytes \\ é""#,
            r#""{[]},:""#,
            r#""\\""#,
            r#""\\\"""#,
        ])
        .prop_map(str::to_owned),
        any::<f64>().prop_map(|number| serde_json::to_string(&number).unwrap()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        "[ -~]{50,150}".prop_map(|text| serde_json::to_string(&text).unwrap()),
    ]
}

/// Arrays of arrays without blanks, as order books are, with numbers about as long as what is looked at
/// together.
fn book() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        (0..10_u64.pow(6), 0..1000_u32).prop_map(|(whole, decimals)| format!("{whole}.{decimals:03}")),
        (13..19_u32)
            .prop_flat_map(|digits| 10_u64.pow(digits - 1)..10_u64.pow(digits))
            .prop_map(|n| n.to_string()),
        (8..14_usize).prop_map(|decimals| format!("12.{}", "7".repeat(decimals))),
    ];
    let level = prop_oneof![
        prop::collection::vec(number.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(","))),
        prop::collection::vec(number.clone().prop_map(|number| format!("\"{number}\"")), 1..4)
            .prop_map(|values| format!("[{}]", values.join(","))),
        prop::collection::vec(number.prop_map(|number| format!("\"a\":{number}")), 0..3)
            .prop_map(|members| format!("{{{}}}", members.join(","))),
    ];
    prop::collection::vec(level, 0..8).prop_map(|levels| format!("[{}]", levels.join(",")))
}

/// A document as text, so that names come twice and blanks stand anywhere.
pub(crate) fn document() -> impl Strategy<Value = String> {
    prop_oneof![3 => scalar().boxed(), 1 => book().boxed()].prop_recursive(6, 40, 5, |inner| {
        let padded = (blank(), inner.clone(), blank())
            .prop_map(|(before, value, after)| format!("{before}{value}{after}"))
            .boxed();
        let member = (blank(), name(), blank(), padded.clone())
            .prop_map(|(before, name, after, value)| format!("{before}{name}{after}:{value}"));
        let dense = (name(), inner).prop_map(|(name, value)| format!("{name}:{value}"));
        prop_oneof![
            prop::collection::vec(padded, 0..5).prop_map(|elements| format!("[{}]", elements.join(","))),
            prop::collection::vec(member, 1..6).prop_map(|members| format!("{{{}}}", members.join(","))),
            prop::collection::vec(dense, 1..6).prop_map(|members| format!("{{{}}}", members.join(","))),
            blank().prop_map(|blank| format!("{{{blank}}}")),
        ]
    })
}

/// One change to a document, at a place given as a fraction of its length.
pub(crate) fn mutate(json: &str, at: f64, how: u8, byte: u8) -> Option<String> {
    let mut bytes = json.as_bytes().to_vec();
    let at = (at * bytes.len() as f64) as usize;
    match how % 5 {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..(at + 1).min(bytes.len()))),
        2 => bytes.insert(at, byte),
        3 => *bytes.get_mut(at)? = byte,
        _ => {
            let other = bytes.len() / 2;
            let last = bytes.len().checked_sub(1)?;
            bytes.swap(at.min(last), other);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Bytes that mean something in JSON, and some that do not.
pub(crate) fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![prop::sample::select(b"{}[]:,\"\\0123456789.-+eEu \n\ttfnrals/".to_vec()), 0..128u8]
}
