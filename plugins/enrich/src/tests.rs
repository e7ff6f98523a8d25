//! The plugin as the host sees it.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tidemill_plugin::testing::Harness;

const TABLE: &str = "symbol,name,\"lot, size\"\nBTC,\"Bit\"\"coin\",1\nETH,Ether,\n";

fn enrich(config: &Value) -> Result<Harness<Enrich>, String> {
    Harness::try_new(&config.to_string())
}

#[test]
fn the_columns_of_a_row_become_members() {
    let mut plugin = enrich(&json!({ "table": TABLE })).unwrap();
    let processed = plugin.process([
        r#"{"s":"BTC","p" : 1}"#,
        r#"{"name":"old","s":"\u0045TH"}"#,
        r#"{"s":"SOL"}"#,
        r#"{"p":1}"#,
        r#"["BTC"]"#,
        r#"{"s":"BTC""#,
    ]);
    assert_eq!(
        processed.texts(),
        [
            r#"{"s":"BTC","p" : 1,"name":"Bit\"coin","lot, size":"1"}"#,
            r#"{"name":"Ether","s":"ETH","lot, size":""}"#.replace("ETH", "\\u0045TH").as_str(),
            r#"{"s":"SOL"}"#,
            r#"{"p":1}"#,
            r#"["BTC"]"#,
        ]
    );
    assert_eq!(processed.rejected, [(5, "not JSON (at byte 10)".to_owned())]);
}

#[test]
fn a_row_becomes_one_member_where_that_is_wanted() {
    let table = json!([{ "id": 7, "name": "seven", "tags": [1, null] }, { "id": "8" }]).to_string();
    let config = json!({ "table": table, "format": "json", "key": "id", "by": "/n", "into": "/info/row" });
    let mut plugin = enrich(&config).unwrap();
    let processed = plugin.process([
        r#"{"n":7,"info":{}}"#,
        r#"{"n":"7","info":{"row":1}}"#,
        r#"{"n":8,"info":{}}"#,
        r#"{"n":7}"#,
    ]);
    assert_eq!(
        processed.texts(),
        [
            r#"{"n":7,"info":{"row":{"name":"seven","tags":[1,null]}}}"#,
            r#"{"n":"7","info":{"row":{"name":"seven","tags":[1,null]}}}"#,
            r#"{"n":8,"info":{"row":{}}}"#,
        ]
    );
    assert_eq!(processed.rejected, [(3, "the message has no object for /info/row".to_owned())]);
}

