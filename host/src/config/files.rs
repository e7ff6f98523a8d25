//! Files that several ends of pipelines name: what a sink writes, another end must not destroy, and must not
//! read as it grows.
//!
//! Two sinks may add lines of one format to one file that is not packed: each writes whole lines at once to
//! the end of the file, as the system has it at that moment. Everything else is refused.

use super::pipeline::{DeadLetterKindAt, PipelineAt, SinkKindAt, dead_letter_kind, sink_kind, source};
use super::report::{Report, Span};
use super::{DEAD_LETTER, FilePath, FileSink, Format, Pipeline, SOURCE, SinkKind, SourceConfig};
use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

const HINT: &str = "only sinks that append lines of one format may share a file, and none that ends in `.gz`";

/// An end of a pipeline that is a file.
struct FileEnd<'c> {
    /// `source`, or the sink's name.
    end: &'c str,
    path: &'c FilePath,
    does: FileUse,
}

/// What an end does with its file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileUse {
    Reads,
    /// Lines of this format are added to it.
    Appends(Format),
    /// It begins anew, or is packed, which needs what was written before.
    Owns,
}

/// What two paths have in common that lead to one file.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum FileIdentity {
    /// Its device and its number there.
    There(u64, u64),
    /// It is still to be made.
    ToBe(PathBuf),
}

impl<'c> FileEnd<'c> {
    fn of_source(source: &'c SourceConfig) -> Option<Self> {
        let SourceConfig::File(file) = source else { return None };
        Some(Self { end: SOURCE, path: &file.path, does: FileUse::Reads })
    }

    fn of_sink(end: &'c str, kind: &'c SinkKind) -> Option<Self> {
        let SinkKind::File(FileSink { path, format, append }) = kind else { return None };
        let appends = *append && !path.is_packed();
        let does = if appends { FileUse::Appends(*format) } else { FileUse::Owns };
        Some(Self { end, path, does })
    }

    /// The source, each sink and the dead letters, in this order; `None` for what is no file.
    fn slots(pipeline: &'c Pipeline) -> impl Iterator<Item = Option<Self>> {
        let sinks = pipeline.sinks.iter().map(|sink| Self::of_sink(&sink.name, &sink.kind));
        let dead_letter = pipeline.dead_letter.as_ref().map(|sink| Self::of_sink(DEAD_LETTER, &sink.kind));
        std::iter::once(Self::of_source(&pipeline.source)).chain(sinks).chain(dead_letter)
    }

    fn may_share_with(&self, other: &Self) -> bool {
        self.does == other.does && self.does != FileUse::Owns
    }

    /// What it does, after the name of the end that does it.
    fn verb(&self) -> &'static str {
        if self.does == FileUse::Reads { "reads" } else { "writes" }
    }

    /// `None` for a FIFO, a device or a folder: nothing is kept there that could be destroyed.
    fn file(&self) -> Option<FileIdentity> {
        match std::fs::metadata(&**self.path) {
            Ok(found) => found.is_file().then(|| FileIdentity::There(found.dev(), found.ino())),
            Err(_) => Some(FileIdentity::ToBe(in_full(self.path))),
        }
    }
}

/// A path from the root, without `.` and `..`, and without links as far as its folders are there.
fn in_full(path: &Path) -> PathBuf {
    let mut full = PathBuf::new();
    for part in std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).components() {
        if part == Component::ParentDir {
            full.pop();
        } else {
            full.push(part);
        }
    }
    let mut missing: Vec<OsString> = Vec::new();
    let mut there = full.clone();
    while let Some(name) = there.file_name().map(OsString::from) {
        missing.push(name);
        there.pop();
        if let Ok(mut found) = there.canonicalize() {
            found.extend(missing.iter().rev());
            return found;
        }
    }
    full
}

/// Reports ends of these pipelines that name a file which another of them names, too.
pub(super) fn report_shared<'c>(
    report: &mut Report<'_>,
    pipelines: impl Iterator<Item = (&'c Pipeline, &'c PipelineAt)>,
) {
    let mut files: BTreeMap<FileIdentity, Vec<(FileEnd<'_>, &Span)>> = BTreeMap::new();
    for (pipeline, at) in pipelines {
        for (end, at) in FileEnd::slots(pipeline).zip(places(at)) {
            let (Some(end), Some(at)) = (end, at) else { continue };
            let Some(file) = end.file() else { continue };
            let earlier = files.entry(file).or_default();
            if let Some((other, there)) = earlier.iter().find(|(other, _)| !end.may_share_with(other)) {
                let (verb, there) = (other.verb(), report.name(there));
                report.error_with_hint(at, format!("this is the file that {there} {verb}"), HINT);
            }
            earlier.push((end, at));
        }
    }
}

/// Where the paths of the slots of a pipeline are written.
fn places(at: &PipelineAt) -> impl Iterator<Item = Option<&Span>> {
    let of_source = at.source.as_ref().and_then(|at| match &at.case {
        Some(source::At::File(file)) => file.path.as_ref(),
        _ => None,
    });
    let sinks = at.sinks.iter().flat_map(|at| &at.each).map(|at| sink_path(&at.kind));
    let dead_letter = at.dead_letter.iter().map(|at| dead_letter_path(&at.kind));
    std::iter::once(of_source).chain(sinks).chain(dead_letter)
}

fn sink_path(kind: &SinkKindAt) -> Option<&Span> {
    match &kind.case {
        Some(sink_kind::At::File(file)) => file.path.as_ref(),
        _ => None,
    }
}

fn dead_letter_path(kind: &DeadLetterKindAt) -> Option<&Span> {
    match &kind.case {
        Some(dead_letter_kind::At::File(file)) => file.path.as_ref(),
        _ => None,
    }
}

impl Pipeline {
    /// The first of its ends whose file an end of these other pipelines names, too, and why that cannot be.
    pub fn shares_file_with(
        &self,
        others: impl IntoIterator<Item = impl Borrow<Self>>,
    ) -> Option<(&str, String)> {
        let ends: Vec<_> =
            FileEnd::slots(self).flatten().filter_map(|end| Some((end.file()?, end))).collect();
        if ends.is_empty() {
            return None;
        }
        others.into_iter().find_map(|pipeline| {
            let pipeline = pipeline.borrow();
            FileEnd::slots(pipeline).flatten().find_map(|other| {
                let file = other.file()?;
                let (_, end) = ends.iter().find(|(its, end)| *its == file && !end.may_share_with(&other))?;
                let (verb, name) = (other.verb(), &pipeline.name);
                let owner = match other.end {
                    SOURCE => format!("the source of pipeline {name}"),
                    sink => format!("sink {sink} of pipeline {name}"),
                };
                Some((end.end, format!("{}: {owner} {verb} this file, and {HINT}", end.path)))
            })
        })
    }
}
