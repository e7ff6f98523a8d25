//! The sinks `file` and `stdout`: a thread that writes lines, behind a queue.
//!
//! Lines are gathered while batches wait, and written and flushed when none does. A message counts as
//! delivered once its line is written; where writing fails, the messages whose lines are not out whole
//! have failed, and the next line starts on a fresh one. So it does behind a line that was found torn.

use super::gzip::{GzipPacker, mend};
use super::target::LineTarget;
use super::{Receipt, Sink, SinkQueue, Work, queue};
use crate::config::{FilePath, Format};
use crate::interrupt::{Interrupt, interrupt};
use crate::message::{Failed, Message};
use crate::reason::Reason;
use crate::recording;
use crate::telemetry::SinkMetrics;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use tokio::sync::oneshot;

/// Lines are written out when so many bytes have gathered, however many batches wait.
const WRITE_BYTES: usize = 256 << 10;

/// A sink that writes a file; with `append` after what is there, otherwise instead of it. A FIFO is
/// opened once somebody reads it; until then messages wait.
///
/// # Errors
/// If the file cannot be opened.
pub async fn file(path: &FilePath, format: Format, append: bool, metrics: SinkMetrics) -> io::Result<Sink> {
    open_file(path, LineForm::Of(format), append, metrics).await
}

async fn open_file(path: &FilePath, form: LineForm, append: bool, metrics: SinkMetrics) -> io::Result<Sink> {
    let name = path.to_string();
    // Where the file lies on a network, opening it may take its time; so may mending a long one.
    let opened = tokio::task::spawn_blocking({
        let (path, pipeline) = (path.clone(), metrics.pipeline().to_owned());
        move || open(&path, append, &pipeline)
    });
    let (output, is_torn, interrupt) = opened.await.map_err(io::Error::other)??;
    let writer = Writer::new(output, form, is_torn);
    let (begin, begun) = oneshot::channel();
    let sink = spawn(writer, interrupt, name, metrics, (!append).then_some(begun))?;
    Ok(Sink::Queue(sink.beginning(begin)))
}

/// A sink that writes a file in the place of what is there, whose messages are lines as they are to be written,
/// without their ends.
///
/// # Errors
/// If the file cannot be opened.
pub(crate) async fn file_of_lines(path: &FilePath, metrics: SinkMetrics) -> io::Result<Sink> {
    open_file(path, LineForm::Whole, false, metrics).await
}

/// Which errors of a write end a sink, and its pipeline with it. After any other the next message is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FatalWrite {
    /// That nobody will ever read again.
    NobodyReads,
    /// Any.
    AnyError,
}

/// A sink that writes standard output.
///
/// # Errors
/// If there is none.
pub fn stdout(format: Format, fatal: FatalWrite, metrics: SinkMetrics) -> io::Result<Sink> {
    // Not through the standard library's own buffer, which is written out at every line.
    let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    stream(file, format, fatal, "stdout", metrics)
}

/// A sink that writes standard error.
///
/// # Errors
/// If there is none.
pub fn stderr(format: Format, metrics: SinkMetrics) -> io::Result<Sink> {
    let file = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    stream(file, format, FatalWrite::NobodyReads, "stderr", metrics)
}

fn stream(
    file: File,
    format: Format,
    fatal: FatalWrite,
    name: &str,
    metrics: SinkMetrics,
) -> io::Result<Sink> {
    let (interrupt, waiter) = interrupt()?;
    let output = Output::Plain(LineTarget::stream(file, waiter));
    let writer = Writer { fatal, ..Writer::new(output, LineForm::Of(format), false) };
    Ok(Sink::Queue(spawn(writer, interrupt, name.to_owned(), metrics, None)?))
}

