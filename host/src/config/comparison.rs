//! What the configuration of a pipeline has that it did not have before, and what that means for one that runs.
//!
//! What is compared is what the tables mean; how they are written tells the names of the keys. No value is
//! repeated: a reason may go wherever it is asked for.

use super::shared_keys::{SHARED, TLS};
use super::{Endpoint, OnError, Pipeline, SinkConfig, SinkKind, SourceConfig, StateStore, Transform};
use serde_json::Value;
use std::collections::{BTreeSet, HashSet};

/// What has changed of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineChanges {
    /// Each change in plain words, with the part of the pipeline that it is in.
    pub reasons: Vec<String>,
    /// Whether a pipeline that runs has to end first: it cannot change in place.
    pub needs_an_end: bool,
}

/// What a change of a transform means for its stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageChange {
    /// Nothing has changed.
    None,
    /// The host alone acts on what has changed: the instances stay.
    Adjusted,
    /// Its instances are made anew.
    Renewed,
    /// The same, and there are more or fewer than before, or messages belong to others of them: they share out the
    /// state between them anew.
    SharedOut,
}

impl PipelineChanges {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.reasons.is_empty()
    }

    fn end(&mut self, reason: String) {
        self.reasons.push(reason);
        self.needs_an_end = true;
    }
}

impl Pipeline {
    /// What it has that it did not have `before`.
    pub fn changes_since(&self, before: &Self) -> PipelineChanges {
        let mut changes = PipelineChanges::default();
        let (now, then) = (self.shown(), before.shown());
        if self.source != before.source {
            let ends = (self.source.endpoint(), before.source.endpoint());
            changes.end(changed("the source", &then["source"], &now["source"], shared_changes(ends)));
        }
        self.compare_transforms(before, (&now["transforms"], &then["transforms"]), &mut changes);
        self.compare_sinks(before, (&now["sinks"], &then["sinks"]), &mut changes);
        match (&self.dead_letter, &before.dead_letter) {
            (Some(_), None) => changes.reasons.push("dead letters have a sink".to_owned()),
            (None, Some(_)) => changes.reasons.push("dead letters have no sink any more".to_owned()),
            (Some(sink), Some(other)) if sink.kind != other.kind => {
                let (now, then) = (&now["dead_letter"], &then["dead_letter"]);
                let shared = shared_changes((sink.kind.endpoint(), other.kind.endpoint()));
                changes.reasons.push(changed("the sink of dead letters", then, now, shared));
            }
            _ => {}
        }
        changes
    }

    fn compare_transforms(
        &self,
        before: &Self,
        (now, then): (&Value, &Value),
        changes: &mut PipelineChanges,
    ) {
        for (index, transform) in self.transforms.iter().enumerate() {
            let name = &transform.name;
            let Some(other) = before.transforms.iter().position(|other| other.name == *name) else {
                changes.reasons.push(format!("transform {name} is new"));
                continue;
            };
            let old = &before.transforms[other];
            let mut rest = transform.clone();
            if transform.config.only_files_differ(&old.config) {
                changes.reasons.push(format!("transform {name}: a file of `config` has changed"));
                rest.config = old.config.clone();
            }
            if rest != *old {
                let part = format!("transform {name}");
                changes.reasons.push(changed(&part, &then[other], &now[index], Vec::new()));
            }
        }
        for gone in before.transforms.iter().filter(|other| self.transform(&other.name).is_none()) {
            changes.reasons.push(format!("transform {} is gone", gone.name));
        }
        if self.reorders(before) {
            changes.reasons.push("the transforms are in another order".to_owned());
        }
        if self.durable() != before.durable() {
            changes.end("what is kept on the disk is the state of other transforms".to_owned());
        }
    }

    fn compare_sinks(&self, before: &Self, (now, then): (&Value, &Value), changes: &mut PipelineChanges) {
        for (index, sink) in self.sinks.iter().enumerate() {
            let name = &sink.name;
            let Some(other) = before.sinks.iter().position(|other| other.name == *name) else {
                changes.reasons.push(format!("sink {name} is new"));
                continue;
            };
            if *sink != before.sinks[other] {
                let ends = (sink.kind.endpoint(), before.sinks[other].kind.endpoint());
                let (part, shared) = (format!("sink {name}"), shared_changes(ends));
                changes.reasons.push(changed(&part, &then[other], &now[index], shared));
            }
        }
        for gone in before.sinks.iter().filter(|other| self.sinks.iter().all(|sink| sink.name != other.name))
        {
            changes.reasons.push(format!("sink {} is gone", gone.name));
        }
        let replies =
            |pipeline: &Self| pipeline.sinks.iter().any(|sink| matches!(sink.kind, SinkKind::Reply(_)));
        if replies(self) && !replies(before) {
            changes
                .end("connections of the source take replies, which those that are open do not".to_owned());
        }
    }

