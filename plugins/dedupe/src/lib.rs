//! Filters messages whose key was forwarded before, for ever or less than `within` ago.
//!
//! A key is what a message has at the pointers of `by`, or the whole payload. A message that has none of the
//! fields has no key and goes on. The keys of `max_keys` messages are remembered, long ones as their SHA-256;
//! those that were seen longest ago are forgotten, which `tidemill_guest_keys_forgotten_total` counts. What is not
//! JSON is rejected.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::time::Duration;
use tidemill_plugin::event_time::MessageTime;
use tidemill_plugin::keyed::Keyed;
use tidemill_plugin::{Description, Json, Message, Out, Part, Plugin, Result, binary, duration, export};

export!(Dedupe);

/// Keys that are remembered, if nothing is said.
const MAX_KEYS: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();
/// Longer keys, in bytes, are remembered as their digest, which is as long in hexadecimal digits.
const MAX_KEY_BYTES: usize = 64;
/// The form of snapshots. The one before did not say what its keys and times were.
const FORM: u8 = 2;
/// The time of a key that was forwarded while times did not matter.
const SOME_TIME: i64 = i64::MIN;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    by: Vec<String>,
    #[serde(default, with = "tidemill_plugin::duration::optional")]
    within: Option<Duration>,
    time: Option<String>,
    #[serde(default = "max_keys")]
    max_keys: NonZeroUsize,
}

fn max_keys() -> NonZeroUsize {
    MAX_KEYS
}

struct Dedupe {
    /// None: the whole payload.
    by: Vec<Json>,
    within: Option<Within>,
    /// When each key was forwarded last, in microseconds since the Unix epoch; none before it is.
    forwarded_us: Keyed<Option<i64>>,
    meaning: Meaning,
    /// The key of the message in hand.
    key: String,
}

/// How keys and their times are to be read, in the words of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Meaning {
    by: String,
    /// None where times do not matter.
    time: Option<String>,
}

/// For how long a key is remembered.
struct Within {
    us: i64,
    time: MessageTime,
}

impl Plugin for Dedupe {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        description.only_json();
        if !config.by.is_empty() {
            description.without_payloads();
        }
        let time =
            config.time.as_ref().map_or_else(|| "no `time`".to_owned(), |time| format!("`time` = {time:?}"));
        let meaning =
            Meaning { by: format!("`by` = {:?}", config.by), time: config.within.is_some().then_some(time) };
        let pointers = config.by.iter().enumerate();
        let by = pointers
            .map(|(nth, pointer)| description.json(pointer).map_err(|error| format!("`by[{nth}]`: {error}")));
        let by = by.collect::<Result<_, _>>()?;
        let within = match config.within {
            None => None,
            Some(Duration::ZERO) => {
                return Err("`within` must be longer than 0: leave it out for ever".into());
            }
            Some(within) => Some(Within {
                us: duration::microseconds("within", within)?,
                time: MessageTime::compile(config.time.as_deref(), description)?,
            }),
        };
        let forwarded_us = Keyed::new(config.max_keys.get());
        Ok(Self { by, within, forwarded_us, meaning, key: String::new() })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        if !self.read_key(message) {
            out.forward();
            return Ok(());
        }
        let (now_us, within_us) = match &self.within {
            None => (SOME_TIME, None),
            Some(within) => (within.time.of(message)?, Some(within.us)),
        };
        let forwarded_us = self.forwarded_us.get_or_insert_with(&self.key, || None);
        let is_new = match (*forwarded_us, within_us) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(SOME_TIME), Some(_)) => {
                // From now on it is remembered for as long as the others.
                *forwarded_us = Some(now_us);
                false
            }
            (Some(forwarded_us), Some(within_us)) => now_us.saturating_sub(forwarded_us) >= within_us,
        };
        if is_new {
            *forwarded_us = Some(now_us);
            out.forward();
        }
        self.forwarded_us.forget_surplus();
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>> {
        binary::encode(FORM, &(&self.meaning, &self.forwarded_us)).map(Some)
    }

    /// Each instance remembers what all have forwarded: whatever messages are shared out by, its own are among it.
    fn restore_part(&mut self, snapshots: &[Vec<u8>], _: Part) -> Result {
        let before: Vec<(Meaning, Keyed<Option<i64>>)> = binary::decode_all(FORM, snapshots)?;
        for (meaning, _) in &before {
            self.meaning.check(meaning)?;
        }
        let before = before.into_iter().map(|(_, forwarded_us)| forwarded_us);
        self.forwarded_us.restore(before, Part { number: 0, of: 1 });
        if self.within.is_none() {
            // A later configuration may have times of another clock.
            self.forwarded_us.for_each_while(|_, forwarded_us| {
                *forwarded_us = Some(SOME_TIME);
                Ok(true)
            })?;
        }
        Ok(())
    }
}

