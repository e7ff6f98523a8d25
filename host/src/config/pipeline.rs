//! `[[pipelines]]`: sources, transforms and sinks, and what they must be to each other.

use super::endpoint::{ReplySink, WebSocketSink, WebSocketSource};
use super::form::{
    AnyText, Bytes, Count, Element, Flag, JsonWithData, List, ListAt, One, PathOf, SomeDuration, Sub, SubAs,
    Subs, Text, Word,
};
use super::http::HttpSettings;
use super::http_grant::{Granted, HttpGrant};
use super::message_key::MessageKey;
use super::plugin_use::{Limits, check_plugin_name, warn_of_http};
use super::read::{self, Becomes, Form, Item, Read, TableReader};
use super::report::{Report, Span};
use super::shape::Kind;
use super::swap::SwapSettings;
use super::{DEAD_LETTER, EndpointText, FilePath, MAX_SINKS, PluginConfig, Redacted, SOURCE};
use std::collections::BTreeMap;
use std::time::Duration;

const MOST_BATCH: i64 = 65_536;
/// With a minute between each, a month.
const MOST_RETRIES: i64 = 43_200;
/// More than any machine has processors for: beyond that, more instances only take memory.
const MOST_INSTANCES: i64 = 256;
/// A name is in every line of the log and in many series of the metrics.
const MOST_LABEL_BYTES: usize = 64;

table! {
    /// A pipeline: its source, its transforms and its sinks.
    #[derive(Clone, PartialEq)]
    pub struct Pipeline / PipelineAt {
        /// the pipeline's name, unique, of 64 bytes at most
        name: String = key(One<Label>, required);
        /// where messages come from
        source: SourceConfig = key(Sub<SourceConfig>, required(SourceConfig));
        /// Messages go through these plugins, in this order.
        transforms: Vec<Transform> = key(Subs<Transform>, default(Vec::new()));
        /// where messages go
        sinks: Vec<SinkConfig> = key(Subs<SinkConfig>, required);
        /// Messages that failed go to this sink, each with the reason; if left out they are dropped and
        /// counted.
        dead_letter: Option<SinkConfig> = key(SubAs<DeadLetter, SinkConfig>, optional);
    }
    beside {
        /// The tables it was read from, as they may be shown; `None` if it was built in Rust.
        written: Option<serde_json::Value>;
    }
    later ["sources", "upstreams"];
    check check_pipeline;
}

/// Names the stages, and checks what source, transforms and sinks must be to each other.
fn check_pipeline(pipeline: &mut Pipeline, at: &PipelineAt, reader: &mut TableReader<'_, '_>) {
    let report = &mut *reader.report;
    let mut names = UniqueNames::new("stage");
    let transforms = at.transforms.as_ref().map_or(&[] as &[TransformAt], |at| &at.each);
    for (transform, at) in pipeline.transforms.iter().zip(transforms) {
        if let Some(plugin) = &at.plugin {
            names.add(report, &transform.name, at.name.as_ref().unwrap_or(plugin), at.name.is_some());
        }
    }
    let sinks = at.sinks.as_ref().map_or(&[] as &[SinkConfigAt], |at| &at.each);
    for (index, (sink, at)) in pipeline.sinks.iter_mut().zip(sinks).enumerate() {
        if at.name.is_none() {
            sink.name = format!("sink{index}");
        }
        names.add(report, &sink.name, at.name.as_ref().unwrap_or(&at.header), at.name.is_some());
        check_outputs(report, sink, at.outputs.as_ref(), !pipeline.transforms.is_empty());
        if let (SinkKind::Reply(_), Some(tag), false) =
            (&sink.kind, &at.kind.tag, matches!(pipeline.source, SourceConfig::WebSocket(_)))
        {
            report.error_with_hint(
                tag,
                "there is no connection to reply on: the source of this pipeline has none",
                "`type = \"reply\"` needs a source of `type = \"websocket\"`",
            );
        }
    }
    match &at.sinks {
        Some(sinks) if sinks.each.is_empty() => {
            report.error(&sinks.whole, "a pipeline needs at least one sink");
        }
        _ => {}
    }
    if let Some(beyond) = sinks.get(MAX_SINKS) {
        report.error(&beyond.header, format!("a pipeline has at most {MAX_SINKS} sinks"));
    }
}

