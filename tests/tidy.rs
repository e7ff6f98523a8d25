//! The house rules that no compiler checks, checked by reading the sources of `host/src`.
//!
//! A module names only modules of lower layers, and no files name each other all the way round; one module
//! alone opens each door (wasmtime, the WebSocket stack, ...); nothing is unbounded, printed or left running;
//! files are named for what they are. The links of the documentation lead somewhere. What a rule says and what helps is in its message. Test code is free of
//! them.

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/links.rs"]
mod links;
#[path = "tidy/tokens.rs"]
mod tokens;
#[path = "tidy/types.rs"]
mod types;

use circles::{Sources, circles};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tokens::{Token, is_word, tokens};
use types::namesakes;

/// The modules of the host and their layers.
const LAYERS: [(&str, u8); 34] = [
    ("builtin", 0),
    ("copying", 0),
    ("file_watch", 0),
    ("foreign_text", 0),
    ("generation", 0),
    ("interrupt", 0),
    ("reason", 0),
    ("shutdown", 0),
    ("verdict", 0),
    ("wait_budget", 0),
    ("config", 1),
    ("access", 2),
    ("backoff", 2),
    ("message", 2),
    ("packing", 2),
    ("plugin_folder", 2),
    ("telemetry", 2),
    ("connections", 3),
    ("dead_letters", 3),
    ("plugin", 3),
    ("plugin_history", 3),
    ("recording", 3),
    ("store", 3),
    ("control", 4),
    ("websocket", 4),
    ("connector", 5),
    ("http_client", 5),
    ("sink", 5),
    ("source", 5),
    ("admin", 6),
    ("pipeline", 6),
    ("app", 7),
    ("cli", 8),
    ("main", 9),
];

/// Libraries that only these modules name: a change of the library ends there.
const DOORS: [(&str, &[&str]); 20] = [
    ("wasmparser", &["plugin"]),
    ("wasmtime", &["plugin"]),
    ("wasmtime_wasi", &["plugin"]),
    ("tokio_tungstenite", &["websocket"]),
    ("tungstenite", &["websocket"]),
    ("hyper", &["admin", "http_client", "websocket"]),
    ("hyper_util", &["admin", "http_client", "websocket"]),
    ("http_body_util", &["admin", "http_client", "websocket"]),
    ("rustls", &["websocket"]),
    ("tokio_rustls", &["websocket"]),
    ("rustls_native_certs", &["websocket"]),
    ("libc", &["websocket"]),
    ("axum", &["admin"]),
    ("notify", &["file_watch", "plugin_folder"]),
    ("prometheus_client", &["telemetry"]),
    ("clap", &["cli", "main"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("redb", &["store"]),
    ("rustc_demangle", &["plugin"]),
];

/// Where JSON and the configuration enter or leave: modules, and files of others.
const EDGES: [&str; 6] = ["admin", "cli", "config", "dead_letters", "recording", "telemetry/status"];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 9] =
    ["mod", "util", "utils", "common", "helper", "helpers", "manager", "misc", "shared"];

/// Most lines of code in a file, blank ones, comments and tests aside.
const MOST_LINES: usize = 500;

#[test]
fn the_host_keeps_its_house_rules() {
    let files = files();
    let files = || files.iter().map(|(path, source)| (&**path, &**source));
    let mut broken: Vec<_> = files().flat_map(|(path, source)| check(path, source)).collect();
    broken.extend(namesakes(&sources(files())));
    broken.extend(circles(&sources(files())));
    assert!(broken.is_empty(), "{} house rules are broken:\n\n{}\n", broken.len(), broken.join("\n\n"));
}

#[test]
fn every_link_of_the_documentation_leads_somewhere_and_every_page_is_in_the_book() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let broken: Vec<_> = links::pages(root).iter().flat_map(|page| links::broken(page)).collect();
    assert!(broken.is_empty(), "{} links lead nowhere:\n{}", broken.len(), broken.join("\n"));
    let left_out = links::left_out_of_the_book(&root.join("docs"));
    assert!(left_out.is_empty(), "docs/SUMMARY.md lacks {left_out:?}");
}

