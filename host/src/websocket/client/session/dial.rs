//! One dial of a session: from its settings to a connection that is ready for its owner.

use crate::config::{Client, Endpoint, EndpointText, Packing};
use crate::message::Payload;
use crate::plugin::DialEnding;
use crate::websocket::client::before_connect::{BeforeConnect, FreshDial, Question, ask};
use crate::websocket::client::connect::Dial;
use crate::websocket::client::connect_error::{ConnectError, ConnectProblem};
use crate::websocket::client::dialled_connection::Dialled;
use crate::websocket::client::heartbeat::{ExpectedReply, HeartbeatTimer};
use crate::websocket::client::pace::SendPace;
use crate::websocket::client::url::shown;
use crate::websocket::secret::{RememberedSecrets, Secrets, resolved};
use std::sync::Arc;

/// What a session is dialled with, again and again.
pub(super) struct SessionSettings {
    pub(super) endpoint: Endpoint,
    pub(super) client: Client,
    /// How the peer's messages are packed.
    pub(super) packing: Option<Packing>,
    /// Whoever is asked before each dial.
    pub(super) connector: Option<Arc<dyn BeforeConnect>>,
    /// What the peer was given before.
    pub(super) secrets: RememberedSecrets,
}

/// Which dial it is.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// The number of the url, from 0.
    pub(super) url: usize,
    /// 1 for the first since the last connection, or since the start.
    pub(super) number: u32,
    /// What the last one came to.
    pub(super) last: Option<DialEnding>,
}

/// Reads what the configuration leaves in files, dials, and makes the connection as it is to be. Where there is
/// somebody to be asked before, asks.
pub(super) async fn dial(settings: Arc<SessionSettings>, attempt: Attempt) -> Result<Dialled, ConnectError> {
    let mut secrets = settings.secrets.next();
    let dialled = dial_with(&settings, attempt, &mut secrets).await;
    settings.secrets.remember(&secrets);
    dialled.map_err(|error| error.concealing(&secrets))
}

/// The same; `secrets` has what the peer was given then.
async fn dial_with(
    settings: &SessionSettings,
    attempt: Attempt,
    secrets: &mut Secrets,
) -> Result<Dialled, ConnectError> {
    let SessionSettings { endpoint, client, connector, .. } = settings;
    let none = EndpointText::plain("");
    let url = client.urls.get(attempt.url).unwrap_or(&none);
    let dial = Dial::of(endpoint, client, url);
    let Some(connector) = connector else {
        return dial.within(Box::pin(connection(settings, dial, None, secrets))).await;
    };
    let Attempt { number, last, .. } = attempt;
    let question = Question { endpoint, client, url, number, last };
    let fresh = ask(&**connector, question, secrets).await;
    let fresh = fresh.map_err(|problem| ConnectError::new(url, problem).planned())?;
    let dial = dial.with(&fresh);
    let dialled = dial.within(Box::pin(connection(settings, dial, Some(&fresh), secrets))).await;
    dialled.map_err(ConnectError::planned)
}

/// The connection. What the peer is given is added to `secrets`.
async fn connection(
    settings: &SessionSettings,
    dial: Dial<'_>,
    fresh: Option<&FreshDial>,
    secrets: &mut Secrets,
) -> Result<Dialled, ConnectProblem> {
    let SessionSettings { endpoint, client, packing, .. } = settings;
    let mut first = Vec::new();
    match fresh {
        Some(fresh) => first.clone_from(&fresh.first_messages),
        None => {
            for text in &endpoint.on_connect {
                let text = resolved(text).await.map_err(ConnectProblem::Secret)?;
                secrets.add(&text);
                first.push(Payload::text(text.expose()));
            }
        }
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
    let (url, secrets) = (shown(dial.url), secrets.clone());
    Ok(Dialled { url, connection, pace, expected, heartbeat, secrets })
}
