//! A dialled connection that is dialled again: connecting, connected, waiting, until attempts run out.
//!
//! A state machine polled by the end that owns it, source or sink: it has no task of its own. It
//! sends the first messages, pings, notices silence, and tells its owner of every change in order.
//! Reading and writing messages is the owner's, and so is finding the end: whatever ends a connection, what
//! was received before comes first.

mod dial;

use super::before_connect::BeforeConnect;
use super::connect_error::ConnectError;
use super::dialled_connection::{Dialled, DialledConnection};
use super::url;
use crate::backoff::{Advice, Backoff};
use crate::config::{Client, Endpoint, Packing};
use crate::connections::{EndpointState, OpenConnection, OpenEndpoint};
use crate::message::metadata::{CONNECTION, Origin, SOURCE};
use crate::plugin::DialEnding;
use crate::telemetry::ConnectOutcome;
use crate::websocket::connection::{Connection, ConnectionEnd};
use crate::websocket::secret::RememberedSecrets;
use dial::{Attempt, SessionSettings, dial};
use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;
use tracing::{Span, debug, error, info, info_span, warn};

/// A client endpoint's connection, and the next one after it.
pub struct Session {
    settings: Arc<SessionSettings>,
    when_exhausted: WhenExhausted,
    dial_once: DialOnce,
    state: SessionState,
    /// What whoever is asked before each dial does while a connection stands.
    keep_alive: Option<BoxFuture<'static, ()>>,
    /// Connections whose end is still being seen through.
    closing: Vec<Connection>,
    backoff: Backoff,
    next_url: usize,
    /// Dials since the last connection.
    dials: u32,
    /// What the last dial came to.
    last_ending: Option<DialEnding>,
    /// How the first dial went, once it is over.
    first_dial: Option<Result<(), String>>,
    /// No dial follows.
    is_stopped: bool,
    is_unavailable: bool,
    shown_state: Option<EndpointState>,
    last_error: Option<String>,
    metrics: OpenEndpoint,
    /// Woken when somebody wants the connection closed.
    waker: Arc<AtomicWaker>,
    span: Span,
}

/// What a session's owner is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// There is a new connection; the origin is that of its messages.
    Connected(Arc<Origin>),
    /// The connection is gone; another is on its way.
    Lost,
    /// Attempts are used up, and why. A session that persists still tries now and then.
    Unavailable(String),
}

/// What happens when attempts are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenExhausted {
    /// Nothing: it has failed.
    Fail,
    /// A further attempt every `max_delay`.
    Persist,
}

/// Dials one of the urls, once.
type DialOnce = fn(Arc<SessionSettings>, Attempt) -> Dialling;
type Dialling = Pin<Box<dyn Future<Output = Result<Dialled, ConnectError>> + Send>>;

enum SessionState {
    Connecting(Dialling),
    Connected(Box<DialledConnection>),
    Broken { why: String, advice: Advice, was_connected: bool },
    Waiting(Pin<Box<Sleep>>),
    Failed,
    Closed,
}

impl Session {
    /// Starts with the first dial, at the first poll. `packing` is that of the peer's messages; `connector` is asked
    /// before each dial.
    pub fn new(
        endpoint: &Endpoint,
        client: &Client,
        packing: Option<Packing>,
        connector: Option<Arc<dyn BeforeConnect>>,
        when_exhausted: WhenExhausted,
        metrics: OpenEndpoint,
    ) -> Self {
        let settings = SessionSettings {
            endpoint: endpoint.clone(),
            client: client.clone(),
            packing,
            connector,
            secrets: RememberedSecrets::default(),
        };
        Self::dialling_by(settings, when_exhausted, metrics, |settings, attempt| {
            Box::pin(dial(settings, attempt))
        })
    }

