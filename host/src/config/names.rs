//! Names that other protocols define: hosts, and the tokens of HTTP.

use std::net::IpAddr;

/// Whether this names the machine itself: `localhost`, or an address of the loopback without brackets.
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// Whether this is an IP address or could be a name.
pub(super) fn is_host(text: &str) -> bool {
    let is_of_a_name = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b'_';
    text.parse::<IpAddr>().is_ok() || (!text.is_empty() && text.bytes().all(is_of_a_name))
}

/// Whether this is a `token` of RFC 9110.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
