//! Replies: each message goes back on the connection that the message it was made of came on.
//!
//! The connection is found through the message's origin. One that is gone, or was made anew
//! since, takes no reply: there is never another connection in its place. A message may also close its connection,
//! by the metadata `__meta_close` that a plugin set.

use super::framing::Framing;
use crate::config::{self, ReplySink};
use crate::connections::OpenEndpoint;
use crate::message::metadata::{CLOSE, CONNECTION, Origin};
use crate::message::reply::{Closing, Enqueued, OutgoingReply, ReplyTracker};
use crate::message::{Failed, Message};
use crate::reason::Reason;
use crate::telemetry::SinkMetrics;
use crate::wait_budget::StallLimit;
use crate::websocket::{ListenError, Listeners, Registration, close_code};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// Every close code has four digits; more of a text that is none are not repeated.
const MAX_CODE_DIGITS: usize = 5;

/// The way back to wherever messages came from.
#[derive(Debug)]
pub struct Replies {
    /// Keeps the peers of a server source until all replies are out.
    registration: Option<Registration>,
    tracker: Arc<ReplyTracker>,
    framing: Framing,
    metrics: SinkMetrics,
    /// A reply for whose connection there is no room yet, and where it came from.
    held: Option<(OutgoingReply, Arc<Origin>)>,
    /// When it is pushed again, at the latest.
    patience: Option<Pin<Box<Sleep>>>,
    in_flight: usize,
    /// Once no more replies come: how the peers are closed that have theirs.
    finishing: Option<u16>,
}

impl Replies {
    /// Answers on the connection that its pipeline's source dials.
    pub fn dialled(config: &ReplySink, metrics: SinkMetrics) -> Self {
        Self {
            registration: None,
            tracker: ReplyTracker::new(config.peers),
            framing: Framing::new(config.message_type, config.include_metadata, config.packing),
            metrics,
            held: None,
            patience: None,
            in_flight: 0,
            finishing: None,
        }
    }