/// Opens a file to write it, packed if its name ends in `.gz`. Says whether its last line is not whole.
fn open(path: &FilePath, append: bool, pipeline: &str) -> io::Result<(Output<LineTarget>, bool, Interrupt)> {
    let (interrupt, waiter) = interrupt()?;
    let target = LineTarget::open(path, append, waiter)?;
    let is_packed = path.is_packed();
    let mut last = None;
    let mut loose = Vec::new();
    let mut is_empty = false;
    if let Some(file) = target.file() {
        is_empty = !append || file.metadata()?.len() == 0;
        if append && is_packed {
            let mended = mend(file)?;
            (last, loose) = (mended.loose.last().copied().or(mended.last), mended.loose);
            if mended.was_torn {
                let (cut_bytes, saved_bytes) = (mended.cut_bytes, loose.len());
                tracing::warn!(pipeline, %path, cut_bytes, saved_bytes, "gzip file was torn, and is whole again");
            }
        } else if append {
            last = last_byte(file)?;
        }
    }
    let is_torn = last.is_some_and(|byte| byte != b'\n');
    if is_torn {
        tracing::warn!(pipeline, %path, "last line of a file is not whole; what is appended starts on a new one");
    }
    if !is_packed {
        return Ok((Output::Plain(target), is_torn, interrupt));
    }
    let mut output = Output::Packed(target, Box::new(GzipPacker::new(is_empty)));
    match output.write(&loose) {
        (_, None) => Ok((output, is_torn, interrupt)),
        (_, Some(error)) => Err(error),
    }
}

fn last_byte(file: &File) -> io::Result<Option<u8>> {
    use std::os::unix::fs::FileExt as _;
    let length = file.metadata()?.len();
    let mut last = [0];
    let is_there = length > 0 && file.read_at(&mut last, length - 1)? > 0;
    Ok(is_there.then_some(last[0]))
}

/// Starts the thread that writes. With `begun` the file is emptied once that is told, and is not touched
/// where it never is: a pipeline that does not start leaves its files as they are.
fn spawn(
    mut writer: Writer<LineTarget>,
    interrupt: Interrupt,
    name: String,
    metrics: SinkMetrics,
    begun: Option<oneshot::Receiver<()>>,
) -> io::Result<SinkQueue> {
    let pipeline = metrics.pipeline().to_owned();
    let (queue, mut work) = queue(metrics);
    // The queue's end is that the thread drops its work, which it does last.
    thread::Builder::new().name("tidemill-write".into()).spawn(move || {
        if let Some(begun) = begun {
            if begun.blocking_recv().is_err() {
                return;
            }
            if let Err(error) = writer.output.target().start_anew() {
                work.fail(Receipt::default(), format!("failed to empty {name}: {error}"));
                return;
            }
        }
        while let Some(batch) = work.blocking_next() {
            // A fault of ours must not take messages with it uncounted.
            let worked = catch_unwind(AssertUnwindSafe(|| writer.take(batch, &name, &mut work)));
            if worked.is_err() {
                let error = format!("the thread that writes {name} has panicked");
                work.fail(writer.forget(&error), error);
                return;
            }
        }
        if let Err(error) = writer.output.finish() {
            tracing::error!(pipeline, path = name, %error, "failed to finish the file");
        }
    })?;
    Ok(queue.interrupting(interrupt))
}

/// What can be written, and have the last of it taken back, if that is possible.
trait Undo: Write {
    /// Takes the last bytes back that were written; whether they are gone.
    fn undo(&mut self, bytes: usize) -> bool;
}

impl Undo for LineTarget {
    fn undo(&mut self, bytes: usize) -> bool {
        self.take_back(bytes)
    }
}

/// How lines get where they go.
#[derive(Debug)]
enum Output<T> {
    /// As they are.
    Plain(T),
    /// Packed.
    Packed(T, Box<GzipPacker>),
}

impl<T> Output<T> {
    fn target(&self) -> &T {
        match self {
            Self::Plain(target) | Self::Packed(target, _) => target,
        }
    }
}

impl<T: Undo> Output<T> {
    /// Writes lines; how many bytes of them are out, and the error that ended it.
    fn write(&mut self, lines: &[u8]) -> (usize, Option<io::Error>) {
        match self {
            _ if lines.is_empty() => (0, None),
            Self::Plain(target) => write(target, lines),
            Self::Packed(target, packer) => {
                let (packed, piece) = packer.pack(lines);
                match write(target, packed) {
                    (_, None) => {
                        packer.written(piece);
                        (lines.len(), None)
                    }
                    (written, Some(error)) => {
                        // Where it cannot be taken back, nobody can read what follows anyhow.
                        target.undo(written);
                        packer.cut();
                        (0, Some(error))
                    }
                }
            }
        }
    }

