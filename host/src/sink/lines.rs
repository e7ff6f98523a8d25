//! The sinks `file` and `stdout`: a thread that writes lines, behind a queue.
//!
//! Lines are gathered while batches wait, and written and flushed when none does. A message counts as
//! delivered once its line is written; where writing fails, the messages whose lines are not out whole
//! have failed, and the next line starts on a fresh one.

use super::{Done, Sink, Work, queue};
use crate::config::{FilePath, Format};
use crate::message::{Failed, Message};
use crate::reason::Reason;
use crate::recording;
use crate::telemetry::SinkMetrics;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::thread;

/// Lines are written out when so many bytes have gathered, however many batches wait.
const WRITE_BYTES: usize = 256 << 10;

/// A sink that writes a file; with `append` after what is there, otherwise instead of it.
///
/// # Errors
/// If the file cannot be opened.
pub fn file(path: &FilePath, format: Format, append: bool, metrics: SinkMetrics) -> io::Result<Sink> {
    spawn(Output::create(path, append)?, format, path.to_string(), metrics)
}

/// A sink that writes standard output.
///
/// # Errors
/// If there is none.
pub fn stdout(format: Format, metrics: SinkMetrics) -> io::Result<Sink> {
    // Not through the standard library's own buffer, which is written out at every line.
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    spawn(Output::Plain(output), format, "stdout".into(), metrics)
}

/// A sink that writes standard error.
///
/// # Errors
/// If there is none.
pub fn stderr(format: Format, metrics: SinkMetrics) -> io::Result<Sink> {
    let output = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    spawn(Output::Plain(output), format, "stderr".into(), metrics)
}

/// A file that is written, packed if its name ends in `.gz`.
#[derive(Debug)]
pub enum Output {
    /// As it is.
    Plain(File),
    /// Packed. Appending adds a second member to the file, which every reader of gzip takes as one text.
    Packed(GzEncoder<File>),
}

impl Output {
    /// Opens a file to write it.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn create(path: &Path, append: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        if append {
            options.append(true)
        } else {
            options.write(true).truncate(true)
        };
        let file = options.create(true).open(path)?;
        let is_packed = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
        Ok(if is_packed {
            Self::Packed(GzEncoder::new(file, Compression::default()))
        } else {
            Self::Plain(file)
        })
    }

    /// Writes what is left, and the trailer of a packed file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(mut file) => file.flush(),
            Self::Packed(packed) => packed.finish()?.flush(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Packed(packed) => packed.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Packed(packed) => packed.flush(),
        }
    }
}

fn spawn(output: Output, format: Format, name: String, metrics: SinkMetrics) -> io::Result<Sink> {
    let (queue, work) = queue(metrics);
    let writer =
        Writer { output, format, lines: Vec::new(), ends: Vec::new(), messages: Vec::new(), is_torn: false };
    // The queue's end is that the thread drops its work, which it does last.
    thread::Builder::new().name("tidemill-write".into()).spawn(move || run(writer, &name, work))?;
    Ok(Sink::Queue(queue))
}

fn run(mut writer: Writer<Output>, name: &str, mut work: Work) {
    while let Some(batch) = work.blocking_next() {
        writer.add(batch);
        if work.is_idle() || writer.lines.len() >= WRITE_BYTES {
            work.done(writer.write_out(name));
        }
    }
    if let Err(error) = writer.output.finish() {
        tracing::error!(path = name, %error, "failed to finish the file");
    }
    drop(work);
}

/// Lines that gather, and where they go.
struct Writer<W> {
    output: W,
    format: Format,
    lines: Vec<u8>,
    /// The messages of `lines`, and where the line of each ends.
    messages: Vec<Message>,
    ends: Vec<usize>,
    /// Whether the last line in the output is not whole.
    is_torn: bool,
}

impl<W: Write> Writer<W> {
    fn add(&mut self, batch: Vec<Message>) {
        if self.is_torn && self.lines.is_empty() {
            self.lines.push(b'\n');
        }
        for message in &batch {
            let time_ns = message.metadata.received_us().saturating_mul(1000);
            recording::write(&message.payload, time_ns, self.format, &mut self.lines);
            self.ends.push(self.lines.len());
        }
        self.messages.extend(batch);
    }

