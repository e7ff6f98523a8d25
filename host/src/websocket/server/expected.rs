//! The server endpoints that are to be opened and are not yet: their pipelines start, or wait for a plugin.
//!
//! A peer that comes to a path for which a source is expected, and which others have opened, is let in; what
//! it sends is not read before the source is there or will not come. Where another source is open, that one reads
//! on, unless both are opened together: then what peers send is read once both are there. A path that nobody has
//! opened is busy rather than not found. Who expects what is told by whoever starts pipelines.

use crate::config::{PathPattern, Pipeline, SOURCE};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The endpoints that are expected at all listeners of a host. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Expected(Arc<Mutex<Vec<Expectation>>>);

/// Those of one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct ExpectedHere {
    all: Expected,
    /// The host and the port, as they are configured.
    address: Arc<(String, u16)>,
}

/// An endpoint that is expected.
#[derive(Debug)]
struct Expectation {
    pipeline: String,
    is_source: bool,
    /// It is opened together with others.
    is_together: bool,
    address: (String, u16),
    pattern: PathPattern,
}

impl Expected {
    /// The endpoints of this pipeline are to be opened.
    pub(super) fn add(&self, pipeline: &Pipeline) {
        let mut expected = self.lock();
        expected.retain(|each| each.pipeline != pipeline.name);
        expected.extend(pipeline.endpoints().filter_map(|(end, endpoint)| {
            let listen = endpoint.listen()?;
            let (host, port) = listen.address();
            Some(Expectation {
                pipeline: pipeline.name.clone(),
                is_source: end == SOURCE,
                is_together: false,
                address: (host.to_owned(), port),
                pattern: PathPattern::parse(&listen.path).ok()?,
            })
        }));
    }

    /// The endpoints of these pipelines are opened together, and those of no others.
    pub(super) fn open_together(&self, pipelines: &[&str]) {
        for each in self.lock().iter_mut() {
            each.is_together = pipelines.contains(&each.pipeline.as_str());
        }
    }

    /// They are there, or will not come.
    pub(super) fn remove(&self, pipeline: &str) {
        self.lock().retain(|each| each.pipeline != pipeline);
    }

    /// Those of the listener that is configured with this address.
    pub(super) fn at(&self, address: &(String, u16)) -> ExpectedHere {
        ExpectedHere { all: self.clone(), address: Arc::new(address.clone()) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Expectation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ExpectedHere {
    /// Whether what is sent to a path waits for a source, where one `is_open` or none is.
    pub(super) fn has_source(&self, pattern: &PathPattern, is_open: bool) -> bool {
        self.any(|each| each.is_source && (each.is_together || !is_open) && each.pattern == *pattern)
    }

    /// Whether what was asked for leads to an endpoint that is expected, rather than to `open`.
    pub(super) fn is_before(&self, open: Option<&PathPattern>, asked: &str) -> bool {
        self.any(|each| open.is_none_or(|open| each.pattern < *open) && each.pattern.matches(asked))
    }

    fn any(&self, is_it: impl Fn(&Expectation) -> bool) -> bool {
        self.all.lock().iter().any(|each| each.address == *self.address && is_it(each))
    }
}
