//! What stands for the host in a native test: the imports, kept in memory.

use super::answers::Answers;
use crate::Result;
use crate::http::Request;
use crate::log::Level;
use crate::state::Change;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// The host as a plugin under test sees it. A [`Harness`](super::Harness) has one of its own; what
/// is called outside of one finds the thread's.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// The lines logged.
    pub log: Vec<(Level, String)>,
    /// What `state` keeps.
    pub state: BTreeMap<String, Vec<u8>>,
    /// When values of `state` are over that have an end, by `now_us`.
    pub state_ends_us: BTreeMap<String, u64>,
    /// What `metrics::add` added up to.
    pub counters: BTreeMap<String, f64>,
    /// The last value of each gauge.
    pub gauges: BTreeMap<String, f64>,
    /// All values of each histogram.
    pub histograms: BTreeMap<String, Vec<f64>>,
    /// What `http` answers; every request is denied where nothing is set.
    pub answers: Answers,
    /// What `http` was asked for.
    pub requests: Vec<Request>,
    /// What `clock::now_us` says.
    pub now_us: u64,
    /// Where `random` goes on from: the same seed, the same numbers.
    pub seed: u64,
}

/// Longest key of `state`, in bytes.
const MAX_KEY_BYTES: usize = 1 << 10;

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

/// Uses the host of the call in progress.
pub(crate) fn host<R>(call: impl FnOnce(&mut Host) -> R) -> R {
    HOST.with_borrow_mut(call)
}

impl Host {
    /// Runs `call` with this host.
    pub(super) fn during<R>(&mut self, call: impl FnOnce() -> R) -> R {
        host(|current| std::mem::swap(current, self));
        let result = call();
        host(|current| std::mem::swap(current, self));
        result
    }

    /// What `state` has for a key.
    pub(crate) fn state(&self, key: &str) -> Option<&Vec<u8>> {
        let is_over = self.state_ends_us.get(key).is_some_and(|end| *end <= self.now_us);
        self.state.get(key).filter(|_| !is_over)
    }

    /// Makes all changes of `state`, or none.
    pub(crate) fn change(&mut self, changes: &[Change]) -> Result {
        if let Some(change) = changes.iter().find(|change| change.key.len() > MAX_KEY_BYTES) {
            return Err(
                format!("a key may have {MAX_KEY_BYTES} bytes, this one has {}", change.key.len()).into()
            );
        }
        for Change { key, value, ttl_ms } in changes {
            self.state_ends_us.remove(key);
            match value {
                None => drop(self.state.remove(key)),
                Some(value) => {
                    self.state.insert(key.clone(), value.clone());
                    if *ttl_ms > 0 {
                        let end = self.now_us.saturating_add(ttl_ms.saturating_mul(1000));
                        self.state_ends_us.insert(key.clone(), end);
                    }
                }
            }
        }
        Ok(())
    }

    /// The next number of the SplitMix64 sequence, its upper 53 bits.
    pub(crate) fn random(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1u64 << 53) as f64
    }
}
