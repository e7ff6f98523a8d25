//! Measures one relay: is the server it reads from and the peer it writes to.
//!
//! The relay is started as a child process on a processor of its own; source and sink share another.
//! It finds both urls in its command line, for `{src}` and `{snk}`, and in its environment as `SRC`
//! and `SNK`. One JSON object goes to standard output; `report.rs` says what is in it.

mod report;
mod sink;
mod source;

use clap::Parser;
use hdrhistogram::Histogram;
use memchr::memmem::Finder;
use report::{Measured, Reading, Report};
use std::error::Error;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};
use tidemill_bench::{handshake, machine};

/// A relay that has not connected both ends, or passed a first message, by then never will.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// A relay that has passed nothing for so long holds nothing more.
const DRAINED_AFTER: Duration = Duration::from_secs(1);
/// How long a relay may take to end when asked to.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// A machine is quiet if it uses less than this share of one processor over the window.
const QUIET_SHARE: f64 = 0.1;
const QUIET_WINDOW: Duration = Duration::from_millis(250);
/// Between two looks at a counter or a process; bounds the precision of `first_ms`.
const LOOK: Duration = Duration::from_millis(1);

/// Measures a WebSocket relay between a source and a sink of our own.
#[derive(Debug, Parser)]
struct Options {
    /// The relay's command, `{src}` and `{snk}` standing for its urls; `direct` is no relay at all.
    #[arg(long, value_name = "COMMAND")]
    relay: String,
    /// What the report calls it.
    #[arg(long, default_value = "relay")]
    name: String,
    /// About the size of a message in bytes.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Seconds to measure.
    #[arg(long, default_value_t = 3.0)]
    secs: f64,
    /// Seconds between the first message and the measurement.
    #[arg(long, default_value_t = 1.0)]
    warm: f64,
    /// Messages a second, open-loop; without it as many as the relay takes.
    #[arg(long)]
    rate: Option<f64>,
    /// Send nothing at all, and measure what the relay costs then.
    #[arg(long, conflicts_with = "rate")]
    idle: bool,
    /// Write each message alone instead of in chunks.
    #[arg(long)]
    one_per_write: bool,
    /// The relay listens at `{snk}`, and we connect to it.
    #[arg(long)]
    sink_client: bool,
    /// Text that messages must hold at the sink; looked for in one of 64, or in all at a rate.
    #[arg(long, value_name = "SUBSTRING")]
    need: Option<String>,
    /// Wait until others leave the machine alone, for at most so many seconds, before starting.
    #[arg(long, value_name = "SECS", default_value_t = 0.0)]
    wait_quiet: f64,
    /// The processor of source and sink.
    #[arg(long, default_value_t = 0)]
    load_cpu: usize,
    /// The processor of the relay.
    #[arg(long, default_value_t = 1)]
    relay_cpu: usize,
    /// Let the relay write to our standard error.
    #[arg(long)]
    verbose: bool,
}

/// What source, sink and the measurement share.
struct Tally {
    start: Instant,
    sent: AtomicU64,
    received: AtomicU64,
    received_bytes: AtomicU64,
    measuring: AtomicBool,
    stopped: AtomicBool,
}

impl Tally {
    /// Nanoseconds since the start.
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

/// A histogram of nanoseconds up to a minute, to three digits.
fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are constant and valid")
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    machine::pin(options.load_cpu)?;
    await_quiet(Duration::from_secs_f64(options.wait_quiet))?;
    let (relay, ends) = connect(&options)?;
    let report = measure(&options, relay, &ends)?;
    writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
    Ok(())
}

/// Waits until the machine does nothing, or `patience` is over.
fn await_quiet(patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        let before = machine::machine_time()?;
        thread::sleep(QUIET_WINDOW);
        let after = machine::machine_time()?;
        let used = after.busy.saturating_sub(before.busy) + after.steal.saturating_sub(before.steal);
        if used.as_secs_f64() < QUIET_SHARE * QUIET_WINDOW.as_secs_f64() {
            break;
        }
    }
    Ok(())
}

/// The two connections of a relay.
struct Ends {
    source: TcpStream,
    sink: TcpStream,
}

/// The relay's process; ends with this value.
struct Relay {
    child: Child,
    started: Instant,
}

impl Relay {
    fn spawn(options: &Options, source: SocketAddr, sink: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let (source, sink) = (format!("ws://{source}"), format!("ws://{sink}"));
        let words = options.relay.split_whitespace();
        let mut words = words.map(|word| word.replace("{src}", &source).replace("{snk}", &sink));
        let mut command = Command::new(words.next().ok_or("the relay's command is empty")?);
        command.args(words).env("SRC", source).env("SNK", sink).stdin(Stdio::null()).stdout(Stdio::null());
        if !options.verbose {
            command.stderr(Stdio::null());
        }
        let started = Instant::now();
        let child = machine::on_cpu(options.relay_cpu, || command.spawn())?;
        let child = child.map_err(|error| format!("failed to start {:?}: {error}", command.get_program()))?;
        Ok(Self { child, started })
    }

