//! One running instance of a connector: the plugin that has the last word on what an endpoint dials.
//!
//! Nothing of what it answers is checked here but its form: whether it can be dialled, the dial finds out.

use super::Plugin;
use super::bindings::connector::exports::tidemill::plugin::dialler::{self, Guest};
use super::bindings::connector::tidemill::plugin::types as wit;
use super::call::{Callee, Purpose};
use super::exported::Exported;
use super::fault::{Fault, FaultKind};
use super::setup::Setup;
use crate::config::Redacted;
use crate::message::Payload;
use std::time::Duration;

/// What is dialled. Most of it may be secret: nothing of it is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct PlannedDial {
    /// `wss://host/path?query`.
    pub url: String,
    /// Names and values of the handshake's headers.
    pub headers: Vec<(String, String)>,
    /// The subprotocols that are offered.
    pub subprotocols: Vec<String>,
    /// What is sent as soon as the connection is there.
    pub first_messages: Vec<Payload>,
}

/// A dial that is about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialAttempt {
    /// As the configuration says it.
    pub dial: PlannedDial,
    /// 1 for the first attempt since the last connection, or since the start.
    pub number: u32,
    /// What the last one came to; none at the first.
    pub last: Option<DialEnding>,
}

/// What a dial came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialEnding {
    /// A word for it: that of the metric of connects, `closed` for a connection that has ended.
    pub outcome: &'static str,
    /// The same in a sentence, without secrets.
    pub detail: String,
    /// The HTTP status, if the handshake was refused with one.
    pub status: Option<u16>,
    /// The close code, if a close frame ended the connection.
    pub close_code: Option<u16>,
    /// How long the connection lasted; zero where none was made.
    pub lasted: Duration,
}

/// Why nothing is to be dialled now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialRefusal {
    /// Why, as it may be shown.
    pub reason: String,
    /// No attempt is to be made before.
    pub retry_after: Option<Duration>,
}

impl std::fmt::Debug for PlannedDial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlannedDial").finish_non_exhaustive()
    }
}

/// An instance of a connector, ready to be called. One call at a time.
pub struct ConnectorInstance {
    callee: Callee<Guest>,
    config: Redacted,
    tick: Option<Duration>,
}

impl std::fmt::Debug for ConnectorInstance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectorInstance").field("plugin", self.plugin()).finish_non_exhaustive()
    }
}

impl Plugin {
    /// Makes an instance of a connector, and gives it its configuration.
    ///
    /// # Errors
    /// A fault of kind `init`, also if the plugin refuses the configuration, or is no connector.
    ///
    /// # Cancel safety
    /// Nothing is left behind.
    pub async fn instantiate_connector(&self, setup: &Setup) -> Result<ConnectorInstance, Fault> {
        let Exported::Dialler(dialler) = self.exported() else {
            let detail = "it is a transform, which stands under `transforms`; `before_connect` takes a connector, a \
                          plugin that exports tidemill:plugin/dialler";
            return Err(Fault { is_refusal: true, ..Fault::new(FaultKind::Init, detail) });
        };
        let facts = setup.facts().into_iter().map(|(name, value)| (name.to_owned(), value));
        let facts: Vec<_> = facts.collect();
        let started = Callee::start(self, setup, async |store, instance| {
            let guest = dialler.load(&mut *store, instance)?;
            let answer = guest.call_init(store, setup.config.expose(), &facts).await?;
            Ok((guest, answer))
        });
        let made = started.await.map(|(callee, described)| {
            // Options are room to grow: none is known yet, and what is not known is ignored.
            let dialler::ConnectorDescription { tick_ms, .. } = described;
            let tick = (tick_ms > 0).then(|| Duration::from_millis(tick_ms.into()));
            ConnectorInstance { callee, config: setup.config.clone(), tick }
        });
        made.map_err(|fault| fault.shown(&setup.config).of_kind(FaultKind::Init))
    }
}

