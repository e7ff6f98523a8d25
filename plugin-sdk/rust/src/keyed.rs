//! What a plugin knows of each key, such as a symbol or a room: bounded, and shared out between instances.
//!
//! [`Key`] finds the key of a message, [`Keyed`] has a value for each key. One that is used is the latest; where there
//! are more than a bound allows, those go that were not used for longest.
//!
//! ```
//! use tidemill_plugin::keyed::Keyed;
//!
//! let mut counts = Keyed::new(2);
//! for key in ["BTC", "ETH", "BTC", "SOL"] {
//!     *counts.get_or_insert_with(key, || 0) += 1;
//! }
//! let gone: Vec<_> = counts.take_surplus().map(|(key, count)| (key.to_string(), count)).collect();
//! assert_eq!(gone, [("ETH".to_owned(), 1)]);
//! ```

use crate::json::{Kind, Value};
use crate::{Description, Json, Message, Part, Read, Result, metrics};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

/// What stands before the name of metadata in a pointer of a [`Key`], as in `key` of a transform.
const METADATA: &str = "metadata:";
/// Between the parts of a key.
const SEPARATOR: char = '\u{1f}';
/// Stands in a part of a key before what stands for the two: `0` for itself, and `1` for the other.
const ESCAPE: char = '\u{1e}';
/// Begins a part that is the JSON text of what the host takes for no key. No other part begins so.
const NO_KEY: &str = "\u{1e}2";
/// A longer key is rejected: keys are what is kept of messages for longest.
const MAX_KEY_BYTES: usize = 1 << 10;
/// So many keys at most go at once: a call that gets a message of a new key makes room for it, and a little more where
/// a snapshot brought too many.
const SURPLUS_AT_ONCE: usize = 2;
/// The counter of keys that were forgotten.
const FORGOTTEN: &str = "keys_forgotten";
/// No place: before the oldest and behind the latest.
const NONE: usize = usize::MAX;

/// Where a message has its key: fields, of which all must be there, or metadata.
#[derive(Clone, Debug)]
pub struct Key {
    parts: Vec<KeyPart>,
}

#[derive(Clone, Copy, Debug)]
enum KeyPart {
    Field(Json),
    Metadata(Read),
}

impl Key {
    /// Asks for the parts of a key: each a JSON pointer, or `metadata:NAME`. Without any, all messages have the key "".
    ///
    /// # Errors
    /// One is neither; `name` is the key of the configuration that the text begins with.
    pub fn compile<P: AsRef<str>>(
        name: &str,
        parts: impl IntoIterator<Item = P>,
        description: &mut Description,
    ) -> Result<Self> {
        let mut compiled = Vec::new();
        for part in parts {
            compiled.push(match part.as_ref().strip_prefix(METADATA) {
                Some("") => return Err(format!("{name}: `{METADATA}` is to be followed by a name").into()),
                Some(metadata) => KeyPart::Metadata(description.read(metadata)),
                None => {
                    let field = description.json(part.as_ref());
                    KeyPart::Field(field.map_err(|error| format!("{name}: {error}"))?)
                }
            });
        }
        Ok(Self { parts: compiled })
    }

    /// The key of a message: what strings say, and of other values their JSON text, as [`parts`] gives them. `None` if the
    /// message lacks a part. What is no key for the host, such as `null`, is another key than a string that says the same.
    ///
    /// # Errors
    /// It is longer than 1 KiB, and the message is to be rejected.
    #[inline]
    pub fn of<'a>(&self, message: Message<'a>) -> Result<Option<Cow<'a, str>>> {
        let key = match self.parts[..] {
            [] => Some(Cow::Borrowed("")),
            [part] => part.of(message),
            _ => self.joined(message).map(Cow::Owned),
        };
        match key {
            Some(key) if key.len() > MAX_KEY_BYTES => {
                Err(format!("the key has {} bytes, and {MAX_KEY_BYTES} are the most", key.len()).into())
            }
            key => Ok(key),
        }
    }

    fn joined(&self, message: Message<'_>) -> Option<String> {
        let mut joined = String::new();
        for (nth, part) in self.parts.iter().enumerate() {
            if nth > 0 {
                joined.push(SEPARATOR);
            }
            joined.push_str(&part.of(message)?);
        }
        Some(joined)
    }
}

