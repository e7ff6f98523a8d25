//! The host's random numbers, which a replay may repeat. Not for secrets.

/// A number, uniform in [0, 1).
pub fn next() -> f64 {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::tidemill::plugin::random::next();
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::host(crate::testing::Host::random)
}
