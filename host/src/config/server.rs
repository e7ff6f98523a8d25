//! `[server]`: what endpoints in server mode share.

use super::form::{AnyText, ConnectionCount, Element, One, Port, SomeDuration, Sub, SubAs};
use super::inherited::Inherited;
use super::names::is_host;
use super::read::{Form, Item, Read, Table as _, TableReader};
use super::report::Span;
use super::server_tls::{ServerTls, ServerTlsKeys};
use super::shape::Kind;
use super::{EndpointText, Redacted};
use std::time::Duration;

table! {
    /// The settings that endpoints in server mode share: their defaults, and the limits of every listener.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Server / ServerAt {
        /// Endpoints in server mode listen on this address.
        host: Redacted = key(One<HostName>, default(Inherited::default().host));
        /// Endpoints in server mode listen on this port; 0 takes a free one.
        port: u16 = key(Port, default(Inherited::default().port));
        /// A listener has at most so many connections, and more get 503; handshakes have a bound of their own,
        /// a quarter of it.
        max_connections: usize = key(ConnectionCount, default(Inherited::default().max_connections));
        /// A handshake that takes longer is given up.
        handshake_timeout: Duration = key(SomeDuration, default(Duration::from_secs(10)));
        /// The listener shows this certificate, which makes it wss://.
        tls: Option<ServerTls> = key(SubAs<ServerTlsKeys, ServerTls>, optional);
    }
}

/// `[server]`, which stands for what endpoints leave out.
pub(super) struct ServerTable;

impl Form for ServerTable {
    type Value = Server;
    type At = ServerAt;
    const KIND: Kind = Kind::Table(Server::shape);

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let (server, at) = Sub::<Server>::read(reader, key, value)?;
        reader.inherit(server.inherited());
        Some((server, at))
    }

    fn show(_: &Server) -> String {
        "{}".to_owned()
    }
}

impl Server {
    /// What its endpoints take from it.
    pub(super) fn inherited(&self) -> Inherited {
        let Self { host, port, max_connections, .. } = self;
        Inherited { host: host.clone(), port: *port, max_connections: *max_connections }
    }
}

/// The address of a listener: an IP address or a name.
pub(super) struct HostName;

impl Element for HostName {
    type Value = Redacted;

    fn of(reader: &mut TableReader<'_, '_>, key: &str, host: EndpointText, at: &Span) -> Option<Redacted> {
        if !is_host(host.known().expose()) {
            let message = format!("`{key}` must be an IP address or a name, got \"{host}\"");
            let hint = if host.known().expose().starts_with('[') {
                "an IPv6 address stands here without brackets; the port has a key of its own, `port`"
            } else {
                "the port has a key of its own, `port`"
            };
            reader.report.error_with_hint(at, message, hint);
        }
        Some(host.known().clone())
    }

    fn show(value: &Redacted) -> String {
        AnyText::show(value)
    }
}

with_defaults!(Server);