fn check_outputs(report: &mut Report<'_>, sink: &SinkConfig, at: Option<&ListAt>, has_transforms: bool) {
    let (Outputs::Named(outputs), Some(at)) = (&sink.outputs, at) else { return };
    if outputs.is_empty() {
        report.error_with_hint(
            &at.whole,
            format!("the sink `{}` takes no output", sink.name),
            "[\"*\"] takes all, and leaving the key out takes \"default\"",
        );
    }
    let other = outputs.iter().zip(&at.each).find(|(name, _)| name.expose() != "default");
    if let (Some((name, at)), false) = (other, has_transforms) {
        report.error_with_hint(
            at,
            format!("there is no output \"{name}\": without transforms all messages go to \"default\""),
            "named outputs are those of the pipeline's last transform",
        );
    }
}

choices! {
    /// The source of a pipeline.
    #[derive(Clone, Debug, PartialEq)]
    #[expect(clippy::large_enum_variant, reason = "few are ever made, and none is moved in a loop")]
    pub enum SourceConfig / SourceConfigAt / source by "type" "what the source is" required {
        /// A WebSocket, dialled or accepted.
        "websocket" => WebSocket(WebSocketSource);
        /// The lines of a file.
        "file" => File(FileSource);
        /// The lines of standard input.
        "stdin" => Stdin(StdinSource);
    }
    later ["nats"];
}

table! {
    /// A stage that runs a plugin.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Transform / TransformAt {
        /// the name in the plugin folder
        plugin: Redacted = key(Text, required);
        /// The stage has this label, which is unique in its pipeline; if left out, the plugin's name.
        name: String = key(One<Label>, settled());
        /// The plugin gets this table as its configuration, as JSON; its strings may take the texts of files.
        config: PluginConfig = key(JsonWithData, default(PluginConfig::plain("{}")));
        /// This becomes of a message that the plugin rejects or fails on; pass forwards it unchanged, stop
        /// fails the pipeline.
        on_error: OnError = key(Word<OnError>, default(OnError::DeadLetter));
        /// The plugin's timer is called at this interval; if left out, as often as the plugin asks for.
        tick: Option<Duration> = key(SomeDuration, optional);
        /// One call of the plugin gets at most so many messages.
        max_batch: usize = key(Count<1, MOST_BATCH>, default(256));
        /// One call of the plugin gets at most so many bytes of payload; one larger message goes alone.
        max_batch_bytes: usize = key(Bytes, default(1 << 20));
        /// A message that the plugin cannot decide on yet is offered again so many times; then it counts as
        /// rejected.
        retries: usize = key(Count<0, MOST_RETRIES>, default(5));
        /// So many instances of the plugin work in parallel, each with memory and limits of its own.
        instances: usize = key(Count<1, MOST_INSTANCES>, default(1));
        /// Messages with the same value here go to the same instance, and their order is kept for each value: a JSON
        /// pointer, or "metadata:NAME"; if left out, the order of all messages is kept.
        key: Option<MessageKey> = key(One<MessageKey>, optional);
        /// An instance of the plugin may use so much and no more.
        limits: Limits = key(Sub<Limits>, default(Limits::default()));
        /// The plugin may send HTTP requests to these origins: https://, with * for the first part of a host or
        /// for the end of a path, and http:// for an address; if left out, to none.
        allow: Vec<HttpGrant> = key(List<Granted>, default(Vec::new()));
        /// This table says what these requests may take, and which headers the host adds.
        http: HttpSettings = key(Sub<HttpSettings>, default(HttpSettings::default()));
        /// The plugin's state is kept here: what it sets, and its snapshots.
        state: StateStore = key(Word<StateStore>, default(StateStore::Memory));
        /// This table says how a new version of the plugin takes over.
        swap: SwapSettings = key(Sub<SwapSettings>, default(SwapSettings::default()));
    }
    later ["direction"];
    check check_transform;
}

fn check_transform(transform: &mut Transform, at: &TransformAt, reader: &mut TableReader<'_, '_>) {
    let plugin = &transform.plugin;
    warn_of_http(reader.report, at.http.as_ref().map(|http| &http.header), at.allow.is_some());
    if at.name.is_none() {
        plugin.shown().clone_into(&mut transform.name);
    }
    if let Some(at) = &at.plugin {
        check_plugin_name(reader.report, plugin, at);
    }
}

impl Pipeline {
    /// Whether one of its transforms keeps its state on the disk.
    pub fn is_durable(&self) -> bool {
        self.transforms.iter().any(|transform| transform.state == StateStore::Durable)
    }
}

