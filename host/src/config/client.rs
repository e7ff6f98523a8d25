//! What only client endpoints have: where they dial, whom they trust, and when they try again.

use super::before_connect::ConnectorSettings;
use super::form::{
    AnyDuration, AnyText, Element, Flag, Fraction, Limit, ListAt, Map, MapEntry, One, PathOf, SomeDuration,
    Sub, SubAs, TextOfFiles,
};
use super::header::{self, SetBy};
use super::names::is_host;
use super::read::{Becomes, Form, Item, Read, TableReader};
use super::report::Span;
use super::shape::Kind;
use super::{EndpointText, Environment, FilePath, Identity, Pem, Redacted, WebSocketUrl};
use std::time::Duration;

/// Headers that the handshake itself sets.
const RESERVED: [&str; 7] = [
    "host",
    "connection",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
];

/// Whether a header of this name is set by the handshake itself.
pub fn is_of_handshake(name: &str) -> bool {
    RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
}

table! {
    /// The settings of an endpoint in client mode: what it dials, and how.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Client / ClientAt {
        /// ws:// or wss://; of a list each attempt takes the next
        urls: Vec<EndpointText> = key("url", Urls, required);
        /// These headers are sent in the handshake.
        headers: Vec<(String, EndpointText)> = key(Map<Header>, default(Vec::new()));
        /// TCP, TLS and the handshake together may take at most so long.
        connect_timeout: Duration = key(SomeDuration, default(Duration::from_secs(10)));
        /// This table says, for wss://, which certificates are trusted and which one is shown.
        tls: ClientTls = key(SubAs<ClientTlsKeys, ClientTls>, default(ClientTls::default()));
        /// This table says when a connection that was lost or refused is dialled again.
        reconnect: Reconnect = key(Sub<Reconnect>, default(Reconnect::default()));
        /// At least so long passes between two messages that are sent.
        send_interval: Duration = key(AnyDuration, default(Duration::ZERO));
        /// This message of the application is sent again and again; if left out, none is.
        heartbeat: Option<Heartbeat> = key(Sub<Heartbeat>, optional);
        /// This plugin is asked before each dial, and may change url, headers, subprotocols and first messages of
        /// it; if left out, none is.
        before_connect: Option<ConnectorSettings> = key(Sub<ConnectorSettings>, optional);
    }
    beside {
        /// The proxies that connections go through.
        proxies: Proxies;
    }
    check set_proxies;
}

fn set_proxies(client: &mut Client, _: &ClientAt, reader: &mut TableReader<'_, '_>) {
    client.proxies = Proxies::of(reader.environment());
}

/// One url, or several.
pub(super) struct Urls;

impl Form for Urls {
    type Value = Vec<EndpointText>;
    type At = ListAt;
    const TAKES_FILES: bool = true;
    const KIND: Kind = Kind::TextOrTexts;

    fn read(reader: &mut TableReader<'_, '_>, key: &str, value: &Item<'_>) -> Read<Self> {
        let at = value.span();
        let texts = if value.get_ref().is_str() {
            vec![(reader.text(key, Self::KIND, true, value)?, at.clone())]
        } else {
            reader.texts(key, Self::KIND, true, value)?
        };
        if texts.is_empty() {
            reader.report.error(&at, format!("`{key}` is empty"));
            return None;
        }
        texts.iter().for_each(|(url, at)| check_url(reader, url, at));
        let written = texts.len();
        let (urls, each) = texts.into_iter().unzip();
        Some((urls, ListAt { whole: at, each, written }))
    }

    fn show(_: &Vec<EndpointText>) -> String {
        "[]".to_owned()
    }
}

fn check_url(reader: &mut TableReader<'_, '_>, url: &EndpointText, at: &Span) {
    // One that begins with the text of a file is looked at when it is dialled.
    let Some(text) = url.sketch() else { return };
    let Err(error) = WebSocketUrl::parse(&text) else { return };
    match error.hint() {
        Some(hint) => reader.report.error_with_hint(at, error.of(url), hint),
        None => reader.report.error(at, error.of(url)),
    }
}

/// A header of the handshake.
pub(super) struct Header;

