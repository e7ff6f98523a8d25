//! Makes the sources and sinks of a pipeline, as its configuration says.

use super::connectors;
use crate::config::{
    self, DEAD_LETTER, FileSink, FileSource, Listen, Mode, SOURCE, SinkKind, StdinSource, StdoutSink,
    WebSocketSource,
};
use crate::connections::{Connections, EndpointState, OpenEndpoint};
use crate::connector::Connector;
use crate::generation::Position;
use crate::pipeline::{DeadLetterUpdate, SinkUpdate};
use crate::sink::lines::FatalWrite;
use crate::sink::{self, Sink};
use crate::source::{self, Source};
use crate::telemetry::Metrics;
use crate::websocket::{ListenError, Listeners, PendingAgreements, PendingReconfiguration, Registration};
use rustix::io::Errno;
use std::fmt::Display;
use std::io;
use std::sync::Arc;

/// Opens the ends of pipelines. It keeps what they share: the listeners.
#[derive(Debug)]
pub(super) struct EndOpener {
    metrics: Arc<Metrics>,
    connections: Connections,
    listeners: Listeners,
}

/// The ends of one pipeline.
#[derive(Debug)]
pub(super) struct OpenedEnds {
    pub(super) source: Source,
    pub(super) sinks: Vec<(Arc<str>, config::Outputs, Sink)>,
    pub(super) dead_letter: Option<Sink>,
}

/// An end that cannot be opened, and why.
#[derive(Debug, thiserror::Error)]
#[error("{end}: {error}")]
pub struct OpenError {
    end: String,
    error: String,
    is_configuration: bool,
}

impl OpenError {
    /// Whether it is the configuration that asks for what cannot be.
    pub(super) fn is_configuration(&self) -> bool {
        self.is_configuration
    }

    /// Of `source`, or the sink of this name: a mistake of the configuration.
    pub(super) fn wrong(end: &str, error: impl Display) -> Self {
        let end = if end == SOURCE { end.to_owned() } else { format!("sink {end}") };
        Self { end, error: error.to_string(), is_configuration: true }
    }

    fn of_listener(end: &str, error: &ListenError) -> Self {
        Self { is_configuration: error.is_configuration(is_asked_wrongly), ..Self::wrong(end, error) }
    }

    fn of_file(end: &str, path: impl Display, error: &io::Error) -> Self {
        Self {
            is_configuration: is_asked_wrongly(error),
            ..Self::wrong(end, format_args!("{path}: {error}"))
        }
    }

    fn of_stream(end: &str, error: &io::Error) -> Self {
        Self { is_configuration: false, ..Self::wrong(end, error) }
    }
}

impl EndOpener {
    pub(super) fn new(metrics: Arc<Metrics>, connections: Connections, config: &config::Config) -> Self {
        let listeners = Listeners::new(&config.server).counted_by(metrics.handshakes());
        // They agree: the file was refused otherwise.
        config
            .pipelines
            .iter()
            .flat_map(|pipeline| listeners.configure(pipeline))
            .for_each(PendingAgreements::keep);
        let listeners = match &config.admin {
            Some(admin) => listeners.beside(admin.listen, "[admin]"),
            None => listeners,
        };
        Self { metrics, connections, listeners }
    }

    /// A row in the table of connections for an end, and its counters.
    fn endpoint(&self, pipeline: &str, end: &str) -> OpenEndpoint {
        self.connections.open(self.metrics.endpoint(pipeline, end))
    }

    /// The listeners that server endpoints share.
    pub(super) fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// Notes what the server endpoints of a pipeline agree on with those of others, from now on.
    ///
    /// # Errors
    /// They say otherwise than those of another pipeline.
    pub(super) fn note(&self, pipeline: &config::Pipeline) -> Result<PendingAgreements, OpenError> {
        self.listeners.configure(pipeline).map_err(|(end, error)| OpenError::of_listener(&end, &error))
    }

