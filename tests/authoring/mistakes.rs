//! What goes wrong while a plugin is written, and what its author is told then.

use super::{Author, text};
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;
use tidemill_tests::guest;
use tidemill_tests::host::{PATIENCE, binary};

/// What a plugin does wrong when it runs, as the first dead letter tells it.
#[track_caller]
fn fails_when_it_runs(language: &str, main: &'static str, from: &str, to: &str) -> String {
    let author = Author::new(language, main);
    author.edit(from, to);
    author.succeeds(&["plugin", "build", "fee"]);
    let mut run = Command::new(binary());
    run.current_dir(author.folder.path()).args(["plugin", "run", "fee/fee.wasm"]);
    let output = run.stdin(fs::File::open(author.path("cases/first.in.jsonl")).unwrap()).output().unwrap();
    let told = text(&output.stderr);
    let letter = told.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
    letter.unwrap_or_else(|| panic!("{told}"))["detail"].as_str().unwrap().to_owned()
}

#[test]
fn a_bigint_is_told_with_what_to_write_instead() {
    let (from, to) = ("if (notional > above) {", "if (notional > above) {\n      notional * 2n;");
    let error = fails_when_it_runs("javascript", "plugin.js", from, to);
    assert!(error.contains("write Number(x)") && error.contains("plugin.js:16"), "{error}");
}

#[test]
fn a_goroutine_that_is_left_running_is_told_with_its_line() {
    let to = "go func() { select {} }()\n\t\t\tif name";
    let error = fails_when_it_runs("go", "plugin.go", "if name", to);
    assert!(error.contains("a goroutine that Process started at plugin.go:24 still runs"), "{error}");
    assert!(error.contains("sync.WaitGroup"), "{error}");
}

#[test]
fn what_the_standard_library_cannot_do_is_told_with_what_to_ask_instead() {
    let from = "let notional = price * quantity;";
    let to = "std::time::Instant::now();\n        let notional = price * quantity;";
    let error = fails_when_it_runs("rust", "src/lib.rs", from, to);
    assert!(error.contains("not implemented on this platform") && error.contains("::clock"), "{error}");

    let author = Author::new("c", "plugin.c");
    author.edit("#include \"worth.h\"", "#include \"worth.h\"\n#include <stdio.h>");
    author.edit("double value;", "double value; puts(\"trade\");");
    let error = author.fails(&["plugin", "build", "fee"]);
    assert!(error.contains("a plugin has no system") && error.contains("tm_log"), "{error}");
}

#[test]
fn an_import_that_comes_too_late_is_told_with_its_line() {
    let author = Author::new("python", "plugin.py");
    author.edit(
        "        notional = message.price",
        "        import colorsys\n        notional = message.price",
    );
    let error = author.fails(&["plugin", "build", "fee"]);
    let told = "error: plugin.py:26: colorsys is imported within process, when there are no files any more: import it at the";
    assert!(error.contains(told), "{error}");
}

#[test]
fn a_plugin_in_go_that_is_never_made_is_not_built() {
    let author = Author::new("go", "plugin.go");
    author.edit("func init() {", "func unused() {");
    let error = author.fails(&["plugin", "build", "fee"]);
    assert!(
        error.contains("error: nothing calls plugin.Export") && error.contains("func init() {"),
        "{error}"
    );
    assert!(!author.path("fee.wasm").exists());
}

