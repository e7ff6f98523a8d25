//! The plugin as the host sees it, the recorded market included.

use super::*;
use std::collections::BTreeMap;
use std::io::Read;
use tidemill_plugin::testing::{Harness, Input};

const MINUTE_MS: i64 = 60_000;

fn vwap(config: &str) -> Harness<Vwap> {
    Harness::try_new(config).unwrap()
}

fn trade(symbol: &str, price: &str, quantity: &str, time_ms: i64) -> String {
    format!(r#"{{"data":{{"e":"trade","s":"{symbol}","p":"{price}","q":"{quantity}","T":{time_ms}}}}}"#)
}

#[test]
fn a_window_is_emitted_when_a_later_trade_closes_it() {
    let mut plugin = vwap("{}");
    let processed = plugin.process([
        trade("BTC", "100", "1", 0),
        trade("BTC", "200", "3", MINUTE_MS - 1),
        trade("ETH", "10", "1", 5 * MINUTE_MS),
        trade("BTC", "300", "1", MINUTE_MS),
    ]);
    assert_eq!(
        processed.texts(),
        [
            r#"{"symbol":"BTC","window_start":0,"window_end":60000,"vwap":175.0,"volume":4.0,"count":2,"final":true}"#
        ]
    );
    assert_eq!(processed.sent[0].origin, Some(3));
    assert_eq!(
        plugin.finish().texts(),
        [
            r#"{"symbol":"BTC","window_start":60000,"window_end":120000,"vwap":300.0,"volume":1.0,"count":1,"final":false}"#,
            r#"{"symbol":"ETH","window_start":300000,"window_end":360000,"vwap":10.0,"volume":1.0,"count":1,"final":false}"#,
        ]
    );
}

#[test]
fn what_is_older_than_the_newest_closed_window_is_late_and_counted() {
    let mut plugin = vwap("{}");
    let _ = plugin.process([trade("BTC", "1", "1", 0), trade("BTC", "1", "1", MINUTE_MS)]);
    let processed = plugin.process([
        trade("BTC", "9", "9", MINUTE_MS - 1),
        trade("ETH", "9", "9", MINUTE_MS - 1),
        trade("BTC", "9", "9", MINUTE_MS),
    ]);
    assert!(processed.is_empty());
    assert_eq!(plugin.host.counters[LATE], 1.0);
}

#[test]
fn lateness_holds_a_window_open() {
    let mut plugin = vwap(r#"{"allowed_lateness":"10s"}"#);
    let open = plugin.process([
        trade("BTC", "1", "1", 0),
        trade("BTC", "3", "1", MINUTE_MS + 9_999),
        trade("BTC", "5", "1", 1),
    ]);
    assert!(open.is_empty());
    let closed = plugin.process([trade("BTC", "1", "1", MINUTE_MS + 10_000)]);
    assert_eq!(closed.sent.len(), 1);
    assert!(
        closed.texts()[0]
            .contains(r#""window_start":0,"window_end":60000,"vwap":3.0,"volume":2.0,"count":2"#)
    );
    assert!(!plugin.host.counters.contains_key(LATE));
}

#[test]
fn silence_closes_windows_for_good() {
    let mut plugin = vwap(r#"{"idle_close":"2s"}"#);
    assert_eq!(plugin.tick_ms(), 200);
    let input = |time_ms, received_us| Input::from(trade("BTC", "7", "1", time_ms)).received_us(received_us);
    let _ = plugin.process([input(0, 1_000_000)]);
    assert!(plugin.tick(2_999_999).is_empty());
    let closed = plugin.tick(3_000_000);
    assert!(closed.texts()[0].ends_with(r#""vwap":7.0,"volume":1.0,"count":1,"final":true}"#));
    assert!(plugin.tick(9_000_000).is_empty());
    assert!(plugin.process([input(1, 9_000_000)]).is_empty());
    assert_eq!(plugin.host.counters[LATE], 1.0);
}

#[test]
fn a_message_after_silence_finds_its_windows_closed_whether_the_timer_was_there_or_not() {
    let mut plugin = vwap(r#"{"idle_close":"2s"}"#);
    let input = |time_ms, received_us| Input::from(trade("BTC", "7", "1", time_ms)).received_us(received_us);
    let closed =
        plugin.process([input(0, 1_000_000), input(1, 2_999_999), input(2, 4_999_999), input(3, 5_000_000)]);
    assert_eq!(closed.sent.len(), 1);
    assert!(closed.texts()[0].ends_with(r#""volume":2.0,"count":2,"final":true}"#));
    assert_eq!(plugin.host.counters[LATE], 2.0);
    assert!(plugin.finish().is_empty());
}

#[test]
fn symbols_that_were_silent_longest_are_forgotten_and_counted() {
    let mut plugin = vwap(r#"{"max_symbols":128}"#);
    let _ = plugin.process((0..128).map(|n| trade(&format!("S{n:03}"), "1", "1", 0)));
    let _ = plugin.process([trade("S000", "1", "1", 1)]);
    let processed = plugin.process([trade("NEW", "1", "1", 0)]);
    let expected = |symbol| {
        format!(
            r#"{{"symbol":"{symbol}","window_start":0,"window_end":60000,"vwap":1.0,"volume":1.0,"count":1,"final":false}}"#
        )
    };
    assert_eq!(processed.texts(), [expected("S001")]);
    assert_eq!(plugin.host.counters[FORGOTTEN], 1.0);
    let processed = plugin.process([trade("OTHER", "1", "1", 0)]);
    assert_eq!(processed.texts(), [expected("S002")]);
    assert_eq!(plugin.host.counters[FORGOTTEN], 2.0);
    assert_eq!(plugin.finish().sent.len(), 128);
}

#[test]
fn no_timer_is_asked_for_without_idle_close() {
    let mut plugin = vwap("{}");
    assert_eq!(plugin.tick_ms(), 0);
    let _ = plugin.process([trade("BTC", "7", "1", 0)]);
    assert!(plugin.tick(u64::MAX).is_empty());
}

#[test]
fn no_volume_is_no_price_and_results_are_always_json() {
    let mut plugin = vwap("{}");
    let huge = "9".repeat(308);
    let _ =
        plugin.process([trade("A\\\"", "1", "0", 0), trade("B", &huge, "1", 0), trade("B", &huge, "1", 1)]);
    let _ = plugin.process([trade("B", &huge, "1", 2)]);
    let open = plugin.finish();
    assert!(open.texts()[0].starts_with(r#"{"symbol":"A\"","#));
    for text in open.texts() {
        let price: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(price["vwap"], serde_json::Value::Null);
    }
}

#[test]
fn times_before_the_epoch_and_symbols_that_are_numbers_have_windows() {
    let mut plugin = vwap(r#"{"where":[],"window":"1s"}"#);
    let _ = plugin.process([r#"{"data":{"s":7,"p":1,"q":1,"T":-0.5}}"#]);
    assert!(plugin.finish().texts()[0].starts_with(r#"{"symbol":"7","window_start":-1000,"window_end":0,"#));
}

#[test]
fn messages_of_others_are_filtered_and_what_cannot_be_read_is_rejected() {
    let mut plugin = vwap("{}");
    for message in [
        r#"{"data":{"e":"depthUpdate","s":"BTC","p":"x","q":"x","T":"x"}}"#,
        r#"{"data":{"e":"trade","s":"BTC","p":"1","q":"1"}}"#,
        r#"{"result":null,"id":1}"#,
        "[]",
    ] {
        assert!(plugin.process([message]).is_empty(), "{message}");
    }
    for (message, reason) in [
        (trade("BTC", "x", "1", 0), "the price is no number"),
        (trade("BTC", "1", "", 0), "the quantity is no number"),
        (trade("BTC", "1", "1", 0).replace(":0}", ":null}"), "the time is no number"),
        (trade("BTC", "1", "1", i64::MAX), "the time is out of range"),
        (trade("BTC", "1e200", "1e200", 0), "price times quantity is too large"),
        (trade("BTC", "1", "1", 0).replace("}}", "}"), "not JSON (at byte 53)"),
    ] {
        assert_eq!(plugin.process([message.as_str()]).rejected, [(0, reason.to_owned())], "{message}");
    }
    assert!(plugin.finish().is_empty());
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    for (config, error) in [
        (r#"{"window":"0s"}"#, "`window` must be longer than 0"),
        (r#"{"max_symbols":0}"#, "`max_symbols` must be more than 0"),
        (
            r#"{"max_symbols":1000000}"#,
            "`max_symbols`: 1000000 keys of a piece of windows each are too many: `limits.memory` has room for 225735. \
             Take fewer, let it be larger, or leave `max_symbols` out: then there are as many as there is room for",
        ),
        (
            r#"{"window":"1 minute"}"#,
            r#"`window` must be a duration such as "250ms" or "10s", got "1 minute""#,
        ),
        (r#"{"price":"p"}"#, r#"`price`: "p" is not a JSON pointer: it must start with `/`, like "/p""#),
        (r#"{"time":"T"}"#, r#"`time`: "T" is not a JSON pointer: it must start with `/`, like "/T""#),
        (r#"{"window":"500us"}"#, "`window` must be whole milliseconds, got 500µs"),
        (r#"{"allowed_lateness":"1.5ms"}"#, "`allowed_lateness` must be whole milliseconds, got 1.5ms"),
        (r#"{"idle_close":"7ns"}"#, "`idle_close` must be whole milliseconds, got 7ns"),
        (r#"{"windw":"1m"}"#, "unknown key `windw`: did you mean `window`?"),
    ] {
        assert_eq!(Harness::<Vwap>::try_new(config).err().as_deref(), Some(error));
    }
}

#[test]
fn a_snapshot_carries_every_digit() {
    let mut old = vwap("{}");
    let _ = old.process((1..50).map(|n| trade("BTC", &format!("0.{n}1"), &format!("0.{n}7"), n)));
    let _ = old.process([trade("ETH", "1", "1", 0), trade("ETH", "1", "1", MINUTE_MS)]);
    let snapshot = old.snapshot().unwrap().unwrap();
    let mut new = vwap("{}");
    new.restore(&snapshot).unwrap();
    assert_eq!(new.snapshot().unwrap().unwrap(), snapshot);
    assert!(new.process([trade("ETH", "9", "9", 0)]).is_empty());
    assert_eq!(new.host.counters[LATE], 1.0);
    assert_eq!(new.finish(), old.finish());
    assert!(new.restore(b"{\"BTC\":1}").is_err());
    for (config, state, configuration) in [
        (r#"{"window":"10s"}"#, "tumbling windows with `size` 60s", "tumbling windows with `size` 10s"),
        (
            r#"{"symbol":"/s"}"#,
            "windows of `price` /data/p and `quantity` /data/q for the `symbol` /data/s",
            "`price` /data/p and `quantity` /data/q for the `symbol` /s",
        ),
    ] {
        let expected = format!(
            "the state has {state}, and the configuration says {configuration}; a transform of another `name` begins \
             without state"
        );
        assert_eq!(vwap(config).restore(&snapshot).unwrap_err(), expected);
    }
}

/// Sums of (price times quantity, quantity, count), by symbol and minute.
type Sums = BTreeMap<(String, i64), (f64, f64, u64)>;

#[test]
fn the_recorded_market_gives_the_prices_of_an_independent_computation() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/binance-combined-20240808.jsonl.gz");
    let mut recording = String::new();
    let file = std::fs::File::open(file).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut recording).unwrap();
    let messages: Vec<&str> = recording.lines().map(|line| line.split_once(' ').unwrap().1).collect();

    let mut expected = Sums::new();
    for message in &messages {
        let message: serde_json::Value = serde_json::from_str(message).unwrap();
        let data = &message["data"];
        if data["e"] == "trade" {
            let decimal = |key: &str| data[key].as_str().unwrap().parse::<f64>().unwrap();
            let minute = data["T"].as_i64().unwrap() / MINUTE_MS * MINUTE_MS;
            let symbol = data["s"].as_str().unwrap().to_owned();
            let (turnover, volume, count) = expected.entry((symbol, minute)).or_default();
            *turnover += decimal("p") * decimal("q");
            *volume += decimal("q");
            *count += 1;
        }
    }

    let mut plugin = vwap("{}");
    let mut results: Vec<serde_json::Value> = Vec::new();
    for batch in messages.chunks(256) {
        let processed = plugin.process(batch.iter().copied());
        assert!(processed.rejected.is_empty());
        results.extend(processed.texts().iter().map(|text| serde_json::from_str(text).unwrap()));
    }
    results.extend(plugin.finish().texts().iter().map(|text| serde_json::from_str(text).unwrap()));

    assert_eq!(results.len(), expected.len());
    assert!(!plugin.host.counters.contains_key(LATE));
    for result in results {
        let key = (result["symbol"].as_str().unwrap().to_owned(), result["window_start"].as_i64().unwrap());
        let (turnover, volume, count) = expected[&key];
        assert_eq!(result["count"], count);
        let close = |result: &serde_json::Value, expected: f64| {
            (result.as_f64().unwrap() / expected - 1.0).abs() < 1e-9
        };
        assert!(close(&result["vwap"], turnover / volume), "{key:?}");
        assert!(close(&result["volume"], volume), "{key:?}");
    }
}