    /// Notes the server endpoints of several pipelines at once, while others are configured no more.
    ///
    /// # Errors
    /// The pipeline with an end that says otherwise than one of another pipeline.
    pub(super) fn reconfigure(
        &self,
        gone: &[&str],
        pipelines: &[&config::Pipeline],
    ) -> Result<PendingReconfiguration, (String, OpenError)> {
        let noted = self.listeners.reconfigure(gone, pipelines);
        noted.map_err(|refused| {
            let (pipeline, end, error) = *refused;
            (pipeline, OpenError::of_listener(&end, &error))
        })
    }

    /// Notes the server endpoints of a pipeline again that is what it was before, if they still agree with others.
    pub(super) fn note_again(&self, pipeline: &config::Pipeline) {
        match self.note(pipeline) {
            Ok(noted) => noted.keep(),
            Err(error) => tracing::warn!(pipeline = %pipeline.name, %error, "endpoints disagree"),
        }
    }

    /// The table of open endpoints.
    pub(super) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Keeps the peers of the paths that this pipeline will have and that are open now, until what is given back is
    /// dropped.
    pub(super) fn hold_peers(&self, pipeline: &config::Pipeline) -> Vec<Registration> {
        let served =
            pipeline.endpoints().filter_map(|(end, endpoint)| Some((end, endpoint, endpoint.listen()?)));
        let held = served.filter_map(|(end, endpoint, listen)| {
            // It is nobody's endpoint, and is shown nowhere.
            let unseen = Connections::default().open(Metrics::default().endpoint(&pipeline.name, end));
            self.listeners.hold(endpoint, listen, &unseen)
        });
        held.collect()
    }

    /// Looks whether the ends of a pipeline could be opened that one before does not have, without opening any.
    pub(super) async fn look_at(
        &self,
        pipeline: &config::Pipeline,
        before: Option<&config::Pipeline>,
    ) -> Result<(), OpenError> {
        for (end, endpoint) in pipeline.endpoints() {
            let Some(listen) = endpoint.listen() else { continue };
            self.listeners.check(listen).await.map_err(|error| OpenError::of_listener(end, &error))?;
        }
        if let config::SourceConfig::File(FileSource { path, .. }) = &pipeline.source
            && before.is_none_or(|before| before.source != pipeline.source)
        {
            let found = tokio::fs::metadata(&**path).await;
            found.map_err(|error| OpenError::of_file(SOURCE, path, &error))?;
        }
        let sinks = pipeline.sinks.iter().map(|sink| (sink.name.as_str(), &sink.kind));
        let dead_letter = pipeline.dead_letter.iter().map(|sink| (DEAD_LETTER, &sink.kind));
        for (end, kind) in sinks.chain(dead_letter) {
            let SinkKind::File(FileSink { path, .. }) = kind else { continue };
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = folder {
                let found = tokio::fs::metadata(folder).await;
                found.map_err(|error| OpenError::of_file(end, path, &error))?;
            }
        }
        Ok(())
    }

    /// Opens the sinks of a pipeline that runs as `before` and does not have them, and waits for the connections
    /// without which it is not to go on.
    pub(super) async fn open_changed(
        &self,
        pipeline: &config::Pipeline,
        before: &config::Pipeline,
        asked: &[Connector],
    ) -> Result<(Vec<SinkUpdate>, DeadLetterUpdate), OpenError> {
        let mut sinks = Vec::with_capacity(pipeline.sinks.len());
        for each in &pipeline.sinks {
            let end = match (&each.kind, before.same_sink(each)) {
                (_, Some(_)) => None,
                (SinkKind::Reply(reply), None) => {
                    Some(self.reply(&pipeline.name, &each.name, reply, &pipeline.source).await?)
                }
                (kind, None) => Some(self.connected(pipeline, &each.name, kind, asked).await?),
            };
            sinks.push(SinkUpdate { name: each.name.as_str().into(), takes: each.outputs.clone(), end });
        }
        let kind = |pipeline: &config::Pipeline| pipeline.dead_letter.as_ref().map(|sink| sink.kind.clone());
        let dead_letter = match (kind(pipeline), kind(before)) {
            (next, before) if next == before => DeadLetterUpdate::Kept,
            (None, _) => DeadLetterUpdate::Exchanged(None),
            (Some(next), _) => {
                let opened = self.connected(pipeline, DEAD_LETTER, &next, asked).await?;
                DeadLetterUpdate::Exchanged(Some(Box::new(opened)))
            }
        };
        Ok((sinks, dead_letter))
    }