impl MapEntry for Header {
    type Value = EndpointText;
    const TAKES_FILES: bool = true;

    fn of(
        reader: &mut TableReader<'_, '_>,
        name: &str,
        value: EndpointText,
        at: &Span,
    ) -> Option<EndpointText> {
        let set_by = is_of_handshake(name).then(|| SetBy {
            whom: "the handshake",
            hint: name.eq_ignore_ascii_case("sec-websocket-protocol").then_some("use the key `subprotocols`"),
        });
        header::report_faults(reader, name, &value, at, set_by.as_ref());
        Some(value)
    }
}

table! {
    /// A message that is sent again and again, and its answer.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Heartbeat / HeartbeatAt {
        /// between two messages
        interval: Duration = key(SomeDuration, required);
        /// what is sent
        message: EndpointText = key(TextOfFiles, required);
        /// This answer is expected, and is no message for the pipeline; if left out, none is waited for.
        reply: Option<EndpointText> = key(TextOfFiles, optional);
        /// If no answer came for so long after a heartbeat was due, the connection is dialled anew.
        timeout: Duration = key(SomeDuration, default(Duration::from_secs(10)));
    }
}

table! {
    /// The schedule of reconnection.
    #[derive(Clone, Copy, Debug, PartialEq)]
    pub struct Reconnect / ReconnectAt {
        /// The endpoint is dialled again; if false, the first loss or refusal is a failure.
        enabled: bool = key(Flag, default(true));
        /// The first attempt waits so long, and each further one twice as long as the one before.
        delay: Duration = key(SomeDuration, default(Duration::from_secs(1)));
        /// No attempt waits longer than this.
        max_delay: Duration = key(SomeDuration, default(Duration::from_secs(30)));
        /// After so many attempts in a row have failed, the endpoint has failed, and a sink gives up what
        /// waits; -1 is no limit.
        max_attempts: Option<u32> = key(Limit, default(None));
        /// A delay d is drawn at random between d(1 - jitter) and d(1 + jitter).
        jitter: f64 = key(Fraction, default(0.1));
        /// Attempts count from 1 again after a connection that has stayed open for so long.
        reset_after: Duration = key(AnyDuration, default(Duration::from_secs(10)));
    }
    check warn_of_delays;
}

fn warn_of_delays(reconnect: &mut Reconnect, at: &ReconnectAt, reader: &mut TableReader<'_, '_>) {
    if reconnect.delay > reconnect.max_delay {
        let at = at.delay.as_ref().or(at.max_delay.as_ref()).unwrap_or(&at.header);
        reader.report.warning(at, "`delay` is longer than `max_delay`", "every attempt waits `max_delay`");
    }
}

/// TLS of what we dial. Its files are read at every dial, so that renewed ones count from the next on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// The roots to trust; `None` is the system's.
    pub ca: Option<Pem>,
    /// Our certificate, for servers that ask for one.
    pub identity: Option<Identity>,
    /// Whether the peer's certificate is taken unseen.
    pub insecure_skip_verify: bool,
    /// The name to ask for and to check; `None` is the url's host.
    pub server_name: Option<Redacted>,
}

table! {
    /// `tls` of a client endpoint.
    pub(super) struct ClientTlsKeys / ClientTlsAt {
        /// These roots are trusted instead of the system's; PEM.
        ca: Option<FilePath> = key(PathOf, optional);
        /// This certificate chain is shown to servers that ask for one; PEM.
        cert: Option<FilePath> = key(PathOf, optional);
        /// This is the private key of cert; PEM.
        key: Option<FilePath> = key(PathOf, optional);
        /// This is the same as ca, as the base64 of the PEM.
        ca_base64: Option<EndpointText> = key(One<Base64>, optional);
        /// This is the same as cert, as the base64 of the PEM.
        cert_base64: Option<EndpointText> = key(One<Base64>, optional);
        /// This is the same as key, as the base64 of the PEM.
        key_base64: Option<EndpointText> = key(One<Base64>, optional);
        /// If true, any certificate is taken, which is for tests alone.
        insecure_skip_verify: bool = key(Flag, default(false));
        /// This name is asked for and checked; if left out, the host of the url.
        server_name: Option<Redacted> = key(One<ServerName>, optional);
    }
    check check_identity;
}

