//! What `export!` refuses: the error must point at the author's own words, not into the macro.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `tests/refused/NAME.rs` as a library and gives what the compiler says.
fn errors(name: &str) -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let artefacts = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--error-format=short"])
        .arg("--extern")
        .arg(format!("tidemill_plugin={}", library(&artefacts).display()))
        .arg("-L")
        .arg(format!("dependency={}", artefacts.display()))
        .arg("--out-dir")
        .arg(env!("CARGO_TARGET_TMPDIR"))
        .arg(Path::new("tests/refused").join(name).with_extension("rs"))
        .current_dir(here)
        .output()
        .unwrap();
    assert!(!output.status.success(), "{name} compiles");
    String::from_utf8(output.stderr).unwrap()
}

/// The SDK as it was built beside this test: of several builds the newest.
fn library(artefacts: &Path) -> PathBuf {
    let files = std::fs::read_dir(artefacts).unwrap().map(|entry| entry.unwrap().path());
    let libraries = files.filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libtidemill_plugin-") && name.ends_with(".rlib")
    });
    libraries.max_by_key(|path| path.metadata().unwrap().modified().unwrap()).expect("the SDK was built")
}

#[test]
fn a_type_that_is_no_plugin_is_named_where_it_is_exported() {
    let errors = errors("not_a_plugin");
    assert!(errors.contains("not_a_plugin.rs:5:9: error[E0277]: `Forgotten` is not a plugin"), "{errors}");
}

#[test]
fn a_type_that_is_not_there_is_named_where_it_is_exported() {
    let errors = errors("no_such_type");
    assert!(errors.contains("no_such_type.rs:1:26: error[E04"), "{errors}");
}

#[test]
fn a_function_of_another_shape_is_named_where_it_is_exported() {
    let errors = errors("wrong_function");
    assert!(errors.contains("wrong_function.rs:3:12: error[E0308]: mismatched types"), "{errors}");
}

#[test]
fn a_configuration_that_cannot_be_read_is_named_where_it_is_chosen() {
    let errors = errors("not_a_config");
    assert!(errors.contains("not_a_config.rs:8:19: error[E0277]"), "{errors}");
}