impl Meaning {
    /// # Errors
    /// The state has other keys, or times of another clock; the text says what has changed.
    fn check(&self, state: &Self) -> Result {
        if state.by != self.by {
            return Err(binary::other_meaning(&state.by, &self.by));
        }
        match (&state.time, &self.time) {
            (Some(state), Some(own)) if state != own => Err(binary::other_meaning(state, own)),
            _ => Ok(()),
        }
    }
}

impl Dedupe {
    /// Reads the key of a message. False if it has none.
    fn read_key(&mut self, message: Message<'_>) -> bool {
        self.key.clear();
        let mut has_one = self.by.is_empty();
        if has_one {
            self.key.push_str(message.as_text().unwrap_or_default());
        }
        for &field in &self.by {
            let value = message.get(field);
            has_one |= value.is_some();
            // With their lengths, so that no two lists of values make one key.
            match (value, value.and_then(|value| value.string())) {
                (None, _) => self.key.push('-'),
                (Some(_), Some(text)) => {
                    write!(self.key, "{}\"{text}", text.len()).expect("a string takes what is written");
                }
                (Some(value), None) => {
                    let json = String::from_utf8_lossy(value.raw());
                    write!(self.key, "{}:{json}", json.len()).expect("a string takes what is written");
                }
            }
        }
        if self.key.len() > MAX_KEY_BYTES {
            self.key = Sha256::digest(&self.key).iter().map(|byte| format!("{byte:02x}")).collect();
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use tidemill_plugin::testing::{Harness, Input};

    fn dedupe(config: &str) -> Harness<Dedupe> {
        Harness::try_new(config).unwrap()
    }

    #[test]
    fn without_a_configuration_a_payload_goes_on_once() {
        let mut plugin = dedupe("{}");
        assert_eq!(plugin.process(["1", "2", "1", "1 ", "2"]).texts(), ["1", "2", "1 "]);
        let long = format!("[{}]", "1,".repeat(1000) + "1");
        let longer = format!("[{}]", "1,".repeat(1000) + "2");
        assert_eq!(plugin.process([long.as_str(), &longer, &long]).texts(), [&long, &longer]);
    }

    #[test]
    fn keys_are_compared_by_what_they_say_and_by_their_kind() {
        let messages = [
            r#"{"a":"x","b":1}"#,
            r#"{"b":1,"a":"\u0078","more":true}"#,
            r#"{"a":"x","b":"1"}"#,
            r#"{"a":"x"}"#,
            r#"{"a":"x","b":null}"#,
            r#"{"b":1}"#,
            r#"{"a":"x1","b":""}"#,
            r#"{"a":"x","b":"1"}"#,
        ];
        let sent = dedupe(r#"{"by":["/a","/b"]}"#).process(messages);
        let expected: Vec<&str> = [0, 2, 3, 4, 5, 6].map(|nth| messages[nth]).into();
        assert_eq!(sent.texts(), expected);
    }

    #[test]
    fn what_has_no_key_goes_on() {
        let sent = dedupe(r#"{"by":["/a","/b"]}"#).process(["{}", "{}", "[]", "7"]);
        assert!(sent.forwarded_all);
    }

    #[test]
    fn a_key_goes_on_again_once_the_time_is_over() {
        let mut plugin = dedupe(r#"{"by":["/a"],"within":"1s","time":"/T"}"#);
        let at = |time: &str| format!(r#"{{"a":1,"T":{time}}}"#);
        let messages = ["5000", "5999.9", "\"6000\"", "5500", "6999", "7000"].map(at);
        assert_eq!(plugin.process(messages.clone()).texts(), [&messages[0], &messages[2], &messages[5]]);
        let rejected = plugin.process([r#"{"a":1}"#, r#"{"a":1,"T":"x"}"#]).rejected;
        let reasons: Vec<&str> = rejected.iter().map(|(_, reason)| reason.as_str()).collect();
        assert_eq!(reasons, ["the message has no time", "the time is no number"]);
        let at = |received_us| Input::from("1").received_us(received_us);
        let mut plugin = dedupe(r#"{"within":"1s"}"#);
        assert_eq!(plugin.process([at(7), at(1_000_006), at(1_000_007)]).sent[1].origin, Some(2));
        let mut plugin = dedupe(r#"{"within":"500us"}"#);
        assert_eq!(plugin.process([at(7), at(506), at(507)]).sent[1].origin, Some(2));
    }

    #[test]
    fn keys_are_forgotten_when_there_are_too_many() {
        let mut plugin = dedupe(r#"{"max_keys":2}"#);
        assert_eq!(plugin.process(["1", "2", "1", "3", "2", "1"]).texts(), ["1", "2", "3", "2", "1"]);
        assert_eq!(plugin.host.counters["keys_forgotten"], 3.0);
    }

    #[test]
    fn every_instance_goes_on_with_what_all_have_forwarded() {
        let snapshots = ["1", "2"].map(|message| {
            let mut plugin = dedupe("{}");
            let _ = plugin.process([message]);
            plugin.snapshot().unwrap().unwrap()
        });
        for number in 0..3 {
            let mut plugin = dedupe("{}");
            plugin.restore_part(&snapshots, Part { number, of: 3 }).unwrap();
            assert_eq!(plugin.process(["1", "2", "3"]).texts(), ["3"]);
        }
    }

    #[test]
    fn what_was_forwarded_for_ever_is_known_when_it_is_to_be_known_for_a_time() {
        let [ever, hour] = ["{}", r#"{"within":"1h"}"#];
        let at = |message: &str, minute: u64| Input::from(message).received_us(minute * 60_000_000);
        let carry = |old: &mut Harness<Dedupe>, config: &str| {
            let mut new = dedupe(config);
            new.restore(&old.snapshot().unwrap().unwrap()).unwrap();
            new
        };
        let mut plugin = dedupe(ever);
        let _ = plugin.process([at("1", 0), at("2", 0)]);
        let mut plugin = carry(&mut plugin, hour);
        let sent = plugin.process([at("1", 600), at("3", 600), at("1", 659), at("1", 660), at("3", 660)]);
        assert_eq!(sent.texts(), ["3", "1", "3"]);
        let mut plugin = carry(&mut plugin, ever);
        assert_eq!(
            plugin.process([at("1", 9000), at("2", 9000), at("3", 9000), at("4", 9000)]).texts(),
            ["4"]
        );
    }

    #[test]
    fn state_of_other_keys_or_of_another_clock_is_refused_and_says_what_has_changed() {
        let restored = |before: &str, now: &str| {
            let mut old = dedupe(before);
            let _ = old.process([r#"{"a":1,"T":1000}"#]);
            dedupe(now).restore(&old.snapshot().unwrap().unwrap())
        };
        let [payload, a, b] = ["{}", r#"{"by":["/a"]}"#, r#"{"by":["/b"]}"#];
        let [receipt, event, other_event] =
            [r#"{"within":"1h"}"#, r#"{"within":"1h","time":"/T"}"#, r#"{"within":"1h","time":"/a"}"#];
        for (before, now, state, configuration) in [
            (a, b, r#"`by` = ["/a"]"#, r#"`by` = ["/b"]"#),
            (payload, a, "`by` = []", r#"`by` = ["/a"]"#),
            (receipt, event, "no `time`", r#"`time` = "/T""#),
            (event, receipt, r#"`time` = "/T""#, "no `time`"),
            (event, other_event, r#"`time` = "/T""#, r#"`time` = "/a""#),
        ] {
            let expected = format!(
                "the state has {state}, and the configuration says {configuration}; a transform of another `name` \
                 begins without state"
            );
            assert_eq!(restored(before, now), Err(expected));
        }
        for (before, now) in [(payload, event), (event, payload), (event, r#"{"within":"1s","time":"/T"}"#)] {
            assert_eq!(restored(before, now), Ok(()));
        }
        assert_eq!(
            dedupe(payload).restore(&[1, 0]),
            Err("the state is of form 1, and form 2 is known".to_owned())
        );
    }

    #[test]
    fn times_of_one_clock_do_not_count_by_another_after_a_while_without_any() {
        let at = |time_ms: u64| Input::from(r#"{"a":1,"T":1000}"#).received_us(time_ms * 1000);
        let mut plugin = dedupe(r#"{"within":"1s"}"#);
        let _ = plugin.process([at(1_000_000)]);
        for config in ["{}", r#"{"within":"1s","time":"/T"}"#] {
            let snapshot = plugin.snapshot().unwrap().unwrap();
            plugin = dedupe(config);
            plugin.restore(&snapshot).unwrap();
        }
        let later = r#"{"a":1,"T":2000}"#;
        assert!(plugin.process([r#"{"a":1,"T":1000}"#]).is_empty());
        assert!(!plugin.process([later]).is_empty());
    }

    #[test]
    fn what_is_not_json_is_rejected() {
        assert_eq!(dedupe("{}").process(["ping"]).rejected, [(0, "not JSON (at byte 0)".to_owned())]);
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        for (config, error) in [
            (r#"{"within":"soon"}"#, r#"`within` must be a duration such as "250ms" or "10s", got "soon""#),
            (r#"{"within":"0ms"}"#, "`within` must be longer than 0: leave it out for ever"),
            (r#"{"within":"7ns"}"#, "`within` must be whole microseconds, got 7ns"),
            (
                r#"{"by":["/a","b"]}"#,
                "`by[1]`: \"b\" is not a JSON pointer: it must start with `/`, like \"/b\"",
            ),
            (
                r#"{"within":"1s","time":"T"}"#,
                "`time`: \"T\" is not a JSON pointer: it must start with `/`, like \"/T\"",
            ),
            (r#"{"by":"/a"}"#, "`by` must be a list, got a string"),
        ] {
            assert_eq!(Harness::<Dedupe>::try_new(config).err().as_deref(), Some(error));
        }
    }

    proptest! {
        #[test]
        fn it_does_what_a_list_of_all_that_was_forwarded_does(
            messages in prop::collection::vec((0..5u8, 0..40i64), 1..80),
            within in 1..20i64,
        ) {
            let mut plugin = dedupe(&format!(r#"{{"by":["/a"],"time":"/T","within":"{within}ms"}}"#));
            let sent = plugin.process(messages.iter().map(|(key, time)| format!(r#"{{"a":{key},"T":{time}}}"#)));
            let mut last = BTreeMap::new();
            let expected = messages.iter().enumerate().filter(|(_, (key, time))| {
                let is_new = last.get(key).is_none_or(|last| time - last >= within);
                if is_new {
                    last.insert(*key, *time);
                }
                is_new
            });
            let expected: Vec<_> = expected.map(|(at, _)| Some(at)).collect();
            prop_assert_eq!(sent.sent.iter().map(|sent| sent.origin).collect::<Vec<_>>(), expected);
        }
    }
}
