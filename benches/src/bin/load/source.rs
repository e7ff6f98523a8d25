//! The upstream server: writes documents as fast as they are taken, or at a rate.
//!
//! The rate is open-loop: a message carries the time at which it was due, not the one at which it
//! was written, so that a relay which holds the source up pays for every message it delayed.

use crate::Tally;
use hdrhistogram::Histogram;
use std::io::{self, ErrorKind, Write as _};
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};
use tidemill_bench::document::{Counter, Document, SEQUENCE_DIGITS, STAMP_DIGITS, stamp};
use tidemill_bench::{frame, machine};

/// What a busy exchange's socket gives a reader at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Most messages of one write at a rate: what is due after the source itself was held up.
const MAX_CATCH_UP: usize = 1024;

/// How messages are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// About the size of a message.
    pub(crate) size_bytes: usize,
    /// Messages a second; `None` is as many as are taken.
    pub(crate) rate: Option<f64>,
    /// Every message in a write of its own.
    pub(crate) one_per_write: bool,
}

/// Writes until the tally says stop; returns how late messages were written, in nanoseconds.
pub(crate) fn run(stream: &TcpStream, traffic: Traffic, tally: &Tally) -> io::Result<Histogram<u64>> {
    let mut lateness = crate::latencies();
    let written = match traffic.rate {
        Some(rate) => at_rate(stream, traffic, rate, tally, &mut lateness),
        None => flood(stream, traffic, tally),
    };
    match written {
        // A relay that stalled or died is cut off in the middle of a write; the counts tell.
        Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            Err(error)
        }
        _ => Ok(lateness),
    }
}

fn flood(mut stream: &TcpStream, traffic: Traffic, tally: &Tally) -> io::Result<()> {
    let mut frames = Frames::new(traffic.size_bytes, CHUNK_BYTES);
    let count = if traffic.one_per_write { 1 } else { frames.capacity };
    while !tally.stopped.load(Relaxed) {
        let now = stamp(tally.now());
        stream.write_all(frames.next(count, |_| now))?;
        tally.sent.fetch_add(count as u64, Relaxed);
    }
    Ok(())
}

fn at_rate(
    mut stream: &TcpStream,
    traffic: Traffic,
    rate: f64,
    tally: &Tally,
    lateness: &mut Histogram<u64>,
) -> io::Result<()> {
    machine::sleep_precisely()?;
    let mut frames = Frames::new(traffic.size_bytes, usize::MAX);
    let gap = 1e9 / rate;
    let start = Instant::now();
    let start_ns = tally.now() as f64;
    let mut sent = 0_u64;
    while !tally.stopped.load(Relaxed) {
        let elapsed_ns = start.elapsed().as_nanos() as f64;
        let due = (elapsed_ns / gap) as u64 + 1;
        if due == sent {
            thread::sleep(Duration::from_nanos((sent as f64 * gap - elapsed_ns).max(0.0) as u64));
            continue;
        }
        let count = usize::try_from(due - sent).unwrap_or(MAX_CATCH_UP).min(frames.capacity);
        let due_ns = |index: usize| (sent + index as u64) as f64 * gap;
        if tally.measuring.load(Relaxed) {
            (0..count).for_each(|index| lateness.saturating_record((elapsed_ns - due_ns(index)) as u64));
        }
        let bytes = frames.next(count, |index| stamp((start_ns + due_ns(index)) as u64));
        if traffic.one_per_write {
            let single = bytes.len() / count;
            bytes.chunks(single).try_for_each(|message| stream.write_all(message))?;
        } else {
            stream.write_all(bytes)?;
        }
        sent += count as u64;
        tally.sent.store(sent, Relaxed);
    }
    Ok(())
}

/// A run of frames, rendered once, whose stamps and numbers are overwritten in place.
struct Frames {
    bytes: Vec<u8>,
    frame_bytes: usize,
    capacity: usize,
    stamp_at: usize,
    sequence_at: usize,
    sequence: Counter,
}

impl Frames {
    /// As many frames as fit into `chunk_bytes`: at least one, at most [`MAX_CATCH_UP`].
    fn new(size_bytes: usize, chunk_bytes: usize) -> Self {
        let document = Document::new(size_bytes);
        let mut one = Vec::with_capacity(frame::MAX_HEADER_BYTES + size_bytes);
        frame::write_header(&mut one, frame::TEXT, document.text.len(), None);
        let header_bytes = one.len();
        one.extend_from_slice(document.text.as_bytes());
        let capacity = (chunk_bytes / one.len()).clamp(1, MAX_CATCH_UP);
        Self {
            frame_bytes: one.len(),
            bytes: one.repeat(capacity),
            capacity,
            stamp_at: header_bytes + document.stamp_at,
            sequence_at: header_bytes + document.sequence_at,
            sequence: Counter::at(0),
        }
    }

    /// The next `count` frames, at most as many as there is capacity for.
    fn next(&mut self, count: usize, stamp_of: impl Fn(usize) -> [u8; STAMP_DIGITS]) -> &[u8] {
        let bytes = &mut self.bytes[..count * self.frame_bytes];
        for (index, frame) in bytes.chunks_exact_mut(self.frame_bytes).enumerate() {
            frame[self.stamp_at..][..STAMP_DIGITS].copy_from_slice(&stamp_of(index));
            frame[self.sequence_at..][..SEQUENCE_DIGITS].copy_from_slice(self.sequence.digits());
            self.sequence.increment();
        }
        bytes
    }
}
