//! One system call for many frames: a big read buffer, borrowed while bytes are waiting.
//!
//! tungstenite clears its buffer before every read and cannot use it again while a payload in it is
//! alive, so that one stays small. Ten thousand quiet connections must not hold ten thousand big
//! buffers either: each thread keeps a few that go round, and stay in the processor's cache.

use super::stream::Stream;
use crate::copying::copy_in_pieces;
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};

/// What one system call reads at most.
const BUFFER_BYTES: usize = 64 << 10;
/// Buffers kept by a thread while nobody needs them.
const KEPT_BUFFERS: usize = 4;

thread_local! {
    static POOL: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that were read and not yet asked for; none of the time, and then it holds no buffer.
#[derive(Default)]
pub(super) struct ReadAhead {
    buffer: Option<Box<[u8]>>,
    start: usize,
    end: usize,
}

impl ReadAhead {
    /// Copies what is there; `None` if nothing is.
    pub(super) fn take(&mut self, bytes: &mut [u8]) -> Option<usize> {
        let buffer = self.buffer.as_ref()?;
        let length = bytes.len().min(self.end - self.start);
        copy_in_pieces(&buffer[self.start..self.start + length], &mut bytes[..length]);
        self.start += length;
        if self.start == self.end {
            self.buffer.take().into_iter().for_each(give_back);
        }
        Some(length)
    }

    /// Reads at most so many bytes into a borrowed buffer; call only when [`Self::take`] has nothing. 0 is
    /// the stream's end.
    pub(super) fn poll_fill(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let mut buffer =
            POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice());
        let most = most.min(buffer.len());
        let result = poll_read(stream, cx, &mut buffer[..most]);
        match result {
            Poll::Ready(Ok(length)) if length > 0 => {
                (self.start, self.end) = (0, length);
                self.buffer = Some(buffer);
            }
            _ => give_back(buffer),
        }
        result
    }
}

#[inline]
fn poll_read(stream: &mut Stream, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(bytes);
    ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(buffer.filled().len()))
}

fn give_back(buffer: Box<[u8]>) {
    POOL.with_borrow_mut(|pool| {
        if pool.len() < KEPT_BUFFERS {
            pool.push(buffer);
        }
    });
}
