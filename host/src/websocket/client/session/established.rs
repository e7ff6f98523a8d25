//! One connection of a link, from its dial to its end: its first messages, its timers, its counters.

use super::Settings;
use crate::config::{Endpoint, EndpointText};
use crate::connections::{Connected, OpenEndpoint};
use crate::message::Payload;
use crate::websocket::client::connect::{Dial, connect};
use crate::websocket::client::connect_error::{ConnectError, Problem};
use crate::websocket::client::heartbeat::{Beat, Heartbeat, Replies};
use crate::websocket::connection::{Connection, Ending, Traffic};
use crate::websocket::keepalive::{Due, Keepalive};
use crate::websocket::secret::{Secrets, resolved};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// What a dial came to.
pub(super) struct Dialled {
    connection: Connection,
    heartbeat: Option<Heartbeat>,
    secrets: Secrets,
}

/// A connection that is dialled, and what goes with it.
pub(super) struct Established {
    pub(super) connection: Connection,
    keepalive: Keepalive,
    heartbeat: Option<Heartbeat>,
    /// What the peer was given and may quote.
    secrets: Secrets,
    /// Its row in the table of connections.
    shown: Arc<Connected>,
    since: Instant,
    pub(super) url: usize,
    counted: Traffic,
    needs_flush: bool,
    /// What was told of its end, once that was seen.
    pub(super) told: Option<String>,
}

impl Established {
    pub(super) fn new(dialled: Dialled, url: usize, endpoint: &Endpoint, shown: Arc<Connected>) -> Self {
        Self {
            connection: dialled.connection,
            keepalive: Keepalive::new(endpoint),
            heartbeat: dialled.heartbeat,
            secrets: dialled.secrets,
            shown,
            since: Instant::now(),
            url,
            counted: Traffic::default(),
            needs_flush: false,
            told: None,
        }
    }

    /// An end of it as it may be told: the peer's words quote no secret.
    pub(super) fn told_of(&self, ending: &Ending) -> Ending {
        match ending {
            Ending::Closed { code, reason } => {
                Ending::Closed { code: *code, reason: self.secrets.conceal(reason) }
            }
            other => other.clone(),
        }
    }

    /// How long it has lived.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// It is no connection any more, as far as the table of connections goes.
    pub(super) fn detach(&mut self, metrics: &OpenEndpoint) {
        self.count(metrics);
        metrics.detach(&self.shown);
    }

    /// Messages went through; called once for many.
    #[inline]
    pub(super) fn message(&mut self, metrics: &OpenEndpoint) {
        self.keepalive.message();
        self.count(metrics);
    }

    /// Reading is held back until [`Self::release`].
    pub(super) fn hold(&mut self) {
        self.keepalive.hold();
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.hold();
        }
    }

    /// Reading goes on.
    #[inline]
    pub(super) fn release(&mut self) {
        self.keepalive.release();
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.release();
        }
    }

    /// Sends what is due, and ends the connection if it is time for that: its owner finds the end as it
    /// reads. A write that fails ends nothing but writing.
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, metrics: &OpenEndpoint) {
        if self.connection.is_over() {
            return;
        }
        if self.connection.has_first() {
            let _ = self.connection.poll_ready(cx);
            self.needs_flush = true;
        }
        self.poll_heartbeat(cx);
        self.count(metrics);
        self.shown.register(cx.waker());
        if let Some(dismissal) = self.shown.dismissal() {
            self.connection.end(Ending::Dismissed(dismissal.clone()));
        }
        while let Poll::Ready(due) = self.keepalive.poll(cx, &self.connection) {
            match due {
                Due::Silent => return self.connection.end(Ending::Silent),
                Due::Idle => return self.connection.end(Ending::Idle),
                Due::Ping => {
                    self.connection.ping();
                    self.needs_flush = true;
                }
            }
        }
        if self.needs_flush && self.connection.poll_flush(cx).is_ready() {
            self.needs_flush = false;
        }
    }

    #[inline]
    fn count(&mut self, metrics: &OpenEndpoint) {
        let traffic = self.connection.traffic();
        if traffic != self.counted {
            let received = traffic.received_bytes - self.counted.received_bytes;
            metrics.count_bytes(received, traffic.sent_bytes - self.counted.sent_bytes);
            self.counted = traffic;
            self.shown.count(self.connection.gone());
        }
    }

    #[inline]
    fn poll_heartbeat(&mut self, cx: &mut Context<'_>) {
        let Some(heartbeat) = &mut self.heartbeat else { return };
        while let Poll::Ready(beat) = heartbeat.poll(cx, self.connection.replies()) {
            match beat {
                Beat::NoReply if self.connection.has_unread(cx) => heartbeat.look_soon(),
                Beat::NoReply => return self.connection.end(Ending::NoReply),
                Beat::Due => {
                    if !matches!(self.connection.poll_ready(cx), Poll::Ready(Ok(()))) {
                        return;
                    }
                    let _ = self.connection.send(heartbeat.message());
                    heartbeat.sent();
                    self.needs_flush = true;
                }
            }
        }
    }
}

/// Reads what the configuration leaves in files, dials, and makes the connection as it is to be.
pub(super) async fn dial(settings: Arc<Settings>, url: usize) -> Result<Dialled, ConnectError> {
    let Settings { endpoint, client, .. } = &*settings;
    let none = EndpointText::plain("");
    let url = client.urls.get(url).unwrap_or(&none);
    let unreadable = |why| ConnectError::new(url, Problem::Secret(why));
    let mut first = Vec::new();
    for text in &endpoint.on_connect {
        first.push(Payload::text(resolved(text).await.map_err(unreadable)?.expose()));
    }
    let mut heartbeat = None;
    let mut reply = None;
    if let Some(config) = &client.heartbeat {
        heartbeat = Some((config, resolved(&config.message).await.map_err(unreadable)?));
        if let Some(text) = &config.reply {
            reply = Some(resolved(text).await.map_err(unreadable)?);
        }
    }
    let secrets = Secrets::of_dial(endpoint, client, url).await.map_err(unreadable)?;
    let connected = connect(Dial::of(endpoint, client, url)).await;
    let mut connection = connected.map_err(|error| error.concealing(&secrets))?;
    connection.begin_with(first, client.send_interval);
    if let Some(reply) = reply {
        connection.expect_replies(Replies::new(reply.expose().to_owned(), settings.packing));
    }
    let heartbeat =
        heartbeat.map(|(config, message)| Heartbeat::new(config, Payload::text(message.expose())));
    Ok(Dialled { connection, heartbeat, secrets })
}
