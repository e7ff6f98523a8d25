//! Messages of a WebSocket connection that we dial, read by the pipeline's own task, straight into its batch.

use super::payload_decoder::PayloadDecoder;
use super::{Fill, Room};
use crate::config::{Client, WebSocketSource};
use crate::connections::{EndpointState, OpenEndpoint};
use crate::message::metadata::{self, Metadata, Origin};
use crate::message::{Failed, Message};
use crate::websocket::{
    BeforeConnect, ConnectionEnd, Received, ReplyWriter, Session, SessionEvent, WhenExhausted,
};
use std::sync::Arc;
use std::task::{Context, Poll};

/// The connection we dial.
#[derive(Debug)]
pub struct DialledSource {
    session: Session,
    origin: Arc<Origin>,
    decoder: PayloadDecoder,
    is_checked: bool,
    /// Received, but too large for what room the last batch had left.
    left: Option<Message>,
    /// Whether messages are answered on their connection, and what is to be written there.
    is_answered: bool,
    replies: Option<ReplyWriter>,
    /// No more is read than was read before.
    is_stopped: bool,
    failure: Option<String>,
}

impl DialledSource {
    /// Dials at the first poll; `connector` is asked before each dial. With `is_answered` its connections take
    /// replies.
    pub fn new(
        config: &WebSocketSource,
        client: &Client,
        connector: Option<Arc<dyn BeforeConnect>>,
        is_answered: bool,
        metrics: OpenEndpoint,
    ) -> Self {
        let WebSocketSource { endpoint, packing, .. } = config;
        Self {
            session: Session::new(endpoint, client, *packing, connector, WhenExhausted::Fail, metrics),
            origin: Arc::default(),
            decoder: PayloadDecoder::new(config, config.endpoint.max_message_size_bytes),
            is_checked: config.endpoint.check_connection.is_some(),
            left: None,
            is_answered,
            replies: None,
            is_stopped: false,
            failure: None,
        }
    }

    /// The connection: its state, its last error.
    pub fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Vec<Message>,
        room: Room,
        failed: &mut Vec<Failed>,
    ) -> Poll<Fill> {
        let before = batch.len();
        let failed_before = failed.len();
        let mut bytes = 0;
        if let Some(left) = self.left.take() {
            bytes = left.payload.len();
            batch.push(left);
        }
        self.session.release();
        let mut received_us = None;
        loop {
            self.follow(cx);
            self.write_back(cx);
            let is_stopped = self.is_stopped;
            let Some(connection) = self.session.connection() else { break };
            let ending = loop {
                // What fails takes its part of the room: it is work as well.
                let taken = batch.len() - before + failed.len() - failed_before;
                if taken >= room.messages || bytes >= room.bytes {
                    self.session.message();
                    return Poll::Ready(Fill::More);
                }
                let received = if is_stopped && !connection.is_over() {
                    connection.take_held().map_or(Poll::Pending, |held| Poll::Ready(Received::Message(held)))
                } else {
                    connection.poll_receive(cx)
                };
                match received {
                    Poll::Ready(Received::Message(payload)) => {
                        let received_us = *received_us.get_or_insert_with(metadata::now_us);
                        let metadata = Metadata::new(self.origin.clone(), received_us);
                        // What counts is what it has become: a payload unpacks to a thousand times as much.
                        match self.decoder.decode(Message { payload, metadata }) {
                            Ok(message)
                                if bytes + message.payload.len() > room.bytes && batch.len() > before =>
                            {
                                self.left = Some(message);
                                self.session.message();
                                return Poll::Ready(Fill::More);
                            }
                            Ok(message) => {
                                bytes += message.payload.len();
                                batch.push(message);
                            }
                            Err(undecoded) => {
                                bytes += undecoded.message.payload.len();
                                failed.push(undecoded);
                            }
                        }
                    }
                    Poll::Ready(Received::Control) => {}
                    Poll::Ready(Received::Ended(ending)) => break Some(ending),
                    Poll::Pending => break None,
                }
            };
            let Some(ending) = ending else { break };
            failed.extend(ending.failed(&self.origin));
            self.lose(&ending);
        }
        if batch.len() > before || failed.len() > failed_before {
            self.session.message();
            return Poll::Ready(Fill::Drained);
        }
        match self.failure.take() {
            Some(why) => Poll::Ready(Fill::Failed(why)),
            None if self.is_stopped || self.session.state() == EndpointState::Closed => {
                Poll::Ready(Fill::Ended)
            }
            None => Poll::Pending,
        }
    }

    pub(super) fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        // Whatever else is waited for: what is not read counts against nobody.
        self.poll_hold(cx);
        if self.is_checked { self.session.check_first_dial() } else { Poll::Ready(Ok(())) }
    }

    pub(super) fn poll_hold(&mut self, cx: &mut Context<'_>) {
        self.session.hold();
        self.follow(cx);
        // A connection that stays open for replies is read no more; one that does not is seen through.
        if !self.is_stopped || self.replies.is_none() {
            self.session.read_held(cx);
        }
        self.write_back(cx);
    }

    /// Reads no more, and dials no more. A connection on which answers may be due stays open for them.
    pub(super) fn stop(&mut self, code: u16) {
        self.is_stopped = true;
        self.session.stop(self.replies.is_none().then_some(code));
    }

    /// Messages that were received and not taken.
    pub(super) fn remaining(&mut self) -> u64 {
        let held = self.session.connection().map_or(0, |connection| connection.held_messages());
        held as u64 + u64::from(self.left.is_some())
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        let closed = self.session.poll_close(cx, code);
        if closed.is_pending() && self.replies.as_ref().is_some_and(ReplyWriter::has_given_up) {
            // The server takes nothing, and so no close frame.
            self.session.abandon();
            return Poll::Ready(());
        }
        closed
    }

    /// Writes the replies that wait for the connection.
    #[inline]
    fn write_back(&mut self, cx: &mut Context<'_>) {
        if let (Some(replies), Some(connection)) = (&mut self.replies, self.session.connection())
            && let Poll::Ready(Err(ending)) = replies.poll_write(cx, connection)
        {
            if matches!(ending, ConnectionEnd::TooSlow | ConnectionEnd::Steered { .. }) {
                connection.end(ending.clone());
            }
            self.close_replies(&ending);
        }
    }

    /// What was to be written on the connection has failed; reading goes on to its end.
    fn close_replies(&mut self, ending: &ConnectionEnd) {
        if let Some(replies) = self.replies.take() {
            replies.close(ending);
        }
    }

    fn lose(&mut self, ending: &ConnectionEnd) {
        self.close_replies(ending);
        self.session.lose(ending);
    }

    #[inline]
    fn follow(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(change) = self.session.poll_event(cx) {
            match change {
                SessionEvent::Connected(origin) if self.is_answered => {
                    self.origin = self.replies.insert(ReplyWriter::new()).origin(&origin);
                }
                SessionEvent::Connected(origin) => self.origin = origin,
                SessionEvent::Lost => self.replies = None,
                SessionEvent::Unavailable(why) => {
                    self.replies = None;
                    self.failure = Some(why);
                }
            }
        }
    }
}