impl KeyPart {
    #[inline]
    fn of(self, message: Message<'_>) -> Option<Cow<'_, str>> {
        match self {
            Self::Field(field) => message.get(field).map(said),
            Self::Metadata(key) => {
                let value = message.metadata(key);
                (!value.is_empty()).then(|| escaped(Cow::Borrowed(value)))
            }
        }
    }
}

/// A value as a part of a key.
#[inline]
fn said(value: Value<'_>) -> Cow<'_, str> {
    match as_host(value) {
        Some(key) => escaped(key),
        None => Cow::Owned(format!("{NO_KEY}{}", escaped(value.label()))),
    }
}

/// What the host takes for a key, as in `key` of a transform: what a string says, its escapes read, or a number, `true` or
/// `false` as it stands. Anything else is none, a string with half of a surrogate pair too.
#[inline]
fn as_host(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value.kind() {
        Kind::String => value.string(),
        Kind::Number | Kind::Bool => Some(value.label()),
        Kind::Null | Kind::Array | Kind::Object => None,
    }
}

#[inline]
fn escaped(part: Cow<'_, str>) -> Cow<'_, str> {
    if !part.bytes().any(|byte| byte == ESCAPE as u8 || byte == SEPARATOR as u8) {
        return part;
    }
    Cow::Owned(part.replace(ESCAPE, "\u{1e}0").replace(SEPARATOR, "\u{1e}1"))
}

/// What the parts of a key say, of which there is one at least.
pub fn parts(key: &str) -> impl Iterator<Item = Cow<'_, str>> {
    key.split(SEPARATOR).map(|part| {
        let part = part.strip_prefix(NO_KEY).unwrap_or(part);
        match part.contains(ESCAPE) {
            true => part.replace("\u{1e}1", "\u{1f}").replace("\u{1e}0", "\u{1e}").into(),
            false => part.into(),
        }
    })
}

/// By what the host shares out the messages of a key: what the first of its parts says, or "" where that is no key for the
/// host, as `null`, a list, an object and half of a surrogate pair are none. This is what a [`Part`] is to be asked for.
pub fn shared_by(key: &str) -> Cow<'_, str> {
    match key.starts_with(NO_KEY) {
        true => "".into(),
        false => parts(key).next().unwrap_or_default(),
    }
}

/// A value for each key, at most so many.
#[derive(Clone)]
pub struct Keyed<T> {
    most: usize,
    places: HashMap<Rc<str>, usize>,
    entries: Vec<Entry<T>>,
    oldest: usize,
    latest: usize,
}

#[derive(Clone)]
struct Entry<T> {
    key: Rc<str>,
    value: T,
    older: usize,
    later: usize,
}

impl<T> Keyed<T> {
    /// Nothing yet, and at most so many keys.
    pub fn new(most: usize) -> Self {
        Self { most, places: HashMap::new(), entries: Vec::new(), oldest: NONE, latest: NONE }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is known of a key. That is no use of it.
    pub fn get(&self, key: &str) -> Option<&T> {
        self.places.get(key).map(|&place| &self.entries[place].value)
    }

    /// What is known of a key, which is the latest from now on.
    #[inline]
    pub fn get_mut(&mut self, key: &str) -> Option<&mut T> {
        let place = *self.places.get(key)?;
        self.renew(place);
        Some(&mut self.entries[place].value)
    }

    /// The same, or what is made where nothing is known of it. The bound is kept by
    /// [`take_surplus`](Self::take_surplus), which is to follow.
    #[inline]
    pub fn get_or_insert_with(&mut self, key: &str, make: impl FnOnce() -> T) -> &mut T {
        let place = match self.places.get(key) {
            Some(&place) => {
                self.renew(place);
                place
            }
            None => self.insert(key.into(), make()),
        };
        &mut self.entries[place].value
    }

    /// Forgets a key.
    pub fn remove(&mut self, key: &str) -> Option<T> {
        let place = self.places.remove(key)?;
        Some(self.take(place).1)
    }

    /// The keys that are one too many: those that were not used for longest, of which a few go at once.
    #[inline]
    pub fn take_surplus(&mut self) -> impl Iterator<Item = (Rc<str>, T)> {
        let surplus = self.len().saturating_sub(self.most).min(SURPLUS_AT_ONCE);
        (0..surplus).filter_map(|_| self.take_oldest())
    }

    /// Forgets them, which the metric `keys_forgotten` counts.
    #[inline]
    pub fn forget_surplus(&mut self) {
        let forgotten = self.take_surplus().count();
        if forgotten > 0 {
            metrics::add(FORGOTTEN, forgotten as f64);
        }
    }

    /// The key that was not used for longest, and what is known of it.
    pub fn oldest(&self) -> Option<(&str, &T)> {
        self.iter().next()
    }

    /// Forgets the key that was not used for longest.
    pub fn take_oldest(&mut self) -> Option<(Rc<str>, T)> {
        let oldest = self.entries.get(self.oldest)?;
        self.places.remove(&*oldest.key);
        Some(self.take(self.oldest))
    }

    /// All keys, from the one that was not used for longest to the latest.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        let mut place = self.oldest;
        std::iter::from_fn(move || {
            let entry = self.entries.get(place)?;
            place = entry.later;
            Some((&*entry.key, &entry.value))
        })
    }

