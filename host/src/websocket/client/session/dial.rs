//! One dial of a session: from its settings to a connection that is ready for its owner.

use crate::config::{Client, Endpoint, EndpointText, Packing};
use crate::message::Payload;
use crate::websocket::client::connect::Dial;
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
    let dial = Dial::of(endpoint, client, url);
    let mut secrets = Secrets::default();
    let dialled = dial.within(Box::pin(connection(&settings, dial, &mut secrets))).await;
    dialled.map_err(|error| error.concealing(&secrets))
}

/// The connection, with what the peer was given; `secrets` has that of a dial that fails.
async fn connection(
    settings: &SessionSettings,
    dial: Dial<'_>,
    secrets: &mut Secrets,
) -> Result<Dialled, ConnectProblem> {
    let SessionSettings { endpoint, client, packing, .. } = settings;
    let mut first = Vec::new();
    for text in &endpoint.on_connect {
        let text = resolved(text).await.map_err(ConnectProblem::Secret)?;
        secrets.add(&text);
        first.push(Payload::text(text.expose()));
    }
    let (mut heartbeat, mut expected) = (None, None);
    if let Some(config) = &client.heartbeat {
        let message = resolved(&config.message).await.map_err(ConnectProblem::Secret)?;
        secrets.add(&message);
        heartbeat = Some(HeartbeatTimer::new(config, Payload::text(message.expose())));
        if let Some(reply) = &config.reply {
            let reply = resolved(reply).await.map_err(ConnectProblem::Secret)?;
            expected = Some(Box::new(ExpectedReply::new(reply.expose().to_owned(), *packing)));
        }
    }
    let connection = dial.upgrade(secrets).await?;
    let pace = SendPace::new(first, client.send_interval);
    Ok(Dialled { connection, pace, expected, heartbeat, secrets: std::mem::take(secrets) })
}
