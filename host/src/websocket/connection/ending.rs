//! How connections end: what the log says of it, what the peer is told, and what is counted.

use super::io::WriteError;
use crate::connections::Dismissal;
use crate::foreign_text;
use crate::message::metadata::{self, Metadata, Origin};
use crate::message::reply::Closing;
use crate::message::{Failed, Message, Payload};
use crate::reason::Reason;
use crate::websocket::close_code;
use bytes::Bytes;
use std::sync::Arc;
use tokio::time::Instant;

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// The peer sent a close frame.
    Closed {
        /// Its code, if it had one.
        code: Option<u16>,
        /// Its reason; often "".
        reason: String,
    },
    /// The stream broke, or ended without a close frame.
    Lost(String),
    /// The peer sent a frame or message above the limit; it is closed with 1009.
    TooLarge {
        /// What it would have been.
        bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
    },
    /// The peer broke the protocol; it is closed with this code.
    Violation {
        /// 1002 or 1007.
        code: u16,
        /// What it did.
        detail: String,
    },
    /// The peer did not answer a ping; it is closed with 1011.
    Silent,
    /// The peer did not answer a heartbeat; it is closed with 1011.
    NoReply,
    /// No message for `idle_timeout`; the peer is closed with 1000.
    Idle,
    /// The peer read too slowly; it is closed with 1013.
    TooSlow,
    /// Somebody wanted it closed, with this close frame.
    Dismissed(Dismissal),
    /// A plugin of its pipeline wanted it closed.
    Steered {
        /// With this close frame.
        closing: Closing,
        /// Since then, which bounds the closing handshake: what came before the close frame may have taken
        /// its time.
        since: Instant,
    },
    /// Our endpoint stops; the peer is closed with this code.
    Stopped {
        /// Usually 1001.
        code: u16,
    },
}

impl ConnectionEnd {
    /// What a message that was too large to be read is counted and reported as.
    pub fn failed(&self, origin: &Arc<Origin>) -> Option<Failed> {
        matches!(self, Self::TooLarge { .. }).then(|| Failed {
            message: Message {
                payload: Payload::binary(Bytes::new()),
                metadata: Metadata::new(origin.clone(), metadata::now_us()),
            },
            reason: Reason::TooLarge,
            detail: self.to_string(),
        })
    }

    /// The close frame that we send, if the peer is to get one.
    pub fn close_frame(&self) -> Option<(u16, String)> {
        match self {
            Self::Closed { .. } | Self::Lost(_) => None,
            Self::TooLarge { limit_bytes, .. } => {
                Some((close_code::TOO_LARGE, format!("larger than {limit_bytes} bytes")))
            }
            Self::Violation { code, detail } => Some((*code, detail.clone())),
            Self::Silent => Some((close_code::INTERNAL_ERROR, "no answer to a ping".to_owned())),
            Self::NoReply => Some((close_code::INTERNAL_ERROR, "no answer to a heartbeat".to_owned())),
            Self::Idle => Some((close_code::NORMAL, "idle".to_owned())),
            Self::TooSlow => Some((close_code::TRY_AGAIN_LATER, "reads too slowly".to_owned())),
            Self::Dismissed(Dismissal { code, reason })
            | Self::Steered { closing: Closing { code, reason }, .. } => Some((*code, reason.clone())),
            Self::Stopped { code } => Some((*code, String::new())),
        }
    }
}

impl From<WriteError> for ConnectionEnd {
    fn from(error: WriteError) -> Self {
        Self::Lost(error.to_string())
    }
}

impl std::fmt::Display for ConnectionEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed { code: None, .. } => f.write_str("closed by the peer"),
            Self::Closed { code: Some(code), reason } if reason.is_empty() => {
                write!(f, "closed by the peer: {code}")
            }
            Self::Closed { code: Some(code), reason } => {
                write!(f, "closed by the peer: {code} {}", foreign_text::shown(reason))
            }
            Self::Lost(detail) => write!(f, "lost: {detail}"),
            Self::TooLarge { bytes, limit_bytes } => {
                write!(f, "a message of {bytes} bytes is larger than max_message_size ({limit_bytes} bytes)")
            }
            Self::Violation { detail, .. } => write!(f, "the peer broke the protocol: {detail}"),
            Self::Silent => f.write_str("no answer to a ping"),
            Self::NoReply => f.write_str("no answer to a heartbeat"),
            Self::Idle => f.write_str("idle"),
            Self::TooSlow => f.write_str("the peer reads too slowly"),
            Self::Dismissed(Dismissal { reason, .. }) => f.write_str(reason),
            // The reason is for the peer: it is the plugin's text, which may quote its configuration.
            Self::Steered { closing, .. } => write!(f, "closed by its pipeline: {}", closing.code),
            Self::Stopped { .. } => f.write_str("stopped"),
        }
    }
}
