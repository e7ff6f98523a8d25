//! The whole file, and its tables that are no pipelines.

use super::agree::{self, Served};
use super::files;
use super::form::{Element, Flag, GIB, MIB, One, PathOf, Size, SomeDuration, Sub, Subs, TIB, Text};
use super::pipeline::{Pipeline, PipelineAt, SinkConfig, SourceConfig, Transform, UniqueNames};
use super::plugin_use::Limits;
use super::read::{Table as _, TableReader};
use super::report::{Report, Span};
use super::server::{Server, ServerTable};
use super::shape::{self, Shape};
use super::{EndpointText, FilePath, Listen, Redacted};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

type ShapeOf = fn() -> &'static Shape;

/// The tables of the file, by the headers they are written with.
pub(super) const TABLES: [(&str, ShapeOf); 9] = [
    ("[plugins]", Plugins::shape),
    ("[server]", Server::shape),
    ("[state]", StateFolder::shape),
    ("[admin]", Admin::shape),
    ("[[pipelines]]", Pipeline::shape),
    ("[pipelines.source]", SourceConfig::shape),
    ("[[pipelines.transforms]]", Transform::shape),
    ("[[pipelines.sinks]]", SinkConfig::shape),
    ("limits", Limits::shape),
];

/// The header of the first table that has this key.
pub(super) fn home(key: &str) -> Option<&'static str> {
    TABLES.iter().find(|(_, shape)| shape::has(&shape().parts, key)).map(|(header, _)| *header)
}

table! {
    /// A whole configuration, as `tidemill.toml` has it.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct Config / ConfigAt {
        /// This table says where plugins are found, and where their compiled code is kept.
        plugins: Plugins = key(Sub<Plugins>, default(Plugins::default()));
        /// This table has what endpoints in server mode have in common.
        server: Server = key(ServerTable, default(Server::default()));
        /// This table says where durable state is kept.
        state: StateFolder = key(Sub<StateFolder>, default(StateFolder::default()));
        /// This table turns the HTTP API on.
        admin: Option<Admin> = key(Sub<Admin>, optional);
        /// Each of these tables is a pipeline: a source, transforms and sinks.
        pipelines: Vec<Pipeline> = key(Subs<Pipeline>, default(Vec::new()));
    }
    check check_config;
}

/// The names of the pipelines, and what their endpoints have in common.
fn check_config(config: &mut Config, at: &ConfigAt, reader: &mut TableReader<'_, '_>) {
    if at.plugins.is_none() {
        config.plugins.place(&PluginsAt::default(), reader);
    }
    if at.state.is_none() {
        config.state.place(&StateFolderAt::default(), reader);
    }
    let pipelines = at.pipelines.as_ref().map_or(&[] as &[PipelineAt], |at| &at.each);
    let mut names = UniqueNames::new("pipeline");
    for (pipeline, at) in config.pipelines.iter().zip(pipelines) {
        if let Some(name) = &at.name {
            names.add(reader.report, &pipeline.name, name, true);
        }
    }
    files::report_shared(reader.report, config.pipelines.iter().zip(pipelines));
    let mut served = served(&mut config.pipelines, at);
    agree::agree(reader.report, &config.server, &mut served);
    agree::warn_of_open_doors(reader.report, &served);
    if config.pipelines.is_empty() && config.admin.is_none() && reader.report.errors.is_empty() {
        let message = "there is no pipeline, so there is nothing to do";
        reader.report.warning(&at.header, message, "add `[[pipelines]]`");
    }
}

/// The server endpoints of all pipelines.
fn served<'c>(pipelines: &'c mut [Pipeline], at: &'c ConfigAt) -> Vec<Served<'c>> {
    let places = at.pipelines.as_ref().map_or(&[] as &[PipelineAt], |at| &at.each);
    pipelines.iter_mut().zip(places).flat_map(|(pipeline, at)| agree::served(pipeline, at)).collect()
}

impl Config {
    /// Has this `[server]` hold in the place of the one that the file has.
    pub(super) fn hold(&mut self, server: &Server, at: &ConfigAt, report: &mut Report<'_>) {
        self.server = server.clone();
        agree::agree(report, server, &mut served(&mut self.pipelines, at));
    }

    /// The addresses that its server endpoints are reached at, each once.
    pub fn listeners(&self) -> BTreeSet<(&str, u16)> {
        let endpoints = self.pipelines.iter().flat_map(Pipeline::endpoints);
        endpoints.filter_map(|(_, endpoint)| endpoint.listen()).map(Listen::address).collect()
    }
}

