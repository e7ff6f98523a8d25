//! The JSON reader against `serde_json`: what is valid, and what stands at a pointer.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::Value;
use serde_json::value::RawValue;
use std::io::Read;
use tidemill_plugin::json::{Fields, Invalid, MAX_DEPTH};

/// Names and scalars as they may be spelt; `a`, `b` and `0` also with escapes.
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
        ])
        .prop_map(str::to_owned),
        any::<f64>().prop_map(|number| serde_json::to_string(&number).unwrap()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
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
        prop::collection::vec(number.clone(), 0..4),
        prop::collection::vec(number.prop_map(|number| format!("\"{number}\"")), 1..4),
    ];
    let level = level.prop_map(|values| format!("[{}]", values.join(",")));
    prop::collection::vec(level, 0..6).prop_map(|levels| format!("[{}]", levels.join(",")))
}

/// A document as text, so that names come twice and blanks stand anywhere.
fn document() -> impl Strategy<Value = String> {
    prop_oneof![3 => scalar().boxed(), 1 => book().boxed()].prop_recursive(6, 40, 5, |inner| {
        let padded = (blank(), inner, blank())
            .prop_map(|(before, value, after)| format!("{before}{value}{after}"))
            .boxed();
        let member = (blank(), name(), blank(), padded.clone())
            .prop_map(|(before, name, after, value)| format!("{before}{name}{after}:{value}"));
        prop_oneof![
            prop::collection::vec(padded, 0..5).prop_map(|elements| format!("[{}]", elements.join(","))),
            prop::collection::vec(member, 1..6).prop_map(|members| format!("{{{}}}", members.join(","))),
            blank().prop_map(|blank| format!("{{{blank}}}")),
        ]
    })
}

const POINTERS: [&str; 10] = ["", "/a", "/b", "/a/a", "/a/b", "/0", "/1/a", "/a/0", "/a~1~0", "/a/b/a"];

fn is_valid(json: &str) -> bool {
    serde_json::from_str::<&RawValue>(json).is_ok()
}

/// One change to a document, at a place given as a fraction of its length.
fn mutate(json: &str, at: f64, how: u8, byte: u8) -> Option<String> {
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
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![prop::sample::select(b"{}[]:,\"\\0123456789.-+eEu \n\ttfnrals/".to_vec()), 0..128u8]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn what_stands_at_a_pointer_is_what_a_tree_has_there(json in document()) {
        let tree: Value = serde_json::from_str(&json).unwrap();
        let mut fields = Fields::default();
        let pointers = POINTERS.map(|pointer| (pointer, fields.add(pointer).unwrap()));
        let found = fields.find(json.as_bytes()).unwrap();
        for (pointer, field) in pointers {
            let value = found.get(field).map(|value| serde_json::from_slice::<Value>(value.raw()).unwrap());
            prop_assert_eq!(value.as_ref(), tree.pointer(pointer), "{} in {}", pointer, json);
            if let Some(value) = found.get(field) {
                let text = value.string();
                prop_assert_eq!(text.as_deref(), tree.pointer(pointer).unwrap().as_str());
                prop_assert_eq!(value.raw().trim_ascii(), value.raw());
            }
        }
    }

    #[test]
    fn a_changed_document_is_valid_where_serde_says_so(
        json in document(),
        changes in prop::collection::vec((0.0..=1.0, any::<u8>(), byte()), 1..4),
    ) {
        let changed = changes.iter().try_fold(json, |json, &(at, how, byte)| mutate(&json, at, how, byte));
        if let Some(json) = changed {
            let mut fields = Fields::default();
            prop_assert_eq!(fields.find(json.as_bytes()).is_ok(), is_valid(&json), "{}", json);
            for pointer in POINTERS {
                fields.add(pointer).unwrap();
            }
            prop_assert_eq!(fields.find(json.as_bytes()).is_ok(), is_valid(&json), "{}", json);
        }
    }

    #[test]
    fn any_bytes_at_all_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let mut fields = Fields::default();
        fields.add("/a/0").unwrap();
        let _ = fields.find(&bytes);
    }
}

#[test]
fn recorded_messages_are_read_and_damaged_ones_are_seen() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/binance-combined-20240808.jsonl.gz");
    let mut recording = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut recording).unwrap();
    let mut fields = Fields::default();
    let symbol = fields.add("/data/s").unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let change = (0.0..=1.0, any::<u8>(), byte());
    for line in recording.lines().step_by(11) {
        let (_, json) = line.split_once(' ').unwrap();
        let found = fields.find(json.as_bytes()).unwrap();
        // The snapshots of the order books have no symbol.
        assert!(found.get(symbol).is_none_or(|symbol| symbol.is("BTCUSDT") || symbol.is("ETHUSDT")));
        let (at, how, byte) = change.new_tree(&mut runner).unwrap().current();
        if let Some(damaged) = mutate(json, at, how, byte) {
            assert_eq!(fields.find(damaged.as_bytes()).is_ok(), is_valid(&damaged), "{damaged}");
        }
    }
}

#[test]
fn every_prefix_of_a_document_is_seen_as_cut_short() {
    let json =
        r#" {"a":[1,-2.5e3,"x\u00e9\\y",true,null,{}],"b":{"c":[[],[{"d":"sixteen bytes and more"}]]}}"#;
    let mut fields = Fields::default();
    fields.add("/b/c").unwrap();
    for end in 0..json.len() {
        let error = fields.find(&json.as_bytes()[..end]).err();
        assert!(matches!(error, Some(Invalid::Syntax(at)) if at <= end), "{error:?} at {end}");
    }
    assert!(fields.find(json.as_bytes()).is_ok());
}

#[test]
fn nesting_is_bounded_whether_it_is_skipped_or_followed() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let deepest = MAX_DEPTH as usize;
    for pointer in ["/x", "/0/0", &"/0".repeat(200)] {
        let mut fields = Fields::default();
        fields.add(pointer).unwrap();
        assert!(fields.find(nested(deepest).as_bytes()).is_ok());
        assert_eq!(fields.find(nested(deepest + 1).as_bytes()).err(), Some(Invalid::TooDeep));
        assert_eq!(fields.find("[".repeat(1_000_000).as_bytes()).err(), Some(Invalid::TooDeep));
    }
}

#[test]
fn of_two_members_with_one_name_the_last_counts_with_all_that_is_in_it() {
    let mut fields = Fields::default();
    let outer = fields.add("/a").unwrap();
    let inner = fields.add("/a/b").unwrap();
    let found = fields.find(br#"{"a":{"b":1},"\u0061":{"c":2}}"#).unwrap();
    assert_eq!(found.get(outer).unwrap().raw(), br#"{"c":2}"#);
    assert!(found.get(inner).is_none());
}

#[test]
fn nothing_of_one_message_is_left_for_the_next() {
    let mut fields = Fields::default();
    let field = fields.add("/a").unwrap();
    assert!(fields.find(br#"{"a":1}"#).unwrap().get(field).is_some());
    assert!(fields.find(br#"{"b":1}"#).unwrap().get(field).is_none());
}

#[test]
fn a_pointer_is_compiled_or_refused() {
    let mut fields = Fields::default();
    assert_eq!(fields.add("/a/b").unwrap(), fields.add("/a/b").unwrap());
    for pointer in ["a", "a/b", "/a~", "/~2", "#/a"] {
        assert!(fields.add(pointer).is_err(), "{pointer}");
    }
    let found = fields.add("/a").unwrap();
    assert!(fields.find(br#"{"a":{"b":[]}}"#).unwrap().get(found).is_some());
}
