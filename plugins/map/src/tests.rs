//! The plugin as the host sees it.

mod properties;

use super::*;
use serde_json::{Value as Tree, json};
use tidemill_plugin::testing::{Harness, Processed};

fn map(config: &Tree) -> Harness<Map> {
    Harness::try_new(&config.to_string()).unwrap_or_else(|error| panic!("{config}: {error}"))
}

fn mapped(config: &Tree, message: &str) -> Processed {
    map(config).process([message])
}

#[test]
fn members_are_set_by_the_host_and_other_bytes_stay() {
    let config = json!({
        "let": { "price": "/p", "qty": "/q" },
        "compute": { "/notional": "price * qty", "/large": "qty > 10" },
        "set": { "/venue": { "name": "x" } },
        "drop": ["/e"],
    });
    let processed = mapped(&config, r#"{ "e" : 1, "p":"2.50", "q":3 }"#);
    assert!(processed.sent[0].forwarded);
    assert_eq!(
        processed.texts(),
        [r#"{ "p":"2.50", "q":3 ,"large":false,"notional":7.5,"venue":{"name":"x"}}"#]
    );
}

#[test]
fn steps_are_made_in_their_order() {
    let config = json!({
        "unwrap": "/data",
        "let": { "p": "/p" },
        "compute": { "/double": "p * 2" },
        "set": { "/s": "BTC", "/x": {} },
        "rename": { "/s": "/symbol", "/double": "/x/twice" },
        "pick": ["/symbol", "/x", "/list/1", "/t"],
        "drop": ["/t/gone"],
        "omit_empty": true,
    });
    let message = r#"{"stream":1,"data":{"p": "1.5","list":[1,{"a" : 1.0e0},3],"t":{"gone":1},"u":null}}"#;
    assert_eq!(
        mapped(&config, message).texts(),
        [r#"{"list":[{"a":1.0e0}],"x":{"twice":3.0},"symbol":"BTC"}"#]
    );
}

#[test]
fn two_members_may_change_places() {
    let config = json!({ "rename": { "/a": "/b", "/b": "/a" } });
    assert_eq!(mapped(&config, r#"{"a":1,"b":[2 ],"c":3}"#).texts(), [r#"{"c":3,"b":1,"a":[2 ]}"#]);
}

/// Whichever way the members are dropped: by the host, and with each key for which the plugin does it itself.
#[test]
fn a_member_that_is_dropped_is_gone_however_often_its_name_stands() {
    let ways = [
        json!({}),
        json!({ "omit_empty": true }),
        json!({ "rename": { "/x": "/y" } }),
        json!({ "pick": ["/b", "/x"] }),
        json!({ "unwrap": "/whole" }),
    ];
    for mut config in ways {
        config["drop"] = json!(["/k", "/b/k"]);
        for message in [
            r#"{"k":"SECRET","k":1}"#,
            r#"{"k":1,"k":"SECRET","\u006b":2}"#,
            r#"{"b":{"k":"SECRET"},"b":{"k":1}}"#,
            r#"{"b":{"k":"SECRET","k":2},"b":5}"#,
            r#"{"b":{"k":"SECRET"},"b":{},"b":[7]}"#,
        ] {
            let whole = config["unwrap"].is_string();
            let message = if whole { format!(r#"{{"whole":{message}}}"#) } else { message.to_owned() };
            let processed = mapped(&config, &message);
            let text = processed.texts()[0].to_owned();
            assert!(!text.contains("SECRET") && !text.contains('k'), "{config}: {message} gave {text}");
        }
    }
}

#[test]
fn what_is_to_go_and_cannot_does_not_go_on() {
    let no_object = "the message is no object of which a part could be picked";
    let element = "/a/0 is an element of an array, and no member";
    for (config, message, reason) in [
        (json!({ "pick": ["/a"] }), r#""SECRET""#, no_object),
        (json!({ "pick": ["/a"] }), " 7 ", no_object),
        (json!({ "pick": ["/a"], "unwrap": "/x" }), r#"{"x":"SECRET"}"#, no_object),
        (json!({ "drop": ["/a/0"] }), r#"{"a":["SECRET"]}"#, element),
        (json!({ "drop": ["/a/0"] }), r#"{"a":["SECRET"],"a":{}}"#, element),
        (json!({ "drop": ["/a/0"], "omit_empty": true }), r#"{"a":["SECRET"]}"#, element),
        (json!({ "drop": ["/0"] }), r#"["SECRET"]"#, "/0 is an element of an array, and no member"),
        (
            json!({ "drop": ["/a/0/1"] }),
            r#"{"a":[[1,"SECRET"]]}"#,
            "/a/0/1 is an element of an array, and no member",
        ),
    ] {
        let processed = mapped(&config, message);
        assert_eq!(processed.rejected, [(0, reason.to_owned())], "{config} {message}");
        assert!(processed.sent.is_empty());
    }
    for (config, message, result) in [
        (json!({ "pick": ["/a"] }), r#"["SECRET"]"#, "[]"),
        (json!({ "drop": ["/a/0"] }), r#"{"a":{"0":1,"1":2}}"#, r#"{"a":{"1":2}}"#),
        (json!({ "drop": ["/a/1"] }), r#"{"a":[1]}"#, r#"{"a":[1]}"#),
        (json!({ "drop": ["/a/0/b"] }), r#"{"a":[{"b":1,"c":2}]}"#, r#"{"a":[{"c":2}]}"#),
        (json!({ "drop": ["/a/01"] }), r#"{"a":[1,2]}"#, r#"{"a":[1,2]}"#),
    ] {
        assert_eq!(mapped(&config, message).texts(), [result], "{config} {message}");
    }
}

#[test]
fn of_members_of_one_name_the_last_is_renamed_and_all_are_set() {
    let message = r#"{"b":{"c":1,"c":2},"b":{"c":3,"d":0},"e":{}}"#;
    let renamed = mapped(&json!({ "rename": { "/b/c": "/e/c" } }), message);
    assert_eq!(renamed.texts(), [r#"{"b":{},"b":{"d":0},"e":{"c":3}}"#]);
    let shadowed = mapped(&json!({ "rename": { "/b/c": "/e" } }), r#"{"b":{"c":1},"b":5}"#);
    assert_eq!(shadowed.texts(), [r#"{"b":{},"b":5}"#]);
    let set = mapped(&json!({ "set": { "/b/c": 7 }, "rename": { "/x": "/y" } }), message);
    assert_eq!(set.texts(), [r#"{"b":{"c":7},"b":{"c":7,"d":0},"e":{}}"#]);
}

#[test]
fn what_is_absent_is_left_out_and_what_is_no_number_is_rejected() {
    let compute = json!({ "let": { "p": "/p" }, "compute": { "/n": "p + 1" } });
    let anew = json!({ "let": { "p": "/p" }, "compute": { "/n": "p + 1" }, "rename": { "/x": "/y" } });
    for config in [compute, anew] {
        assert_eq!(mapped(&config, r#"{"q":1}"#).texts(), [r#"{"q":1}"#]);
        assert_eq!(mapped(&config, r#"{"p":"x"}"#).rejected, [(0, "`p` is no number".to_owned())]);
        assert_eq!(mapped(&config, r#"{"p":1"#).rejected, [(0, "not JSON (at byte 6)".to_owned())]);
        assert_eq!(
            mapped(&json!({ "set": { "/a/b": 1 }, "omit_empty": config["rename"].is_object() }), "{}")
                .rejected,
            [(0, "the message has no object for /a/b".to_owned())]
        );
    }
    let nothing = mapped(&json!({ "unwrap": "/data" }), r#"{"p":1}"#);
    assert_eq!(nothing.rejected, [(0, "the message has nothing to unwrap".to_owned())]);
    let infinite = json!({ "let": { "p": "/p" }, "compute": { "/n": "1 / p" } });
    assert_eq!(mapped(&infinite, r#"{"p":0}"#).texts(), [r#"{"p":0,"n":null}"#]);
}

#[test]
fn a_binary_message_stays_binary() {
    for config in [json!({ "set": { "/a": 1 } }), json!({ "set": { "/a": 1 }, "omit_empty": true })] {
        let processed = map(&config).process([&b" {} "[..]]);
        assert!(processed.sent[0].binary);
        assert!(processed.sent[0].bytes.trim_ascii() == br#"{"a":1}"#);
    }
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    for (config, error) in [
        (
            json!({ "unwrap": "data" }),
            "`unwrap`: \"data\" is not a JSON pointer: it must start with `/`, like \"/data\"",
        ),
        (
            json!({ "let": { "p": "p" } }),
            "`let.p`: \"p\" is not a JSON pointer: it must start with `/`, like \"/p\"",
        ),
        (
            json!({ "let": { "last price": "/p" } }),
            "`let`: \"last price\" is no name: it is made of letters, digits and `_`, and begins with no digit",
        ),
        (
            json!({ "let": { "price": "/p" }, "compute": { "/n": "prize * 2" } }),
            "`compute./n`: \"prize * 2\", at character 1: `let` does not say what `prize` is, but `price`",
        ),
        (
            json!({ "compute": { "n": "1" } }),
            "`compute`: \"n\" is not a JSON pointer: it must start with `/`, like \"/n\"",
        ),
        (json!({ "set": { "": 1 } }), "`set`: \"\" is the whole message, and a member is meant, like \"/x\""),
        (json!({ "rename": { "/a": "/a/b" } }), "`rename`: one of \"/a\" and \"/a/b\" is inside the other"),
        (
            json!({ "drop": ["x"] }),
            "`drop`: \"x\" is not a JSON pointer: it must start with `/`, like \"/x\"",
        ),
    ] {
        assert_eq!(Harness::<Map>::try_new(&config.to_string()).err().as_deref(), Some(error));
    }
    let unknown = Harness::<Map>::try_new(r#"{"renam":{}}"#).err().unwrap();
    assert!(unknown == "unknown key `renam`: did you mean `rename`?", "{unknown}");
}

#[test]
fn a_configuration_of_which_one_part_undoes_another_is_refused() {
    for (config, error) in [
        (json!({ "set": { "/a": 1 }, "drop": ["/a"] }), r#"`set` sets "/a", and `drop` takes "/a" away"#),
        (
            json!({ "compute": { "/a/b": "1" }, "drop": ["/a"] }),
            r#"`compute` sets "/a/b", and `drop` takes "/a" away"#,
        ),
        (
            json!({ "compute": { "/a": "1" }, "set": { "/a": 1 } }),
            r#"`compute` sets "/a", and `set` sets "/a""#,
        ),
        (
            json!({ "compute": { "/a": "1", "/a/b": "1" } }),
            r#"`compute` sets "/a", and a number has no "/a/b""#,
        ),
        (
            json!({ "set": { "/a": 1, "/a/b": 1 } }),
            r#"`set` sets "/a", and what it sets "/a" to has no "/a/b""#,
        ),
        (
            json!({ "set": { "/a": "" }, "omit_empty": true }),
            r#"`set` sets "/a" to "", and `omit_empty` takes what is empty away"#,
        ),
        (
            json!({ "rename": { "/a": "/x", "/b": "/x" } }),
            r#"`rename` turns "/a" into "/x", and "/b" into "/x""#,
        ),
        (
            json!({ "rename": { "/a": "/x/y", "/b": "/x" } }),
            r#"`rename` turns "/a" into "/x/y", and "/b" into "/x""#,
        ),
        (
            json!({ "rename": { "/a": "/x", "/a/b": "/y" } }),
            r#"`rename` turns "/a" into "/x", and "/a/b" into "/y""#,
        ),
        (
            json!({ "set": { "/b": 1 }, "rename": { "/a": "/b" } }),
            r#"`set` sets "/b", and `rename` turns "/a" into "/b""#,
        ),
        (
            json!({ "rename": { "/a": "/b" }, "drop": ["/b"] }),
            r#"`rename` turns "/a" into "/b", and `drop` takes "/b" away"#,
        ),
        (
            json!({ "rename": { "/a": "/b" }, "drop": ["/a/secret"] }),
            r#"`rename` turns "/a" into "/b", and `drop` finds no "/a/secret" any more"#,
        ),
        (json!({ "set": { "/a": 1 }, "pick": ["/b"] }), r#"`set` sets "/a", and `pick` does not keep it"#),
        (
            json!({ "rename": { "/s": "/symbol" }, "pick": ["/s"] }),
            r#"`rename` turns "/s" into "/symbol", and `pick` does not keep it"#,
        ),
        (json!({ "pick": ["/a/b"], "drop": ["/a"] }), r#"`pick` keeps "/a/b", and `drop` takes "/a" away"#),
    ] {
        let refused = Harness::<Map>::try_new(&config.to_string()).err();
        assert_eq!(refused, Some(format!("{error}: leave one out")));
    }
}

#[test]
fn steps_that_use_what_others_made_are_no_contradiction() {
    let message = r#"{"a":{"x":1,"secret":2},"s":"BTC"}"#;
    for (config, result) in [
        (json!({ "pick": ["/a"], "drop": ["/a/secret"] }), r#"{"a":{"x":1}}"#),
        (json!({ "rename": { "/a": "/b" }, "drop": ["/b/secret"] }), r#"{"s":"BTC","b":{"x":1}}"#),
        (json!({ "rename": { "/a/x": "/x" }, "drop": ["/a"] }), r#"{"s":"BTC","x":1}"#),
        (
            json!({ "set": { "/s": "ETH" }, "rename": { "/s": "/symbol" }, "drop": ["/a"] }),
            r#"{"symbol":"ETH"}"#,
        ),
        (
            json!({ "set": { "/new": 1 }, "rename": { "/new": "/s", "/s": "/new" }, "drop": ["/a"] }),
            r#"{"s":1,"new":"BTC"}"#,
        ),
        (json!({ "set": { "/a": {}, "/a/y": 3 } }), r#"{"a":{"y":3},"s":"BTC"}"#),
    ] {
        assert_eq!(mapped(&config, message).texts(), [result], "{config}");
    }
}
