//! What somebody reads who wrote a configuration that is wrong.

use super::read;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    fields: Vec<String>,
    names: BTreeMap<String, Inner>,
    by_number: BTreeMap<u16, bool>,
    by_way: BTreeMap<Way, i8>,
    count: Option<u32>,
    max_keys: Option<NonZeroUsize>,
    every: Option<NonZeroU32>,
    large: u64,
    small: i8,
    signed: i64,
    share: f64,
    is_on: bool,
    pair: Option<(String, u8)>,
    way: Option<Way>,
    shape: Option<Shape>,
    tagged: Option<Tagged>,
    either: Option<Either>,
    anything: serde_json::Value,
    #[serde(with = "crate::duration::optional")]
    per: Option<Duration>,
    separator: crate::csv::Separator,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only read")]
struct Inner {
    field: String,
    weight: Option<f64>,
}

#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
enum Way {
    Up,
    Down,
    Left,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only read")]
enum Shape {
    Point,
    Circle(f64),
    Line(f64, f64),
    Square { side: f64 },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", deny_unknown_fields)]
#[expect(dead_code, reason = "only read")]
enum Tagged {
    One { field: String },
    Two,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
#[expect(dead_code, reason = "only read")]
enum Either {
    Text(String),
    Texts(Vec<String>),
}

#[test]
fn what_is_wrong_is_said_with_the_key_and_what_it_must_be() {
    for (config, error) in [
        ("7", "the configuration must be a table, got 7"),
        (r#"[["/a"]]"#, "the configuration must be a table, got a list"),
        ("[]", "the configuration must be a table, got a list"),
        (r#"{"names":{"x":["/x",1]}}"#, "`names.x` must be a table, got a list"),
        (r#"{"shape":{"square":[1]}}"#, "`shape.square` must be a table, got a list"),
        ("{", "the configuration is no JSON: EOF while parsing an object at line 1 column 1"),
        (r#"{"fields":"/a"}"#, "`fields` must be a list, got a string"),
        (r#"{"fields":{"a":1}}"#, "`fields` must be a list, got a table"),
        (r#"{"fields":["/a",1]}"#, "`fields[1]` must be a string, got 1"),
        (r#"{"fields":[null]}"#, "`fields[0]` must be a string, got null"),
        (r#"{"names":[]}"#, "`names` must be a table, got a list"),
        (r#"{"names":{"x":"/x"}}"#, "`names.x` must be a table, got a string"),
        (r#"{"names":{"x":{}}}"#, "missing key `names.x.field`"),
        (r#"{"names":{"x":{"feild":"/x"}}}"#, "unknown key `names.x.feild`: did you mean `field`?"),
        (r#"{"names":{"x":{"price":"/x"}}}"#, "unknown key `names.x.price`: known here: `field`, `weight`"),
        (r#"{"names":{"/a":{"field":true}}}"#, "`names./a.field` must be a string, got true"),
        (r#"{"by_number":{"1":true,"x":true}}"#, "`by_number.x` must be a whole number, got a string"),
        (
            r#"{"by_way":{"up":1,"back":2}}"#,
            r#"`by_way.back` must be one of "up", "down", "left", got "back""#,
        ),
        (r#"{"count":-1}"#, "`count` must be a whole number from 0 to 4294967295, got -1"),
        (r#"{"count":1.5}"#, "`count` must be a whole number, got 1.5"),
        (r#"{"count":1e16}"#, "`count` must be a whole number, got 1e+16"),
        (r#"{"count":-1.0}"#, "`count` must be a whole number from 0 to 4294967295, got -1"),
        (r#"{"count":"10"}"#, "`count` must be a whole number, got a string"),
        (r#"{"max_keys":0.5}"#, "`max_keys` must be a whole number, got 0.5"),
        (r#"{"every":0}"#, "`every` must be a whole number from 1 to 4294967295, got 0"),
        (r#"{"large":-1}"#, "`large` must be a whole number of at least 0, got -1"),
        (r#"{"small":200}"#, "`small` must be a whole number from -128 to 127, got 200"),
        (
            r#"{"signed":9223372036854775808}"#,
            "`signed` must be a whole number of 64 bits, got 9223372036854775808",
        ),
        (r#"{"share":"half"}"#, "`share` must be a number, got a string"),
        (r#"{"is_on":"yes"}"#, "`is_on` must be true or false, got a string"),
        (r#"{"pair":["a"]}"#, "`pair` must be a list of 2 elements, got 1 elements"),
        (r#"{"pair":["a",1,2]}"#, "`pair` must be a list of 2 elements, got 3 elements"),
        (r#"{"pair":["a",256]}"#, "`pair[1]` must be a whole number from 0 to 255, got 256"),
        (r#"{"way":"back"}"#, r#"`way` must be one of "up", "down", "left", got "back""#),
        (r#"{"way":5}"#, r#"`way` must be one of "up", "down", "left", got 5"#),
        (r#"{"way":{"up":1}}"#, "`way.up` must be null, got 1"),
        (r#"{"shape":"circle"}"#, "missing key `shape.circle`"),
        (r#"{"shape":{"circle":"wide"}}"#, "`shape.circle` must be a number, got a string"),
        (r#"{"shape":{"line":[1,"2"]}}"#, "`shape.line[1]` must be a number, got a string"),
        (r#"{"shape":{"square":{}}}"#, "missing key `shape.square.side`"),
        (r#"{"tagged":{}}"#, "missing key `tagged.kind`"),
        (r#"{"tagged":{"kind":"one"}}"#, "missing key `tagged.field`"),
        (r#"{"tagged":{"kind":"three"}}"#, r#"`tagged.kind` must be "one" or "two", got "three""#),
        (r#"{"tagged":1}"#, "`tagged` must be a table, got 1"),
        (r#"{"either":7}"#, "`either` has none of the forms that it may have"),
        (r#"{"per":"soon"}"#, r#"`per` must be a duration such as "250ms" or "10s", got "soon""#),
        (r#"{"per":5}"#, r#"`per` must be a duration such as "250ms" or "10s", got 5"#),
        (
            r#"{"separator":", "}"#,
            r#"`separator`: ", " cannot separate fields: take one character such as ",", ";" or "\t""#,
        ),
        (r#"{"shares":1}"#, "unknown key `shares`: did you mean `share`?"),
    ] {
        let refused = read::<Config>(config).err();
        assert_eq!(refused.as_deref(), Some(error), "{config}");
    }
    assert_eq!(
        read::<crate::NoConfig>("[]").err().as_deref(),
        Some("the configuration must be a table, got a list")
    );
    assert_eq!(
        read::<crate::NoConfig>(r#"{"a":1}"#).err().as_deref(),
        Some("unknown key `a`: there is nothing to configure here")
    );
}

#[test]
fn what_is_right_is_read_whatever_it_is() {
    let config = r#"{
        "fields": ["/a"], "names": { "x": { "field": "/x", "weight": 1 } }, "by_number": { "7": true },
        "by_way": { "up": -1 }, "count": 0, "max_keys": 1, "every": null, "large": 18446744073709551615,
        "small": -128, "signed": -9223372036854775808, "share": 1, "is_on": true, "pair": ["a", 255], "way": "down",
        "shape": { "line": [1, 2.5] }, "tagged": { "kind": "one", "field": "f" }, "either": ["a"],
        "anything": { "a": [1, null, -2.5] }, "per": "1m30s", "separator": ";"
    }"#;
    let read = read::<Config>(config).unwrap();
    assert_eq!((read.large, read.small, read.signed), (u64::MAX, i8::MIN, i64::MIN));
    assert_eq!((read.share, read.pair), (1.0, Some(("a".to_owned(), 255))));
    assert_eq!((read.by_number[&7], read.by_way[&Way::Up], read.way), (true, -1, Some(Way::Down)));
    assert_eq!(read.anything, serde_json::json!({ "a": [1, null, -2.5] }));
    assert_eq!((read.per, read.every), (Some(Duration::from_secs(90)), None));
    assert!(matches!(read.shape, Some(Shape::Line(1.0, 2.5))));
    assert_eq!(super::read::<Config>(r#"{"count":10.0}"#).unwrap().count, Some(10));
    assert!(matches!(
        super::read::<Config>(r#"{"shape":{"square":{"side":2}}}"#).unwrap().shape,
        Some(Shape::Square { .. })
    ));
}

#[test]
fn all_that_is_wrong_with_several_keys_is_said_at_once() {
    let told = |config: &str| read::<Config>(config).unwrap_err();
    assert_eq!(
        told(r#"{"count":"many","names":{"a":{"field":1,"wieght":2}},"per":"soon","shap":"up"}"#),
        "`count` must be a whole number, got a string. Also: `names.a.field` must be a string, got 1. Also: unknown key \
         `names.a.wieght`: did you mean `weight`? Also: `per` must be a duration such as \"250ms\" or \"10s\", got \
         \"soon\". Also: unknown key `shap`: did you mean `shape`?"
    );
    // What is not there since something else was taken out is no mistake.
    assert_eq!(
        told(r#"{"fields":["a",1],"names":{"a":{"feild":"b"}},"shape":{"circle":"wide"},"way":{"up":1}}"#),
        "`fields[1]` must be a string, got 1. Also: unknown key `names.a.feild`: did you mean `field`? Also: \
         `shape.circle` must be a number, got a string. Also: `way.up` must be null, got 1"
    );
    let many: Vec<_> = (0..20).map(|n| format!(r#""unknown_key_{n}":1"#)).collect();
    assert_eq!(told(&format!("{{{}}}", many.join(","))).matches("unknown key").count(), 8);
}
