//! The metrics that plugins keep of their own: `tidemill_guest_<name>`.
//!
//! Their names are known only when a plugin uses them, so they are encoded by a collector. Names
//! are bounded in number and form, and no two metrics may be told by one name, because they come from code
//! that is not trusted and stand in one text with everybody else's.

use super::labels::Labels;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::{counter::ConstCounter, gauge::ConstGauge};
use prometheus_client::registry::Registry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// Most names that one transform may use.
pub(super) const MAX_NAMES: usize = 64;
/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// Most names of one transform whose refusal is logged: that they are kept is for a plugin that makes them up without end.
const MAX_TOLD: usize = 64;
/// Powers of ten around 1: what a plugin measures is not known.
const BUCKETS: [f64; 10] = [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5];

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl MetricKind {
    fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
        }
    }

    /// What the names of its samples end in.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter => &["", "_total"],
            Self::Gauge => &[""],
            Self::Histogram => &["", "_bucket", "_sum", "_count"],
        }
    }
}

/// The value of a metric, or a change of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum MetricValue {
    Counter(f64),
    Gauge(f64),
    Histogram(Box<Observed>),
}

/// What a histogram has seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Observed {
    /// By bucket; the last is for what is above all.
    counts: [u64; BUCKETS.len() + 1],
    sum: f64,
}

impl MetricValue {
    /// A value of 1 observation, increment or setting; what is no finite number is none.
    pub(super) fn try_new(kind: MetricKind, value: f64) -> Result<Self, &'static str> {
        if !value.is_finite() {
            return Err("a metric's value is a finite number");
        }
        Ok(match kind {
            MetricKind::Counter => Self::Counter(value.max(0.0)),
            MetricKind::Gauge => Self::Gauge(value),
            MetricKind::Histogram => {
                let mut observed = Observed { sum: value, ..Observed::default() };
                let bucket = BUCKETS.iter().position(|upper| value <= *upper).unwrap_or(BUCKETS.len());
                observed.counts[bucket] = 1;
                Self::Histogram(Box::new(observed))
            }
        })
    }

    fn kind(&self) -> MetricKind {
        match self {
            Self::Counter(_) => MetricKind::Counter,
            Self::Gauge(_) => MetricKind::Gauge,
            Self::Histogram(_) => MetricKind::Histogram,
        }
    }

    /// Adds a later change of the same kind.
    pub(super) fn merge(&mut self, later: &Self) {
        match (self, later) {
            (Self::Counter(total), Self::Counter(by)) => *total = finite(*total + by),
            (Self::Gauge(gauge), Self::Gauge(to)) => *gauge = *to,
            (Self::Histogram(all), Self::Histogram(more)) => {
                all.sum = finite(all.sum + more.sum);
                all.counts.iter_mut().zip(more.counts).for_each(|(count, more)| *count += more);
            }
            _ => debug_assert!(false, "a name has one kind"),
        }
    }
}

/// A sum that has left what a number holds stays at its end.
fn finite(sum: f64) -> f64 {
    sum.clamp(f64::MIN, f64::MAX)
}

/// The name under which a metric is kept, which a counter shares with the one that ends in `_total`.
pub(super) fn base_name(kind: MetricKind, name: &str) -> Result<&str, &'static str> {
    const PARTS: [&str; 4] = ["_total", "_bucket", "_sum", "_count"];
    let base = if kind == MetricKind::Counter { name.strip_suffix("_total").unwrap_or(name) } else { name };
    if !is_name(base) {
        return Err(
            "a metric's name is up to 64 lower-case letters, digits and `_`, and starts with a letter",
        );
    }
    if kind != MetricKind::Counter && PARTS.iter().any(|part| name.ends_with(part)) {
        return Err(
            "the name of a gauge or a histogram does not end in `_total`, `_bucket`, `_sum` or `_count`",
        );
    }
    Ok(base)
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= MAX_NAME_BYTES
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Which metric each name of a sample belongs to, over all plugins: the text can tell it of one kind only.
type Owners = Arc<Mutex<BTreeMap<String, (String, MetricKind)>>>;

/// The metrics of all plugins.
#[derive(Clone, Debug, Default)]
pub(super) struct GuestRegistry {
    transforms: Arc<Mutex<BTreeMap<(String, String), GuestMetrics>>>,
    owners: Owners,
}

