//! Who is connected: every open endpoint with its state, and every connection of it.
//!
//! A connection is asked to close through this table, too: its own task looks at the wish. The gauges of
//! connections are moved here and nowhere else, so that table and metrics agree. A message touches nothing
//! but the counters of its own connection; locks are taken when something opens, changes its state or
//! closes, and by whoever reads the table.

use crate::foreign_text;
use crate::message::metadata::{self, Origin};
use crate::telemetry::{ConnectOutcome, EndpointMetrics};
use futures_util::task::AtomicWaker;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::Waker;

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// The endpoint is dialling.
    Connecting,
    /// The endpoint has a connection, and messages can flow.
    Connected,
    /// The endpoint waits before it dials again.
    Waiting,
    /// The endpoint listens, and peers can connect.
    Listening,
    /// The endpoint has given up: its attempts are used up, or it could not be opened.
    Failed,
    /// The endpoint was stopped.
    Closed,
}

impl EndpointState {
    /// The state as the label `state` of metrics has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Waiting => "waiting",
            Self::Listening => "listening",
            Self::Failed => "failed",
            Self::Closed => "closed",
        }
    }
}

/// The endpoints of a host that are open, and those that have failed with their pipelines. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    table: Arc<EndpointTable>,
}

#[derive(Debug, Default)]
struct EndpointTable {
    rows: Mutex<BTreeMap<u64, Weak<EndpointRow>>>,
    /// Rows that stay when their endpoints are gone: why a pipeline has failed is asked afterwards.
    failed: Mutex<Vec<Arc<EndpointRow>>>,
}

/// A copy of what the table has of an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// The name of the pipeline.
    pub pipeline: String,
    /// The end of the pipeline: `source`, or the name of a sink.
    pub endpoint: String,
    /// The url that is dialled, or where peers connect; without what is secret.
    pub address: String,
    /// The state of the endpoint.
    pub state: EndpointState,
    /// When the state began, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// The last error, and when it happened in milliseconds since the Unix epoch.
    pub last_error: Option<(String, u64)>,
    /// The connection it has, or those of its peers, in the order in which they were made.
    pub connections: Vec<ConnectionView>,
}

/// A connection of an endpoint.
#[derive(Clone, Debug)]
pub struct ConnectionView {
    /// The connection, whose counters go on.
    pub connected: Arc<OpenConnection>,
    /// The metadata of its messages at this endpoint.
    pub origin: Arc<Origin>,
}

/// One connection, while it lasts. A peer that several endpoints share is one.
#[derive(Debug)]
pub struct OpenConnection {
    number: u64,
    id: Box<str>,
    since_ms: u64,
    waker: Arc<AtomicWaker>,
    dismissal: OnceLock<Dismissal>,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    received_messages: AtomicU64,
    sent_messages: AtomicU64,
}

/// The traffic of a connection so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionTotals {
    /// Bytes received, frame headers included.
    pub received_bytes: u64,
    /// Bytes sent, frame headers included.
    pub sent_bytes: u64,
    /// The number of messages received.
    pub received_messages: u64,
    /// Messages handed over to be sent.
    pub sent_messages: u64,
}

/// The wish that a connection be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dismissal {
    /// The code of the close frame that the peer is sent.
    pub code: u16,
    /// The reason that the close frame gives.
    pub reason: String,
}

/// An endpoint of the table: shows what it does, and counts for it. Cheap to clone; the endpoint leaves the
/// table, and its gauges, with the last clone. One that has failed stays until [`Connections::forget`], or until
/// it is opened anew.
#[derive(Clone, Debug)]
pub struct OpenEndpoint {
    metrics: EndpointMetrics,
    row: Arc<EndpointRow>,
}

/// The row of an endpoint.
#[derive(Debug)]
struct EndpointRow {
    number: u64,
    table: Weak<EndpointTable>,
    metrics: EndpointMetrics,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    address: String,
    state: Option<(EndpointState, u64)>,
    last_error: Option<(String, u64)>,
    connections: BTreeMap<u64, ConnectionView>,
}

