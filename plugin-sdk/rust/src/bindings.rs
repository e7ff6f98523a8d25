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

/// Those of connectors, which have the imports of transforms.
pub mod connector {
    wit_bindgen::generate!({
        path: "wit",
        world: "connector-http",
        pub_export_macro: true,
        export_macro_name: "export_dialler",
        default_bindings_module: "tidemill_plugin::bindings::connector",
        with: {
            "tidemill:plugin/types@0.1.0": crate::bindings::tidemill::plugin::types,
            "tidemill:plugin/log@0.1.0": crate::bindings::tidemill::plugin::log,
            "tidemill:plugin/state@0.1.0": crate::bindings::tidemill::plugin::state,
            "tidemill:plugin/metrics@0.1.0": crate::bindings::tidemill::plugin::metrics,
            "tidemill:plugin/clock@0.1.0": crate::bindings::tidemill::plugin::clock,
            "tidemill:plugin/random@0.1.0": crate::bindings::tidemill::plugin::random,
            "tidemill:plugin/http@0.1.0": crate::bindings::tidemill::plugin::http,
        },
    });
}
