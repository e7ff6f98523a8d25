//! The metadata of a message: string keys and string values.
//!
//! What all messages of one connection have in common is stored once, in the [`Origin`] they share;
//! a message adds the time it was received, and what plugins set since. An empty value and an absent
//! key are the same thing, here and across the plugin contract.

use super::reply::ReplyTo;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the names of the host's own metadata begin with.
pub const RESERVED: &str = "__meta_";
/// Where a message was received: the url, or the address and path of a server endpoint.
pub const SOURCE: &str = "__meta_source";
/// When a message was received, in milliseconds since the Unix epoch.
pub const INGEST_TIME: &str = "__meta_ingest_time";
/// The connection a message came on; new at each reconnect.
pub const CONNECTION: &str = "__meta_connection";
/// The peer of a connection that we accepted, `ip:port`.
pub const PEER: &str = "__meta_peer";
/// Set by a plugin, for a sink of replies: the connection that the message came on is to be closed, with this code
/// and reason (`1008 reason`).
pub const CLOSE: &str = "__meta_close";
/// How often a message was taken out of the dead letters and given to its pipeline again.
pub const RETRIED: &str = "__meta_retried";

/// What a key and its value take beside their texts.
const ENTRY_BYTES: usize = 64;

/// The metadata that all messages of one connection, or of one file, have in common.
#[derive(Debug, Default)]
pub struct Origin {
    entries: Vec<(Box<str>, Box<str>)>,
    /// Takes replies for the connection, if it takes any.
    reply_to: Option<Arc<dyn ReplyTo>>,
}

/// Where replies go is no part of what an origin says.
impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Eq for Origin {}

impl Origin {
    /// An origin with these entries. Entries with an empty value are left out; of two with one key
    /// the first counts.
    pub fn new<K: Into<Box<str>>, V: Into<Box<str>>>(entries: impl IntoIterator<Item = (K, V)>) -> Arc<Self> {
        let entries = entries.into_iter().map(|(key, value)| (key.into(), value.into()));
        Arc::new(Self {
            entries: entries.filter(|(_, value): &(Box<str>, Box<str>)| !value.is_empty()).collect(),
            reply_to: None,
        })
    }

    /// The same entries, with what takes replies for the connection.
    pub fn with_replies_to(&self, reply_to: Arc<dyn ReplyTo>) -> Arc<Self> {
        Arc::new(Self { entries: self.entries.clone(), reply_to: Some(reply_to) })
    }

    /// What takes replies for the connection, if it takes any.
    #[inline]
    pub fn reply_to(&self) -> Option<&dyn ReplyTo> {
        self.reply_to.as_deref()
    }

    /// Iterates over all keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(key, value)| (&**key, &**value))
    }

    /// The value of a key; "" if it is absent.
    pub fn get(&self, key: &str) -> &str {
        self.entries.iter().find(|(k, _)| &**k == key).map_or("", |(_, value)| value)
    }
}

/// A key, and the value that a plugin gave it; "" removes it.
pub type Entry = (Arc<str>, Arc<str>);

/// What the plugin of one stage set on a message, over what those before it did.
#[derive(Debug)]
struct Changes {
    below: Option<Arc<Self>>,
    entries: Entries,
}

#[derive(Debug)]
enum Entries {
    /// Those of one message and its copies.
    Own(Vec<Entry>),
    /// Those of many messages.
    Shared(Arc<[Entry]>),
}

impl Changes {
    fn entries(&self) -> &[Entry] {
        match &self.entries {
            Entries::Own(entries) => entries,
            Entries::Shared(entries) => entries,
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.entries().iter().find(|(k, _)| &**k == key).map(|(_, value)| &**value)
    }
}

/// The metadata of one message. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metadata {
    origin: Arc<Origin>,
    received_us: u64,
    changes: Option<Arc<Changes>>,
}

impl Metadata {
    /// The metadata of a message that was received at `received_us`, in microseconds since the Unix epoch.
    #[inline]
    pub fn new(origin: Arc<Origin>, received_us: u64) -> Self {
        Self { origin, received_us, changes: None }
    }

    /// The metadata of a message that no source received: the emission of a timer or of the end.
    pub fn without_origin(now_us: u64) -> Self {
        Self::new(Arc::default(), now_us)
    }

    /// The time at which the message was received, in microseconds since the Unix epoch.
    #[inline]
    pub fn received_us(&self) -> u64 {
        self.received_us
    }

    /// The origin that the message shares with the others of its connection.
    #[inline]
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// Whether a plugin changed anything: if not, all but the time is the origin's.
    #[inline]
    pub fn is_changed(&self) -> bool {
        self.changes.is_some()
    }

