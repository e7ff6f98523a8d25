//! The downstream peer: counts what arrives, checks the number of every message, samples the rest.
//!
//! The number is compared under its mask, where it stood in the message before, which costs a few
//! nanoseconds; a message that differs there is unmasked and read in full.

use crate::Tally;
use hdrhistogram::Histogram;
use memchr::memmem::Finder;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;
use tidemill_bench::document::{Counter, read_sequence, read_stamp};
use tidemill_bench::frame::{self, Header};

const BUFFER_BYTES: usize = 256 << 10;
/// Under full load one message in so many is read in full.
const SAMPLING: u64 = 64;

/// How messages are checked.
pub(crate) struct Checks {
    /// What every message that is read in full must hold.
    pub(crate) need: Option<Finder<'static>>,
    /// Read every message in full, for its latency.
    pub(crate) all: bool,
    /// We dialled, so what we write is masked.
    pub(crate) masked: bool,
}

/// What the sink saw beyond the tally.
pub(crate) struct Findings {
    /// Nanoseconds from the stamp of a message to its arrival.
    pub(crate) latency: Histogram<u64>,
    /// Messages that were no document, or lacked what they need.
    pub(crate) bad: u64,
    /// Messages numbered below one that came before: moved or repeated.
    pub(crate) out_of_order: u64,
    /// Numbers skipped.
    pub(crate) missing: u64,
}

/// Reads until the peer closes.
pub(crate) fn run(mut stream: &TcpStream, checks: &Checks, tally: &Tally) -> io::Result<Findings> {
    let mut reader = Reader {
        checks,
        tally,
        findings: Findings { latency: crate::latencies(), bad: 0, out_of_order: 0, missing: 0 },
        expected: Expected { sequence: 0, digits: Counter::at(0), at: usize::MAX },
        received: 0,
        scratch: Vec::new(),
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut filled = 0;
    let mut received_bytes = 0;
    loop {
        let read = match stream.read(&mut buffer[filled..]) {
            // A relay that was ended in full flow resets its connections.
            Ok(0) | Err(_) => return Ok(reader.findings),
            Ok(read) => read,
        };
        filled += read;
        received_bytes += read as u64;
        let now_ns = tally.now();
        let mut at = 0;
        while let Some(header) = Header::read(&buffer[at..filled]) {
            let end = at + header.frame_bytes();
            if end > filled {
                // One frame larger than the buffer makes it grow.
                buffer.resize(buffer.len().max(header.frame_bytes()), 0);
                break;
            }
            let payload = &buffer[at + header.header_bytes..end];
            at = end;
            match header.kind {
                frame::PING => pong(stream, payload, header.mask, checks.masked)?,
                frame::PONG => {}
                frame::CLOSE => return Ok(reader.findings),
                _ => reader.message(payload, header.mask, now_ns),
            }
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        tally.received_bytes.store(received_bytes, Relaxed);
        tally.received.store(reader.received, Relaxed);
    }
}

/// Answers a ping; where a mask is due it is zero.
fn pong(mut stream: &TcpStream, payload: &[u8], mask: [u8; 4], masked: bool) -> io::Result<()> {
    let mut out = Vec::with_capacity(frame::MAX_HEADER_BYTES + payload.len());
    frame::write_header(&mut out, frame::PONG, payload.len(), masked.then_some([0; 4]));
    frame::unmask(&mut out, payload, mask);
    stream.write_all(&out)
}

/// The number that comes next, and where its digits stood last.
struct Expected {
    sequence: u64,
    digits: Counter,
    at: usize,
}

struct Reader<'a> {
    checks: &'a Checks,
    tally: &'a Tally,
    findings: Findings,
    expected: Expected,
    received: u64,
    scratch: Vec<u8>,
}

impl Reader<'_> {
    #[inline]
    fn message(&mut self, payload: &[u8], mask: [u8; 4], now_ns: u64) {
        let sampled = self.checks.all || self.received.is_multiple_of(SAMPLING);
        self.received += 1;
        let expected = &mut self.expected;
        let in_order = frame::masked_equals(payload, mask, expected.at, expected.digits.digits());
        if in_order {
            expected.sequence += 1;
            expected.digits.increment();
        }
        if sampled || !in_order {
            self.read_in_full(payload, mask, now_ns, in_order);
        }
    }

    fn read_in_full(&mut self, payload: &[u8], mask: [u8; 4], now_ns: u64, in_order: bool) {
        self.scratch.clear();
        frame::unmask(&mut self.scratch, payload, mask);
        let document = self.scratch.as_slice();
        let needed = self.checks.need.as_ref().is_none_or(|need| need.find(document).is_some());
        let (Some(stamp_ns), Some((sequence, at)), true) =
            (read_stamp(document), read_sequence(document), needed)
        else {
            self.findings.bad += 1;
            return;
        };
        if self.tally.measuring.load(Relaxed) {
            self.findings.latency.saturating_record(now_ns.saturating_sub(stamp_ns));
        }
        if in_order {
            return;
        }
        match sequence.checked_sub(self.expected.sequence) {
            None => self.findings.out_of_order += 1,
            Some(skipped) => {
                self.findings.missing += skipped;
                self.expected = Expected { sequence: sequence + 1, digits: Counter::at(sequence + 1), at };
            }
        }
    }
}
