//! What is built into the program: shipped plugins, the recording of the demo, and the reference of the
//! configuration. A build that was given none of them has none; `build.rs` says how it is given.

include!(concat!(env!("OUT_DIR"), "/builtin.rs"));

/// The names of the built-in plugins, in alphabetical order.
pub(crate) fn plugin_names() -> impl Iterator<Item = &'static str> {
    PLUGINS.iter().map(|(name, _)| *name)
}

/// The component of a built-in plugin.
pub(crate) fn plugin(name: &str) -> Option<&'static [u8]> {
    PLUGINS.iter().find(|(known, _)| *known == name).map(|(_, wasm)| *wasm)
}

/// The recording of the demo, compressed with gzip.
pub(crate) fn recording() -> Option<&'static [u8]> {
    RECORDING
}

/// The reference of the configuration, in Markdown.
pub(crate) fn reference() -> Option<&'static str> {
    REFERENCE.and_then(|text| std::str::from_utf8(text).ok())
}

/// What to tell whoever misses a plugin, where it may be for want of built-in ones.
pub(crate) fn hint() -> Option<&'static str> {
    PLUGINS
        .is_empty()
        .then_some("this build has no built-in plugins; `cargo xtask install` makes one that has")
}