impl GuestRegistry {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let guests = Self::default();
        registry.register_collector(Box::new(guests.clone()));
        guests
    }

    pub(super) fn of(&self, pipeline: &str, transform: &str) -> GuestMetrics {
        let mut transforms = self.transforms.lock().expect("nothing panics while it is held");
        let new = || GuestMetrics { owners: self.owners.clone(), ..GuestMetrics::default() };
        transforms.entry((pipeline.to_owned(), transform.to_owned())).or_insert_with(new).clone()
    }

    /// Takes the metrics of a pipeline's plugins out.
    pub(super) fn forget(&self, pipeline: &str) {
        let mut transforms = self.transforms.lock().expect("nothing panics while it is held");
        transforms.retain(|(its, _), _| its != pipeline);
    }

    /// Takes the gauges of one transform's plugin out: its instances are others.
    pub(super) fn forget_gauges(&self, pipeline: &str, transform: &str) {
        let transforms = self.transforms.lock().expect("nothing panics while it is held");
        let Some(guest) = transforms.get(&(pipeline.to_owned(), transform.to_owned())) else { return };
        let mut values = guest.values.lock().expect("nothing panics while it is held");
        values.retain(|_, of_instances| of_instances.values().any(|value| value.kind() != MetricKind::Gauge));
    }

    /// Takes the metrics of one transform's plugin out.
    pub(super) fn forget_transform(&self, pipeline: &str, transform: &str) {
        let mut transforms = self.transforms.lock().expect("nothing panics while it is held");
        transforms.remove(&(pipeline.to_owned(), transform.to_owned()));
    }
}

/// The metrics of one transform, by their names; the gauges of several instances by their numbers too.
type GuestValues = BTreeMap<String, BTreeMap<Option<u32>, MetricValue>>;

/// The metrics of one transform's plugin. A cheap handle.
#[derive(Clone, Debug, Default)]
pub struct GuestMetrics {
    values: Arc<Mutex<GuestValues>>,
    owners: Owners,
    /// The instance whose gauges are meant, where there are several: what they count adds up, and what they set does
    /// not.
    instance: Option<u32>,
    /// Names whose refusal was logged.
    told: Arc<Mutex<BTreeSet<String>>>,
}

impl GuestMetrics {
    /// The same, of one of several instances; `None` where there is one.
    pub fn of_instance(&self, instance: Option<u32>) -> Self {
        Self { instance, ..self.clone() }
    }

    /// Adds to a counter. What is below 0 is ignored.
    ///
    /// # Errors
    /// If the name or the value cannot be used, with the reason.
    pub fn add(&self, name: &str, by: f64) -> Result<(), &'static str> {
        self.change(base_name(MetricKind::Counter, name)?, &MetricValue::try_new(MetricKind::Counter, by)?)
    }

    /// Sets the gauge of this name.
    ///
    /// # Errors
    /// If the name or the value cannot be used, with the reason.
    pub fn set(&self, name: &str, to: f64) -> Result<(), &'static str> {
        self.change(base_name(MetricKind::Gauge, name)?, &MetricValue::try_new(MetricKind::Gauge, to)?)
    }

    /// Records a value in a histogram.
    ///
    /// # Errors
    /// If the name or the value cannot be used, with the reason.
    pub fn observe(&self, name: &str, observed: f64) -> Result<(), &'static str> {
        self.change(
            base_name(MetricKind::Histogram, name)?,
            &MetricValue::try_new(MetricKind::Histogram, observed)?,
        )
    }

    /// Changes the metric that is kept under `base`, which [`base_name`] has given.
    pub(super) fn change(&self, base: &str, change: &MetricValue) -> Result<(), &'static str> {
        let mut values = self.values.lock().expect("nothing panics while it is held");
        let instance = self.instance.filter(|_| change.kind() == MetricKind::Gauge);
        let count = values.len();
        if let Some(of_instances) = values.get_mut(base) {
            if of_instances.values().any(|value| value.kind() != change.kind()) {
                return Err(CLASH);
            }
            match of_instances.get_mut(&instance) {
                Some(value) => value.merge(change),
                None => drop(of_instances.insert(instance, change.clone())),
            }
            return Ok(());
        }
        if count >= MAX_NAMES {
            return Err("a transform may have 64 metrics of its own");
        }
        self.own(base, change.kind())?;
        values.insert(base.to_owned(), [(instance, change.clone())].into());
        Ok(())
    }

    /// Takes the names that a metric is told by, which may be another plugin's metric of the same kind too.
    fn own(&self, base: &str, kind: MetricKind) -> Result<(), &'static str> {
        let mut owners = self.owners.lock().expect("nothing panics while it is held");
        let names = || kind.suffixes().iter().map(|suffix| format!("{base}{suffix}"));
        let is_free = |name: String| {
            owners.get(&name).is_none_or(|(owner, its_kind)| *owner == base && *its_kind == kind)
        };
        if !names().all(is_free) {
            return Err(CLASH);
        }
        for name in names() {
            owners.insert(name, (base.to_owned(), kind));
        }
        Ok(())
    }

    /// Whether the refusal of a name is to be logged: the first time, and for so many names.
    pub(super) fn is_news(&self, name: &str) -> bool {
        let mut told = self.told.lock().expect("nothing panics while it is held");
        told.len() < MAX_TOLD && told.insert(name[..name.floor_char_boundary(MAX_NAME_BYTES)].to_owned())
    }
}

/// Why a name is refused that is another metric's.
const CLASH: &str = "a metric of another kind has this name, here or in another plugin";

