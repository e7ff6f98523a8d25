//! `include_metadata`: the metadata of a message as fields of its JSON object.
//!
//! The payload is read once and no tree is made of it. Fields go before the last `}`. A member at the top
//! is cut out, however its name is escaped, if it has the name of one, of what the host itself tells, or of
//! what the source takes from handshakes: what is absent there must not be forged either. All other bytes
//! stay.

use crate::message::metadata::{INGEST_TIME, Metadata, RESERVED};
use bytes::{BufMut as _, BytesMut};
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::ops::Range;

/// Adds the metadata of messages to them.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// MemberNames that no message may bring itself, beside those of its own metadata: of what the source takes
    /// from handshakes.
    pub(super) reserved: Vec<String>,
}

impl Fields {
    /// Appends the payload with its metadata to `out`. False, and nothing appended, if it is no object.
    pub(super) fn append(&self, payload: &[u8], metadata: &Metadata, out: &mut BytesMut) -> bool {
        let mut json = serde_json::Deserializer::from_slice(payload);
        let names = MemberNames { reserved: &self.reserved, metadata };
        let members = json.deserialize_map(Members { payload, names });
        let (Ok(members), Ok(())) = (members, json.end()) else { return false };
        let Some(last) = payload.iter().rposition(|byte| *byte == b'}') else { return false };
        let mut from = 0;
        for forged in members.forged {
            out.put_slice(&payload[from..forged.start]);
            from = forged.end;
        }
        out.put_slice(&payload[from..last]);
        let mut is_first = members.kept == 0;
        for (name, value) in metadata.iter() {
            if !std::mem::take(&mut is_first) {
                out.put_u8(b',');
            }
            put_string(name, out);
            out.put_u8(b':');
            match value.parse::<u64>() {
                Ok(time) if name == INGEST_TIME => out.put_slice(time.to_string().as_bytes()),
                _ => put_string(&value, out),
            }
        }
        out.put_slice(&payload[last..]);
        true
    }
}

/// Appends a JSON string.
pub(super) fn put_string(text: &str, out: &mut BytesMut) {
    serde_json::to_writer(out.writer(), text).expect("a string has its JSON, and there is room");
}

/// Reads the members of an object.
struct Members<'a> {
    payload: &'a [u8],
    names: MemberNames<'a>,
}

struct MemberValue {
    /// What is to be cut out, in order.
    forged: Vec<Range<usize>>,
    /// How many members stay.
    kept: usize,
}

impl<'de> Visitor<'de> for Members<'de> {
    type Value = MemberValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<MemberValue, A::Error> {
        let mut found = MemberValue { forged: Vec::new(), kept: 0 };
        // A member reaches from the end of the one before, so that it has the comma.
        let mut end = self.payload.iter().position(|byte| *byte == b'{').map_or(0, |open| open + 1);
        while let Some(is_forged) = members.next_key_seed(self.names)? {
            let start = end;
            let value: &RawValue = members.next_value()?;
            end = value.get().as_ptr().addr() - self.payload.as_ptr().addr() + value.get().len();
            if is_forged {
                found.forged.push(start..end);
                continue;
            }
            if found.kept == 0
                && let Some(before) = found.forged.last_mut()
            {
                // The first that stays has no comma before it.
                before.end =
                    start + self.payload[start..end].iter().position(|byte| *byte == b',').unwrap_or(0) + 1;
            }
            found.kept += 1;
        }
        Ok(found)
    }
}

/// Tells of a member's name whether the message may not bring it itself.
#[derive(Clone, Copy)]
struct MemberNames<'a> {
    reserved: &'a [String],
    metadata: &'a Metadata,
}

impl<'de> DeserializeSeed<'de> for MemberNames<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, name: D) -> Result<bool, D::Error> {
        // As bytes: a name may hold half a surrogate pair (`"\ud800"`), which other readers take and which is
        // no text here. An object with one would go as it came, with what is forged beside it.
        name.deserialize_bytes(self)
    }
}

