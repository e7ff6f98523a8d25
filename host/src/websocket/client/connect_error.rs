//! Why there is no connection: in words, as a metric's label, and as advice for the next attempt.

use super::url;
use crate::backoff::Advice;
use crate::config::EndpointText;
use crate::foreign_text;
use crate::plugin::DialEnding;
use crate::telemetry::ConnectOutcome;
use crate::websocket::secret::Secrets;
use hyper::header::{self, HeaderMap};
use hyper::{Response, StatusCode};
use rustls::{AlertDescription, CertificateError};
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::{Duration, SystemTime};

/// A dial that failed.
#[derive(Debug)]
pub struct ConnectError {
    url: String,
    problem: ConnectProblem,
    /// Another dial is not the same again: a plugin says what is dialled.
    is_planned: bool,
}

#[derive(Debug)]
pub(super) enum ConnectProblem {
    Url(String),
    /// A file of the configuration that cannot be read.
    Secret(String),
    Proxy {
        proxy: String,
        problem: Box<ConnectProblem>,
    },
    Tcp(io::Error),
    Tls {
        detail: String,
        hint: Option<&'static str>,
    },
    Timeout(Duration),
    Closed(String),
    Status {
        status: StatusCode,
        location: Option<String>,
        retry_after: Option<Duration>,
    },
    Handshake(String),
    Subprotocol {
        offered: String,
        chosen: Option<String>,
    },
    /// Whoever is asked before a dial gave none that can be made.
    Connector {
        plugin: String,
        /// What it did, after its name.
        why: String,
        retry_after: Option<Duration>,
    },
}

impl ConnectError {
    pub(super) fn new(url: &EndpointText, problem: ConnectProblem) -> Self {
        let problem = match problem {
            ConnectProblem::Status { status, location: Some(location), retry_after } => {
                let location = Some(url::shown_location(&location, url));
                ConnectProblem::Status { status, location, retry_after }
            }
            other => other,
        };
        Self { url: url::shown(url), problem, is_planned: false }
    }

    /// The same, where a plugin says what is dialled.
    pub(super) fn planned(self) -> Self {
        Self { is_planned: true, ..self }
    }

    /// The same, where the server's words quote no secret.
    pub(super) fn concealing(mut self, secrets: &Secrets) -> Self {
        match &mut self.problem {
            ConnectProblem::Status { location: Some(said), .. }
            | ConnectProblem::Subprotocol { chosen: Some(said), .. } => *said = secrets.conceal(said),
            _ => {}
        }
        self
    }

    /// What it tells whoever is asked before the next dial.
    pub(super) fn ending(&self) -> DialEnding {
        DialEnding {
            outcome: self.outcome().as_str(),
            detail: self.to_string(),
            status: self.status(),
            close_code: None,
            lasted: Duration::ZERO,
        }
    }

    /// The label of the connects counter.
    pub fn outcome(&self) -> ConnectOutcome {
        self.problem.outcome()
    }

    /// The HTTP status of the answer, if it was not 101.
    pub fn status(&self) -> Option<u16> {
        match self.problem {
            ConnectProblem::Status { status, .. } => Some(status.as_u16()),
            _ => None,
        }
    }

    /// What it says about the next attempt.
    pub fn advice(&self) -> Advice {
        let advice = self.problem.advice();
        Advice { slow_down: advice.slow_down && !self.is_planned, ..advice }
    }

