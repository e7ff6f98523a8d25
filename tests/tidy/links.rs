//! Links of the documentation: each leads to a file that is there, and to a heading that the file has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold no pages of the checkout's own; templates become pages when they are filled in.
const NO_PAGES: [&str; 5] = ["target", "node_modules", "templates", "sdk", ".git"];

/// The pages of the checkout: Markdown, and what has links in its form.
pub(crate) fn pages(root: &Path) -> Vec<PathBuf> {
    let mut pages = vec![root.join("llms.txt")];
    collect(root, &mut pages);
    pages.sort();
    pages
}

fn collect(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be listed") {
        let entry = entry.expect("the folder can be listed");
        let (path, kind) = (entry.path(), entry.file_type().expect("it has a type"));
        let is_own =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| !NO_PAGES.contains(&name));
        if kind.is_dir() && is_own {
            collect(&path, pages);
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
}

/// The links of a page that lead nowhere.
pub(crate) fn broken(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let targets = links(&text).into_iter().filter(|target| !is_elsewhere(target));
    targets
        .filter(|target| !leads_somewhere(page, target))
        .map(|target| format!("{}: {target}", page.display()))
        .collect()
}

fn is_elsewhere(target: &str) -> bool {
    target.is_empty() || target.contains("://") || target.starts_with("mailto:")
}

fn leads_somewhere(page: &Path, target: &str) -> bool {
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { page.to_owned() } else { page.with_file_name("").join(file) };
    let is_there = path.exists();
    match (heading, is_there.then(|| fs::read_to_string(&path))) {
        ("", _) => is_there,
        (_, Some(Ok(text))) => headings(&text).contains(heading),
        _ => false,
    }
}

/// What stands in `](...)`, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in outside_of_code(text) {
        // A span of code has no links; what is left of it keeps the others apart.
        let prose: Vec<&str> = line.split('`').step_by(2).collect();
        for rest in prose.join("`").split("](").skip(1) {
            links.extend(rest.split(')').next().map(str::to_owned));
        }
    }
    links
}

fn outside_of_code(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence && !line.starts_with("    ")
    })
}

/// The headings of a page, as links name them.
fn headings(text: &str) -> BTreeSet<String> {
    let mut headings = BTreeSet::new();
    for line in outside_of_code(text) {
        let title = line.trim_start_matches('#');
        if title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let known = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let name: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(known)
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let taken = (1..).map(|count| format!("{name}-{count}"));
        let free = std::iter::once(name.clone()).chain(taken).find(|name| !headings.contains(name));
        headings.extend(free);
    }
    headings
}

/// The pages of the book's folder that its table of contents does not have.
pub(crate) fn left_out_of_the_book(docs: &Path) -> Vec<PathBuf> {
    let contents = docs.join("SUMMARY.md");
    let text = fs::read_to_string(&contents).expect("the book has a table of contents");
    let listed: BTreeSet<PathBuf> = links(&text).iter().map(|link| docs.join(link)).collect();
    let mut pages = Vec::new();
    collect(docs, &mut pages);
    pages.retain(|page| *page != contents && !listed.contains(page));
    pages
}

#[test]
fn links_and_headings_are_found_as_code_hosts_find_them() {
    let text = "# A `b` c, d-e\n## X\n## X\n[a](b.md) `[c](d)` [e `f](g)` h](i#j)\n```\n# no\n[k](l)\n```\n    [m](n)\n";
    assert_eq!(links(text), ["b.md", "i#j"]);
    let wanted = ["a-b-c-d-e", "x", "x-1"].map(str::to_owned);
    assert_eq!(headings(text), BTreeSet::from(wanted));
}
