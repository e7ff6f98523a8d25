//! One dial of a session: from its settings to a connection that is ready for its owner.

use crate::config::{Client, Endpoint, EndpointText, Packing};
use crate::message::Payload;
use crate::websocket::client::connect::{Dial, connect};
use crate::websocket::client::connect_error::{ConnectError, ConnectProblem};
use crate::websocket::client::dialled_connection::Dialled;
use crate::websocket::client::heartbeat::{ExpectedReply, HeartbeatTimer};
use crate::websocket::client::pace::SendPace;
use crate::websocket::secret::{Secrets, resolved};
use std::sync::Arc;

/// What a session is dialled with, again and again.
pub(super) struct SessionSettings {
    pub(super) endpoint: Endpoint,
    pub(super) client: Client,
    /// How the peer's messages are packed.
    pub(super) packing: Option<Packing>,
}

/// Reads what the configuration leaves in files, dials, and makes the connection as it is to be.
pub(super) async fn dial(settings: Arc<SessionSettings>, url: usize) -> Result<Dialled, ConnectError> {
    let SessionSettings { endpoint, client, .. } = &*settings;
    let none = EndpointText::plain("");
    let url = client.urls.get(url).unwrap_or(&none);
    let unreadable = |why| ConnectError::new(url, ConnectProblem::Secret(why));
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
    let connection = connected.map_err(|error| error.concealing(&secrets))?;
    let pace = SendPace::new(first, client.send_interval);
    let expected =
        reply.map(|reply| Box::new(ExpectedReply::new(reply.expose().to_owned(), settings.packing)));
    let heartbeat =
        heartbeat.map(|(config, message)| HeartbeatTimer::new(config, Payload::text(message.expose())));
    Ok(Dialled { connection, pace, expected, heartbeat, secrets })
}