impl Collector for GuestRegistry {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let transforms = self.transforms.lock().expect("nothing panics while it is held");
        // A name may be used by several transforms, always for one kind, but is described once.
        let mut kinds: BTreeMap<String, MetricKind> = BTreeMap::new();
        for guest in transforms.values() {
            for (name, of_instances) in &*guest.values.lock().expect("nothing panics while it is held") {
                kinds.extend(of_instances.values().map(|value| (name.clone(), value.kind())));
            }
        }
        for (name, kind) in kinds {
            // The text format ends the name of a counter in `_total` itself.
            let shown = format!("guest_{name}");
            let mut described =
                encoder.encode_descriptor(&shown, "Kept by a plugin", None, kind.metric_type())?;
            for ((pipeline, transform), guest) in &*transforms {
                let values = guest.values.lock().expect("nothing panics while it is held");
                for (instance, value) in values.get(&name).into_iter().flatten() {
                    let mut labels: Labels =
                        vec![("pipeline", pipeline.clone()), ("transform", transform.clone())];
                    labels.extend(instance.map(|instance| ("instance", instance.to_string())));
                    let mut family = described.encode_family(&labels)?;
                    match value {
                        MetricValue::Counter(total) => ConstCounter::new(*total).encode(family)?,
                        MetricValue::Gauge(gauge) => ConstGauge::new(*gauge).encode(family)?,
                        MetricValue::Histogram(observed) => {
                            let Observed { counts, sum } = &**observed;
                            // The encoder knows the bucket for everything else by this bound.
                            let uppers = BUCKETS.iter().copied().chain(std::iter::once(f64::INFINITY));
                            let buckets: Vec<(f64, u64)> = uppers.zip(counts.iter().copied()).collect();
                            family.encode_histogram::<Labels>(*sum, counts.iter().sum(), &buckets, None)?;
                        }
                    }
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
    fn counters_of_several_instances_add_up_and_each_has_its_own_gauges() {
        let metrics = Metrics::default();
        for instance in 0..2_u32 {
            let guest = metrics.guest("p", "a").of_instance(Some(instance));
            guest.add("late", 2.0).unwrap();
            guest.observe("took", 1.0).unwrap();
            guest.set("open", f64::from(instance)).unwrap();
            guest.set("open", f64::from(instance) + 0.5).unwrap();
            assert!(guest.set("late", 1.0).is_err() && guest.add("open", 1.0).is_err());
        }
        let text = metrics.encode();
        for line in [
            "tidemill_guest_late_total{pipeline=\"p\",transform=\"a\"} 4",
            "tidemill_guest_took_count{pipeline=\"p\",transform=\"a\"} 2",
            "tidemill_guest_open{pipeline=\"p\",transform=\"a\",instance=\"0\"} 0.5",
            "tidemill_guest_open{pipeline=\"p\",transform=\"a\",instance=\"1\"} 1.5",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        let guests = [0, 1].map(|instance| metrics.guest("p", "a").of_instance(Some(instance)));
        (3..64).for_each(|n| guests[0].set(&format!("n{n}"), 1.0).unwrap());
        assert!(guests[1].set("n3", 1.0).is_ok() && guests[1].set("one_more", 1.0).is_err());
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

    #[test]
    fn no_two_metrics_are_told_by_one_name() {
        let metrics = Metrics::default();
        let (one, other) = (metrics.guest("p", "a"), metrics.guest("p", "b"));
        one.add("late", 1.0).unwrap();
        one.add("late_total", 1.0).unwrap();
        other.add("late_total", 1.0).unwrap();
        assert!(one.set("late", 1.0).is_err() && other.set("late", 1.0).is_err());
        one.observe("took", 1.0).unwrap();
        for part in ["took_bucket", "took_sum", "took_count", "other_total"] {
            assert!(other.set(part, 1.0).is_err(), "{part}");
        }
        assert!(other.add("took_sum", 1.0).is_err() && other.add("took", 1.0).is_err());
        assert!(one.add("late_total_total", 1.0).is_err());
        let text = metrics.encode();
        assert!(text.contains("tidemill_guest_late_total{pipeline=\"p\",transform=\"a\"} 2"), "{text}");
        assert_eq!(text.matches("# TYPE tidemill_guest_late counter").count(), 1, "{text}");
    }

    #[test]
    fn values_stay_finite() {
        let metrics = Metrics::default();
        let guest = metrics.guest("p", "a");
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(guest.add("c", value).is_err());
            assert!(guest.set("g", value).is_err());
            assert!(guest.observe("h", value).is_err());
        }
        for _ in 0..3 {
            guest.add("c", f64::MAX).unwrap();
            guest.observe("h", f64::MAX).unwrap();
        }
        let text = metrics.encode().to_lowercase();
        let values = text.lines().filter(|line| line.starts_with("tidemill_guest_"));
        let values: Vec<_> = values.filter_map(|line| line.rsplit(' ').next()).collect();
        assert!(values.len() > 3 && values.iter().all(|value| !value.contains(['n', 'i'])), "{text}");
    }
}
