//! Any bytes: they are JSON where `serde_json` says so, the same stands at pointers, and edits of valid documents are
//! valid.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;
use tidemill_json::{Change, Edits, Fields, Invalid};

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
    let mut out = Vec::new();
    let changes = [Change::Set(b"[1]"), Change::Remove, Change::Number(2.5)];
    if edits.apply(bytes, &changes, &mut out).is_ok() {
        assert!(serde_json::from_slice::<&RawValue>(&out).is_ok(), "the edit is not JSON");
    }
});
