//! The functions a trap happened in, by the names their authors gave them.

use std::fmt::Write as _;

/// Frames that are worth showing.
const MAX_FRAMES: usize = 8;

/// What functions of a language's runtime and of generated bindings begin with: they are the same in every
/// trap and say nothing of its reason.
const RUNTIME: [&str; 20] = [
    "std::",
    "core::",
    "alloc::",
    "<std::",
    "<core::",
    "<alloc::",
    "__rust",
    "__rdl",
    "__rg",
    "rust_",
    "dlmalloc",
    "<dlmalloc",
    "wit_bindgen",
    "cabi_",
    "__wasm",
    "__cabi",
    "__export",
    "runtime.",
    "tidemill:plugin/",
    "wasi:",
];
/// What such names have inside, where they begin with a type or a crate of the author.
const GENERATED: [&str; 3] = ["bindings::exports::", "::__export_", "::_export_"];

/// A function that a trap happened in.
pub(super) struct Frame<'a> {
    pub(super) name: &'a str,
    /// The file, and the line in it.
    pub(super) place: Option<(&'a str, u32)>,
}

/// `, in a < b < c`, the innermost first, without what is the runtime's own; empty if nothing is left. With lines it is
/// `, in a (plugin.c:12) < b (plugin.c:7)`.
pub(super) fn shown<'a>(frames: impl Iterator<Item = Frame<'a>>) -> String {
    let mut shown = String::new();
    let frames = frames.map(|frame| (format!("{:#}", rustc_demangle::demangle(frame.name)), frame.place));
    let own = frames.filter(|(name, _)| !is_runtime(name));
    for (n, (name, place)) in own.take(MAX_FRAMES).enumerate() {
        // Writing to a string does not fail.
        let _ = write!(shown, "{}{name}", if n == 0 { ", in " } else { " < " });
        if let Some((path, line)) = place {
            let file = path.rsplit('/').next().unwrap_or(path);
            let _ = write!(shown, " ({file}:{line})");
        }
    }
    shown
}

fn is_runtime(name: &str) -> bool {
    name == "abort"
        || RUNTIME.iter().any(|start| name.starts_with(start))
        || GENERATED.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_demangled_and_those_of_the_runtime_left_out() {
        let names = [
            "__rustc::rust_panic",
            "_RNvNtCs1234_4core9panicking9panic_fmt",
            "_ZN4core9panicking9panic_fmt17h0123456789abcdefE",
            "_ZN4vwap6window3add17h0123456789abcdefE",
            "main.process",
            "tidemill:plugin/transformer@0.1.0#process",
        ];
        let named =
            |names: &[&'static str]| names.iter().map(|name| Frame { name, place: None }).collect::<Vec<_>>();
        assert_eq!(shown(named(&names).into_iter()), ", in vwap::window::add < main.process");
        assert_eq!(shown(named(&["abort"]).into_iter()), "");
    }

    #[test]
    fn a_line_that_is_known_stands_behind_its_function() {
        let frame = |name, place| Frame { name, place };
        let frames = [
            frame("worth", Some(("/home/a/fee/worth.h", 7))),
            frame("abort", Some(("/libc/abort.c", 1))),
            frame("process", Some(("plugin.c", 31))),
            frame("main", None),
        ];
        assert_eq!(shown(frames.into_iter()), ", in worth (worth.h:7) < process (plugin.c:31) < main");
    }
}
