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

/// `, in a < b < c`, the innermost first, without what is the runtime's own; empty if nothing is left.
pub(super) fn shown<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut shown = String::new();
    let names = names.map(|name| format!("{:#}", rustc_demangle::demangle(name)));
    let own = names.filter(|name| !is_runtime(name));
    for (n, name) in own.take(MAX_FRAMES).enumerate() {
        // Writing to a string does not fail.
        let _ = write!(shown, "{}{name}", if n == 0 { ", in " } else { " < " });
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
        assert_eq!(shown(names.into_iter()), ", in vwap::window::add < main.process");
        assert_eq!(shown(["abort"].into_iter()), "");
    }
}
