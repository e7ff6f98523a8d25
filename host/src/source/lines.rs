//! The sources `file` and `stdin`: a thread that reads lines, behind a queue.
//!
//! The thread waits for its input and for the end of the pipeline at once, so a FIFO that nobody writes
//! holds nothing up. What it has read reaches the pipeline, also while that stops. The messages of a
//! recording keep the times at which they were received; those of `jsonl` get the time of reading.

use super::progress::{SKIP_BYTES, Skip, Tracked};
use super::{Source, SourceChunk, SourceFeed, queue};
use crate::config::{FilePath, Format};
use crate::generation::Position;
use crate::interrupt::{Interrupt, Waiter, interrupt};
use crate::message::metadata::{Metadata, Origin, SOURCE, now_us};
use crate::message::{Failed, Message, Payload};
use crate::reason::Reason;
use crate::recording::{BadLine, Block, Recorded, RecordingReader};
use flate2::read::MultiGzDecoder;
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use tokio::runtime::Handle;

/// What is read: a file, a FIFO, or standard input. Its reads end once its [`Interrupt`] is dropped.
#[derive(Debug)]
pub struct Input {
    file: File,
    /// None: a plain file, of which nobody waits for more.
    waiter: Option<Waiter>,
}

/// An input, unpacked if it is packed.
enum Unpacked {
    Plain(Input),
    Packed(Box<MultiGzDecoder<Input>>),
}

/// A source that reads a file once, from its start to its end, or on from where it was read before.
///
/// # Errors
/// If the file cannot be opened. That it is not the file which was read before ends the source.
pub async fn file(path: &FilePath, format: Format, from: Option<Position>) -> io::Result<Source> {
    let (input, interrupt) = open_input(path).await?;
    spawn(input, interrupt, format, path.to_string(), from)
}

/// A source that reads standard input.
///
/// # Errors
/// If there is none.
pub fn stdin(format: Format) -> io::Result<Source> {
    // Not through the standard library's own buffer, which is small, and locked while it is read.
    let (input, interrupt) = Input::new(File::from(io::stdin().as_fd().try_clone_to_owned()?))?;
    spawn(Unpacked::Plain(input), interrupt, format, "stdin".into(), None)
}

/// Opens a file to read it, unpacked if its name ends in `.gz`. A FIFO is opened at once, and read when
/// somebody writes it.
///
/// # Errors
/// If it cannot be opened, or is a folder.
pub(crate) async fn open(path: &Path) -> io::Result<(Box<dyn Read + Send>, Interrupt)> {
    let (input, interrupt) = open_input(path).await?;
    Ok((Box::new(input), interrupt))
}

async fn open_input(path: &Path) -> io::Result<(Unpacked, Interrupt)> {
    let path = path.to_owned();
    // Where the file lies on a network, opening it may take its time.
    let opened = tokio::task::spawn_blocking(move || open_at_once(&path));
    opened.await.map_err(io::Error::other)?
}

fn open_at_once(path: &Path) -> io::Result<(Unpacked, Interrupt)> {
    // Opening a FIFO would wait for its writer; its reads wait for one too.
    let at_once = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(at_once).open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let is_packed = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    let (input, interrupt) = Input::new(file)?;
    let input = match is_packed {
        true => Unpacked::Packed(Box::new(MultiGzDecoder::new(input))),
        false => Unpacked::Plain(input),
    };
    Ok((input, interrupt))
}

impl Input {
    fn new(file: File) -> io::Result<(Self, Interrupt)> {
        let (interrupt, waiter) = interrupt()?;
        let waiter = if file.metadata()?.is_file() { None } else { Some(waiter) };
        Ok((Self { file, waiter }, interrupt))
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(waiter) = &self.waiter {
                waiter.readable(&self.file)?;
            }
            match self.file.read(buffer) {
                // Somebody else reads it too, and was faster.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.waiter.is_some() => {}
                read => return read,
            }
        }
    }
}

impl Unpacked {
    /// Whether it is a file, in which a place is found again.
    fn is_file(&self) -> bool {
        match self {
            Self::Plain(input) => input.waiter.is_none(),
            Self::Packed(packed) => packed.get_ref().waiter.is_none(),
        }
    }
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Packed(packed) => packed.read(buffer),
        }
    }
}

