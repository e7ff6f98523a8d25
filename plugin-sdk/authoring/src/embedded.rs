//! What is part of the program: the templates of new plugins and the SDKs, file by file.
//!
//! A file that is added to one of these folders has its line here; the test says which is missing.

use crate::language::{Kind, Language};

/// A file of a new folder.
#[derive(Clone, Copy)]
pub(crate) struct File {
    /// Its path in the folder.
    pub(crate) path: &'static str,
    pub(crate) content: &'static [u8],
}

/// Files of a folder of this crate, each called so in the new one, or otherwise.
macro_rules! files {
    (@named $path:literal) => { $path };
    (@named $path:literal $named:literal) => { $named };
    ($folder:literal; $($path:literal $(as $named:literal)?,)*) => {
        &[$(File {
            path: files!(@named $path $($named)?),
            content: include_bytes!(concat!("../", $folder, "/", $path)),
        }),*]
    };
}

/// The files of a template, but for the SDK.
pub(crate) fn template(language: Language, kind: Kind) -> impl Iterator<Item = File> {
    let of_kind = if kind == Kind::Transform { TRANSFORM } else { CONNECTOR };
    let (of_language, of_both) = match language {
        Language::Rust => (RUST, if kind == Kind::Transform { RUST_TRANSFORM } else { RUST_CONNECTOR }),
        Language::JavaScript => {
            (JAVASCRIPT, if kind == Kind::Transform { JAVASCRIPT_TRANSFORM } else { JAVASCRIPT_CONNECTOR })
        }
        Language::TypeScript => {
            (TYPESCRIPT, if kind == Kind::Transform { TYPESCRIPT_TRANSFORM } else { TYPESCRIPT_CONNECTOR })
        }
        Language::Python => {
            (PYTHON, if kind == Kind::Transform { PYTHON_TRANSFORM } else { PYTHON_CONNECTOR })
        }
        Language::Go => (GO, if kind == Kind::Transform { GO_TRANSFORM } else { GO_CONNECTOR }),
        Language::C => (&[][..], if kind == Kind::Transform { C_TRANSFORM } else { C_CONNECTOR }),
    };
    [COMMON, of_kind, of_language, of_both].into_iter().flatten().copied()
}

/// The files of the SDK.
pub(crate) fn sdk(language: Language) -> &'static [File] {
    match language {
        Language::Rust => RUST_SDK,
        Language::JavaScript | Language::TypeScript => JAVASCRIPT_SDK,
        Language::Python => PYTHON_SDK,
        Language::Go => GO_SDK,
        Language::C => C_SDK,
    }
}

const COMMON: &[File] = files! { "templates/common";
    "AGENTS.md",
    "gitignore" as ".gitignore",
};

const TRANSFORM: &[File] = files! { "templates/transform";
    "README.md",
    "cases/first.config.json",
    "cases/first.in.jsonl",
    "cases/first.out.jsonl",
};

const CONNECTOR: &[File] = files! { "templates/connector";
    "README.md",
};

const RUST: &[File] = files! { "templates/rust";
    "Cargo.toml.in" as "Cargo.toml",
    "cargo-config.toml" as ".cargo/config.toml",
};

const RUST_TRANSFORM: &[File] = files! { "templates/rust/transform";
    "lib.rs" as "src/lib.rs",
};

const RUST_CONNECTOR: &[File] = files! { "templates/rust/connector";
    "lib.rs" as "src/lib.rs",
};

const JAVASCRIPT: &[File] = files! { "templates/javascript";
    "package.json",
};

const JAVASCRIPT_TRANSFORM: &[File] = files! { "templates/javascript/transform";
    "plugin.js",
    "plugin.test.js",
};

const JAVASCRIPT_CONNECTOR: &[File] = files! { "templates/javascript/connector";
    "plugin.js",
    "plugin.test.js",
};

const TYPESCRIPT: &[File] = files! { "templates/typescript";
    "package.json",
    "tsconfig.json",
};

const TYPESCRIPT_TRANSFORM: &[File] = files! { "templates/typescript/transform";
    "plugin.test.ts",
    "plugin.ts",
};

const TYPESCRIPT_CONNECTOR: &[File] = files! { "templates/typescript/connector";
    "plugin.test.ts",
    "plugin.ts",
};

const PYTHON: &[File] = files! { "templates/python";
    "pyproject.toml",
};

const PYTHON_TRANSFORM: &[File] = files! { "templates/python/transform";
    "plugin.py",
    "test_plugin.py",
};

const PYTHON_CONNECTOR: &[File] = files! { "templates/python/connector";
    "plugin.py",
    "test_plugin.py",
};

