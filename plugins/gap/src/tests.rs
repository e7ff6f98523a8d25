//! The plugin as the host sees it.

use super::*;
use proptest::prelude::*;
use tidemill_plugin::testing::{Harness, Input, Processed};

fn gap(config: &str) -> Harness<Gap> {
    Harness::try_new(config).unwrap()
}

fn input(connection: &str, message: &str) -> Input {
    Input::from(message).with("__meta_connection", connection)
}

fn numbers(plugin: &mut Harness<Gap>, connection: &str, numbers: impl IntoIterator<Item = i64>) -> Processed {
    plugin.process(numbers.into_iter().map(|number| input(connection, &format!(r#"{{"u":{number}}}"#))))
}

#[test]
fn what_is_missing_is_counted_and_marked() {
    let mut plugin = gap(r#"{"mark":"/missing"}"#);
    assert!(plugin.outputs().is_empty());
    let processed = numbers(&mut plugin, "a", [1, 2, 5, 6, 8]);
    assert_eq!(
        processed.texts(),
        [r#"{"u":1}"#, r#"{"u":2}"#, r#"{"u":5,"missing":2}"#, r#"{"u":6}"#, r#"{"u":8,"missing":1}"#]
    );
    assert_eq!(plugin.host.counters[MISSING], 3.0);
}

#[test]
fn a_range_begins_where_the_one_before_ends_or_inside_it() {
    let mut plugin = gap(r#"{"sequence":"/u","first":"/U","mark":"/missing"}"#);
    let processed = plugin.process([
        r#"{"U":1,"u":"10"}"#,
        r#"{"U":"11","u":12}"#,
        r#"{"U":9,"u":14}"#,
        r#"{"U":16,"u":20}"#,
        r#"{"U":15,"u":15}"#,
        r#"{"u":21}"#,
        r#"{"U":21.5,"u":22}"#,
        r#"{"U":22,"u":"x"}"#,
    ]);
    assert_eq!(processed.texts()[3..], [r#"{"U":16,"u":20,"missing":1}"#, r#"{"U":15,"u":15}"#]);
    let reasons: Vec<_> = processed.rejected.iter().map(|(nth, reason)| (*nth, reason.as_str())).collect();
    assert_eq!(
        reasons,
        [
            (5, "the message has no first number"),
            (6, "the first number is no whole number"),
            (7, "the sequence is no whole number")
        ]
    );
}

#[test]
fn a_number_is_the_same_however_it_is_written() {
    let mut plugin = gap(r#"{"first":"/U","mark":"/missing"}"#);
    let messages = [
        r#"{"U":1,"u":7.0}"#,
        r#"{"U":"8","u":"8.00"}"#,
        r#"{"U":9e0,"u":0.9e1}"#,
        r#"{"U":"\u0031\u0030","u":9007199254740993.0}"#,
        r#"{"U":9007199254740994,"u":"9007199254740994"}"#,
    ];
    assert_eq!(plugin.process(messages).texts(), messages);
    assert!(!plugin.host.counters.contains_key(MISSING));
    let no_numbers = [r#"{"U":1,"u":7.5}"#, r#"{"U":1,"u":1e400}"#, r#"{"U":1,"u":9223372036854775808}"#];
    let rejected = plugin.process(no_numbers).rejected;
    assert!(rejected.iter().all(|(_, reason)| reason == "the sequence is no whole number"), "{rejected:?}");
    assert_eq!(rejected.len(), no_numbers.len());
}

#[test]
fn a_range_that_ends_before_it_begins_is_rejected_and_changes_nothing() {
    let mut plugin = gap(r#"{"first":"/U","mark":"/missing"}"#);
    let processed =
        plugin.process([r#"{"U":1,"u":5}"#, r#"{"U":90,"u":60}"#, r#"{"U":6,"u":5}"#, r#"{"U":6,"u":6}"#]);
    assert_eq!(processed.texts(), [r#"{"U":1,"u":5}"#, r#"{"U":6,"u":6}"#]);
    let behind = |first, last| format!("the first number is {first}, which is behind the last, {last}");
    assert_eq!(processed.rejected, [(1, behind(90, 60)), (2, behind(6, 5))]);
    assert!(!plugin.host.counters.contains_key(MISSING));
}

#[test]
fn each_key_has_numbers_of_its_own_and_what_has_none_passes() {
    let mut plugin = gap(r#"{"key":"/s","mark":"/missing"}"#);
    let messages = [
        r#"{"s":"a","u":1}"#,
        r#"{"s":"b","u":7}"#,
        r#"{"result":null}"#,
        r#"{"u":3}"#,
        r#"{"s":"a","u":2}"#,
    ];
    let processed = plugin.process(messages);
    assert!(processed.forwarded_all);
    assert_eq!(processed.texts(), messages);
    assert!(!plugin.host.counters.contains_key(MISSING));
}

#[test]
fn what_is_old_passes_or_is_dropped() {
    for (old, passed) in [("pass", vec![5, 4, 5, 6]), ("drop", vec![5, 6])] {
        let mut plugin = gap(&format!(r#"{{"old":"{old}"}}"#));
        let processed = numbers(&mut plugin, "a", [5, 4, 5, 6]);
        let expected: Vec<_> = passed.iter().map(|number| format!(r#"{{"u":{number}}}"#)).collect();
        assert_eq!(processed.texts(), expected);
        assert!(!plugin.host.counters.contains_key(MISSING), "{old}");
    }
}

#[test]
fn a_new_connection_goes_on_or_begins_anew() {
    let mut plugin = gap(r#"{"mark":"/missing"}"#);
    let _ = numbers(&mut plugin, "a", [8, 9]);
    assert_eq!(numbers(&mut plugin, "b", [12, 13]).texts(), [r#"{"u":12,"missing":2}"#, r#"{"u":13}"#]);
    assert_eq!(
        numbers(&mut plugin, "c", [1, 2, 4]).texts(),
        [r#"{"u":1}"#, r#"{"u":2}"#, r#"{"u":4,"missing":1}"#]
    );
    let mut dropping = gap(r#"{"old":"drop"}"#);
    let _ = numbers(&mut dropping, "a", [8, 9]);
    assert_eq!(numbers(&mut dropping, "b", [8, 9, 10]).texts(), [r#"{"u":10}"#]);
}

#[test]
fn a_gap_closes_its_connection_once_and_never_the_next_one_for_what_was_missed_between() {
    let mut plugin = gap(r#"{"reconnect":true}"#);
    assert_eq!(plugin.outputs(), ["control"]);
    let closed = |processed: &Processed| -> Vec<String> {
        let control = processed.sent.iter().filter(|sent| sent.output == "control");
        control
            .map(|sent| {
                assert!(sent.bytes.is_empty());
                sent.metadata["__meta_close"].clone()
            })
            .collect()
    };
    assert_eq!(closed(&numbers(&mut plugin, "a", [1, 4, 9])), ["4000 2 missing before 4"]);
    assert!(closed(&numbers(&mut plugin, "b", [20, 21])).is_empty());
    assert_eq!(closed(&numbers(&mut plugin, "b", [23, 25])), ["4000 1 missing before 23"]);
    assert_eq!(plugin.host.counters[MISSING], 2.0 + 4.0 + 10.0 + 1.0 + 1.0);
}

#[test]
fn keys_beyond_the_most_are_forgotten_and_counted() {
    let mut plugin = gap(r#"{"key":"/s","max_keys":2,"mark":"/missing"}"#);
    let message = |key: &str, number: u32| format!(r#"{{"s":"{key}","u":{number}}}"#);
    let processed =
        plugin.process([message("a", 1), message("b", 1), message("c", 1), message("a", 9), message("c", 9)]);
    assert_eq!(processed.texts()[3..], [message("a", 9), r#"{"s":"c","u":9,"missing":7}"#.to_owned()]);
    assert_eq!(plugin.host.counters["keys_forgotten"], 2.0);
}

#[test]
fn numbers_are_carried_over_a_swap_and_shared_out() {
    let mut old = gap(r#"{"key":"/s"}"#);
    let message = |key: &str, number: u32| format!(r#"{{"s":"{key}","u":{number}}}"#);
    let _ = old.process(["a", "b", "c"].map(|key| message(key, 1)));
    let snapshot = old.snapshot().unwrap().unwrap();
    let mut found = 0.0;
    for number in 0..2 {
        let mut new = gap(r#"{"key":"/s"}"#);
        new.restore_part(std::slice::from_ref(&snapshot), Part { number, of: 2 }).unwrap();
        let _ = new.process(["a", "b", "c"].map(|key| message(key, 3)));
        found += new.host.counters[MISSING];
    }
    assert_eq!(found, 3.0);
    assert!(gap("{}").restore(b"{}").is_err());
}

#[test]
fn state_of_another_feed_is_refused_and_says_what_has_changed() {
    let mut old = gap("{}");
    let _ = numbers(&mut old, "a", [1000]);
    let snapshot = old.snapshot().unwrap().unwrap();
    for (now, configuration) in [
        (r#"{"sequence":"/seq"}"#, r#"`sequence` = "/seq" and no `key`"#),
        (r#"{"key":"/s"}"#, r#"`sequence` = "/u" and `key` = "/s""#),
        (
            r#"{"key":"metadata:__meta_connection"}"#,
            r#"`sequence` = "/u" and `key` = "metadata:__meta_connection""#,
        ),
    ] {
        let expected = format!(
            "the state has `sequence` = \"/u\" and no `key`, and the configuration says {configuration}; a transform of \
             another `name` begins without state"
        );
        assert_eq!(gap(now).restore(&snapshot), Err(expected));
    }
    let more = r#"{"first":"/U","mark":"/missing","old":"drop","reconnect":true,"max_keys":7}"#;
    assert_eq!(gap(more).restore(&snapshot), Ok(()));
    assert_eq!(gap("{}").restore(&[1, 0]), Err("the state is of form 1, and form 2 is known".to_owned()));
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    for (config, error) in [
        (
            r#"{"sequence":"u"}"#,
            "`sequence`: \"u\" is not a JSON pointer: it must start with `/`, like \"/u\"",
        ),
        (r#"{"first":"U"}"#, "`first`: \"U\" is not a JSON pointer: it must start with `/`, like \"/U\""),
        (r#"{"key":"s"}"#, "`key`: \"s\" is not a JSON pointer: it must start with `/`, like \"/s\""),
        (r#"{"mark":""}"#, "`mark`: \"\" is the whole message, and a member is meant, like \"/missing\""),
        (r#"{"mark":"/u"}"#, r#"`mark` "/u" would overwrite `sequence` "/u": give it another name"#),
        (
            r#"{"mark":"/d","sequence":"/d/u"}"#,
            r#"`mark` "/d" would overwrite `sequence` "/d/u": give it another name"#,
        ),
        (
            r#"{"first":"/U","mark":"/U"}"#,
            r#"`mark` "/U" would overwrite `first` "/U": give it another name"#,
        ),
        (r#"{"key":"/s","mark":"/s"}"#, r#"`mark` "/s" would overwrite `key` "/s": give it another name"#),
        (
            r#"{"first":"/u"}"#,
            r#"`first` and `sequence` are both "/u": leave `first` out where a message has one number"#,
        ),
        (r#"{"max_keys":0}"#, "`max_keys` must be more than 0"),
    ] {
        assert_eq!(Harness::<Gap>::try_new(config).err().as_deref(), Some(error));
    }
    let _ = gap(r#"{"mark":"/user","key":"metadata:/user"}"#);
    let _ = gap(r#"{"mark":"/u/missing","sequence":"/un"}"#);
}

proptest! {
    #[test]
    fn what_is_missing_is_what_a_set_has_not(steps in prop::collection::vec(1..4i64, 1..50)) {
        let mut plugin = gap("{}");
        let mut number = 0;
        let sent: Vec<i64> = steps.iter().map(|step| { number += step; number }).collect();
        let _ = numbers(&mut plugin, "a", sent.iter().copied());
        let missing = (sent[0]..=number).filter(|number| !sent.contains(number)).count();
        prop_assert_eq!(plugin.host.counters.get(MISSING).copied().unwrap_or(0.0), missing as f64);
    }
}