impl Skip for Unpacked {
    fn skip(&mut self, bytes: u64) -> io::Result<u64> {
        match self {
            Self::Plain(Input { file, waiter: None }) => {
                let here = file.stream_position()?;
                let there = file.metadata()?.len().min(here.saturating_add(bytes));
                Ok(file.seek(SeekFrom::Start(there))?.saturating_sub(here))
            }
            // What is packed has to be unpacked for it.
            Self::Plain(_) | Self::Packed(_) => {
                io::copy(&mut self.take(bytes.min(SKIP_BYTES)), &mut io::sink())
            }
        }
    }
}

fn spawn(
    input: Unpacked,
    interrupt: Interrupt,
    format: Format,
    name: String,
    from: Option<Position>,
) -> io::Result<Source> {
    let (feed, queue) = queue();
    let queue = if input.is_file() { queue.going_on(from.clone()) } else { queue };
    let runtime = Handle::current();
    thread::Builder::new().name("tidemill-read".into()).spawn(move || {
        let origin = Origin::new([(SOURCE, name.as_str())]);
        match read(input, format, from.as_ref(), &origin, &feed, &runtime) {
            Err(error) if !feed.is_closed() => {
                runtime.block_on(feed.fail(format!("failed to read {name}: {error}")));
            }
            // Of what was stopped, nobody asks why it ended.
            _ => {}
        }
    })?;
    let queue = queue.interrupting(interrupt);
    Ok(Source::Queue(if format == Format::Recording { queue.carrying_time() } else { queue }))
}

/// Reads to the end, or until the pipeline takes no more.
fn read(
    input: Unpacked,
    format: Format,
    from: Option<&Position>,
    origin: &Arc<Origin>,
    feed: &SourceFeed,
    runtime: &Handle,
) -> io::Result<()> {
    let is_file = input.is_file();
    let mut input = Tracked::new(input);
    if let Some(from) = from {
        input.go_on(from, feed)?;
    }
    let mut reader = RecordingReader::new(input, format);
    loop {
        let Ok(place) = runtime.block_on(feed.reserve()) else { return Ok(()) };
        let block = reader.next_block()?;
        let has_ended = block.is_none();
        let mut chunk = block.map_or_else(SourceChunk::default, |block| chunk(block, origin));
        if is_file && let Some(given_bytes) = reader.given_bytes() {
            chunk.position = Some(reader.input().position(given_bytes));
        }
        // Also where no message is in it: what was read before that is to be read again otherwise.
        if chunk.position.is_some() || chunk.len() > 0 {
            place.push(chunk);
        }
        if has_ended {
            return Ok(());
        }
    }
}