#[test]
fn a_key_that_a_configuration_in_go_does_not_have_is_refused() {
    let author = Author::new("go", "plugin.go");
    author.succeeds(&["plugin", "build", "fee"]);
    let run = ["plugin", "run", "fee", "--config", r#"{"abov":1}"#, "--text", "{}"];
    let told = text(&author.run(&run).stderr);
    assert!(told.contains("init refused its configuration: abov is not known: the keys are above"), "{told}");
}

#[test]
fn a_panic_in_go_is_one_line_of_the_log_with_its_place() {
    let author = Author::new("go", "plugin.go");
    author.edit(
        "if name, _",
        "if m.Number(price) > 1 {\n\t\t\t\t_ = make([]int, 0)[len(setup.Config)]\n\t\t\t}\n\t\t\tif name, _",
    );
    let input = fs::read_to_string(author.path("cases/first.in.jsonl")).unwrap();
    let output = author.run(&["plugin", "run", "fee", "--text", input.lines().next().unwrap()]);
    let log = text(&output.stderr);
    let guest: Vec<_> = log.lines().filter(|line| line.contains(" guest: ")).collect();
    let told = "panic: runtime error: index out of range [2] with length 0 (at plugin.go:25)";
    assert!(guest.len() == 1 && guest[0].contains(&format!("ERROR guest: {told} ")), "{log}");
    assert!(log.contains(&format!(r#""detail":"{told}; process: "#)), "{log}");
}

#[test]
fn a_trap_in_c_names_its_line() {
    let to = "double value;\n  if (above == 0) __builtin_trap();";
    let error = fails_when_it_runs("c", "plugin.c", "double value;", to);
    assert!(error.contains(", in process (plugin.c:25) < "), "{error}");
}

/// A compiler may leave such a function out of what it writes for debuggers.
#[test]
fn a_trap_in_c_names_its_line_where_nothing_is_inlined() {
    let author = Author::new("c", "plugin.c");
    let source = "#include \"sdk/tidemill.h\"\n\
        static volatile int zero;\n\
        static void init(tm_setup *setup) { (void)setup; }\n\
        static void process(tm_message message, tm_out *out) {\n\
        zero = 7 / zero;\n\
        tm_forward(out, message);\n\
        }\n\
        static const tm_transform DIVIDES = {.init = init, .process = process};\n\
        TIDEMILL_TRANSFORM(DIVIDES)\n";
    fs::write(author.path("plugin.c"), source).unwrap();
    let told = text(&author.run(&["plugin", "run", "fee", "--text", "{}"]).stderr);
    assert!(told.contains(", in process (plugin.c:5) < "), "{told}");
}

#[test]
fn a_callback_that_is_missing_in_c_is_named() {
    for (callback, told) in [
        (".init = init, ", "the plugin has no .init: its tm_transform has to name the function"),
        (", .process = process", "the plugin has neither .process nor .process_batch"),
    ] {
        let author = Author::new("c", "plugin.c");
        author.edit(callback, "");
        author.succeeds(&["plugin", "build", "fee"]);
        let error = text(&author.run(&["plugin", "run", "fee", "--text", "{}"]).stderr);
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn a_native_test_that_fails_names_the_line_of_the_plugin() {
    for (language, main) in [("javascript", "plugin.js"), ("typescript", "plugin.ts")] {
        let author = Author::new(language, main);
        author.edit("      out.forward();", "      JSON.parse(\"no\");\n      out.forward();");
        let source = fs::read_to_string(author.path(main)).unwrap();
        let line = source.lines().position(|line| line.contains("JSON.parse")).unwrap() + 1;
        let error = author.fails(&["plugin", "test", "fee"]);
        assert!(
            error.contains("SyntaxError: ") && error.contains(&format!("process {main}:{line}")),
            "{error}"
        );
    }
}

#[test]
fn what_browsers_and_node_have_is_told_with_what_to_write_instead() {
    let author = Author::new("javascript", "plugin.js");
    let refused = |to: &str, told: &str| {
        let from = "    const notional";
        author.edit(from, &format!("    {to}\n{from}"));
        let error = author.fails(&["plugin", "build", "fee"]);
        assert!(error.contains(told), "{to}: {error}");
        author.edit(&format!("    {to}\n{from}"), from);
    };
    refused("fetch('x');", "error: plugin.js:14: a plugin has no fetch: write http.get(url)");
    refused("setTimeout(() => {}, 1);", "error: plugin.js:14: a plugin has no setTimeout: declare tickEvery");
    refused("Buffer.from('x');", "error: plugin.js:14: a plugin has no Buffer: bytes are a Uint8Array");
    refused("require('fs');", "fs is a module of Node.js, and a plugin has no system");

    refused(
        "import('lodash');",
        "Could not resolve \"lodash\": it is not installed, which `npm install lodash` does",
    );

    // A name of the plugin's own, and one that is asked for first, is no such mistake.
    author.edit(
        "    const notional",
        "    const process = typeof fetch;\n    if (process !== 'undefined') fetch('x');\n    const notional",
    );
    author.succeeds(&["plugin", "build", "fee"]);
    let error = fails_when_it_runs(
        "javascript",
        "plugin.js",
        "    const notional",
        "    if (typeof fetch !== 1) fetch('x');\n    const notional",
    );
    assert!(error.contains("is not defined: a plugin has no fetch: write http.get(url)"), "{error}");
    assert!(error.contains("plugin.js:14"), "{error}");
}

/// What files can be in the place of a plugin that this host takes.
#[test]
fn a_file_that_is_no_plugin_of_this_host_is_told_in_a_sentence() {
    let Some(whole) = guest("asking") else { return };
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("p.wasm");
    let whole = fs::read(whole).unwrap();
    let component = |text: &str| wat::parse_str(text).unwrap();
    for (wasm, told) in [
        (
            component("(module)"),
            "error: failed to load plugin p: the file is a core WebAssembly module, not a component",
        ),
        (
            component(r#"(component (instance $i) (export "wasi:http/handler@0.2.0" (instance $i)))"#),
            "error: failed to load plugin p: the component exports no tidemill:plugin/transformer",
        ),
        (
            component(
                r#"(component (instance $i) (export "tidemill:plugin/transformer@0.2.0" (instance $i)))"#,
            ),
            "error: failed to load plugin p: the component exports tidemill:plugin/transformer@0.2.0, this host speaks",
        ),
        (
            component(
                r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m))
                (func $f async (canon lift (core func $i "f"))) (instance $x (export "process" (func $f)))
                (export "tidemill:plugin/transformer@0.1.0" (instance $x)))"#,
            ),
            "error: failed to load plugin p: the component has functions that are async, and nothing in a plugin is",
        ),
        (whole[..whole.len() / 2].to_vec(), "error: failed to load plugin p: the file is cut short"),
        (
            whole,
            "error: failed to start p: it imports tidemill:plugin/http@0.1.0, and no requests are granted",
        ),
    ] {
        fs::write(&file, wasm).unwrap();
        let mut run = Command::new(binary());
        let output =
            run.current_dir(folder.path()).args(["plugin", "run", "p.wasm"]).stdin(Stdio::null()).output();
        let output = output.unwrap();
        let error = text(&output.stderr);
        assert!(!output.status.success() && error.contains(told), "{told}: {error}");
        let has_hint = error.contains("hint: ") || error.contains("would grant them");
        assert!(has_hint, "{error}");
    }
}

/// npm would try for minutes, without a word.
#[test]
fn what_cannot_be_fetched_is_told_soon() {
    let author = Author::new("javascript", "plugin.js");
    let nobody = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let empty = author.folder.path();
    let mut build = Command::new(binary());
    build.current_dir(empty).args(["plugin", "build", "fee"]).env("TIDEMILL_TOOLS", empty.join("tools"));
    build.env("npm_config_cache", empty.join("cache")).env("npm_config_registry", format!("http://{nobody}"));
    let begun = Instant::now();
    let output = build.output().unwrap();
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    assert!(told.contains("error: failed to fetch componentize-qjs@"), "{told}");
    assert!(told.contains("; is there a network?") && told.contains("ECONNREFUSED"), "{told}");
}
