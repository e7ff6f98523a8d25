//! wasmtime's two compilers: one whose code is soon there, one whose code is fast.
//!
//! Winch compiles in one pass, Cranelift optimises. Their code does not mix, since it calls differently: each has a
//! [`Runtime`] of its own, with all that guests may import and a count of epochs. Both compile the functions of a
//! plugin side by side, on threads that stand back behind those of pipelines.

use super::fault::{EngineError, LoadProblem};
use super::functions::KnownFunctions;
use super::imports::{StoreData, linker};
use super::ticker::Ticker;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, OptLevel, RegallocAlgorithm, Strategy, WasmBacktraceDetails,
    WasmFeatures,
};

/// Stack that a guest may use, in bytes; recursion beyond it is a trap.
const GUEST_STACK_BYTES: usize = 1 << 20;
/// The same where nothing is kept in registers.
const QUICK_GUEST_STACK_BYTES: usize = 4 << 20;
/// What the host's functions need of the stack of a call on top.
const HOST_STACK_BYTES: usize = 1 << 20;

/// The proposals to WebAssembly that toolchains of plugins use by themselves, and more than one memory in a
/// module, which wasmtime uses to join the parts of a component. Every other is off: 64-bit memories and
/// tables, threads, exceptions, tail calls and whatever comes are code of the engine that no plugin needs,
/// and hostile ones would try.
const NEEDED: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::GC_TYPES)
    .union(WasmFeatures::COMPONENT_MODEL);

/// Most threads that compile one plugin: beyond, its largest function is what the others wait for.
const MOST_THREADS: usize = 8;

/// What compiling competes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// Whoever asks waits, and does nothing else.
    OfCaller,
    /// Pipelines run, and one of them waits for the code.
    Awaited,
    /// Pipelines run, and nobody waits for the code.
    Lowest,
}

/// What a trap is told with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traces {
    /// The names of functions.
    Names,
    /// Lines of the source too, where the plugin has a table of them (DWARF). To read one takes as long as a plugin
    /// makes it, which nothing interrupts: it is for plugins of whoever started the process.
    Lines,
}

/// One of the compilers, and what its code runs in.
pub(super) struct Runtime {
    engine: Engine,
    linker: Linker<StoreData>,
    ticker: Ticker,
    traces: Traces,
}

impl Runtime {
    /// Of code that is as fast as it will be.
    pub(super) fn optimised(traces: Traces) -> Result<Self, EngineError> {
        Self::of(&config(traces), traces)
    }

    /// Of code that is soon there. None where Winch is not trusted with plugins: on ARM it has no vectors, and had its
    /// worst faults.
    ///
    /// # Errors
    /// Winch does not know this machine.
    pub(super) fn quick(traces: Traces) -> Result<Option<Self>, EngineError> {
        if !cfg!(target_arch = "x86_64") {
            return Ok(None);
        }
        let mut quick = config(traces);
        // The entries of functions that are called through tables, and there may be thousands, are Cranelift's.
        quick
            .strategy(Strategy::Winch)
            .cranelift_opt_level(OptLevel::None)
            .cranelift_regalloc_algorithm(RegallocAlgorithm::SinglePass)
            .wasm_features(WasmFeatures::GC_TYPES, false)
            .max_wasm_stack(QUICK_GUEST_STACK_BYTES)
            .async_stack_size(QUICK_GUEST_STACK_BYTES + HOST_STACK_BYTES);
        Self::of(&quick, traces).map(Some)
    }

    fn of(config: &Config, traces: Traces) -> Result<Self, EngineError> {
        let failed = |error: wasmtime::Error| EngineError::Runtime(format!("{error:#}"));
        let engine = Engine::new(config).map_err(failed)?;
        let linker = linker(&engine).map_err(failed)?;
        let ticker =
            Ticker::try_new(engine.weak()).map_err(|error| EngineError::Runtime(error.to_string()))?;
        Ok(Self { engine, linker, ticker, traces })
    }

    /// Compiles a component.
    ///
    /// # Errors
    /// It is none, or is one that this compiler does not know all of.
    pub(super) fn compile(&self, wasm: &[u8], priority: Priority) -> Result<Component, LoadProblem> {
        side_by_side(priority, || Component::from_binary(&self.engine, wasm))
            .map_err(|error| malformed(&error))
    }

    /// The same without optimising, for the optimised code's runtime. What the code may do, and what interrupts it, is
    /// the same.
    pub(super) fn compile_plainly(&self, wasm: &[u8], priority: Priority) -> Result<Component, LoadProblem> {
        let mut plain = config(self.traces);
        plain.cranelift_opt_level(OptLevel::None).cranelift_regalloc_algorithm(RegallocAlgorithm::SinglePass);
        let code = side_by_side(priority, || Engine::new(&plain)?.precompile_component(wasm));
        self.deserialize(&code.map_err(|error| malformed(&error))?).map_err(|error| malformed(&error))
    }

    /// Compiles a component to code for [`Self::deserialize`]. Functions that are known are not compiled, and those that
    /// were not are then.
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub(super) fn compile_to_code(
        &self,
        wasm: &[u8],
        priority: Priority,
        functions: Option<Arc<KnownFunctions>>,
    ) -> Result<Vec<u8>, LoadProblem> {
        let mut knowing = config(self.traces);
        let code = side_by_side(priority, || {
            if let Some(functions) = functions {
                knowing.enable_incremental_compilation(functions)?;
            }
            Engine::new(&knowing)?.precompile_component(wasm)
        });
        code.map_err(|error| malformed(&error))
    }