#[test]
fn the_versions_that_are_told_are_those_that_are_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let wit = fs::read_to_string(root.join("wit/transform.wit")).unwrap();
    assert!(wit.contains(&format!("package tidemill:plugin@{};", tidemill::plugin::CONTRACT_VERSION)));
    let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap();
    let wasmtime = format!("name = \"wasmtime\"\nversion = \"{}\"\n", tidemill::plugin::WASMTIME_VERSION);
    assert!(lock.contains(&wasmtime));
}

/// What a crate needs beside its sources stands in its folder as a link, so that its package has it.
#[test]
fn what_is_published_needs_nothing_outside_of_its_package() {
    const WIT: &str = "wit/transform.wit";
    for (name, folder, own) in [
        ("tidemill", "host", &[WIT][..]),
        ("tidemill-json", "plugin-sdk/json", &[]),
        ("tidemill-authoring", "plugin-sdk/authoring", &["sdk/workspace.toml", "sdk/rust/wit/transform.wit"]),
        ("tidemill-component", "plugin-sdk/component", &[WIT]),
        ("tidemill-plugin", "plugin-sdk/rust", &[WIT]),
    ] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
        let mut list = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        list.current_dir(&folder).args(["package", "--list", "--allow-dirty", "--offline"]);
        let output = list.output().unwrap();
        let files = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        for &file in ["Cargo.toml", "LICENSE", "README.md", "src/lib.rs"].iter().chain(own) {
            assert!(files.lines().any(|line| line == file), "{name} lacks {file}: {files}{errors}");
        }
        let mut sources = Vec::new();
        collect(&folder.join("src"), &mut sources);
        for source in sources {
            let depth = source.strip_prefix(&folder).unwrap().components().count() - 1;
            let text = fs::read_to_string(&source).unwrap();
            for path in text.split("include_str!(\"").chain(text.split("include_bytes!(\"")).skip(1) {
                let up = path.split('"').next().unwrap_or_default().matches("../").count();
                assert!(up <= depth, "{} leaves its crate: {path:.60}", source.display());
            }
        }
    }
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml")).unwrap();
    let (_, section) = manifest.split_once("[workspace.dependencies]\n").expect("the section is there");
    let section = section.split("\n[").next().unwrap_or_default();
    let mut before = "";
    for line in section.lines() {
        let silent = !line.is_empty() && !line.starts_with('#') && !before.starts_with('#');
        assert!(!silent, "Cargo.toml: say above this dependency in one line what it is for:\n{line}");
        before = line;
    }
}

/// The files of `host/src`: paths, relative to it, and sources.
fn files() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    assert!(paths.len() > 10, "the sources of the host should be at {}", root.display());
    paths.sort();
    let read = |path: &PathBuf| {
        let name =
            path.strip_prefix(&root).expect("it was found there").to_str().expect("file names are UTF-8");
        (name.to_owned(), fs::read_to_string(path).expect("it can be read"))
    };
    paths.iter().map(read).collect()
}

/// The files but those of tests, read for what they name.
fn sources<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Sources<'a> {
    let sources = files.map(|(path, source)| (modules(path), tokens(source)));
    sources.filter(|(modules, _)| !modules.contains(&"tests")).collect()
}

/// `["pipeline", "line"]` for `pipeline/line.rs`.
fn modules(path: &str) -> Vec<&str> {
    path.trim_end_matches(".rs").split('/').collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be listed") {
        let path = entry.expect("the folder can be listed").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The rules that a file of `host/src` breaks, with the line, the rule and what helps.
fn check(path: &str, source: &str) -> Vec<String> {
    let mut file = File { path, modules: modules(path), broken: Vec::new() };
    file.check_name();
    if !source.starts_with("//! ") {
        file.broke(1, "a file begins with a `//!` header", "say in 2 to 8 lines what it owns and never does");
    }
    if !file.modules.contains(&"tests") {
        let tokens = tokens(source);
        file.check_length(&tokens);
        file.check_layers(&tokens);
        file.check_doors(&tokens);
        file.check_edges(&tokens);
        file.check_calls(&tokens);
    }
    file.broken
}

struct File<'a> {
    /// Relative to `host/src`.
    path: &'a str,
    /// `["pipeline", "line"]` for `pipeline/line.rs`.
    modules: Vec<&'a str>,
    broken: Vec<String>,
}