    fn dialling_by(
        settings: SessionSettings,
        when_exhausted: WhenExhausted,
        metrics: OpenEndpoint,
        dial_once: DialOnce,
    ) -> Self {
        let is_insecure = settings.client.tls.insecure_skip_verify;
        let mut session = Self {
            backoff: Backoff::new(settings.client.reconnect),
            settings: Arc::new(settings),
            when_exhausted,
            dial_once,
            state: SessionState::Closed,
            keep_alive: None,
            closing: Vec::new(),
            next_url: 0,
            dials: 0,
            last_ending: None,
            first_dial: None,
            is_stopped: false,
            is_unavailable: false,
            shown_state: None,
            last_error: None,
            metrics,
            waker: Arc::default(),
            span: Span::none(),
        };
        session.dial();
        if is_insecure {
            warn!(parent: &session.span, "certificates are not verified: insecure_skip_verify is set");
        }
        session
    }

    /// Goes on with whatever is due: dialling, waiting, pings. Call at every turn, until pending, and read
    /// then: what is due may have ended the connection.
    #[inline]
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<SessionEvent> {
        if !self.closing.is_empty() {
            self.closing.retain_mut(|connection| connection.poll_closed(cx).is_pending());
        }
        loop {
            match &mut self.state {
                SessionState::Connected(established) => {
                    established.poll(cx, &self.metrics);
                    if self.keep_alive.as_mut().is_some_and(|alive| alive.as_mut().poll(cx).is_ready()) {
                        self.keep_alive = None;
                    }
                    return Poll::Pending;
                }
                SessionState::Connecting(dialling) => match ready!(dialling.as_mut().poll(cx)) {
                    Ok(dialled) => return Poll::Ready(self.connected(dialled)),
                    Err(error) => self.refused(&error),
                },
                SessionState::Broken { .. } => {
                    if let Some(change) = self.schedule() {
                        return Poll::Ready(change);
                    }
                }
                SessionState::Waiting(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    self.dial();
                }
                SessionState::Failed | SessionState::Closed => return Poll::Pending,
            }
        }
    }

    /// How the first dial went; pending while it lasts. Call after [`Self::poll_event`], which waits for it.
    /// Where everything depends on it, the session has failed with it, and dials no more.
    ///
    /// # Errors
    /// It has not, and why.
    pub fn check_first_dial(&mut self) -> Poll<Result<(), String>> {
        let Some(dialled) = self.first_dial.clone() else { return Poll::Pending };
        if dialled.is_err() {
            self.state = SessionState::Failed;
            self.show(EndpointState::Failed);
        }
        Poll::Ready(dialled)
    }

    /// The connection, while there is one.
    #[inline]
    pub fn connection(&mut self) -> Option<&mut DialledConnection> {
        match &mut self.state {
            SessionState::Connected(established) => Some(established),
            _ => None,
        }
    }

    /// Messages went through; called once for many.
    #[inline]
    pub fn message(&mut self) {
        if let SessionState::Connected(established) = &mut self.state {
            established.message(&self.metrics);
        }
    }

    /// Reading is held back until [`Self::release`]: that time counts against nobody.
    pub fn hold(&mut self) {
        if let SessionState::Connected(established) = &mut self.state {
            established.hold();
        }
    }

    /// Reads on, as far as a hold may go: see [`Connection::poll_hold`]. An end that is seen so is told at
    /// once, and another connection is dialled when the owner has read all of this one.
    pub fn read_held(&mut self, cx: &mut Context<'_>) {
        if let SessionState::Connected(established) = &mut self.state
            && established.poll_hold(cx).is_ready()
            && established.told.is_none()
            && let Some(ending) = established.ending().cloned()
        {
            self.tell(&ending);
        }
    }

    /// Reading goes on.
    #[inline]
    pub fn release(&mut self) {
        if let SessionState::Connected(established) = &mut self.state {
            established.release();
        }
    }

