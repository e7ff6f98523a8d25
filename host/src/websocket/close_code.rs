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
