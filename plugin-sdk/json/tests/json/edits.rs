//! Members set and removed, against edits of a tree.

use crate::documents::document;
use proptest::prelude::*;
use serde_json::Value;
use tidemill_json::{Change, EditError, Edits, Fields, Invalid, InvalidMember, MAX_DEPTH, Sites};

fn edit(json: &str, changes: &[(&str, Change<'_>)]) -> Result<String, EditError> {
    let mut edits = Edits::default();
    let mut values = vec![Change::Leave; changes.len()];
    for (pointer, change) in changes {
        values[edits.add(pointer).unwrap()] = *change;
    }
    let mut out = Vec::new();
    let edited = edits.apply(json, &values, &mut out);
    assert_eq!(edit_where_found(edits, json, &values), edited.clone().map(|()| out.clone()), "{json}");
    edited.map(|()| String::from_utf8(out).unwrap())
}

/// The same, where the members were found beside fields, one of a name that is edited as well, in the second of three
/// documents.
fn edit_where_found(mut edits: Edits, json: &str, values: &[Change<'_>]) -> Result<Vec<u8>, EditError> {
    let fields = ["/a", "/b/c/0", "", "/a/a"].map(|pointer| edits.add_field(pointer).unwrap());
    let mut alone = Fields::default();
    let looked_up = ["/a", "/b/c/0", "", "/a/a"].map(|pointer| alone.add(pointer).unwrap());
    let mut sites = Sites::default();
    edits.find(r#"{"a":{}}"#, &mut sites).unwrap();
    match (edits.find(json, &mut sites), alone.find(json)) {
        (Ok(found), Ok(other)) => {
            let raw = |value: Option<tidemill_json::Value<'_>>| value.map(|value| value.raw().to_vec());
            for (field, other_field) in fields.into_iter().zip(looked_up) {
                assert_eq!(raw(found.get(field)), raw(other.get(other_field)), "{json}");
            }
        }
        (Err(invalid), Err(other)) => {
            assert_eq!(invalid, other, "{json}");
            sites.skip();
        }
        (found, other) => panic!("{json}: {found:?}, and alone {other:?}"),
    }
    edits.find(r#"[1,{"b":2}]"#, &mut sites).unwrap();
    let mut out = Vec::new();
    edits.apply_at(json, (&sites, 1), values, &mut out).map(|()| out)
}

#[test]
fn of_many_members_of_one_name_all_are_set_whether_that_many_places_are_kept_or_not() {
    for count in [10, 100_000] {
        let json = format!("{{{}}}", vec![r#""a":1"#; count].join(","));
        assert_eq!(edit(&json, &[("/a", Change::Set(b"2"))]).unwrap(), json.replace('1', "2"));
    }
}

#[test]
fn a_member_is_set_in_place_or_added_last_and_other_bytes_stay() {
    for (json, changes, edited) in [
        (r#"{"a":1}"#, &[("/a", Change::Number(2.5))][..], r#"{"a":2.5}"#),
        (r#"{"a":1}"#, &[("/b", Change::Set(b"[2]"))], r#"{"a":1,"b":[2]}"#),
        ("{}", &[("/b", Change::Number(1.0))], r#"{"b":1.0}"#),
        (" { }\n", &[("/b", Change::Set(b"null"))], " { \"b\":null}\n"),
        (
            " { \"a\" : 1 , \"b\":{ } }\n",
            &[("/a", Change::Set(b"0")), ("/b/c", Change::Set(b"1")), ("/b/d", Change::Set(b"2"))],
            " { \"a\" : 0 , \"b\":{ \"c\":1,\"d\":2} }\n",
        ),
        (r#"{"a":1,"\u0061":{"a":3}}"#, &[("/a", Change::Set(b"2"))], r#"{"a":2,"\u0061":2}"#),
        (r#"{"a":{"x":1},"a":{}}"#, &[("/a/x", Change::Set(b"2"))], r#"{"a":{"x":2},"a":{"x":2}}"#),
        (r#"{"a/~":1}"#, &[("/a~1~0", Change::Set(b"2")), ("/\"", Change::Set(b"3"))], r#"{"a/~":2,"\"":3}"#),
        (r#"[{"a":1},{}]"#, &[("/1/a", Change::Set(b"2"))], r#"[{"a":1},{"a":2}]"#),
        (r#"{"a":1}"#, &[("/a", Change::Leave), ("/b", Change::Leave)], r#"{"a":1}"#),
    ] {
        assert_eq!(edit(json, changes).unwrap(), edited, "{json}");
    }
}

#[test]
fn a_member_is_removed_with_one_comma() {
    for (json, pointers, edited) in [
        (r#"{"a":1}"#, &["/a"][..], "{}"),
        (r#"{"a":1,"b":2}"#, &["/a"], r#"{"b":2}"#),
        (r#"{"a":1,"b":2}"#, &["/b"], r#"{"a":1}"#),
        (r#"{"a":1,"b":2}"#, &["/a", "/b"], "{}"),
        (r#"{"a":1 , "b":2 , "c":3 }"#, &["/b"], r#"{"a":1 , "c":3 }"#),
        (r#"{ "a":1 , "a":[",}"] , "c":2}"#, &["/a"], r#"{ "c":2}"#),
        (r#"{ "a":1 , "b":2, "a":3 , "c":4}"#, &["/a", "/c"], r#"{ "b":2}"#),
        (r#"{"x":1}"#, &["/a", "/x/y", "/y/z"], r#"{"x":1}"#),
        ("[1]", &["/0", "/a"], "[1]"),
    ] {
        let changes: Vec<_> = pointers.iter().map(|pointer| (*pointer, Change::Remove)).collect();
        assert_eq!(edit(json, &changes).unwrap(), edited, "{json}");
    }
    let changes = [("/a", Change::Remove), ("/b", Change::Set(b"2"))];
    assert_eq!(edit(r#"{"a":1}"#, &changes).unwrap(), r#"{"b":2}"#);
    assert_eq!(edit(r#"{"a":1,"c":3}"#, &changes).unwrap(), r#"{"c":3,"b":2}"#);
}

#[test]
fn what_is_no_json_is_not_edited_where_its_members_were_found_before_the_mistake() {
    for json in ["", "{", r#"{"a":1"#, r#"{"a":1}}"#, r#"{"a":1,"a":}"#, r#"{"b":{"a":1},"a":2,}"#] {
        let edited = edit(json, &[("/a", Change::Number(1.0)), ("/b/a", Change::Remove)]);
        assert!(matches!(edited, Err(EditError::Document(_))), "{json}: {edited:?}");
    }
}

#[test]
fn what_cannot_be_edited_is_told_and_nothing_is_written() {
    let mut edits = Edits::default();
    let (a, b) = (edits.add("/a").unwrap(), edits.add("/b/c").unwrap());
    let mut out = b"before".to_vec();
    let mut apply = |json: &str, a, b| edits.apply(json, &[a, b], &mut out).unwrap_err();
    assert_eq!(apply("{", Change::Leave, Change::Leave), EditError::Document(Invalid::Syntax(1)));
    assert_eq!(apply("{}", Change::Set(b"1 2"), Change::Leave), EditError::Value(a, Invalid::Syntax(2)));
    assert_eq!(apply("{}", Change::Set(b"\"\xff\""), Change::Leave), EditError::Value(a, Invalid::NotUtf8));
    assert_eq!(apply("{}", Change::Number(f64::NAN), Change::Leave), EditError::NotFinite(a));
    assert_eq!(apply("{}", Change::Leave, Change::Set(b"1")), EditError::NoObject(b));
    assert_eq!(apply(r#"{"b":[]}"#, Change::Leave, Change::Set(b"1")), EditError::NoObject(b));
    assert_eq!(apply("[]", Change::Set(b"1"), Change::Leave), EditError::NoObject(a));
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let most = MAX_DEPTH as usize;
    let too_deep = apply("{}", Change::Set(deep(most).as_bytes()), Change::Leave);
    assert_eq!(too_deep, EditError::Value(a, Invalid::TooDeep));
    assert_eq!(out, b"before");
    edits.apply("{}", &[Change::Set(deep(most - 1).as_bytes())], &mut out).unwrap();
}

#[test]
fn members_are_compiled_or_refused() {
    let mut edits = Edits::default();
    assert_eq!([edits.add("/a/b").unwrap(), edits.add("/c").unwrap(), edits.add("/a/b").unwrap()], [0, 1, 0]);
    assert_eq!(edits.add(""), Err(InvalidMember::Document));
    for pointer in ["/a", "/c/d", "/a/b/c"] {
        assert_eq!(edits.add(pointer), Err(InvalidMember::Overlap(pointer.into())));
    }
    assert!(matches!(edits.add("a"), Err(InvalidMember::Pointer(_))));
    assert_eq!((edits.len(), edits.is_empty()), (2, false));
    assert_eq!(edits.add("/a/c").unwrap(), 2);
}

/// What a tree becomes.
fn edit_tree(tree: &mut Value, parent: &str, name: &str, change: Change<'_>) -> bool {
    let object = tree.pointer_mut(parent).and_then(Value::as_object_mut);
    match (object, change) {
        (_, Change::Leave) | (None, Change::Remove) => {}
        (None, _) => return false,
        (Some(object), Change::Remove) => drop(object.remove(name)),
        (Some(object), Change::Set(json)) => {
            object.insert(name.to_owned(), serde_json::from_slice(json).unwrap());
        }
        (Some(object), Change::Number(number)) => drop(object.insert(name.to_owned(), number.into())),
    }
    true
}

fn change() -> impl Strategy<Value = Change<'static>> {
    prop_oneof![
        Just(Change::Leave),
        Just(Change::Remove),
        prop::sample::select(vec![&b"1"[..], b"\"x\"", b" [{}]", b"{\"a\":[1]}"]).prop_map(Change::Set),
        any::<i32>().prop_map(|eighths| Change::Number(f64::from(eighths) / 8.0)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn an_edited_document_reads_as_the_edited_tree(json in document(), changes in prop::array::uniform4(change())) {
        let members = [("", "a"), ("/b", "a"), ("", "0"), ("/b", "new")];
        let mut tree: Value = serde_json::from_str(&json).unwrap();
        let pointers = members.map(|(parent, name)| format!("{parent}/{name}"));
        let edited: Vec<_> =
            pointers.iter().zip(changes).map(|(pointer, change)| (pointer.as_str(), change)).collect();
        let results: Vec<_> = members
            .iter()
            .zip(changes)
            .map(|((parent, name), change)| edit_tree(&mut tree, parent, name, change))
            .collect();
        let result = edit(&json, &edited);
        if results.iter().all(|was_possible| *was_possible) {
            let text = result.unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), tree, "{} became {}", json, text);
            if changes == [Change::Leave; 4] {
                prop_assert_eq!(text, json);
            }
        } else {
            // Another object of that name, which does not count, may have been there.
            let has_others = json.matches("\"b\"").count() > 1;
            prop_assert!(has_others || matches!(result, Err(EditError::NoObject(_))));
        }
    }
}
