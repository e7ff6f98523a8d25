//! Forwards a part of the messages: of each key the first and then every Nth, or each with a probability.
//!
//! The counts are kept for `max_keys` keys. One that was forgotten, which `tidemill_guest_keys_forgotten_total`
//! counts, begins anew. What is not JSON is rejected.

use serde::Deserialize;
use std::num::{NonZeroU64, NonZeroUsize};
use tidemill_plugin::keyed::{Key, Keyed};
use tidemill_plugin::{Description, Message, Out, Part, Plugin, Result, binary, export, random};

export!(Sample);

/// Every how many messages one goes on, if nothing is said.
const EVERY: NonZeroU64 = NonZeroU64::new(10).unwrap();
/// Keys that are counted, if nothing is said.
const MAX_KEYS: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();
/// The form of snapshots. The one before did not say what its keys were.
const FORM: u8 = 2;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    every: Option<NonZeroU64>,
    share: Option<f64>,
    key: Option<String>,
    #[serde(default = "max_keys")]
    max_keys: NonZeroUsize,
}

fn max_keys() -> NonZeroUsize {
    MAX_KEYS
}

enum Sample {
    /// Of so many messages of a key the first; how many there were since.
    Every {
        every: u64,
        key: Key,
        counts: Keyed<u64>,
        /// What the counts are of, in the words of the configuration.
        meaning: String,
    },
    /// Each with this probability.
    Share(f64),
}

