//! What a plugin did to its metrics in one call, until the outcome of the call is accepted.
//!
//! Changes of one metric are merged as they come, so that every one of them counts, however many there are.

use super::guest_metrics::{GuestMetrics, MAX_NAMES, MetricKind, MetricValue, base_name};
use std::collections::BTreeMap;

/// Most metrics that wait: more than are kept, whatever their kind.
const MAX_PENDING: usize = 3 * MAX_NAMES;

/// So much of a name that is refused is told.
const MAX_TOLD_BYTES: usize = 256;

/// Changes of metrics since the last accepted call.
#[derive(Debug)]
pub struct MetricChanges {
    shared: GuestMetrics,
    changes: BTreeMap<(MetricKind, String), MetricValue>,
    refused: Vec<(String, &'static str)>,
}

impl MetricChanges {
    /// Makes an empty set of changes to these metrics.
    pub fn new(shared: GuestMetrics) -> Self {
        Self { shared, changes: BTreeMap::new(), refused: Vec::new() }
    }

    /// Adds to the counter of this name.
    pub fn add(&mut self, counter: String, by: f64) {
        self.change(MetricKind::Counter, counter, by);
    }

    /// Sets the gauge of this name.
    pub fn set(&mut self, gauge: String, to: f64) {
        self.change(MetricKind::Gauge, gauge, to);
    }

    /// Records a value in a histogram.
    pub fn observe(&mut self, histogram: String, value: f64) {
        self.change(MetricKind::Histogram, histogram, value);
    }

    fn change(&mut self, kind: MetricKind, mut name: String, value: f64) {
        let base = match base_name(kind, &name) {
            Ok(base) => base.len(),
            Err(reason) => return self.refuse(name, reason),
        };
        let change = match MetricValue::try_new(kind, value) {
            Ok(change) => change,
            Err(reason) => return self.refuse(name, reason),
        };
        name.truncate(base);
        let key = (kind, name);
        if let Some(old) = self.changes.get_mut(&key) {
            old.merge(&change);
        } else if self.changes.len() < MAX_PENDING {
            self.changes.insert(key, change);
        } else {
            self.refuse(key.1, "a transform may have 64 metrics of its own");
        }
    }

    fn refuse(&mut self, mut name: String, reason: &'static str) {
        if self.shared.is_news(&name) {
            name.truncate(name.floor_char_boundary(MAX_TOLD_BYTES));
            self.refused.push((name, reason));
        }
    }

    /// Makes the changes, and forgets them. Gives a line for each metric that could not be changed and was
    /// not told of before.
    pub fn commit(&mut self) -> Vec<String> {
        for ((_, name), change) in std::mem::take(&mut self.changes) {
            if let Err(reason) = self.shared.change(&name, &change) {
                self.refuse(name, reason);
            }
        }
        let refused = self.refused.drain(..);
        refused.map(|(name, reason)| format!("the metric {name:?} is not kept: {reason}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn every_change_of_a_call_counts_however_many_there_are() {
        let metrics = Metrics::default();
        let mut changes = MetricChanges::new(metrics.guest("p", "a"));
        for n in 0..100_000 {
            changes.add("seen_total".into(), 1.0);
            changes.observe("took".into(), f64::from(n % 2));
            changes.set("last".into(), f64::from(n));
        }
        assert_eq!(metrics.encode().matches("tidemill_guest_").count(), 0);
        assert!(changes.commit().is_empty());
        let text = metrics.encode();
        for line in [
            "tidemill_guest_seen_total{pipeline=\"p\",transform=\"a\"} 100000.0",
            "tidemill_guest_last{pipeline=\"p\",transform=\"a\"} 99999",
            "tidemill_guest_took_sum{pipeline=\"p\",transform=\"a\"} 50000",
            "tidemill_guest_took_count{pipeline=\"p\",transform=\"a\"} 100000",
            "tidemill_guest_took_bucket{le=\"0.0001\",pipeline=\"p\",transform=\"a\"} 50000",
            "tidemill_guest_took_bucket{le=\"+Inf\",pipeline=\"p\",transform=\"a\"} 100000",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn what_is_refused_is_told_once() {
        let mut changes = MetricChanges::new(Metrics::default().guest("p", "a"));
        let mut lines = Vec::new();
        for n in 0..1000 {
            changes.add("Upper".into(), 1.0);
            changes.set("not_a_number".into(), f64::NAN);
            changes.add(format!("n{n}"), 1.0);
            lines.extend(changes.commit());
        }
        assert_eq!(
            lines[0],
            "the metric \"Upper\" is not kept: a metric's name is up to 64 lower-case letters, digits and `_`, and starts with a letter"
        );
        assert_eq!(lines.iter().filter(|line| line.contains("not_a_number")).count(), 1);
        assert!(lines.len() <= 64, "{} lines", lines.len());
    }
}
