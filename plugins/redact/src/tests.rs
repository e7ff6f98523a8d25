use super::*;
use proptest::prelude::*;
use regex_lite::Regex;
use serde_json::{Value, json};
use tidemill_plugin::testing::{Harness, Processed};

const CARD: &str = r"[0-9]{4}(-?[0-9]{4}){3}";
const MAIL: &str = r"[A-Za-z0-9._]+@[A-Za-z0-9.]+";

fn harness(config: &Value) -> Harness<Redact> {
    Harness::try_new(&config.to_string()).unwrap()
}

fn process(config: &Value, message: &str) -> Processed {
    harness(config).process([message])
}

#[test]
fn fields_are_replaced_and_other_bytes_stay() {
    let config = json!({ "fields": ["/user/mail", "/list/1", "/a~1b", "/deep"] });
    for (message, sent) in [
        (r#"{ "user" : {"mail" : "a@b", "n":1.50 } }"#, r#"{ "user" : {"mail" : "***", "n":1.50 } }"#),
        (r#"{"list":[1, {"x":2} ,3]}"#, r#"{"list":[1, "***" ,3]}"#),
        (r#"{"a\u002fb":7,"deep":{"a":["]}",{}]},"z":null}"#, r#"{"a\u002fb":"***","deep":"***","z":null}"#),
        (r#"{"user":{"mail":1,"mail":2}}"#, r#"{"user":{"mail":"***","mail":"***"}}"#),
        (r#"{"deep":true}"#, r#"{"deep":"***"}"#),
    ] {
        assert_eq!(process(&config, message).texts(), [sent]);
    }
    assert_eq!(process(&json!({ "fields": [""], "replace": "-" }), " {\"a\":1} ").texts(), [r#" "-" "#]);
    assert_eq!(
        process(&json!({ "fields": ["/a"], "replace": "\"" }), r#"{"a":1}"#).texts(),
        [r#"{"a":"\""}"#]
    );
}

#[test]
fn an_absent_field_is_no_error_and_the_message_goes_on_as_it_was() {
    let config = json!({ "fields": ["/user/mail", "/list/1"], "patterns": [CARD] });
    let messages = [r#"{"user":"x"}"#, r#"{"list":[1]}"#, "[]", "7", r#""mail""#, "{}", r#"{"user":{}}"#];
    assert!(harness(&config).process(messages).forwarded_all);
    let mut nothing = harness(&json!({}));
    assert!(nothing.process([r#"{"a":"b"}"#]).forwarded_all);
    assert!(nothing.host.log[0].1.contains("nothing is redacted"));
}

#[test]
fn patterns_look_at_every_string_value_at_any_depth() {
    let config = json!({ "patterns": [CARD, MAIL] });
    for (message, sent) in [
        (r#"{"t":"pay 1234-5678-9012-3456 now"}"#, r#"{"t":"pay *** now"}"#),
        (r#"[["x",{"a":["me@home.org, you@home.org"]}] , 1]"#, r#"[["x",{"a":["***, ***"]}] , 1]"#),
        (r#""1234567890123456""#, r#""***""#),
        (r#"{"me@home.org":1234567890123456}"#, r#"{"me@home.org":1234567890123456}"#),
        (r#"{"a":"é \"me@home.org\"\n"}"#, r#"{"a":"é \"***\"\n"}"#),
    ] {
        assert_eq!(process(&config, message).texts(), [sent]);
    }
}

#[test]
fn escapes_hide_nothing() {
    let config = json!({ "patterns": ["alice"], "fields": ["/key"] });
    for (message, sent) in [
        (r#"{"n":"\u0061lice"}"#, r#"{"n":"***"}"#),
        (r#"{"n":"x\/\u0061l\u0069ce\u000a"}"#, r#"{"n":"x/***\n"}"#),
        (r#"{"\u006bey":"\u0061"}"#, r#"{"\u006bey":"***"}"#),
        // Half of a character makes no text; what is around it must not slip through.
        (r#"{"n":"alice \ud800"}"#, r#"{"n":"***"}"#),
        (r#"{"n":"\ud83d\ude00 \u0061lice"}"#, r#"{"n":"😀 ***"}"#),
    ] {
        assert_eq!(process(&config, message).texts(), [sent]);
    }
    assert!(process(&json!({ "fields": ["/key"] }), r#"{"n":"\ud800"}"#).forwarded_all);
}

#[test]
fn where_replacing_makes_a_new_match_the_whole_string_goes() {
    let config = json!({ "patterns": ["ab"], "replace": "" });
    assert_eq!(process(&config, r#"["aabb","ab","abc"]"#).texts(), [r#"["","","c"]"#]);
    let config = json!({ "patterns": ["[a-z]\\*", "[0-9]"] });
    assert_eq!(process(&config, r#"["x1","x"]"#).texts(), [r#"["***","x"]"#]);
}

#[test]
fn a_binary_message_stays_binary() {
    let processed = harness(&json!({ "fields": ["/a"] })).process([&br#"{"a":1}"#[..]]);
    assert_eq!((processed.sent[0].binary, processed.texts()), (true, vec![r#"{"a":"***"}"#]));
}

#[test]
fn what_is_not_json_is_rejected() {
    let processed = process(&json!({ "fields": ["/a"] }), r#"{"a":"secret""#);
    assert!(processed.sent.is_empty());
    assert_eq!(processed.rejected, [(0, "not JSON (at byte 13)".to_owned())]);
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    for (config, error) in [
        (
            json!({ "fields": ["a"] }),
            "`fields[0]`: \"a\" is not a JSON pointer: it must start with `/`, like \"/a\"",
        ),
        (json!({ "patterns": ["("] }), "`patterns[0]`: \"(\" is no regular expression: "),
        (
            json!({ "patterns": ["a", "b*"] }),
            "`patterns[1]`: \"b*\" finds something in an empty text: let it need",
        ),
        (
            json!({ "patterns": ["."] }),
            "`patterns[0]`: \".\" finds something in \"***\", which is put in the place",
        ),
        (json!({ "replace": 1 }), "`replace` must be a string, got 1"),
    ] {
        let refused = Harness::<Redact>::try_new(&config.to_string()).err().unwrap();
        assert!(refused.starts_with(error), "{refused}");
    }
}

/// JSON whose strings often have something to be found, and whose names are few.
fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ab12\"\\\\/é\n ]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[ab]{1,2}", inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The same, done on a tree.
fn redacted(value: Value, path: &str, fields: &[&str], redact: &impl Fn(String) -> String) -> Value {
    if fields.contains(&path) {
        return "***".into();
    }
    match value {
        Value::String(text) => redact(text).into(),
        Value::Array(elements) => elements
            .into_iter()
            .enumerate()
            .map(|(index, value)| redacted(value, &format!("{path}/{index}"), fields, redact))
            .collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name.clone(), redacted(value, &format!("{path}/{name}"), fields, redact)))
            .collect(),
        other => other,
    }
}

fn strings<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => into.push(text),
        Value::Array(elements) => elements.iter().for_each(|value| strings(value, into)),
        Value::Object(members) => members.values().for_each(|value| strings(value, into)),
        _ => {}
    }
}

/// The document with every character of every string as an escape.
fn escaped(json: &str) -> String {
    let mut inside = false;
    let mut escaped = String::new();
    let mut chars = json.chars();
    while let Some(char) = chars.next() {
        match char {
            '"' => {
                inside = !inside;
                escaped.push('"');
            }
            '\\' => {
                escaped.push('\\');
                escaped.extend(chars.next());
            }
            char if inside && char.is_ascii() => escaped.push_str(&format!("\\u{:04x}", char as u32)),
            char => escaped.push(char),
        }
    }
    escaped
}

proptest! {
    #[test]
    fn no_match_is_ever_left(
        document in documents(),
        pattern in "[ab12]{1,3}|[ab]\\+1|\\(a\\|1\\)b|\\[ab]2|1\\\\\\*",
        replace in "[*b]{0,3}",
    ) {
        let config = json!({ "patterns": [pattern, "2"], "replace": replace });
        let Ok(mut plugin) = Harness::<Redact>::try_new(&config.to_string()) else { return Ok(()) };
        let pattern = Regex::new(&pattern).unwrap();
        let plain = document.to_string();
        let sent = plugin.process([plain.as_str(), &escaped(&plain)]);
        for text in sent.texts() {
            let value: Value = serde_json::from_str(text).unwrap();
            let mut texts = Vec::new();
            strings(&value, &mut texts);
            prop_assert!(texts.iter().all(|text| !pattern.is_match(text) && !text.contains('2')), "{}", text);
        }
    }

    #[test]
    fn it_does_what_is_done_on_a_tree(document in documents()) {
        let fields = ["/a", "/b/a", "/ab/b", "/0", "/a/1"];
        let config = json!({ "fields": fields, "patterns": ["a[12]"] });
        let pattern = Regex::new("a[12]").unwrap();
        let expected = redacted(document.clone(), "", &fields, &|text| {
            let left = pattern.replace_all(&text, "***").into_owned();
            if pattern.is_match(&left) { "***".to_owned() } else { left }
        });
        let sent = process(&config, &document.to_string());
        prop_assert_eq!(serde_json::from_str::<Value>(sent.texts()[0]).unwrap(), expected);
    }
}