    async fn connected(
        &self,
        pipeline: &config::Pipeline,
        name: &str,
        kind: &SinkKind,
        asked: &[Connector],
    ) -> Result<Sink, OpenError> {
        let mut sink = self.sink(pipeline, name, kind, asked).await?;
        let mut failed = Vec::new();
        let connected = std::future::poll_fn(|cx| {
            sink.poll_drive(cx, &mut failed);
            sink.poll_connected(cx)
        });
        connected
            .await
            .map_err(|error| OpenError { is_configuration: false, ..OpenError::wrong(name, error) })?;
        Ok(sink)
    }

    /// A pipeline is configured no more.
    pub(super) fn forget(&self, pipeline: &str) {
        self.listeners.forget(pipeline);
        self.connections.forget(pipeline);
    }

    /// A pipeline has ended, and with none of its ends at fault.
    pub(super) fn ended_well(&self, pipeline: &str) {
        self.connections.forget(pipeline);
    }

    /// Opens all ends of a pipeline: files and listeners. Connections are dialled later, after `asked` is asked. A
    /// source that was read before goes on from there.
    pub(super) async fn open(
        &self,
        pipeline: &config::Pipeline,
        from: Option<Position>,
        asked: &[Connector],
    ) -> Result<OpenedEnds, OpenError> {
        // Sinks first: a source that has a listener could not be read before they are there. But a reply
        // needs the connections of its source.
        let noted = self.note(pipeline)?;
        let is_reply = |each: &&config::SinkConfig| matches!(each.kind, SinkKind::Reply(_));
        let mut sinks = Vec::with_capacity(pipeline.sinks.len());
        for each in pipeline.sinks.iter().filter(|each| !is_reply(each)) {
            sinks.push(self.sink(pipeline, &each.name, &each.kind, asked).await?);
        }
        let dead_letter = match &pipeline.dead_letter {
            Some(each) => Some(self.sink(pipeline, DEAD_LETTER, &each.kind, asked).await?),
            None => None,
        };
        let is_answered = pipeline.sinks.iter().any(|each| is_reply(&each));
        let source = self.source(&pipeline.name, &pipeline.source, asked, is_answered, from).await?;
        let mut others = sinks.into_iter();
        let mut sinks = Vec::with_capacity(pipeline.sinks.len());
        for each in &pipeline.sinks {
            let sink = match &each.kind {
                SinkKind::Reply(reply) => {
                    Some(self.reply(&pipeline.name, &each.name, reply, &pipeline.source).await?)
                }
                _ => others.next(),
            };
            sinks.extend(sink.map(|sink| (each.name.as_str().into(), each.outputs.clone(), sink)));
        }
        noted.keep();
        Ok(OpenedEnds { source, sinks, dead_letter })
    }

    async fn reply(
        &self,
        pipeline: &str,
        name: &str,
        config: &config::ReplySink,
        source: &config::SourceConfig,
    ) -> Result<Sink, OpenError> {
        let metrics = self.metrics.sink(pipeline, name);
        let config::SourceConfig::WebSocket(WebSocketSource { endpoint, .. }) = source else {
            return Err(OpenError::wrong(name, "there is no connection to reply on: the source has none"));
        };
        let reply = match &endpoint.mode {
            Mode::Client(_) => sink::Replies::dialled(config, metrics),
            Mode::Server(listen) => {
                let of_endpoint = self.endpoint(pipeline, name);
                sink::Replies::accepted(config, endpoint, listen, &self.listeners, metrics, of_endpoint)
                    .await
                    .map_err(|error| OpenError::of_listener(name, &error))?
            }
        };
        Ok(Sink::Reply(reply))
    }

