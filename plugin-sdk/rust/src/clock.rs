//! The host's time, which a replay may set.

/// Microseconds since the Unix epoch.
pub fn now_us() -> u64 {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::tidemill::plugin::clock::now_us();
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::host(|host| host.now_us)
}