    /// Answers the peers of its pipeline's source, which is open already.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn accepted(
        config: &ReplySink,
        source: &config::Endpoint,
        listen: &config::Listen,
        listeners: &Listeners,
        metrics: SinkMetrics,
        endpoint: OpenEndpoint,
    ) -> Result<Self, ListenError> {
        let mut reply = Self::dialled(config, metrics);
        reply.framing.reserve(source.metadata_names());
        reply.registration = Some(listeners.open_reply(source, listen, endpoint).await?);
        Ok(reply)
    }

    pub(super) fn poll_drive(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) {
        if let Some(settled) = self.tracker.news(cx) {
            let ended = usize::try_from(settled.delivered + settled.given_up).unwrap_or(usize::MAX);
            self.in_flight -= ended + settled.failed.len();
            self.metrics.account.delivered(settled.delivered);
            self.metrics.account.dropped(Reason::Shutdown, settled.given_up);
            failed.extend(settled.failed);
        }
        while let Some((reply, origin)) = self.held.take() {
            let until = self.send(reply, origin, failed).map(tokio::time::Instant::from_std);
            self.patience = until.map(|until| Box::pin(tokio::time::sleep_until(until)));
            let Some(patience) = &mut self.patience else {
                self.tracker.go_on();
                break;
            };
            if patience.as_mut().poll(cx).is_pending() {
                break;
            }
        }
    }

    pub(super) fn poll_ready(&mut self) -> Poll<()> {
        if self.held.is_none() { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(super) fn push(&mut self, message: Message, failed: &mut Vec<Failed>) {
        let mut message = match self.framing.typed(message) {
            Ok(message) => message,
            Err(unsendable) => return failed.push(unsendable),
        };
        let closing = match self.closing(&message) {
            Ok(closing) => closing,
            Err(detail) => return failed.push(Failed { message, reason: Reason::Invalid, detail }),
        };
        let origin = message.metadata.origin().clone();
        let frame = match closing {
            None => self.framing.frame(&message).into_owned(),
            Some(_) if message.payload.is_empty() => message.payload.clone(),
            Some(_) => {
                // That is for the host alone.
                message.metadata.set(&CLOSE.into(), "");
                self.framing.frame(&message).into_owned()
            }
        };
        self.in_flight += 1;
        // One that does not fit is looked at with the next turn.
        let _ = self.send(OutgoingReply { frame, message, closing }, origin, failed);
    }

    /// How the connection of a message is to be closed, if a plugin said so.
    ///
    /// # Errors
    /// What it said is no close frame that may be sent.
    #[inline]
    fn closing(&self, message: &Message) -> Result<Option<Closing>, String> {
        match message.metadata.change(CLOSE) {
            None | Some("") => Ok(None),
            Some(text) => closing_of(text, self.registration.is_none()).map(Some),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>, failed: &mut Vec<Failed>) -> Poll<()> {
        self.poll_drive(cx, failed);
        if let (Some(code), None, Some(registration)) = (self.finishing, &self.held, &mut self.registration) {
            // All replies are in line: each peer goes when its own are out.
            let _ = registration.poll_close(cx, code);
        }
        if self.in_flight == 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(super) fn finish(&mut self, code: u16) {
        self.finishing = Some(code);
    }

    pub(super) fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        code: u16,
        failed: &mut Vec<Failed>,
    ) -> Poll<()> {
        ready!(self.poll_flush(cx, failed));
        match &mut self.registration {
            Some(registration) => registration.poll_close(cx, code),
            None => Poll::Ready(()),
        }
    }

    pub(super) fn stop(&mut self, grace: Option<Duration>) {
        self.tracker.stop(StallLimit::new(grace));
        if let Some(registration) = &self.registration {
            registration.wake_peers();
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Puts a reply in line for its connection, or holds it; answers until when, if that is known.
    fn send(
        &mut self,
        reply: OutgoingReply,
        origin: Arc<Origin>,
        failed: &mut Vec<Failed>,
    ) -> Option<Instant> {
        let pushed = match origin.reply_to() {
            Some(connection) => connection.try_send(reply, &self.tracker),
            None => Enqueued::Refused(astray(reply.message)),
        };
        match pushed {
            Enqueued::Taken { dropped } => {
                self.in_flight -= usize::try_from(dropped).unwrap_or(usize::MAX);
                self.metrics.account.dropped(Reason::SlowPeer, dropped);
            }
            Enqueued::Full { reply, until } => {
                self.held = Some((reply, origin));
                return until;
            }
            Enqueued::GivenUp => {
                self.in_flight -= 1;
                self.metrics.account.dropped(Reason::Shutdown, 1);
            }
            Enqueued::Refused(refused) => {
                self.in_flight -= 1;
                failed.push(refused);
            }
        }
        None
    }
}

/// Reads a code and a reason: `1008 reason`. The text is the plugin's, and is not repeated.
fn closing_of(text: &str, has_dialled: bool) -> Result<Closing, String> {
    let (code, reason) = text.split_once(' ').unwrap_or((text, ""));
    if code.is_empty() || code.len() > MAX_CODE_DIGITS || !code.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(format!("{CLOSE} begins with no close code: it is written as \"1008 reason\""));
    }
    match code.parse() {
        Ok(code) if close_code::may_send(code, has_dialled) => {
            Ok(Closing { code, reason: reason.to_owned() })
        }
        _ => Err(format!("{CLOSE} has the close code {code}, and only {} may be sent", close_code::SENDABLE)),
    }
}

/// A message that no connection waits for.
fn astray(message: Message) -> Failed {
    if message.metadata.origin().get(CONNECTION).is_empty() {
        let detail = "it came on no connection: a timer or the end made it".to_owned();
        return Failed { message, reason: Reason::NoOutput, detail };
    }
    let detail = "the connection it came on takes no replies".to_owned();
    Failed { message, reason: Reason::SinkUnavailable, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_frame_is_a_code_and_a_reason_and_any_other_text_is_told() {
        let closing = |text: &str| closing_of(text, false);
        assert_eq!(closing("1008 gap of 3"), Ok(Closing { code: 1008, reason: "gap of 3".to_owned() }));
        assert_eq!(closing("4000"), Ok(Closing { code: 4000, reason: String::new() }));
        for text in ["", " 1008", "gap", "+1008 x", "1008x", "123456 x"] {
            assert!(closing(text).unwrap_err().contains("begins with no close code"), "{text}");
        }
        for text in ["0", "999 x", "1004", "1005", "1006 x", "1010 x", "1015", "2999", "5000", "65536"] {
            let code = text.split(' ').next().unwrap();
            assert!(
                closing(text).unwrap_err().contains(&format!("the close code {code}, and only")),
                "{text}"
            );
        }
        assert!(closing_of("1010 x", true).is_ok(), "it is for who dialled");
    }
}
