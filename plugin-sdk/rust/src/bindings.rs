//! The bindings that `wit-bindgen` makes of `wit/`.
//!
//! No type of this module is part of the SDK's own interface, except for those that the crate root
//! names one by one. It is public, and hidden, because the code of `export!` stands in the plugin's
//! crate and reaches for it there.

wit_bindgen::generate!({
    path: "wit",
    world: "transform-http",
    pub_export_macro: true,
    export_macro_name: "export_transformer",
    default_bindings_module: "tidemill_plugin::bindings",
});