    /// Gives each key in the same order to `each`, until that says no. That is no use of them.
    pub fn for_each_while(&mut self, mut each: impl FnMut(&str, &mut T) -> Result<bool>) -> Result {
        let mut place = self.oldest;
        while let Some(entry) = self.entries.get_mut(place) {
            if !each(&entry.key, &mut entry.value)? {
                break;
            }
            place = entry.later;
        }
        Ok(())
    }

    /// Takes over what instances knew before, as far as the keys belong to this part, as [`shared_by`] says: of a key with
    /// several parts its first decides, by which messages are to be shared out then. There may be more than the bound for a
    /// while.
    pub fn restore(&mut self, before: impl IntoIterator<Item = Self>, part: Part) {
        let mut before = before.into_iter();
        if part.is_whole() && self.is_empty() {
            // Not key by key, for which there would have to be room twice.
            *self = Self { most: self.most, ..before.next().unwrap_or_else(|| Self::new(0)) };
        }
        for (key, value) in before.flat_map(Self::into_entries) {
            if part.has(&shared_by(&key)) {
                self.remove(&key);
                self.insert(key, value);
            }
        }
    }

    fn into_entries(mut self) -> impl Iterator<Item = (Rc<str>, T)> {
        std::iter::from_fn(move || self.take_oldest())
    }

    fn insert(&mut self, key: Rc<str>, value: T) -> usize {
        let place = self.entries.len();
        self.places.insert(key.clone(), place);
        self.entries.push(Entry { key, value, older: NONE, later: NONE });
        self.link_latest(place);
        place
    }

    /// Takes an entry out whose key is known no more; the last of the entries gets its place.
    fn take(&mut self, place: usize) -> (Rc<str>, T) {
        self.unlink(place);
        let Entry { key, value, .. } = self.entries.swap_remove(place);
        let moved_from = self.entries.len();
        if let Some(Entry { key, older, later, .. }) = self.entries.get(place) {
            let (older, later) = (*older, *later);
            *self.places.get_mut(key).expect("what is there is known") = place;
            self.set_later(older, place);
            self.set_older(later, place);
            debug_assert!(self.oldest != moved_from && self.latest != moved_from);
        }
        (key, value)
    }

    /// Makes an entry the latest.
    #[inline]
    fn renew(&mut self, place: usize) {
        if self.latest != place {
            self.unlink(place);
            self.link_latest(place);
        }
    }

    fn unlink(&mut self, place: usize) {
        let Entry { older, later, .. } = self.entries[place];
        self.set_later(older, later);
        self.set_older(later, older);
    }

    fn link_latest(&mut self, place: usize) {
        let before = self.latest;
        (self.entries[place].older, self.entries[place].later) = (before, NONE);
        self.set_later(before, place);
        self.latest = place;
    }

    /// What comes behind a place, or first of all.
    fn set_later(&mut self, place: usize, later: usize) {
        match self.entries.get_mut(place) {
            Some(entry) => entry.later = later,
            None => self.oldest = later,
        }
    }

