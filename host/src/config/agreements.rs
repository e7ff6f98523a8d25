//! What the server endpoints of a host have agreed on, for as long as their pipelines are configured.
//!
//! Endpoints of one path share its peers, so they share what is asked of these, and those of one address
//! share its TLS. An endpoint that leaves a key out takes it from another, and keeps it when that one has
//! stopped or is gone: a path that asked for a token goes on asking for it, whoever is opened first.

use super::path::PathPattern;
use super::shared_keys::{AgreedKey, SHARED, TLS};
use super::{Endpoint, Pipeline, SOURCE, Server};
use std::collections::BTreeMap;

/// The server endpoints that are configured, open or not.
#[derive(Debug, Default)]
pub struct Agreements {
    parties: Vec<Party>,
}

/// A server endpoint, and what it has agreed to.
#[derive(Clone, Debug)]
struct Party {
    pipeline: String,
    /// `source`, or the sink's name.
    end: String,
    pattern: Option<PathPattern>,
    written: Endpoint,
    agreed: Endpoint,
}

/// The agreements of a pipeline before it was configured anew, to restore them.
#[derive(Debug)]
pub struct Before(Vec<Party>);

/// What came of configuring several pipelines anew at once.
#[derive(Debug)]
pub struct Reconfigured {
    /// What was noted of them before, to restore it.
    pub before: BeforeAll,
    /// The endpoints, each with its pipeline, that say otherwise than one of those before: they cannot be open at
    /// the same time.
    pub clashing: Vec<(String, String)>,
}

/// The agreements of several pipelines before they were configured anew, to restore them.
#[derive(Debug)]
pub struct BeforeAll {
    pipelines: Vec<String>,
    parties: Vec<Party>,
}

/// Two endpoints that say different things where they must say the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The name of the end that came later.
    pub end: String,
    /// The key that both have.
    pub key: &'static str,
    /// The other endpoint, in words.
    pub owner: String,
    /// The thing that the two endpoints share: "address" or "path".
    pub share: &'static str,
}

impl Agreements {
    /// Notes the server endpoints of a pipeline, in the place of what was noted of it. Answers with that, to
    /// be given to [`Self::restore`] where the pipeline does not come to be.
    ///
    /// # Errors
    /// An endpoint of the pipeline differs from one of another pipeline; nothing is noted then.
    pub fn configure(&mut self, pipeline: &Pipeline) -> Result<Before, Disagreement> {
        let before = Before(self.parties.extract_if(.., |party| party.pipeline == pipeline.name).collect());
        for (end, endpoint) in pipeline.endpoints().filter(|(_, endpoint)| endpoint.listen().is_some()) {
            let own = before.0.iter().find(|party| party.end == end);
            match self.agree(&pipeline.name, end, endpoint, own) {
                Ok(party) => self.parties.push(party),
                Err(disagreement) => {
                    self.restore(&pipeline.name, before);
                    return Err(disagreement);
                }
            }
        }
        Ok(before)
    }

    /// Takes back what was noted of a pipeline.
    pub fn restore(&mut self, pipeline: &str, before: Before) {
        self.forget(pipeline);
        self.parties.extend(before.0);
    }

    /// Notes the server endpoints of several pipelines, in the place of what was noted of these and of those that
    /// are `gone`.
    ///
    /// # Errors
    /// The pipeline that has an endpoint which differs from one of another pipeline; nothing is changed then.
    pub fn reconfigure(
        &mut self,
        gone: &[&str],
        pipelines: &[&Pipeline],
    ) -> Result<Reconfigured, (String, Disagreement)> {
        let names = pipelines.iter().map(|pipeline| pipeline.name.as_str());
        let names: Vec<String> = names.chain(gone.iter().copied()).map(str::to_owned).collect();
        let parties: Vec<Party> =
            self.parties.extract_if(.., |party| names.contains(&party.pipeline)).collect();
        let before = BeforeAll { pipelines: names, parties };
        let mut clashing = Vec::new();
        for pipeline in pipelines {
            for (end, endpoint) in pipeline.endpoints().filter(|(_, endpoint)| endpoint.listen().is_some()) {
                let is_own = |party: &&Party| party.pipeline == pipeline.name && party.end == end;
                let own = before.parties.iter().find(is_own);
                let party = match self.agree(&pipeline.name, end, endpoint, own) {
                    Ok(party) => party,
                    Err(disagreement) => {
                        self.restore_all(before);
                        return Err((pipeline.name.clone(), disagreement));
                    }
                };
                if before.parties.iter().any(|before| before.clashes_with(&party)) {
                    clashing.push((pipeline.name.clone(), end.to_owned()));
                }
                self.parties.push(party);
            }
        }
        Ok(Reconfigured { before, clashing })
    }

