//! Messages from WebSocket connections: one that we dial, or those that peers make to a path.
//!
//! The dialled one is read by the pipeline's own task, straight into its batch. Peers have tasks of
//! their own, which hand chunks over through a bounded channel.

use super::chunks::{Chunks, Filling, Next};
use super::{Fill, Room};
use crate::config::{self, Codec, WebSocketSource};
use crate::connections::{EndpointState, OpenEndpoint};
use crate::message::{Failed, Message, Payload};
use crate::metadata::{self, Metadata, Origin};
use crate::packing::{UnpackError, Unpacker};
use crate::reason::Reason;
use crate::websocket::{
    Arrivals, Attachment, Change, Ending, LaneWriter, Link, ListenError, Listeners, Received, WhenExhausted,
};
use serde::de::IgnoredAny;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// The connection we dial.
#[derive(Debug)]
pub struct Client {
    link: Link,
    origin: Arc<Origin>,
    decoding: Decoding,
    is_checked: bool,
    /// Received, but too large for what room the last batch had left.
    left: Option<Message>,
    /// Whether messages are answered on their connection, and what is to be written there.
    is_answered: bool,
    lane: Option<LaneWriter>,
    /// No more is read than was read before.
    is_stopped: bool,
    failure: Option<String>,
}

/// The peers of a path.
#[derive(Debug)]
pub struct Server {
    attachment: Attachment,
    arrivals: mpsc::Receiver<Arrivals>,
    /// How many messages the tasks of the peers have read that were not taken from here.
    waiting: Arc<AtomicU64>,
    decoding: Decoding,
    chunks: Chunks,
}

impl Client {
    /// Dials at the first poll. With `is_answered` its connections take replies.
    pub fn new(
        config: &WebSocketSource,
        client: &config::Client,
        is_answered: bool,
        metrics: OpenEndpoint,
    ) -> Self {
        Self {
            link: Link::new(&config.endpoint, client, config.packing, WhenExhausted::Fail, metrics),
            origin: Arc::default(),
            decoding: Decoding::new(config, config.endpoint.max_message_size_bytes),
            is_checked: config.endpoint.check_connection.is_some(),
            left: None,
            is_answered,
            lane: None,
            is_stopped: false,
            failure: None,
        }
    }

    /// The connection: its state, its last error.
    pub fn link(&self) -> &Link {
        &self.link
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
        self.link.release();
        let mut received_us = None;
        loop {
            self.follow(cx);
            self.write_back(cx);
            let is_stopped = self.is_stopped;
            let Some(connection) = self.link.connection() else { break };
            let ending = loop {
                // What fails takes its part of the room: it is work as well.
                let taken = batch.len() - before + failed.len() - failed_before;
                if taken >= room.messages || bytes >= room.bytes {
                    self.link.message();
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
                        match self.decoding.decode(Message { payload, metadata }) {
                            Ok(message)
                                if bytes + message.payload.len() > room.bytes && batch.len() > before =>
                            {
                                self.left = Some(message);
                                self.link.message();
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
            self.link.message();
            return Poll::Ready(Fill::Drained);
        }
        match self.failure.take() {
            Some(why) => Poll::Ready(Fill::Failed(why)),
            None if self.is_stopped || self.link.state() == EndpointState::Closed => Poll::Ready(Fill::Ended),
            None => Poll::Pending,
        }
    }

    pub(super) fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        // Whatever else is waited for: what is not read counts against nobody.
        self.poll_hold(cx);
        if self.is_checked { self.link.first_dial() } else { Poll::Ready(Ok(())) }
    }

    pub(super) fn poll_hold(&mut self, cx: &mut Context<'_>) {
        self.link.hold();
        self.follow(cx);
        if !self.is_stopped {
            self.link.read_held(cx);
        }
        self.write_back(cx);
    }

    /// Reads no more, and dials no more. A connection on which answers may be due stays open for them.
    pub(super) fn stop(&mut self, code: u16) {
        self.is_stopped = true;
        self.link.stop(self.lane.is_none().then_some(code));
    }

    /// Messages that were received and not taken.
    pub(super) fn remaining(&mut self) -> u64 {
        let held = self.link.connection().map_or(0, |connection| connection.held_messages());
        held as u64 + u64::from(self.left.is_some())
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        let closed = self.link.poll_close(cx, code);
        if closed.is_pending() && self.lane.as_ref().is_some_and(LaneWriter::has_given_up) {
            // The server takes nothing, and so no close frame.
            self.link.abandon();
            return Poll::Ready(());
        }
        closed
    }

    /// Writes the replies that wait for the connection.
    #[inline]
    fn write_back(&mut self, cx: &mut Context<'_>) {
        if let (Some(lane), Some(connection)) = (&mut self.lane, self.link.connection())
            && let Poll::Ready(Err(ending)) = lane.poll_write(cx, connection)
        {
            if ending == Ending::TooSlow {
                connection.end(Ending::TooSlow);
            }
            self.close_lane(&ending);
        }
    }

    /// What was to be written on the connection has failed; reading goes on to its end.
    fn close_lane(&mut self, ending: &Ending) {
        if let Some(lane) = self.lane.take() {
            lane.close(ending);
        }
    }

    fn lose(&mut self, ending: &Ending) {
        self.close_lane(ending);
        self.link.lose(ending);
    }

    #[inline]
    fn follow(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(change) = self.link.poll_change(cx) {
            match change {
                Change::Connected(origin) if self.is_answered => {
                    self.origin = self.lane.insert(LaneWriter::new()).origin(&origin);
                }
                Change::Connected(origin) => self.origin = origin,
                Change::Lost => self.lane = None,
                Change::Unavailable(why) => {
                    self.lane = None;
                    self.failure = Some(why);
                }
            }
        }
    }
}

impl Server {
    /// Opens the path, and the listener if it is the first there. With `is_answered` its connections
    /// take replies.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn open(
        config: &WebSocketSource,
        listen: &config::Listen,
        listeners: &Listeners,
        is_answered: bool,
        metrics: OpenEndpoint,
    ) -> Result<Self, ListenError> {
        let opened = listeners.open_source(&config.endpoint, listen, is_answered, metrics).await?;
        let (attachment, arrivals, waiting) = opened;
        let decoding = Decoding::new(config, attachment.max_message_size_bytes());
        Ok(Self { attachment, arrivals, waiting, decoding, chunks: Chunks::default() })
    }

    /// Where it listens, for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.attachment.local_address()
    }

    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Vec<Message>,
        room: Room,
        failed: &mut Vec<Failed>,
    ) -> Poll<Fill> {
        let Self { arrivals, decoding, chunks, .. } = self;
        let before = batch.len() + failed.len();
        let filling = Filling { batch, room, failed };
        let fill = chunks.poll_fill(
            filling,
            |message| decoding.decode(message),
            || {
                arrivals.poll_recv(cx).map(|chunk| match chunk {
                    Some(Arrivals { messages, failed }) => Next::Chunk(messages, failed),
                    None => Next::End(Fill::Ended),
                })
            },
        );
        let taken = batch.len() + failed.len() - before;
        if taken > 0 {
            self.waiting.fetch_sub(taken as u64, Ordering::Relaxed);
        }
        fill
    }

