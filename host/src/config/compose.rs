//! Building a configuration in Rust: each part with what must be said, and the defaults of the rest.
//!
//! Every field is public: what differs from the defaults is set after.

use super::{
    ConnectorSettings, Endpoint, FilePath, FileSink, FileSource, Format, Mode, Outputs, Pipeline, Redacted,
    ReplySink, SinkConfig, SinkKind, SourceConfig, StdinSource, Transform, WebSocketSink, WebSocketSource,
};
use std::path::PathBuf;

impl Pipeline {
    /// A pipeline that has no sink yet.
    pub fn new(name: impl Into<String>, source: impl Into<SourceConfig>) -> Self {
        Self {
            name: name.into(),
            source: source.into(),
            transforms: Vec::new(),
            sinks: Vec::new(),
            dead_letter: None,
            written: None,
        }
    }

    /// The same, with one more transform at its end.
    #[must_use]
    pub fn through(mut self, transform: Transform) -> Self {
        self.transforms.push(transform);
        self
    }

    /// The same, with one more sink: `sink0`, `sink1` and so on, which takes the output "default".
    #[must_use]
    pub fn to(self, kind: impl Into<SinkKind>) -> Self {
        let name = format!("sink{}", self.sinks.len());
        self.with_sink(SinkConfig::new(name, kind))
    }

    /// The same, with one more sink.
    #[must_use]
    pub fn with_sink(mut self, sink: SinkConfig) -> Self {
        self.sinks.push(sink);
        self
    }

    /// The same, with a place for messages that failed.
    #[must_use]
    pub fn dead_letters_to(mut self, kind: impl Into<SinkKind>) -> Self {
        self.dead_letter =
            Some(SinkConfig { outputs: Outputs::All, ..SinkConfig::new(super::DEAD_LETTER, kind) });
        self
    }
}

impl Pipeline {
    /// The WebSocket endpoints of the pipeline, each with its name in metrics: `source`, that of a sink,
    /// `dead_letter`.
    pub fn endpoints(&self) -> impl Iterator<Item = (&str, &Endpoint)> {
        let source = self.source.endpoint().map(|endpoint| (super::SOURCE, endpoint));
        let sinks = self.sinks.iter().map(|sink| (sink.name.as_str(), sink));
        let dead_letter = self.dead_letter.iter().map(|sink| (super::DEAD_LETTER, sink));
        let sinks = sinks.chain(dead_letter).filter_map(|(name, sink)| Some((name, sink.kind.endpoint()?)));
        source.into_iter().chain(sinks)
    }

    /// The plugins that are asked before each dial, each with the name of its endpoint.
    pub fn connectors(&self) -> impl Iterator<Item = (&str, &ConnectorSettings)> {
        self.endpoints().filter_map(|(end, endpoint)| Some((end, endpoint.before_connect()?)))
    }

    /// The plugins that it takes to run: first that of each transform, then those of its connectors.
    pub fn plugins(&self) -> impl Iterator<Item = &Redacted> {
        let transforms = self.transforms.iter().map(|transform| &transform.plugin);
        transforms.chain(self.connectors().map(|(_, connector)| &connector.plugin))
    }
}

impl Endpoint {
    /// The plugin that is asked before each dial, if the endpoint has one.
    pub fn before_connect(&self) -> Option<&ConnectorSettings> {
        match &self.mode {
            Mode::Client(client) => client.before_connect.as_ref(),
            Mode::Server(_) => None,
        }
    }
}

impl SinkConfig {
    /// A sink that takes the output "default".
    pub fn new(name: impl Into<String>, kind: impl Into<SinkKind>) -> Self {
        Self { name: name.into(), outputs: Outputs::Named(vec!["default".into()]), kind: kind.into() }
    }
}

impl SourceConfig {
    /// The lines of a file, packed if it ends in `.gz`.
    pub fn file(path: impl Into<PathBuf>, format: Format) -> Self {
        Self::File(FileSource { path: FilePath::plain(path), format })
    }

    /// Its endpoint, if it is one of a WebSocket.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::WebSocket(source) => Some(&source.endpoint),
            Self::File(_) | Self::Stdin(_) => None,
        }
    }

    /// Whether its messages come with the times of a recording.
    pub(crate) fn is_recording(&self) -> bool {
        match self {
            Self::File(FileSource { format, .. }) | Self::Stdin(StdinSource { format }) => {
                *format == Format::Recording
            }
            Self::WebSocket(_) => false,
        }
    }
}

impl SinkKind {
    /// Lines added to a file, packed if it ends in `.gz`.
    pub fn file(path: impl Into<PathBuf>, format: Format) -> Self {
        Self::File(FileSink { path: FilePath::plain(path), format, append: true })
    }

    /// Its endpoint, if it is one of a WebSocket.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::WebSocket(sink) => Some(&sink.endpoint),
            Self::File(_) | Self::Stdout(_) | Self::Reply(_) => None,
        }
    }
}

impl From<WebSocketSource> for SourceConfig {
    fn from(source: WebSocketSource) -> Self {
        Self::WebSocket(source)
    }
}

impl From<Endpoint> for SourceConfig {
    fn from(endpoint: Endpoint) -> Self {
        WebSocketSource::new(endpoint).into()
    }
}

impl From<ReplySink> for SinkKind {
    fn from(reply: ReplySink) -> Self {
        Self::Reply(reply)
    }
}

impl From<WebSocketSink> for SinkKind {
    fn from(sink: WebSocketSink) -> Self {
        Self::WebSocket(sink)
    }
}

impl From<Endpoint> for SinkKind {
    fn from(endpoint: Endpoint) -> Self {
        WebSocketSink::new(endpoint).into()
    }
}
