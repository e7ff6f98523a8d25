//! What the plugin folder brings, on its way to run: which content of a plugin is its newest, and
//! what is being done about it.
//!
//! The newest content wins at once: what is older and does not run yet is skipped, wherever it is on
//! the way. Nothing here compiles or swaps; it is told what others do, and says what is next.

use crate::plugin::Plugin;
use crate::plugin_folder::Candidate;
use std::collections::{BTreeMap, BTreeSet};
use tokio_util::sync::CancellationToken;

/// The contents of plugins on their way.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// Found and not looked at: the newest of each plugin, the one that has waited longest first.
    queue: Vec<Candidate>,
    /// The content that is wanted of each plugin on its way.
    wanted: BTreeMap<String, String>,
    /// Being compiled: plugins and contents, also such as nobody wants any more.
    compiling: BTreeSet<(String, String)>,
    /// Compiled, while the swap to the content before is not decided.
    ready: BTreeMap<String, Plugin>,
    /// Files whose newest content cannot run here, and why.
    refused: BTreeMap<String, String>,
    /// The swaps that go on.
    swapping: BTreeMap<String, Swapping>,
    /// The plugins whose built-in version is not taken: the folder has a file of the name, whatever that is
    /// worth, or the built-in version was refused.
    barred: BTreeSet<String>,
}

#[derive(Debug)]
struct Swapping {
    version: String,
    superseded: CancellationToken,
}

impl Intake {
    /// The built-in plugin of this name is not to be taken: the folder has a file of the name, or it was
    /// refused.
    pub(super) fn bar_built_in(&mut self, name: &str) {
        self.barred.insert(name.to_owned());
    }

    /// The built-in plugin of this name, if there is one that may be taken.
    pub(super) fn built_in(&self, name: &str) -> Option<Candidate> {
        if self.barred.contains(name) { None } else { Candidate::built_in(name) }
    }

    /// A plugin has this content. Says whether that is news; `running` is the version that runs now.
    pub(super) fn found(&mut self, candidate: Candidate, running: Option<&str>) -> bool {
        let Candidate { name, version, .. } = &candidate;
        if self.wanted.get(name) == Some(version) {
            return true;
        }
        self.forget(name);
        self.refused.remove(name);
        let swapping = self.swapping.get(name);
        // What a swap that goes on brings in.
        let coming = swapping.map(|swapping| swapping.version.as_str()).or(running);
        if coming == Some(version.as_str()) {
            return swapping.is_some();
        }
        if let Some(swapping) = swapping {
            swapping.superseded.cancel();
        }
        self.wanted.insert(name.clone(), version.clone());
        if !self.compiling.contains(&(name.clone(), version.clone())) {
            self.queue.push(candidate);
        }
        true
    }

    /// The file of a plugin is gone: the built-in plugin of the name may be taken.
    pub(super) fn gone(&mut self, name: &str) {
        self.forget(name);
        self.refused.remove(name);
        self.barred.remove(name);
    }

    /// The newest content of a plugin cannot run here.
    pub(super) fn refused(&mut self, name: &str, why: &str) {
        self.refused.insert(name.to_owned(), why.to_owned());
    }

    /// Why the newest content of a plugin cannot run here, if it is there and cannot.
    pub(super) fn why_refused(&self, name: &str) -> Option<&str> {
        self.refused.get(name).map(String::as_str)
    }

    /// What is on its way for this plugin and does not run yet is not wanted any more.
    pub(super) fn forget(&mut self, name: &str) {
        self.wanted.remove(name);
        self.ready.remove(name);
        self.queue.retain(|waiting| waiting.name != name);
    }

    /// Takes out what is to be compiled next: first what pipelines need, and the rest if `takes_rest`.
    pub(super) fn next(&mut self, is_needed: impl Fn(&str) -> bool, takes_rest: bool) -> Option<Candidate> {
        let needed = self.queue.iter().position(|waiting| is_needed(&waiting.name));
        let at = needed.or((takes_rest && !self.queue.is_empty()).then_some(0))?;
        let next = self.queue.remove(at);
        self.compiling.insert((next.name.clone(), next.version.clone()));
        Some(next)
    }