impl ConnectorInstance {
    /// The plugin that the instance is of.
    pub fn plugin(&self) -> &Plugin {
        self.callee.plugin()
    }

    /// The configuration that it was given.
    pub fn config(&self) -> &Redacted {
        &self.config
    }

    /// How often it wants [`Self::tick`] while a connection stands.
    pub fn tick_interval(&self) -> Option<Duration> {
        self.tick
    }

    /// From now on what is secret in `confided` is taken out of its texts, besides what is in its configuration.
    pub fn confide(&self, confided: Redacted) {
        self.callee.host().log.confide(confided);
    }

    /// Asks what is to be dialled.
    ///
    /// # Errors
    /// Any fault of the call. The instance is of no further use then.
    ///
    /// # Cancel safety
    /// None: dropping the future ends the instance.
    pub async fn before_connect(
        &mut self,
        attempt: DialAttempt,
    ) -> Result<Result<PlannedDial, DialRefusal>, Fault> {
        let attempt = attempt.into_wit();
        let answered = self.callee.call("before-connect", Purpose::Ordinary, async |guest, store| {
            guest.call_before_connect(store, &attempt).await.map(Ok)
        });
        let answered = answered.await;
        let answered: Result<dialler::Dial, dialler::Refusal> =
            answered.map_err(|fault| self.shown(fault))?;
        self.accept();
        Ok(answered.map(PlannedDial::of_wit).map_err(|refusal| DialRefusal {
            reason: self.callee.host().log.told(&refusal.reason),
            retry_after: refusal.retry_after_ms.map(|ms| Duration::from_millis(ms.into())),
        }))
    }

    /// Calls the timer, at `now_us` microseconds since the Unix epoch.
    ///
    /// # Errors
    /// Any fault of the call. Unless it is a refusal, the instance is of no further use then.
    ///
    /// # Cancel safety
    /// None: dropping the future ends the instance.
    pub async fn tick(&mut self, now_us: u64) -> Result<(), Fault> {
        let ticked = self
            .callee
            .call("tick", Purpose::Ordinary, async |guest, store| guest.call_tick(store, now_us).await);
        match ticked.await {
            Ok(()) => self.accept(),
            Err(fault) => {
                if fault.is_refusal {
                    self.callee.revive();
                }
                return Err(self.shown(fault));
            }
        }
        Ok(())
    }

    fn accept(&mut self) {
        self.callee.host_mut().commit();
        self.callee.revive();
    }

    fn shown(&self, mut fault: Fault) -> Fault {
        fault.detail = self.callee.host().log.told(&fault.detail);
        fault
    }
}

impl DialAttempt {
    fn into_wit(self) -> dialler::Attempt {
        let Self { dial, number, last } = self;
        let PlannedDial { url, headers, subprotocols, first_messages } = dial;
        let first_messages = first_messages.into_iter().map(|payload| match payload.as_text() {
            Some(text) => wit::Payload::Text(text.to_owned()),
            None => wit::Payload::Binary(payload.as_bytes().to_vec()),
        });
        let first_messages = first_messages.collect();
        let last = last.map(|last| dialler::Ending {
            outcome: last.outcome.to_owned(),
            detail: last.detail,
            status: last.status,
            close_code: last.close_code,
            lasted_ms: u64::try_from(last.lasted.as_millis()).unwrap_or(u64::MAX),
        });
        // Options and facts are room to grow.
        let dial = dialler::Dial { url, headers, subprotocols, first_messages, options: Vec::new() };
        dialler::Attempt { dial, number, last, facts: Vec::new() }
    }
}

impl PlannedDial {
    fn of_wit(dial: dialler::Dial) -> Self {
        let dialler::Dial { url, headers, subprotocols, first_messages, .. } = dial;
        let first_messages = first_messages.into_iter().map(|payload| match payload {
            wit::Payload::Text(text) => Payload::text(text),
            wit::Payload::Binary(bytes) => Payload::binary(bytes),
        });
        Self { url, headers, subprotocols, first_messages: first_messages.collect() }
    }
}
