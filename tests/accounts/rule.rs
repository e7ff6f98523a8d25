//! The accounting rule, checked on one scrape: a message is in exactly one place.

use crate::plan::STAGES;
use std::collections::BTreeMap;
use tidemill_tests::prometheus::{Sample, parse};

/// Every sink takes every output.
pub(crate) const SINKS: [&str; 3] = ["dialled", "served", "filed"];

/// One page of metrics, read.
pub(crate) struct Scrape<'a> {
    samples: Vec<Sample<'a>>,
}

impl<'a> Scrape<'a> {
    pub(crate) fn read(text: &'a str) -> Self {
        Self { samples: parse(text).unwrap_or_else(|error| panic!("/metrics is not valid: {error}\n{text}")) }
    }

    /// The sum of the samples of a metric that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> i64 {
        let of = self.samples.iter().filter(|sample| sample.name == name);
        let of = of.filter(|sample| labels.iter().all(|(name, value)| sample.label(name) == *value));
        of.map(|sample| sample.value).sum::<f64>() as i64
    }

    /// A number of a transform.
    pub(crate) fn of_stage(&self, name: &str, stage: &str) -> i64 {
        self.sum(name, &[("transform", stage)])
    }

    /// Dropped at a stage for a reason.
    pub(crate) fn dropped(&self, stage: &str, reason: &str) -> i64 {
        self.sum("tidemill_messages_dropped_total", &[("stage", stage), ("reason", reason)])
    }

    pub(crate) fn dead_lettered(&self, stage: &str) -> i64 {
        self.sum("tidemill_messages_dead_lettered_total", &[("stage", stage)])
    }

    pub(crate) fn delivered(&self, sink: &str) -> i64 {
        self.sum("tidemill_messages_delivered_total", &[("sink", sink)])
    }

    pub(crate) fn received(&self) -> i64 {
        self.sum("tidemill_messages_received_total", &[])
    }

    /// Everything dropped at a stage.
    pub(crate) fn all_dropped(&self, stage: &str) -> i64 {
        self.sum("tidemill_messages_dropped_total", &[("stage", stage)])
    }

    /// Everything in flight.
    pub(crate) fn in_flight(&self) -> i64 {
        self.sum("tidemill_messages_in_flight", &[])
    }

    /// Dead letters that were given to a stage again.
    fn retried(&self, stage: &str) -> i64 {
        self.sum("tidemill_messages_retried_total", &[("stage", stage)])
    }

    fn waiting(&self, stage: &str) -> i64 {
        self.sum("tidemill_messages_in_flight", &[("stage", stage)])
    }

    fn lost(&self, stage: &str) -> i64 {
        self.all_dropped(stage) + self.dead_lettered(stage)
    }

    fn out(&self, stage: &str) -> i64 {
        self.of_stage("tidemill_messages_forwarded_total", stage)
            + self.of_stage("tidemill_messages_emitted_total", stage)
    }

    /// What the rule says of each place, and what it is: empty if all is in order.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut violations = Vec::new();
        let mut check = |what: String, entered: i64, found: &[(&str, i64)]| {
            let sum: i64 = found.iter().map(|(_, count)| count).sum();
            if entered != sum {
                violations.push(format!("{what}: {entered}, but {found:?} is {sum}"));
            }
        };
        let in_of = |stage| self.of_stage("tidemill_stage_messages_in_total", stage);
        let source = [
            ("handed on", in_of(STAGES[0]) - self.retried(STAGES[0])),
            ("lost", self.lost("source")),
            ("in flight", self.waiting("source")),
        ];
        check("the source received".into(), self.received(), &source);
        for stage in STAGES {
            let failed = self.lost(stage) - self.dropped(stage, "no_output");
            let ends = [
                ("passed", self.of_stage("tidemill_messages_passed_total", stage)),
                ("filtered", self.of_stage("tidemill_messages_filtered_total", stage)),
                ("failed", failed),
                ("in flight", self.waiting(stage)),
            ];
            check(format!("into stage {stage}"), in_of(stage), &ends);
        }
        let between = [
            ("into the next", in_of(STAGES[1]) - self.retried(STAGES[1])),
            ("no_output", self.dropped(STAGES[0], "no_output")),
        ];
        check(format!("out of stage {}", STAGES[0]), self.out(STAGES[0]), &between);
        let taken = self.out(STAGES[1]) - self.dropped(STAGES[1], "no_output");
        for sink in SINKS {
            let ends = [
                ("delivered", self.delivered(sink)),
                ("dropped", self.all_dropped(sink)),
                ("dead-lettered", self.dead_lettered(sink)),
                ("in flight", self.waiting(sink)),
            ];
            check(format!("taken by sink {sink}"), taken + self.retried(sink), &ends);
        }
        let below = self.samples.iter().filter(|sample| sample.name == "tidemill_messages_in_flight");
        violations.extend(
            below.filter(|sample| sample.value < 0.0).map(|sample| format!("less than nothing: {sample:?}")),
        );
        violations
    }

    /// The counters of messages, to be compared with a later scrape.
    pub(crate) fn counters(&self) -> BTreeMap<String, i64> {
        let counters = self.samples.iter().filter(|sample| {
            sample.name.ends_with("_total")
                && sample.name.starts_with("tidemill_")
                && sample.name.contains("messages")
        });
        counters.map(|sample| (format!("{}{:?}", sample.name, sample.labels), sample.value as i64)).collect()
    }
}
