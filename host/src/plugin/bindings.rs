//! The contract in `wit/`, as Rust.
//!
//! Types are owned, so that the batch which goes in can be kept by the instance and filled again
//! for every call; it is passed by reference. Nothing here leaves this folder.

#![allow(missing_docs, unreachable_pub, reason = "generated from wit/transform.wit, which is documented")]

wasmtime::component::bindgen!({
    world: "transform",
    path: "../wit",
    exports: { default: async },
});