    /// The owner found the connection at its end, after all that was received. [`Self::poll_event`] says
    /// what comes of it.
    pub fn lose(&mut self, ending: &ConnectionEnd) {
        self.tell(ending);
        if !matches!(self.state, SessionState::Connected(_)) {
            return;
        }
        let SessionState::Connected(established) = std::mem::replace(&mut self.state, SessionState::Closed)
        else {
            return;
        };
        let told = established.told.clone();
        self.closing.push(established.into_connection());
        match told.filter(|_| !self.is_stopped) {
            Some(why) => {
                self.state = SessionState::Broken { why, advice: Advice::default(), was_connected: true }
            }
            None => self.show(EndpointState::Closed),
        }
    }

    /// Tells once that the connection has ended, and how.
    fn tell(&mut self, ending: &ConnectionEnd) {
        let SessionState::Connected(established) = &mut self.state else { return };
        if established.told.is_some() {
            return;
        }
        let age = established.age();
        let ending = &established.told_of(ending);
        established.detach(&self.metrics);
        let why = format!("connection to WebSocket {} {}", established.url, said_of(ending));
        established.told = Some(why.clone());
        self.keep_alive = None;
        self.last_ending = Some(DialEnding {
            outcome: ConnectOutcome::Closed.as_str(),
            detail: why.clone(),
            status: None,
            close_code: close_code_of(ending),
            lasted: age,
        });
        if self.is_stopped {
            debug!(parent: &self.span, %ending, "connection ended");
            return self.show(EndpointState::Closed);
        }
        self.backoff.connection_lived(age);
        warn!(parent: &self.span, error = %why, "connection lost");
        self.metrics.show_error(&why);
        self.last_error = Some(why);
        // What comes next is decided at the next turn, and until then it is not connected.
        self.show(EndpointState::Waiting);
    }

    /// Dials no more. With a code, the connection is closed too: what was received of it before is still
    /// there, and then its end.
    pub fn stop(&mut self, code: Option<u16>) {
        self.is_stopped = true;
        match &mut self.state {
            SessionState::Connected(established) => {
                if let Some(code) = code {
                    established.end(ConnectionEnd::Stopped { code });
                }
            }
            // It is shown as what it is for as long as its pipeline is.
            SessionState::Failed => {}
            state => {
                *state = SessionState::Closed;
                self.show(EndpointState::Closed);
            }
        }
    }

    /// Closes for good; ready once the peer has hung up too.
    pub fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        self.stop(Some(code));
        self.lose(&ConnectionEnd::Stopped { code });
        self.closing.retain_mut(|connection| connection.poll_closed(cx).is_pending());
        if self.closing.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Nobody waits any more for what closes.
    pub fn abandon(&mut self) {
        self.closing.clear();
    }

    /// Whether attempts are used up, and none has succeeded since.
    pub fn is_unavailable(&self) -> bool {
        self.is_unavailable
    }

    /// The last thing that went wrong.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// What the connection is doing now.
    pub fn state(&self) -> EndpointState {
        self.shown_state.unwrap_or(EndpointState::Closed)
    }

    fn dial(&mut self) {
        let url = self.next_url % self.settings.client.urls.len().max(1);
        self.next_url = url + 1;
        let shown_url = self.shown_url(url);
        self.metrics.show_address(&shown_url);
        self.span = info_span!("connection", pipeline = %self.metrics.place().0, url = %shown_url);
        self.dials = self.dials.saturating_add(1);
        let attempt = Attempt { url, number: self.dials, last: self.last_ending.clone() };
        self.state = SessionState::Connecting((self.dial_once)(self.settings.clone(), attempt));
        self.show(EndpointState::Connecting);
    }

