//! Any bytes: they are JSON where `serde_json` says so, the same stands at pointers, and edits of valid documents are
//! valid.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;
use tidemill_json::{Change, Edits, Fields, Found, Invalid, Sites};

const POINTERS: [&str; 8] = ["", "/a", "/b", "/a/b", "/0", "/1/a", "/", "/a longer name/0"];

fuzz_target!(|bytes: &[u8]| {
    let mut fields = Fields::default();
    let pointers = POINTERS.map(|pointer| (pointer, fields.add(pointer).expect("it is a pointer")));
    let is_json = serde_json::from_slice::<&RawValue>(bytes).is_ok();
    let found = match fields.find(bytes) {
        Ok(found) => found,
        // A raw value may be as deep as it likes.
        Err(invalid) => return assert!(!is_json || invalid == Invalid::TooDeep, "{invalid}"),
    };
    assert!(is_json, "it was taken for JSON");
    // Half a surrogate pair and numbers that are too large are JSON, and no tree.
    if let Ok(tree) = serde_json::from_slice::<Value>(bytes) {
        for (pointer, field) in pointers {
            let value = found.get(field).map(|value| serde_json::from_slice::<Value>(value.raw()).expect("it is JSON"));
            assert_eq!(value.as_ref(), tree.pointer(pointer), "{pointer}");
        }
    }
    let mut edits = Edits::default();
    for member in ["/a", "/b/a", "/0"] {
        edits.add(member).expect("it is a member");
    }
    let (mut out, mut out_where_found) = (Vec::new(), Vec::new());
    let changes = [Change::Set(b"[1]"), Change::Remove, Change::Number(2.5)];
    let edited = edits.apply(bytes, &changes, &mut out);
    if edited.is_ok() {
        assert!(serde_json::from_slice::<&RawValue>(&out).is_ok(), "the edit is not JSON");
    }
    for pointer in POINTERS {
        edits.add_field(pointer).expect("it is a pointer");
    }
    let mut sites = Sites::default();
    let found_beside = edits.find(bytes, &mut sites).expect("it was JSON before");
    for (_, field) in pointers {
        let raw = |found: Found<'_>| found.get(field).map(|value| value.raw().to_vec());
        assert_eq!(raw(found_beside), raw(found), "{field:?}");
    }
    assert_eq!(edits.apply_at(bytes, (&sites, 0), &changes, &mut out_where_found), edited);
    assert_eq!(out_where_found, out);
});
