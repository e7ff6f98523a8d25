//! Configurations of which one part undoes another: whatever was meant, some of it would be lost without a word.
//!
//! What steps do in their order and is of use stays: to set what is renamed, to drop a part of what is picked.

use crate::Steps;
use crate::tree::Path;
use tidemill_plugin::Result;

/// Values that `omit_empty` takes away wherever they are, as JSON.
const EMPTY: [&str; 3] = ["null", "\"\"", "[]"];

/// Looks for two steps of which one undoes the other.
///
/// # Errors
/// There are such; the text names both.
pub(crate) fn refuse(steps: &Steps) -> Result {
    let pairs = of_computed(steps).or_else(|| of_renamed(steps)).or_else(|| of_put(steps));
    match pairs.or_else(|| of_dropped(steps)) {
        None => Ok(()),
        Some((one, other)) => Err(format!("{one}, and {other}: leave one out").into()),
    }
}

/// What one step does, and what another does about it.
type Pair = (String, String);

/// Among what is computed and set, which is set over it.
fn of_computed(steps: &Steps) -> Option<Pair> {
    for (nth, (path, _)) in steps.compute.iter().enumerate() {
        let later = steps.compute[nth + 1..].iter().find(|(other, _)| path.crosses(other));
        if let Some((other, _)) = later {
            return Some((sets("compute", path), format!("a number has no {other}")));
        }
        if let Some((other, _)) = steps.set.iter().find(|(other, _)| path == other || path.crosses(other)) {
            return Some((sets("compute", path), sets("set", other)));
        }
    }
    for (path, json) in &steps.set {
        let is_inside = |(other, _): &&(Path, String)| path != other && path.has(other);
        if !json.starts_with(['{', '['])
            && let Some((other, _)) = steps.set.iter().find(is_inside)
        {
            return Some((sets("set", path), format!("what it sets {path} to has no {other}")));
        }
        if steps.omit_empty && EMPTY.contains(&json.as_str()) && !is_moved(steps, path) {
            return Some((
                format!("`set` sets {path} to {json}"),
                "`omit_empty` takes what is empty away".into(),
            ));
        }
    }
    None
}

/// Among what is renamed, of which all is taken before anything is put.
fn of_renamed(steps: &Steps) -> Option<Pair> {
    for (nth, (from, to)) in steps.rename.iter().enumerate() {
        for (other_from, other_to) in &steps.rename[nth + 1..] {
            let pair = (format!("`rename` turns {from} into {to}"), format!("{other_from} into {other_to}"));
            if from.crosses(other_from) || to == other_to || to.crosses(other_to) {
                return Some(pair);
            }
        }
    }
    None
}

/// What is put somewhere and does not stay there.
fn of_put(steps: &Steps) -> Option<Pair> {
    let computed = steps.compute.iter().map(|(path, _)| (sets("compute", path), path));
    let set = steps.set.iter().map(|(path, _)| (sets("set", path), path));
    let before = computed.chain(set).filter(|(_, path)| !is_moved(steps, path));
    let renamed = || steps.rename.iter().map(|(from, to)| (format!("`rename` turns {from} into {to}"), to));
    for (how, path) in before.clone() {
        if let Some((other, _)) = renamed().find(|(_, to)| to.has(path)) {
            return Some((how, other));
        }
    }
    for (how, path) in before.chain(renamed()) {
        if let Some(drop) = steps.drop.iter().find(|drop| drop.has(path)) {
            return Some((how, format!("`drop` takes {drop} away")));
        }
        let is_kept = steps.pick.iter().any(|pick| pick.has(path) || path.has(pick));
        if !steps.pick.is_empty() && !is_kept {
            return Some((how, "`pick` does not keep it".into()));
        }
    }
    None
}

/// What is dropped and is picked, or not there any more.
fn of_dropped(steps: &Steps) -> Option<Pair> {
    for drop in &steps.drop {
        let drops = format!("`drop` takes {drop} away");
        if let Some(pick) = steps.pick.iter().find(|pick| drop.has(pick)) {
            return Some((format!("`pick` keeps {pick}"), drops));
        }
        let is_put = steps.rename.iter().any(|(_, to)| to.has(drop));
        if let Some((from, to)) = steps.rename.iter().find(|(from, _)| from.has(drop) && !is_put) {
            return Some((
                format!("`rename` turns {from} into {to}"),
                format!("`drop` finds no {drop} any more"),
            ));
        }
    }
    None
}

/// Whether a member, something in it or what is around it gets another name.
fn is_moved(steps: &Steps, path: &Path) -> bool {
    steps.rename.iter().any(|(from, _)| from.has(path) || path.has(from))
}

fn sets(key: &str, path: &Path) -> String {
    format!("`{key}` sets {path}")
}