    fn connected(&mut self, dialled: Dialled) -> SessionEvent {
        if self.settings.connector.is_some() {
            // It may be another url than that of the configuration.
            self.metrics.show_address(&dialled.url);
            self.span = info_span!("connection", pipeline = %self.metrics.place().0, url = %dialled.url);
        }
        self.dials = 0;
        self.keep_alive = self.settings.connector.as_ref().and_then(|connector| connector.keep_alive());
        info!(parent: &self.span, "connected");
        self.first_dial.get_or_insert(Ok(()));
        self.metrics.connect(ConnectOutcome::Connected);
        self.show(EndpointState::Connected);
        self.is_unavailable = false;
        let id = crate::websocket::upgrade::connection_id();
        let shown = OpenConnection::new(&id, self.waker.clone());
        let origin = Origin::new([(SOURCE, dialled.url.clone()), (CONNECTION, id)]);
        self.metrics.attach(&shown, &origin);
        let established = DialledConnection::new(dialled, &self.settings.endpoint, shown);
        self.state = SessionState::Connected(Box::new(established));
        SessionEvent::Connected(origin)
    }

    fn refused(&mut self, error: &ConnectError) {
        self.metrics.connect(error.outcome());
        let hint = error.hint();
        let advice = error.advice();
        match advice.at_least {
            Some(wait) => warn!(parent: &self.span, %error, hint, retry_after = ?wait, "connecting failed"),
            None => warn!(parent: &self.span, %error, hint, "connecting failed"),
        }
        let why = error.to_string();
        self.first_dial.get_or_insert_with(|| Err(why.clone()));
        self.metrics.show_error(&why);
        self.last_error = Some(why.clone());
        self.last_ending = Some(error.ending());
        self.state = SessionState::Broken { why, advice, was_connected: false };
    }

    /// After a failure: when to try again, if ever.
    fn schedule(&mut self) -> Option<SessionEvent> {
        let broken = std::mem::replace(&mut self.state, SessionState::Failed);
        let SessionState::Broken { why, advice, was_connected } = broken else { return None };
        let is_first_exhaustion = !std::mem::replace(&mut self.is_unavailable, false);
        if let Some(delay) = self.backoff.next_delay(advice) {
            self.wait(delay);
            return was_connected.then_some(SessionEvent::Lost);
        }
        let reconnect = &self.settings.client.reconnect;
        let persists = self.when_exhausted == WhenExhausted::Persist && reconnect.enabled;
        if persists && was_connected && reconnect.max_attempts != Some(0) {
            // The last attempt has not failed: what waits is given up once the next one does.
            self.wait(self.backoff.last_resort(advice));
            return Some(SessionEvent::Lost);
        }
        self.is_unavailable = true;
        if is_first_exhaustion {
            error!(parent: &self.span, attempts = self.backoff.attempts(), "connection given up");
        }
        if persists {
            self.wait(self.backoff.last_resort(advice));
        } else {
            self.show(EndpointState::Failed);
        }
        (is_first_exhaustion || was_connected).then_some(SessionEvent::Unavailable(why))
    }

    fn wait(&mut self, delay: Duration) {
        debug!(parent: &self.span, ?delay, "waiting before the next attempt");
        self.state = SessionState::Waiting(Box::pin(tokio::time::sleep(delay)));
        self.show(EndpointState::Waiting);
    }

    fn show(&mut self, state: EndpointState) {
        if self.shown_state != Some(state) {
            self.metrics.show(state);
            self.shown_state = Some(state);
        }
    }

    fn shown_url(&self, url: usize) -> String {
        self.settings.client.urls.get(url).map_or_else(String::new, url::shown)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("state", &self.shown_state).finish_non_exhaustive()
    }
}

/// The code of the close frame that ended a connection, the peer's or ours.
fn close_code_of(ending: &ConnectionEnd) -> Option<u16> {
    match ending {
        ConnectionEnd::Closed { code, .. } => *code,
        other => other.close_frame().map(|(code, _)| code),
    }
}

/// Completes "connection to WebSocket URL ...".
fn said_of(ending: &ConnectionEnd) -> String {
    match ending {
        ConnectionEnd::Closed { .. } | ConnectionEnd::Lost(_) => format!("was {ending}"),
        other => format!("was given up: {other}"),
    }
}

#[cfg(test)]
mod tests;