impl Transform {
    /// A stage with the defaults of every key.
    pub fn new(plugin: impl Into<Redacted>) -> Self {
        let plugin = plugin.into();
        Self { name: plugin.shown().to_owned(), plugin, ..read::blank() }
    }
}

words! {
    /// The policy for a message that a plugin rejects or faults on.
    pub enum OnError {
        /// The message goes to the dead letters.
        DeadLetter = "dead_letter",
        /// The message is dropped, and counted.
        Drop = "drop",
        /// The message goes on unchanged.
        Pass = "pass",
        /// The message goes to the dead letters, and its pipeline stops.
        Stop = "stop",
    }
}

words! {
    /// Where the state of a stage is kept.
    pub enum StateStore {
        /// In memory, for as long as the pipeline is configured.
        Memory = "memory",
        /// On the disk too, in the folder of [state]: it outlives the host.
        Durable = "durable",
    }
}

table! {
    /// A sink of a pipeline: where messages go, and which of them.
    #[derive(Clone, Debug, PartialEq)]
    pub struct SinkConfig / SinkConfigAt {
        /// The sink's name, unique in its pipeline.
        name: String = shared(SinkName);
        /// The sink takes these outputs of the last transform; ["*"] takes all.
        outputs: Outputs = key(OutputList, default(Outputs::Named(vec!["default".into()])));
        /// What the sink is.
        kind: SinkKind = flat(SinkKind);
    }
}

shared_key! {
    /// The sink has this name, which is unique in its pipeline; if left out, sink0, sink1 and so on.
    SinkName = key("name", One<Label>, settled());
}

/// The outputs a sink takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// The sink takes every output: `["*"]`.
    All,
    /// The outputs of these names.
    Named(Vec<Redacted>),
}

choices! {
    /// The kinds of sinks.
    #[derive(Clone, Debug, PartialEq)]
    #[expect(clippy::large_enum_variant, reason = "few are ever made, and none is moved in a loop")]
    pub enum SinkKind / SinkKindAt / sink_kind by "type" "what the sink is" required {
        /// A WebSocket, dialled or accepted.
        "websocket" => WebSocket(WebSocketSink);
        /// Lines of a file.
        "file" => File(FileSink);
        /// Lines of standard output.
        "stdout" => Stdout(StdoutSink);
        /// The connection that a message came on.
        "reply" => Reply(ReplySink);
    }
    later ["nats"];
}

table! {
    /// The sink of dead letters: one that takes no outputs, and never a reply.
    #[derive(Clone, Debug, PartialEq)]
    pub(super) struct DeadLetter / DeadLetterAt {
        /// The sink's name.
        name: String = shared(SinkName);
        /// What the sink is.
        kind: DeadLetterKind = flat(DeadLetterKind);
    }
}

choices! {
    /// The kinds of sinks that dead letters may go to.
    #[derive(Clone, Debug, PartialEq)]
    #[expect(clippy::large_enum_variant, reason = "few are ever made, and none is moved in a loop")]
    pub(super) enum DeadLetterKind / DeadLetterKindAt / dead_letter_kind by "type" "what the sink is" required {
        /// A WebSocket, dialled or accepted.
        "websocket" => WebSocket(WebSocketSink);
        /// Lines of a file.
        "file" => File(FileSink);
        /// Lines of standard output.
        "stdout" => Stdout(StdoutSink);
    }
    later ["nats"];
}

impl Becomes<SinkConfig> for DeadLetter {
    fn become_it(self) -> SinkConfig {
        let kind = match self.kind {
            DeadLetterKind::WebSocket(sink) => SinkKind::WebSocket(sink),
            DeadLetterKind::File(sink) => SinkKind::File(sink),
            DeadLetterKind::Stdout(sink) => SinkKind::Stdout(sink),
        };
        let name = if self.name.is_empty() { DEAD_LETTER.to_owned() } else { self.name };
        SinkConfig { name, outputs: Outputs::All, kind }
    }
}

table! {
    /// A source that reads the lines of a file.
    #[derive(Clone, Debug, PartialEq)]
    pub struct FileSource / FileSourceAt {
        /// The file, packed if it ends in `.gz`.
        path: FilePath = shared(File);
        /// How its lines are read.
        format: Format = shared(Lines);
    }
}

table! {
    /// A source that reads the lines of standard input.
    #[derive(Clone, Debug, PartialEq)]
    pub struct StdinSource / StdinSourceAt {
        /// How its lines are read.
        format: Format = shared(Lines);
    }
}

