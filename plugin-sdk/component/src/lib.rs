//! Makes components of core WebAssembly modules: the last step of the build of a plugin whose
//! toolchain knows no components.
//!
//! It is the only door to `wit-component`. It starts no programs and reads no files.
//!
#![doc = include_str!("../README.md")]

mod allocator;
mod go;
mod world;

use go::ExportPackage;
use std::collections::BTreeSet;
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

/// Why a module does not become a component.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    /// It is no module.
    #[error("the module cannot be read: {0}")]
    Module(#[from] wasmparser::BinaryReaderError),
    /// It does not export what makes a plugin.
    #[error(
        "the module is no plugin: it exports neither tidemill:plugin/transformer@0.1.0 nor tidemill:plugin/dialler@0.1.0; in Go, import `tidemill.dev/plugin` and build with -buildmode=c-shared, in C, write TIDEMILL_TRANSFORM(plugin)"
    )]
    NoPlugin,
    /// Nothing in it says how the plugin is made.
    #[error(
        "nothing calls {package}.Export, which says how the plugin is made: write `func init() {{ {package}.Export(func(setup *{package}.Setup) ({package}.{made}, error) {{ ... }}) }}` in package main"
    )]
    NoExport {
        /// The package of the SDK that the module imports.
        package: &'static str,
        /// What the function makes.
        made: &'static str,
    },
    /// It was made by another toolchain than this crate knows.
    #[error("the module is not what Go 1.26 makes for wasip1: {0}")]
    Toolchain(String),
    /// It calls a system, which plugins do not have.
    #[error(
        "the module imports {module} ({names}), and a plugin has no system: it does not print, open files or ask for the time by the C library, but by tm_log, tm_now_us and tm_random of tidemill.h"
    )]
    System {
        /// The system.
        module: String,
        /// What it calls.
        names: String,
    },
    /// Its imports and exports do not go with the contract.
    #[error("the module does not match the plugin contract: {0}")]
    Mismatch(String),
}

/// The component of a module that imports and exports what the contract says, as those of `plugin-sdk/c` do. It
/// imports no system.
///
/// # Errors
/// The module is no plugin, or imports what the contract does not have.
pub fn of_module(module: &[u8]) -> Result<Vec<u8>, ComponentError> {
    refuse_system(module)?;
    let module = world::with_metadata(module.to_vec())?;
    encode(ComponentEncoder::default().validate(true).module(&module))
}

/// The component of a module that Go made: of a package main that calls `Export` of `tidemill.dev/plugin`, or of its
/// package `connector`, with `GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared`.
///
/// # Errors
/// The module is no plugin, or a version of Go made it that this crate does not know.
pub fn of_go(module: &[u8]) -> Result<Vec<u8>, ComponentError> {
    let not_meant = go::not_meant(module);
    let mut left_out = BTreeSet::new();
    let module = allocator::added(module, |export| {
        let place = not_meant.iter().position(|package| package.has(export));
        left_out.extend(place);
        place.is_none()
    })?;
    let module = world::with_metadata(module).map_err(|error| match (error, left_out.first()) {
        (ComponentError::NoPlugin, Some(&place)) => {
            let ExportPackage { name: package, made, .. } = *not_meant[place];
            ComponentError::NoExport { package, made }
        }
        (error, _) => error,
    })?;
    let encoder = ComponentEncoder::default().validate(true).module(&module);
    encode(encoder.and_then(|encoder| encoder.adapter(go::WASI, &go::adapter()?)))
}

/// Names what a module calls of a system.
fn refuse_system(module: &[u8]) -> Result<(), ComponentError> {
    let (mut system, mut names) = (None, Vec::new());
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ImportSection(imports) = payload? {
            for import in imports.into_imports() {
                let import = import?;
                if import.module.starts_with("wasi_") {
                    system = Some(import.module.to_owned());
                    names.push(import.name);
                }
            }
        }
    }
    match system {
        Some(module) => Err(ComponentError::System { module, names: names.join(", ") }),
        None => Ok(()),
    }
}

fn encode(encoder: anyhow::Result<ComponentEncoder>) -> Result<Vec<u8>, ComponentError> {
    let component = encoder.and_then(|mut encoder| encoder.encode());
    component.map_err(|error| ComponentError::Mismatch(format!("{error:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let module = wat::parse_str(text).expect("the text is a module");
        of_go(&module).expect_err("it is refused").to_string()
    }

    #[test]
    fn what_is_no_plugin_is_refused_with_what_to_do() {
        for text in ["(module)", "(module (func))", r#"(module (func (export "tidemill_more_room")))"#] {
            let error = refused(text);
            assert!(error.contains("import `tidemill.dev/plugin`"), "{error}");
        }
        assert!(matches!(of_go(b"no module"), Err(ComponentError::Module(_))));
    }

    #[test]
    fn a_module_that_imports_a_system_is_refused_by_its_name() {
        let module = wat::parse_str(
            r#"(module (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
                (func (export "tidemill:plugin/transformer@0.1.0#finish") (result i32) unreachable))"#,
        );
        let error = of_module(&module.expect("the text is a module")).expect_err("it is refused").to_string();
        assert!(error.contains("wasi_snapshot_preview1 (fd_write)") && error.contains("tm_log"), "{error}");
    }

    #[test]
    fn data_where_the_room_is_shared_is_refused() {
        let error = refused(r#"(module (memory 1) (data (i32.const 4096) "x"))"#);
        assert!(error.starts_with("the module is not what Go 1.26 makes"), "{error}");
    }

    #[test]
    fn exports_that_do_not_match_the_contract_are_named() {
        let error = refused(
            r#"(module (memory (export "memory") 1)
                (func (export "tidemill_more_room") (param i32 i32) (result i32) unreachable)
                (func (export "tidemill:plugin/transformer@0.1.0#init") (result i32) unreachable)
                (data (i32.const 16384) "plugin.Export is called once"))"#,
        );
        assert!(error.contains("tidemill:plugin/transformer@0.1.0"), "{error}");
    }

    #[test]
    fn a_module_in_which_nothing_says_how_the_plugin_is_made_is_refused() {
        for (interface, told) in [
            ("transformer", "nothing calls plugin.Export, "),
            ("dialler", "nothing calls connector.Export, "),
        ] {
            let error = refused(&format!(
                r#"(module (memory (export "memory") 1)
                    (func (export "tidemill_more_room") (param i32 i32) (result i32) unreachable)
                    (func (export "tidemill:plugin/{interface}@0.1.0#init") (result i32) unreachable))"#
            ));
            assert!(error.starts_with(told) && error.contains("func init()"), "{error}");
        }
    }
}