    /// Whether something waits to be compiled.
    pub(super) fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether nothing is to be compiled, or is being.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.compiling.is_empty()
    }

    /// A content was compiled, or refused. Says whether it is still wanted.
    pub(super) fn compiled(&mut self, name: &str, version: &str) -> bool {
        self.compiling.remove(&(name.to_owned(), version.to_owned()));
        let is_wanted = self.wanted.get(name).is_some_and(|wanted| wanted == version);
        if is_wanted {
            self.wanted.remove(name);
        }
        is_wanted
    }

    /// Keeps a compiled plugin until the swap that goes on is decided; gives it back if none does.
    pub(super) fn hold(&mut self, plugin: Plugin) -> Option<Plugin> {
        if !self.swapping.contains_key(&**plugin.name()) {
            return Some(plugin);
        }
        self.wanted.insert(plugin.name().to_string(), plugin.version().to_string());
        self.ready.insert(plugin.name().to_string(), plugin);
        None
    }

    /// A swap begins. What it gives back says when newer content came first.
    pub(super) fn begin_swap(&mut self, name: &str, version: &str) -> CancellationToken {
        let superseded = CancellationToken::new();
        let swapping = Swapping { version: version.to_owned(), superseded: superseded.clone() };
        self.swapping.insert(name.to_owned(), swapping);
        superseded
    }

    /// The swap of a plugin is decided. Gives the content that waited for that.
    pub(super) fn end_swap(&mut self, name: &str) -> Option<Plugin> {
        self.swapping.remove(name);
        let next = self.ready.remove(name)?;
        self.wanted.remove(name);
        Some(next)
    }

    /// Whether a swap of this plugin goes on.
    pub(super) fn is_swapping(&self, name: &str) -> bool {
        self.swapping.contains_key(name)
    }

    /// Whether content of this plugin is on its way.
    pub(super) fn is_coming(&self, name: &str) -> bool {
        self.wanted.contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, version: &str) -> Candidate {
        Candidate { name: name.into(), path: Some(name.into()), wasm: Vec::new(), version: version.into() }
    }

    fn next(intake: &mut Intake) -> Option<(String, String)> {
        intake.next(|_| true, true).map(|next| (next.name, next.version))
    }

    fn is(name: &str, version: &str) -> Option<(String, String)> {
        Some((name.into(), version.into()))
    }

    #[test]
    fn of_what_comes_while_one_compiles_only_the_newest_is_compiled() {
        let mut intake = Intake::default();
        assert!(intake.found(candidate("a", "1"), None));
        assert_eq!(next(&mut intake), is("a", "1"));
        for version in ["2", "3", "4"] {
            assert!(intake.found(candidate("a", version), None));
        }
        assert!(!intake.compiled("a", "1"), "newer content has come");
        assert_eq!(next(&mut intake), is("a", "4"));
        assert_eq!(next(&mut intake), None);
        assert!(intake.is_coming("a"));
        assert!(intake.compiled("a", "4"));
        assert!(!intake.is_coming("a"));
    }

    #[test]
    fn a_file_that_is_again_what_runs_skips_what_came_in_between() {
        let mut intake = Intake::default();
        assert!(intake.found(candidate("a", "2"), Some("1")));
        assert!(!intake.found(candidate("a", "1"), Some("1")), "it runs");
        assert_eq!(next(&mut intake), None);
        // While the swap to 2 goes on, 1 is news again, and 2 is not.
        let superseded = intake.begin_swap("a", "2");
        assert!(intake.found(candidate("a", "2"), Some("1")));
        assert!(!superseded.is_cancelled());
        assert!(intake.found(candidate("a", "1"), Some("1")));
        assert!(superseded.is_cancelled());
        assert_eq!(next(&mut intake), is("a", "1"));
    }

    #[test]
    fn what_no_pipeline_needs_waits_for_what_one_does() {
        let mut intake = Intake::default();
        for name in ["a", "b", "c"] {
            assert!(intake.found(candidate(name, "1"), None));
        }
        let needed = intake.next(|name| name == "b", false);
        assert_eq!(needed.map(|next| next.name), Some("b".to_owned()));
        assert!(intake.next(|name| name == "b", false).is_none());
        assert_eq!(intake.next(|name| name == "b", true).map(|next| next.name), Some("a".to_owned()));
    }

    #[test]
    fn a_file_that_is_gone_is_not_wanted_any_more() {
        let mut intake = Intake::default();
        assert!(intake.found(candidate("a", "1"), None));
        assert_eq!(next(&mut intake), is("a", "1"));
        intake.forget("a");
        assert!(!intake.compiled("a", "1"));
    }
}