    /// The transform of this name.
    pub fn transform(&self, name: &str) -> Option<&Transform> {
        self.transforms.iter().find(|transform| transform.name == name)
    }

    /// The sink of this name, where it is the same but for the outputs that it takes.
    pub fn same_sink(&self, sink: &SinkConfig) -> Option<&SinkConfig> {
        self.sinks.iter().find(|own| own.name == sink.name && own.kind == sink.kind)
    }

    /// Whether transforms that were there `before` come in another order.
    pub fn reorders(&self, before: &Self) -> bool {
        let names = |of: &Self, other: &Self| -> Vec<String> {
            let known: HashSet<_> = other.transforms.iter().map(|transform| &transform.name).collect();
            let both = of.transforms.iter().filter(|transform| known.contains(&transform.name));
            both.map(|transform| transform.name.clone()).collect()
        };
        names(self, before) != names(before, self)
    }

    /// Whether the source reads another place than `before`, so that how far that was read says nothing.
    pub fn reads_elsewhere(&self, before: &Self) -> bool {
        match (&self.source, &before.source) {
            (SourceConfig::File(file), SourceConfig::File(other)) => file.path != other.path,
            (now, then) => now != then,
        }
    }

    /// The transforms whose state is on the disk.
    fn durable(&self) -> BTreeSet<&str> {
        let durable = self.transforms.iter().filter(|transform| transform.state == StateStore::Durable);
        durable.map(|transform| transform.name.as_str()).collect()
    }
}

impl Transform {
    /// What the difference to a transform of the same name means for its stage.
    pub fn change_since(&self, before: &Self) -> StageChange {
        // Each key belongs to one of the two groups; `retries` is told to the plugin.
        let Self { name: _, plugin, config, limits, allow, http, instances, key, state, retries, .. } = self;
        let Self { on_error, tick, max_batch, max_batch_bytes, swap, .. } = self;
        if *instances != before.instances || *key != before.key && *instances > 1 {
            return StageChange::SharedOut;
        }
        let of_instances = (plugin, config, limits, allow, http, *state, *retries);
        let before_of_instances = (
            &before.plugin,
            &before.config,
            &before.limits,
            &before.allow,
            &before.http,
            before.state,
            before.retries,
        );
        if of_instances != before_of_instances {
            return StageChange::Renewed;
        }
        let of_host: (OnError, _, _, _, _, _) = (*on_error, *tick, *max_batch, *max_batch_bytes, key, *swap);
        let before_of_host = (
            before.on_error,
            before.tick,
            before.max_batch,
            before.max_batch_bytes,
            &before.key,
            before.swap,
        );
        if of_host == before_of_host { StageChange::None } else { StageChange::Adjusted }
    }
}

/// The keys on which two endpoints differ of those that one takes from others of its path or address, where it leaves
/// them out itself.
fn shared_changes(ends: (Option<&Endpoint>, Option<&Endpoint>)) -> Vec<String> {
    let (Some(now), Some(before)) = ends else { return Vec::new() };
    let differing = SHARED.iter().chain([&TLS]).filter(|key| !(key.is_same)(now, before));
    differing.map(|key| format!("`{}`", key.name)).collect()
}

/// A part of a pipeline with the keys that have changed: those of its own tables, or else those that it `shares`.
fn changed(part: &str, before: &Value, now: &Value, shares: Vec<String>) -> String {
    let mut keys = Vec::new();
    find(before, now, &mut String::new(), &mut keys);
    if keys.is_empty() {
        keys = shares;
    }
    if keys.is_empty() {
        // Two variables of which neither is shown, say.
        return format!("{part}: a value has changed that is not shown");
    }
    format!("{part}: {} changed", keys.join(", "))
}

