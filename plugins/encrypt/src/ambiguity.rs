//! Names that stand twice in one object, where a field is behind them.
//!
//! Of two members with one name a field is found in the last, so that what is in the first would go on as it is.

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The names that lead to fields, as a tree.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    inside: BTreeMap<String, Ways>,
}

impl Ways {
    /// The ways to what these JSON pointers name.
    pub(crate) fn to<'p>(pointers: impl IntoIterator<Item = &'p str>) -> Self {
        let mut root = Self::default();
        for pointer in pointers {
            let names = pointer.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~"));
            names.fold(&mut root, |ways, name| ways.inside.entry(name).or_default());
        }
        root
    }

    /// Goes through a message.
    ///
    /// # Errors
    /// The name that stands twice.
    pub(crate) fn are_clear(&self, message: &[u8]) -> Result<(), String> {
        let mut reader = serde_json::Deserializer::from_slice(message);
        self.deserialize(&mut reader).map_err(|error| error.to_string())
    }
}

impl<'de> DeserializeSeed<'de> for &Ways {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.inside.is_empty() {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(drop);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Ways {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(name) = members.next_key::<String>()? {
            let Some((name, ways)) = self.inside.get_key_value(&name) else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            if !seen.insert(name) {
                return Err(A::Error::custom(format!("{name:?} stands twice in one object")));
            }
            members.next_value_seed(ways)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
}
