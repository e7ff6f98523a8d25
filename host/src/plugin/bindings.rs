//! The contract in `wit/`, as Rust.
//!
//! What goes in is borrowed, so that the host decides where it lies; what comes out is owned. Nothing
//! here leaves this folder.

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
