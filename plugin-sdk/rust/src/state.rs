//! Values that the host keeps for the transform: they outlive the instance, its faults and swaps.
//!
//! What a call changes counts once its outcome is accepted. Each function here is a call into the host, which
//! costs as much as to forward several messages: [`get_many`] and [`set_many`], once a batch, are the fast way.

pub use crate::bindings::tidemill::plugin::state::Change;

use crate::Result;
use std::time::Duration;

/// The value of a key, if it has one.
pub fn get(key: &str) -> Option<Vec<u8>> {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::tidemill::plugin::state::get(key);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::host(|host| host.state(key).cloned())
}

/// The value of each key, if it has one.
pub fn get_many(keys: &[String]) -> Vec<Option<Vec<u8>>> {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::tidemill::plugin::state::get_many(keys);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::host(|host| keys.iter().map(|key| host.state(key).cloned()).collect())
}

/// Gives a key a value until it is changed.
///
/// # Errors
/// The limit that it would break.
pub fn set(key: &str, value: &[u8]) -> Result {
    #[cfg(target_arch = "wasm32")]
    return Ok(crate::bindings::tidemill::plugin::state::set(key, value)?);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::host(|host| host.change(&[Change::set(key, value)]))
}

/// Makes all changes, in their order, or none.
///
/// # Errors
/// The limit that they would break.
pub fn set_many(changes: &[Change]) -> Result {
    #[cfg(target_arch = "wasm32")]
    return Ok(crate::bindings::tidemill::plugin::state::set_many(changes)?);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::host(|host| host.change(changes))
}

/// Removes a key.
pub fn delete(key: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::tidemill::plugin::state::delete(key);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::host(|host| drop(host.change(&[Change::remove(key)])));
}

/// The keys that start with `prefix` and come after `after`, ascending, at most `limit`.
pub fn keys(prefix: &str, after: Option<&str>, limit: u32) -> Vec<String> {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::tidemill::plugin::state::keys(prefix, after, limit);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::host(|host| {
        let keys = host.state.keys().filter(|key| key.starts_with(prefix) && host.state(key).is_some());
        let keys = keys.filter(|key| after.is_none_or(|after| key.as_str() > after));
        keys.take(limit as usize).cloned().collect()
    })
}

impl Change {
    /// Gives a key a value until it is changed.
    pub fn set(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), value: Some(value.into()), ttl_ms: 0 }
    }

    /// Removes a key.
    pub fn remove(key: impl Into<String>) -> Self {
        Self { key: key.into(), value: None, ttl_ms: 0 }
    }

    /// The same for so long, in whole milliseconds and at least one; then the key has no value any more.
    pub fn lasting(mut self, ttl: Duration) -> Self {
        self.ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        self
    }
}
