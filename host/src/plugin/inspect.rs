//! What a component says of itself, read without compiling it: what it exports and imports, and what a host
//! would have to grant it.

use super::engine::{HTTP, check_start};
use super::exported::{DIALLER, TRANSFORMER, find_interface};
use super::fault::{LoadError, LoadProblem};
use super::imports::is_offered;
use super::kind::PluginKind;
use crate::foreign_text;
use wasmparser::{CanonicalFunction, CanonicalOption, ComponentType, Parser, Payload};

/// What a component exports and imports. Names are as they may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// What it is to a host; `None` if it is no plugin.
    pub kind: Option<PluginKind>,
    /// The version of the contract that it keeps, if it is a plugin.
    pub contract: Option<String>,
    /// The names of what it exports.
    pub exports: Vec<String>,
    /// What it imports.
    pub imports: Vec<Import>,
}

/// Something that a component imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Its name, with the version.
    pub name: String,
    /// What it takes for the component to have it.
    pub need: Need,
}

/// What it takes for a component to have an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: every plugin may use it.
    Nothing,
    /// `allow` at the transform, or in the `before_connect` of the endpoint.
    Grant,
    /// Nothing, and there is nothing to be had: no files, sockets or environment.
    Empty,
    /// It cannot be had from this host.
    Unavailable,
}

impl Need {
    /// What to do or to expect of a plugin of this kind, in the words of the configuration.
    pub fn told(self, kind: Option<PluginKind>) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Grant if kind == Some(PluginKind::Connector) => {
                Some("needs allow = [\"https://api.example.com\"] in before_connect of the endpoint")
            }
            Self::Grant => Some("needs allow = [\"https://api.example.com\"] at the transform"),
            Self::Empty => Some("has no files, no sockets and no environment here"),
            Self::Unavailable => Some("this host does not provide it"),
        }
    }
}

/// Reads what a component exports and imports.
///
/// # Errors
/// If the bytes are no component.
pub fn inspect(name: &str, wasm: &[u8]) -> Result<Inspection, LoadError> {
    let refused =
        |problem: LoadProblem| LoadError { plugin: foreign_text::shown(name), problem: problem.shown() };
    check_start(wasm).map_err(refused)?;
    let Names { exports, imports, is_async } =
        names(wasm).map_err(|error| refused(LoadProblem::invalid(error.message().to_owned())))?;
    if is_async {
        return Err(refused(LoadProblem::Async));
    }
    let keeps =
        |interface: &str| find_interface(&exports, interface)?.strip_prefix(interface).map(str::to_owned);
    let (kind, contract) = match (keeps(TRANSFORMER), keeps(DIALLER)) {
        (Some(version), _) => (Some(PluginKind::Transform), Some(version)),
        (None, Some(version)) => (Some(PluginKind::Connector), Some(version)),
        (None, None) => (None, None),
    };
    let imports =
        imports.into_iter().map(|name| Import { need: need(&name), name: foreign_text::shown(&name) });
    Ok(Inspection {
        kind,
        contract: contract.map(|version| foreign_text::shown(&version)),
        imports: imports.collect(),
        exports: exports.iter().map(|name| foreign_text::shown(name)).collect(),
    })
}

fn need(import: &str) -> Need {
    if !is_offered(import) {
        Need::Unavailable
    } else if import.starts_with(HTTP) {
        Need::Grant
    } else if import.starts_with("wasi:") {
        Need::Empty
    } else {
        Need::Nothing
    }
}

/// What the outermost component says of itself.
#[derive(Default)]
struct Names {
    exports: Vec<String>,
    imports: Vec<String>,
    /// Whether any of its functions is async.
    is_async: bool,
}

fn names(wasm: &[u8]) -> wasmparser::Result<Names> {
    let mut names = Names::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    names.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    names.exports.push(export?.name.name.to_owned());
                }
            }
            Payload::ComponentTypeSection(section) if depth == 0 => {
                for ty in section {
                    names.is_async |= matches!(ty?, ComponentType::Func(function) if function.async_);
                }
            }
            Payload::ComponentCanonicalSection(section) if depth == 0 => {
                for function in section {
                    let CanonicalFunction::Lift { options, .. } = function? else { continue };
                    names.is_async |= options.contains(&CanonicalOption::Async);
                }
            }
            _ => {}
        }
    }
    Ok(names)
}
