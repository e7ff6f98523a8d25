//! Compiling plugins off the hot path: a few at a time, on threads that stand back behind those of pipelines.

use crate::plugin::{Engine, LoadError, Plugin};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Most plugins that are compiled at once: memory for each is some hundred megabytes at worst.
const MOST_AT_ONCE: usize = 4;
/// Longest that compiling a plugin may take: twenty times what the largest take beside other work.
const DEADLINE: Duration = Duration::from_secs(600);

/// Where plugins are compiled.
#[derive(Clone, Debug)]
pub(super) struct Compiler {
    engine: Engine,
    slots: Arc<Semaphore>,
    /// Room of its own, for one plugin: content that is to run does not wait until code of another is optimised.
    optimising: Arc<Semaphore>,
}

/// Room to compile one plugin, free again when its thread ends.
#[derive(Debug)]
pub(super) struct CompileSlot {
    engine: Engine,
    permit: OwnedSemaphorePermit,
}

impl Compiler {
    pub(super) fn new(engine: Engine) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let slots = Arc::new(Semaphore::new(processors.min(MOST_AT_ONCE)));
        Self { engine, slots, optimising: Arc::new(Semaphore::new(1)) }
    }

    /// The engine that compiles.
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Room for one plugin that is to run, if there is some.
    pub(super) fn slot(&self) -> Option<CompileSlot> {
        self.slot_of(&self.slots)
    }

    /// Room to optimise the code of one that runs, if there is some.
    pub(super) fn optimising_slot(&self) -> Option<CompileSlot> {
        self.slot_of(&self.optimising)
    }

    fn slot_of(&self, slots: &Arc<Semaphore>) -> Option<CompileSlot> {
        let permit = slots.clone().try_acquire_owned().ok()?;
        Some(CompileSlot { engine: self.engine.clone(), permit })
    }
}

/// The plugin when it is compiled, or why it is none; and when its room is free.
pub(super) type Compiling = (oneshot::Receiver<Result<Plugin, String>>, oneshot::Receiver<()>);

impl CompileSlot {
    /// Compiles a plugin, or loads its compiled code from the cache, on a thread of its own.
    pub(super) fn compile(self, name: String, wasm: Bytes) -> Compiling {
        self.spawn(&name.clone(), move |engine| engine.load_standing_back(&name, &wasm))
    }

    /// Makes optimised code for a plugin that runs without.
    pub(super) fn optimise(self, plugin: Plugin) -> Compiling {
        self.spawn(&plugin.name().clone(), move |engine| engine.optimise(&plugin))
    }

    fn spawn(
        self,
        name: &str,
        load: impl FnOnce(&Engine) -> Result<Plugin, LoadError> + Send + 'static,
    ) -> Compiling {
        let Self { engine, permit } = self;
        let (ended, left) = oneshot::channel();
        (spawn(engine, name, load, (permit, ended)), left)
    }
}

/// What compiling came to, at the latest at its deadline: nothing can interrupt the thread.
pub(super) async fn compiled(loaded: oneshot::Receiver<Result<Plugin, String>>) -> Result<Plugin, String> {
    match tokio::time::timeout(DEADLINE, loaded).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err("compiling it met a fault of the host; the log has the panic".to_owned()),
        Err(_) => Err(format!("compiling it takes longer than {} s", DEADLINE.as_secs())),
    }
}

/// Compiles a plugin, or loads its compiled code from the cache.
pub(super) async fn compile(engine: Engine, name: String, wasm: Bytes) -> Result<Plugin, String> {
    let label = name.clone();
    compiled(spawn(engine, &label, move |engine| engine.load_standing_back(&name, &wasm), ())).await
}

/// Starts a thread that answers with the plugin, or with why it is none, and keeps `kept` until it ends.
fn spawn(
    engine: Engine,
    name: &str,
    load: impl FnOnce(&Engine) -> Result<Plugin, LoadError> + Send + 'static,
    kept: impl Send + 'static,
) -> oneshot::Receiver<Result<Plugin, String>> {
    let (sender, loaded) = oneshot::channel();
    let spawned = std::thread::Builder::new().name(format!("compile-{name}")).spawn(move || {
        let _kept = kept;
        let result = load(&engine).map_err(|error| error.to_string());
        // Whoever asked may have given up, or be gone at a shutdown.
        let _ = sender.send(result);
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread to compile a plugin on");
    }
    loaded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_that_is_to_run_has_room_while_code_of_others_is_optimised() {
        let compiler = Compiler::new(Engine::try_new(None).expect("an engine starts"));
        let optimising = compiler.optimising_slot();
        assert!(optimising.is_some() && compiler.optimising_slot().is_none(), "one at a time");
        let slots: Vec<_> = std::iter::from_fn(|| compiler.slot()).collect();
        assert!(!slots.is_empty());
        drop(optimising);
        assert!(compiler.optimising_slot().is_some(), "nor does it wait for those");
    }
}
