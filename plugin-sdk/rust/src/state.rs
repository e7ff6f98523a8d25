//! Values that the host keeps for the transform: they outlive the instance, its faults and swaps.
//!
//! What a call changes counts once its outcome is accepted.

use crate::Result;

/// The value of a key, if it has one.
pub fn get(key: &str) -> Option<Vec<u8>> {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::tidemill::plugin::state::get(key);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::host(|host| host.state.get(key).cloned())
}

/// Gives a key a value.
///
/// # Errors
/// The limit that it would break.
pub fn set(key: &str, value: &[u8]) -> Result {
    #[cfg(target_arch = "wasm32")]
    return Ok(crate::bindings::tidemill::plugin::state::set(key, value)?);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::host(|host| {
        host.state.insert(key.to_owned(), value.to_owned());
        Ok(())
    })
}

/// Removes a key.
pub fn delete(key: &str) {
    #[cfg(target_arch = "wasm32")]
    crate::bindings::tidemill::plugin::state::delete(key);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::host(|host| host.state.remove(key));
}

/// The keys that start with `prefix` and come after `after`, ascending, at most `limit`.
pub fn keys(prefix: &str, after: Option<&str>, limit: u32) -> Vec<String> {
    #[cfg(target_arch = "wasm32")]
    return crate::bindings::tidemill::plugin::state::keys(prefix, after, limit);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::host(|host| {
        let keys = host.state.keys().filter(|key| key.starts_with(prefix));
        let keys = keys.filter(|key| after.is_none_or(|after| key.as_str() > after));
        keys.take(limit as usize).cloned().collect()
    })
}
