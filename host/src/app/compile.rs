//! Compiling plugins off the hot path: one at a time, on a thread of its own.

use crate::plugin::{Engine, LoadError, Plugin};
use tokio::sync::oneshot;

/// Compiles a plugin, or loads its compiled code from the cache.
pub(super) async fn compile(engine: Engine, name: String, wasm: Vec<u8>) -> Result<Plugin, LoadError> {
    let (sender, loaded) = oneshot::channel();
    let thread = std::thread::Builder::new().name(format!("compile-{name}")).spawn(move || {
        // Whoever asked may be gone at a shutdown.
        let _ = sender.send(engine.load_standing_back(&name, &wasm));
    });
    let thread = thread.expect("a thread can be made");
    let loaded = loaded.await.expect("compiling answers, or the process is out of memory");
    // It has sent its answer: it is about to end.
    let _ = thread.join();
    loaded
}