table! {
    /// A sink that writes lines into a file.
    #[derive(Clone, Debug, PartialEq)]
    pub struct FileSink / FileSinkAt {
        /// The file, packed if it ends in `.gz`.
        path: FilePath = shared(File);
        /// How its lines are written.
        format: Format = shared(Lines);
        /// Lines are added to what the file has; if false, the file begins anew.
        append: bool = key(Flag, default(true));
    }
}

table! {
    /// A sink that writes lines to standard output.
    #[derive(Clone, Debug, PartialEq)]
    pub struct StdoutSink / StdoutSinkAt {
        /// How its lines are written.
        format: Format = shared(Lines);
    }
}

shared_key! {
    /// the file, packed if its name ends in .gz
    File = key("path", PathOf, required);
}

shared_key! {
    /// A line is a message (jsonl), or a time in nanoseconds and a message (recording); a message that is read
    /// has at most 16 MiB.
    Lines = key("format", Word<Format>, default(Format::Jsonl));
}

words! {
    /// The lines of a file of messages.
    pub enum Format {
        /// A message a line.
        Jsonl = "jsonl",
        /// The time of receipt in nanoseconds, a space, the message.
        Recording = "recording",
    }
}

impl std::fmt::Debug for Pipeline {
    /// What it means, not how it was written.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut pipeline = f.debug_struct("Pipeline");
        pipeline.field("name", &self.name).field("source", &self.source);
        pipeline.field("transforms", &self.transforms).field("sinks", &self.sinks);
        pipeline.field("dead_letter", &self.dead_letter).finish()
    }
}

/// A name that becomes a label of the metrics and a part of the API's paths; what came from `${}` is not
/// shown there either.
pub(super) struct Label;

impl Element for Label {
    type Value = String;

    fn of(reader: &mut TableReader<'_, '_>, key: &str, name: EndpointText, at: &Span) -> Option<String> {
        if name.known().expose().trim().is_empty() {
            reader.report.error(at, format!("`{key}` is empty"));
        } else if name.known().expose().contains(|c: char| c == '/' || c.is_control()) {
            let message = format!("`{key}` must have no `/` and no control characters, got \"{name}\"");
            reader.report.error(at, message);
        } else if [".", ".."].contains(&name.known().expose()) {
            let message = format!("`{key}` must not be \"{name}\", which no URL can have in its path");
            reader.report.error(at, message);
        } else if name.known().expose().len() > MOST_LABEL_BYTES {
            let bytes = name.known().expose().len();
            let message = format!("`{key}` has {bytes} bytes, and at most {MOST_LABEL_BYTES} are allowed");
            reader.report.error(at, message);
        }
        Some(name.shown().to_owned())
    }

    fn show(value: &String) -> String {
        format!("\"{value}\"")
    }
}

/// Names of outputs, or `*` for all.
pub(super) struct OutputList;

impl Form for OutputList {
    type Value = Outputs;
    type At = ListAt;
    const KIND: Kind = Kind::Texts;

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let (names, at) = List::<AnyText>::read(reader, key, value)?;
        let outputs =
            if names.iter().any(|name| name.expose() == "*") { Outputs::All } else { Outputs::Named(names) };
        Some((outputs, at))
    }

    fn show(value: &Outputs) -> String {
        match value {
            Outputs::All => "[\"*\"]".to_owned(),
            Outputs::Named(names) => List::<AnyText>::show(names),
        }
    }
}

/// Names that must differ, and where each was first given.
pub(super) struct UniqueNames {
    what: &'static str,
    places: BTreeMap<String, Span>,
}

impl UniqueNames {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, places: BTreeMap::new() }
    }

    /// Adds a name, which is written at `at`, or comes from what is written there.
    pub(super) fn add(&mut self, report: &mut Report<'_>, name: &str, at: &Span, is_written: bool) {
        // Labels of the metrics, which sinks and transforms share.
        if self.what == "stage" && [SOURCE, DEAD_LETTER].contains(&name) {
            report.error(at, format!("the name \"{name}\" is taken by the host"));
        }
        let Some(first) = self.places.get(name) else {
            self.places.insert(name.to_owned(), at.clone());
            return;
        };
        let message =
            format!("the name \"{name}\" is taken by another {} at {}", self.what, report.name(first));
        if is_written {
            report.error(at, message);
        } else {
            report.error_with_hint(at, message, "give one of them another `name`");
        }
    }
}
