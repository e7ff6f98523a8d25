//! The close codes we send (RFC 6455 section 7.4.1, and the registry that it began).

/// All is said.
pub const NORMAL: u16 = 1000;
/// The endpoint stops.
pub const GOING_AWAY: u16 = 1001;
/// The peer broke the protocol.
pub const PROTOCOL: u16 = 1002;
/// A text is not UTF-8.
pub const NOT_UTF8: u16 = 1007;
/// An operator wants it closed.
pub const POLICY: u16 = 1008;
/// A message is too large.
pub const TOO_LARGE: u16 = 1009;
/// The pipeline failed, or the peer did not answer a ping.
pub const INTERNAL_ERROR: u16 = 1011;
/// The peer reads too slowly.
pub const TRY_AGAIN_LATER: u16 = 1013;

/// The codes that an endpoint may send, in words.
pub const SENDABLE: &str = "1000 to 1003, 1007 to 1013 and 3000 to 4999";

/// Whether an endpoint may send a code: 1010 is for those that dialled alone. 1014, which came late, many peers take
/// for none.
pub fn may_send(code: u16, has_dialled: bool) -> bool {
    match code {
        1010 => has_dialled,
        1000..=1003 | 1007..=1013 | 3000..=4999 => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

    #[test]
    fn the_codes_that_may_be_sent_are_those_that_a_peer_may_receive() {
        for code in 0..=u16::MAX {
            // It takes some that nobody has given a meaning.
            assert!(!may_send(code, true) || CloseCode::from(code).is_allowed(), "{code}");
        }
        assert!([1004, 1005, 1006, 1014, 1015, 1016, 2999, 5000].iter().all(|code| !may_send(*code, true)));
        assert!(may_send(1010, true) && !may_send(1010, false) && may_send(4000, false));
    }
}