    /// Takes back what was noted of several pipelines.
    pub fn restore_all(&mut self, before: BeforeAll) {
        self.parties.retain(|party| !before.pipelines.contains(&party.pipeline));
        self.parties.extend(before.parties);
    }

    /// A pipeline is configured no more. What others took from it stays theirs.
    pub fn forget(&mut self, pipeline: &str) {
        self.parties.retain(|party| party.pipeline != pipeline);
    }

    /// An endpoint as it is to be opened.
    pub fn agreed(&self, pipeline: &str, end: &str) -> Option<&Endpoint> {
        let mut parties = self.parties.iter();
        parties.find(|party| party.pipeline == pipeline && party.end == end).map(|party| &party.agreed)
    }

    /// Addresses of this pipeline where anybody may connect: that, and what to do about it.
    pub fn open_doors(&self, pipeline: &str) -> Vec<(String, &'static str)> {
        let parties = self.parties.iter().filter(|party| party.pipeline == pipeline);
        let open: BTreeMap<_, _> = parties
            .filter_map(|party| party.agreed.listen())
            .filter(|listen| listen.is_open_door())
            .map(|listen| (listen.address(), listen.open_door()))
            .collect();
        open.into_values().collect()
    }

    /// What an endpoint comes to beside all others; `own` is what was noted of it before.
    fn agree(
        &self,
        pipeline: &str,
        end: &str,
        written: &Endpoint,
        own: Option<&Party>,
    ) -> Result<Party, Disagreement> {
        let pattern = written.listen().and_then(|listen| PathPattern::parse(&listen.path).ok());
        let (pipeline, end) = (pipeline.to_owned(), end.to_owned());
        let mut party = Party { pipeline, end, pattern, written: written.clone(), agreed: written.clone() };
        let defaults = defaults(written);
        for key in SHARED.iter().chain([&TLS]) {
            let is_left_out = |endpoint: &Endpoint| (key.is_same)(endpoint, &defaults);
            let others = || self.parties.iter().filter(|other| other.shares(key, &party));
            let writes = others().find(|other| !is_left_out(&other.written));
            if !is_left_out(written) {
                if let Some(other) = writes.filter(|other| !(key.is_same)(&other.written, written)) {
                    return Err(Disagreement {
                        end: party.end,
                        key: key.name,
                        owner: other.in_words(),
                        share: if key.name == TLS.name { "address" } else { "path" },
                    });
                }
                continue;
            }
            let took = others().find(|other| !is_left_out(&other.agreed));
            // What it had written itself and now leaves out was taken back; what it had taken was not.
            let kept = own.filter(|own| own.shares(key, &party) && is_left_out(&own.written));
            let from = writes.map(|other| &other.written).or(took.or(kept).map(|other| &other.agreed));
            if let Some(from) = from.cloned() {
                (key.take)(&from, &mut party.agreed);
            }
        }
        Ok(party)
    }
}

impl Party {
    /// Whether both have to say the same about this key.
    fn shares(&self, key: &AgreedKey, other: &Self) -> bool {
        let is_of_path = || self.pattern.is_some() && self.pattern == other.pattern;
        let is_of_address = match (self.written.listen(), other.written.listen()) {
            (Some(one), Some(other)) => one.port == other.port && one.host == other.host,
            _ => false,
        };
        is_of_address && (key.name == TLS.name || is_of_path())
    }

    /// Whether the two, as they are agreed on, cannot be open at once.
    fn clashes_with(&self, other: &Self) -> bool {
        let differs =
            |key: &AgreedKey| self.shares(key, other) && !(key.is_same)(&self.agreed, &other.agreed);
        SHARED.iter().chain([&TLS]).any(differs)
    }

    fn in_words(&self) -> String {
        match &*self.end {
            SOURCE => format!("the source of pipeline {}", self.pipeline),
            sink => format!("sink {sink} of pipeline {}", self.pipeline),
        }
    }
}

