//! The contract in `wit/`, as Rust: that of transforms here, that of connectors in [`connector`].
//!
//! What goes into a transform is borrowed, so that the host decides where it lies; what comes out is owned.
//! Nothing here leaves this folder.

#![allow(missing_docs, unreachable_pub, reason = "generated from wit/transform.wit, which is documented")]

wasmtime::component::bindgen!({
    world: "transform-http",
    path: "wit",
    // The other functions have an answer to everything.
    imports: {
        "tidemill:plugin/state.get-many": trappable,
        // A guest waits for what it asked for.
        "tidemill:plugin/http.send": async,
        "tidemill:plugin/http.send-all": async,
    },
    exports: { default: async },
    ownership: Borrowing { duplicate_if_necessary: true },
});

/// The world of connectors, which has the imports of transforms.
pub mod connector {
    #![allow(dead_code, reason = "it has types that only transforms use")]

    wasmtime::component::bindgen!({
        world: "connector-http",
        path: "wit",
        exports: { default: async },
        with: {
            "tidemill:plugin/log": super::tidemill::plugin::log,
            "tidemill:plugin/state": super::tidemill::plugin::state,
            "tidemill:plugin/metrics": super::tidemill::plugin::metrics,
            "tidemill:plugin/clock": super::tidemill::plugin::clock,
            "tidemill:plugin/random": super::tidemill::plugin::random,
            "tidemill:plugin/http": super::tidemill::plugin::http,
        },
    });
}