    /// Asks the process to end, waits, and makes it end.
    fn end(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + END_TIMEOUT;
        machine::terminate(self.child.id())?;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Fails only where the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the relay and waits for both of its connections.
fn connect(options: &Options) -> Result<(Option<Relay>, Ends), Box<dyn Error>> {
    let source_listener = TcpListener::bind("127.0.0.1:0")?;
    let sink_listener = TcpListener::bind("127.0.0.1:0")?;
    let (source, sink) = (source_listener.local_addr()?, sink_listener.local_addr()?);
    if options.relay == "direct" {
        let source = TcpStream::connect(sink)?;
        source.set_nodelay(true)?;
        return Ok((None, Ends { source, sink: sink_listener.accept()?.0 }));
    }
    let sink_listener = (!options.sink_client).then_some(sink_listener);
    let mut relay = Relay::spawn(options, source, sink)?;
    // A relay may dial its ends in any order, so each is awaited by a thread of its own.
    let source = in_background(move || accept(&source_listener));
    let sink = in_background(move || sink_listener.map_or_else(|| dial(sink), |listener| accept(&listener)));
    let source = await_end("the source", &source, &mut relay)?;
    let sink = await_end("the sink", &sink, &mut relay)?;
    Ok((Some(relay), Ends { source, sink }))
}

fn in_background(
    work: impl FnOnce() -> io::Result<TcpStream> + Send + 'static,
) -> mpsc::Receiver<io::Result<TcpStream>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || sender.send(work()));
    receiver
}

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    handshake::accept(&stream)?;
    Ok(stream)
}

/// Dials until somebody listens.
fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = loop {
        match TcpStream::connect(address) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => thread::sleep(LOOK),
            other => break other?,
        }
    };
    stream.set_nodelay(true)?;
    handshake::request(&stream, &address.to_string())?;
    Ok(stream)
}

fn await_end(
    what: &str,
    end: &mpsc::Receiver<io::Result<TcpStream>>,
    relay: &mut Relay,
) -> Result<TcpStream, Box<dyn Error>> {
    while relay.started.elapsed() < START_TIMEOUT {
        match end.recv_timeout(LOOK) {
            Ok(stream) => return Ok(stream?),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(status) = relay.child.try_wait()? {
            return Err(format!("the relay ended ({status}) before it connected to {what}").into());
        }
    }
    Err(format!("the relay did not connect to {what}").into())
}

/// Lets messages flow through the relay and reads the counters before and after.
fn measure(options: &Options, mut relay: Option<Relay>, ends: &Ends) -> Result<Report, Box<dyn Error>> {
    let tally = Tally {
        start: Instant::now(),
        sent: AtomicU64::new(0),
        received: AtomicU64::new(0),
        received_bytes: AtomicU64::new(0),
        measuring: AtomicBool::new(false),
        stopped: AtomicBool::new(options.idle),
    };
    let traffic = source::Traffic {
        size_bytes: options.size,
        rate: options.rate,
        one_per_write: options.one_per_write,
    };
    let checks = sink::Checks {
        need: options.need.as_ref().map(|need| Finder::new(need).into_owned()),
        all: options.rate.is_some(),
        masked: options.sink_client,
    };
    let process = relay.as_ref().map(|relay| relay.child.id());
    thread::scope(|threads| {
        let sink = threads.spawn(|| sink::run(&ends.sink, &checks, &tally));
        let source = threads.spawn(|| source::run(&ends.source, traffic, &tally));
        let readings = (|| -> Result<_, Box<dyn Error>> {
            let first_message = match &mut relay {
                Some(relay) if !options.idle => Some(await_first_message(relay, &tally)?),
                _ => None,
            };
            thread::sleep(Duration::from_secs_f64(options.warm));
            tally.measuring.store(true, Relaxed);
            let from = Reading::take(&tally, process)?;
            thread::sleep(Duration::from_secs_f64(options.secs));
            let to = Reading::take(&tally, process)?;
            tally.measuring.store(false, Relaxed);
            let resident = process.map(machine::resident_kib).transpose()?.unwrap_or_default();
            tally.stopped.store(true, Relaxed);
            drain(&tally);
            Ok((from, to, resident, first_message))
        })();
        // Whatever happened, both threads end now: the relay's sockets close, or ours do.
        tally.stopped.store(true, Relaxed);
        let (sent, received) = (tally.sent.load(Relaxed), tally.received.load(Relaxed));
        let ended = relay.as_mut().map_or(Ok(()), Relay::end);
        let _ = ends.source.shutdown(std::net::Shutdown::Both);
        let _ = ends.sink.shutdown(std::net::Shutdown::Both);
        let findings = sink.join().map_err(|_| "the sink panicked")??;
        let lateness = source.join().map_err(|_| "the source panicked")?;
        let (from, to, relay_resident_kib, first_message) = readings?;
        ended?;
        let lateness = lateness?;
        let measured =
            Measured { from, to, relay_resident_kib, first_message, sent, received, findings, lateness };
        Ok(Report::new(options, &measured))
    })
}

fn await_first_message(relay: &mut Relay, tally: &Tally) -> Result<Duration, Box<dyn Error>> {
    while tally.received.load(Relaxed) == 0 {
        if let Some(status) = relay.child.try_wait()? {
            return Err(format!("the relay ended ({status}) before it passed a message").into());
        }
        if relay.started.elapsed() > START_TIMEOUT {
            return Err("the relay passed no message".into());
        }
        thread::sleep(LOOK);
    }
    Ok(relay.started.elapsed())
}

/// Waits until everything sent has arrived, or nothing arrives any more.
fn drain(tally: &Tally) {
    let mut last = (u64::MAX, Instant::now());
    loop {
        thread::sleep(LOOK);
        let received = tally.received.load(Relaxed);
        if received != last.0 {
            last = (received, Instant::now());
        }
        if received >= tally.sent.load(Relaxed) || last.1.elapsed() > DRAINED_AFTER {
            return;
        }
    }
}