/// What an endpoint of this address has where it says nothing.
pub(super) fn defaults(endpoint: &Endpoint) -> Endpoint {
    let server = endpoint.listen().map_or_else(Server::default, |listen| Server {
        host: listen.host.clone(),
        port: listen.port,
        ..Server::default()
    });
    Endpoint::server("/", &server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Auth, BearerFrom, Mode, SinkConfig};

    fn endpoint(path: &str, token: Option<&str>) -> Endpoint {
        let mut endpoint = Endpoint::server(path, &Server::default());
        if let (Mode::Server(listen), Some(token)) = (&mut endpoint.mode, token) {
            let bearer = vec![token.into()];
            listen.auth = Some(Auth { bearer, bearer_from: vec![BearerFrom::Header], basic: Vec::new() });
        }
        endpoint
    }

    fn pipeline(name: &str, source: Endpoint, sink: Endpoint) -> Pipeline {
        Pipeline::new(name, source).with_sink(SinkConfig::new("out", sink))
    }

    fn asks(agreements: &Agreements, name: &str, end: &str) -> bool {
        let agreed = agreements.agreed(name, end).expect("it is configured");
        agreed.listen().expect("a server endpoint").auth.is_some()
    }

    #[test]
    fn what_was_taken_from_an_endpoint_outlives_it() {
        let mut agreements = Agreements::default();
        let a = pipeline("a", endpoint("/x", Some("t")), endpoint("/a", None));
        let b = pipeline("b", endpoint("/b", None), endpoint("/x", None));
        agreements.configure(&a).expect("it is the first");
        agreements.configure(&b).expect("it says nothing");
        assert!(asks(&agreements, "b", "out") && !asks(&agreements, "b", SOURCE));
        agreements.configure(&b).expect("it starts again");
        assert!(asks(&agreements, "b", "out"));
        agreements.forget("a");
        agreements.configure(&b).expect("it starts again");
        assert!(asks(&agreements, "b", "out"), "it has it from one that is gone");
        agreements.configure(&a).expect("it says what it said");
        agreements.forget("b");
        let a = pipeline("a", endpoint("/x", None), endpoint("/a", None));
        agreements.configure(&a).expect("it is alone");
        assert!(!asks(&agreements, "a", SOURCE), "what it had written itself is taken back");
    }

    #[test]
    fn an_endpoint_takes_from_one_that_took_and_a_path_of_nobody_is_a_new_one() {
        let mut agreements = Agreements::default();
        agreements
            .configure(&pipeline("a", endpoint("/x", Some("t")), endpoint("/a", None)))
            .expect("the first");
        agreements
            .configure(&pipeline("b", endpoint("/b", None), endpoint("/x", None)))
            .expect("it says nothing");
        agreements.forget("a");
        agreements
            .configure(&pipeline("c", endpoint("/x", None), endpoint("/c", None)))
            .expect("it says nothing");
        assert!(asks(&agreements, "c", SOURCE), "it has it from one that had it from one that is gone");
        agreements.forget("b");
        agreements
            .configure(&pipeline("d", endpoint("/x", None), endpoint("/d", None)))
            .expect("it says nothing");
        assert!(asks(&agreements, "d", SOURCE));
        agreements.forget("c");
        agreements.forget("d");
        agreements
            .configure(&pipeline("e", endpoint("/x", None), endpoint("/e", None)))
            .expect("the first again");
        assert!(!asks(&agreements, "e", SOURCE));
    }

    #[test]
    fn who_says_otherwise_is_refused_and_changes_nothing() {
        let mut agreements = Agreements::default();
        let a = pipeline("a", endpoint("/x", Some("t")), endpoint("/a", None));
        agreements.configure(&a).expect("it is the first");
        let b = pipeline("b", endpoint("/b", None), endpoint("/x", Some("other")));
        let disagreement = agreements.configure(&b).expect_err("it says otherwise");
        let owner = "the source of pipeline a".to_owned();
        assert_eq!(disagreement, Disagreement { end: "out".to_owned(), key: "auth", owner, share: "path" });
        assert!(agreements.agreed("b", SOURCE).is_none());
        let b = pipeline("b", endpoint("/b", None), endpoint("/x", None));
        let before = agreements.configure(&b).expect("it says nothing");
        agreements.restore("b", before);
        assert!(agreements.agreed("b", "out").is_none(), "it did not come to be");
    }
}