const GO: &[File] = files! { "templates/go";
    "go.mod.in" as "go.mod",
};

const GO_TRANSFORM: &[File] = files! { "templates/go/transform";
    "plugin.go",
    "plugin_test.go",
};

const GO_CONNECTOR: &[File] = files! { "templates/go/connector";
    "plugin.go",
    "plugin_test.go",
};

const C_TRANSFORM: &[File] = files! { "templates/c/transform";
    "plugin.c",
    "plugin_test.c",
    "worth.h",
};

const C_CONNECTOR: &[File] = files! { "templates/c/connector";
    "bearer.h",
    "plugin.c",
    "plugin_test.c",
};

/// Crates beside each other.
const RUST_SDK: &[File] = files! { "sdk";
    "rust/LICENSE",
    "rust/README.md",
    "rust/manifest.toml" as "rust/Cargo.toml",
    "rust/src/binary.rs",
    "rust/src/bindings.rs",
    "rust/src/clock.rs",
    "rust/src/condition.rs",
    "rust/src/configuration.rs",
    "rust/src/configuration/tests.rs",
    "rust/src/configuration/wrong.rs",
    "rust/src/connector.rs",
    "rust/src/csv.rs",
    "rust/src/description.rs",
    "rust/src/duration.rs",
    "rust/src/emissions.rs",
    "rust/src/event_time.rs",
    "rust/src/fields.rs",
    "rust/src/http.rs",
    "rust/src/instance.rs",
    "rust/src/json.rs",
    "rust/src/keyed.rs",
    "rust/src/lib.rs",
    "rust/src/log.rs",
    "rust/src/message.rs",
    "rust/src/metrics.rs",
    "rust/src/outcome.rs",
    "rust/src/panics.rs",
    "rust/src/part.rs",
    "rust/src/plugin.rs",
    "rust/src/random.rs",
    "rust/src/state.rs",
    "rust/src/testing.rs",
    "rust/src/testing/answers.rs",
    "rust/src/testing/connector.rs",
    "rust/src/testing/fakes.rs",
    "rust/src/testing/harness.rs",
    "rust/src/testing/outcome.rs",
    "rust/src/windows.rs",
    "rust/src/windows/allowance.rs",
    "rust/src/windows/shape.rs",
    "rust/src/windows/sums.rs",
    "rust/src/windows/tests.rs",
    "rust/src/writing.rs",
    "rust/wit/transform.wit",
    "json/LICENSE",
    "json/README.md",
    "json/manifest.toml" as "json/Cargo.toml",
    "json/src/block.rs",
    "json/src/block/aarch64.rs",
    "json/src/block/wasm32.rs",
    "json/src/block/x86_64.rs",
    "json/src/document.rs",
    "json/src/edit.rs",
    "json/src/fields.rs",
    "json/src/grammar.rs",
    "json/src/invalid.rs",
    "json/src/lib.rs",
    "json/src/number.rs",
    "json/src/plain.rs",
    "json/src/pointer.rs",
    "json/src/scan.rs",
    "json/src/sites.rs",
    "json/src/string.rs",
    "json/src/tree.rs",
    "json/src/value.rs",
    "json/src/walk.rs",
};

const JAVASCRIPT_SDK: &[File] = files! { "sdk/javascript";
    "LICENSE",
    "README.md",
    "build.js",
    "package.json",
    "src/batch.js",
    "src/build/globals.js",
    "src/build/sources.js",
    "src/build/used.js",
    "src/build/world.js",
    "src/clock.js",
    "src/columns.js",
    "src/config.js",
    "src/connector.js",
    "src/duration.js",
    "src/emissions.js",
    "src/failure.js",
    "src/field.js",
    "src/host/component/clock.js",
    "src/host/component/http.js",
    "src/host/component/log.js",
    "src/host/component/metrics.js",
    "src/host/component/places.js",
    "src/host/component/random.js",
    "src/host/component/state.js",
    "src/host/native/clock.js",
    "src/host/native/fake.js",
    "src/host/native/http.js",
    "src/host/native/log.js",
    "src/host/native/metrics.js",
    "src/host/native/places.js",
    "src/host/native/random.js",
    "src/host/native/state.js",
    "src/http.js",
    "src/index.d.ts",
    "src/index.js",
    "src/json.js",
    "src/log.js",
    "src/metrics.js",
    "src/missing.js",
    "src/names.js",
    "src/outcome.js",
    "src/part.js",
    "src/random.js",
    "src/refusal.js",
    "src/snapshot.js",
    "src/state.js",
    "src/testing.d.ts",
    "src/testing.js",
    "src/transform.js",
    "src/utf8.js",
    "src/windows.js",
    "wit/transform.wit",
};