    /// The value of a key; "" if it is absent.
    pub fn get(&self, key: &str) -> Cow<'_, str> {
        if let Some(value) = self.change(key) {
            return Cow::Borrowed(value);
        }
        if key == INGEST_TIME {
            return Cow::Owned((self.received_us / 1000).to_string());
        }
        Cow::Borrowed(self.origin.get(key))
    }

    /// Whether every key has the same value in both.
    pub fn has_same_entries(&self, other: &Self) -> bool {
        let is_same_layer = match (&self.changes, &other.changes) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        if is_same_layer && self.received_us == other.received_us && Arc::ptr_eq(&self.origin, &other.origin)
        {
            return true;
        }
        let all = |metadata: &Self| -> BTreeMap<String, String> {
            metadata.iter().map(|(key, value)| (key.to_owned(), value.into_owned())).collect()
        };
        all(self) == all(other)
    }

    /// Iterates over all keys that have a value, each once.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        let changed = self.layers().enumerate().flat_map(move |(depth, layer)| {
            let is_seen = move |key: &str| self.layers().take(depth).all(|above| above.get(key).is_none());
            layer.entries().iter().filter(move |(key, value)| !value.is_empty() && is_seen(key))
        });
        let changed = changed.map(|(key, value)| (&**key, Cow::Borrowed(&**value)));
        let received = self
            .change(INGEST_TIME)
            .is_none()
            .then(|| (INGEST_TIME, Cow::Owned((self.received_us / 1000).to_string())));
        let inherited = self.origin.entries.iter().filter(|(key, _)| self.change(key).is_none());
        let inherited = inherited.map(|(key, value)| (&**key, Cow::Borrowed(&**value)));
        inherited.chain(received).chain(changed)
    }

    /// Sets a key, or removes it if `value` is "".
    pub fn set(&mut self, key: &Arc<str>, value: &str) {
        let own = self.changes.as_mut().and_then(Arc::get_mut);
        match own.map(|changes| &mut changes.entries) {
            Some(Entries::Own(entries)) => match entries.iter_mut().find(|(k, _)| k == key) {
                Some((_, old)) => *old = value.into(),
                None => entries.push((key.clone(), value.into())),
            },
            _ => self.set_all(vec![(key.clone(), value.into())]),
        }
    }

    /// Sets these keys, each of which is there once, or removes those whose value is "".
    pub fn set_all(&mut self, entries: Vec<Entry>) {
        if !entries.is_empty() {
            self.lay(Entries::Own(entries));
        }
    }

    /// The same for entries that many messages share: none of them is copied.
    pub fn set_shared(&mut self, entries: &Arc<[Entry]>) {
        if !entries.is_empty() {
            self.lay(Entries::Shared(entries.clone()));
        }
    }

    fn lay(&mut self, entries: Entries) {
        self.changes = Some(Arc::new(Changes { below: self.changes.take(), entries }));
    }

    fn layers(&self) -> impl Iterator<Item = &Changes> {
        std::iter::successors(self.changes.as_deref(), |layer| layer.below.as_deref())
    }

    /// The message is given to its pipeline once more.
    pub fn count_retry(&mut self) {
        let before = self.get(RETRIED).parse().unwrap_or(0u64);
        self.set(&RETRIED.into(), &before.saturating_add(1).to_string());
    }

    /// What it keeps alive, in bytes; what others share with it included.
    pub fn kept_bytes(&self) -> usize {
        let pair = |key: &str, value: &str| key.len() + value.len() + ENTRY_BYTES;
        let inherited: usize = self.origin.iter().map(|(key, value)| pair(key, value)).sum();
        let changed = self.layers().flat_map(Changes::entries);
        inherited + changed.map(|(key, value)| pair(key, value)).sum::<usize>()
    }

    /// What a plugin set a key to, if one did; "" where it removed the key.
    pub fn change(&self, key: &str) -> Option<&str> {
        self.layers().find_map(|layer| layer.get(key))
    }
}

/// The time now, in microseconds since the Unix epoch.
#[inline]
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_hides_the_origin_and_an_empty_one_removes_the_key() {
        let origin = Origin::new([(SOURCE, "ws://a"), ("room", "7")]);
        let mut metadata = Metadata::new(origin, 5_000);
        metadata.set(&"room".into(), "8");
        metadata.set(&"extra".into(), "x");
        metadata.set(&SOURCE.into(), "");
        let mut all: Vec<_> = metadata.iter().map(|(k, v)| format!("{k}={v}")).collect();
        all.sort();
        assert_eq!(all, ["__meta_ingest_time=5", "extra=x", "room=8"]);
        assert_eq!(metadata.get(SOURCE), "");
        assert_eq!(metadata.get("room"), "8");
    }

    #[test]
    fn copies_do_not_see_each_others_changes() {
        let mut one = Metadata::new(Origin::new([("k", "v")]), 0);
        one.set(&"k".into(), "1");
        let mut two = one.clone();
        two.set(&"k".into(), "2");
        assert_eq!((one.get("k").as_ref(), two.get("k").as_ref()), ("1", "2"));
        assert_eq!(two.iter().filter(|(key, _)| *key == "k").count(), 1);
    }

    #[test]
    fn retries_are_counted_over_whatever_was_there() {
        let mut metadata = Metadata::new(Origin::new([(RETRIED, "1")]), 0);
        metadata.count_retry();
        metadata.count_retry();
        assert_eq!(metadata.get(RETRIED), "3");
        let mut odd = Metadata::new(Origin::new([(RETRIED, "often")]), 0);
        odd.count_retry();
        assert_eq!(odd.get(RETRIED), "1");
        assert!(odd.kept_bytes() > 2 * RETRIED.len());
    }

    #[test]
    fn what_many_messages_share_is_there_once() {
        let value: Arc<str> = "x".repeat(1000).into();
        let shared: Arc<[Entry]> = [("k".into(), value.clone())].into();
        let mut all = vec![Metadata::without_origin(0); 100];
        all.iter_mut().for_each(|metadata| metadata.set_shared(&shared));
        assert_eq!(Arc::strong_count(&value), 2);
        assert!(all.iter().all(|metadata| metadata.get("k") == *value));
    }
}