    /// Code as this host has compiled it.
    pub(super) fn deserialize(&self, code: &[u8]) -> wasmtime::Result<Component> {
        #[expect(
            unsafe_code,
            reason = "both callers have it from the compiler: just now, or out of the cache"
        )]
        unsafe {
            Component::deserialize(&self.engine, code)
        }
    }

    /// Gives a component all that it may import.
    pub(super) fn link(&self, component: &Component) -> wasmtime::Result<InstancePre<StoreData>> {
        self.linker.instantiate_pre(component)
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    #[inline]
    pub(super) fn ticker(&self) -> &Ticker {
        &self.ticker
    }
}

/// Instances are mapped when they are made. A pool of mappings was measured against it, with up to
/// 1,000 instances of `forward`: 0.1 ms an instance and 60 KB of memory either way, and the pool needs
/// a bound on instances and on the size of their memories that nobody has asked for.
pub(super) fn config(traces: Traces) -> Config {
    let mut config = Config::new();
    config
        .wasm_backtrace_details(match traces {
            Traces::Names => WasmBacktraceDetails::Disable,
            Traces::Lines => WasmBacktraceDetails::Enable,
        })
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .concurrency_support(false)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(GUEST_STACK_BYTES + HOST_STACK_BYTES)
        .memory_init_cow(true)
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        .wasm_features(WasmFeatures::all().difference(NEEDED), false);
    config
}

/// What is wrong with bytes that cannot be compiled.
fn malformed(error: &wasmtime::Error) -> LoadProblem {
    let text = format!("{:#}", error.root_cause());
    if text.contains("component model async feature") {
        LoadProblem::Async
    } else {
        LoadProblem::invalid(text)
    }
}

impl Priority {
    /// How much its threads stand back behind others: of 19 they get hardly anything where pipelines want all of the
    /// machine, of 10 a tenth.
    pub(super) fn niceness(self) -> Option<i32> {
        match self {
            Self::OfCaller => None,
            Self::Awaited => Some(10),
            Self::Lowest => Some(19),
        }
    }

    /// Gives it to the calling thread, for good. Only on Linux a thread has a niceness of its own; elsewhere, and where
    /// it cannot be set, compiling competes with what runs.
    pub(super) fn take(self) {
        #[cfg(target_os = "linux")]
        if let Some(niceness) = self.niceness() {
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), niceness);
        }
    }

    fn pool(self) -> Option<&'static ThreadPool> {
        // Code that somebody waits for does not queue behind code that nobody does.
        static AWAITED: LazyLock<Option<ThreadPool>> = LazyLock::new(|| Priority::Awaited.threads());
        static LOWEST: LazyLock<Option<ThreadPool>> = LazyLock::new(|| Priority::Lowest.threads());
        match self {
            Self::OfCaller => None,
            Self::Awaited => AWAITED.as_ref(),
            Self::Lowest => LOWEST.as_ref(),
        }
    }

    fn threads(self) -> Option<ThreadPool> {
        let builder = ThreadPoolBuilder::new()
            .num_threads(available_parallelism().map_or(1, usize::from).min(MOST_THREADS))
            .thread_name(|number| format!("compile-{number}"))
            .start_handler(move |_| self.take());
        builder.build().ok()
    }
}

/// Does work whose parts are done side by side.
fn side_by_side<T: Send>(priority: Priority, work: impl FnOnce() -> T + Send) -> T {
    match priority.pool() {
        Some(pool) => pool.install(work),
        None => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTIONS: usize = 100;

    /// A component of many functions, of which the first gives this number.
    fn component(number: usize) -> Vec<u8> {
        let functions: String = (1..FUNCTIONS)
            .map(|n| format!("(func (export \"f{n}\") (param i32) (result i32) (i32.mul (local.get 0) (i32.const {n})))"))
            .collect();
        let first = format!("(func (export \"first\") (result i32) (i32.const {number}))");
        wat::parse_str(format!("(component (core module {first} {functions}))")).expect("it is well formed")
    }

    #[test]
    fn code_of_functions_that_are_known_is_the_code_that_would_be_made() {
        let runtime = Runtime::optimised(Traces::Names).expect("the machine can run plugins");
        let compile = |wasm: &[u8], functions: Option<&Arc<KnownFunctions>>| {
            let code = runtime.compile_to_code(wasm, Priority::OfCaller, functions.cloned());
            code.expect("it compiles")
        };
        let [first, next] = [1, 2].map(component);
        let known = Arc::new(KnownFunctions::of(Vec::new()));
        assert!(compile(&first, Some(&known)) == compile(&first, None));
        let kept = known.to_keep().expect("all were new");

        let known = Arc::new(KnownFunctions::of(kept.clone()));
        assert!(compile(&first, Some(&known)) == compile(&first, None));
        // What is left of the function before in a compiler's tables counts for the digest, so that not every one is found.
        assert!(known.met_again() > FUNCTIONS / 2, "{} were known", known.met_again());
        let known = Arc::new(KnownFunctions::of(kept));
        assert!(compile(&next, Some(&known)) == compile(&next, None));
        assert!(known.met_again() > FUNCTIONS / 2, "{} were known", known.met_again());
        assert!(runtime.deserialize(&compile(&next, Some(&known))).is_ok());
    }
}
