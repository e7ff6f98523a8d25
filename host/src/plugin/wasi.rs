//! The WASI that guests of Python and other languages expect: there, and empty.
//!
//! No files, no arguments, no environment, no network. What they write to stdout and stderr goes to
//! the log, line by line. In a replay its clocks and random numbers are those of the replay.

use super::log::GuestLog;
use super::notes::{Times, begin_anew};
use super::replay::InstanceReplay;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _, TryRng};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::AsyncWrite;
use tracing::Level;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{HostWallClock, WasiCtx, WasiCtxBuilder, async_trait};

/// Bytes a guest may write at once.
const WRITE_BYTES: usize = 64 << 10;
/// Longest line, in bytes; the rest of it is left out. Much longer than what is shown of a line, so that a
/// secret at the end of that is still whole.
const MAX_LINE_BYTES: usize = 64 << 10;
/// Most random bytes in one call, which cannot be interrupted: more than any seed or key, and no work.
const MAX_RANDOM_BYTES: u64 = 64 << 10;
/// Most handles (of streams, of things to wait for) that an instance may have at a time. What can be waited
/// for takes two.
const MAX_HANDLES: usize = 4096;

/// What WASI has of an instance.
pub(super) struct Wasi {
    pub(super) context: WasiCtx,
    pub(super) resources: ResourceTable,
    stdout: LineLogger,
    stderr: LineLogger,
    /// `None` in a replay.
    live: Option<Arc<LiveWasi>>,
}

/// The time and the random numbers of an instance that is in no replay.
struct LiveWasi {
    /// Whether what the clock says is noted, or was: the usual instance needs no lock to tell the time.
    is_noted: AtomicBool,
    clock: Mutex<Times>,
    numbers: Mutex<StdRng>,
}

/// Shows WASI the time, and random numbers.
struct LiveSource(Arc<LiveWasi>);

impl Wasi {
    /// A context that gives nothing and takes lines.
    pub(super) fn new(log: &GuestLog, replay: Option<&InstanceReplay>) -> Self {
        let (stdout, stderr) = (LineLogger::new(log, Level::INFO), LineLogger::new(log, Level::WARN));
        let mut context = WasiCtxBuilder::new();
        context
            .stdout(stdout.clone())
            .stderr(stderr.clone())
            .max_random_size(MAX_RANDOM_BYTES)
            .allow_tcp(false)
            .allow_udp(false);
        let live = match replay {
            Some(replay) => {
                replay.prepare(&mut context);
                None
            }
            None => {
                let live = Arc::new(LiveWasi {
                    is_noted: AtomicBool::new(false),
                    clock: Mutex::default(),
                    numbers: Mutex::new(rand::make_rng()),
                });
                context.wall_clock(LiveSource(live.clone())).secure_random(LiveSource(live.clone()));
                Some(live)
            }
        };
        let context = context.build();
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(MAX_HANDLES);
        Self { context, resources, stdout, stderr, live }
    }

    /// From now on what the clock says is noted. What chance gives from here on can be given again with the seed.
    pub(super) fn note(&mut self) -> Option<[u8; 32]> {
        let live = self.live.as_ref()?;
        live.set_clock(Times::noting());
        Some(begin_anew(&mut locked(&live.numbers)))
    }

    /// What the clock has said.
    pub(super) fn take_notes(&mut self) -> Times {
        self.live.as_ref().map(|live| live.set_clock(Times::Unnoted)).unwrap_or_default()
    }

    /// From now on the clock says this, and chance gives what follows the seed.
    pub(super) fn follow(&mut self, said: Times, seed: Option<[u8; 32]>) {
        if let (Some(live), Some(seed)) = (&self.live, seed) {
            live.set_clock(said.repeating());
            *locked(&live.numbers) = StdRng::from_seed(seed);
        }
    }

    /// Writes what has no end of line yet.
    pub(super) fn end_lines(&self) {
        self.stdout.end();
        self.stderr.end();
    }
}

impl LiveWasi {
    /// Gives what was set before.
    fn set_clock(&self, clock: Times) -> Times {
        self.is_noted.store(!matches!(clock, Times::Unnoted), Relaxed);
        std::mem::replace(&mut *locked(&self.clock), clock)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HostWallClock for LiveSource {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if !self.0.is_noted.load(Relaxed) {
            return now();
        }
        // Nanoseconds of 64 bits last until the year 2554.
        let now_ns = || u64::try_from(now().as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(locked(&self.0.clock).say(now_ns))
    }
}

impl TryRng for LiveSource {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(locked(&self.0.numbers).next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(locked(&self.0.numbers).next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        locked(&self.0.numbers).fill_bytes(bytes);
        Ok(())
    }
}

/// An output stream that cuts what is written into lines.
#[derive(Clone, Debug)]
struct LineLogger {
    log: GuestLog,
    level: Level,
    partial: Arc<Mutex<Vec<u8>>>,
}

impl LineLogger {
    fn new(log: &GuestLog, level: Level) -> Self {
        Self { log: log.clone(), level, partial: Arc::default() }
    }

    fn take(&self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            {
                let mut partial = self.partial.lock().expect("nothing panics while it is held");
                let room = MAX_LINE_BYTES - partial.len();
                partial.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            if piece.ends_with(b"\n") {
                self.end();
            }
        }
    }

    fn end(&self) {
        let line = std::mem::take(&mut *self.partial.lock().expect("nothing panics while it is held"));
        if !line.is_empty() {
            let line = String::from_utf8_lossy(&line);
            if self.level == Level::WARN {
                self.log.note(|words| words.printed(&line));
            }
            self.log.write(self.level, &line);
        }
    }
}

impl IsTerminal for LineLogger {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LineLogger {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for LineLogger {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl Pollable for LineLogger {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for LineLogger {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Redacted;
    use crate::plugin::kind::PluginKind;
    use crate::plugin::log::GuestPlace;

    fn wasi() -> Wasi {
        let place = GuestPlace {
            pipeline: "p".into(),
            kind: PluginKind::Transform,
            name: "t".into(),
            plugin: "t".into(),
            is_shadow: false,
        };
        Wasi::new(&GuestLog::new(place, Redacted::plain("{}"), Arc::default()), None)
    }

    /// What the clock and chance give, twice.
    fn told(wasi: &Wasi) -> [(Duration, u64); 2] {
        let mut source = LiveSource(wasi.live.clone().expect("it is in no replay"));
        [(); 2].map(|()| (source.now(), source.next_u64()))
    }

    #[test]
    fn what_a_call_was_told_of_time_and_chance_another_is_told_too() {
        let (mut one, mut other) = (wasi(), wasi());
        assert_ne!(told(&one)[0].1, told(&other)[0].1);
        for _ in 0..2 {
            let seed = one.note();
            let first = told(&one);
            other.follow(one.take_notes(), seed);
            assert_eq!(told(&other), first);
            let (later, too) = (told(&one), told(&other));
            assert!(later[0].0 > first[1].0 && too[0].0 > first[1].0, "time goes on");
            assert_eq!(later.map(|(_, number)| number), too.map(|(_, number)| number));
        }
    }
}
