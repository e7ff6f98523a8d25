//! Waiting for a file, which another thread can end.
//!
//! A thread inside `read` or `write` of a FIFO, a terminal or standard input cannot be told anything. So
//! it waits before the call, for the file and for a pipe at once; the other end of the pipe is dropped
//! when nobody wants the file any more.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::time::Duration;

/// Dropping it ends every wait of its [`Waiter`], now and later.
#[derive(Debug)]
pub(crate) struct Interrupt(#[expect(dead_code, reason = "it is there to be dropped")] PipeWriter);

/// Waits, until its [`Interrupt`] is dropped.
#[derive(Debug)]
pub(crate) struct Waiter(PipeReader);

/// A waiter, and what ends its waits.
///
/// # Errors
/// If no more files can be opened.
pub(crate) fn interrupt() -> io::Result<(Interrupt, Waiter)> {
    let (reader, writer) = io::pipe()?;
    Ok((Interrupt(writer), Waiter(reader)))
}

impl Waiter {
    /// Waits until a file can be read without waiting, or has come to its end.
    ///
    /// # Errors
    /// [`interrupted`] if the wait was ended, and whatever the system says.
    pub(crate) fn readable(&self, file: impl AsFd) -> io::Result<()> {
        self.wait(file, PollFlags::IN)
    }

    /// Waits until something can be written to a file without waiting, or nobody reads it any more.
    ///
    /// # Errors
    /// As [`Waiter::readable`].
    pub(crate) fn writable(&self, file: impl AsFd) -> io::Result<()> {
        self.wait(file, PollFlags::OUT)
    }

    /// Waits for so long.
    ///
    /// # Errors
    /// As [`Waiter::readable`].
    pub(crate) fn pause(&self, time: Duration) -> io::Result<()> {
        let time = Timespec::try_from(time).map_err(io::Error::other)?;
        let mut waited = [PollFd::new(&self.0, PollFlags::empty())];
        loop {
            match poll(&mut waited, Some(&time)) {
                Ok(0) => return Ok(()),
                Ok(_) => return Err(interrupted()),
                Err(error) if error == rustix::io::Errno::INTR => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait(&self, file: impl AsFd, what: PollFlags) -> io::Result<()> {
        // The pipe carries nothing: what happens to it is that its other end is closed.
        let mut waited = [PollFd::new(&file, what), PollFd::new(&self.0, PollFlags::empty())];
        loop {
            match poll(&mut waited, None) {
                Ok(_) if !waited[1].revents().is_empty() => return Err(interrupted()),
                Ok(_) => return Ok(()),
                Err(error) if error == rustix::io::Errno::INTR => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The error of a wait that was ended.
fn interrupted() -> io::Error {
    // Not `ErrorKind::Interrupted`: that is what everybody tries again.
    io::Error::other("nobody waits for it any more")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::thread;

    #[test]
    fn a_wait_lasts_until_there_is_something_to_read_or_it_is_interrupted() {
        let (interrupt, waiter) = interrupt().expect("a pipe can be made");
        let (reader, mut writer) = io::pipe().expect("a pipe can be made");
        writer.write_all(b"x").expect("a pipe takes it");
        waiter.readable(&reader).expect("there is something to read");
        let (empty, _writer) = io::pipe().expect("a pipe can be made");
        let waiting = thread::spawn(move || {
            waiter.readable(&empty).expect_err("there is nothing to read");
            waiter.pause(Duration::from_secs(3600)).expect_err("it stays interrupted");
        });
        drop(interrupt);
        waiting.join().expect("both waits have ended");
    }
}
