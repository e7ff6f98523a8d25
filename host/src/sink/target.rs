//! Where lines are written: a file, a FIFO, a terminal, standard output.
//!
//! A write that has to wait, for a reader of a FIFO or for room in a pipe, waits for the end of its
//! pipeline at once. Standard output is shared with other processes, so its own mode stays as it is; a
//! write to it that hangs keeps its thread, and nobody else.

use crate::interrupt::Waiter;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two attempts to open a FIFO that nobody reads: the system tells nobody that a reader came.
const READER_INTERVAL: Duration = Duration::from_millis(50);

/// What is written to. Its waits end once its [`Interrupt`](crate::interrupt::Interrupt) is dropped.
#[derive(Debug)]
pub(super) struct LineTarget {
    place: TargetKind,
    waiter: Waiter,
}

#[derive(Debug)]
enum TargetKind {
    /// A file of which bytes can be taken back.
    File(File),
    /// Anything else that is open.
    Stream(File),
    /// A FIFO that nobody reads yet.
    Unread(PathBuf),
}

impl LineTarget {
    /// Opens a file; with `append` to write after what is there, otherwise instead of it, which is for
    /// [`LineTarget::start_anew`].
    pub(super) fn open(path: &Path, append: bool, waiter: Waiter) -> io::Result<Self> {
        let is_stream = std::fs::metadata(path).is_ok_and(|found| !found.is_file());
        let place = if is_stream {
            open_stream(path)?
        } else {
            let mut options = OpenOptions::new();
            if append {
                // Read, to see how it ends.
                options.read(true).append(true);
            } else {
                options.write(true).truncate(false);
            }
            TargetKind::File(options.create(true).open(path)?)
        };
        Ok(Self { place, waiter })
    }

    /// What is open already.
    pub(super) fn stream(file: File, waiter: Waiter) -> Self {
        Self { place: TargetKind::Stream(file), waiter }
    }

    /// Empties the file, if it is one.
    pub(super) fn start_anew(&self) -> io::Result<()> {
        match &self.place {
            TargetKind::File(file) => file.set_len(0),
            TargetKind::Stream(_) | TargetKind::Unread(_) => Ok(()),
        }
    }

    /// The file, if it is one that can be looked at.
    pub(super) fn file(&self) -> Option<&File> {
        match &self.place {
            TargetKind::File(file) => Some(file),
            TargetKind::Stream(_) | TargetKind::Unread(_) => None,
        }
    }

    /// Takes the last bytes back that were written; whether they are gone.
    pub(super) fn take_back(&mut self, bytes: usize) -> bool {
        let TargetKind::File(file) = &mut self.place else { return false };
        let cut = |file: &mut File| {
            let length = file.metadata()?.len();
            file.set_len(length.saturating_sub(bytes as u64))?;
            file.seek(SeekFrom::End(0))
        };
        cut(file).is_ok()
    }
}

/// Opens what is no file: at once, also where nobody reads it.
fn open_stream(path: &Path) -> io::Result<TargetKind> {
    let at_once = OFlags::NONBLOCK.bits().cast_signed();
    match OpenOptions::new().write(true).custom_flags(at_once).open(path) {
        Ok(file) => Ok(TargetKind::Stream(file)),
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) && is_fifo(path) => {
            Ok(TargetKind::Unread(path.to_owned()))
        }
        Err(error) => Err(error),
    }
}

fn is_fifo(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo())
}

impl Write for LineTarget {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match &mut self.place {
                TargetKind::Unread(path) => {
                    self.place = open_stream(path)?;
                    if matches!(self.place, TargetKind::Unread(_)) {
                        self.waiter.pause(READER_INTERVAL)?;
                    }
                }
                TargetKind::File(file) | TargetKind::Stream(file) => match file.write(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.waiter.writable(&*file)?;
                    }
                    written => return written,
                },
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
