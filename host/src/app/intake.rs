//! What the plugin folder brings, on its way to run: which content of a plugin is its newest, and
//! what is being done about it.
//!
//! The newest content wins at once: what is older and does not run yet is skipped, wherever it is on
//! the way. Nothing here compiles or swaps; it is told what others do, and says what is next.

use super::attempt::SwapAttempt;
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
    wanted: BTreeMap<String, Wanted>,
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

/// Content that is to run, and does not yet.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) version: String,
    pub(super) attempt: SwapAttempt,
}

#[derive(Debug)]
struct Swapping {
    version: String,
    /// `None` where the uses run the version already, and get other code of it.
    attempt: Option<SwapAttempt>,
    superseded: CancellationToken,
    /// What has come before it was decided, if something has.
    by: Option<SupersededBy>,
    /// It goes on for as long as messages take to come.
    has_shadow: bool,
}

/// What comes before a swap is decided, and takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SupersededBy {
    Newer,
    /// The same content is to take over in another way.
    OtherWay,
    /// The configuration changes: it is tried again afterwards.
    Reload,
}

impl SupersededBy {
    /// It in words.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Newer => "newer content came first",
            Self::OtherWay => "the same content was asked for in another way",
            Self::Reload => "a change of the configuration came first",
        }
    }
}

/// What content means that has come.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    /// The attempt, if there is nothing to do about it: the content runs already.
    pub(super) needless: Option<SwapAttempt>,
    /// What was on its way, and is skipped now.
    pub(super) skipped: Option<Wanted>,
}

/// What follows when a swap is decided.
#[derive(Debug, Default)]
pub(super) struct EndedSwap {
    /// What was tried.
    pub(super) attempt: Option<SwapAttempt>,
    /// What came before it was decided, if something did.
    pub(super) superseded_by: Option<SupersededBy>,
    /// The content that waited for that.
    pub(super) next: Option<(Plugin, SwapAttempt)>,
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

    /// A plugin has this content, which is to run; `running` is the version that runs now. What somebody asked for is
    /// on its way even if it runs already: there is a verdict to wait for.
    pub(super) fn found(
        &mut self,
        candidate: Candidate,
        attempt: SwapAttempt,
        running: Option<&str>,
    ) -> Arrival {
        let Candidate { name, version, .. } = &candidate;
        if let Some(wanted) = self.wanted.get_mut(name)
            && wanted.version == *version
            && wanted.attempt.goes_as(&attempt)
        {
            wanted.attempt.join(attempt);
            return Arrival::default();
        }
        let skipped = self.forget(name);
        self.refused.remove(name);
        match self.swapping.get_mut(name) {
            // What a swap that goes on brings in.
            Some(swapping) if swapping.version == *version => match &mut swapping.attempt {
                Some(running) if running.goes_as(&attempt) => {
                    running.join(attempt);
                    return Arrival { needless: None, skipped };
                }
                None if !attempt.is_asked() => return Arrival { needless: None, skipped },
                Some(_) | None if swapping.has_shadow => swapping.supersede(SupersededBy::OtherWay),
                Some(_) | None => {}
            },
            Some(swapping) => swapping.supersede(SupersededBy::Newer),
            None if running == Some(version.as_str()) && !attempt.is_asked() => {
                return Arrival { needless: Some(attempt), skipped };
            }
            None => {}
        }
        self.wanted.insert(name.clone(), Wanted { version: version.clone(), attempt });
        if !self.compiling.contains(&(name.clone(), version.clone())) {
            self.queue.push(candidate);
        }
        Arrival { needless: None, skipped }
    }

    /// The file of a plugin is gone: the built-in plugin of the name may be taken. Gives what is skipped.
    pub(super) fn gone(&mut self, name: &str) -> Option<Wanted> {
        self.refused.remove(name);
        self.barred.remove(name);
        // What somebody sent is not that file's content.
        let is_asked = self.wanted.get(name).is_some_and(|wanted| wanted.attempt.is_asked());
        if is_asked { None } else { self.forget(name) }
    }

    /// The newest content of a plugin cannot run here.
    pub(super) fn refused(&mut self, name: &str, why: &str) {
        self.refused.insert(name.to_owned(), why.to_owned());
    }

    /// Why the newest content of a plugin cannot run here, if it is there and cannot.
    pub(super) fn why_refused(&self, name: &str) -> Option<&str> {
        self.refused.get(name).map(String::as_str)
    }

