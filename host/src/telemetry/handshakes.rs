//! The handshakes that listeners refuse, by status.

use super::labels::Labels;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// What the listeners of a host count. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct HandshakeMetrics {
    refused: Family<Labels, Counter>,
}

impl HandshakeMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Handshakes a listener refused, by HTTP status; without an answer `timeout` or `tls`";
        registry.register("handshakes_refused", help, metrics.refused.clone());
        metrics
    }

    /// The listener at this address has refused a handshake.
    pub fn refused(&self, listener: &str, status: &str) {
        let of = vec![("listener", listener.to_owned()), ("status", status.to_owned())];
        self.refused.get_or_create_owned(&of).inc();
    }
}
