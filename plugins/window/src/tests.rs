//! The plugin as the host sees it, and its aggregates beside a plain model.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use tidemill_plugin::testing::{Harness, Input, Processed};

fn window(config: &Value) -> Harness<WindowPlugin> {
    Harness::try_new(&config.to_string()).unwrap_or_else(|error| panic!("{config}: {error}"))
}

fn refused(config: &Value) -> String {
    Harness::<WindowPlugin>::try_new(&config.to_string()).err().unwrap_or_else(|| panic!("{config} is taken"))
}

fn trade(symbol: &str, price: &str, quantity: &str, time_ms: i64) -> String {
    format!(r#"{{"s":"{symbol}","p":"{price}","q":{quantity},"T":{time_ms}}}"#)
}

fn windows(processed: &Processed) -> Vec<Value> {
    processed.texts().iter().map(|text| serde_json::from_str(text).unwrap()).collect()
}

#[test]
fn without_a_configuration_volumes_of_minutes_are_summed_by_symbol() {
    let mut plugin = window(&json!({}));
    let closed = plugin.process([
        trade("BTC", "1", "1.5", 0),
        trade("ETH", "1", "4", 10),
        trade("BTC", "1", "2", 59_999),
        trade("BTC", "1", "8", 60_000),
        trade("BTC", "1", "8", 59_999),
    ]);
    assert_eq!(
        closed.texts(),
        [r#"{"symbol":"BTC","window_start":0,"window_end":60000,"volume":3.5,"final":true}"#]
    );
    assert_eq!(closed.sent[0].origin, Some(3));
    assert_eq!(plugin.host.counters[LATE], 1.0);
    assert_eq!(
        plugin.finish().texts(),
        [
            r#"{"symbol":"BTC","window_start":60000,"window_end":120000,"volume":8.0,"final":false}"#,
            r#"{"symbol":"ETH","window_start":0,"window_end":60000,"volume":4.0,"final":false}"#,
        ]
    );
}

#[test]
fn every_op_does_what_it_says() {
    let price = |op: &str| json!({ "op": op, "field": "/p" });
    let mut plugin = window(&json!({
        "key": {},
        "aggregates": {
            "n": { "op": "count" }, "sum": price("sum"), "avg": price("avg"), "low": price("min"),
            "high": price("max"), "open": price("first"), "close": price("last"),
            "vwap": { "op": "vwap", "field": "/p", "weight": "/q" },
        },
    }));
    let _ = plugin.process([
        trade("", "3", "1", 5),
        trade("", "-2", "3", 1),
        trade("", "4", "0", 7),
        trade("", "5", "0", 7),
    ]);
    assert_eq!(
        windows(&plugin.finish()),
        [json!({
            "window_start": 0, "window_end": 60000, "final": false, "n": 4, "sum": 10.0, "avg": 2.5, "low": -2.0,
            "high": 5.0, "open": -2.0, "close": 5.0, "vwap": -0.75,
        })]
    );
    let _ = plugin.process([trade("", "3", "0", 0)]);
    assert_eq!(windows(&plugin.finish())[0]["vwap"], Value::Null);
}

#[test]
fn windows_slide_and_sessions_end_with_a_gap() {
    let count = json!({ "n": { "op": "count" } });
    let mut sliding =
        window(&json!({ "kind": "sliding", "size": "10ms", "slide": "5ms", "key": {}, "aggregates": count }));
    let closed = sliding.process([trade("", "1", "1", 7), trade("", "1", "1", 12), trade("", "1", "1", 15)]);
    let span = |window: &Value| (window["window_start"].as_i64().unwrap(), window["n"].as_i64().unwrap());
    assert_eq!(windows(&closed).iter().map(span).collect::<Vec<_>>(), [(0, 1), (5, 2)]);
    assert_eq!(windows(&sliding.finish()).iter().map(span).collect::<Vec<_>>(), [(10, 2), (15, 1)]);
    let mut sessions = window(&json!({ "kind": "session", "gap": "10ms", "key": {}, "aggregates": count }));
    let closed = sessions.process([trade("", "1", "1", 1), trade("", "1", "1", 10), trade("", "1", "1", 20)]);
    assert_eq!(closed.texts(), [r#"{"window_start":1,"window_end":20,"n":2,"final":true}"#]);
}

#[test]
fn keys_have_several_parts_and_their_names() {
    let mut plugin = window(&json!({
        "key": { "symbol": "/s", "a \"name\"": "/p", "room": "metadata:room" },
        "aggregates": { "n": { "op": "count" } },
    }));
    let _ = plugin.process([Input::from(trade("B\\\"TC", "1.50", "1", 0)).with("room", "lobby")]);
    assert!(plugin.process([trade("BTC", "1", "1", 0)]).is_empty());
    let closed = windows(&plugin.finish());
    assert_eq!(
        closed,
        [json!({
            "symbol": "B\"TC", "a \"name\"": "1.50", "room": "lobby", "window_start": 0, "window_end": 60000, "n": 1,
            "final": false,
        })]
    );
}

#[test]
fn silence_closes_windows_for_good() {
    let mut plugin = window(&json!({ "idle_close": "2s" }));
    assert_eq!(plugin.tick_ms(), 200);
    let _ = plugin.process([Input::from(trade("BTC", "1", "1", 0)).received_us(1_000_000)]);
    assert!(plugin.tick(2_999_999).is_empty());
    assert_eq!(windows(&plugin.tick(3_000_000))[0]["final"], true);
    assert!(plugin.process([Input::from(trade("BTC", "1", "1", 1)).received_us(4_000_000)]).is_empty());
    assert_eq!(plugin.host.counters[LATE], 1.0);
    assert_eq!(window(&json!({})).tick_ms(), 0);
}

#[test]
fn many_silent_keys_are_closed_in_several_calls_and_none_is_forgotten() {
    const KEYS: usize = 20_000;
    let mut plugin = window(&json!({ "idle_close": "2s" }));
    for number in 0..KEYS {
        let message = trade(&format!("K{number}"), "1", "1", 0);
        let _ = plugin.process([Input::from(message).received_us(1_000_000)]);
    }
    let mut closed = Vec::new();
    let mut calls = 0;
    while closed.len() < KEYS {
        let portion = windows(&plugin.tick(4_000_000));
        assert!(!portion.is_empty() && portion.len() < KEYS / 2);
        closed.extend(portion.into_iter().map(|window| window["symbol"].as_str().unwrap().to_owned()));
        calls += 1;
    }
    assert!(calls == 3 && plugin.tick(5_000_000).is_empty());
    closed.sort_unstable();
    closed.dedup();
    assert_eq!(closed.len(), KEYS);
}

#[test]
fn keys_that_were_silent_longest_make_room_and_are_counted() {
    let mut plugin = window(&json!({ "max_keys": 2 }));
    let processed = plugin.process(["A", "B", "A", "C"].map(|symbol| trade(symbol, "1", "1", 0)));
    let closed = windows(&processed);
    assert_eq!(closed.len(), 1);
    assert_eq!((&closed[0]["symbol"], &closed[0]["final"]), (&json!("B"), &json!(false)));
    assert_eq!(plugin.host.counters[FORGOTTEN], 1.0);
    assert_eq!(plugin.finish().sent.len(), 2);
}

#[test]
fn messages_of_others_are_filtered_and_what_cannot_be_read_is_rejected() {
    let where_trade = json!([{ "field": "/s", "op": "ne", "value": "X" }]);
    let mut plugin = window(&json!({ "where": where_trade }));
    for message in
        [r#"{"s":"A","T":0}"#, r#"{"q":1,"T":0}"#, r#"{"s":"A","q":1}"#, r#"{"s":"X","q":"?","T":0}"#, "[]"]
    {
        assert!(plugin.process([message]).is_empty(), "{message}");
    }
    for (message, reason) in [
        (r#"{"s":"A","q":"?","T":0}"#, "/q is no number"),
        (r#"{"s":"A","q":1,"T":null}"#, "the time is no number"),
        (r#"{"s":"A","q":1,"T":1e16}"#, "the time is out of range"),
        (r#"{"s":"A""#, "not JSON (at byte 8)"),
    ] {
        assert_eq!(plugin.process([message]).rejected, [(0, reason.to_owned())], "{message}");
    }
}

#[test]
fn a_snapshot_carries_every_digit_and_shares_keys_out() {
    let config = json!({
        "aggregates": { "sum": { "op": "sum", "field": "/q" }, "avg": { "op": "avg", "field": "/q" } },
    });
    let mut old = window(&config);
    let symbols = ["BTC", "ETH", "SOL", "XRP"];
    let _ = old.process((0..40).map(|n| trade(symbols[n % 4], "1", &format!("0.{n}7"), n as i64)));
    let snapshot = old.snapshot().unwrap().unwrap();
    let mut whole = window(&config);
    whole.restore(&snapshot).unwrap();
    assert_eq!(whole.snapshot().unwrap().unwrap(), snapshot);
    let mut shared = Vec::new();
    for number in 0..3 {
        let mut share = window(&config);
        share.restore_part(std::slice::from_ref(&snapshot), Part { number, of: 3 }).unwrap();
        shared.extend(windows(&share.finish()));
    }
    shared.sort_by_key(|window| window["symbol"].to_string());
    assert_eq!(shared, windows(&whole.finish()));
    let error = window(&json!({})).restore(&snapshot).unwrap_err();
    assert_eq!(
        error,
        "the state has windows of Avg avg /q; Sum sum /q for the `key` {symbol /s}, and the configuration says Sum \
         volume /q for the `key` {symbol /s}; a transform of another `name` begins without state"
    );
}

#[test]
fn messages_that_the_host_takes_to_have_no_key_are_shared_out_as_it_does_and_counted_once() {
    // With several instances the host gives all of them to the one that has the key "".
    let owner = (0..3).find(|&number| Part { number, of: 3 }.has("")).unwrap();
    let values = ["null", r#"["A"]"#, r#"{"a":1}"#, r#""\ud83d""#];
    let message = |value: &str| format!(r#"{{"s":{value},"q":1,"T":0}}"#);
    let mut old = window(&json!({}));
    let _ = old.process(values.map(message));
    let snapshot = old.snapshot().unwrap().unwrap();
    for number in 0..3 {
        let mut share = window(&json!({}));
        share.restore_part(std::slice::from_ref(&snapshot), Part { number, of: 3 }).unwrap();
        if number != owner {
            assert!(share.finish().is_empty());
            continue;
        }
        let _ = share.process(values.map(message));
        let closed = windows(&share.finish());
        let closed: Vec<_> =
            closed.iter().map(|window| (window["symbol"].as_str().unwrap(), &window["volume"])).collect();
        let two = json!(2.0);
        assert_eq!(closed, [r#""\ud83d""#, r#"["A"]"#, "null", r#"{"a":1}"#].map(|symbol| (symbol, &two)));
    }
}

#[test]
fn windows_that_one_call_could_not_send_are_refused_by_no_more_than_they_take() {
    let name = "v".repeat(1600);
    let config = |size: &str| {
        let aggregates = json!({ &name: { "op": "count" } });
        json!({ "kind": "sliding", "size": size, "slide": "1ms", "aggregates": aggregates })
    };
    let error = refused(&config("10s"));
    let bytes = error
        .strip_prefix("one message may close 10000 windows of its key at once, of ")
        .and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok())
        .unwrap_or_else(|| panic!("{error}"));
    let mut plugin = window(&config("1ms"));
    let _ = plugin.process([trade("", "1", "1", 0)]);
    // The host counts 128 bytes for each beside its own.
    let sent = plugin.finish().texts()[0].len() + 128;
    assert!((sent - 10..=sent).contains(&bytes), "{bytes} of {sent}");
}

#[test]
fn a_time_far_ahead_closes_windows_early_and_later_ones_go_on_until_its_own_is_closed() {
    let config = json!({ "size": "1s", "idle_close": "10s" });
    let mut plugin = window(&config);
    let at = |time_ms: i64, second: u64| {
        Input::from(trade("A", "1", "1", time_ms)).received_us(second * 1_000_000)
    };
    let closed = plugin.process([at(100, 1), at(9_000_000_000, 1), at(200, 1), at(1_100, 1), at(2_100, 1)]);
    let starts = |processed: &Processed| -> Vec<i64> {
        windows(processed).iter().map(|window| window["window_start"].as_i64().unwrap()).collect()
    };
    assert_eq!(starts(&closed), [0, 1_000]);
    assert_eq!(plugin.host.counters[LATE], 1.0);
    let closed = plugin.process([at(30_000, 12), at(31_000, 12)]);
    assert_eq!(starts(&closed), [2_000, 9_000_000_000]);
    assert_eq!(plugin.host.counters[LATE], 3.0);
    let beyond = plugin.process([trade("A", "1", "1", (1 << 53) + 2)]);
    assert_eq!(beyond.rejected, [(0, "the time is out of range".to_owned())]);
}

#[test]
fn state_of_other_windows_is_refused_and_says_what_has_changed() {
    let tumbling = json!({});
    let sliding = json!({ "kind": "sliding", "size": "1m", "slide": "10s" });
    let session = json!({ "kind": "session", "gap": "10s" });
    let minute = "tumbling windows with `size` 60s";
    for (before, now, state, configuration) in [
        (&tumbling, json!({ "size": "1500ms" }), minute, "tumbling windows with `size` 1.5s"),
        (&tumbling, sliding.clone(), minute, "sliding windows with `size` 60s and `slide` 10s"),
        (
            &sliding,
            json!({ "kind": "sliding", "size": "1m", "slide": "20s" }),
            "sliding windows with `size` 60s and `slide` 10s",
            "sliding windows with `size` 60s and `slide` 20s",
        ),
        (
            &session,
            json!({ "kind": "session", "gap": "1m" }),
            "sessions with `gap` 10s",
            "sessions with `gap` 60s",
        ),
        (&session, tumbling.clone(), "sessions with `gap` 10s", minute),
        (
            &tumbling,
            json!({ "key": { "pair": "/s" } }),
            "windows of Sum volume /q for the `key` {symbol /s}",
            "Sum volume /q for the `key` {pair /s}",
        ),
        (
            &tumbling,
            json!({ "key": { "symbol": "/s", "venue": "/v" } }),
            "windows of Sum volume /q for the `key` {symbol /s}",
            "Sum volume /q for the `key` {symbol /s, venue /v}",
        ),
    ] {
        let mut old = window(before);
        let _ = old.process([trade("BTC", "1", "1", 0)]);
        let snapshot = old.snapshot().unwrap().unwrap();
        let mut new = window(&now);
        let expected = format!(
            "the state has {state}, and the configuration says {configuration}; a transform of another `name` begins \
             without state"
        );
        assert_eq!(new.restore(&snapshot).unwrap_err(), expected);
        assert!(new.finish().sent.is_empty());
        // What closes windows is no part of what they are.
        let mut same = before.clone();
        same["allowed_lateness"] = json!("1s");
        same["max_keys"] = json!(7);
        window(&same).restore(&snapshot).unwrap();
    }
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    for (config, error) in [
        (json!({ "slide": "1s" }), "`slide` is no key of windows of `kind = \"tumbling\"`"),
        (
            json!({ "kind": "session", "gap": "1s", "size": "1s" }),
            "`size` is no key of windows of `kind = \"session\"`",
        ),
        (
            json!({ "kind": "sliding" }),
            "missing key `slide`: windows of `kind = \"sliding\"` need it, such as `slide = \"10s\"`",
        ),
        (
            json!({ "kind": "session" }),
            "missing key `gap`: windows of `kind = \"session\"` need it, such as `gap = \"10s\"`",
        ),
        (json!({ "size": "0s" }), "`size` must be longer than 0"),
        (json!({ "size": "500us" }), "`size` must be whole milliseconds, got 500µs"),
        (json!({ "kind": "sliding", "slide": "1ms1us" }), "`slide` must be whole milliseconds, got 1.001ms"),
        (json!({ "kind": "session", "gap": "1ns" }), "`gap` must be whole milliseconds, got 1ns"),
        (json!({ "idle_close": "500us" }), "`idle_close` must be whole milliseconds, got 500µs"),
        (json!({ "max_keys": 0 }), "`max_keys` must be more than 0"),
        (
            json!({ "aggregates": {} }),
            "`aggregates` is empty: name one, such as `aggregates = { count = { op = \"count\" } }`",
        ),
        (
            json!({ "key": { "final": "/s" } }),
            "`key`: \"final\" stands for something else in what is emitted: give it another name",
        ),
        (
            json!({ "aggregates": { "symbol": { "op": "count" } } }),
            "`aggregates.symbol`: the name stands for something else in what is emitted: give it another",
        ),
        (
            json!({ "aggregates": { "v": { "op": "sum" } } }),
            "missing key `aggregates.v.field`: this `op` needs it",
        ),
        (
            json!({ "aggregates": { "v": { "op": "vwap", "field": "/p" } } }),
            "missing key `aggregates.v.weight`: this `op` needs it",
        ),
        (
            json!({ "aggregates": { "v": { "op": "sum", "field": "/p", "weight": "/q" } } }),
            "`aggregates.v.weight`: this `op` takes none",
        ),
        (
            json!({ "aggregates": { "v": { "op": "sum", "field": "p" } } }),
            "`aggregates.v.field`: \"p\" is not a JSON pointer: it must start with `/`, like \"/p\"",
        ),
        (json!({ "time": "T" }), "`time`: \"T\" is not a JSON pointer: it must start with `/`, like \"/T\""),
    ] {
        assert_eq!(refused(&config), error);
    }
    let many = refused(&json!({ "kind": "sliding", "size": "1h", "slide": "1s", "max_keys": 1000 }));
    assert!(
        many.starts_with("`max_keys`: 1000 keys of 3600 pieces of windows each are too many: `limits."),
        "{many}"
    );
    let median = refused(&json!({ "aggregates": { "v": { "op": "median", "field": "/p" } } }));
    assert!(
        median.starts_with(r#"`aggregates.v.op` must be one of "count", "sum", "#)
            && median.ends_with(r#", got "median""#),
        "{median}"
    );
}

proptest! {
    #[test]
    fn aggregates_are_those_of_a_plain_model(
        trades in prop::collection::vec((0..3usize, 0..400i64, -50..50i32, 0..9i32), 1..120),
        slide in prop_oneof![Just(None), Just(Some(20i64)), Just(Some(50)), Just(Some(100))],
    ) {
        let symbols = ["A", "B", "C"];
        let price = |op: &str| json!({ "op": op, "field": "/p" });
        let mut config = json!({
            "size": "100ms", "allowed_lateness": "1s",
            "aggregates": {
                "n": { "op": "count" }, "sum": price("sum"), "avg": price("avg"), "low": price("min"),
                "high": price("max"), "open": price("first"), "close": price("last"),
                "vwap": { "op": "vwap", "field": "/p", "weight": "/q" },
            },
        });
        if let Some(slide) = slide {
            config["kind"] = "sliding".into();
            config["slide"] = format!("{slide}ms").into();
        }
        let mut plugin = window(&config);
        let messages = trades.iter().map(|(symbol, time, price, quantity)| {
            trade(symbols[*symbol], &price.to_string(), &quantity.to_string(), *time)
        });
        prop_assert!(plugin.process(messages).is_empty());
        let mut expected = Vec::new();
        for (number, symbol) in symbols.iter().enumerate() {
            for start in (-100..400i64).filter(|start| start.rem_euclid(slide.unwrap_or(100)) == 0) {
                let inside = trades.iter().filter(|(of, time, ..)| *of == number && (start..start + 100).contains(time));
                let mut inside: Vec<_> = inside.map(|(_, time, p, q)| (*time, f64::from(*p), f64::from(*q))).collect();
                // Of one time, those that came later stay behind.
                inside.sort_by_key(|(time, ..)| *time);
                let (Some(first), Some(last)) = (inside.first(), inside.last()) else { continue };
                let prices = || inside.iter().map(|(_, price, _)| *price);
                let volume: f64 = inside.iter().map(|(.., quantity)| quantity).sum();
                let turnover: f64 = inside.iter().map(|(_, price, quantity)| price * quantity).sum();
                let sum: f64 = prices().sum();
                expected.push(json!({
                    "symbol": symbol, "window_start": start, "window_end": start + 100, "final": false,
                    "n": inside.len(), "sum": sum, "avg": sum / inside.len() as f64,
                    "low": prices().fold(f64::INFINITY, f64::min), "high": prices().fold(f64::NEG_INFINITY, f64::max),
                    "open": first.1, "close": last.1,
                    "vwap": if volume == 0.0 { Value::Null } else { json!(turnover / volume) },
                }));
            }
        }
        // Numbers are read as the others are: `serde_json` may miss the last bit.
        let expected: Vec<Value> =
            expected.iter().map(|window| serde_json::from_str(&window.to_string()).unwrap()).collect();
        prop_assert_eq!(windows(&plugin.finish()), expected);
    }
}
