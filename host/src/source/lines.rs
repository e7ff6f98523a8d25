//! The sources `file` and `stdin`: a thread that reads lines, behind a queue.
//!
//! A read of standard input cannot be interrupted, so nobody waits for the thread: it ends with its
//! input, when its next push finds the pipeline gone, or with the process. The messages of a recording
//! keep the times at which they were received; those of `jsonl` get the time of reading.

use super::{Chunk, Feed, Source, queue};
use crate::config::{FilePath, Format};
use crate::message::{Failed, Message, Payload};
use crate::metadata::{Metadata, Origin, SOURCE, now_us};
use crate::reason::Reason;
use crate::recording::{Reader, Recorded};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;

/// Most messages in one chunk of the queue.
const CHUNK_MESSAGES: usize = 256;

/// A source that reads a file once, from its start to its end.
///
/// # Errors
/// If the file cannot be opened.
pub fn file(path: &FilePath, format: Format) -> io::Result<Source> {
    spawn(open(path)?, format, path.to_string())
}

/// A source that reads standard input.
///
/// # Errors
/// If there is none.
pub fn stdin(format: Format) -> io::Result<Source> {
    // Not through the standard library's own buffer, which is small, and locked while it is read.
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    spawn(input, format, "stdin".into())
}

/// Opens a file to read it, unpacked if its name ends in `.gz`.
///
/// # Errors
/// If it cannot be opened, or is a folder.
pub fn open(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let is_packed = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    Ok(if is_packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

fn spawn(input: impl Read + Send + 'static, format: Format, name: String) -> io::Result<Source> {
    let (feed, queue) = queue();
    thread::Builder::new().name("tidemill-read".into()).spawn(move || {
        let origin = Origin::new([(SOURCE, name.as_str())]);
        if let Err(error) = read(Reader::new(input, format), &origin, &feed) {
            feed.blocking_fail(format!("failed to read {name}: {error}"));
        }
    })?;
    Ok(Source::Queue(queue))
}

/// Reads to the end, or until the pipeline takes no more.
fn read(mut reader: Reader<impl Read>, origin: &Arc<Origin>, feed: &Feed) -> io::Result<()> {
    while let Some(block) = reader.next_block()? {
        let now_us = now_us();
        let mut chunk = Chunk::default();
        for line in block {
            match line {
                Ok(Recorded { payload, time_ns }) => {
                    let received_us = time_ns.map_or(now_us, |time_ns| time_ns / 1000);
                    chunk
                        .messages
                        .push(Message { payload, metadata: Metadata::new(origin.clone(), received_us) });
                }
                Err((line, bad)) => {
                    let metadata = Metadata::new(origin.clone(), now_us);
                    let payload = Payload::try_text(line).unwrap_or_else(Payload::binary);
                    let message = Message { payload, metadata };
                    chunk.failed.push(Failed { message, reason: Reason::Decode, detail: bad.to_string() });
                }
            }
            if chunk.messages.len() + chunk.failed.len() >= CHUNK_MESSAGES
                && feed.blocking_push(std::mem::take(&mut chunk)).is_err()
            {
                return Ok(());
            }
        }
        let is_empty = chunk.messages.is_empty() && chunk.failed.is_empty();
        if !is_empty && feed.blocking_push(chunk).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::INGEST_TIME;
    use crate::source::{Fill, Room};
    use flate2::{Compression, write::GzEncoder};
    use std::fmt::Write as _;
    use std::future::poll_fn;
    use std::io::Write as _;

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
        let source = file(&FilePath::plain(&path), Format::Recording).expect("it opens");
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
        let source = file(&FilePath::plain(&path), Format::Jsonl).expect("it opens");
        let (messages, failed, _) = drain(source).await;
        assert_eq!((messages.len(), failed.len()), (2, 1));
        assert_eq!((failed[0].reason, failed[0].detail.as_str()), (Reason::Decode, "the line is not UTF-8"));
    }

    #[tokio::test]
    async fn a_broken_file_fails_the_source_after_what_could_be_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("feed.gz");
        std::fs::write(&path, b"not packed at all").expect("it is written");
        let source = file(&FilePath::plain(&path), Format::Jsonl).expect("it opens");
        let (messages, _, fill) = drain(source).await;
        assert!(messages.is_empty());
        assert!(matches!(fill, Fill::Failed(error) if error.contains("feed.gz")));
    }

    #[test]
    fn a_missing_file_and_a_folder_are_told_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = FilePath::plain(folder.path().join("none.jsonl"));
        assert!(file(&missing, Format::Jsonl).is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        assert!(file(&FilePath::plain(folder.path()), Format::Jsonl).is_err());
    }
}
