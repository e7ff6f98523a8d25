//! Makes the sources and sinks of a pipeline, as its configuration says.

use crate::config::{
    self, DEAD_LETTER, FileSink, FileSource, Mode, SOURCE, SinkKind, StdinSource, StdoutSink, WebSocketSource,
};
use crate::connections::{Connections, OpenEndpoint};
use crate::sink::{self, Sink};
use crate::source::{self, Source};
use crate::telemetry::Metrics;
use crate::websocket::{Listeners, Noted};
use std::sync::Arc;

/// Opens the ends of pipelines. It keeps what they share: the listeners.
#[derive(Debug)]
pub(super) struct Ends {
    metrics: Arc<Metrics>,
    connections: Connections,
    listeners: Listeners,
}

/// The ends of one pipeline.
#[derive(Debug)]
pub(super) struct Opened {
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
}

impl Ends {
    pub(super) fn new(metrics: Arc<Metrics>, connections: Connections, config: &config::Config) -> Self {
        let listeners = Listeners::new(&config.server).counted_by(metrics.handshakes());
        // They agree: the file was refused otherwise.
        config.pipelines.iter().flat_map(|pipeline| listeners.configure(pipeline)).for_each(Noted::keep);
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

    /// Opens all ends of a pipeline: files and listeners. Connections are dialled later.
    pub(super) async fn open(&self, pipeline: &config::Pipeline) -> Result<Opened, OpenError> {
        // Sinks first: a source that has a listener could not be read before they are there. But a reply
        // needs the connections of its source.
        let noted = self.listeners.configure(pipeline).map_err(|(end, error)| OpenError {
            end: if end == SOURCE { end } else { format!("sink {end}") },
            error: error.to_string(),
        })?;
        let is_reply = |each: &&config::Sink| matches!(each.kind, SinkKind::Reply(_));
        let mut sinks = Vec::with_capacity(pipeline.sinks.len());
        for each in pipeline.sinks.iter().filter(|each| !is_reply(each)) {
            sinks.push(self.sink(pipeline, &each.name, &each.kind).await?);
        }
        let dead_letter = match &pipeline.dead_letter {
            Some(each) => Some(self.sink(pipeline, DEAD_LETTER, &each.kind).await?),
            None => None,
        };
        let is_answered = pipeline.sinks.iter().any(|each| is_reply(&each));
        let source = self.source(&pipeline.name, &pipeline.source, is_answered).await?;
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
        Ok(Opened { source, sinks, dead_letter })
    }

    async fn reply(
        &self,
        pipeline: &str,
        name: &str,
        config: &config::ReplySink,
        source: &config::Source,
    ) -> Result<Sink, OpenError> {
        let metrics = self.metrics.sink(pipeline, name);
        let config::Source::WebSocket(WebSocketSource { endpoint, .. }) = source else {
            return Err(OpenError {
                end: format!("sink {name}"),
                error: "there is no connection to reply on: the source has none".to_owned(),
            });
        };
        let reply = match &endpoint.mode {
            Mode::Client(_) => sink::Reply::dialled(config, metrics),
            Mode::Server(listen) => {
                let of_endpoint = self.endpoint(pipeline, name);
                sink::Reply::accepted(config, endpoint, listen, &self.listeners, metrics, of_endpoint)
                    .await
                    .map_err(|error| OpenError { end: format!("sink {name}"), error: error.to_string() })?
            }
        };
        Ok(Sink::Reply(reply))
    }

    async fn source(
        &self,
        pipeline: &str,
        config: &config::Source,
        is_answered: bool,
    ) -> Result<Source, OpenError> {
        let failed = |error: String| OpenError { end: SOURCE.to_owned(), error };
        match config {
            config::Source::WebSocket(websocket) => {
                let metrics = self.endpoint(pipeline, SOURCE);
                match &websocket.endpoint.mode {
                    Mode::Client(client) => {
                        let client = source::websocket::Client::new(websocket, client, is_answered, metrics);
                        Ok(Source::Client(Box::new(client)))
                    }
                    Mode::Server(listen) => {
                        let listeners = &self.listeners;
                        source::websocket::Server::open(websocket, listen, listeners, is_answered, metrics)
                            .await
                            .map(|server| Source::Server(Box::new(server)))
                            .map_err(|error| failed(error.to_string()))
                    }
                }
            }
            config::Source::File(FileSource { path, format }) => {
                source::lines::file(path, *format).await.map_err(|error| failed(format!("{path}: {error}")))
            }
            config::Source::Stdin(StdinSource { format }) => {
                source::lines::stdin(*format).map_err(|error| failed(error.to_string()))
            }
        }
    }

    async fn sink(
        &self,
        pipeline: &config::Pipeline,
        name: &str,
        config: &SinkKind,
    ) -> Result<Sink, OpenError> {
        let names = match &pipeline.source {
            config::Source::WebSocket(source) => source.endpoint.metadata_names(),
            _ => Vec::new(),
        };
        let pipeline = &*pipeline.name;
        let failed = |error: String| OpenError { end: format!("sink {name}"), error };
        let metrics = self.metrics.sink(pipeline, name);
        match config {
            SinkKind::WebSocket(websocket) => {
                let endpoint = self.endpoint(pipeline, name);
                match &websocket.endpoint.mode {
                    Mode::Client(client) => {
                        let client = sink::websocket::Client::new(websocket, client, metrics, endpoint);
                        Ok(Sink::Client(Box::new(client.reserving(names))))
                    }
                    Mode::Server(listen) => {
                        sink::websocket::Server::open(websocket, listen, &self.listeners, metrics, endpoint)
                            .await
                            .map(|server| Sink::Server(server.reserving(names)))
                            .map_err(|error| failed(error.to_string()))
                    }
                }
            }
            SinkKind::Reply(_) => Err(failed("a dead letter has no connection to go back on".to_owned())),
            SinkKind::File(FileSink { path, format, append }) => {
                sink::lines::file(path, *format, *append, metrics)
                    .await
                    .map_err(|error| failed(format!("{path}: {error}")))
            }
            SinkKind::Stdout(StdoutSink { format }) => {
                sink::lines::stdout(*format, metrics).map_err(|error| failed(error.to_string()))
            }
        }
    }
}
