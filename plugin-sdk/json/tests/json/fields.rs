//! What is valid, and what stands at a pointer, against `serde_json`.

use crate::documents::{byte, document, mutate};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use serde_json::Value;
use serde_json::value::RawValue;
use std::io::Read;
use tidemill_json::{Document, Fields, Invalid, Kind, MAX_DEPTH, Span};

const POINTERS: [&str; 12] =
    ["", "/a", "/b", "/a/a", "/a/b", "/0", "/1/a", "/a/0", "/a~1~0", "/a/b/a", "/a longer name", "/a/1/1"];

fn is_valid(json: &str) -> bool {
    serde_json::from_str::<&RawValue>(json).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn what_stands_at_a_pointer_is_what_a_tree_has_there(json in document()) {
        let tree: Value = serde_json::from_str(&json).unwrap();
        let mut fields = Fields::default();
        let pointers = POINTERS.map(|pointer| (pointer, fields.add(pointer).unwrap()));
        let found = fields.find(&json).unwrap();
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
    fn members_and_elements_are_all_there_is(json in document()) {
        fn rebuilt(value: tidemill_json::Value<'_>) -> String {
            let members = value.members().map(|(name, value)| format!("{name:?}:{}", rebuilt(value)));
            match value.kind() {
                Kind::Object => format!("{{{}}}", members.collect::<Vec<_>>().join(",")),
                Kind::Array => format!("[{}]", value.elements().map(rebuilt).collect::<Vec<_>>().join(",")),
                _ => {
                    assert_eq!((members.count(), value.elements().count()), (0, 0));
                    format!("{value:?}")
                }
            }
        }
        let again = rebuilt(tidemill_json::Value::of_checked(json.trim().as_bytes()));
        let (again, tree): (Value, Value) = (serde_json::from_str(&again).unwrap(), serde_json::from_str(&json).unwrap());
        prop_assert_eq!(again, tree);
    }

    #[test]
    fn a_changed_document_is_valid_where_serde_says_so(
        json in document(),
        changes in prop::collection::vec((0.0..=1.0, any::<u8>(), byte()), 1..4),
    ) {
        let changed = changes.iter().try_fold(json, |json, &(at, how, byte)| mutate(&json, at, how, byte));
        if let Some(json) = changed {
            let mut fields = Fields::default();
            prop_assert_eq!(fields.find(&json).is_ok(), is_valid(&json), "{}", json);
            for pointer in POINTERS {
                fields.add(pointer).unwrap();
            }
            prop_assert_eq!(fields.find(&json).is_ok(), is_valid(&json), "{}", json);
        }
    }

    #[test]
    fn any_bytes_at_all_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut fields = Fields::default();
        fields.add("/a/0").unwrap();
        let _ = fields.find(&bytes);
        let _ = fields.find(Document::known_utf8(&bytes));
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
        let found = fields.find(json).unwrap();
        // The snapshots of the order books have no symbol.
        assert!(found.get(symbol).is_none_or(|symbol| symbol.is("BTCUSDT") || symbol.is("ETHUSDT")));
        let (at, how, byte) = change.new_tree(&mut runner).unwrap().current();
        if let Some(damaged) = mutate(json, at, how, byte) {
            assert_eq!(fields.find(&damaged).is_ok(), is_valid(&damaged), "{damaged}");
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
        let error = fields.find(&json.as_bytes()[..end].to_vec()).err();
        assert!(matches!(error, Some(Invalid::Syntax(at)) if at <= end), "{error:?} at {end}");
    }
    assert!(fields.find(json).is_ok());
}

#[test]
fn nesting_is_bounded_as_in_serde_json_whether_it_is_skipped_or_followed() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let deepest = MAX_DEPTH as usize;
    assert!(serde_json::from_str::<Value>(&nested(deepest)).is_ok());
    assert!(serde_json::from_str::<Value>(&nested(deepest + 1)).is_err());
    for pointer in ["/x", "/0/0", &"/0".repeat(200)] {
        let mut fields = Fields::default();
        fields.add(pointer).unwrap();
        assert!(fields.find(&nested(deepest)).is_ok());
        assert_eq!(fields.find(&nested(deepest + 1)).err(), Some(Invalid::TooDeep));
        assert_eq!(fields.find(&"[".repeat(1_000_000)).err(), Some(Invalid::TooDeep));
    }
}

#[test]
fn of_two_members_with_one_name_the_last_counts_with_all_that_is_in_it() {
    let mut fields = Fields::default();
    let outer = fields.add("/a").unwrap();
    let inner = fields.add("/a/b").unwrap();
    let found = fields.find(r#"{"a":{"b":1},"\u0061":{"c":2}}"#).unwrap();
    assert_eq!(found.get(outer).unwrap().raw(), br#"{"c":2}"#);
    assert!(found.get(inner).is_none());
}

#[test]
fn what_is_absent_is_told_from_what_is_empty_and_nothing_is_left_for_the_next_message() {
    let mut fields = Fields::default();
    let (a, b) = (fields.add("/a").unwrap(), fields.add("/b").unwrap());
    let mut spans = Vec::new();
    let documents = [r#"{"a":"","b":1}"#, r#"{"b":"x"}"#, r#"{"a":1,"b":2"#];
    assert_eq!(
        documents.map(|json| fields.find_into(json, &mut spans)),
        [Ok(()), Ok(()), Err(Invalid::Syntax(12))]
    );
    let values: Vec<_> = spans
        .chunks(fields.len())
        .zip(documents)
        .flat_map(|(spans, json)| {
            [a, b].map(|field| spans[field.index()].value(json.as_bytes()).map(|value| value.raw()))
        })
        .collect();
    assert_eq!(values, [Some(&b"\"\""[..]), Some(b"1"), None, Some(b"\"x\""), None, None]);
    assert_eq!(spans[4..], [Span::ABSENT; 2]);
}

#[test]
fn only_utf8_is_json() {
    let mut fields = Fields::default();
    let a = fields.add("/a").unwrap();
    let json = b"{\"a\":\"\xff\"}";
    assert_eq!(fields.find(json).err(), Some(Invalid::NotUtf8));
    let found = fields.find(Document::known_utf8(json)).unwrap();
    assert_eq!(found.get(a).unwrap().string(), None);
}

#[test]
fn half_a_surrogate_pair_is_valid_and_no_text_as_in_serde_json() {
    let json = r#"{"a":"\ud800","b":"\ud83d\ude00"}"#;
    assert!(is_valid(json) && serde_json::from_str::<Value>(json).is_err());
    let mut fields = Fields::default();
    let (a, b) = (fields.add("/a").unwrap(), fields.add("/b").unwrap());
    let found = fields.find(json).unwrap();
    let (a, b) = (found.get(a).unwrap(), found.get(b).unwrap());
    assert_eq!((a.string(), a.raw(), b.string().as_deref()), (None, &br#""\ud800""#[..], Some("😀")));
    let mut buffer = b"before ".to_vec();
    assert!(!a.append_string(&mut buffer) && b.append_string(&mut buffer));
    assert_eq!(buffer, "before 😀".as_bytes());
}
