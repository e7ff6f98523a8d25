//! The engine that compiles and runs plugins, and the plugins it has loaded.
//!
//! Loading does everything that does not need an instance: reading the file, compiling it or
//! finding its code in the cache, and checking it against the contract.

use super::cache::{Cache, CachedCode, InUse, Sha256Sum, hex};
use super::compiler::{Priority, Runtime, Traces};
use super::exported::{Exported, FoundExport};
use super::fault::{EngineError, LoadError, LoadProblem};
use super::functions::KnownFunctions;
use super::imports::{StoreData, is_offered};
use super::kind::PluginKind;
use crate::config::FilePath;
use crate::foreign_text;
use sha2::{Digest, Sha256};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use wasmtime::component::{Component, InstancePre};

/// What every component starts with, and every core module: a magic number, a version, a layer.
const COMPONENT_START: &[u8; 8] = b"\0asm\x0d\0\x01\0";
const MODULE_START: &[u8; 8] = b"\0asm\x01\0\0\0";
/// The import of plugins that want HTTP, without its version.
pub(super) const HTTP: &str = "tidemill:plugin/http@";

/// From this size on a component that has to be compiled is compiled quickly first: that saves more than 200 ms.
const QUICK_FROM_BYTES: usize = 128 << 10;
/// Under what digest, which no plugin has, the cache keeps the functions of the components that took longest.
const FUNCTIONS: Sha256Sum = [0xff; 32];

/// Compiles and runs plugins. A cheap handle.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<EngineParts>,
}

struct EngineParts {
    optimised: Arc<Runtime>,
    /// Made when it is needed first.
    quick: OnceLock<Option<Arc<Runtime>>>,
    cache: Option<Cache>,
    traces: Traces,
}

/// A plugin that was compiled and found to keep the contract. A cheap handle.
#[derive(Clone)]
pub struct Plugin {
    loaded: Arc<LoadedPlugin>,
}

struct LoadedPlugin {
    runtime: Arc<Runtime>,
    name: Arc<str>,
    version: Arc<str>,
    component: InstancePre<StoreData>,
    exported: Exported,
    imports: Vec<String>,
    load_time: Duration,
    is_from_cache: bool,
    /// What optimised code is to be made of, where this code is not.
    unoptimised: Option<Vec<u8>>,
    /// Its code stays in the cache for as long.
    _in_use: Option<InUse>,
}

/// What compiled code is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    /// It is soon there, and slower.
    Quick,
    /// It is fast, and kept in the cache.
    Optimised,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("cache", &self.shared.cache).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("name", &self.name()).field("version", &self.version()).finish()
    }
}

impl Engine {
    /// An engine that keeps compiled code in the folder `cache`, if one is given.
    ///
    /// # Errors
    /// If the folder cannot be used, or the machine cannot run plugins.
    pub fn try_new(cache: Option<&FilePath>) -> Result<Self, EngineError> {
        Self::telling(Traces::Names, cache)
    }

    /// The same, which tells traps with their lines in the source, where a plugin has a table of them. That table is
    /// read in the course of a call and bounded by nothing: it is for the plugins of one who writes them.
    ///
    /// # Errors
    /// As [`Engine::try_new`].
    pub fn with_lines(cache: Option<&FilePath>) -> Result<Self, EngineError> {
        Self::telling(Traces::Lines, cache)
    }

    fn telling(traces: Traces, cache: Option<&FilePath>) -> Result<Self, EngineError> {
        let optimised = Arc::new(Runtime::optimised(traces)?);
        let cache = cache.map(|path| {
            Cache::try_new(path, optimised.engine())
                .map_err(|error| EngineError::Cache { path: path.clone(), reason: error.to_string() })
        });
        let cache = cache.transpose()?;
        Ok(Self { shared: Arc::new(EngineParts { optimised, quick: OnceLock::new(), cache, traces }) })
    }

    /// Loads a plugin: compiles it, or finds its code in the cache, and checks it.
    ///
    /// Compiling takes up to seconds of processor time, on the calling thread alone.
    ///
    /// # Errors
    /// If the bytes are no plugin that can run here.
    pub fn load(&self, name: &str, wasm: &[u8]) -> Result<Plugin, LoadError> {
        self.load_at(name, wasm, Tier::Optimised, Priority::OfCaller)
    }