const PYTHON_SDK: &[File] = files! { "sdk/python";
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "src/tidemill_plugin/__init__.py",
    "src/tidemill_plugin/_columns.py",
    "src/tidemill_plugin/_contract.py",
    "src/tidemill_plugin/_failure.py",
    "src/tidemill_plugin/_names.py",
    "src/tidemill_plugin/_native/__init__.py",
    "src/tidemill_plugin/_native/clock.py",
    "src/tidemill_plugin/_native/dialler.py",
    "src/tidemill_plugin/_native/err.py",
    "src/tidemill_plugin/_native/fake.py",
    "src/tidemill_plugin/_native/http.py",
    "src/tidemill_plugin/_native/log.py",
    "src/tidemill_plugin/_native/metrics.py",
    "src/tidemill_plugin/_native/random.py",
    "src/tidemill_plugin/_native/state.py",
    "src/tidemill_plugin/_native/types.py",
    "src/tidemill_plugin/build.py",
    "src/tidemill_plugin/clock.py",
    "src/tidemill_plugin/config.py",
    "src/tidemill_plugin/connector.py",
    "src/tidemill_plugin/duration.py",
    "src/tidemill_plugin/fields.py",
    "src/tidemill_plugin/http.py",
    "src/tidemill_plugin/log.py",
    "src/tidemill_plugin/message.py",
    "src/tidemill_plugin/metrics.py",
    "src/tidemill_plugin/outcome.py",
    "src/tidemill_plugin/part.py",
    "src/tidemill_plugin/plugin.py",
    "src/tidemill_plugin/py.typed",
    "src/tidemill_plugin/random.py",
    "src/tidemill_plugin/state.py",
    "src/tidemill_plugin/testing.py",
    "src/tidemill_plugin/windows.py",
    "src/tidemill_plugin/wit/transform.wit",
};

const GO_SDK: &[File] = files! { "sdk/go";
    "LICENSE",
    "README.md",
    "batch.go",
    "component_wasip1.go",
    "connector/component_wasip1.go",
    "connector/connector.go",
    "edits.go",
    "emissions.go",
    "go.mod",
    "http/http.go",
    "http/http_native.go",
    "http/http_wasip1.go",
    "internal/boundary/layout.go",
    "internal/boundary/room_wasip1.go",
    "internal/configuration/decode.go",
    "internal/leftover/leftover.go",
    "log.go",
    "log_native.go",
    "log_wasip1.go",
    "metrics/metrics.go",
    "metrics/metrics_native.go",
    "metrics/metrics_wasip1.go",
    "outcome.go",
    "plugin.go",
    "setup.go",
    "state/state.go",
    "state/state_native.go",
    "state/state_wasip1.go",
    "writing.go",
};

const C_SDK: &[File] = files! { "sdk/c";
    "LICENSE",
    "README.md",
    "tidemill.c",
    "tidemill.h",
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    /// What an SDK has only for its own sake: its tests, and what they are checked with.
    const NOT_PINNED: [&str; 6] = ["tests", "test", "fuzz", "__pycache__", "tsconfig.json", "_test.go"];

    fn collect(folder: &Path, beginning: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("the folder can be read") {
            let entry = entry.expect("the folder can be read");
            let name = entry.file_name().into_string().expect("names are UTF-8");
            if NOT_PINNED.iter().any(|not| name == *not || not.starts_with('_') && name.ends_with(not)) {
                continue;
            }
            let path = if beginning.is_empty() { name } else { format!("{beginning}/{name}") };
            // Links are followed.
            if fs::metadata(entry.path()).expect("it is there").is_dir() {
                collect(&entry.path(), &path, found);
            } else {
                found.insert(path.replace("manifest.toml", "Cargo.toml"));
            }
        }
    }

    #[test]
    fn every_file_of_an_sdk_is_in_the_program() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk");
        for (name, files) in
            [("javascript", JAVASCRIPT_SDK), ("python", PYTHON_SDK), ("go", GO_SDK), ("c", C_SDK)]
        {
            let mut there = BTreeSet::new();
            collect(&folder.join(name), "", &mut there);
            let listed: BTreeSet<_> = files.iter().map(|file| file.path.to_owned()).collect();
            assert_eq!(listed, there, "src/embedded.rs lists the files of {name}");
        }
        let mut there = BTreeSet::new();
        for name in ["rust", "json"] {
            collect(&folder.join(name), name, &mut there);
        }
        let listed: BTreeSet<_> = RUST_SDK.iter().map(|file| file.path.to_owned()).collect();
        assert_eq!(listed, there, "src/embedded.rs lists the files of the SDK in Rust");
    }
}
