//! Circles of files: files of `host/src` that name each other all the way round.
//!
//! A file names another when a path of it leads there, in a `use` line or anywhere in its code; a name that
//! a module hands on with `use` leads to the file that has it. The file of a module and those in its folder
//! are one room: what they share may stand in the module's own file, and naming that is no circle.

use super::tokens::{Token, is_word};
use std::collections::{BTreeMap, BTreeSet};

/// The files by their modules (`["pipeline", "line"]`), with their tokens.
pub(crate) type Sources<'a> = BTreeMap<Vec<&'a str>, Vec<Token<'a>>>;

/// Where each file's paths lead: another file, and the names that are taken from it.
type Arrows<'a> = BTreeMap<Vec<&'a str>, BTreeMap<Vec<&'a str>, BTreeSet<&'a str>>>;

/// A path of the code, from the crate's root on, and the name that it is known by where it stands.
struct Named<'a> {
    path: Vec<&'a str>,
    name: &'a str,
    /// It stands in a `use`, so that others can take the name from here.
    is_handed_on: bool,
}

/// Each circle, with what ties its files.
pub(crate) fn circles(sources: &Sources<'_>) -> Vec<String> {
    let named: BTreeMap<_, _> =
        sources.iter().map(|(file, tokens)| (file, named(sources, file, tokens))).collect();
    let mut arrows = Arrows::new();
    for (file, paths) in &named {
        for path in paths {
            let (there, name) = resolve(&named, &path.path, 0);
            let is_one_room = there.starts_with(file) || file.starts_with(&there);
            if !is_one_room {
                arrows.entry((*file).clone()).or_default().entry(there).or_default().insert(name);
            }
        }
    }
    let reached: BTreeMap<_, _> = arrows.keys().map(|file| (file, reached(&arrows, file))).collect();
    let mut circles = BTreeSet::new();
    for (file, all) in &reached {
        if all.contains(*file) {
            let back = |other: &&Vec<&str>| reached.get(other).is_some_and(|all| all.contains(*file));
            circles.insert(all.iter().filter(back).cloned().collect::<Vec<_>>());
        }
    }
    circles.into_iter().map(|circle| drawn(&arrows, &circle)).collect()
}

fn drawn(arrows: &Arrows<'_>, circle: &[Vec<&str>]) -> String {
    let mut text = String::from("files that name each other all the way round:");
    for file in circle {
        for (there, names) in arrows[file].iter().filter(|(there, _)| circle.contains(there)) {
            let names = names.iter().copied().collect::<Vec<_>>().join(", ");
            text += &format!("\n    {}.rs takes {names} of {}.rs", file.join("/"), there.join("/"));
        }
    }
    text + "\n    help: move what both need to the lower one, or to a file of its own below both"
}

/// The files that can be reached from one, by one arrow or more.
fn reached<'a>(arrows: &Arrows<'a>, from: &Vec<&'a str>) -> BTreeSet<Vec<&'a str>> {
    let mut all = BTreeSet::new();
    let mut next = vec![from];
    while let Some(file) = next.pop() {
        let there = arrows.get(file).into_iter().flat_map(BTreeMap::keys);
        next.extend(there.filter(|file| all.insert((*file).clone())));
    }
    all
}

/// The file that a path leads to, and the name that is taken from it.
fn resolve<'a>(
    named: &BTreeMap<&Vec<&'a str>, Vec<Named<'a>>>,
    path: &[&'a str],
    depth: usize,
) -> (Vec<&'a str>, &'a str) {
    let length =
        (0..=path.len()).rev().find(|length| *length == 0 || named.contains_key(&path[..*length].to_vec()));
    let (file, rest) = path.split_at(length.unwrap_or(0));
    let Some(name) = rest.first() else { return (file.to_vec(), "itself") };
    let handed = named.get(&file.to_vec()).and_then(|paths| {
        paths.iter().find(|each| each.is_handed_on && each.name == *name && each.path != path)
    });
    match handed {
        // A name that is handed round in a ring leads nowhere.
        Some(handed) if depth < 8 => resolve(named, &handed.path, depth + 1),
        _ => (file.to_vec(), name),
    }
}

/// The paths of a file into the house.
fn named<'a>(sources: &Sources<'a>, file: &[&'a str], tokens: &[Token<'a>]) -> Vec<Named<'a>> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let before = at.checked_sub(1).map_or("", |at| tokens[at].text);
        let is_path = tokens.get(at + 1).is_some_and(|token| token.text == "::") && before != "::";
        let text = tokens[at].text;
        let child: Vec<&str> = file.iter().copied().chain([text]).collect();
        let start = match text {
            "crate" | "tidemill" if is_path => Some(Vec::new()),
            "self" if is_path => Some(file.to_vec()),
            "super" if is_path => {
                let mut up = 1;
                while tokens.get(at + 2).is_some_and(|token| token.text == "super") {
                    (up, at) = (up + 1, at + 2);
                }
                Some(file[..file.len().saturating_sub(up)].to_vec())
            }
            _ if before == "use" && is_path && sources.contains_key(&child) => Some(child),
            _ => None,
        };
        at += 1;
        if let Some(mut start) = start {
            at += 1;
            leaves(tokens, &mut at, &mut start, before == "use", &mut all);
        }
    }
    all
}

/// Adds the paths that a tree such as `a::{b, c as d}` has, each behind `prefix`.
fn leaves<'a>(
    tokens: &[Token<'a>],
    at: &mut usize,
    prefix: &mut Vec<&'a str>,
    is_handed_on: bool,
    all: &mut Vec<Named<'a>>,
) {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    if text(*at) == "{" {
        *at += 1;
        while !matches!(text(*at), "}" | "") {
            let length = prefix.len();
            leaves(tokens, at, prefix, is_handed_on, all);
            prefix.truncate(length);
            *at += usize::from(text(*at) == ",");
        }
        *at += 1;
        return;
    }
    let Some(token) = tokens.get(*at) else { return };
    *at += 1;
    if !is_word(*token) {
        all.push(Named { path: prefix.clone(), name: "*", is_handed_on: false });
        return;
    }
    if token.text != "self" {
        prefix.push(token.text);
    }
    if text(*at) == "::" && text(*at + 1) != "<" {
        *at += 1;
        return leaves(tokens, at, prefix, is_handed_on, all);
    }
    let mut name = prefix.last().copied().unwrap_or_default();
    if text(*at) == "as" {
        name = text(*at + 1);
        *at += 2;
    }
    all.push(Named { path: prefix.clone(), name, is_handed_on });
}