    /// The same beside pipelines that run: where it has to compile, it lowers the priority of the calling
    /// thread for good. Call this on a thread made for it. A large plugin is compiled quickly, and
    /// [`Engine::optimise`] makes the code that it is to run in the end; but not one that is asked before dials: its
    /// instances keep what they know for as long as they can, and other code would not reach them.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load_standing_back(&self, name: &str, wasm: &[u8]) -> Result<Plugin, LoadError> {
        let tier = if wasm.len() >= QUICK_FROM_BYTES { Tier::Quick } else { Tier::Optimised };
        let plugin = self.load_at(name, wasm, tier, Priority::Awaited)?;
        match plugin.kind() {
            PluginKind::Transform => Ok(plugin),
            PluginKind::Connector => self.optimised(&plugin, Priority::Awaited),
        }
    }

    /// The same plugin with optimised code. It takes up to seconds, and lowers the priority of the calling thread
    /// for good. Call this on a thread made for it.
    ///
    /// # Errors
    /// If the compiler fails at it.
    pub fn optimise(&self, plugin: &Plugin) -> Result<Plugin, LoadError> {
        self.optimised(plugin, Priority::Lowest)
    }

    /// Says that every plugin that is wanted for now has been loaded: from here on the cache makes room by
    /// removing code that nobody uses, and what it has too much of goes at once.
    pub fn loaded_all(&self) {
        if let Some(cache) = &self.shared.cache
            && let Err(error) = cache.make_room_from_now_on()
        {
            tracing::warn!(%error, "the cache of compiled code cannot be tidied");
        }
    }

    fn optimised(&self, plugin: &Plugin, priority: Priority) -> Result<Plugin, LoadError> {
        match &plugin.loaded.unoptimised {
            Some(wasm) => self.load_at(plugin.name(), wasm, Tier::Optimised, priority),
            None => Ok(plugin.clone()),
        }
    }

    fn load_at(&self, name: &str, wasm: &[u8], tier: Tier, priority: Priority) -> Result<Plugin, LoadError> {
        caught(|| self.try_load(name, wasm, tier, priority))
            .map_err(|problem| LoadError { plugin: foreign_text::shown(name), problem: problem.shown() })
    }

    fn try_load(
        &self,
        name: &str,
        wasm: &[u8],
        tier: Tier,
        priority: Priority,
    ) -> Result<Plugin, LoadProblem> {
        let start = Instant::now();
        check_start(wasm)?;
        let sum: Sha256Sum = Sha256::digest(wasm).into();
        let in_use = self.shared.cache.as_ref().map(|cache| cache.hold(sum));
        let (runtime, component, is_from_cache) = match self.find(name, &sum) {
            Some(component) => (self.shared.optimised.clone(), component, true),
            None => {
                priority.take();
                let (runtime, component) = match tier {
                    Tier::Quick => self.compile_quickly(wasm, priority)?,
                    Tier::Optimised => {
                        (self.shared.optimised.clone(), self.compile(name, wasm, &sum, priority)?)
                    }
                };
                (runtime, component, false)
            }
        };
        let unoptimised = (tier == Tier::Quick && !is_from_cache).then(|| wasm.to_vec());
        let (component, exported) = check(&runtime, &component)?;
        let imports = component.component().component_type();
        let imports = imports.imports(runtime.engine()).map(|(name, _)| name.to_owned()).collect();
        let version = format!("sha256:{}", hex(&sum)).into();
        let load_time = start.elapsed();
        let name = name.into();
        let loaded = LoadedPlugin {
            runtime,
            name,
            version,
            component,
            exported,
            imports,
            load_time,
            is_from_cache,
            unoptimised,
            _in_use: in_use,
        };
        Ok(Plugin { loaded: Arc::new(loaded) })
    }

    /// A component out of the cache, if there is one that can be used.
    fn find(&self, name: &str, sum: &Sha256Sum) -> Option<Component> {
        let refused = match self.shared.cache.as_ref()?.load(sum) {
            CachedCode::Absent => return None,
            CachedCode::Refused(reason) => reason,
            CachedCode::Code(code) => {
                // The cache gives back only what this user's host wrote: private files, whole by their digest.
                match self.shared.optimised.deserialize(&code) {
                    Ok(component) => return Some(component),
                    Err(error) => format!("{error:#}"),
                }
            }
        };
        tracing::warn!(plugin = name, reason = refused, "cached code refused, compiling again");
        None
    }

    /// Compiles for soon. What Winch does not know all of is compiled without optimising.
    fn compile_quickly(
        &self,
        wasm: &[u8],
        priority: Priority,
    ) -> Result<(Arc<Runtime>, Component), LoadProblem> {
        if let Some(quick) = self.quick()
            && let Ok(component) = quick.compile(wasm, priority)
        {
            return Ok((quick, component));
        }
        let optimised = &self.shared.optimised;
        Ok((optimised.clone(), optimised.compile_plainly(wasm, priority)?))
    }

    /// What quick code runs in, where Winch knows the machine.
    fn quick(&self) -> Option<Arc<Runtime>> {
        let quick = self.shared.quick.get_or_init(|| match Runtime::quick(self.shared.traces) {
            Ok(runtime) => runtime.map(Arc::new),
            Err(error) => {
                tracing::info!(%error, "large plugins take longer here until they run");
                None
            }
        });
        quick.clone()
    }

    fn compile(
        &self,
        name: &str,
        wasm: &[u8],
        sum: &Sha256Sum,
        priority: Priority,
    ) -> Result<Component, LoadProblem> {
        let optimised = &self.shared.optimised;
        let Some(cache) = &self.shared.cache else { return optimised.compile(wasm, priority) };
        let functions = (wasm.len() >= QUICK_FROM_BYTES).then(|| Arc::new(known_functions(cache)));
        let code = optimised.compile_to_code(wasm, priority, functions.clone())?;
        let mut stored = cache.store(sum, &code);
        if let Some(kept) = functions.and_then(|functions| functions.to_keep()) {
            stored = stored.and_then(|()| cache.store(&FUNCTIONS, &kept));
        }
        if let Err(error) = stored {
            tracing::warn!(plugin = name, %error, "compiled code not cached");
        }
        optimised.deserialize(&code).map_err(|error| LoadProblem::invalid(format!("{error:#}")))
    }
}

