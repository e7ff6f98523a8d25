//! Which world a module is of, as a note in the module: what does not import or export all of it keeps the contract, too.

use crate::ComponentError;
use wasmparser::{Parser, Payload};
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// The contract.
const CONTRACT: &str = include_str!("../wit/transform.wit");
/// What the adapter of Go imports, and a plugin of both kinds.
const OTHER_WORLDS: &str = "
    package tidemill:go;
    world adapter {
        import tidemill:plugin/log@0.1.0;
        import tidemill:plugin/clock@0.1.0;
        import tidemill:plugin/random@0.1.0;
    }
    world both {
        include tidemill:plugin/transform-http@0.1.0;
        include tidemill:plugin/connector-http@0.1.0;
    }
";

/// The module, with a note of the world that it is of. What it does not import of that is left out of
/// the component.
pub(crate) fn with_metadata(module: Vec<u8>) -> Result<Vec<u8>, ComponentError> {
    let (mut transforms, mut dials) = (false, false);
    for payload in Parser::new(0).parse_all(&module) {
        if let Payload::ExportSection(exports) = payload? {
            for export in exports {
                let name = export?.name;
                transforms |= name.starts_with("tidemill:plugin/transformer@");
                dials |= name.starts_with("tidemill:plugin/dialler@");
            }
        }
    }
    let world = match (transforms, dials) {
        (true, false) => "tidemill:plugin/transform-http@0.1.0",
        (false, true) => "tidemill:plugin/connector-http@0.1.0",
        (true, true) => "tidemill:go/both",
        (false, false) => return Err(ComponentError::NoPlugin),
    };
    embedded(module, world).map_err(|error| ComponentError::Mismatch(format!("{error:#}")))
}

/// A module with a note of this world.
pub(crate) fn embedded(mut module: Vec<u8>, world: &str) -> anyhow::Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    resolve.push_str("transform.wit", CONTRACT)?;
    let package = resolve.push_str("worlds.wit", OTHER_WORLDS)?;
    let world = resolve.select_world(&[package], Some(world))?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(module)
}
