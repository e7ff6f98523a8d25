//! What a panic says in the host's log.

use crate::log;

/// What stands in the panics of the standard library where there is no system.
const NO_SYSTEM: [&str; 2] = ["not implemented on this platform", "not supported on this platform"];
const INSTEAD: &str = "a plugin has no system: ask tidemill_plugin::clock for the time and random for chance, and do \
                       without threads, files and sockets";

/// Has panics written to the host's log.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| log::write(log::Level::Error, &told(&panic.to_string()))));
}

/// The panic, with what to do about it where that is known.
fn told(panic: &str) -> String {
    if NO_SYSTEM.iter().any(|words| panic.contains(words)) {
        format!("{panic}: {INSTEAD}")
    } else {
        panic.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_standard_library_cannot_do_is_told_with_what_can_be_done_instead() {
        let told_of =
            told("panicked at library/std/src/sys/time.rs:1:1:\ntime not implemented on this platform");
        assert!(
            told_of.ends_with("files and sockets") && told_of.contains("tidemill_plugin::clock"),
            "{told_of}"
        );
        assert_eq!(told("panicked at src/lib.rs:1:1:\nno"), "panicked at src/lib.rs:1:1:\nno");
    }
}