/// The keys on which two tables differ, each with those of the tables that it stands in.
fn find(before: &Value, now: &Value, path: &mut String, keys: &mut Vec<String>) {
    let (Value::Object(then), Value::Object(here)) = (before, now) else {
        if before != now {
            keys.push(format!("`{path}`"));
        }
        return;
    };
    let names: BTreeSet<&String> = then.keys().chain(here.keys()).collect();
    for name in names {
        let length = path.len();
        if length > 0 {
            path.push('.');
        }
        path.push_str(name);
        match (then.get(name), here.get(name)) {
            (Some(then), Some(here)) => find(then, here, path, keys),
            _ => keys.push(format!("`{path}`")),
        }
        path.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, parse};
    use std::path::Path;

    const BEFORE: &str = r#"
        [[pipelines]]
        name = "p"
        source = { type = "websocket", url = "wss://a/x", headers = { Authorization = "Bearer ${A}" } }
        transforms = [
            { plugin = "vwap", config = { window = "1m", nested = { a = 1 } } },
            { plugin = "filter" },
        ]
        sinks = [{ type = "file", path = "out.jsonl" }, { name = "b", type = "stdout" }]
        "#;

    fn pipeline(text: &str) -> Pipeline {
        let environment = Environment::from([("A", "1"), ("B", "2")].map(|(k, v)| (k.into(), v.into())));
        let loaded = parse(Path::new("tidemill.toml"), text.as_bytes(), &environment);
        loaded.unwrap_or_else(|errors| panic!("{errors}")).config.pipelines.remove(0)
    }

    fn changes(from: &str, to: &str) -> (Vec<String>, bool) {
        let before = pipeline(BEFORE);
        assert!(BEFORE.contains(from), "{from}");
        let changes = pipeline(&BEFORE.replace(from, to)).changes_since(&before);
        (changes.reasons, changes.needs_an_end)
    }

    #[test]
    fn each_change_is_told_by_its_key_and_without_its_value() {
        for (from, to, reason, needs_an_end) in [
            ("wss://a/x", "wss://a/y", "the source: `url` changed", true),
            ("${A}", "${B}", "the source: a value has changed that is not shown", true),
            ("\"1m\"", "\"2m\"", "transform vwap: `config.window` changed", false),
            (
                "{ a = 1 }",
                "{ a = 2, b = 1 }",
                "transform vwap: `config.nested.a`, `config.nested.b` changed",
                false,
            ),
            ("\"filter\"", "\"filter\", retries = 7", "transform filter: `retries` changed", false),
            ("\"filter\"", "\"filter\", instances = 2", "transform filter: `instances` changed", false),
            ("\"stdout\"", "\"stdout\", format = \"recording\"", "sink b: `format` changed", false),
            ("{ plugin = \"filter\" },", "", "transform filter is gone", false),
            (
                "{ plugin = \"filter\" },",
                "{ plugin = \"filter\" }, { plugin = \"x\" },",
                "transform x is new",
                false,
            ),
            (
                "[{ type = \"file\"",
                "[{ name = \"c\", type = \"stdout\" }, { name = \"sink0\", type = \"file\"",
                "sink c is new",
                false,
            ),
            (", { name = \"b\", type = \"stdout\" }", "", "sink b is gone", false),
            ("{ name = \"b\"", "{ name = \"r\", type = \"reply\" }, { name = \"b\"", "sink r is new", true),
            ("\"filter\"", "\"filter\", state = \"durable\"", "transform filter: `state` changed", true),
        ] {
            let (reasons, ends) = changes(from, to);
            assert_eq!((reasons.first().map(String::as_str), ends), (Some(reason), needs_an_end), "{to}");
        }
    }

    #[test]
    fn a_key_that_is_taken_from_another_endpoint_is_told_by_its_name() {
        let server = |ping: &str, token: &str| {
            format!(
                r#"
                [[pipelines]]
                name = "p"
                source = {{ type = "websocket", mode = "server", path = "/a" }}
                sinks = [{{ type = "websocket", mode = "server", path = "/a"{ping}, auth = {{ bearer = ["${{{token}}}"] }} }}]
                "#
            )
        };
        let before = pipeline(&server("", "A"));
        let reasons = |now: &str| pipeline(now).changes_since(&before).reasons;
        let ping = ", ping = { interval = \"1s\" }";
        assert_eq!(reasons(&server(ping, "A")), ["the source: `ping` changed", "sink sink0: `ping` changed"]);
        assert_eq!(reasons(&server("", "B")), ["the source: `auth` changed", "sink sink0: `auth` changed"]);
    }

    #[test]
    fn what_means_the_same_is_no_change_however_it_is_written() {
        assert_eq!(changes("\"filter\"", "\"filter\", retries = 5, max_batch = 256"), (Vec::new(), false));
        assert_eq!(changes("name = \"p\"", "# a comment\n        name = \"p\""), (Vec::new(), false));
        assert_eq!(changes("type = \"file\"", "name = \"sink0\", type = \"file\""), (Vec::new(), false));
    }

    #[test]
    fn a_change_of_what_only_the_host_acts_on_leaves_the_instances() {
        let of = |text: &str| {
            let before = pipeline(BEFORE);
            let now = pipeline(&BEFORE.replace("\"filter\"", &format!("\"filter\", {text}")));
            now.transforms[1].change_since(&before.transforms[1])
        };
        for text in
            ["on_error = \"drop\"", "max_batch = 1", "tick = \"1s\"", "key = \"/a\"", "swap = { shadow = 3 }"]
        {
            assert_eq!(of(text), StageChange::Adjusted, "{text}");
        }
        for text in [
            "config = { a = 1 }",
            "limits = { memory = \"1MiB\" }",
            "allow = [\"https://a.example\"]",
            "retries = 1",
        ] {
            assert_eq!(of(text), StageChange::Renewed, "{text}");
        }
        assert_eq!(of("instances = 2"), StageChange::SharedOut);
        assert_eq!(of("retries = 5"), StageChange::None);
    }
}