impl Connections {
    /// Adds an endpoint that counts in these metrics. It is shown once it has a state.
    pub fn open(&self, metrics: EndpointMetrics) -> OpenEndpoint {
        self.table.drop_failed(|row| row.metrics.place() == metrics.place());
        let row = Arc::new(EndpointRow {
            number: next_number(),
            table: Arc::downgrade(&self.table),
            metrics: metrics.clone(),
            inner: Mutex::default(),
        });
        lock(&self.table.rows).insert(row.number, Arc::downgrade(&row));
        OpenEndpoint { metrics, row }
    }

    /// Endpoints of this pipeline that have failed and are gone are shown no more: it did not fail with them, or
    /// is itself gone.
    pub fn forget(&self, pipeline: &str) {
        self.table.drop_failed(|row| row.metrics.place().0 == pipeline);
    }

    /// Whether an endpoint of this place is there, or a peer that has not left it yet.
    pub fn has(&self, pipeline: &str, endpoint: &str) -> bool {
        self.rows().iter().any(|row| row.metrics.place() == (pipeline, endpoint))
    }

    /// Every endpoint, in the order in which they were opened.
    pub fn list(&self) -> Vec<EndpointView> {
        self.rows().iter().filter_map(|row| row.view()).collect()
    }

    /// Asks for a connection to be closed with this code and reason; `false` if there is none of this
    /// name.
    pub fn dismiss(&self, id: &str, dismissal: Dismissal) -> bool {
        let found = self.rows().iter().find_map(|row| {
            let inner = lock(&row.inner);
            let found = inner.connections.values().find(|each| each.connected.id() == id);
            found.map(|each| each.connected.clone())
        });
        found.is_some_and(|connected| {
            connected.dismiss(dismissal);
            true
        })
    }

    fn rows(&self) -> Vec<Arc<EndpointRow>> {
        lock(&self.table.rows).values().filter_map(Weak::upgrade).collect()
    }
}

impl EndpointTable {
    fn drop_failed(&self, is_meant: impl Fn(&EndpointRow) -> bool) {
        // They are dropped when nothing is locked any more: a row takes itself out of the table.
        let _dropped: Vec<_> = lock(&self.failed).extract_if(.., |row| is_meant(row)).collect();
    }
}

impl OpenEndpoint {
    /// The pipeline that the endpoint is of, and the endpoint: `source`, or a sink's name.
    pub fn place(&self) -> (&str, &str) {
        self.metrics.place()
    }

    /// The endpoint in words: "the source of pipeline p", "sink out of pipeline p".
    pub fn owner(&self) -> String {
        self.metrics.owner()
    }

    /// Counts an attempt to connect, or a connection that came in.
    pub fn connect(&self, outcome: ConnectOutcome) {
        self.metrics.connect(outcome);
    }

    /// Adds bytes that one of the endpoint's connections received and sent: what TLS carries, so frame
    /// headers included and the handshake not.
    pub fn count_bytes(&self, received: u64, sent: u64) {
        self.metrics.bytes_received.inc_by(received);
        self.metrics.bytes_sent.inc_by(sent);
    }

    /// Shows what the endpoint does now.
    pub fn show(&self, state: EndpointState) {
        let mut inner = lock(&self.row.inner);
        if let Some((old, _)) = inner.state.replace((state, now_ms())) {
            self.metrics.left(old.as_str());
        }
        self.metrics.state(state.as_str()).inc();
        drop(inner);
        let Some(table) = self.row.table.upgrade() else { return };
        table.drop_failed(|row| row.number == self.row.number);
        if state == EndpointState::Failed {
            lock(&table.failed).push(self.row.clone());
        }
    }