impl Visitor<'_> for MemberNames<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<bool, E> {
        let Ok(name) = std::str::from_utf8(name) else { return Ok(false) };
        Ok(name.starts_with(RESERVED)
            || self.reserved.iter().any(|reserved| reserved == name)
            || !self.metadata.get(name).is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::metadata::{Origin, SOURCE};
    use proptest::prelude::*;
    use serde_json::Value;

    fn metadata() -> Metadata {
        let mut metadata = Metadata::new(Origin::new([(SOURCE, "ws://a/\"b\""), ("room", "7")]), 5_000_999);
        metadata.set(&"extra".into(), "ä\n");
        metadata
    }

    fn fields() -> Fields {
        Fields { reserved: vec!["room".to_owned(), "user".to_owned()] }
    }

    fn with_fields(payload: &str) -> Option<String> {
        let mut out = BytesMut::new();
        let is_object = fields().append(payload.as_bytes(), &metadata(), &mut out);
        is_object.then(|| String::from_utf8(out.to_vec()).expect("it is UTF-8"))
    }

    /// The members at the top of an object, in order, twice where they are twice.
    #[derive(Debug, PartialEq)]
    struct Object(Vec<(String, Value)>);

    impl<'de> serde::Deserialize<'de> for Object {
        fn deserialize<D: serde::Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
            struct Reader;
            impl<'de> Visitor<'de> for Reader {
                type Value = Object;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Object, A::Error> {
                    let mut all = Vec::new();
                    while let Some(member) = members.next_entry()? {
                        all.push(member);
                    }
                    Ok(Object(all))
                }
            }
            json.deserialize_map(Reader)
        }
    }

    #[test]
    fn fields_come_before_the_last_brace_and_the_time_is_a_number() {
        let fields = r#""__meta_source":"ws://a/\"b\"","room":"7","__meta_ingest_time":5000,"extra":"ä\n""#;
        assert_eq!(with_fields("{}"), Some(format!("{{{fields}}}")));
        assert_eq!(with_fields(" { \"a\" : 1.0e2 } \n"), Some(format!(" {{ \"a\" : 1.0e2 ,{fields}}} \n")));
        assert_eq!(with_fields(r#"{"a":{"room":1}}"#), Some(format!(r#"{{"a":{{"room":1}},{fields}}}"#)));
    }

    #[test]
    fn what_is_no_object_is_left_alone() {
        for payload in ["", "[1]", "\"{}\"", "{", "{} {}", "{\"a\":}", "{\"a\":1,}", "null", "text"] {
            assert_eq!(with_fields(payload), None, "{payload}");
        }
        assert!(!fields().append(b"{\"a\":\"\xff\"}", &metadata(), &mut BytesMut::new()));
    }

    #[test]
    fn a_forged_field_is_cut_out_wherever_it_is() {
        let rest = |payload: &str| {
            let all = with_fields(payload).expect("an object");
            all.split_once("\"__meta_source\":\"ws").expect("the fields are there").0.to_owned()
        };
        assert_eq!(rest(r#"{"room":1}"#), "{");
        assert_eq!(rest(r#"{"room":1,"a":2}"#), r#"{"a":2,"#);
        assert_eq!(rest(r#"{ "room":1 , "room":[",}"] , "a":2}"#), r#"{ "a":2,"#);
        assert_eq!(rest(r#"{"a":2,"__meta_\u0073ource":"evil"}"#), r#"{"a":2,"#);
        assert_eq!(rest(r#"{"a":2 , "room":1 , "b":3 }"#), r#"{"a":2 , "b":3 ,"#);
    }

    #[test]
    fn what_metadata_does_not_say_now_is_cut_out_all_the_same() {
        let payload = r#"{"user":"admin","__meta_peer":"1","__meta_\u0075ser":2,"\u0075ser":3,"users":4}"#;
        assert!(with_fields(payload).is_some_and(|text| text.starts_with(r#"{"users":4,"__meta_source""#)));
    }

    #[test]
    fn a_name_that_is_no_text_here_hides_nothing_beside_it() {
        let payload = r#"{"\ud800":1,"user":"admin","\ud800user":2}"#;
        let text = with_fields(payload).expect("it is an object for other readers");
        assert!(text.starts_with(r#"{"\ud800":1,"\ud800user":2,"__meta_source""#), "{text}");
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map(name(), inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn name() -> impl Strategy<Value = String> {
        let known = ["a", "room", "user", "extra", SOURCE, INGEST_TIME, "__meta_peer"];
        prop_oneof![proptest::sample::select(known.to_vec()).prop_map(str::to_owned), any::<String>()]
    }

    proptest! {
        #[test]
        fn a_reader_sees_its_members_without_the_forged_and_then_the_fields(
            members in proptest::collection::vec((name(), json()), 0..6),
            space in proptest::sample::select(vec!["", " ", "\r\n\t"]),
        ) {
            let written: Vec<_> = members
                .iter()
                .map(|(name, value)| format!("{space}{}{space}:{space}{value}{space}", Value::from(name.as_str())))
                .collect();
            let payload = format!("{space}{{{space}{}}}{space}", written.join(","));
            let metadata = metadata();
            let is_forged = |name: &str| {
                ["room", "user", "extra"].contains(&name) || name.starts_with("__meta_")
            };
            let mut wanted: Vec<_> = members.into_iter().filter(|(name, _)| !is_forged(name)).collect();
            wanted.extend(metadata.iter().map(|(name, value)| {
                let value = if name == INGEST_TIME { Value::from(5000) } else { Value::from(&*value) };
                (name.to_owned(), value)
            }));
            let told = with_fields(&payload).expect("an object");
            let read: Object = serde_json::from_str(&told).expect("it is JSON");
            prop_assert_eq!(read, Object(wanted), "{}", told);
        }
    }
}
