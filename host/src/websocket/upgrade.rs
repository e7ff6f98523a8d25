//! What both sides of an HTTP upgrade need.

use hyper::header::{HeaderMap, HeaderName};

/// Whether one of the comma-separated words of a header is `token`, in whatever case.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(token))
}

/// A name for a new connection, for `__meta_connection`.
pub(super) fn connection_id() -> String {
    format!("{:016x}", fastrand::u64(..))
}
