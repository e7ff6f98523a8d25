//! The last word on a dial: whoever is asked before it, what is asked, and what the answer comes to once it is
//! checked.
//!
//! What is answered is fresh as a rule, a token or a signature, so all of it that the configuration does not say is
//! a secret: it is not shown, and not told where the peer quotes it.

use super::connect_error::ConnectProblem;
use super::url;
use crate::config::{Client, Endpoint, EndpointText, Redacted, WebSocketUrl, is_of_handshake};
use crate::message::Payload;
use crate::plugin::{DialAttempt, DialEnding, DialRefusal, PlannedDial};
use crate::websocket::secret::{Secrets, resolved};
use futures_util::future::BoxFuture;
use hyper::header::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use std::fmt;
use std::time::Duration;

/// More headers than this are refused by most servers; and all their names and values together.
const MAX_HEADERS: usize = 100;
const MAX_HEADER_BYTES: usize = 32 << 10;
/// Servers take 8 KiB.
const MAX_URL_BYTES: usize = 16 << 10;
const MAX_SUBPROTOCOLS: usize = 100;
/// The shortest part of an answer that is looked for by itself where a peer quotes it: shorter words are those of
/// protocols.
const MIN_PART_BYTES: usize = 8;
/// The most such parts of one text. All of it is looked for anyway.
const MAX_PARTS: usize = 64;

/// Whoever is asked before each dial of an endpoint.
pub trait BeforeConnect: fmt::Debug + Send + Sync {
    /// The plugin that is asked, as it may be shown.
    fn name(&self) -> &str;

    /// How long an answer may take.
    fn timeout(&self) -> Duration;

    /// Asks what is to be dialled. What is secret in `confided` is in the attempt, and not to be told.
    ///
    /// # Cancel safety
    /// Dropping the future gives the question up.
    fn plan(
        &self,
        attempt: DialAttempt,
        confided: Redacted,
    ) -> BoxFuture<'static, Result<PlannedDial, NoPlan>>;

    /// What is secret in `confided` is not to be told from now on.
    fn confide(&self, confided: Redacted);

    /// What has to be done while a connection stands, if anything has.
    fn keep_alive(&self) -> Option<BoxFuture<'static, ()>>;
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPlan {
    /// Nothing is to be dialled now.
    Refused(DialRefusal),
    /// It could not answer, and why, as it may be shown.
    Failed(String),
}

/// What is dialled in the place of what the configuration says.
pub(super) struct FreshDial {
    pub(super) url: EndpointText,
    pub(super) headers: Vec<(String, EndpointText)>,
    pub(super) subprotocols: Vec<Redacted>,
    pub(super) first_messages: Vec<Payload>,
}

/// A dial that is about to be made, of an endpoint.
pub(super) struct Question<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) client: &'a Client,
    pub(super) url: &'a EndpointText,
    pub(super) number: u32,
    pub(super) last: Option<DialEnding>,
}

/// Asks within the time that an answer may take, and checks it. What of question and answer is secret is added to
/// `secrets`.
pub(super) async fn ask(
    connector: &dyn BeforeConnect,
    question: Question<'_>,
    secrets: &mut Secrets,
) -> Result<FreshDial, ConnectProblem> {
    let patience = connector.timeout();
    let asked = tokio::time::timeout(patience, question.put(connector, secrets)).await;
    asked.unwrap_or_else(|_| Err(problem(connector, format!("took longer than {patience:?}"))))
}

impl Question<'_> {
    async fn put(
        self,
        connector: &dyn BeforeConnect,
        secrets: &mut Secrets,
    ) -> Result<FreshDial, ConnectProblem> {
        let Self { endpoint, client, url, number, last } = self;
        let mut known = async |text: &EndpointText| {
            let text = resolved(text).await.map_err(ConnectProblem::Secret)?;
            secrets.add(&text);
            Ok::<_, ConnectProblem>(text)
        };
        let known_url = known(url).await?;
        let mut headers = Vec::with_capacity(client.headers.len());
        for (name, value) in &client.headers {
            headers.push((name.clone(), known(value).await?.expose().to_owned()));
        }
        let mut first_messages = Vec::with_capacity(endpoint.on_connect.len());
        for text in &endpoint.on_connect {
            first_messages.push(Payload::text(known(text).await?.expose()));
        }
        let subprotocols = endpoint.subprotocols.iter().map(|name| name.expose().to_owned()).collect();
        let configured =
            PlannedDial { url: known_url.expose().to_owned(), headers, subprotocols, first_messages };
        let attempt = DialAttempt { dial: configured.clone(), number, last };
        let planned = connector.plan(attempt, secrets.all()).await.map_err(|why| match why {
            NoPlan::Failed(why) => problem(connector, format!("failed: {why}")),
            NoPlan::Refused(DialRefusal { reason, retry_after }) => ConnectProblem::Connector {
                plugin: connector.name().to_owned(),
                why: format!("refused: {reason}"),
                retry_after,
            },
        })?;
        let comparison = Comparison { endpoint, known_url: &known_url, configured: &configured };
        let fresh = comparison.check(planned, secrets).map_err(|why| problem(connector, why))?;
        connector.confide(secrets.all());
        Ok(fresh)
    }
}