impl File<'_> {
    fn broke(&mut self, line: usize, rule: &str, help: &str) {
        let text = format!("host/src/{}:{line}: {rule}\n    help: {help}", self.path);
        if !self.broken.contains(&text) {
            self.broken.push(text);
        }
    }

    /// The module of the top level that the file belongs to.
    fn module(&self) -> &str {
        self.modules[0]
    }

    fn check_name(&mut self) {
        if let Some(name) = EMPTY_NAMES.iter().find(|name| self.modules.contains(name)) {
            let rule = format!("a file named `{name}` does not say what is in it");
            self.broke(1, &rule, "name it for what it owns; the file of a folder stands beside it");
        }
        let known = self.module() == "lib" || layer(self.module()).is_some();
        if !known {
            let rule = format!("the module `{}` stands in no layer", self.module());
            self.broke(1, &rule, "put it under a module, or into LAYERS here and the map in ARCHITECTURE.md");
        }
    }

    fn check_length(&mut self, tokens: &[Token<'_>]) {
        let lines = tokens.iter().map(|token| token.line).collect::<BTreeSet<_>>().len();
        if lines > MOST_LINES {
            let rule = format!("{lines} lines of code in one file, and {MOST_LINES} are the most");
            self.broke(1, &rule, "it owns more than one thing: give the second a file of its own");
        }
    }

    fn check_layers(&mut self, tokens: &[Token<'_>]) {
        let Some(own) = layer(self.module()) else { return };
        for (line, named) in self.named(tokens) {
            let module = self.module();
            if named == module {
                continue;
            }
            let Some(other) = layer(named) else {
                let rule = format!("`{module}` names `{named}`, which stands in no layer");
                self.broke(line, &rule, "name what the crate's root has; or put the module into LAYERS");
                continue;
            };
            if other > own {
                let rule = format!("`{module}` (layer {own}) names `{named}` (layer {other})");
                self.broke(line, &rule, "a lower layer never names a higher one: pass in what it needs");
            } else if other == own {
                let rule = format!("`{module}` names its neighbour `{named}` (both layer {own})");
                self.broke(
                    line,
                    &rule,
                    "move what they share to a lower layer, or let a higher one connect them",
                );
            }
        }
    }

    /// The modules of the top level that the code names, with the lines.
    fn named<'t>(&self, tokens: &[Token<'t>]) -> Vec<(usize, &'t str)> {
        let mut named = Vec::new();
        for (at, token) in tokens.iter().enumerate() {
            let goes_on = |at: usize| tokens.get(at).is_some_and(|token| token.text == "::");
            if at > 0 && goes_on(at - 1) || !goes_on(at + 1) {
                continue;
            }
            let mut at = at + 2;
            match token.text {
                "crate" | "tidemill" => {}
                "super" => {
                    let mut up = 1;
                    while tokens.get(at).is_some_and(|token| token.text == "super") {
                        up += 1;
                        at += 2;
                    }
                    if up < self.modules.len() {
                        continue;
                    }
                }
                _ => continue,
            }
            named.extend(heads(&tokens[at.min(tokens.len())..]));
        }
        // Types and macros at the root are no modules.
        named.retain(|(_, name)| name.starts_with(|c: char| c.is_lowercase()));
        named
    }

    fn check_doors(&mut self, tokens: &[Token<'_>]) {
        for (at, token) in tokens.iter().enumerate() {
            let Some((library, modules)) = DOORS.iter().find(|(library, _)| *library == token.text) else {
                continue;
            };
            let before = at.checked_sub(1).map_or("", |at| tokens[at].text);
            let after = tokens.get(at + 1).map_or("", |token| token.text);
            // `::hyper` is the library; `x::hyper` is something of x.
            let inner = before == "::" && at > 1 && is_word(tokens[at - 2]) && tokens[at - 2].text != "use";
            let is_path = before == "use" || after == "::" && !inner;
            if is_path && !modules.contains(&self.module()) {
                let rule =
                    format!("`{}` names {library}, and only `{}` may", self.module(), modules.join("`, `"));
                self.broke(token.line, &rule, "use the types that module gives out, or let it give out more");
            }
        }
    }

    fn check_edges(&mut self, tokens: &[Token<'_>]) {
        let stem = self.modules.join("/");
        if EDGES.iter().any(|edge| stem == *edge || stem.starts_with(&format!("{edge}/"))) {
            return;
        }
        if let Some(token) = tokens.iter().find(|token| matches!(token.text, "Serialize" | "Deserialize")) {
            let rule = format!("`{}` away from the edges of configuration and JSON", token.text);
            self.broke(
                token.line,
                &rule,
                "convert at the edge, from or to a type of the edge's own; or add to EDGES",
            );
        }
    }

    fn check_calls(&mut self, tokens: &[Token<'_>]) {
        let may_print = matches!(self.module(), "cli" | "main");
        for (at, token) in tokens.iter().enumerate() {
            let next = |ahead: usize| tokens.get(at + ahead).map_or("", |token| token.text);
            let (rule, help) = match token.text {
                "unbounded_channel" | "unbounded" | "UnboundedSender" | "UnboundedReceiver" => {
                    ("a channel without a bound", "give it one, and say who waits when it is full")
                }
                "mpsc" if next(2) == "channel" && next(4) == ")" => {
                    ("a channel without a bound", "use `sync_channel`, and say who waits when it is full")
                }
                "println" | "eprintln" | "print" | "eprint" | "dbg" if next(1) == "!" && !may_print => {
                    ("library code prints", "log through `tracing`, or return what `cli` is to print")
                }
                "process" if next(2) == "exit" && !may_print => {
                    ("library code ends the process", "return an error; `main` alone exits")
                }
                "tokio" | "task" | "thread"
                    if next(1) == "::" && next(2).starts_with("spawn") && is_thrown_away(&tokens[..at]) =>
                {
                    ("nobody awaits what is spawned", "keep the handle, and await it at the end")
                }
                _ => continue,
            };
            self.broke(token.line, rule, help);
        }
    }
}

/// Whether what comes next is a statement of its own, or is assigned to `_`; `before` may end in
/// the beginning of its path.
fn is_thrown_away(before: &[Token<'_>]) -> bool {
    match before {
        [start @ .., module, colons] if colons.text == "::" && is_word(*module) => is_thrown_away(start),
        [.., name, equals] if equals.text == "=" => name.text == "_",
        [.., last] => matches!(last.text, ";" | "{" | "}"),
        [] => true,
    }
}

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// The first names of a path's rest: `a` of `a::b`, `a` and `b` of `{a::{c, d}, b}`.
fn heads<'t>(tokens: &[Token<'t>]) -> Vec<(usize, &'t str)> {
    let [first, rest @ ..] = tokens else { return Vec::new() };
    if first.text != "{" {
        return vec![(first.line, first.text)];
    }
    let mut heads = Vec::new();
    let (mut depth, mut before) = (1, "{");
    for token in rest {
        match token.text {
            "{" => depth += 1,
            "}" => depth -= 1,
            name if depth == 1 && matches!(before, "{" | ",") => heads.push((token.line, name)),
            _ => {}
        }
        if depth == 0 {
            break;
        }
        before = token.text;
    }
    heads
}

/// The checker must find what is wrong, and nothing else: made-up files.
mod checker {
    use super::{LAYERS, MOST_LINES, check, circles, namesakes, sources};

    #[track_caller]
    fn finds(path: &str, code: &str, wanted: &[&str]) {
        let broken = check(path, &format!("//! A file.\n{code}"));
        assert_eq!(broken.len(), wanted.len(), "{broken:#?}");
        for (broken, wanted) in broken.iter().zip(wanted) {
            assert!(broken.starts_with(&format!("host/src/{path}:{wanted}")), "{wanted}: {broken:#?}");
        }
    }

    #[test]
    fn a_lower_layer_names_no_higher_one() {
        let wanted = ["2: `websocket` (layer 4) names `source` (layer 5)"];
        finds("websocket/accept.rs", "use crate::source::Fill;", &wanted);
        finds("websocket/accept.rs", "use crate::{config, source};", &wanted);
        finds("websocket/accept.rs", "use crate::{config::{Client, Ping}, source::{Fill}};", &wanted);
        finds("websocket/accept.rs", "use super::super::source::Fill;", &wanted);
        finds("websocket/accept.rs", "fn f() -> crate::source::Fill { g() }", &wanted);
        finds("websocket.rs", "use super::source;", &wanted);
        finds("config.rs", "\nuse crate::{\n    cli,\n};", &["4: `config` (layer 1) names `cli` (layer 8)"]);
    }

    #[test]
    fn modules_of_one_layer_do_not_name_each_other() {
        finds("source/websocket.rs", "use crate::sink::Sink;", &["2: `source` names its neighbour `sink`"]);
        finds("admin.rs", "use crate::pipeline::Line;", &["2: `admin` names its neighbour `pipeline`"]);
        finds("pipeline/line.rs", "use crate::{sink, source};", &[]);
    }

    #[test]
    fn files_that_name_each_other_all_the_way_round_are_found() {
        let found = |files: &[(&'static str, &'static str)]| circles(&sources(files.iter().copied()));
        let hands_on = ("a.rs", "mod x; mod y; pub use x::X; use y::{self, Y as Z};");
        for (x, y) in [
            ("use super::y::Y;", "use super::x::X;"),
            ("use crate::a::y;", "use crate::a::X;"),
            ("fn f() -> super::y::Y { g() }", "use super::{A, X};"),
            ("use super::Z;", "use crate::{a::{X}, b};"),
        ] {
            let circles = found(&[hands_on, ("a/x.rs", x), ("a/y.rs", y), ("b.rs", "")]);
            assert_eq!(circles.len(), 1, "{x} {y}");
            assert!(circles[0].contains("a/x.rs takes ") && circles[0].contains("a/y.rs takes X of a/x.rs"));
        }
        let round =
            [("a/x.rs", "use super::y::Y;"), ("a/y.rs", "use crate::b::B;"), ("b.rs", "use crate::a::X;")];
        assert_eq!(found(&[hands_on, round[0], round[1], round[2]]).len(), 1);
        for y in [
            "",
            "use super::{A, Z};",
            "use super::y::x::X;",
            "#[cfg(test)] mod tests { use super::super::X; }",
        ] {
            let x = "use super::y::Y; fn f() { Self::y::<super::A>() }";
            assert_eq!(found(&[hands_on, ("a/x.rs", x), ("a/y.rs", y)]), [""; 0], "{y}");
        }
    }

    #[test]
    fn a_name_is_that_of_one_type() {
        let found = |files: &[(&'static str, &'static str)]| namesakes(&sources(files.iter().copied()));
        for other in
            ["pub enum A { B }", "table! { struct A / B {} }", "trait A {}", "mod x { pub type A = B; }"]
        {
            let found = found(&[("a.rs", "struct A;"), ("b/c.rs", other)]);
            assert_eq!(found.len(), 1, "{other}");
            assert!(found[0].starts_with("two types are called `A`: a.rs:1, b/c.rs:1"), "{found:#?}");
        }
        let others = "impl X for Y { type A = B; } trait T { type A; } fn f() { r#struct(); A {} } use b::A;";
        assert_eq!(found(&[("a.rs", "struct A;"), ("b.rs", others), ("b/tests.rs", "struct A;")]), [""; 0]);
    }

    #[test]
    fn what_is_allowed_is_not_found() {
        finds("websocket/accept.rs", "use super::peer;\nuse self::x::y;\nuse crate::websocket::z;", &[]);
        finds(
            "websocket/accept.rs",
            "// crate::app\n/* crate::app /* */ */ const A: &str = \"crate::app\";",
            &[],
        );
        finds(
            "websocket/accept.rs",
            "const A: &str = r#\"\"crate::app\"#; fn f<'a>(c: char) { c == '\"' }",
            &[],
        );
        finds(
            "websocket/accept.rs",
            "#[cfg(test)]\nmod tests { use crate::app; fn f() { println!(); } }",
            &[],
        );
        finds("plugin_folder/tests.rs", "use crate::app; fn f() { println!(); }", &[]);
        finds("main.rs", "use tidemill::app; fn main() { std::process::exit(1) }", &[]);
        finds(
            "app.rs",
            "fn f() { let task = tokio::spawn(g()); set.spawn(h()); let (a, b) = mpsc::channel(8); }",
            &[],
        );
        finds("sink.rs", "fn f() { self.notify(); tokio::sync::notify::x(); }", &[]);
        finds("config/file.rs", "#[derive(Deserialize)] struct A;", &[]);
    }

    #[test]
    fn code_after_tests_and_literals_is_read_on() {
        let wanted = ["2: `config` (layer 1) names `app` (layer 7)"];
        finds("config.rs", "#[cfg(test)] use x::y; use crate::app;", &wanted);
        finds("config.rs", "#[cfg(test)] mod t { fn f() {} } use crate::app;", &wanted);
        finds("config.rs", "const Q: char = '\\''; const S: &str = \"\\\"\"; use crate::app;", &wanted);
        finds("config.rs", "fn f<'a>(b: &'a [u8]) { b == b\"\\\\\" } use crate::app;", &wanted);
    }

    #[test]
    fn each_door_is_opened_by_one_module() {
        finds(
            "pipeline/stage.rs",
            "use wasmtime::Store;",
            &["2: `pipeline` names wasmtime, and only `plugin` may"],
        );
        finds(
            "sink/websocket.rs",
            "fn f(s: tokio_tungstenite::X) {}",
            &["2: `sink` names tokio_tungstenite"],
        );
        finds("app.rs", "use ::hyper::body;", &["2: `app` names hyper"]);
        finds("cli.rs", "use axum;", &["2: `cli` names axum"]);
    }

    #[test]
    fn the_other_rules_are_checked() {
        finds("sink/file.rs", "use tokio::sync::mpsc::unbounded_channel;", &["2: a channel without a bound"]);
        finds("sink/file.rs", "fn f() { let (a, b) = mpsc::channel(); }", &["2: a channel without a bound"]);
        finds("sink/file.rs", "fn f() { println!(\"\"); }", &["2: library code prints"]);
        finds("sink/file.rs", "fn f() { std::process::exit(1) }", &["2: library code ends the process"]);
        finds("sink/file.rs", "fn f() {\n    tokio::spawn(g());\n}", &["3: nobody awaits what is spawned"]);
        finds(
            "sink/file.rs",
            "#[derive(Clone, Serialize)] struct A;",
            &["2: `Serialize` away from the edges"],
        );
        finds("sink/util.rs", "", &["1: a file named `util`"]);
        finds("sink/mod.rs", "", &["1: a file named `mod`"]);
        finds("gadgets.rs", "", &["1: the module `gadgets` stands in no layer"]);
        finds(
            "sink.rs",
            "use crate::gadgets::Gadget;",
            &["2: `sink` names `gadgets`, which stands in no layer"],
        );
        assert_eq!(check("sink.rs", "use std::fs;").len(), 1, "a file without a header");
        finds("sink.rs", &"fn f() {}\n".repeat(MOST_LINES), &[]);
        finds("sink.rs", &"fn f() {}\n".repeat(MOST_LINES + 1), &["1: 501 lines of code in one file"]);
        assert!(LAYERS.is_sorted_by_key(|(name, layer)| (*layer, *name)));
    }
}
