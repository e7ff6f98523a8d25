//! The domain types out of checked tables: what only several keys together can say is checked here.
//!
//! A part that cannot be made was reported before; it is left out, and the rest is still looked at.

use super::agree::{self, Served};
use super::endpoint;
use super::listen::{self, check_host};
use super::report::Report;
use super::section::Section;
use super::{
    Admin, Config, DEAD_LETTER, Format, Limits, OnError, Outputs, Pipeline, Plugins, Redacted, SOURCE,
    Server, Sink, SinkKind, Source, Transform,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;

/// The names a stage cannot have: labels of the metrics, which sinks and transforms share.
const TAKEN: [&str; 2] = [SOURCE, DEAD_LETTER];

/// The whole configuration.
pub(super) fn config(report: &mut Report<'_>, root: &Section) -> Config {
    let mut config = Config::default();
    if let Some(plugins) = root.section("plugins") {
        config.plugins = self::plugins(plugins);
    }
    if let Some(server) = root.section("server") {
        if let Some(host) = server.text("host") {
            check_host(report, host, &server.span("host"));
        }
        config.server = self::server(report, server);
    }
    config.admin = root.section("admin").and_then(|admin| self::admin(report, admin));
    let mut served = Vec::new();
    let mut names = Names::new("pipeline");
    for section in root.sections("pipelines") {
        if let Some(name) = section.text("name") {
            names.add(report, section, name);
        }
        config.pipelines.extend(pipeline(report, section, &config.server, &mut served));
    }
    agree::agree(report, &config.server, &mut served);
    agree::warn_of_open_doors(report, &served);
    agree::settle(&mut config.pipelines, served);
    if root.sections("pipelines").is_empty() && config.admin.is_none() && report.errors.is_empty() {
        report.warning(
            &root.header,
            "there is no pipeline, so there is nothing to do",
            "add `[[pipelines]]`",
        );
    }
    config
}

fn plugins(section: &Section) -> Plugins {
    let defaults = Plugins::default();
    Plugins {
        dir: section.path("dir").cloned().unwrap_or(defaults.dir),
        watch: section.bool("watch"),
        cache: section.path("cache").cloned().unwrap_or(defaults.cache),
        max_size_bytes: section.size("max_size"),
    }
}

fn server(report: &mut Report<'_>, section: &Section) -> Server {
    let defaults = Server::default();
    Server {
        host: section.text("host").cloned().unwrap_or(defaults.host),
        port: port(section).unwrap_or(defaults.port),
        max_connections: section.count("max_connections"),
        handshake_timeout: section.duration("handshake_timeout").unwrap_or(defaults.handshake_timeout),
        tls: section.section("tls").and_then(|section| listen::tls(report, section)),
    }
}

/// The value of `port`, whose kind keeps it within 16 bits.
pub(super) fn port(section: &Section) -> Option<u16> {
    section.integer("port").and_then(|port| u16::try_from(port).ok())
}

fn admin(report: &mut Report<'_>, section: &Section) -> Option<Admin> {
    let listen = section.text("listen")?;
    let address = listen.expose().replace("localhost:", "127.0.0.1:");
    let Ok(address) = address.parse::<SocketAddr>() else {
        report.error_with_hint(
            &section.span("listen"),
            format!("`listen` must be an IP address and a port, got \"{listen}\""),
            "such as \"127.0.0.1:10080\", or \"0.0.0.0:10080\" for every interface",
        );
        return None;
    };
    let token = section.text("token").cloned();
    if token.as_ref().is_some_and(|token| token.expose().trim().is_empty()) {
        report.error(&section.span("token"), "`token` is empty");
    } else if token.is_none() && !address.ip().is_loopback() {
        report.error_with_hint(
            &section.span("listen"),
            "an address that is not loopback needs a `token`",
            "token = \"${ADMIN_TOKEN}\" takes it from the environment",
        );
    }
    Some(Admin { listen: address, token })
}

/// One pipeline.
pub(super) fn pipeline(
    report: &mut Report<'_>,
    section: &Section,
    server: &Server,
    served: &mut Vec<Served>,
) -> Option<Pipeline> {
    let name = section.text("name").map(|name| label(report, section, name));
    let source = section.section("source").and_then(|source| self::source(report, source, server, served));
    let mut stages = Names::new("stage");
    let transforms = section.sections("transforms").iter();
    let transforms: Vec<_> =
        transforms.filter_map(|section| transform(report, section, &mut stages)).collect();
    let mut sinks = Vec::new();
    for (index, section) in section.sections("sinks").iter().enumerate() {
        if let Some(sink) = sink(report, section, &format!("sink{index}"), server, served) {
            stages.add(report, section, &Redacted::plain(&*sink.name));
            check_outputs(report, section, &sink, !transforms.is_empty());
            let has_connection = matches!(&source, None | Some(Source::WebSocket(_)));
            if matches!(sink.kind, SinkKind::Reply(_)) && !has_connection {
                report.error_with_hint(
                    &section.span("type"),
                    "there is no connection to reply on: the source of this pipeline has none",
                    "`type = \"reply\"` needs a source of `type = \"websocket\"`",
                );
            }
            sinks.push(sink);
        }
    }
    if section.is_written("sinks") && section.sections("sinks").is_empty() {
        report.error(&section.span("sinks"), "a pipeline needs at least one sink");
    }
    if let Some(beyond) = section.sections("sinks").get(super::MAX_SINKS) {
        report.error(&beyond.header, format!("a pipeline has at most {} sinks", super::MAX_SINKS));
    }
    let dead_letter = section.section("dead_letter");
    let dead_letter = dead_letter.and_then(|section| sink(report, section, DEAD_LETTER, server, served));
    Some(Pipeline { name: name?, source: source?, transforms, sinks, dead_letter, written: None })
}

fn source(
    report: &mut Report<'_>,
    section: &Section,
    server: &Server,
    served: &mut Vec<Served>,
) -> Option<Source> {
    let format = format(section);
    match section.word("type") {
        "websocket" => endpoint::source(report, section, server, served).map(Source::WebSocket),
        "file" => Some(Source::File { path: section.path("path")?.clone(), format }),
        "stdin" => Some(Source::Stdin { format }),
        _ => None,
    }
}

fn sink(
    report: &mut Report<'_>,
    section: &Section,
    default_name: &str,
    server: &Server,
    served: &mut Vec<Served>,
) -> Option<Sink> {
    let name = match section.text("name") {
        Some(name) => label(report, section, name),
        None => default_name.to_owned(),
    };
    let format = format(section);
    let kind = match section.word("type") {
        "websocket" => SinkKind::WebSocket(endpoint::sink(report, section, server, served)?),
        "file" => {
            SinkKind::File { path: section.path("path")?.clone(), format, append: section.bool("append") }
        }
        "stdout" => SinkKind::Stdout { format },
        "reply" => SinkKind::Reply(endpoint::reply(report, section)),
        _ => return None,
    };
    let outputs = section.texts("outputs").iter().map(|(name, _)| name.known().clone());
    let outputs: Vec<_> = outputs.collect();
    let outputs = if outputs.iter().any(|name| name.expose() == "*") || default_name == DEAD_LETTER {
        Outputs::All
    } else {
        Outputs::Named(outputs)
    };
    Some(Sink { name, outputs, kind })
}

fn check_outputs(report: &mut Report<'_>, section: &Section, sink: &Sink, has_transforms: bool) {
    let Outputs::Named(outputs) = &sink.outputs else { return };
    if outputs.is_empty() {
        report.error_with_hint(
            &section.span("outputs"),
            format!("the sink `{}` takes no output", sink.name),
            "[\"*\"] takes all, and leaving the key out takes \"default\"",
        );
    }
    let other = section.texts("outputs").iter().find(|(name, _)| name.known().expose() != "default");
    if let (Some((name, at)), false) = (other, has_transforms) {
        report.error_with_hint(
            at,
            format!("there is no output \"{name}\": without transforms all messages go to \"default\""),
            "named outputs are those of the pipeline's last transform",
        );
    }
}

fn format(section: &Section) -> Format {
    if section.word("format") == "recording" { Format::Recording } else { Format::Jsonl }
}

fn transform(report: &mut Report<'_>, section: &Section, stages: &mut Names) -> Option<Transform> {
    let plugin = section.text("plugin")?;
    let at = section.span("plugin");
    if let Some(stem) = plugin.shown().strip_suffix(".wasm") {
        report.error_with_hint(
            &at,
            "`plugin` is the name of the plugin, not of its file",
            format!("write \"{stem}\", which is {stem}.wasm in the plugin folder"),
        );
    } else if plugin.expose().is_empty()
        || plugin.expose().starts_with('.')
        || plugin.expose().contains(['/', '\\', '\0'])
    {
        report.error(&at, format!("\"{plugin}\" is not the name of a file in the plugin folder"));
    }
    let name = section.text("name");
    stages.add(report, section, name.unwrap_or(plugin));
    let name = match name {
        Some(name) => label(report, section, name),
        None => plugin.shown().to_owned(),
    };
    let mut transform = Transform { name, ..Transform::new(plugin.clone()) };
    if let Some(config) = section.json("config") {
        transform.config = config.clone();
    }
    transform.on_error = match section.word("on_error") {
        "drop" => OnError::Drop,
        "pass" => OnError::Pass,
        "stop" => OnError::Stop,
        _ => OnError::DeadLetter,
    };
    transform.tick = section.duration("tick");
    transform.max_batch = section.count("max_batch");
    transform.max_batch_bytes = section.memory("max_batch_bytes");
    if let Some(limits) = section.section("limits") {
        transform.limits = Limits {
            memory_bytes: limits.memory("memory"),
            deadline: limits.duration("deadline").unwrap_or(transform.limits.deadline),
            output_bytes: limits.memory("output"),
        };
    }
    Some(transform)
}

/// A name that becomes a label of the metrics and a part of the API's paths; what came from `${}` is not
/// shown there either.
fn label(report: &mut Report<'_>, section: &Section, name: &Redacted) -> String {
    let at = section.span("name");
    if name.expose().trim().is_empty() {
        report.error(&at, "`name` is empty");
    } else if name.expose().contains(|c: char| c == '/' || c.is_control()) {
        report.error(&at, format!("`name` must have no `/` and no control characters, got \"{name}\""));
    }
    name.shown().to_owned()
}

/// Names that must differ, and where each was first given.
struct Names {
    what: &'static str,
    places: BTreeMap<String, Range<usize>>,
}

impl Names {
    fn new(what: &'static str) -> Self {
        Self { what, places: BTreeMap::new() }
    }

    /// Adds the name of `section`, which is its `name`, its plugin's, or one by its number.
    fn add(&mut self, report: &mut Report<'_>, section: &Section, name: &Redacted) {
        let key = if section.is_written("name") { "name" } else { "plugin" };
        let at = section.span(key);
        if self.what == "stage" && TAKEN.contains(&name.shown()) {
            report.error(&at, format!("the name \"{name}\" is taken by the host"));
        }
        let Some(first) = self.places.get(name.shown()) else {
            self.places.insert(name.shown().to_owned(), at);
            return;
        };
        let message =
            format!("the name \"{name}\" is taken by another {} at {}", self.what, report.name(first));
        if key == "name" {
            report.error(&at, message);
        } else {
            report.error_with_hint(&at, message, "give one of them another `name`");
        }
    }
}