/// Reports a certificate without its key, and a key without its certificate.
fn check_identity(keys: &mut ClientTlsKeys, at: &ClientTlsAt, reader: &mut TableReader<'_, '_>) {
    let (cert, key) =
        (at.cert.as_ref().or(at.cert_base64.as_ref()), at.key.as_ref().or(at.key_base64.as_ref()));
    let has_cert = keys.cert.is_some() || keys.cert_base64.is_some();
    let has_key = keys.key.is_some() || keys.key_base64.is_some();
    let (there, missing, at) = match (cert, key) {
        (Some(at), _) if has_cert && !has_key => ("cert", "key", at),
        (_, Some(at)) if has_key && !has_cert => ("key", "cert", at),
        _ => return,
    };
    let message = format!("a `{there}` is of no use without its `{missing}`");
    reader.report.error_with_hint(at, message, format!("give `{missing}` or `{missing}_base64` too"));
}

impl Becomes<ClientTls> for ClientTlsKeys {
    /// Where both a file and its content are written, the file counts.
    fn become_it(self) -> ClientTls {
        let pem = |file: Option<FilePath>, base64: Option<EndpointText>| {
            file.map(Pem::File).or_else(|| base64.map(Pem::Base64))
        };
        let (cert, key) = (pem(self.cert, self.cert_base64), pem(self.key, self.key_base64));
        ClientTls {
            ca: pem(self.ca, self.ca_base64),
            identity: cert.zip(key).map(|(cert, key)| Identity { cert, key }),
            insecure_skip_verify: self.insecure_skip_verify,
            server_name: self.server_name,
        }
    }
}

/// The base64 of PEM.
pub(super) struct Base64;

impl Element for Base64 {
    type Value = EndpointText;
    const TAKES_FILES: bool = true;

    fn of(
        reader: &mut TableReader<'_, '_>,
        key: &str,
        text: EndpointText,
        at: &Span,
    ) -> Option<EndpointText> {
        if !text.has_files()
            && let Err(what) = Pem::decode(text.known().expose())
        {
            reader.report.error(at, format!("`{key}` is {what}"));
        }
        Some(text)
    }

    fn show(_: &EndpointText) -> String {
        String::new()
    }
}

/// The name that a certificate must have.
pub(super) struct ServerName;

impl Element for ServerName {
    type Value = Redacted;

    fn of(reader: &mut TableReader<'_, '_>, key: &str, name: EndpointText, at: &Span) -> Option<Redacted> {
        if !is_host(name.known().expose()) {
            let message = format!("`{key}` must be a name or an IP address, got \"{name}\"");
            reader.report.error(at, message);
        }
        Some(name.known().clone())
    }

    fn show(value: &Redacted) -> String {
        AnyText::show(value)
    }
}

/// The HTTP proxies that the environment names; none by default. This machine is always reached straight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The url of the proxy for `ws://`, `http://` with or without user and password.
    pub ws: Option<Redacted>,
    /// The url of the proxy for `wss://`.
    pub wss: Option<Redacted>,
    /// Hosts, domains and networks that need none, separated by commas; `*` is all.
    pub except: String,
}

impl Proxies {
    /// The proxies of `HTTP_PROXY` (for `ws://`), `HTTPS_PROXY` (for `wss://`), `ALL_PROXY` (for what has
    /// none of its own), and `NO_PROXY`, in upper or in lower case.
    pub fn of(environment: &Environment) -> Self {
        let set = |name: &str| {
            let value = environment.get(name).or_else(|| environment.get(&name.to_lowercase()));
            value.filter(|value| !value.trim().is_empty())
        };
        let proxy = |name| set(name).or_else(|| set("ALL_PROXY")).map(|url| Redacted::new(url, "***"));
        Self {
            ws: proxy("HTTP_PROXY"),
            wss: proxy("HTTPS_PROXY"),
            except: set("NO_PROXY").cloned().unwrap_or_default(),
        }
    }
}

with_defaults!(Reconnect);