#[test]
fn numbers_of_a_table_and_of_messages_keep_every_digit() {
    let table = r#"[
        { "id": 12345678901234567890123, "v": [ 9007199254740993, 1e400, 0.10 ], "say \"hi\\": "a  \" b\\" },
        { "id": 12345678901234567890124, "v": 1 }
    ]"#;
    let into = json!({ "table": table, "format": "json", "key": "id", "by": "/n", "into": "/row" });
    let message = r#"{"n":12345678901234567890123,"p":1e400}"#;
    let row = r#""v":[9007199254740993,1e400,0.10],"say \"hi\\":"a  \" b\\""#;
    assert_eq!(
        enrich(&into).unwrap().process([message]).texts(),
        [format!(r#"{{"n":12345678901234567890123,"p":1e400,"row":{{{row}}}}}"#)]
    );
    let mut members = enrich(&json!({ "table": table, "format": "json", "key": "id", "by": "/n" })).unwrap();
    assert_eq!(
        members.process([message]).texts(),
        [format!(r#"{{"n":12345678901234567890123,"p":1e400,{row}}}"#)]
    );
    let mut csv = enrich(
        &json!({ "table": "id,v\n9007199254740993,1\n9007199254740992,2\n", "key": "id", "by": "/n" }),
    )
    .unwrap();
    let messages = ["9007199254740993", r#""9007199254740992""#, "9007199254740993.0", "9007199254740991"];
    let messages = messages.map(|number| format!(r#"{{"n":{number}}}"#));
    let got = csv.process(messages.clone());
    let added = |nth: usize, value| messages[nth].replace('}', &format!(r#","v":"{value}"}}"#));
    assert_eq!(got.texts(), [added(0, 1), added(1, 2), messages[2].clone(), messages[3].clone()]);
}

#[test]
fn a_message_without_a_row_passes_or_is_dropped_or_rejected() {
    let messages = [r#"{"s":"SOL"}"#, "{}", r#"{"s":"BTC"}"#];
    let process = |missing: &str| {
        enrich(&json!({ "table": "symbol,n\nBTC,1", "missing": missing })).unwrap().process(messages)
    };
    assert_eq!(process("pass").texts(), [messages[0], messages[1], r#"{"s":"BTC","n":"1"}"#]);
    assert_eq!(process("drop").texts(), [r#"{"s":"BTC","n":"1"}"#]);
    assert!(process("drop").rejected.is_empty());
    assert_eq!(
        process("reject").rejected,
        [
            (0, "the table has no row for \"SOL\"".to_owned()),
            (1, "the message has nothing to look a row up by".to_owned())
        ]
    );
}

#[test]
fn marks_and_blank_lines_of_a_file_are_nothing() {
    let mut plugin = enrich(&json!({ "table": "\u{feff}symbol,n\r\nBTC,1\r\n\r\n" })).unwrap();
    assert_eq!(plugin.process([r#"{"s":"BTC"}"#]).texts(), [r#"{"s":"BTC","n":"1"}"#]);
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    let table = |table: &str| json!({ "table": table });
    for (config, error) in [
        (json!({}), "missing key `table`"),
        (table(""), "`table` is empty: its first line names the columns"),
        (table("s,n\n"), "`table` has no column \"symbol\", which `key` names, but \"s\", \"n\""),
        (table("symbol,n,n\n"), "`table` has two columns \"n\""),
        (table("symbol,n\nBTC\n"), "`table`: row 2 has 1 fields, and there are 2 columns"),
        (table("symbol,n\nBTC,1\nBTC,2"), "`table`: row 3 has the key \"BTC\", which a row before it has"),
        (table("symbol,n\n\"BTC,1"), "`table`: not CSV: the quote at byte 9 is not closed"),
        (json!({ "table": "[{}]", "format": "json" }), "`table`: row 1 has no \"symbol\", which `key` names"),
        (
            json!({ "table": r#"[{"symbol":1,"a":1,"a":2}]"#, "format": "json" }),
            "`table`: row 1 has \"a\" twice",
        ),
        (
            json!({ "table": "[{\"symbol\":1},2]", "format": "json" }),
            "`table` is no JSON list of objects, one for each row: row 2 is something else",
        ),
        (
            json!({ "table": "[", "format": "json" }),
            "`table` is no JSON list of objects, one for each row: not JSON (at byte 1)",
        ),
        (
            json!({ "table": TABLE, "by": "s" }),
            "`by`: \"s\" is not a JSON pointer: it must start with `/`, like \"/s\"",
        ),
        (
            json!({ "table": TABLE, "into": "" }),
            "`into`: \"\" is the whole message, and a member is meant, like \"/info\"",
        ),
    ] {
        assert_eq!(enrich(&config).err().as_deref(), Some(error), "{config}");
    }
    let no_list = enrich(&json!({ "table": "{}", "format": "json" })).err().unwrap();
    assert!(no_list.starts_with("`table` is no JSON list of objects, one for each row: "), "{no_list}");
}

proptest! {
    #[test]
    fn a_message_gets_what_the_table_has(
        rows in prop::collection::btree_map("[a-z,\"\n]{1,4}", ("[ -~]{0,6}", "[ -~]{0,6}"), 1..8),
        keys in prop::collection::vec("[a-z,\"\n]{1,4}", 1..8),
    ) {
        let quoted = |field: &str| format!("\"{}\"", field.replace('"', "\"\""));
        let lines = rows.iter().map(|(key, (a, b))| format!("{},{},{}\n", quoted(a), quoted(key), quoted(b)));
        let table = format!("a,symbol,b\n{}", lines.collect::<String>());
        let mut plugin = enrich(&json!({ "table": table })).unwrap();
        for key in rows.keys().chain(&keys) {
            let processed = plugin.process([json!({ "s": key }).to_string()]);
            let mut expected = BTreeMap::from([("s".to_owned(), json!(key))]);
            if let Some((a, b)) = rows.get(key) {
                expected.extend([("a".to_owned(), json!(a)), ("b".to_owned(), json!(b))]);
            }
            let got: BTreeMap<String, Value> = serde_json::from_str(processed.texts()[0]).unwrap();
            prop_assert_eq!(got, expected);
        }
    }
}
