//! State that is hard to carry: an instance that is nearly full, and snapshots that are too much.

use std::cell::RefCell;
use std::hint::black_box;

/// Memory that `nearly_full` takes: of the 64 MiB that there are unless the configuration says otherwise,
/// all but what the guest itself needs.
const FULL_BYTES: usize = 60 << 20;
/// Its snapshot, for which there is no room beside that.
const SNAPSHOT_BYTES: usize = 12 << 20;
/// More than twice the 16 MiB that a call may return.
const HUGE_BYTES: usize = 40 << 20;

thread_local! {
    static TAKEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn is_known(name: &str) -> bool {
    matches!(name, "nearly_full" | "huge_snapshot")
}

/// Takes the memory that a behaviour needs, once a message says `poison`.
pub(crate) fn fill(behaviour: &str) {
    if behaviour == "nearly_full" {
        TAKEN.set(black_box(vec![1; FULL_BYTES]));
    }
}

pub(crate) fn snapshot(behaviour: Option<&str>) -> Vec<u8> {
    match behaviour {
        Some("nearly_full") => vec![1; SNAPSHOT_BYTES],
        Some("huge_snapshot") => vec![1; HUGE_BYTES],
        _ => b"hostile".to_vec(),
    }
}
