//! What is peculiar to a module of Go: the adapter in place of WASI, and exports of which not all are meant.

use crate::world;

/// A package of the SDK that exports an interface, as soon as anything imports it: a connector that logs has the exports of
/// transforms, too.
#[derive(Debug)]
pub(crate) struct ExportPackage {
    interface: &'static str,
    pub(crate) name: &'static str,
    /// What its function `Export` is given the maker of.
    pub(crate) made: &'static str,
    /// What only that function says: the linker leaves it out with the function, where nothing calls it.
    said: &'static [u8],
}

/// In the order in which they are told of: a module that has both without meaning to is a connector that logs.
const PACKAGES: [ExportPackage; 2] = [
    ExportPackage {
        interface: "tidemill:plugin/dialler@",
        name: "connector",
        made: "Connector",
        said: b"connector.Export is called once",
    },
    ExportPackage {
        interface: "tidemill:plugin/transformer@",
        name: "plugin",
        made: "Plugin",
        said: b"plugin.Export is called once",
    },
];

/// The packages of whose interfaces a module means nothing: nothing in it calls their `Export`.
pub(crate) fn not_meant(module: &[u8]) -> Vec<&'static ExportPackage> {
    let is_there = |text: &[u8]| module.windows(text.len()).any(|found| found == text);
    PACKAGES.iter().filter(|package| !is_there(package.said)).collect()
}

impl ExportPackage {
    /// Whether an export is of its interface.
    pub(crate) fn has(&self, export: &str) -> bool {
        export.starts_with(self.interface)
    }
}

/// What Go's runtime imports its system from.
pub(crate) const WASI: &str = "wasi_snapshot_preview1";

/// The adapter, as text.
const ADAPTER: &str = include_str!("go/adapter.wat");

/// The adapter between what Go's runtime imports and what the host offers.
pub(crate) fn adapter() -> anyhow::Result<Vec<u8>> {
    world::embedded(wat::parse_str(ADAPTER)?, "tidemill:go/adapter")
}
