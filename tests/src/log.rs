//! What a process writes to its log, line by line as it comes, and waiting for a line.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// The log of a running process, in JSON.
#[derive(Debug)]
pub(crate) struct Log {
    lines: Arc<Lines>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Lines {
    text: Mutex<String>,
    /// Told at each new line.
    grew: Condvar,
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, String> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// Reads a log until it ends.
    pub(crate) fn read(from: impl Read + Send + 'static) -> Self {
        let lines = Arc::<Lines>::default();
        let reader = std::thread::spawn({
            let lines = lines.clone();
            move || {
                for line in BufReader::new(from).lines().map_while(Result::ok) {
                    let mut text = lines.lock();
                    text.push_str(&line);
                    text.push('\n');
                    lines.grew.notify_all();
                }
            }
        });
        Self { lines, reader: Some(reader) }
    }

    /// All lines so far.
    pub(crate) fn text(&self) -> String {
        self.lines.lock().clone()
    }

    /// Waits until the log has ended, as it does with its process.
    ///
    /// # Panics
    /// If reading it panicked.
    pub(crate) fn end(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading the log does not panic");
        }
    }

    /// Waits for a line, new or old: `find` is given its fields. `None` if it has not come by `deadline`.
    pub(crate) fn wait_for<T>(
        &self,
        deadline: Instant,
        find: impl Fn(&serde_json::Value) -> Option<T>,
    ) -> Option<T> {
        let mut text = self.lines.lock();
        let mut seen = 0;
        loop {
            for line in text[seen..].lines() {
                let line = serde_json::from_str::<serde_json::Value>(line).ok();
                if let Some(found) = line.as_ref().and_then(|line| find(line.get("fields")?)) {
                    return Some(found);
                }
            }
            seen = text.len();
            let left = deadline.checked_duration_since(Instant::now())?;
            text = self.lines.grew.wait_timeout(text, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