    /// Shows the url that the endpoint dials, or where peers connect; without what is secret.
    pub fn show_address(&self, address: &str) {
        address.clone_into(&mut lock(&self.row.inner).address);
    }

    /// Shows what went wrong last.
    pub fn show_error(&self, error: &str) {
        lock(&self.row.inner).last_error = Some((foreign_text::shown(error), now_ms()));
    }

    /// Shows the connection that the endpoint has dialled, whose messages have this origin.
    pub fn attach(&self, connected: &Arc<OpenConnection>, origin: &Arc<Origin>) {
        let view = ConnectionView { connected: connected.clone(), origin: origin.clone() };
        lock(&self.row.inner).connections.insert(connected.number, view);
    }

    /// Takes the connection that the endpoint had dialled out of the table.
    pub fn detach(&self, connected: &OpenConnection) {
        self.remove(connected);
    }

    /// Shows a peer that has connected, whose messages have this origin here.
    pub fn welcome(&self, connected: &Arc<OpenConnection>, origin: &Arc<Origin>) {
        self.attach(connected, origin);
        self.metrics.state(EndpointState::Connected.as_str()).inc();
    }

    /// Takes a peer that has gone out of the table.
    pub fn farewell(&self, connected: &OpenConnection) {
        if self.remove(connected) {
            self.metrics.left(EndpointState::Connected.as_str());
        }
    }

    /// Says whether the connection was there.
    fn remove(&self, connected: &OpenConnection) -> bool {
        lock(&self.row.inner).connections.remove(&connected.number).is_some()
    }
}

impl EndpointRow {
    fn view(&self) -> Option<EndpointView> {
        let inner = lock(&self.inner);
        let (state, since_ms) = inner.state?;
        let (pipeline, endpoint) = self.metrics.place();
        Some(EndpointView {
            pipeline: pipeline.to_owned(),
            endpoint: endpoint.to_owned(),
            address: inner.address.clone(),
            state,
            since_ms,
            last_error: inner.last_error.clone(),
            connections: inner.connections.values().cloned().collect(),
        })
    }
}

impl Drop for EndpointRow {
    fn drop(&mut self) {
        if let Some((state, _)) = lock(&self.inner).state.take() {
            self.metrics.left(state.as_str());
        }
        if let Some(table) = self.table.upgrade() {
            lock(&table.rows).remove(&self.number);
        }
    }
}

impl OpenConnection {
    /// A new connection of this name; `waker` wakes the task that polls it.
    pub fn new(id: &str, waker: Arc<AtomicWaker>) -> Arc<Self> {
        Arc::new(Self {
            number: next_number(),
            id: id.into(),
            since_ms: now_ms(),
            waker,
            dismissal: OnceLock::new(),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            received_messages: AtomicU64::new(0),
            sent_messages: AtomicU64::new(0),
        })
    }

    /// The id of the connection: `__meta_connection` of its messages.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The time at which the connection was made, in milliseconds since the Unix epoch.
    pub fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// The traffic of the connection so far.
    pub fn totals(&self) -> ConnectionTotals {
        ConnectionTotals {
            // Messages first, so that there are never messages without bytes.
            received_messages: self.received_messages.load(Ordering::Acquire),
            sent_messages: self.sent_messages.load(Ordering::Acquire),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
        }
    }

    /// Notes what has gone through it. Only its own task does.
    #[inline]
    pub fn count(&self, totals: ConnectionTotals) {
        self.received_bytes.store(totals.received_bytes, Ordering::Relaxed);
        self.sent_bytes.store(totals.sent_bytes, Ordering::Relaxed);
        self.received_messages.store(totals.received_messages, Ordering::Release);
        self.sent_messages.store(totals.sent_messages, Ordering::Release);
    }

    /// Asks its task to close it. The first wish counts.
    pub fn dismiss(&self, dismissal: Dismissal) {
        if self.dismissal.set(dismissal).is_ok() {
            self.waker.wake();
        }
    }

