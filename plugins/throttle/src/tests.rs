use super::*;
use proptest::prelude::*;
use tidemill_plugin::testing::{Harness, Input, Processed};

const LATEST: &str = r#"{"max":1,"per":"1s","key":"/s","when_over":"latest"}"#;

fn throttle(config: &str) -> Harness<Throttle> {
    Harness::try_new(config).unwrap()
}

/// A message of a symbol, received at a time.
fn quote(symbol: &str, price: u32, received_ms: u64) -> Input {
    Input::from(format!(r#"{{"s":"{symbol}","p":{price}}}"#)).received_us(received_ms * 1000)
}

fn origins(processed: &Processed) -> Vec<Option<usize>> {
    processed.sent.iter().map(|sent| sent.origin).collect()
}

#[test]
fn without_a_configuration_ten_a_second_go_on() {
    let mut plugin = throttle("{}");
    assert_eq!(plugin.tick_ms(), 0);
    let sent = plugin.process((0..25).map(|number| Input::from("1").received_us(number * 50_000)));
    let expected = (0..10).chain(20..25).map(Some).collect::<Vec<_>>();
    assert_eq!(origins(&sent), expected);
}

#[test]
fn times_are_those_of_a_field_where_one_is_named() {
    let mut plugin = throttle(r#"{"max":1,"per":"1s","time":"/T"}"#);
    let messages = [r#"{"T":1000}"#, r#"{"T":"1999.9"}"#, r#"{"T":2000}"#, "{}", r#"{"T":null}"#];
    let processed = plugin.process(messages);
    assert_eq!(processed.texts(), [messages[0], messages[2]]);
    let reasons: Vec<&str> = processed.rejected.iter().map(|(_, reason)| reason.as_str()).collect();
    assert_eq!(reasons, ["the message has no time", "the time is no number"]);
}

#[test]
fn the_newest_goes_on_as_soon_as_it_may() {
    let mut plugin = throttle(LATEST);
    assert_eq!(plugin.tick_ms(), 20);
    let sent = plugin.process([
        quote("BTC", 1, 5000),
        quote("BTC", 2, 5100),
        quote("ETH", 1, 5200),
        quote("BTC", 3, 5300),
        quote("ETH", 2, 5400),
    ]);
    assert_eq!(origins(&sent), [Some(0), Some(2)]);
    assert!(plugin.tick(5_999_999).is_empty());
    assert_eq!(plugin.tick(6_000_000).texts(), [r#"{"s":"BTC","p":3}"#]);
    assert!(plugin.tick(6_100_000).is_empty());
    assert_eq!(plugin.tick(6_300_000).texts(), [r#"{"s":"ETH","p":2}"#]);
    // What was sent by the timer counts.
    assert!(plugin.process([quote("BTC", 4, 6900)]).is_empty());
    assert_eq!(plugin.tick(7_000_000).texts(), [r#"{"s":"BTC","p":4}"#]);
    assert!(plugin.tick(60_000_000).is_empty());
}

#[test]
fn what_waits_gives_way_to_a_newer_one_that_may_go_on() {
    let mut plugin = throttle(LATEST);
    let sent = plugin.process([quote("BTC", 1, 5000), quote("BTC", 2, 5500), quote("BTC", 3, 6000)]);
    assert_eq!(origins(&sent), [Some(0), Some(2)]);
    assert!(plugin.tick(9_000_000).is_empty());
}

#[test]
fn the_time_of_a_field_goes_on_while_no_message_comes() {
    let mut plugin = throttle(r#"{"max":1,"per":"1s","time":"/T","when_over":"latest"}"#);
    let at =
        |time_ms: u32, received_us| Input::from(format!(r#"{{"T":{time_ms}}}"#)).received_us(received_us);
    let sent = plugin.process([at(1000, 7_000_000), at(1400, 7_300_000)]);
    assert_eq!(origins(&sent), [Some(0)]);
    assert!(plugin.tick(7_899_999).is_empty());
    assert_eq!(plugin.tick(7_900_000).texts(), [r#"{"T":1400}"#]);
}

#[test]
fn what_is_older_than_what_was_sent_does_not_wait() {
    let mut plugin = throttle(r#"{"max":1,"per":"1s","time":"/T","when_over":"latest"}"#);
    let at = |time_ms: u32, received_ms: u64| {
        Input::from(format!(r#"{{"T":{time_ms}}}"#)).received_us(received_ms * 1000)
    };
    // Late, and very late.
    let sent = plugin.process([at(5000, 9000), at(4500, 9010), at(1000, 9020)]);
    assert_eq!(sent.texts(), [r#"{"T":5000}"#]);
    assert!(plugin.tick(20_000_000).is_empty());

    // What waited was sent at 16,000 by the time of messages, and the next is from before that, and newer.
    let _ = plugin.process([at(16_000, 20_000), at(16_400, 20_400)]);
    assert_eq!(plugin.tick(21_000_000).texts(), [r#"{"T":16400}"#]);
    assert!(plugin.process([at(16_300, 21_010), at(16_900, 21_020)]).is_empty());
    assert_eq!(plugin.tick(22_120_000).texts(), [r#"{"T":16900}"#]);
    assert!(plugin.finish().is_empty());
}

#[test]
fn what_waits_gives_way_to_a_message_whose_time_is_long_after() {
    let mut plugin = throttle(r#"{"max":1,"per":"1s","time":"/T","when_over":"latest"}"#);
    let sent = plugin.process([r#"{"T":0}"#, r#"{"T":400}"#, r#"{"T":9000}"#, r#"{"T":9100}"#]);
    assert_eq!(sent.texts(), [r#"{"T":0}"#, r#"{"T":9000}"#]);
    assert_eq!(plugin.finish().texts(), [r#"{"T":9100}"#]);
}

#[test]
fn the_clock_is_that_of_the_newest_message_also_where_none_has_a_time_of_receipt() {
    let mut plugin = throttle(r#"{"max":1,"per":"1s","key":"/s","time":"/T","when_over":"latest"}"#);
    let messages =
        [r#"{"s":"a","T":1000}"#, r#"{"s":"a","T":1500}"#, r#"{"s":"b","T":2000}"#, r#"{"s":"c","T":1600}"#];
    assert_eq!(plugin.process(messages).sent.len(), 3);
    assert_eq!(plugin.tick(0).texts(), [messages[1]]);
}

#[test]
fn stretches_may_be_shorter_than_a_millisecond() {
    let mut plugin = throttle(r#"{"max":1,"per":"500us"}"#);
    let sent = plugin.process([0, 499, 500, 999, 1000].map(|us| Input::from("1").received_us(us)));
    assert_eq!(origins(&sent), [Some(0), Some(2), Some(4)]);
}

#[test]
fn at_the_end_nothing_is_left_that_waits() {
    let mut plugin = throttle(LATEST);
    let bytes = br#"{"s":"BTC","p":2}"#;
    let _ = plugin.process([
        quote("BTC", 1, 5000),
        Input::from(&bytes[..]).received_us(5_100_000),
        quote("ETH", 1, 5100),
        quote("ETH", 2, 5050),
        quote("ETH", 3, 5101),
    ]);
    let end = plugin.finish();
    assert_eq!(end.texts(), [r#"{"s":"BTC","p":2}"#, r#"{"s":"ETH","p":3}"#]);
    assert_eq!(end.sent.iter().map(|sent| sent.binary).collect::<Vec<_>>(), [true, false]);
    assert!(plugin.finish().is_empty());
}

#[test]
fn a_snapshot_carries_what_was_sent_and_what_waits() {
    let mut old = throttle(LATEST);
    let _ = old.process([quote("BTC", 1, 5000), quote("BTC", 2, 5100), quote("ETH", 1, 5200)]);
    let snapshot = old.snapshot().unwrap().unwrap();
    let mut new = throttle(LATEST);
    new.restore(&snapshot).unwrap();
    assert_eq!(new.snapshot().unwrap().unwrap(), snapshot);
    assert!(new.process([quote("ETH", 2, 6100)]).is_empty());
    assert_eq!(new.tick(6_000_000).texts(), [r#"{"s":"BTC","p":2}"#]);
    assert!(new.restore(b"{}").is_err());

    let mut sent = Vec::new();
    for number in 0..3 {
        let mut part = throttle(LATEST);
        part.restore_part(std::slice::from_ref(&snapshot), Part { number, of: 3 }).unwrap();
        sent.extend(part.finish().sent);
    }
    assert_eq!(sent.len(), 1, "one instance has what waits");
}

#[test]
fn what_waits_without_a_key_goes_to_the_instance_to_which_the_host_sends_such_messages() {
    let mut old = throttle(LATEST);
    let values = ["null", r#"["A"]"#, r#"{"a":1}"#, r#""\ud83d""#];
    for received_us in [5_000_000, 5_100_000] {
        let _ = old
            .process(values.map(|value| Input::from(format!(r#"{{"s":{value}}}"#)).received_us(received_us)));
    }
    let snapshot = old.snapshot().unwrap().unwrap();
    for number in 0..3 {
        let part = Part { number, of: 3 };
        let mut share = throttle(LATEST);
        share.restore_part(std::slice::from_ref(&snapshot), part).unwrap();
        assert_eq!(share.finish().sent.len(), if part.has("") { 4 } else { 0 });
    }
}

#[test]
fn state_of_other_keys_or_of_another_clock_is_refused_and_says_what_has_changed() {
    let [plain, keyed, timed, other_timed] =
        ["{}", r#"{"key":"/s"}"#, r#"{"time":"/T"}"#, r#"{"time":"/E"}"#];
    let restored = |before: &str, now: &str| {
        let mut old = throttle(before);
        let _ = old.process([r#"{"s":"a","T":1000,"E":1}"#]);
        throttle(now).restore(&old.snapshot().unwrap().unwrap())
    };
    for (before, now, state, configuration) in [
        (plain, keyed, "no `key` and no `time`", r#"`key` = "/s" and no `time`"#),
        (plain, timed, "no `key` and no `time`", r#"no `key` and `time` = "/T""#),
        (timed, plain, r#"no `key` and `time` = "/T""#, "no `key` and no `time`"),
        (timed, other_timed, r#"no `key` and `time` = "/T""#, r#"no `key` and `time` = "/E""#),
    ] {
        let expected = format!(
            "the state has {state}, and the configuration says {configuration}; a transform of another `name` begins \
             without state"
        );
        assert_eq!(restored(before, now), Err(expected));
    }
    let other_rate = r#"{"key":"/s","max":3,"per":"1m","when_over":"latest","max_keys":7}"#;
    assert_eq!(restored(keyed, other_rate), Ok(()));
    assert_eq!(
        throttle(plain).restore(&[2, 0]),
        Err("the state is of form 2, and form 3 is known".to_owned())
    );
}

#[test]
fn a_message_that_waits_outlives_its_key() {
    let mut plugin = throttle(r#"{"max":1,"per":"1s","key":"/s","when_over":"latest","max_keys":1}"#);
    let sent = plugin.process([quote("BTC", 1, 5000), quote("BTC", 2, 5100), quote("ETH", 1, 5200)]);
    assert_eq!(origins(&sent), [Some(0), Some(2)]);
    assert_eq!(plugin.host.counters["keys_forgotten"], 1.0);
    assert_eq!(plugin.tick(5_300_000).texts(), [r#"{"s":"BTC","p":2}"#]);
}

#[test]
fn what_has_no_room_to_wait_is_counted() {
    let mut plugin = throttle(LATEST);
    let large = format!(r#"{{"s":"BTC","p":"{}"}}"#, "x".repeat(5 << 20));
    let _ = plugin.process([quote("BTC", 1, 5000), Input::from(large).received_us(5_000_001)]);
    assert_eq!(plugin.host.counters[WAITING_DROPPED], 1.0);
    assert!(plugin.finish().is_empty());
}

#[test]
fn what_is_not_json_is_rejected() {
    assert_eq!(throttle("{}").process(["ping"]).rejected, [(0, "not JSON (at byte 0)".to_owned())]);
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    for (config, error) in [
        (r#"{"max":0}"#, "`max` must be a whole number of at least 1, got 0"),
        (r#"{"max":1000000}"#, "`max`: 1000000 is too many to remember: take at most 500000"),
        (r#"{"per":"0ms"}"#, "`per` must be longer than 0"),
        (r#"{"per":"1.5us"}"#, "`per` must be whole microseconds, got 1.5µs"),
        (
            r#"{"max":1000,"max_keys":501}"#,
            "`max_keys`: 501 keys of 1000 messages each are too many to remember: take at most 500",
        ),
        (r#"{"when_over":"wait"}"#, "`when_over` must be \"drop\" or \"latest\", got \"wait\""),
        (r#"{"key":"s"}"#, "`key`: \"s\" is not a JSON pointer: it must start with `/`, like \"/s\""),
    ] {
        assert_eq!(Harness::<Throttle>::try_new(config).err().as_deref(), Some(error));
    }
}

proptest! {
    /// What is sent, by a message or by the timer, keeps to the rate, and the newest of each key is sent in the end.
    #[test]
    fn the_newest_comes_through_and_the_rate_is_kept(
        steps in prop::collection::vec((0..3u8, 0..40u64, any::<bool>()), 1..100),
        max in 1..4usize,
        per_ms in 10..60u64,
    ) {
        let config = format!(r#"{{"max":{max},"per":"{per_ms}ms","key":"/s","when_over":"latest"}}"#);
        let mut plugin = throttle(&config);
        let mut now_ms = 1;
        let mut newest = std::collections::BTreeMap::new();
        let mut sent: Vec<(u64, serde_json::Value)> = Vec::new();
        for (number, (key, after_ms, is_tick)) in steps.into_iter().enumerate() {
            now_ms += after_ms;
            let processed = if is_tick {
                plugin.tick(now_ms * 1000)
            } else {
                newest.insert(key.to_string(), number as u64);
                plugin.process([quote(&key.to_string(), number as u32, now_ms)])
            };
            let texts = processed.texts().into_iter();
            sent.extend(texts.map(|text| (now_ms, serde_json::from_str(text).unwrap())));
        }
        let last_ms = now_ms + per_ms;
        sent.extend(
            plugin.tick(last_ms * 1000).texts().into_iter().map(|text| (last_ms, serde_json::from_str(text).unwrap())),
        );
        prop_assert!(plugin.finish().is_empty());
        for (key, number) in newest {
            let own: Vec<_> = sent.iter().filter(|(_, message)| message["s"] == key.as_str()).collect();
            prop_assert!(own.is_sorted_by_key(|(_, message)| message["p"].as_u64()));
            prop_assert_eq!(own.last().and_then(|(_, message)| message["p"].as_u64()), Some(number));
            prop_assert!(own.windows(max + 1).all(|row| row[max].0 - row[0].0 >= per_ms));
        }
    }
}