    /// Writes what has gathered, and says what became of it.
    fn write_out(&mut self, name: &str) -> Done {
        let (written, error) = write_lines(&mut self.output, &self.lines);
        let delivered = self.ends.partition_point(|end| *end <= written);
        if written > 0 {
            self.is_torn = self.lines[written - 1] != b'\n';
        }
        self.lines.clear();
        self.ends.clear();
        let mut done = Done { delivered: delivered as u64, failed: Vec::new() };
        let lost = self.messages.drain(..).skip(delivered);
        if let Some(error) = error {
            let detail = format!("failed to write {name}: {error}");
            let failed =
                |message| Failed { message, reason: Reason::SinkUnavailable, detail: detail.clone() };
            done.failed.extend(lost.map(failed));
        }
        done
    }
}

/// Writes and flushes; how many bytes were taken, and the error that ended it.
fn write_lines(output: &mut impl Write, lines: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < lines.len() {
        match output.write(&lines[written..]) {
            Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Some(error)),
        }
    }
    // What a flush lost cannot be told apart from what it did not.
    match output.flush() {
        Ok(()) => (written, None),
        Err(error) => (0, Some(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Payload;
    use crate::metadata::Metadata;
    use crate::telemetry::Metrics;
    use std::future::poll_fn;

    fn message(text: &str) -> Message {
        Message { payload: Payload::text(text), metadata: Metadata::without_origin(7) }
    }

    /// Takes `left` bytes, then no more.
    struct Full {
        taken: Vec<u8>,
        left: usize,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.left);
            if n == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.left -= n;
            self.taken.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_fails_the_messages_whose_lines_are_not_whole_and_no_other_line() {
        let output = Full { taken: Vec::new(), left: 7 };
        let mut writer = Writer {
            output,
            format: Format::Jsonl,
            lines: Vec::new(),
            messages: Vec::new(),
            ends: Vec::new(),
            is_torn: false,
        };
        writer.add(["one", "two", "three"].map(message).into());
        let done = writer.write_out("f");
        assert_eq!(done.delivered, 1);
        let failed: Vec<_> = done.failed.iter().map(|failed| failed.message.payload.as_text()).collect();
        assert_eq!(failed, [Some("two"), Some("three")]);
        assert!(done.failed[0].detail.starts_with("failed to write f: "));
        writer.output.left = 100;
        writer.add(vec![message("four")]);
        assert_eq!(writer.write_out("f").delivered, 1);
        assert_eq!(writer.output.taken, b"one\ntwo\nfour\n");
    }

    async fn send(sink: &mut Sink, messages: impl IntoIterator<Item = Message>) -> Vec<Failed> {
        let mut failed = Vec::new();
        for message in messages {
            poll_fn(|cx| sink.poll_ready(cx)).await;
            sink.push(message, &mut failed);
        }
        poll_fn(|cx| sink.poll_flush(cx, &mut failed)).await;
        failed
    }

    #[tokio::test]
    async fn a_packed_file_that_is_appended_to_reads_as_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = FilePath::plain(folder.path().join("out.jsonl.gz"));
        let metrics = Metrics::default();
        for append in [false, true] {
            let metrics = metrics.sink("p", "s");
            let mut sink = file(&path, Format::Recording, append, metrics.clone()).expect("it opens");
            let failed = send(&mut sink, (0..1_000).map(|n| message(&n.to_string()))).await;
            assert!(failed.is_empty());
            assert_eq!(sink.in_flight(), 0);
            let mut failed = Vec::new();
            poll_fn(|cx| sink.poll_close(cx, 1001, &mut failed)).await;
        }
        assert_eq!(metrics.sink("p", "s").delivered.get(), 2_000);
        let mut text = String::new();
        let mut unpacked = flate2::read::MultiGzDecoder::new(File::open(&*path).expect("it is there"));
        io::Read::read_to_string(&mut unpacked, &mut text).expect("it unpacks");
        let expected: String = (0..1_000).chain(0..1_000).map(|n| format!("7000 {n}\n")).collect();
        assert_eq!(text, expected);
    }

    #[tokio::test]
    async fn without_append_the_file_starts_anew_and_is_flushed_while_open() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = FilePath::plain(folder.path().join("out.jsonl"));
        std::fs::write(&*path, "old\n").expect("it is written");
        let mut sink =
            file(&path, Format::Jsonl, false, Metrics::default().sink("p", "s")).expect("it opens");
        assert!(send(&mut sink, [message("new")]).await.is_empty());
        assert_eq!(std::fs::read_to_string(&*path).expect("it is there"), "new\n");
    }
}