impl Plugin {
    /// Its name: the file's, without `.wasm`.
    pub fn name(&self) -> &Arc<str> {
        &self.loaded.name
    }

    /// Its digest, `sha256:` and hexadecimal digits.
    pub fn version(&self) -> &Arc<str> {
        &self.loaded.version
    }

    /// What it is there for.
    pub fn kind(&self) -> PluginKind {
        match self.loaded.exported {
            Exported::Transformer(_) => PluginKind::Transform,
            Exported::Dialler(_) => PluginKind::Connector,
        }
    }

    /// The interfaces it imports.
    pub fn imports(&self) -> &[String] {
        &self.loaded.imports
    }

    /// The import by which it asks for HTTP, if it does.
    pub(super) fn http_import(&self) -> Option<&str> {
        self.loaded.imports.iter().map(String::as_str).find(|name| name.starts_with(HTTP))
    }

    /// How long it took to load: nearly all of it compilation, unless it came from the cache.
    pub fn load_time(&self) -> Duration {
        self.loaded.load_time
    }

    /// Whether its code is as fast as it will be.
    pub fn is_optimised(&self) -> bool {
        self.loaded.unoptimised.is_none()
    }

    /// Whether its code was found in the cache.
    pub fn is_from_cache(&self) -> bool {
        self.loaded.is_from_cache
    }

    /// What its code runs in.
    #[inline]
    pub(super) fn runtime(&self) -> &Runtime {
        &self.loaded.runtime
    }

    pub(super) fn component(&self) -> &InstancePre<StoreData> {
        &self.loaded.component
    }

    pub(super) fn exported(&self) -> &Exported {
        &self.loaded.exported
    }
}