    async fn source(
        &self,
        pipeline: &str,
        config: &config::SourceConfig,
        asked: &[Connector],
        is_answered: bool,
        from: Option<Position>,
    ) -> Result<Source, OpenError> {
        match config {
            config::SourceConfig::WebSocket(websocket) => {
                let metrics = self.endpoint(pipeline, SOURCE);
                match &websocket.endpoint.mode {
                    Mode::Client(client) => {
                        let asked = connectors::find(asked, SOURCE);
                        let client =
                            source::DialledSource::new(websocket, client, asked, is_answered, metrics);
                        Ok(Source::Dialled(Box::new(client)))
                    }
                    Mode::Server(listen) => {
                        let (listeners, shown) = (&self.listeners, metrics.clone());
                        source::AcceptedSource::open(websocket, listen, listeners, is_answered, metrics)
                            .await
                            .map(|server| Source::Accepted(Box::new(server)))
                            .map_err(|error| failed(&shown, listen, &error))
                    }
                }
            }
            config::SourceConfig::File(FileSource { path, format }) => {
                let opened = source::lines::file(path, *format, from).await;
                opened.map_err(|error| OpenError::of_file(SOURCE, path, &error))
            }
            config::SourceConfig::Stdin(StdinSource { format }) => {
                source::lines::stdin(*format).map_err(|error| OpenError::of_stream(SOURCE, &error))
            }
        }
    }

    async fn sink(
        &self,
        pipeline: &config::Pipeline,
        name: &str,
        config: &SinkKind,
        asked: &[Connector],
    ) -> Result<Sink, OpenError> {
        let names = match &pipeline.source {
            config::SourceConfig::WebSocket(source) => source.endpoint.metadata_names(),
            _ => Vec::new(),
        };
        let pipeline = &*pipeline.name;
        let metrics = self.metrics.sink(pipeline, name);
        match config {
            SinkKind::WebSocket(websocket) => {
                let endpoint = self.endpoint(pipeline, name);
                match &websocket.endpoint.mode {
                    Mode::Client(client) => {
                        let asked = connectors::find(asked, name);
                        let client = sink::DialledSink::new(websocket, client, asked, metrics, endpoint);
                        Ok(Sink::Dialled(Box::new(client.reserving(names))))
                    }
                    Mode::Server(listen) => {
                        let (listeners, shown) = (&self.listeners, endpoint.clone());
                        sink::AcceptedSink::open(websocket, listen, listeners, metrics, endpoint)
                            .await
                            .map(|server| Sink::Accepted(server.reserving(names)))
                            .map_err(|error| failed(&shown, listen, &error))
                    }
                }
            }
            SinkKind::Reply(_) => {
                Err(OpenError::wrong(name, "a dead letter has no connection to go back on"))
            }
            SinkKind::File(FileSink { path, format, append }) => {
                let opened = sink::lines::file(path, *format, *append, metrics).await;
                opened.map_err(|error| OpenError::of_file(name, path, &error))
            }
            SinkKind::Stdout(StdoutSink { format }) => {
                sink::lines::stdout(*format, FatalWrite::NobodyReads, metrics)
                    .map_err(|error| OpenError::of_stream(name, &error))
            }
        }
    }
}

/// Shows that a server endpoint cannot be opened.
fn failed(endpoint: &OpenEndpoint, listen: &Listen, error: &ListenError) -> OpenError {
    let scheme = if listen.tls.is_some() { "wss" } else { "ws" };
    endpoint.show_address(&format!("{scheme}://{}{}", error.address(), listen.path));
    endpoint.show_error(&error.to_string());
    endpoint.show(EndpointState::Failed);
    OpenError::of_listener(endpoint.place().1, error)
}

/// Whether what is asked for cannot be had as it is asked: a file that is not there, a name that leads to no
/// address. Where it is not, the same may well be had at another time.
pub(super) fn is_asked_wrongly(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AddrInUse, ExecutableFileBusy, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
        OutOfMemory, QuotaExceeded, ResourceBusy, StaleNetworkFileHandle, StorageFull, TimedOut, WouldBlock,
    };
    let is_momentary = matches!(
        error.kind(),
        AddrInUse
            | ExecutableFileBusy
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | OutOfMemory
            | QuotaExceeded
            | ResourceBusy
            | StaleNetworkFileHandle
            | StorageFull
            | TimedOut
            | WouldBlock
    );
    let is_exhausted = Errno::from_io_error(error)
        .is_some_and(|error| [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::IO].contains(&error));
    !is_momentary && !is_exhausted
}