    /// Where to look, if that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match &self.problem {
            ConnectProblem::Status { status, .. }
                if self.is_planned && matches!(status.as_u16(), 401 | 403 | 404) =>
            {
                Some("the plugin of `before_connect` said what to dial; it is told of this, and asked again")
            }
            ConnectProblem::Status { status, .. } if matches!(status.as_u16(), 401 | 403) => {
                Some("check `headers.Authorization`")
            }
            ConnectProblem::Status { status, .. } if status.as_u16() == 404 => {
                Some("check the path of `url`")
            }
            ConnectProblem::Status { location: Some(_), .. } => {
                Some("redirects are not followed: change `url`")
            }
            ConnectProblem::Tls { hint, .. } => *hint,
            ConnectProblem::Proxy { problem, .. } => match **problem {
                ConnectProblem::Status { status: StatusCode::PROXY_AUTHENTICATION_REQUIRED, .. } => {
                    Some("check the user and the password in the proxy's url")
                }
                _ => {
                    Some("the proxy is that of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY; NO_PROXY exempts hosts")
                }
            },
            ConnectProblem::Subprotocol { .. } => Some("check `subprotocols`"),
            _ => None,
        }
    }
}

/// A peer may ask for a pause, and not for ever.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// What `openssl req -x509` makes by default is an authority.
const NOT_OF_A_SERVER: &str = "make one with `openssl req -x509 -newkey rsa:2048 -nodes -days 365 \
     -keyout key.pem -out cert.pem -subj /CN=localhost -addext basicConstraints=critical,CA:FALSE \
     -addext subjectAltName=DNS:localhost,IP:127.0.0.1`, and trust it as `tls.ca`";
const WRONG_NAME: &str = "`tls.server_name` says which name to check, `tls.ca` whom to trust";

/// A name of a certificate without what rustls puts around it: `DnsName("example.com")`.
fn bare(name: &str) -> &str {
    name.split_once('"').and_then(|(_, rest)| rest.rsplit_once('"')).map_or(name, |(name, _)| name)
}

impl ConnectProblem {
    fn advice(&self) -> Advice {
        match self {
            Self::Status { status, retry_after, .. } => Advice {
                slow_down: matches!(status.as_u16(), 401 | 403 | 404),
                at_least: retry_after.map(|wait| wait.min(LONGEST_RETRY_AFTER)),
            },
            Self::Connector { retry_after, .. } => {
                Advice { slow_down: false, at_least: retry_after.map(|wait| wait.min(LONGEST_RETRY_AFTER)) }
            }
            // It is the proxy that is not to be asked again so soon.
            Self::Proxy { problem, .. } => problem.advice(),
            _ => Advice::default(),
        }
    }

    fn outcome(&self) -> ConnectOutcome {
        match self {
            Self::Tcp(_) => ConnectOutcome::Refused,
            Self::Timeout(_) => ConnectOutcome::Timeout,
            Self::Tls { .. } => ConnectOutcome::Tls,
            Self::Closed(_) => ConnectOutcome::Closed,
            Self::Connector { .. } => ConnectOutcome::Plugin,
            Self::Proxy { problem, .. } => problem.outcome(),
            Self::Url(_)
            | Self::Secret(_)
            | Self::Status { .. }
            | Self::Handshake(_)
            | Self::Subprotocol { .. } => ConnectOutcome::Handshake,
        }
    }

    pub(super) fn tls(detail: impl Into<String>) -> Self {
        Self::Tls { detail: detail.into(), hint: None }
    }

    pub(super) fn of_tls(error: &io::Error) -> Self {
        match rustls_error(error) {
            Some(rustls::Error::InvalidCertificate(why)) => Self::of_certificate(why),
            Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => Self::Tls {
                detail: "the server asks for a client certificate".to_owned(),
                hint: Some("give one as `tls.cert` and `tls.key`"),
            },
            Some(rustls::Error::AlertReceived(alert)) => {
                Self::tls(format!("TLS refused by the peer: {alert:?}"))
            }
            Some(other) => Self::tls(format!("TLS failed: {other}")),
            None if is_hang_up(error) => Self::Closed("the peer hung up during the TLS handshake".to_owned()),
            None => Self::tls(format!("TLS failed: {error}")),
        }
    }

