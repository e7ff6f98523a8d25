//! How far a file was read, and going on from there.
//!
//! A position is the number of bytes that the lines took which were given, and a digest of the file's beginning,
//! by which a file is known again: one that was put in its place begins otherwise, or is shorter.

use super::SourceFeed;
use crate::generation::Position;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};

/// So much of a file's beginning is looked at.
const HEAD_BYTES: usize = 4 << 10;
/// So much is passed over at once where it has to be read for that: then the end of the pipeline is looked at.
pub(super) const SKIP_BYTES: u64 = 1 << 20;

/// An input that can be passed over up to a place.
pub(super) trait Skip: Read {
    /// Passes over so many bytes, and says how many there were at once: none at the end.
    fn skip(&mut self, bytes: u64) -> io::Result<u64>;
}

/// An input whose beginning is kept, and where reading it began.
#[derive(Debug)]
pub(super) struct Tracked<R> {
    input: R,
    head: Vec<u8>,
    /// The bytes before the place from which it is read.
    start: u64,
}

impl<R: Skip> Tracked<R> {
    /// An input that is not read yet.
    pub(super) fn new(input: R) -> Self {
        Self { input, head: Vec::new(), start: 0 }
    }

    /// Passes over what was read before.
    ///
    /// # Errors
    /// The input is not the one that was read then.
    pub(super) fn go_on(&mut self, from: &Position, feed: &SourceFeed) -> io::Result<()> {
        let other = |what: &str| {
            let read = from.offset;
            let text = format!(
                "{what} than when {read} bytes of it were read, so that nobody can say where to go on; without the pipeline's \
                 file of [state] it is read from its start"
            );
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        // Reading it keeps the head.
        let head_bytes = usize::try_from(from.head_bytes).unwrap_or(usize::MAX).min(HEAD_BYTES);
        let mut head = vec![0; head_bytes];
        self.read_exact(&mut head).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => other("it is shorter"),
            _ => error,
        })?;
        if digest(&head) != from.head {
            return Err(other("it begins otherwise"));
        }
        let mut left = from.offset.saturating_sub(head_bytes as u64);
        while left > 0 && !feed.is_closed() {
            match self.input.skip(left)? {
                0 => return Err(other("it is shorter")),
                skipped => left = left.saturating_sub(skipped),
            }
        }
        self.start = from.offset;
        Ok(())
    }

    /// The position once so many bytes were given since the start of reading.
    pub(super) fn position(&self, given_bytes: u64) -> Position {
        let offset = self.start + given_bytes;
        let head_bytes = self.head.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        Position { offset, head_bytes: head_bytes as u64, head: digest(&self.head[..head_bytes]) }
    }
}

impl<R: Read> Read for Tracked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        if self.start == 0 && self.head.len() < HEAD_BYTES {
            let kept = read.min(HEAD_BYTES - self.head.len());
            self.head.extend_from_slice(&buffer[..kept]);
        }
        Ok(read)
    }
}

fn digest(head: &[u8]) -> [u8; 32] {
    Sha256::digest(head).into()
}
