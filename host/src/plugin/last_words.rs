//! What a guest said before it fell over: the message of its panic, for the fault that follows.
//!
//! A panic reaches the host as a trap that says nothing. Its message comes before it, by a way of each
//! language: the SDK's hook logs it, Rust and Go print it to standard error, Python a traceback.

/// Longest message that is kept; what is shown of it is shorter.
const MAX_BYTES: usize = 16 << 10;

/// The panic of the current call, or what was printed last.
#[derive(Debug, Default)]
pub(super) struct LastWords {
    panic: Option<String>,
    /// Rust says where in one line, and what in the next.
    is_unfinished: bool,
    printed: Option<String>,
}

impl LastWords {
    /// A line of the log.
    pub(super) fn logged(&mut self, text: &str) {
        if is_panic(text) {
            self.panic = Some(kept(text));
            self.is_unfinished = false;
        }
    }

    /// A line of standard error.
    pub(super) fn printed(&mut self, line: &str) {
        if line.trim().is_empty() || line.starts_with("note: ") {
            return;
        }
        if is_panic(line) {
            self.panic = Some(kept(line));
            self.is_unfinished = line.trim_end().ends_with(':');
        } else if self.is_unfinished {
            self.is_unfinished = false;
            if let Some(panic) = &mut self.panic {
                panic.push(' ');
                panic.push_str(&kept(line));
            }
        } else {
            self.printed = Some(kept(line));
        }
    }

    /// The message, in one line.
    pub(super) fn take(&mut self) -> Option<String> {
        let Self { panic, printed, .. } = std::mem::take(self);
        panic.or(printed).map(|words| words.trim().replace(":\n", ": "))
    }
}

fn is_panic(text: &str) -> bool {
    // The message itself may be anything; the words of a runtime stand near the front.
    let front = &text[..text.floor_char_boundary(256)];
    front.starts_with("panicked at ")
        || front.contains("' panicked at ")
        || front.contains(") panicked at ")
        || front.starts_with("panic: ")
        || front.starts_with("fatal error: ")
}

fn kept(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_BYTES)].trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(printed: &[&str]) -> Option<String> {
        let mut words = LastWords::default();
        printed.iter().for_each(|line| words.printed(line));
        words.take()
    }

    #[test]
    fn the_panic_of_each_language_is_found() {
        let mut logged = LastWords::default();
        logged.logged("an error that is none of it");
        logged.logged("panicked at src/lib.rs:1:2:\nno price");
        logged.printed("something else");
        assert_eq!(logged.take().as_deref(), Some("panicked at src/lib.rs:1:2: no price"));
        assert_eq!(logged.take(), None);

        let rust =
            ["", "thread 'main' (1) panicked at src/lib.rs:1:2:", "no price", "note: run with `RUST_..."];
        assert_eq!(said(&rust).as_deref(), Some("thread 'main' (1) panicked at src/lib.rs:1:2: no price"));
        let go = ["panic: no price", "", "goroutine 1 [running]:", "main.process()"];
        assert_eq!(said(&go).as_deref(), Some("panic: no price"));
        let python = ["Traceback (most recent call last):", "  File \"p.py\", line 1", "KeyError: 'price'"];
        assert_eq!(said(&python).as_deref(), Some("KeyError: 'price'"));
        assert_eq!(said(&[]), None);
    }
}
