//! Connectors: plugins that have the last word on what an endpoint dials, and may fetch a fresh token first.
//!
//! ```
//! use tidemill_plugin::connector::{Attempt, Connector, Dial, Setup};
//! use tidemill_plugin::{Result, export_connector, http::Request};
//!
//! export_connector!(Token);
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Token {
//!     /// Who gives tokens; `allow` of `before_connect` has to grant it.
//!     url: String,
//! }
//!
//! impl Connector for Token {
//!     type Config = Self;
//!
//!     fn new(config: Self, _: &mut Setup) -> Result<Self> {
//!         Ok(config)
//!     }
//!     fn before_connect(&mut self, dial: &mut Dial, _: &Attempt) -> Result {
//!         let answer = Request::post(&self.url).send()?.success()?;
//!         dial.set_header("Authorization", format!("Bearer {}", answer.text()?));
//!         Ok(())
//!     }
//! }
//!
//! // It is tested natively, and the test answers for the server.
//! use tidemill_plugin::http::Response;
//! use tidemill_plugin::testing::{Answers, ConnectorHarness};
//! let mut connector = ConnectorHarness::<Token>::try_new(r#"{"url":"https://login.example.com/"}"#).unwrap();
//! connector.host.answers = Answers::by(|_| Ok(Response::new(200, "t0ken")));
//! let dial = connector.before_connect(Dial::new("wss://example.com/")).unwrap();
//! assert_eq!(dial.header("authorization"), Some("Bearer t0ken"));
//! ```
//!
//! An endpoint names its connector as `before_connect`. One instance answers dial after dial, so that it may keep
//! what lasts longer; a fault ends it, and counts as a dial that has failed. What is dialled otherwise than the
//! configuration says is a secret to the host: it is not shown anywhere.

use crate::bindings::connector::exports::tidemill::plugin::dialler as wit;
#[cfg(target_arch = "wasm32")]
use crate::panics::log_panics;
use crate::{Error, Result, configuration};
use serde::de::DeserializeOwned;
use std::fmt;
use std::time::Duration;

pub use crate::bindings::connector::exports::tidemill::plugin::dialler::{Dial, Ending};
pub use crate::bindings::tidemill::plugin::types::Payload;

/// A plugin that is asked before each dial of an endpoint.
///
/// Only [`new`](Self::new) and [`before_connect`](Self::before_connect) must be written. A panic is a fault: it is
/// written to the host's log, and the instance is thrown away.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a connector",
    label = "does not implement `tidemill_plugin::connector::Connector`",
    note = "`export_connector!` takes the type that implements `Connector`"
)]
pub trait Connector: Sized + 'static {
    /// The `config` table of `before_connect`: a type that derives `serde::Deserialize`, or
    /// [`NoConfig`](crate::NoConfig).
    type Config: DeserializeOwned;

    /// Makes the connector. A pipeline does not start with one whose configuration is refused, so what may fail for
    /// a while belongs into [`before_connect`](Self::before_connect).
    ///
    /// # Errors
    /// The configuration is refused with this text.
    fn new(config: Self::Config, setup: &mut Setup) -> Result<Self>;

    /// Changes what is about to be dialled, which is what the configuration says, as it should be.
    ///
    /// # Errors
    /// Nothing is dialled now, and the endpoint tries again by its `reconnect`. [`Later`] says when at the earliest.
    fn before_connect(&mut self, dial: &mut Dial, attempt: &Attempt) -> Result;

    /// Called at the interval that [`Setup::tick_every`] asks for, while the connection stands. `now_us` is the
    /// host's time in microseconds since the Unix epoch.
    ///
    /// # Errors
    /// The text goes to the host's log; the connection stays.
    fn tick(&mut self, now_us: u64) -> Result {
        let _ = now_us;
        Ok(())
    }
}

/// What a connector asks for, and where it runs.
#[derive(Debug, Default)]
pub struct Setup {
    facts: Vec<(String, String)>,
    tick: Duration,
}

/// Which dial it is.
#[derive(Clone, Debug, Default)]
pub struct Attempt {
    /// 1 for the first since the last connection, or since the start.
    pub number: u32,
    /// What the last one came to; none at the first.
    pub last: Option<Ending>,
    /// More about the attempt, names and values; names that are not known are ignored.
    pub facts: Vec<(String, String)>,
}