    /// The wish that it be closed, if there is one.
    #[inline]
    pub fn dismissal(&self) -> Option<&Dismissal> {
        self.dismissal.get()
    }

    /// Has `waker` woken when there is a wish that it be closed.
    #[inline]
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}

fn next_number() -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

fn now_ms() -> u64 {
    metadata::now_us() / 1000
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is complete in itself, so a panic elsewhere leaves it sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    fn gauge(metrics: &Metrics, state: &str) -> String {
        let text = metrics.encode();
        let line = text.lines().find(|line| {
            line.starts_with("tidemill_connections{") && line.contains(&format!("state=\"{state}\""))
        });
        line.and_then(|line| line.rsplit(' ').next()).unwrap_or("none").to_owned()
    }

    #[test]
    fn gauges_follow_the_table_until_the_endpoint_is_gone() {
        let metrics = Metrics::default();
        let connections = Connections::default();
        let endpoint = connections.open(metrics.endpoint("p", "source"));
        assert!(connections.list().is_empty(), "what has no state yet is not shown");
        endpoint.show(EndpointState::Listening);
        let peer = OpenConnection::new("c1", Arc::default());
        endpoint.welcome(&peer, &Arc::default());
        assert_eq!((&*gauge(&metrics, "listening"), &*gauge(&metrics, "connected")), ("1", "1"));
        let rows = connections.list();
        assert_eq!((rows.len(), rows[0].connections.len()), (1, 1));
        endpoint.farewell(&peer);
        endpoint.farewell(&peer);
        assert_eq!(gauge(&metrics, "connected"), "0");
        drop(endpoint);
        assert_eq!(gauge(&metrics, "listening"), "0");
        assert!(connections.list().is_empty());
    }

    #[test]
    fn an_endpoint_that_has_failed_is_shown_until_it_is_forgotten_or_opened_anew() {
        let metrics = Metrics::default();
        let connections = Connections::default();
        let fail = |endpoint: &str| {
            let endpoint = connections.open(metrics.endpoint("p", endpoint));
            endpoint.show(EndpointState::Waiting);
            endpoint.show_error("gone");
            endpoint.show(EndpointState::Failed);
        };
        let shown =
            || connections.list().iter().map(|row| (row.endpoint.clone(), row.state)).collect::<Vec<_>>();
        fail("source");
        assert_eq!(shown(), [("source".to_owned(), EndpointState::Failed)]);
        assert_eq!(gauge(&metrics, "failed"), "1");
        fail("source");
        assert_eq!(gauge(&metrics, "failed"), "1", "the first was opened anew");
        drop(connections.open(metrics.endpoint("p", "source")));
        assert_eq!((shown(), &*gauge(&metrics, "failed")), (vec![], "0"));
        fail("source");
        connections.forget("q");
        assert_eq!(gauge(&metrics, "failed"), "1");
        connections.forget("p");
        assert_eq!((shown(), &*gauge(&metrics, "failed")), (vec![], "0"));
        let returns = connections.open(metrics.endpoint("p", "out"));
        returns.show(EndpointState::Failed);
        returns.show(EndpointState::Connected);
        drop(returns);
        assert!(shown().is_empty(), "it was back when it went");
    }

    #[test]
    fn the_first_wish_to_close_a_connection_counts() {
        let metrics = Metrics::default();
        let connections = Connections::default();
        let endpoint = connections.open(metrics.endpoint("p", "source"));
        let connected = OpenConnection::new("c1", Arc::default());
        endpoint.attach(&connected, &Arc::default());
        let wish = |code| Dismissal { code, reason: String::new() };
        assert!(!connections.dismiss("c2", wish(1008)));
        assert!(connections.dismiss("c1", wish(1008)));
        assert!(connections.dismiss("c1", wish(1001)));
        assert_eq!(connected.dismissal(), Some(&wish(1008)));
    }
}