fn problem(connector: &dyn BeforeConnect, why: String) -> ConnectProblem {
    ConnectProblem::Connector { plugin: connector.name().to_owned(), why, retry_after: None }
}

/// What the configuration says, for what is answered to be held against.
struct Comparison<'a> {
    endpoint: &'a Endpoint,
    known_url: &'a Redacted,
    configured: &'a PlannedDial,
}

impl Comparison<'_> {
    /// Checks an answer, and adds what is new in it to the secrets.
    ///
    /// # Errors
    /// What the plugin did that it may not, as an end of "plugin x ...".
    fn check(&self, planned: PlannedDial, secrets: &mut Secrets) -> Result<FreshDial, String> {
        let PlannedDial { url, headers, subprotocols, first_messages } = planned;
        let url = self.url(url, secrets)?;
        let headers = self.headers(headers, secrets)?;
        let subprotocols = self.subprotocols(subprotocols, secrets)?;
        let is_new = |payload: &&Payload| !self.configured.first_messages.contains(payload);
        for payload in first_messages.iter().filter(is_new) {
            if let Some(text) = payload.as_text() {
                add_all(secrets, text);
            }
        }
        Ok(FreshDial { url, headers, subprotocols, first_messages })
    }

    fn url(&self, url: String, secrets: &mut Secrets) -> Result<EndpointText, String> {
        if url == self.configured.url {
            return Ok(self.known_url.clone().into());
        }
        if url.len() > MAX_URL_BYTES {
            return Err(format!("gave a url of {} bytes, more than {MAX_URL_BYTES}", url.len()));
        }
        let read = WebSocketUrl::parse(&url).map_err(|error| {
            // Whatever follows the scheme may be the secret.
            let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
            let is_plain = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
            let scheme = if is_plain && scheme.len() < MIN_PART_BYTES { scheme } else { "***" };
            format!("gave a url that cannot be dialled: {}", error.of(format_args!("{scheme}://***")))
        })?;
        let known = WebSocketUrl::parse(&self.configured.url).ok();
        let shown = self.shown_url(&read, known.as_ref());
        add_all(secrets, &read.path);
        let (known_path, known_query) = known.as_ref().map_or(("", ""), |known| halves(&known.path));
        let (path, query) = halves(&read.path);
        let is_known = |part: &str, known: &str| known.split(['/', '&', '=']).any(|known| known == part);
        let segments = path.split('/').filter(|part| part.len() >= MIN_PART_BYTES);
        let values = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
        let parts = segments
            .filter(|part| !is_known(part, known_path))
            .chain(values.filter(|part| !is_known(part, known_query)))
            .chain(read.user_info.iter().flat_map(|info| info.split_once(':')).map(|(_, password)| password));
        for part in parts.filter(|part| !part.is_empty()) {
            secrets.add_hidden(part);
            secrets.add_hidden(&percent_decode_str(part).decode_utf8_lossy());
        }
        Ok(Redacted::new(url, shown).into())
    }

    /// A url as it may be shown: where it leads, and what the configuration says of it.
    fn shown_url(&self, url: &WebSocketUrl, known: Option<&WebSocketUrl>) -> String {
        let configured = url::shown(&self.known_url.clone().into());
        let (shown_origin, shown_rest) = match configured.find("://").map(|at| at + 3) {
            Some(host) => {
                let end = configured[host..].find(['/', '?']).map_or(configured.len(), |end| host + end);
                configured.split_at(end)
            }
            None => (&*configured, ""),
        };
        let is_same_host =
            known.is_some_and(|known| (known.is_tls, &known.authority) == (url.is_tls, &url.authority));
        let origin = if is_same_host {
            shown_origin.to_owned()
        } else {
            let scheme = if url.is_tls { "wss" } else { "ws" };
            self.known_url.conceal(&format!("{scheme}://{}", url.authority)).into_owned()
        };
        let known = known.map(|known| halves(&known.path));
        let (path, query) = halves(&url.path);
        let (shown_path, shown_query) = halves(shown_rest);
        let shown_path = match known {
            Some((known, _)) if known == path => shown_path,
            _ if path == "/" => "/",
            _ => "/***",
        };
        match known {
            Some((_, known)) if known == query && query.is_empty() => format!("{origin}{shown_path}"),
            Some((_, known)) if known == query => format!("{origin}{shown_path}?{shown_query}"),
            _ if query.is_empty() => format!("{origin}{shown_path}"),
            _ => format!("{origin}{shown_path}?***"),
        }
    }

    fn headers(
        &self,
        headers: Vec<(String, String)>,
        secrets: &mut Secrets,
    ) -> Result<Vec<(String, EndpointText)>, String> {
        let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        if headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
            let most = MAX_HEADER_BYTES >> 10;
            return Err(format!("gave more than {MAX_HEADERS} headers, or more than {most} KiB of them"));
        }
        let checked = headers.into_iter().map(|(name, value)| {
            if is_of_handshake(&name) {
                return Err(format!("gave the header \"{name}\", which the handshake itself sets"));
            }
            if HeaderName::from_bytes(name.as_bytes()).is_err() || HeaderValue::from_str(&value).is_err() {
                return Err(format!("gave a header \"{name}\" that is not a valid HTTP header"));
            }
            if !self.configured.headers.iter().any(|(_, known)| *known == value) {
                add_all(secrets, &value);
            }
            Ok((name, Redacted::new(value, "***").into()))
        });
        checked.collect()
    }

    fn subprotocols(&self, names: Vec<String>, secrets: &mut Secrets) -> Result<Vec<Redacted>, String> {
        if names.len() > MAX_SUBPROTOCOLS {
            return Err(format!("gave more than {MAX_SUBPROTOCOLS} subprotocols"));
        }
        let checked = names.into_iter().map(|name| {
            if let Some(known) = self.endpoint.subprotocols.iter().find(|known| known.expose() == name) {
                return Ok(known.clone());
            }
            // Both are tokens of HTTP.
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                return Err("gave a subprotocol that is none".to_owned());
            }
            // Some servers take a token in this way.
            secrets.add_hidden(&name);
            Ok(Redacted::new(name, "***"))
        });
        checked.collect()
    }
}