/// An error of [`Connector::before_connect`] that says when to try again: not before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Later {
    /// Why nothing is to be dialled now.
    pub reason: String,
    /// How long nothing is to be dialled, in whole milliseconds.
    pub after: Duration,
}

impl Later {
    /// Not now, for this reason, and not before so long.
    pub fn new(reason: impl fmt::Display, after: Duration) -> Self {
        Self { reason: reason.to_string(), after }
    }
}

impl fmt::Display for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Later {}

impl Setup {
    /// A fact of where the connector runs: `pipeline`, `endpoint`, `host`, `contract`.
    pub fn fact(&self, name: &str) -> Option<&str> {
        let fact = self.facts.iter().find(|(known, _)| known == name);
        fact.map(|(_, value)| value.as_str())
    }

    /// Asks for [`Connector::tick`] at this interval, in whole milliseconds.
    pub fn tick_every(&mut self, interval: Duration) {
        self.tick = interval;
    }
}

impl Dial {
    /// A dial of this url, without headers, subprotocols and first messages.
    pub fn new(url: impl Into<String>) -> Self {
        let (headers, subprotocols, first_messages) = (Vec::new(), Vec::new(), Vec::new());
        Self { url: url.into(), headers, subprotocols, first_messages, options: Vec::new() }
    }

    /// The value of a header, whose name has any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Sets a header, in the place of one of this name.
    pub fn set_header(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        self.headers.retain(|(header, _)| !header.eq_ignore_ascii_case(&name));
        self.headers.push((name, value));
    }

    /// Sets a value of the url's query, in the place of one of this name; both are percent-encoded.
    pub fn set_query(&mut self, name: &str, value: &str) {
        let (name, value) = (encoded(name), encoded(value));
        let (base, query) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let others = query.split('&').filter(|pair| {
            !pair.is_empty() && pair.split_once('=').map_or(*pair, |(known, _)| known) != name
        });
        let pairs: Vec<_> = others.map(str::to_owned).chain([format!("{name}={value}")]).collect();
        self.url = format!("{base}?{}", pairs.join("&"));
    }

    /// Adds a text that is sent as soon as the connection is there.
    pub fn send_first(&mut self, text: impl Into<String>) {
        self.first_messages.push(Payload::Text(text.into()));
    }
}

/// Percent-encodes all but the characters that RFC 3986 leaves alone everywhere.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A connector, and what the calls into it need. What `export_connector!` puts between the host's calls and it.
#[doc(hidden)]
pub struct Instance<C> {
    connector: C,
    tick: Duration,
}

impl<C: Connector> Instance<C> {
    /// `init`
    pub fn init(config: &str, facts: Vec<(String, String)>) -> Result<Self, String> {
        let mut setup = Setup { facts, tick: Duration::ZERO };
        let connector = C::new(configuration::read(config)?, &mut setup).map_err(text)?;
        Ok(Self { connector, tick: setup.tick })
    }

    /// What the connector asked for.
    pub fn description(&self) -> wit::ConnectorDescription {
        let tick_ms = u32::try_from(self.tick.as_millis()).unwrap_or(u32::MAX);
        wit::ConnectorDescription { tick_ms, options: Vec::new() }
    }

    /// `before-connect`
    pub fn before_connect(&mut self, attempt: wit::Attempt) -> Result<Dial, wit::Refusal> {
        let wit::Attempt { mut dial, number, last, facts } = attempt;
        match self.connector.before_connect(&mut dial, &Attempt { number, last, facts }) {
            Ok(()) => Ok(dial),
            Err(error) => {
                let after = error.downcast_ref::<Later>().map(|later| later.after);
                let retry_after_ms = after.map(|after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX));
                Err(wit::Refusal { reason: error.to_string(), retry_after_ms })
            }
        }
    }

    /// `tick`
    pub fn tick(&mut self, now_us: u64) -> Result<(), String> {
        self.connector.tick(now_us).map_err(text)
    }
}

fn text(error: impl Into<Error>) -> String {
    error.into().to_string()
}

/// Where a component keeps its one instance. `export_connector!` implements it, and that makes it the component.
#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
pub trait Component {
    /// The connector that is exported.
    type Connector: Connector;

    /// Its place, empty until `init`.
    fn place() -> &'static std::thread::LocalKey<std::cell::RefCell<Option<Instance<Self::Connector>>>>;