    fn of_certificate(why: &CertificateError) -> Self {
        use CertificateError as Why;
        let (why, hint) = match why {
            Why::UnknownIssuer => {
                ("its issuer is not trusted".to_owned(), "the roots to trust can be given as `tls.ca`")
            }
            Why::NotValidForName => ("it is for other names".to_owned(), WRONG_NAME),
            // The name that was expected may be one that is not to be shown.
            Why::NotValidForNameContext { presented, .. } => {
                let names = presented.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", ");
                (format!("it is for other names: {names}"), WRONG_NAME)
            }
            Why::Other(other) if format!("{:?}", other.0) == "CaUsedAsEndEntity" => {
                ("it is that of an authority (CA:TRUE), which no server may show".to_owned(), NOT_OF_A_SERVER)
            }
            other => (other.to_string(), "renew the server's certificate, or trust another as `tls.ca`"),
        };
        Self::Tls { detail: format!("certificate verify failed: {why}"), hint: Some(hint) }
    }

    pub(super) fn of_http(error: &hyper::Error) -> Self {
        let mut source = std::error::Error::source(error);
        let io = loop {
            match source {
                Some(cause) => match cause.downcast_ref::<io::Error>() {
                    Some(io) => break Some(io),
                    None => source = cause.source(),
                },
                None => break None,
            }
        };
        if let Some(error) = io.filter(|error| rustls_error(error).is_some()) {
            // TLS 1.3 tells what it holds of our certificate only after its handshake.
            return Self::of_tls(error);
        }
        if error.is_incomplete_message() || error.is_canceled() || error.is_closed() || io.is_some() {
            Self::Closed("the peer hung up during the handshake".to_owned())
        } else {
            Self::Handshake(format!("the answer is not HTTP: {error}"))
        }
    }

    pub(super) fn of_answer<B>(response: &Response<B>) -> Self {
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        Self::Status {
            status: response.status(),
            location: text(header::LOCATION)
                .filter(|_| response.status().is_redirection())
                .map(str::to_owned),
            retry_after: retry_after(response.headers(), SystemTime::now()),
        }
    }
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
    )
}

/// `Retry-After`: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds are more than an hour, too.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    SystemTime::from(date.timestamp()).duration_since(now).ok()
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = &self.url;
        match &self.problem {
            ConnectProblem::Url(why) => f.write_str(why),
            ConnectProblem::Timeout(after) => {
                write!(f, "connection to WebSocket {url} timed out after {after:?}")
            }
            // Much of it is what the peer said.
            problem => {
                let problem = foreign_text::shown(&problem.to_string());
                write!(f, "failed to connect to WebSocket {url}: {problem}")
            }
        }
    }
}

impl fmt::Display for ConnectProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(error) if error.kind() == ErrorKind::ConnectionRefused => {
                f.write_str("connection refused")
            }
            Self::Tcp(error) => write!(f, "{error}"),
            Self::Url(why) | Self::Secret(why) | Self::Closed(why) | Self::Handshake(why) => f.write_str(why),
            Self::Proxy { proxy, problem } => write!(f, "through the proxy {proxy}: {problem}"),
            Self::Tls { detail, .. } => f.write_str(detail),
            Self::Timeout(after) => write!(f, "timed out after {after:?}"),
            Self::Connector { plugin, why, .. } => write!(f, "before_connect: plugin {plugin} {why}"),
            Self::Status { status, location: Some(location), .. } => write!(f, "{status} to {location}"),
            Self::Status { status, .. } => write!(f, "{status}"),
            Self::Subprotocol { offered, chosen } => {
                let offered = if offered.is_empty() { "none" } else { offered };
                let chosen = chosen.as_deref().unwrap_or("none");
                write!(f, "subprotocol not supported: offered {offered}, the server chose {chosen}")
            }
        }
    }
}

impl std::error::Error for ConnectError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, value.parse().expect("a header value"));
        retry_after(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_420))
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert_eq!(
            after("99999999999999999999999"),
            Some(Duration::from_secs(u64::MAX)),
            "bounded where it is used"
        );
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(after("Wed, 21 Oct 2015 07:26:00 GMT"), None);
        assert_eq!(after("soon"), None);
    }
}