/// The messages of what was read at once.
fn chunk(block: Block, origin: &Arc<Origin>) -> SourceChunk {
    let now_us = now_us();
    let mut chunk = SourceChunk::default();
    for line in block {
        match line {
            Ok(Recorded { payload, time_ns }) => {
                let received_us = time_ns.map_or(now_us, |time_ns| time_ns / 1000);
                let metadata = Metadata::new(origin.clone(), received_us);
                chunk.messages.push(Message { payload, metadata });
            }
            Err((line, bad)) => {
                let metadata = Metadata::new(origin.clone(), now_us);
                let payload = Payload::try_text(line).unwrap_or_else(Payload::binary);
                let message = Message { payload, metadata };
                let reason = if bad == BadLine::TooLarge { Reason::TooLarge } else { Reason::Decode };
                chunk.failed.push(Failed { message, reason, detail: bad.to_string() });
            }
        }
    }
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::metadata::INGEST_TIME;
    use crate::source::{Fill, Room};
    use flate2::{Compression, write::GzEncoder};
    use std::fmt::Write as _;
    use std::future::poll_fn;
    use std::io::Write as _;
    use std::task::Poll;

    const ROOM: Room = Room { messages: 256, bytes: 1 << 20 };

    async fn drain(mut source: Source) -> (Vec<Message>, Vec<Failed>, Fill) {
        let (mut messages, mut failed) = (Vec::new(), Vec::new());
        loop {
            let mut batch = Vec::new();
            let fill = poll_fn(|cx| source.poll_fill(cx, &mut batch, ROOM, &mut failed)).await;
            assert!(batch.len() <= ROOM.messages);
            messages.append(&mut batch);
            if matches!(fill, Fill::Ended | Fill::Failed(_)) {
                return (messages, failed, fill);
            }
        }
    }

    #[tokio::test]
    async fn a_packed_recording_comes_whole_in_order_and_with_its_times() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("feed.jsonl.gz");
        let mut text = String::new();
        for n in 0..5_000u64 {
            writeln!(text, "{} {n}", n * 1_000_000).expect("memory takes it");
        }
        let mut packed = GzEncoder::new(File::create(&path).expect("a file"), Compression::fast());
        packed.write_all(text.as_bytes()).expect("it is written");
        packed.finish().expect("it is written");
        let source = file(&FilePath::plain(&path), Format::Recording, None).await.expect("it opens");
        let (messages, failed, fill) = drain(source).await;
        assert_eq!((messages.len(), failed.len(), fill), (5_000, 0, Fill::Ended));
        for (n, message) in messages.iter().enumerate() {
            assert_eq!(message.payload.as_text(), Some(n.to_string().as_str()));
            assert_eq!(message.metadata.get(INGEST_TIME), n.to_string());
        }
        assert_eq!(messages[0].metadata.get(SOURCE), path.display().to_string());
    }

    #[tokio::test]
    async fn a_line_that_is_none_fails_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("feed.jsonl");
        std::fs::write(&path, b"{\"a\":1}\n\xff\n{\"a\":2}").expect("it is written");
        let source = file(&FilePath::plain(&path), Format::Jsonl, None).await.expect("it opens");
        let (messages, failed, _) = drain(source).await;
        assert_eq!((messages.len(), failed.len()), (2, 1));
        assert_eq!((failed[0].reason, failed[0].detail.as_str()), (Reason::Decode, "the line is not UTF-8"));
    }

    #[tokio::test]
    async fn a_broken_file_fails_the_source_after_what_could_be_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("feed.gz");
        std::fs::write(&path, b"not packed at all").expect("it is written");
        let source = file(&FilePath::plain(&path), Format::Jsonl, None).await.expect("it opens");
        let (messages, _, fill) = drain(source).await;
        assert!(messages.is_empty());
        assert!(matches!(fill, Fill::Failed(error) if error.contains("feed.gz")));
    }

    #[tokio::test]
    async fn a_missing_file_and_a_folder_are_told_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = FilePath::plain(folder.path().join("none.jsonl"));
        let error = file(&missing, Format::Jsonl, None).await.expect_err("there is none");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(file(&FilePath::plain(folder.path()), Format::Jsonl, None).await.is_err());
    }

    fn fifo(folder: &tempfile::TempDir) -> FilePath {
        let path = folder.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("a fifo");
        FilePath::plain(path)
    }

    #[tokio::test]
    async fn a_fifo_is_read_until_its_writer_leaves() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = fifo(&folder);
        let source = file(&path, Format::Jsonl, None).await.expect("nobody has to write it yet");
        let writing = thread::spawn(move || std::fs::write(&*path, "1\n2\n3"));
        let (messages, _, fill) = drain(source).await;
        assert_eq!((messages.len(), fill), (3, Fill::Ended));
        writing.join().expect("it does not panic").expect("it is read");
    }

    #[tokio::test]
    async fn a_fifo_that_nobody_writes_is_stopped_at_once_and_what_was_read_of_it_is_put_through() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = fifo(&folder);
        let mut source = file(&path, Format::Jsonl, None).await.expect("nobody has to write it yet");
        let mut writer = OpenOptions::new().write(true).open(&*path).expect("it has a reader");
        writer.write_all(b"1\n2\nhal").expect("it has room");
        let (mut first, mut failed) = (Vec::new(), Vec::new());
        let room = Room { messages: 1, ..ROOM };
        poll_fn(|cx| source.poll_fill(cx, &mut first, room, &mut failed)).await;
        poll_fn(|cx| {
            source.poll_stop(cx, 1001);
            Poll::Ready(())
        })
        .await;
        assert_eq!((first.len(), source.remaining()), (1, 1));
        let (rest, _, fill) = drain(source).await;
        assert_eq!((rest.len(), fill), (1, Fill::Ended));
    }
}