    /// What comes before a place, or last of all.
    fn set_older(&mut self, place: usize, older: usize) {
        match self.entries.get_mut(place) {
            Some(entry) => entry.older = older,
            None => self.latest = older,
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Keyed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// A list of keys and values, the latest last; the bound is the plugin's own.
impl<T: Serialize> Serialize for Keyed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq as _;
        let mut list = serializer.serialize_seq(Some(self.len()))?;
        self.iter().try_for_each(|entry| list.serialize_element(&entry))?;
        list.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Keyed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Keyed<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of keys and values")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut keyed = Keyed::new(0);
                while let Some((key, value)) = list.next_element::<(String, T)>()? {
                    keyed.remove(&key);
                    keyed.insert(key.into(), value);
                }
                Ok(keyed)
            }
        }
        deserializer.deserialize_seq(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Harness, Input};
    use crate::{Out, Plugin, json};
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Use(u8),
        Remove(u8),
        TakeOldest,
        Surplus,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..12u8).prop_map(Step::Use),
            1 => (0..12u8).prop_map(Step::Remove),
            1 => Just(Step::TakeOldest),
            2 => Just(Step::Surplus),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_list_in_which_what_is_used_goes_to_the_end(steps in prop::collection::vec(step(), 0..60)) {
            let mut keyed = Keyed::new(5);
            let mut list: Vec<(String, u32)> = Vec::new();
            for step in steps {
                match step {
                    Step::Use(key) => {
                        let key = key.to_string();
                        *keyed.get_or_insert_with(&key, || 0) += 1;
                        let uses = list.iter().position(|(known, _)| *known == key).map(|at| list.remove(at).1);
                        list.push((key, uses.unwrap_or(0) + 1));
                    }
                    Step::Remove(key) => {
                        let key = key.to_string();
                        let place = list.iter().position(|(known, _)| *known == key);
                        prop_assert_eq!(keyed.remove(&key), place.map(|at| list.remove(at).1));
                    }
                    Step::TakeOldest => {
                        let expected = (!list.is_empty()).then(|| list.remove(0));
                        prop_assert_eq!(keyed.take_oldest().map(|(key, value)| (key.to_string(), value)), expected);
                    }
                    Step::Surplus => {
                        let surplus = list.len().saturating_sub(5).min(SURPLUS_AT_ONCE);
                        let gone: Vec<_> = keyed.take_surplus().map(|(key, value)| (key.to_string(), value)).collect();
                        prop_assert_eq!(gone, list.drain(..surplus).collect::<Vec<_>>());
                    }
                }
                let all: Vec<_> = keyed.iter().map(|(key, value)| (key.to_owned(), *value)).collect();
                prop_assert_eq!(&all, &list);
                prop_assert_eq!(keyed.oldest().map(|(key, _)| key), list.first().map(|(key, _)| key.as_str()));
                for (key, value) in &list {
                    prop_assert_eq!(keyed.get(key), Some(value));
                }
            }
        }