impl Plugin for Sample {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        description.only_json();
        description.without_payloads();
        let Some(share) = config.share else {
            let key = config.key.as_ref();
            return Ok(Self::Every {
                meaning: key.map_or_else(|| "no `key`".to_owned(), |key| format!("`key` = {key:?}")),
                every: config.every.unwrap_or(EVERY).get(),
                key: Key::compile("`key`", config.key, description)?,
                counts: Keyed::new(config.max_keys.get()),
            });
        };
        if let Some(every) = config.every {
            return Err(
                format!("`every` = {every} and `share` = {share} exclude each other: leave one out").into()
            );
        }
        if let Some(key) = config.key {
            return Err(format!(
                "`key` = {key:?} goes with `every`: `share` takes each message by chance, so leave `key` out"
            )
            .into());
        }
        if !(0.0..=1.0).contains(&share) {
            return Err(
                format!("`share`: {share} is not between 0 and 1: take 0.1 for every tenth message").into()
            );
        }
        Ok(Self::Share(share))
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        let goes_on = match self {
            Self::Every { every, key, counts, .. } => {
                // A message without it has the key "", as for the `key` of a transform.
                let key = key.of(message)?.unwrap_or_default();
                let count = counts.get_or_insert_with(&key, || 0);
                let is_first = *count == 0;
                // A snapshot may come from a larger `every`.
                *count = if *count + 1 >= *every { 0 } else { *count + 1 };
                counts.forget_surplus();
                is_first
            }
            Self::Share(share) => random::next() < *share,
        };
        if goes_on {
            out.forward();
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>> {
        match self {
            Self::Every { counts, meaning, .. } => binary::encode(FORM, &(meaning, counts)).map(Some),
            Self::Share(_) => Ok(None),
        }
    }

    fn restore_part(&mut self, snapshots: &[Vec<u8>], part: Part) -> Result {
        let Self::Every { counts, meaning, .. } = self else { return Ok(()) };
        let before: Vec<(String, Keyed<u64>)> = binary::decode_all(FORM, snapshots)?;
        if let Some((other, _)) = before.iter().find(|(other, _)| other != meaning) {
            return Err(binary::other_meaning(other, meaning));
        }
        counts.restore(before.into_iter().map(|(_, counts)| counts), part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use tidemill_plugin::testing::{Harness, Input};

    fn sample(config: &str) -> Harness<Sample> {
        Harness::try_new(config).unwrap()
    }

    fn numbered(count: usize) -> Vec<String> {
        (0..count).map(|number| number.to_string()).collect()
    }

    #[test]
    fn without_a_configuration_the_first_of_ten_goes_on() {
        let processed = sample("{}").process(numbered(21));
        assert_eq!(processed.texts(), ["0", "10", "20"]);
    }

    #[test]
    fn keys_are_fields_or_metadata_and_are_compared_by_what_they_say() {
        let messages =
            [r#"{"s":"\u0042","n":1}"#, r#"{"s":"B","n":2}"#, r#"{"n":3}"#, r#"{"n":4}"#, r#"{"s":7}"#];
        let sent = sample(r#"{"every":2,"key":"/s"}"#).process(messages);
        assert_eq!(sent.texts(), [messages[0], messages[2], messages[4]]);
        let of_room = |text: &str, room: &str| Input::from(text).with("room", room);
        let sent = sample(r#"{"every":2,"key":"metadata:room"}"#).process([
            of_room("1", "a"),
            of_room("2", "b"),
            of_room("3", "a"),
            of_room("4", "a"),
        ]);
        assert_eq!(sent.texts(), ["1", "2", "4"]);
    }

    #[test]
    fn a_share_is_drawn_by_the_hosts_numbers() {
        let drawn = |seed| {
            let mut plugin = sample(r#"{"share":0.25}"#);
            plugin.host.seed = seed;
            plugin.process(numbered(10_000)).sent.len()
        };
        assert!((2_300..2_700).contains(&drawn(1)), "{}", drawn(1));
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        assert!(sample(r#"{"share":0}"#).process(numbered(100)).is_empty());
        assert!(sample(r#"{"share":1}"#).process(numbered(100)).forwarded_all);
    }

    #[test]
    fn counts_go_on_after_a_swap_also_with_a_smaller_number() {
        let mut old = sample(r#"{"every":10,"key":"/s"}"#);
        assert_eq!(old.process(vec![r#"{"s":1}"#; 9]).sent.len(), 1);
        let snapshot = old.snapshot().unwrap().unwrap();
        let mut same = sample(r#"{"every":10,"key":"/s"}"#);
        same.restore(&snapshot).unwrap();
        assert_eq!(same.process(vec![r#"{"s":1}"#; 2]).sent[0].origin, Some(1));
        let mut smaller = sample(r#"{"every":2,"key":"/s"}"#);
        smaller.restore(&snapshot).unwrap();
        assert_eq!(smaller.process(vec![r#"{"s":1}"#; 2]).sent[0].origin, Some(1));
    }

    #[test]
    fn counts_of_other_keys_are_refused_and_say_what_has_changed() {
        let [plain, keyed, other] = ["{}", r#"{"key":"/s"}"#, r#"{"key":"metadata:room"}"#];
        let restored = |before: &str, now: &str| {
            let mut old = sample(before);
            let _ = old.process([r#"{"s":1}"#]);
            sample(now).restore(&old.snapshot().unwrap().unwrap())
        };
        for (before, now, state, configuration) in [
            (plain, keyed, "no `key`", r#"`key` = "/s""#),
            (keyed, plain, r#"`key` = "/s""#, "no `key`"),
            (keyed, other, r#"`key` = "/s""#, r#"`key` = "metadata:room""#),
        ] {
            let expected = format!(
                "the state has {state}, and the configuration says {configuration}; a transform of another `name` \
                 begins without state"
            );
            assert_eq!(restored(before, now), Err(expected));
        }
        assert_eq!(restored(keyed, r#"{"share":0.5}"#), Ok(()));
        assert_eq!(
            sample(plain).restore(&[1, 0]),
            Err("the state is of form 1, and form 2 is known".to_owned())
        );
    }

    #[test]
    fn a_key_beyond_the_most_is_counted_and_begins_anew() {
        let mut plugin = sample(r#"{"every":3,"key":"","max_keys":2}"#);
        let sent = plugin.process(["1", "2", "1", "3", "2", "1"]);
        assert_eq!(sent.texts(), ["1", "2", "3", "2", "1"]);
        assert_eq!(plugin.host.counters["keys_forgotten"], 3.0);
    }

    #[test]
    fn what_is_not_json_is_rejected() {
        assert_eq!(sample("{}").process(["ping"]).rejected, [(0, "not JSON (at byte 0)".to_owned())]);
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        for (config, error) in [
            (r#"{"every":0}"#, "`every` must be a whole number of at least 1, got 0"),
            (r#"{"every":1.5}"#, "`every` must be a whole number, got 1.5"),
            (r#"{"share":1.5}"#, "`share`: 1.5 is not between 0 and 1: take 0.1 for every tenth message"),
            (r#"{"share":0.5,"every":2}"#, "`every` = 2 and `share` = 0.5 exclude each other: leave one out"),
            (
                r#"{"share":0.5,"key":"/s"}"#,
                "`key` = \"/s\" goes with `every`: `share` takes each message by chance, so leave `key` out",
            ),
            (r#"{"key":"s"}"#, "`key`: \"s\" is not a JSON pointer: it must start with `/`, like \"/s\""),
            (r#"{"max_keys":0}"#, "`max_keys` must be a whole number of at least 1, got 0"),
            (r#"{"evry":2}"#, "unknown key `evry`: did you mean `every`?"),
        ] {
            assert_eq!(Harness::<Sample>::try_new(config).err().as_deref(), Some(error));
        }
    }

    proptest! {
        #[test]
        fn of_each_key_the_first_and_every_nth_go_on(
            keys in prop::collection::vec(0..4u8, 1..60),
            every in 1..6usize,
        ) {
            let mut plugin = sample(&format!(r#"{{"every":{every},"key":""}}"#));
            let sent = plugin.process(keys.iter().map(|key| key.to_string()));
            let mut seen = BTreeMap::new();
            let expected = keys.iter().enumerate().filter(|(_, key)| {
                let count = seen.entry(**key).or_insert(0);
                *count += 1;
                (*count - 1) % every == 0
            });
            let expected: Vec<_> = expected.map(|(at, _)| Some(at)).collect();
            prop_assert_eq!(sent.sent.iter().map(|sent| sent.origin).collect::<Vec<_>>(), expected);
        }
    }
}
