//! `tidemill plugin inspect`: what it tells of a component, and what it refuses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Output};
use tidemill_tests::host::{Folder, binary};
use tidemill_tests::{guest, plugin};

fn inspected(file: &Path, more: &[&str]) -> Output {
    Command::new(binary()).args(["plugin", "inspect"]).arg(file).args(more).output().unwrap()
}

fn json_of(file: &Path) -> (Option<i32>, Value) {
    let output = inspected(file, &["--json"]);
    let answer = serde_json::from_slice(&output.stdout);
    (output.status.code(), answer.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))))
}

#[test]
fn a_plugin_is_told_with_its_contract_and_what_it_needs() {
    let asking = guest("asking").unwrap();
    let (code, told) = json_of(&asking);
    assert_eq!(
        (code, &told["kind"], &told["contract"]),
        (Some(0), &json!("transform"), &json!("0.1.0")),
        "{told}"
    );
    assert_eq!(told["exports"], json!(["tidemill:plugin/transformer@0.1.0"]));
    let http = json!({ "name": "tidemill:plugin/http@0.1.0", "provided": true, "needs": ["allow"] });
    assert!(told["imports"].as_array().unwrap().contains(&http), "{told}");
    assert_eq!(told["problem"], Value::Null);

    let text = String::from_utf8(inspected(&asking, &[]).stdout).unwrap();
    let line =
        "imports  tidemill:plugin/http@0.1.0: needs allow = [\"https://api.example.com\"] at the transform\n";
    assert!(text.contains(": transform of the contract 0.1.0, ") && text.contains(line), "{text}");

    let (code, told) = json_of(&plugin("forward"));
    let needs = told["imports"].as_array().unwrap().iter().filter(|import| import["needs"] != json!([]));
    assert_eq!((code, needs.count()), (Some(0), 0), "{told}");
}

#[test]
fn what_cannot_run_here_is_told_why_and_what_is_no_component_is_refused() {
    let folder = Folder::default();
    let file = folder.path("other.wasm");
    for (wat, problem) in [
        (
            r#"(component (import "acme:mail/send@1.0.0" (instance)) (instance $i)
               (export "tidemill:plugin/transformer@0.1.0" (instance $i)))"#,
            "it imports what this host does not provide: acme:mail/send@1.0.0",
        ),
        (
            r#"(component (instance $i) (export "tidemill:plugin/transformer@0.9.0" (instance $i)))"#,
            "it is for the contract 0.9.0, and this host speaks 0.1.0",
        ),
        (
            "(component)",
            "it is no plugin: it exports no tidemill:plugin/transformer and no tidemill:plugin/dialler",
        ),
    ] {
        std::fs::write(&file, wat::parse_str(wat).unwrap()).unwrap();
        let (code, told) = json_of(&file);
        assert_eq!((code, &told["problem"]), (Some(1), &json!(problem)), "{told}");
    }
    for (content, why) in [
        (&b"#!/bin/sh\n"[..], "the file is not WebAssembly"),
        (b"\0asm\x01\0\0\0", "the file is a core WebAssembly module, not a component"),
        (b"\0asm\x0d\0\x01\0\x0a\x7f", "the file is cut short: "),
    ] {
        std::fs::write(&file, content).unwrap();
        let refused = inspected(&file, &[]);
        let told = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(told.contains(why) && told.contains("hint: "), "{told}");
    }
    assert_eq!(inspected(&folder.path("nowhere.wasm"), &[]).status.code(), Some(1));
}

/// What has no end is not read at all, and neither is what no host would take.
#[test]
fn only_a_file_of_a_bounded_size_is_read() {
    let folder = Folder::default();
    let large = folder.path("large.wasm");
    std::fs::File::create(&large).unwrap().set_len((1 << 30) + 1).unwrap();
    let device = Path::new("/dev/zero");
    let forward = plugin("forward");
    let forward = forward.to_str().unwrap();
    for (file, why) in [(device, "it is not a file"), (&*large, "no plugin is larger than 1024 MiB")] {
        let file = file.to_str().unwrap();
        for command in [
            &["plugin", "inspect", file][..],
            &["plugin", "run", file, "--text", "{}"],
            &["plugin", "run", forward, "--text", "{}", "--diff", file],
            &["swap", file, "--name", "p", "--admin", "127.0.0.1:1"],
        ] {
            let refused = Command::new(binary()).args(command).output().unwrap();
            let told = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(refused.status.code(), Some(1), "{command:?}: {told}");
            assert!(told.contains(&format!("error: failed to read {file}: {why}")), "{command:?}: {told}");
        }
    }
}
