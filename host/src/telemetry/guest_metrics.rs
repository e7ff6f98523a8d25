//! The metrics that plugins keep of their own: `tidemill_guest_<name>`.
//!
//! Their names are known only when a plugin uses them, so they are encoded by a collector. Names
//! are bounded in number and form, because they come from code that is not trusted.

use super::metrics::Labels;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{counter::ConstCounter, gauge::ConstGauge};
use prometheus_client::registry::Registry;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Most names that one transform may use.
const MAX_NAMES: usize = 64;
/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// Powers of ten around 1: what a plugin measures is not known.
const BUCKETS: [f64; 10] = [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5];

#[derive(Debug)]
enum Value {
    Counter(f64),
    Gauge(f64),
    Histogram(Histogram),
}

impl Value {
    fn kind(&self) -> MetricType {
        match self {
            Self::Counter(_) => MetricType::Counter,
            Self::Gauge(_) => MetricType::Gauge,
            Self::Histogram(_) => MetricType::Histogram,
        }
    }
}

type Values = BTreeMap<String, Value>;

/// The metrics of all plugins.
#[derive(Clone, Debug, Default)]
pub(super) struct GuestRegistry {
    transforms: Arc<Mutex<BTreeMap<(String, String), GuestMetrics>>>,
}

impl GuestRegistry {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let guests = Self::default();
        registry.register_collector(Box::new(guests.clone()));
        guests
    }

    pub(super) fn of(&self, pipeline: &str, transform: &str) -> GuestMetrics {
        let mut transforms = self.transforms.lock().expect("nothing panics while it is held");
        transforms.entry((pipeline.to_owned(), transform.to_owned())).or_default().clone()
    }
}

/// The metrics of one transform's plugin. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct GuestMetrics {
    values: Arc<Mutex<Values>>,
}

impl GuestMetrics {
    /// Adds to a counter. What is not a number or below 0 is ignored.
    ///
    /// # Errors
    /// If the name cannot be used, with the reason.
    pub fn add(&self, name: &str, by: f64) -> Result<(), &'static str> {
        self.update(
            name,
            || Value::Counter(0.0),
            |value| match value {
                Value::Counter(total) if by >= 0.0 && by.is_finite() => *total += by,
                _ => {}
            },
        )
    }

    /// Sets a gauge.
    ///
    /// # Errors
    /// If the name cannot be used, with the reason.
    pub fn set(&self, name: &str, to: f64) -> Result<(), &'static str> {
        self.update(
            name,
            || Value::Gauge(0.0),
            |value| {
                if let Value::Gauge(gauge) = value {
                    *gauge = to;
                }
            },
        )
    }

    /// Records a value in a histogram.
    ///
    /// # Errors
    /// If the name cannot be used, with the reason.
    pub fn observe(&self, name: &str, observed: f64) -> Result<(), &'static str> {
        self.update(
            name,
            || Value::Histogram(Histogram::new(BUCKETS)),
            |value| {
                if let Value::Histogram(histogram) = value {
                    histogram.observe(observed);
                }
            },
        )
    }

    fn update(
        &self,
        name: &str,
        new: impl FnOnce() -> Value,
        change: impl FnOnce(&mut Value),
    ) -> Result<(), &'static str> {
        let mut values = self.values.lock().expect("nothing panics while it is held");
        if let Some(value) = values.get_mut(name) {
            change(value);
            return Ok(());
        }
        if !is_name(name) {
            return Err(
                "a metric's name is up to 64 lower-case letters, digits and `_`, and starts with a letter",
            );
        }
        if values.len() >= MAX_NAMES {
            return Err("a transform may have 64 metrics of its own");
        }
        change(values.entry(name.to_owned()).or_insert_with(new));
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= MAX_NAME_BYTES
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

impl Collector for GuestRegistry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let transforms = self.transforms.lock().expect("nothing panics while it is held");
        // A name may be used by several transforms, but is described once; one that two plugins use
        // for different kinds is shown as the first of them.
        let mut kinds: BTreeMap<String, MetricType> = BTreeMap::new();
        for guest in transforms.values() {
            for (name, value) in &*guest.values.lock().expect("nothing panics while it is held") {
                kinds.entry(name.clone()).or_insert(value.kind());
            }
        }
        for (name, kind) in kinds {
            // The text format ends the name of a counter in `_total` itself.
            let shown = format!("guest_{}", name.strip_suffix("_total").unwrap_or(&name));
            let mut described = encoder.encode_descriptor(&shown, "Kept by a plugin", None, kind)?;
            for ((pipeline, transform), guest) in &*transforms {
                let labels: Labels = vec![("pipeline", pipeline.clone()), ("transform", transform.clone())];
                let values = guest.values.lock().expect("nothing panics while it is held");
                let Some(value) = values.get(&name).filter(|value| value.kind().as_str() == kind.as_str())
                else {
                    continue;
                };
                let family = described.encode_family(&labels)?;
                match value {
                    Value::Counter(total) => ConstCounter::new(*total).encode(family)?,
                    Value::Gauge(gauge) => ConstGauge::new(*gauge).encode(family)?,
                    Value::Histogram(histogram) => histogram.encode(family)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;

    #[test]
    fn a_guests_metrics_appear_with_its_labels() {
        let metrics = Metrics::default();
        metrics.guest("p", "a").add("late", 2.0).unwrap();
        metrics.guest("p", "a").add("late", 1.0).unwrap();
        metrics.guest("p", "b").set("open", 4.5).unwrap();
        let text = metrics.encode();
        assert!(text.contains("tidemill_guest_late_total{pipeline=\"p\",transform=\"a\"} 3"), "{text}");
        assert!(text.contains("tidemill_guest_open{pipeline=\"p\",transform=\"b\"} 4.5"), "{text}");
    }

    #[test]
    fn names_are_bounded_in_form_and_number() {
        let guest = Metrics::default().guest("p", "a");
        assert!(guest.add("Upper", 1.0).is_err());
        assert!(guest.add("", 1.0).is_err());
        for n in 0..64 {
            guest.add(&format!("n{n}"), 1.0).unwrap();
        }
        assert!(guest.add("one_more", 1.0).is_err());
        assert!(guest.add("n7", 1.0).is_ok());
    }
}