/// The most that `max_size` of the plugins can be.
pub(crate) const MOST_PLUGIN_BYTES: u64 = GIB;

table! {
    /// The folder of plugins, and the folder where their compiled code is kept.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Plugins / PluginsAt {
        /// The folder of plugins is made if it is missing; the file vwap.wasm in it is the plugin "vwap".
        dir: FilePath = key(PathOf, default(FilePath::plain("plugins")));
        /// If true, the host takes up new and changed plugins while it runs.
        watch: bool = key(Flag, default(true));
        /// Compiled code is kept in this folder for the next start.
        cache: FilePath = key(PathOf, default(FilePath::plain(".tidemill/cache")));
        /// A plugin whose file is larger is refused.
        max_size_bytes: u64 = key("max_size", Size<1, MOST_PLUGIN_BYTES>, default(64 * MIB));
    }
    check place_plugins;
}

fn place_plugins(plugins: &mut Plugins, at: &PluginsAt, reader: &mut TableReader<'_, '_>) {
    plugins.place(at, reader);
}

impl Plugins {
    /// Puts folders that are not written beside the file.
    fn place(&mut self, at: &PluginsAt, reader: &TableReader<'_, '_>) {
        for (path, at) in [(&mut self.dir, &at.dir), (&mut self.cache, &at.cache)] {
            if at.is_none() {
                *path = reader.path(&Redacted::plain(path.to_string()));
            }
        }
    }
}

table! {
    /// The folder of durable state, and how often it is written.
    #[derive(Clone, Debug, PartialEq)]
    pub struct StateFolder / StateFolderAt {
        /// Each pipeline that has durable state keeps it in a file of this folder, which is made then.
        dir: FilePath = key(PathOf, default(FilePath::plain(".tidemill/state")));
        /// What has changed is written after so long at the latest: after a crash, at most that is gone.
        interval: Duration = key(SomeDuration, default(Duration::from_secs(1)));
        /// The files take at most so much together.
        max_size_bytes: u64 = key("max_size", Size<MIB, TIB>, default(GIB));
    }
    check place_state;
}

fn place_state(state: &mut StateFolder, at: &StateFolderAt, reader: &mut TableReader<'_, '_>) {
    state.place(at, reader);
}

impl StateFolder {
    /// Puts a folder that is not written beside the file.
    fn place(&mut self, at: &StateFolderAt, reader: &TableReader<'_, '_>) {
        if at.dir.is_none() {
            self.dir = reader.path(&Redacted::plain(self.dir.to_string()));
        }
    }
}

table! {
    /// The address and the token of the HTTP API.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Admin / AdminAt {
        /// The HTTP API listens on this address and port.
        listen: SocketAddr = key(One<ListenAddress>, default((Ipv4Addr::LOCALHOST, 10080).into()));
        /// Requests must show this bearer token; it is needed where the address is not loopback.
        token: Option<Redacted> = key(Text, optional);
    }
    check check_admin;
}

fn check_admin(admin: &mut Admin, at: &AdminAt, reader: &mut TableReader<'_, '_>) {
    let place = |at: &Option<Span>, header: &Span| at.clone().unwrap_or_else(|| header.clone());
    if admin.token.as_ref().is_some_and(|token| token.expose().trim().is_empty()) {
        reader.report.error(&place(&at.token, &at.header), "`token` is empty");
    } else if admin.token.is_none() && !admin.listen.ip().is_loopback() {
        reader.report.error_with_hint(
            &place(&at.listen, &at.header),
            "an address that is not loopback needs a `token`",
            "token = \"${ADMIN_TOKEN}\" takes it from the environment",
        );
    }
}

/// An IP address and a port.
pub(super) struct ListenAddress;

impl Element for ListenAddress {
    type Value = SocketAddr;

    fn of(reader: &mut TableReader<'_, '_>, key: &str, text: EndpointText, at: &Span) -> Option<SocketAddr> {
        let address = text.known().expose().replace("localhost:", "127.0.0.1:").parse().ok();
        if address.is_none() {
            reader.report.error_with_hint(
                at,
                format!("`{key}` must be an IP address and a port, got \"{text}\""),
                "such as \"127.0.0.1:10080\", or \"0.0.0.0:10080\" for every interface",
            );
        }
        address
    }

    fn show(value: &SocketAddr) -> String {
        format!("\"{value}\"")
    }
}

with_defaults!(Plugins, StateFolder);
