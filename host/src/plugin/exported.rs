//! What makes a component a plugin: the interface that it exports, in the version and with the functions of the
//! contract.

use super::batch::GuestBatch;
use super::bindings::connector::exports::tidemill::plugin::dialler;
use super::bindings::exports::tidemill::plugin::transformer;
use super::bindings::tidemill::plugin::types as wit;
use super::fault::LoadProblem;
use super::imports::StoreData;
use super::kind::PluginKind;
use wasmtime::component::types::{Component, ComponentFunc, ComponentItem};
use wasmtime::component::{ComponentExportIndex, InstancePre};

/// The export that makes a component a transform, without its version.
pub(super) const TRANSFORMER: &str = "tidemill:plugin/transformer@";
/// The export that makes a component a connector.
pub(super) const DIALLER: &str = "tidemill:plugin/dialler@";

type Facts<'a> = &'a [(&'a str, &'a str)];

/// The interface that a plugin exports, with where its functions are.
pub(super) enum Exported {
    Transformer(TransformerExports),
    Dialler(dialler::GuestIndices),
}

/// Where the functions of the transformer are.
pub(super) struct TransformerExports {
    /// All of them.
    pub(super) all: transformer::GuestIndices,
    /// The one that most calls are of.
    pub(super) process: ComponentExportIndex,
}

/// The export that makes a component a plugin.
#[derive(Clone, Copy)]
pub(super) struct FoundExport<'n> {
    name: &'n str,
    kind: PluginKind,
}

impl<'n> FoundExport<'n> {
    /// Finds it among the names of what a component exports. One that is both is a transform.
    pub(super) fn among(exports: &[&'n str]) -> Option<Self> {
        let find = |beginning: &str, kind| {
            let name = find_interface(exports, beginning)?;
            // The name outlives the list.
            let name = exports.iter().find(|known| **known == name)?;
            Some(Self { name, kind })
        };
        find(TRANSFORMER, PluginKind::Transform).or_else(|| find(DIALLER, PluginKind::Connector))
    }

    /// Whether it is of the contract that this host speaks.
    ///
    /// # Errors
    /// It is of another.
    pub(super) fn check_version(self) -> Result<(), LoadProblem> {
        if is_known(self.name) { Ok(()) } else { Err(LoadProblem::OtherContract(self.name.to_owned())) }
    }

    /// Checks the export of a component that was linked.
    ///
    /// # Errors
    /// Its functions are not the contract's.
    pub(super) fn check(
        self,
        component: &wasmtime::component::Component,
        runtime: &wasmtime::Engine,
        linked: &InstancePre<StoreData>,
    ) -> Result<Exported, LoadProblem> {
        let mismatch = |error: wasmtime::Error| LoadProblem::Mismatch(format!("{error:#}"));
        let exported = match self.kind {
            PluginKind::Transform => {
                let all = transformer::GuestIndices::new(linked).map_err(mismatch)?;
                let interface = component.get_export_index(None, self.name);
                let process = component.get_export_index(interface.as_ref(), "process");
                let process =
                    process.ok_or_else(|| LoadProblem::Mismatch("process: there is none".into()))?;
                Exported::Transformer(TransformerExports { all, process })
            }
            PluginKind::Connector => Exported::Dialler(dialler::GuestIndices::new(linked).map_err(mismatch)?),
        };
        self.check_functions(&component.component_type(), runtime)?;
        Ok(exported)
    }

    /// Checks the types of the functions, which wasmtime does at instantiation.
    fn check_functions(self, ty: &Component, runtime: &wasmtime::Engine) -> Result<(), LoadProblem> {
        let Some(ComponentItem::ComponentInstance(interface)) =
            ty.get_export(runtime, self.name).map(|export| export.ty)
        else {
            return Err(LoadProblem::Mismatch(format!("{} is not an interface", self.name)));
        };
        for (name, export) in interface.exports(runtime) {
            let ComponentItem::ComponentFunc(function) = export.ty else { continue };
            let checked = match self.kind {
                PluginKind::Transform => check_transformer(name, &function, ty),
                PluginKind::Connector => check_dialler(name, &function, ty),
            };
            checked.map_err(|error| LoadProblem::Mismatch(format!("{name}: {error:#}")))?;
        }
        Ok(())
    }
}

/// The name of the interface among these exports that begins with this: of several versions the one that this host
/// speaks.
pub(super) fn find_interface<'a>(exports: &'a [impl AsRef<str>], beginning: &str) -> Option<&'a str> {
    let mut versions = exports.iter().map(AsRef::as_ref).filter(|name: &&str| name.starts_with(beginning));
    let first = versions.next()?;
    Some(std::iter::once(first).chain(versions).find(|name| is_known(name)).unwrap_or(first))
}

/// Whether an interface is of the contract that this host speaks, in whichever patch of its version.
fn is_known(interface: &str) -> bool {
    let version = interface.rsplit_once('@').map_or("", |(_, version)| version);
    let track = |version: &str| version.rsplit_once('.').map(|(track, _)| track.to_owned());
    track(version) == track(super::CONTRACT_VERSION)
}

fn check_transformer(name: &str, function: &ComponentFunc, ty: &Component) -> wasmtime::Result<()> {
    type Emitted = Result<Option<wit::Emissions>, String>;
    let cx = &ty.instance_type();
    match name {
        "init" => function.typecheck::<(&str, Facts<'_>), (Result<wit::Description, String>,)>(cx),
        "process" => function.typecheck::<(GuestBatch<'_>,), (Result<wit::Outcome, String>,)>(cx),
        "tick" => function.typecheck::<(u64,), (Emitted,)>(cx),
        "finish" => function.typecheck::<(), (Emitted,)>(cx),
        "snapshot" => function.typecheck::<(), (Result<Option<Vec<u8>>, String>,)>(cx),
        "restore" => function.typecheck::<(&[&[u8]], u32, u32), (Result<(), String>,)>(cx),
        _ => Ok(()),
    }
}

fn check_dialler(name: &str, function: &ComponentFunc, ty: &Component) -> wasmtime::Result<()> {
    type Initialised = Result<dialler::ConnectorDescription, String>;
    type Answered = Result<dialler::Dial, dialler::Refusal>;
    let cx = &ty.instance_type();
    match name {
        "init" => function.typecheck::<(&str, Facts<'_>), (Initialised,)>(cx),
        "before-connect" => function.typecheck::<(dialler::Attempt,), (Answered,)>(cx),
        "tick" => function.typecheck::<(u64,), (Result<(), String>,)>(cx),
        _ => Ok(()),
    }
}
