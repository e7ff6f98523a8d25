//! The plugins of a pipeline that are asked before its endpoints dial: made for as long as the pipeline is
//! configured, and tried out with each version before that may be asked.

use super::plugin_registry::{PluginRefusal, PluginRegistry};
use crate::config::{self, ConnectorSettings};
use crate::connector::Connector;
use crate::http_client::HttpClient;
use crate::plugin::Plugin;
use crate::telemetry::Metrics;
use crate::websocket;
use std::sync::Arc;

/// Those of a pipeline, in the order of its `connectors`.
pub(super) fn of(
    pipeline: &config::Pipeline,
    registry: &PluginRegistry,
    metrics: &Metrics,
) -> Arc<[Connector]> {
    let connectors = pipeline.connectors().map(|(endpoint, config)| {
        let ConnectorSettings { allow, http, .. } = config;
        let http = HttpClient::of(allow, http);
        let metrics = metrics.guest(&pipeline.name, endpoint);
        Connector::new((&pipeline.name, endpoint), config, http, metrics, registry.current())
    });
    connectors.collect()
}

/// Those of a pipeline that is configured anew: where an endpoint asks as before, the same one, with all it knows.
/// `before` is what was configured, and whom its endpoints asked.
pub(super) fn renewed(
    pipeline: &config::Pipeline,
    before: Option<(&config::Pipeline, &[Connector])>,
    registry: &PluginRegistry,
    metrics: &Metrics,
) -> Arc<[Connector]> {
    let Some((config, known)) = before else { return of(pipeline, registry, metrics) };
    let asked_before: Vec<_> = config.connectors().zip(known).collect();
    let new = of(pipeline, registry, metrics);
    let connectors = pipeline.connectors().zip(&*new).map(|(asked, new)| {
        let same = asked_before.iter().find(|(before, _)| *before == asked);
        same.map_or(new, |(_, known)| *known).clone()
    });
    connectors.collect()
}

/// Who is asked before an endpoint dials.
pub(super) fn find(connectors: &[Connector], endpoint: &str) -> Option<Arc<dyn websocket::BeforeConnect>> {
    let found = connectors.iter().find(|connector| connector.endpoint() == endpoint)?;
    Some(Arc::new(found.clone()))
}

/// Whether a version can be asked.
///
/// # Errors
/// It does not take its configuration, or is no connector.
pub(super) async fn try_out(
    pipeline: &str,
    connector: &Connector,
    plugin: &Plugin,
) -> Result<(), PluginRefusal> {
    let tried = connector.try_out(plugin).await;
    tried.map_err(|fault| PluginRefusal::Connector {
        pipeline: pipeline.to_owned(),
        endpoint: connector.endpoint().to_owned(),
        plugin: connector.plugin().shown().to_owned(),
        fault,
    })
}
