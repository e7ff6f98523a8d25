//! The plugin's own metrics, `tidemill_guest_<name>` beside the host's.
//!
//! Names are lower-case letters, digits and `_`, and the host keeps a bounded number of them. What a
//! call adds counts once its outcome is accepted.

/// Adds to a counter; what is below 0 is ignored.
pub fn add(counter: &str, by: f64) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::tidemill::plugin::metrics::add(counter, by);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::host(|host| *host.counters.entry(counter.to_owned()).or_default() += by.max(0.0));
}

/// Sets a gauge.
pub fn set(gauge: &str, value: f64) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::tidemill::plugin::metrics::set(gauge, value);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::host(|host| host.gauges.insert(gauge.to_owned(), value));
}

/// Records a value in a histogram.
pub fn observe(histogram: &str, value: f64) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::tidemill::plugin::metrics::observe(histogram, value);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::host(|host| host.histograms.entry(histogram.to_owned()).or_default().push(value));
}