    /// Writes what a packed file still lacks to be whole.
    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Packed(target, packer) => match write(target, &packer.finish()) {
                (_, None) => Ok(()),
                (_, Some(error)) => Err(error),
            },
        }
    }
}

/// Writes; how many bytes were taken, and the error that ended it.
fn write(output: &mut impl Write, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match output.write(&bytes[written..]) {
            Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
}

/// How a message becomes a line.
#[derive(Clone, Copy, Debug)]
enum LineForm {
    /// As a format has it.
    Of(Format),
    /// It is one.
    Whole,
}

/// Lines that gather, and where they go.
#[derive(Debug)]
struct Writer<T> {
    output: Output<T>,
    form: LineForm,
    lines: Vec<u8>,
    /// The messages of `lines`, and where the line of each ends.
    messages: Vec<Message>,
    ends: Vec<usize>,
    /// Whether the last line in the output is not whole.
    is_torn: bool,
    fatal: FatalWrite,
}

impl<T: Undo> Writer<T> {
    fn new(output: Output<T>, form: LineForm, is_torn: bool) -> Self {
        Self {
            output,
            form,
            lines: Vec::new(),
            messages: Vec::new(),
            ends: Vec::new(),
            is_torn,
            fatal: FatalWrite::NobodyReads,
        }
    }

    /// Takes a batch, and writes it out with what has gathered if no more comes at once.
    fn take(&mut self, batch: Vec<Message>, name: &str, work: &mut Work) {
        for message in batch {
            self.add(message);
            if self.lines.len() >= WRITE_BYTES {
                self.write_out(name, work);
            }
        }
        if work.is_idle() {
            self.write_out(name, work);
        }
    }

    fn add(&mut self, message: Message) {
        if self.is_torn && self.lines.is_empty() {
            self.lines.push(b'\n');
        }
        match self.form {
            LineForm::Of(format) => {
                let time_ns = message.metadata.received_us().saturating_mul(1000);
                recording::write(&message.payload, time_ns, format, &mut self.lines);
            }
            LineForm::Whole => {
                self.lines.extend_from_slice(message.payload.as_bytes());
                self.lines.push(b'\n');
            }
        }
        self.ends.push(self.lines.len());
        self.messages.push(message);
    }

    /// Writes what has gathered, and says what became of it.
    fn write_out(&mut self, name: &str, work: &mut Work) {
        if self.lines.is_empty() {
            return;
        }
        let (written, error) = self.output.write(&self.lines);
        let delivered = self.ends.partition_point(|end| *end <= written);
        if written > 0 {
            self.is_torn = self.lines[written - 1] != b'\n';
        }
        self.messages.drain(..delivered);
        let why = error.map(|error| (error.kind(), format!("failed to write {name}: {error}")));
        let detail = why.as_ref().map_or("", |(_, detail)| detail);
        let receipt = Receipt { delivered: delivered as u64, ..self.forget(detail) };
        match why {
            Some((kind, detail))
                if kind == io::ErrorKind::BrokenPipe || self.fatal == FatalWrite::AnyError =>
            {
                work.fail(receipt, detail);
            }
            _ => work.done(receipt),
        }
    }

    /// Gives up what has gathered.
    fn forget(&mut self, detail: &str) -> Receipt {
        self.lines.clear();
        self.ends.clear();
        let failed = |message| Failed { message, reason: Reason::SinkUnavailable, detail: detail.to_owned() };
        Receipt { delivered: 0, failed: self.messages.drain(..).map(failed).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Payload;
    use crate::message::metadata::Metadata;
    use crate::telemetry::Metrics;
    use std::future::poll_fn;
    use std::task::Poll;

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

    impl Undo for Full {
        fn undo(&mut self, bytes: usize) -> bool {
            self.taken.truncate(self.taken.len() - bytes);
            self.left += bytes;
            true
        }
    }

    fn texts(failed: &[Failed]) -> Vec<&str> {
        failed.iter().filter_map(|failed| failed.message.payload.as_text()).collect()
    }

    /// Gives a batch to a writer, and takes its answer.
    async fn write_batch(writer: &mut Writer<Full>, texts: &[&str]) -> (u64, Vec<Failed>) {
        let metrics = Metrics::default();
        let (queue, mut work) = queue(metrics.sink("p", "s"));
        let mut sink = Sink::Queue(queue);
        let mut failed = Vec::new();
        for text in texts {
            sink.push(message(text), &mut failed);
        }
        assert!(poll_fn(|cx| Poll::Ready(sink.poll_flush(cx, &mut failed))).await.is_pending());
        let batch = work.next().await.expect("it was sent");
        writer.take(batch, "f", &mut work);
        poll_fn(|cx| sink.poll_flush(cx, &mut failed)).await;
        (texts.len() as u64 - failed.len() as u64, failed)
    }

    #[tokio::test]
    async fn a_full_disk_fails_the_messages_whose_lines_are_not_whole_and_no_other_line() {
        let full = Full { taken: Vec::new(), left: 7 };
        let mut writer = Writer::new(Output::Plain(full), LineForm::Of(Format::Jsonl), false);
        let (delivered, failed) = write_batch(&mut writer, &["one", "two", "three"]).await;
        assert_eq!((delivered, texts(&failed)), (1, vec!["two", "three"]));
        assert!(failed[0].detail.starts_with("failed to write f: "));
        let Output::Plain(full) = &mut writer.output else { unreachable!("it is plain") };
        full.left = 100;
        assert_eq!(write_batch(&mut writer, &["four"]).await.0, 1);
        let Output::Plain(full) = writer.output else { unreachable!("it is plain") };
        assert_eq!(full.taken, b"one\ntwo\nfour\n");
    }

    #[tokio::test]
    async fn a_full_disk_fails_a_packed_piece_as_a_whole_and_the_file_stays_readable() {
        let full = Full { taken: Vec::new(), left: 1_000 };
        let mut writer = Writer::new(
            Output::Packed(full, Box::new(GzipPacker::new(true))),
            LineForm::Of(Format::Jsonl),
            false,
        );
        let room = |writer: &mut Writer<Full>, left| {
            let Output::Packed(full, _) = &mut writer.output else { unreachable!("it is packed") };
            full.left = left;
        };
        assert_eq!(write_batch(&mut writer, &["one"]).await.0, 1);
        room(&mut writer, 3);
        let (delivered, failed) = write_batch(&mut writer, &["two", "three"]).await;
        assert_eq!((delivered, texts(&failed)), (0, vec!["two", "three"]));
        room(&mut writer, 1_000);
        assert_eq!(write_batch(&mut writer, &["four"]).await.0, 1);
        writer.output.finish().expect("it has room");
        let Output::Packed(full, _) = writer.output else { unreachable!("it is packed") };
        let mut text = String::new();
        let mut unpacked = flate2::read::MultiGzDecoder::new(&*full.taken);
        io::Read::read_to_string(&mut unpacked, &mut text).expect("it is whole");
        assert_eq!(text, "one\nfour\n");
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
            let mut sink = file(&path, Format::Recording, append, metrics.clone()).await.expect("it opens");
            let failed = send(&mut sink, (0..1_000).map(|n| message(&n.to_string()))).await;
            assert!(failed.is_empty());
            assert_eq!(sink.in_flight(), 0);
            let mut failed = Vec::new();
            poll_fn(|cx| sink.poll_close(cx, 1001, &mut failed)).await;
        }
        assert_eq!(metrics.delivered_count("p", "s"), 2_000);
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
        let metrics = Metrics::default().sink("p", "s");
        let mut sink = file(&path, Format::Jsonl, false, metrics).await.expect("it opens");
        assert!(send(&mut sink, [message("new")]).await.is_empty());
        assert_eq!(std::fs::read_to_string(&*path).expect("it is there"), "new\n");
    }
}