    /// Calls the instance.
    fn with<R>(call: impl FnOnce(&mut Instance<Self::Connector>) -> R) -> R {
        Self::place().with_borrow_mut(|place| call(place.as_mut().expect("the host calls init first")))
    }
}

#[cfg(target_arch = "wasm32")]
impl<C: Component> wit::Guest for C {
    fn init(config: String, facts: Vec<(String, String)>) -> Result<wit::ConnectorDescription, String> {
        log_panics();
        let instance = Instance::init(&config, facts)?;
        let description = instance.description();
        Self::place().set(Some(instance));
        Ok(description)
    }

    fn before_connect(attempt: wit::Attempt) -> Result<Dial, wit::Refusal> {
        Self::with(|instance| instance.before_connect(attempt))
    }

    fn tick(now_us: u64) -> Result<(), String> {
        Self::with(|instance| instance.tick(now_us))
    }
}

/// Makes the crate a component: `export_connector!(Type)` of a [`Connector`]. Once in a crate, in the place of
/// [`export!`](crate::export).
#[macro_export]
macro_rules! export_connector {
    ($connector:ty $(,)?) => {
        const _: () = {
            const fn must_be_a_connector<C: $crate::connector::Connector>() {}
            must_be_a_connector::<$connector>();

            #[cfg(target_arch = "wasm32")]
            struct Component;
            #[cfg(target_arch = "wasm32")]
            impl $crate::connector::Component for Component {
                type Connector = $connector;
                fn place() -> &'static ::std::thread::LocalKey<
                    ::std::cell::RefCell<::std::option::Option<$crate::connector::Instance<$connector>>>,
                > {
                    ::std::thread_local! {
                        static PLACE: ::std::cell::RefCell<
                            ::std::option::Option<$crate::connector::Instance<$connector>>,
                        > = const { ::std::cell::RefCell::new(::std::option::Option::None) };
                    }
                    &PLACE
                }
            }
            #[cfg(target_arch = "wasm32")]
    $crate::bindings::connector::export_dialler!(Component with_types_in $crate::bindings::connector);
        };
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoConfig;
    use crate::testing::ConnectorHarness;

    /// Dials another host at each attempt, and none at the third.
    struct Patient;

    impl Connector for Patient {
        type Config = NoConfig;

        fn new(_: NoConfig, setup: &mut Setup) -> Result<Self> {
            assert_eq!(setup.fact("endpoint"), Some("test"));
            setup.tick_every(Duration::from_secs(60));
            Ok(Self)
        }

        fn before_connect(&mut self, dial: &mut Dial, attempt: &Attempt) -> Result {
            match (attempt.number, &attempt.last) {
                (3, _) => Err(Later::new("enough", Duration::from_secs(5)).into()),
                (_, Some(Ending { status: Some(401), .. })) => Err("no way in".into()),
                (number, _) => {
                    dial.set_query("n", &format!("{number} &"));
                    dial.send_first("hello");
                    Ok(())
                }
            }
        }
    }

    #[test]
    fn a_dial_is_changed_or_refused() {
        let mut connector = ConnectorHarness::<Patient>::try_new("{}").unwrap();
        assert_eq!(connector.tick_ms(), 60_000);
        let mut dial = Dial::new("wss://a/b?n=0&m=1");
        dial.set_header("X-Key", "one");
        dial.set_header("x-key", "two");
        let dial = connector.before_connect(dial).unwrap();
        assert_eq!((&*dial.url, dial.header("X-KEY")), ("wss://a/b?m=1&n=1%20%26", Some("two")));
        assert!(matches!(&dial.first_messages[..], [Payload::Text(text)] if text == "hello"));
        connector.attempt.number = 3;
        let refusal = connector.before_connect(Dial::new("wss://a")).unwrap_err();
        assert_eq!(refusal, ("enough".to_owned(), Some(Duration::from_secs(5))));
        let last = Ending {
            outcome: "handshake".to_owned(),
            detail: String::new(),
            status: Some(401),
            close_code: None,
            lasted_ms: 0,
        };
        connector.attempt = Attempt { number: 2, last: Some(last), ..Attempt::default() };
        let refusal = connector.before_connect(Dial::new("wss://a")).unwrap_err();
        assert_eq!(refusal, ("no way in".to_owned(), None));
        connector.tick(0).unwrap();
    }
}