    /// What is on its way for this plugin and does not run yet is not wanted any more. Gives it back.
    pub(super) fn forget(&mut self, name: &str) -> Option<Wanted> {
        self.ready.remove(name);
        self.queue.retain(|waiting| waiting.name != name);
        self.wanted.remove(name)
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

    /// A content was compiled, or refused. Gives the attempt, if it is still wanted.
    pub(super) fn compiled(&mut self, name: &str, version: &str) -> Option<SwapAttempt> {
        self.compiling.remove(&(name.to_owned(), version.to_owned()));
        let is_wanted = self.wanted.get(name).is_some_and(|wanted| wanted.version == version);
        if is_wanted { self.wanted.remove(name).map(|wanted| wanted.attempt) } else { None }
    }

    /// Keeps a compiled plugin until the swap that goes on is decided; gives it back if none does.
    pub(super) fn hold(&mut self, plugin: Plugin, attempt: SwapAttempt) -> Option<(Plugin, SwapAttempt)> {
        if !self.swapping.contains_key(&**plugin.name()) {
            return Some((plugin, attempt));
        }
        let wanted = Wanted { version: plugin.version().to_string(), attempt };
        self.wanted.insert(plugin.name().to_string(), wanted);
        self.ready.insert(plugin.name().to_string(), plugin);
        None
    }

    /// A swap begins, one with a shadow or without. What it gives back says when something else came first.
    pub(super) fn begin_swap(
        &mut self,
        name: &str,
        version: &str,
        attempt: Option<SwapAttempt>,
        has_shadow: bool,
    ) -> CancellationToken {
        let (version, superseded) = (version.to_owned(), CancellationToken::new());
        let swapping = Swapping { version, attempt, superseded: superseded.clone(), by: None, has_shadow };
        self.swapping.insert(name.to_owned(), swapping);
        superseded
    }

    /// The configuration is to change: a shadow, which may last, is not waited for.
    pub(super) fn end_shadow(&mut self, name: &str) {
        if let Some(swapping) = self.swapping.get_mut(name).filter(|swapping| swapping.has_shadow) {
            swapping.supersede(SupersededBy::Reload);
        }
    }

    /// The swap of a plugin is decided.
    pub(super) fn end_swap(&mut self, name: &str) -> EndedSwap {
        let (attempt, superseded_by) =
            self.swapping.remove(name).map_or((None, None), |swapping| (swapping.attempt, swapping.by));
        let next = self.ready.remove(name);
        let next = next.and_then(|plugin| Some((plugin, self.wanted.remove(name)?.attempt)));
        EndedSwap { attempt, superseded_by, next }
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

impl Swapping {
    fn supersede(&mut self, by: SupersededBy) {
        self.by.get_or_insert(by);
        self.superseded.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::AskedBy;
    use bytes::Bytes;

    /// Content comes: says whether it runs already, and what is skipped for it.
    fn found(
        intake: &mut Intake,
        (name, version): (&str, &str),
        running: Option<&str>,
    ) -> (bool, Option<String>) {
        let candidate = Candidate {
            name: name.into(),
            path: Some(name.into()),
            wasm: Bytes::new(),
            version: version.into(),
        };
        let Arrival { needless, skipped } =
            intake.found(candidate, SwapAttempt::new(AskedBy::Folder), running);
        (needless.is_some(), skipped.map(|skipped| skipped.version))
    }

    fn skipped(version: &str) -> (bool, Option<String>) {
        (false, Some(version.to_owned()))
    }

    const NEWS: (bool, Option<String>) = (false, None);

    fn next(intake: &mut Intake) -> Option<(String, String)> {
        intake.next(|_| true, true).map(|next| (next.name, next.version))
    }

    fn is(name: &str, version: &str) -> Option<(String, String)> {
        Some((name.into(), version.into()))
    }

    #[test]
    fn of_what_comes_while_one_compiles_only_the_newest_is_compiled_and_the_rest_is_skipped() {
        let mut intake = Intake::default();
        assert_eq!(found(&mut intake, ("a", "1"), None), NEWS);
        assert_eq!(next(&mut intake), is("a", "1"));
        for (version, before) in [("2", "1"), ("3", "2"), ("4", "3")] {
            assert_eq!(found(&mut intake, ("a", version), None), skipped(before));
        }
        assert!(intake.compiled("a", "1").is_none(), "newer content has come");
        assert_eq!(next(&mut intake), is("a", "4"));
        assert_eq!(next(&mut intake), None);
        assert!(intake.is_coming("a"));
        assert!(intake.compiled("a", "4").is_some());
        assert!(!intake.is_coming("a"));
    }

    #[test]
    fn a_file_that_is_again_what_runs_skips_what_came_in_between() {
        let mut intake = Intake::default();
        assert_eq!(found(&mut intake, ("a", "2"), Some("1")), NEWS);
        assert_eq!(found(&mut intake, ("a", "1"), Some("1")), (true, Some("2".to_owned())), "it runs");
        assert_eq!(next(&mut intake), None);
        // While the swap to 2 goes on, 1 is news again, and 2 is not.
        let superseded = intake.begin_swap("a", "2", Some(SwapAttempt::new(AskedBy::Folder)), false);
        assert_eq!(found(&mut intake, ("a", "2"), Some("1")), NEWS);
        assert!(!superseded.is_cancelled());
        assert_eq!(found(&mut intake, ("a", "1"), Some("1")), NEWS);
        assert!(superseded.is_cancelled());
        assert_eq!(next(&mut intake), is("a", "1"));
        assert!(intake.end_swap("a").attempt.is_some(), "its verdict is still to be told");
    }

    #[test]
    fn what_no_pipeline_needs_waits_for_what_one_does() {
        let mut intake = Intake::default();
        for name in ["a", "b", "c"] {
            assert_eq!(found(&mut intake, (name, "1"), None), NEWS);
        }
        let needed = intake.next(|name| name == "b", false);
        assert_eq!(needed.map(|next| next.name), Some("b".to_owned()));
        assert!(intake.next(|name| name == "b", false).is_none());
        assert_eq!(intake.next(|name| name == "b", true).map(|next| next.name), Some("a".to_owned()));
    }

    #[test]
    fn a_file_that_is_gone_is_not_wanted_any_more() {
        let mut intake = Intake::default();
        assert_eq!(found(&mut intake, ("a", "1"), None), NEWS);
        assert_eq!(next(&mut intake), is("a", "1"));
        assert_eq!(intake.forget("a").map(|wanted| wanted.version), Some("1".to_owned()));
        assert!(intake.compiled("a", "1").is_none());
    }
}
