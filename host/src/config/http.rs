//! `http` of a transform: what the HTTP requests of its plugin may take, and the headers that the host adds.

use super::EndpointText;
use super::form::{Bytes, Count, Map, MapEntry, SomeDuration};
use super::header::{self, SetBy};
use super::read::TableReader;
use super::report::Span;
use std::time::Duration;

/// Each request under way has a socket.
const MOST_REQUESTS: i64 = 1024;

/// Headers that belong to a connection or to the host: the host sets them, or nobody does.
const RESERVED: [&str; 13] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "forwarded",
    "alt-used",
];

table! {
    /// What the HTTP requests of a plugin may take.
    #[derive(Clone, Debug, PartialEq)]
    pub struct HttpSettings / HttpSettingsAt {
        /// A request may take so long from its turn to the end of its answer, redirects included; all requests
        /// of one call together may take six times as long.
        timeout: Duration = key(SomeDuration, default(Duration::from_secs(10)));
        /// An answer may have so many bytes; those of one call together as many as limits.memory has.
        max_response_bytes: usize = key("max_response", Bytes, default(1 << 20));
        /// At most so many requests are under way at once; more wait for their turn.
        concurrency: usize = key(Count<1, MOST_REQUESTS>, default(16));
        /// The host adds these headers to each request, which the plugin neither sees nor replaces; another
        /// origin that a redirect leads to does not get them.
        headers: Vec<(String, EndpointText)> = key(Map<HttpHeader>, default(Vec::new()));
    }
}

with_defaults!(HttpSettings);

/// Whether a header of this name is set by the host alone.
pub fn is_reserved_header(name: &str) -> bool {
    RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
        || name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("proxy-"))
}

/// A header that the host adds: all of its value is a secret.
pub(super) struct HttpHeader;

impl MapEntry for HttpHeader {
    type Value = EndpointText;
    const TAKES_FILES: bool = true;

    fn of(
        reader: &mut TableReader<'_, '_>,
        name: &str,
        value: EndpointText,
        at: &Span,
    ) -> Option<EndpointText> {
        let set_by = is_reserved_header(name).then_some(SetBy { whom: "the connection", hint: None });
        header::report_faults(reader, name, &value, at, set_by.as_ref());
        Some(value.hidden())
    }
}
