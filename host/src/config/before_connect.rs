//! `before_connect` of a client endpoint: the plugin that has the last word on each dial.

use super::form::{JsonWithSecrets, List, SomeDuration, Sub, Text};
use super::http::HttpSettings;
use super::http_grant::{Granted, HttpGrant};
use super::plugin_use::{Limits, check_plugin_name, warn_of_http};
use super::read::TableReader;
use super::{EndpointText, Redacted};
use std::time::Duration;

/// How long a connector itself may run in one call, waits for answers apart: it signs and encodes, in whatever
/// language, and nothing but its own dial waits for it.
const RUNNING: Duration = Duration::from_secs(1);

table! {
    /// The plugin that is asked before each dial.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ConnectorSettings / ConnectorSettingsAt {
        /// the name in the plugin folder, of a plugin that is a connector
        plugin: Redacted = key(Text, required);
        /// The plugin gets this table as its configuration, as JSON; the files in its strings are read at each dial.
        config: EndpointText = key(JsonWithSecrets, default(EndpointText::plain("{}")));
        /// The plugin may send HTTP requests to these origins, as those of a transform may; if left out, to none.
        allow: Vec<HttpGrant> = key(List<Granted>, default(Vec::new()));
        /// This table says what these requests may take, and which headers the host adds.
        http: HttpSettings = key(Sub<HttpSettings>, default(HttpSettings::default()));
        /// All that the plugin does for one dial may take so long; then the dial has failed.
        timeout: Duration = key(SomeDuration, default(Duration::from_secs(10)));
    }
    check check_before_connect;
}

fn check_before_connect(
    keys: &mut ConnectorSettings,
    at: &ConnectorSettingsAt,
    reader: &mut TableReader<'_, '_>,
) {
    warn_of_http(reader.report, at.http.as_ref().map(|http| &http.header), at.allow.is_some());
    if let Some(at) = &at.plugin {
        check_plugin_name(reader.report, &keys.plugin, at);
    }
}

impl ConnectorSettings {
    /// A connector with the defaults of every key.
    pub fn new(plugin: impl Into<Redacted>) -> Self {
        Self { plugin: plugin.into(), ..super::read::blank() }
    }

    /// What an instance of the plugin may use.
    pub fn limits(&self) -> Limits {
        Limits { deadline: RUNNING.min(self.timeout), ..Limits::default() }
    }
}