        #[test]
        fn each_key_is_restored_by_one_part_and_in_its_order(keys in prop::collection::vec("[a-c]{0,3}", 0..20)) {
            let mut keyed = Keyed::new(100);
            for (number, key) in keys.iter().enumerate() {
                *keyed.get_or_insert_with(key, || 0) = number;
            }
            let snapshot = json::encode(&keyed).unwrap();
            let parts = (0..3).map(|number| {
                let mut share = Keyed::new(100);
                let before: Keyed<usize> = json::decode(&snapshot).unwrap();
                share.restore([before], Part { number, of: 3 });
                share
            });
            let mut restored: Vec<(String, usize)> = Vec::new();
            for share in parts {
                let values: Vec<_> = share.iter().map(|(_, value)| *value).collect();
                prop_assert!(values.is_sorted());
                restored.extend(share.iter().map(|(key, value)| (key.to_owned(), *value)));
            }
            restored.sort_by_key(|(_, value)| *value);
            let all: Vec<_> = keyed.iter().map(|(key, value)| (key.to_owned(), *value)).collect();
            prop_assert_eq!(restored, all);
        }
    }

    /// Rejects each message with its key as the reason.
    struct Keys(Key);

    impl Plugin for Keys {
        type Config = Vec<String>;

        fn new(parts: Vec<String>, description: &mut Description) -> Result<Self> {
            Key::compile("key", &parts, description).map(Self)
        }

        fn process(&mut self, message: Message<'_>, _: &mut Out<'_>) -> Result {
            let key = self.0.of(message)?;
            Err(key.map_or_else(|| "none".to_owned(), |key| format!("[{key}]")).into())
        }
    }

    #[test]
    fn the_key_of_a_message_is_what_its_parts_say() {
        let long = format!(r#"{{"s":"{}"}}"#, "x".repeat(MAX_KEY_BYTES + 1));
        for (parts, message, key) in [
            ("[]", "{}", "[]"),
            (r#"["/s"]"#, r#"{"s":"\u0042TC"}"#, "[BTC]"),
            (r#"["/s"]"#, r#"{"s":7}"#, "[7]"),
            (r#"["/s"]"#, "{}", "none"),
            (r#"["/s","/v"]"#, r#"{"s":"a","v":"b"}"#, "[a\u{1f}b]"),
            (r#"["/s","/v"]"#, r#"{"s":"a"}"#, "none"),
            (r#"["/s","/v"]"#, r#"{"s":"\u001f","v":"\u001e"}"#, "[\u{1e}1\u{1f}\u{1e}0]"),
            (r#"["metadata:room","/s"]"#, r#"{"s":1}"#, "[lobby\u{1f}1]"),
            (r#"["metadata:other"]"#, "{}", "none"),
            (r#"["/s"]"#, &long, "the key has 1025 bytes, and 1024 are the most"),
        ] {
            let mut plugin = Harness::<Keys>::try_new(parts).unwrap();
            let processed = plugin.process([Input::from(message).with("room", "lobby")]);
            assert_eq!(processed.rejected, [(0, key.to_owned())], "{parts} {message}");
        }
    }

    /// The values are those of the test of the host's `pipeline::stage::keys`, and a few more.
    #[test]
    fn keys_are_shared_out_by_what_the_host_takes_for_a_key_and_keep_their_names() {
        for (message, key, name) in [
            (r#"{"data":{"s":"BTC"}}"#, "BTC", "BTC"),
            (r#"{"data":{"s":"\u0042T\u0043"}}"#, "BTC", "BTC"),
            (r#"{"data":{"s":"ż"}}"#, "ż", "ż"),
            (r#"{"data":{"s":"\ud83d\ude00"}}"#, "\u{1f600}", "\u{1f600}"),
            (r#"{"data":{"s":"\u001e2\u001f"}}"#, "\u{1e}2\u{1f}", "\u{1e}2\u{1f}"),
            (r#"{"data":{"s": 7.50 }}"#, "7.50", "7.50"),
            (r#"{"data":{"s":-1E+2}}"#, "-1E+2", "-1E+2"),
            (r#"{"data":{"s":true}}"#, "true", "true"),
            (r#"{"data":{"s":"null"}}"#, "null", "null"),
            (r#"{"data":{"s":null}}"#, "", "null"),
            (r#"{"data":{"s":["BTC"]}}"#, "", r#"["BTC"]"#),
            (r#"{"data":{"s":{}}}"#, "", "{}"),
            (r#"{"data":{"s":"\ud83d"}}"#, "", r#""\ud83d""#),
            (r#"{"data":{"s":""}}"#, "", ""),
        ] {
            for (pointers, names) in
                [(r#"["/data/s"]"#, &[name][..]), (r#"["/data/s","/data/s"]"#, &[name, name])]
            {
                let mut plugin = Harness::<Keys>::try_new(pointers).unwrap();
                let processed = plugin.process([message]);
                let found = processed.rejected[0]
                    .1
                    .strip_prefix('[')
                    .and_then(|text| text.strip_suffix(']'))
                    .unwrap();
                assert_eq!(shared_by(found), key, "{message}");
                assert_eq!(parts(found).collect::<Vec<_>>(), names, "{message}");
                let mut before = Keyed::new(1);
                before.get_or_insert_with(found, || 7);
                for number in 0..3 {
                    let part = Part { number, of: 3 };
                    let mut share = Keyed::new(1);
                    share.restore([before.clone()], part);
                    assert_eq!(share.get(found).is_some(), part.has(key), "{message}");
                }
            }
        }
        assert_eq!(shared_by(""), "");
        assert_eq!(shared_by(&format!("a{SEPARATOR}{NO_KEY}null")), "a");
    }

    #[test]
    fn what_escapes_stand_for_is_what_is_shared_out() {
        for text in ["", "a", "\u{1e}", "\u{1f}", "\u{1e}1", "\u{1f}0\u{1e}"] {
            let key = format!("{}{SEPARATOR}rest", escaped(Cow::Borrowed(text)));
            assert_eq!(parts(&key).collect::<Vec<_>>(), [text, "rest"]);
        }
    }

    #[test]
    fn what_is_no_key_is_refused_by_name() {
        for (parts, error) in [
            (r#"["s"]"#, "key: \"s\" is not a JSON pointer: it must start with `/`, like \"/s\""),
            (r#"["metadata:"]"#, "key: `metadata:` is to be followed by a name"),
        ] {
            assert_eq!(Harness::<Keys>::try_new(parts).err().as_deref(), Some(error));
        }
    }
}