/// The functions that the cache has of components compiled before. What cannot be used is made again, and replaced.
fn known_functions(cache: &Cache) -> KnownFunctions {
    match cache.load(&FUNCTIONS) {
        CachedCode::Code(kept) => KnownFunctions::of(kept),
        CachedCode::Absent => KnownFunctions::default(),
        CachedCode::Refused(reason) => {
            tracing::warn!(
                reason,
                "cached functions of plugins compiled before refused, compiling all again"
            );
            KnownFunctions::default()
        }
    }
}

/// Checks a component against the contract.
fn check(
    runtime: &Runtime,
    component: &Component,
) -> Result<(InstancePre<StoreData>, Exported), LoadProblem> {
    let engine = runtime.engine();
    let ty = component.component_type();
    let exports: Vec<&str> = ty.exports(engine).map(|(name, _)| name).collect();
    let Some(found) = FoundExport::among(&exports) else {
        return Err(LoadProblem::NoPlugin(match &exports[..] {
            [] => "nothing at all".into(),
            names => names.join(", "),
        }));
    };
    found.check_version()?;
    let missing: Vec<&str> =
        ty.imports(engine).map(|(name, _)| name).filter(|name| !is_offered(name)).collect();
    if !missing.is_empty() {
        return Err(LoadProblem::MissingImports(missing.join(", ")));
    }
    let linked = runtime.link(component);
    let linked = linked.map_err(|error| LoadProblem::MissingImports(format!("{error:#}")))?;
    let exported = found.check(component, engine, &linked)?;
    Ok((linked, exported))
}

/// What a panic of the compiler comes to: a refusal of the file that made it.
fn caught<T>(load: impl FnOnce() -> Result<T, LoadProblem>) -> Result<T, LoadProblem> {
    // What the panic left half done is the component in the making, which is gone.
    catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
        Err(LoadProblem::Uncompilable(text.to_owned()))
    })
}

/// The version of a plugin with this content: `sha256:` and its digest in hexadecimal.
pub fn version_of(wasm: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(wasm)))
}