/// Path and query.
fn halves(path: &str) -> (&str, &str) {
    path.split_once('?').unwrap_or((path, ""))
}

/// Adds a text that is new, and each part of it that is long enough to be a secret by itself.
fn add_all(secrets: &mut Secrets, text: &str) {
    secrets.add_hidden(text);
    let parts = text.split(|c: char| c.is_whitespace() || "\"'{}[],:;=&?".contains(c));
    for part in parts.filter(|part| part.len() >= MIN_PART_BYTES && part.len() < text.len()).take(MAX_PARTS) {
        secrets.add_hidden(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;
    use std::sync::Mutex;

    /// Answers with what it is told to.
    #[derive(Debug)]
    struct Told {
        answer: PlannedDial,
        asked: Mutex<Vec<DialAttempt>>,
        confided: Mutex<Redacted>,
    }

    impl Told {
        fn new(answer: PlannedDial) -> Self {
            Self { answer, asked: Mutex::default(), confided: Mutex::default() }
        }
    }

    impl BeforeConnect for Told {
        fn name(&self) -> &str {
            "told"
        }

        fn timeout(&self) -> Duration {
            Duration::from_secs(1)
        }

        fn plan(
            &self,
            attempt: DialAttempt,
            confided: Redacted,
        ) -> BoxFuture<'static, Result<PlannedDial, NoPlan>> {
            self.asked.lock().unwrap().push(attempt);
            self.confide(confided);
            let answer = self.answer.clone();
            Box::pin(async move { Ok(answer) })
        }

        fn confide(&self, confided: Redacted) {
            *self.confided.lock().unwrap() = confided;
        }

        fn keep_alive(&self) -> Option<BoxFuture<'static, ()>> {
            None
        }
    }

    fn planned(url: &str) -> PlannedDial {
        PlannedDial { url: url.into(), headers: vec![], subprotocols: vec![], first_messages: vec![] }
    }

    /// What an endpoint with this url dials where this is answered, and the secrets of that.
    async fn asked(url: Redacted, answer: PlannedDial) -> (Result<FreshDial, ConnectProblem>, Secrets, Told) {
        let url = EndpointText::from(url);
        let mut endpoint = Endpoint::client("ws://unused");
        endpoint.subprotocols = vec!["v1".into()];
        endpoint.on_connect = vec!["hello".into()];
        let Mode::Client(mut client) = endpoint.mode.clone() else { panic!("a client endpoint") };
        client.headers = vec![("X-Key".to_owned(), Redacted::new("c0nf-key", "***").into())];
        let connector = Told::new(answer);
        let mut secrets = Secrets::default();
        let question = Question { endpoint: &endpoint, client: &client, url: &url, number: 3, last: None };
        let fresh = ask(&connector, question, &mut secrets).await;
        (fresh, secrets, connector)
    }

    #[tokio::test]
    async fn it_is_asked_with_what_the_configuration_says() {
        let (fresh, _, told) = asked("ws://a/".into(), planned("ws://a/")).await;
        assert!(fresh.is_ok());
        let asked = told.asked.lock().unwrap();
        let [DialAttempt { dial, number: 3, last: None }] = &asked[..] else { panic!("{asked:?}") };
        assert_eq!((&*dial.url, &*dial.subprotocols), ("ws://a/", &["v1".to_owned()][..]));
        assert_eq!(dial.headers, [("X-Key".to_owned(), "c0nf-key".to_owned())]);
        assert_eq!(dial.first_messages, [Payload::text("hello")]);
        assert_eq!(told.confided.lock().unwrap().conceal("my c0nf-key"), "my ***");
    }

    #[tokio::test]
    async fn of_a_url_is_shown_what_the_configuration_shows_and_where_it_leads() {
        let configured =
            || Redacted::new("wss://feed.example/a/b?k=s3cr3t&x=y", "wss://feed.example/a/b?k=***&x=y");
        for (answer, shown) in [
            ("wss://feed.example/a/b?k=s3cr3t&x=y", "wss://feed.example/a/b?k=***&x=y"),
            ("wss://feed.example/a/b?k=s3cr3t&x=y&t=t0ken", "wss://feed.example/a/b?***"),
            ("wss://feed.example/a/b", "wss://feed.example/a/b"),
            ("wss://feed.example/t0ken/b?k=s3cr3t&x=y", "wss://feed.example/***?k=***&x=y"),
            ("wss://other.example/a/b?t=t0ken", "wss://other.example/a/b?***"),
            ("ws://feed.example:81/", "ws://feed.example:81/"),
            ("wss://me:t0ken@feed.example/a/b", "wss://feed.example/a/b"),
            ("wss://s3cr3t.example/", "wss://***.example/"),
        ] {
            let (fresh, ..) = asked(configured(), planned(answer)).await;
            let fresh = fresh.unwrap_or_else(|problem| panic!("{answer}: {problem}"));
            assert_eq!(url::shown(&fresh.url), shown, "{answer}");
        }
    }

    #[tokio::test]
    async fn a_peer_that_quotes_what_was_minted_is_not_repeated() {
        let answer = PlannedDial {
            headers: vec![
                ("Authorization".to_owned(), "Bearer h3ader-t0ken".to_owned()),
                ("X-Key".to_owned(), "c0nf-key".to_owned()),
            ],
            subprotocols: vec!["v1".to_owned(), "subt0k".to_owned()],
            first_messages: vec![
                Payload::text("hello"),
                Payload::text(r#"{"op":"login","args":["mess4ge-t0ken"]}"#),
            ],
            ..planned("wss://a/listen/path-t0ken?key=q1&name=caf%C3%A9-t0ken")
        };
        let (fresh, secrets, told) = asked("wss://a/listen?name=x".into(), answer).await;
        let fresh = fresh.unwrap();
        for quoted in [
            "h3ader-t0ken",
            "path-t0ken",
            "caf%C3%A9-t0ken",
            "café-t0ken",
            "subt0k",
            "mess4ge-t0ken",
            "c0nf-key",
        ] {
            assert!(!secrets.conceal(&format!("bad {quoted}!")).contains(quoted), "{quoted}");
            assert!(!told.confided.lock().unwrap().conceal(quoted).contains(quoted), "{quoted}");
        }
        assert_eq!(
            secrets.conceal("q1 of 2: login, hello, listen, v1"),
            "*** of 2: login, hello, listen, v1"
        );
        let shown: Vec<_> = fresh.subprotocols.iter().map(Redacted::shown).collect();
        assert_eq!(shown, ["v1", "***"]);
        assert!(fresh.headers.iter().all(|(_, value)| value.shown() == "***"));
    }

    #[tokio::test]
    async fn what_no_server_takes_is_not_dialled() {
        let many = vec![("X".to_owned(), "y".to_owned()); MAX_HEADERS + 1];
        let large = vec![("X".to_owned(), "y".repeat(MAX_HEADER_BYTES))];
        let names = vec!["x".to_owned(); MAX_SUBPROTOCOLS + 1];
        let long = format!("ws://a/{}", "x".repeat(MAX_URL_BYTES));
        for (answer, why) in [
            (planned(&long), "gave a url of 16391 bytes"),
            (PlannedDial { headers: many, ..planned("ws://a") }, "gave more than 100 headers"),
            (PlannedDial { headers: large, ..planned("ws://a") }, "or more than 32 KiB"),
            (PlannedDial { subprotocols: names, ..planned("ws://a") }, "gave more than 100 subprotocols"),
        ] {
            let (fresh, ..) = asked("ws://a".into(), answer).await;
            let problem = fresh.map(|_| ()).unwrap_err().to_string();
            assert!(
                problem.starts_with("before_connect: plugin told ") && problem.contains(why),
                "{problem}"
            );
        }
    }
}