    /// Peers send no more to this source. What they had sent before comes, and then the end.
    pub(super) fn poll_stop(&mut self, cx: &mut Context<'_>, code: u16) {
        let _ = self.attachment.poll_close(cx, code);
    }

    pub(super) fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        self.attachment.poll_connected(cx)
    }

    /// Messages that were read of peers, by whatever task, and that were not taken. Nothing more is taken.
    pub(super) fn remaining(&mut self) -> u64 {
        self.arrivals.close();
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        // Nobody is to wait for a pipeline that reads no more.
        self.arrivals.close();
        self.attachment.poll_close(cx, code)
    }
}

/// What is done with a payload before it is a message.
#[derive(Debug)]
struct Decoding {
    unpacker: Option<Unpacker>,
    codec: Codec,
}

impl Decoding {
    fn new(config: &WebSocketSource, max_message_size_bytes: usize) -> Self {
        let unpacker = |packing| Unpacker::new(packing, max_message_size_bytes);
        Self { unpacker: config.packing.map(unpacker), codec: config.codec }
    }

    /// Unpacks the payload, and makes of it what the codec says it is.
    #[inline]
    fn decode(&mut self, message: Message) -> Result<Message, Failed> {
        let is_plain = self.unpacker.is_none() && self.codec == Codec::Auto;
        if is_plain { Ok(message) } else { self.made(message) }
    }

    fn made(&mut self, message: Message) -> Result<Message, Failed> {
        let message = match &mut self.unpacker {
            Some(unpacker) => unpacked(unpacker, message)?,
            None => message,
        };
        typed(self.codec, message)
    }
}

fn unpacked(unpacker: &mut Unpacker, message: Message) -> Result<Message, Failed> {
    match unpacker.unpack(message.payload.as_bytes()) {
        Ok(bytes) => Ok(Message { payload: Payload::binary(bytes), ..message }),
        Err(error) => {
            let reason = match error {
                UnpackError::TooLarge(_) => Reason::TooLarge,
                UnpackError::Broken { .. } => Reason::Decode,
            };
            Err(Failed { message, reason, detail: error.to_string() })
        }
    }
}

/// Makes of a payload what the codec says it is.
fn typed(codec: Codec, message: Message) -> Result<Message, Failed> {
    match codec {
        Codec::Auto => Ok(message),
        Codec::Bytes => Ok(message.into_binary()),
        Codec::Text => message.into_text("not UTF-8"),
        Codec::Json => match json_error(&message.payload) {
            None => Ok(message),
            Some(error) => {
                Err(Failed { message, reason: Reason::Decode, detail: format!("not JSON: {error}") })
            }
        },
    }
}

/// Why a payload is not JSON, which is UTF-8: nobody looks at that in strings that are skipped.
fn json_error(payload: &Payload) -> Option<String> {
    if !payload.is_text()
        && let Err(error) = std::str::from_utf8(payload.as_bytes())
    {
        return Some(error.to_string());
    }
    serde_json::from_slice::<IgnoredAny>(payload.as_bytes()).err().map(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(codec: Codec, payload: Payload) -> Result<Payload, String> {
        let message = Message { payload, metadata: Metadata::without_origin(0) };
        typed(codec, message).map(|message| message.payload).map_err(|failed| failed.detail)
    }

    #[test]
    fn codecs_take_what_they_are_named_for() {
        let (text, bytes) = (Payload::text("[1]"), Payload::binary(vec![0xff]));
        assert_eq!(decoded(Codec::Auto, bytes.clone()), Ok(bytes.clone()));
        assert_eq!(decoded(Codec::Bytes, text.clone()), Ok(Payload::binary("[1]")));
        assert_eq!(decoded(Codec::Text, Payload::binary("[1]")), Ok(text.clone()));
        assert_eq!(decoded(Codec::Text, bytes.clone()), Err("not UTF-8".to_owned()));
        assert_eq!(decoded(Codec::Json, text.clone()), Ok(text));
        assert!(decoded(Codec::Json, bytes).is_err());
        let not_text = Payload::binary(&b"{\"name\":\"caf\xe9\"}"[..]);
        let error = decoded(Codec::Json, not_text).expect_err("JSON is UTF-8");
        assert!(error.starts_with("not JSON: invalid utf-8 sequence"), "{error}");
    }
}