/// Tells apart what is no component by its first bytes.
pub(super) fn check_start(wasm: &[u8]) -> Result<(), LoadProblem> {
    if wasm.is_empty() {
        return Err(LoadProblem::Empty);
    }
    if wasm.starts_with(COMPONENT_START) {
        return Ok(());
    }
    if wasm.starts_with(MODULE_START) {
        return Err(LoadProblem::CoreModule);
    }
    if COMPONENT_START.starts_with(wasm) {
        return Err(LoadProblem::Truncated("it ends within the header".into()));
    }
    Err(LoadProblem::NotWasm)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component that imports and exports empty interfaces of these names.
    fn component(import: Option<&str>, exports: &[&str]) -> Vec<u8> {
        let mut wasm = COMPONENT_START.to_vec();
        let mut section = |id: u8, contents: &[u8]| {
            wasm.extend([id, u8::try_from(contents.len()).unwrap()]);
            wasm.extend(contents);
        };
        let named = |name: &str| {
            let length = u8::try_from(name.len()).unwrap();
            [&[1, 0, length], name.as_bytes()].concat()
        };
        if let Some(name) = import {
            // One type: an interface without members. One import of it.
            section(7, &[1, 0x42, 0]);
            section(10, &[named(name), vec![5, 0]].concat());
        }
        for (index, name) in (u8::from(import.is_some())..).step_by(2).zip(exports) {
            // One instance without members, and its export, which is an instance again.
            section(5, &[1, 1, 0]);
            section(11, &[named(name), vec![5, index, 0]].concat());
        }
        wasm
    }

    fn problem(wasm: &[u8]) -> LoadProblem {
        let refused = Engine::try_new(None).unwrap().load("p", wasm).unwrap_err();
        assert!(refused.hint().is_some() && refused.to_string().starts_with("failed to load plugin p: "));
        refused.problem
    }

    #[test]
    fn what_is_no_component_is_told_by_its_first_bytes() {
        assert_eq!(problem(b""), LoadProblem::Empty);
        assert_eq!(problem(b"#!/bin/sh\n"), LoadProblem::NotWasm);
        assert_eq!(problem(MODULE_START), LoadProblem::CoreModule);
        assert!(matches!(problem(&COMPONENT_START[..5]), LoadProblem::Truncated(_)));
        let whole = component(None, &["a:b/c"]);
        assert!(matches!(problem(&whole[..whole.len() - 3]), LoadProblem::Truncated(_)));
        assert!(matches!(problem(&[&whole[..], &[99, 0]].concat()), LoadProblem::Malformed(_)));
    }

    #[test]
    fn what_is_async_is_refused_by_that_word() {
        let text = r#"(component
            (core module $m (func (export "f")) (func (export "c") (param i32 i32 i32) (result i32) i32.const 0))
            (core instance $i (instantiate $m))
            (func $f async (canon lift (core func $i "f")))
            (instance $x (export "process" (func $f)))
            (export "tidemill:plugin/transformer@0.1.0" (instance $x)))"#;
        let wasm = wat::parse_str(text).unwrap();
        assert_eq!(problem(&wasm), LoadProblem::Async);
        let inspected = crate::plugin::inspect("p", &wasm).unwrap_err();
        assert_eq!(inspected.problem, LoadProblem::Async);
    }

    #[test]
    fn only_who_asks_for_it_loses_priority() {
        let niceness = || {
            let thread = Some(rustix::thread::gettid());
            rustix::process::getpriority_process(thread).expect("a thread has one")
        };
        let wasm = component(None, &[]);
        let engine = Engine::try_new(None).unwrap();
        let before = niceness();
        engine.load("p", &wasm).unwrap_err();
        assert_eq!(niceness(), before);
        let beside = std::thread::spawn(move || {
            engine.load_standing_back("p", &wasm).unwrap_err();
            niceness()
        });
        assert_eq!(Some(beside.join().unwrap()), Priority::Awaited.niceness());
    }

    #[test]
    fn code_that_is_soon_there_comes_of_winch_where_that_is_trusted_and_else_of_cranelift_in_a_hurry() {
        let engine = Engine::try_new(None).unwrap();
        let module = "(component (core module (func (result i32) i32.const 1)))";
        let wasm = wat::parse_str(module).unwrap();
        let (runtime, _) = engine.compile_quickly(&wasm, Priority::OfCaller).unwrap();
        let is_optimised = Arc::ptr_eq(&runtime, &engine.shared.optimised);
        assert_eq!(is_optimised, cfg!(not(target_arch = "x86_64")));
        assert!(engine.shared.optimised.compile_plainly(&wasm, Priority::OfCaller).is_ok());
    }

    #[test]
    fn a_panic_of_the_compiler_is_a_refusal() {
        let panic = || -> Result<(), LoadProblem> { panic!("no register left for {}", "v7") };
        assert_eq!(caught(panic), Err(LoadProblem::Uncompilable("no register left for v7".into())));
        assert_eq!(caught(|| Ok(1)), Ok(1));
    }

    #[test]
    fn what_is_no_plugin_of_this_contract_is_refused_with_the_name() {
        assert_eq!(problem(&component(None, &[])), LoadProblem::NoPlugin("nothing at all".into()));
        assert_eq!(
            problem(&component(None, &["wasi:http/handler@0.2.0"])),
            LoadProblem::NoPlugin("wasi:http/handler@0.2.0".into())
        );
        for kind in ["transformer", "dialler"] {
            let next = &*format!("tidemill:plugin/{kind}@0.2.0");
            for import in [None, Some("tidemill:plugin/log@0.2.0")] {
                assert_eq!(problem(&component(import, &[next])), LoadProblem::OtherContract(next.into()));
            }
            let ours = &*format!("tidemill:plugin/{kind}@0.1.0");
            for exports in [&[ours][..], &[ours, next], &[next, ours]] {
                assert!(
                    matches!(problem(&component(None, exports)), LoadProblem::Mismatch(_)),
                    "it is looked at"
                );
            }
        }
        let ours = "tidemill:plugin/transformer@0.1.0";
        let wanted = "acme:mail/send@1.0.0";
        assert_eq!(problem(&component(Some(wanted), &[ours])), LoadProblem::MissingImports(wanted.into()));
    }
}
