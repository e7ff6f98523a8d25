//! Messages of the peers that connect to a route. Each peer has a task of its own, which hands chunks over
//! through a bounded channel.

use super::chunks::{Chunks, Filling, NextChunk};
use super::payload_decoder::PayloadDecoder;
use super::{Fill, Room};
use crate::config::{Listen, WebSocketSource};
use crate::connections::OpenEndpoint;
use crate::message::{Failed, Message};
use crate::websocket::{ListenError, Listeners, ReceivedChunk, Registration, Uptake};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// The peers of a path.
#[derive(Debug)]
pub struct AcceptedSource {
    registration: Registration,
    arrivals: mpsc::Receiver<ReceivedChunk>,
    /// What the tasks of the peers are told.
    uptake: Arc<Uptake>,
    is_held: bool,
    decoder: PayloadDecoder,
    chunks: Chunks,
}

impl AcceptedSource {
    /// Opens the path, and the listener if it is the first there. With `is_answered` its connections
    /// take replies.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn open(
        config: &WebSocketSource,
        listen: &Listen,
        listeners: &Listeners,
        is_answered: bool,
        metrics: OpenEndpoint,
    ) -> Result<Self, ListenError> {
        let opened = listeners.open_source(&config.endpoint, listen, is_answered, metrics).await?;
        let (registration, arrivals, uptake) = opened;
        let decoder = PayloadDecoder::new(config, registration.max_message_size_bytes());
        Ok(Self { registration, arrivals, uptake, is_held: false, decoder, chunks: Chunks::default() })
    }

    /// Where it listens, for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.registration.local_address()
    }

    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Vec<Message>,
        room: Room,
        failed: &mut Vec<Failed>,
    ) -> Poll<Fill> {
        if std::mem::take(&mut self.is_held) {
            self.uptake.release();
        }
        let Self { arrivals, decoder, chunks, .. } = self;
        let before = batch.len() + failed.len();
        let filling = Filling { batch, room, failed };
        let fill = chunks.poll_fill(
            filling,
            |message| decoder.decode(message),
            || {
                arrivals.poll_recv(cx).map(|chunk| match chunk {
                    Some(ReceivedChunk { messages, failed }) => NextChunk::Chunk(messages, failed),
                    None => NextChunk::End(Fill::Ended),
                })
            },
        );
        let taken = batch.len() + failed.len() - before;
        if taken > 0 {
            self.uptake.taken(taken as u64);
        }
        fill
    }

    /// Peers send no more to this source. What they had sent before comes, and then the end.
    pub(super) fn poll_stop(&mut self, cx: &mut Context<'_>, code: u16) {
        let _ = self.registration.poll_close(cx, code);
    }

    /// The pipeline does not read: peers whose messages wait are not idle.
    #[inline]
    pub(super) fn hold(&mut self) {
        if !std::mem::replace(&mut self.is_held, true) {
            self.uptake.hold();
        }
    }

    /// What peers send is for this source from here on.
    pub(super) fn start(&self) {
        self.registration.start();
    }

    pub(super) fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        self.hold();
        self.registration.poll_connected(cx)
    }

    /// Messages that were read of peers, by whatever task, and that were not taken. Nothing more is taken.
    pub(super) fn remaining(&mut self) -> u64 {
        self.arrivals.close();
        self.uptake.untaken()
    }

    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        // Nobody is to wait for a pipeline that reads no more.
        self.arrivals.close();
        self.registration.poll_close(cx, code)
    }
}
