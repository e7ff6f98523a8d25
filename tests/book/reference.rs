//! Commands, metrics and paths, as the program has them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use tidemill_tests::host::{Folder, binary};
use tidemill_tests::{plugin, prometheus, root};

/// What stands before the part of a page that is written.
const MARK: &str = "<!-- From here on written by";

/// Compares what follows the mark of a page, or writes it.
#[track_caller]
fn is_written(page: &str, written: &str) {
    let path = root().join("docs").join(page);
    let old = fs::read_to_string(&path).unwrap();
    let (before, rest) = old.split_once(MARK).unwrap_or_else(|| panic!("docs/{page} has no mark"));
    let (mark, _) = rest.split_once("-->\n").unwrap();
    let new = format!("{before}{MARK}{mark}-->\n\n{written}");
    if std::env::var_os("GOLDEN").is_some_and(|golden| golden == "write") {
        fs::write(path, new).unwrap();
    } else {
        assert_eq!(old, new, "docs/{page}: GOLDEN=write cargo test --workspace --test book");
    }
}

/// What a command says of itself and its subcommands.
fn helped(command: &[&str], page: &mut String) {
    let mut help = Command::new(binary());
    help.args(&command[1..]).arg("--help").env_remove("TIDEMILL_ADMIN").env_remove("TIDEMILL_TOKEN");
    let output = help.output().unwrap();
    assert!(output.status.success(), "{command:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let heading = "#".repeat(command.len().min(2) + usize::from(command.len() > 2));
    let text_lines: Vec<_> = text.trim_end().lines().map(str::trim_end).collect();
    page.push_str(&format!(
        "{}{heading} `{}`\n\n",
        if page.is_empty() { "" } else { "\n" },
        command.join(" ")
    ));
    page.push_str(&format!("```text\n{}\n```\n", text_lines.join("\n")));
    let listed = text.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    let listed = listed.lines().take_while(|line| !line.is_empty());
    let names =
        listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    for name in names.filter(|name| *name != "help") {
        helped(&[command, &[name]].concat(), page);
    }
}

#[test]
fn the_page_of_commands_is_what_they_print() {
    let mut page = String::new();
    helped(&["tidemill"], &mut page);
    is_written("commands.md", &page.replacen("# `tidemill`", "## `tidemill`", 1));
}

/// A row of the page of metrics: what type it is of, its labels, and what it counts.
struct Row {
    kind: String,
    labels: String,
    counts: String,
}

fn rows_of_metrics() -> BTreeMap<String, Row> {
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `tidemill_")?.strip_suffix(" |"));
    let rows = rows.map(|row| {
        let mut cells = row.split(" | ").map(str::to_owned);
        let mut next = || cells.next().unwrap_or_else(|| panic!("docs/metrics.md: {row}"));
        (next().trim_end_matches('`').to_owned(), Row { kind: next(), labels: next(), counts: next() })
    });
    rows.collect()
}

/// What of the host declares metrics, without line breaks.
fn declarations() -> String {
    let files = ["accounts", "handshakes", "metrics"];
    let text =
        files.map(|file| fs::read_to_string(root().join(format!("host/src/telemetry/{file}.rs"))).unwrap());
    text.concat().split_whitespace().collect::<Vec<_>>().join(" ").replace("( r,", "(r,")
}

#[test]
fn the_page_of_metrics_has_each_that_is_declared_and_is_true_of_a_host_that_runs() {
    let rows = rows_of_metrics();
    let declared = declarations();
    for (name, row) in &rows {
        let name = name.strip_suffix("_total").unwrap_or(name);
        assert!(declared.contains(&format!("\"{name}\"")), "docs/metrics.md: no metric is called {name}");
        assert!(
            declared.contains(&format!("\"{}\"", row.counts)),
            "docs/metrics.md: {name} counts {}",
            row.counts
        );
    }
    let names = declared.split("(r, \"").chain(declared.split("Shown { name: \"")).skip(1);
    for name in names.filter_map(|rest| rest.split('"').next()).filter(|name| !name.contains(' ')) {
        let is_told = rows.contains_key(name) || rows.contains_key(&format!("{name}_total"));
        assert!(is_told, "docs/metrics.md lacks {name}");
    }

    let folder = Folder::default();
    folder.install("filter", &plugin("filter"));
    let host = folder.run(
        r#"
        [server]
        port = 0
        [[pipelines]]
        name = "p"
        source = { type = "websocket", mode = "server", path = "/in" }
        transforms = [{ plugin = "filter", instances = 2 }]
        sinks = [{ type = "websocket", mode = "server", path = "/out" }, { type = "stdout" }]
        "#,
    );
    let text =
        host.wait_until("it runs", |now| now.count("tidemill_pipelines", &["state=\"running\""]) == 1).text;
    let row = |family: &str| {
        let name = family.strip_prefix("tidemill_").unwrap_or(family);
        let row = rows.get(name).or_else(|| rows.get(&format!("{name}_total")));
        row.unwrap_or_else(|| panic!("docs/metrics.md lacks {family}"))
    };
    for (family, counts) in text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' ')) {
        let kind = text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {family} "))).unwrap();
        assert_eq!(
            (&*row(family).kind, &*row(family).counts),
            (kind, counts.trim_end_matches('.')),
            "{family}"
        );
    }
    let mut seen = 0;
    for sample in prometheus::parse(&text).unwrap() {
        let ends = ["_total", "_bucket", "_sum", "_count"];
        let family = ends.iter().find_map(|end| sample.name.strip_suffix(end)).unwrap_or(sample.name);
        for (label, _) in sample.labels.iter().filter(|(label, _)| *label != "le") {
            assert!(
                row(family).labels.contains(&format!("`{label}`")),
                "docs/metrics.md: {family} has {label}"
            );
            seen += 1;
        }
    }
    assert!(seen > 50, "{text}");
}

#[test]
fn the_page_of_the_api_has_every_path_and_method_that_a_host_takes() {
    const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "PATCH"];
    let page = fs::read_to_string(root().join("docs/api.md")).unwrap();
    let requests =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | ")?.0.split_once(' '));
    let requests: BTreeSet<(&str, &str)> = requests.collect();
    let source = fs::read_to_string(root().join("host/src/admin.rs")).unwrap();
    let paths: BTreeSet<&str> =
        source.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(paths.len() > 10, "{paths:?}");
    let told: BTreeSet<&str> = requests.iter().map(|(_, path)| *path).collect();
    assert_eq!(told, paths, "docs/api.md and host/src/admin.rs");

    let folder = Folder::default();
    let host = folder.run("");
    for path in paths {
        let asked = path.replace(['{', '}'], "");
        for method in METHODS {
            let (status, answer) = host.ask(method, &asked, &[], "");
            let is_taken = status != 405 && !answer.contains("no such path");
            assert_eq!(is_taken, requests.contains(&(method, path)), "{method} {path}: {status} {answer}");
        }
    }
}
