//! An endpoint on a route, as peers see it: what it does with them, and what it is given of them.

use super::broadcast::Broadcast;
use super::request::Handshake;
use super::uptake::Uptake;
use crate::config::{Endpoint, EndpointText, FromHandshake, PathPattern};
use crate::connections::OpenEndpoint;
use crate::message::metadata::{Metadata, Origin};
use crate::message::{Failed, Message};
use std::sync::Arc;
use tokio::sync::mpsc;

/// An endpoint on a route.
#[derive(Clone, Debug)]
pub(super) struct RouteMember {
    pub(super) id: u64,
    pub(super) end: MemberRole,
    pub(super) metrics: OpenEndpoint,
    pub(super) on_connect: Arc<[EndpointText]>,
    /// What a source's messages are given beside what the host knows.
    pub(super) metadata: Arc<[(String, FromHandshake)]>,
    pub(super) max_connections: usize,
    /// Whether peers may join it: a source is there for them only once its pipeline starts.
    pub(super) is_started: bool,
    /// Whether it is shown as failed when it leaves.
    pub(super) has_failed: bool,
}

/// What an endpoint does with peers.
#[derive(Clone, Debug)]
pub(super) enum MemberRole {
    Source {
        inlet: mpsc::Sender<ReceivedChunk>,
        uptake: Arc<Uptake>,
        /// Whether its messages are answered on their connection.
        is_answered: bool,
    },
    Sink(Arc<Broadcast>),
    /// Answers what the source of its pipeline receives: it keeps the peers until it is done.
    Reply,
}

/// Messages of one peer, in order.
#[derive(Clone, Debug, Default)]
pub struct ReceivedChunk {
    /// What it sent.
    pub messages: Vec<Message>,
    /// What was too large to be read.
    pub failed: Vec<Failed>,
}

impl RouteMember {
    pub(super) fn new(endpoint: &Endpoint, end: MemberRole, metrics: OpenEndpoint) -> Self {
        let metadata = endpoint.listen().map_or(&[][..], |listen| &listen.metadata);
        let max_connections = endpoint.listen().map_or(usize::MAX, |listen| listen.max_connections);
        let on_connect = endpoint.on_connect.as_slice().into();
        let is_started = !matches!(end, MemberRole::Source { .. });
        Self {
            id: 0,
            end,
            metrics,
            on_connect,
            metadata: metadata.into(),
            max_connections,
            is_started,
            has_failed: false,
        }
    }

    /// Of a sink that peers join without a greeting.
    pub(super) fn ungreeted_sink(&self) -> Option<&Arc<Broadcast>> {
        match &self.end {
            MemberRole::Sink(broadcast) if self.on_connect.is_empty() => Some(broadcast),
            _ => None,
        }
    }

    /// Whether all headers are UTF-8 that it takes metadata from.
    pub(super) fn can_read(&self, handshake: &Handshake) -> bool {
        self.metadata.iter().all(|(_, from)| handshake.is_readable(from))
    }

    /// What the messages of a peer have in common here: what the host tells of it, and its handshake.
    pub(super) fn origin<const N: usize>(
        &self,
        of_the_host: [(&str, String); N],
        handshake: &Handshake,
        path: &PathPattern,
    ) -> Arc<Origin> {
        let from_handshake = self
            .metadata
            .iter()
            .filter_map(|(key, from)| Some((key.as_str(), handshake.value(from, path)?.into_owned())));
        Origin::new(of_the_host.into_iter().chain(from_handshake))
    }

    /// What answers beside a source of the same endpoint, which has greeted the peers.
    pub(super) fn reply(endpoint: &Endpoint, metrics: OpenEndpoint) -> Self {
        Self { on_connect: Arc::default(), ..Self::new(endpoint, MemberRole::Reply, metrics) }
    }
}

impl ReceivedChunk {
    /// How many messages they are, the failed ones included.
    pub fn len(&self) -> usize {
        self.messages.len() + self.failed.len()
    }

    /// Whether they are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy with another origin.
    pub(super) fn from(&self, origin: &Arc<Origin>) -> Self {
        let again = |message: &Message| Message {
            payload: message.payload.clone(),
            metadata: Metadata::new(origin.clone(), message.metadata.received_us()),
        };
        let failed = self.failed.iter().map(|each| Failed { message: again(&each.message), ..each.clone() });
        Self { messages: self.messages.iter().map(again).collect(), failed: failed.collect() }
    }
}
