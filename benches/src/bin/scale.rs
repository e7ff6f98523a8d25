//! Many peers of one server: what they cost when they are quiet, how fast they are all sent to, and
//! what is kept for those that do not read.
//!
//! The host runs as a child on one processor, with standard input as its source and one server sink;
//! the peers are in this process, on another. Prints one JSON object for each measurement.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command for a terminal")]

use clap::{Parser, ValueEnum};
use serde_json::json;
use std::cell::RefCell;
use std::error::Error;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream as Blocking};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tidemill_bench::machine::{on_cpu, pin, process_time, resident_kib};
use tidemill_bench::{frame, handshake};
use tokio::net::{TcpSocket, TcpStream};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const HOST_CPU: usize = 1;
const PEERS_CPU: usize = 0;
/// What a peer that does not read keeps in its own socket, at most.
const SLOW_WINDOW_BYTES: u32 = 4 << 10;
/// How long memory may still settle after the last connection.
const SETTLE: Duration = Duration::from_millis(500);
const WARM_UP: Duration = Duration::from_secs(1);
const READ_BYTES: usize = 64 << 10;

#[derive(Parser)]
struct Args {
    /// What is measured.
    #[arg(value_enum)]
    what: What,
    /// The host.
    #[arg(long, value_name = "FILE", default_value = "target/release/tidemill")]
    host: PathBuf,
    /// Connections.
    #[arg(long)]
    peers: Option<usize>,
    /// Bytes of a message.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// How long is measured.
    #[arg(long, default_value_t = 5)]
    secs: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Memory of quiet connections.
    Idle,
    /// Deliveries to peers that read.
    Broadcast,
    /// Memory for peers that do not read.
    Slow,
}

fn main() -> Result {
    let args = Args::parse();
    pin(PEERS_CPU)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let found = runtime.block_on(async {
        match args.what {
            What::Idle => idle(&args).await,
            What::Broadcast => broadcast(&args).await,
            What::Slow => slow(&args).await,
        }
    })?;
    println!("{found}");
    Ok(())
}

async fn idle(args: &Args) -> Result<serde_json::Value> {
    let peers = args.peers.unwrap_or(19_000);
    let mut host = Host::start(&args.host, "drop_oldest")?;
    let before_kib = resident_kib(host.id())?;
    let since = Instant::now();
    let mut connections = Vec::with_capacity(peers);
    for _ in 0..peers {
        connections.push(host.connect(None).await?);
    }
    let connecting = since.elapsed();
    tokio::time::sleep(SETTLE).await;
    let idle_kib = resident_kib(host.id())?;
    let before = process_time(host.id())?;
    tokio::time::sleep(Duration::from_secs(args.secs)).await;
    let processor = process_time(host.id())? - before;
    // A message to each shows what writing leaves behind.
    host.input.as_mut().ok_or("it is not fed")?.write_all(&line(args.size))?;
    for connection in &connections {
        read_some(connection).await?;
    }
    tokio::time::sleep(SETTLE).await;
    let spoken_kib = resident_kib(host.id())?;
    let each = |kib: u64| (kib - before_kib) as f64 / peers as f64;
    Ok(json!({
        "what": "idle", "peers": peers,
        "kib_each": each(idle_kib), "kib_each_after_a_message": each(spoken_kib),
        "host_mib": before_kib as f64 / 1024.0, "all_mib": idle_kib as f64 / 1024.0,
        "connects_s": peers as f64 / connecting.as_secs_f64(),
        "idle_cpu_pct": 100.0 * processor.as_secs_f64() / args.secs as f64,
    }))
}

async fn broadcast(args: &Args) -> Result<serde_json::Value> {
    let peers = args.peers.unwrap_or(5_000);
    let mut host = Host::start(&args.host, "block")?;
    let received = Arc::new(AtomicU64::new(0));
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..peers {
        let (connection, received) = (host.connect(None).await?, received.clone());
        readers.spawn(async move {
            while let Ok(bytes @ 1..) = read_some(&connection).await {
                received.fetch_add(bytes as u64, Relaxed);
            }
        });
    }
    let feeder = host.feed(args.size)?;
    tokio::time::sleep(WARM_UP).await;
    let (since, from, before) = (Instant::now(), received.load(Relaxed), process_time(host.id())?);
    let own = process_time(std::process::id())?;
    tokio::time::sleep(Duration::from_secs(args.secs)).await;
    let (seconds, bytes) = (since.elapsed().as_secs_f64(), received.load(Relaxed) - from);
    let processor = (process_time(host.id())? - before).as_secs_f64();
    let own = (process_time(std::process::id())? - own).as_secs_f64();
    let mut header = Vec::new();
    frame::write_header(&mut header, frame::TEXT, args.size, None);
    let deliveries = bytes as f64 / (header.len() + args.size) as f64;
    let rss_mib = resident_kib(host.id())? as f64 / 1024.0;
    drop(host);
    let _ = feeder.join();
    Ok(json!({
        "what": "broadcast", "peers": peers, "size": args.size,
        "deliveries_s": deliveries / seconds, "deliveries_cpu_s": deliveries / processor,
        "host_pct": 100.0 * processor / seconds, "peers_pct": 100.0 * own / seconds, "host_mib": rss_mib,
    }))
}

async fn slow(args: &Args) -> Result<serde_json::Value> {
    let peers = args.peers.unwrap_or(5_000);
    let mut host = Host::start(&args.host, "drop_oldest")?;
    let mut connections = Vec::with_capacity(peers);
    for _ in 0..peers {
        connections.push(host.connect(Some(SLOW_WINDOW_BYTES)).await?);
    }
    let before_kib = resident_kib(host.id())?;
    let witness = host.connect(None).await?;
    let feeder = host.feed(args.size)?;
    let mut seen = Vec::new();
    let mut bytes = 0;
    let since = Instant::now();
    for second in 1..=args.secs {
        while since.elapsed() < Duration::from_secs(second) {
            bytes += read_some(&witness).await?;
        }
        seen.push(resident_kib(host.id())?.saturating_sub(before_kib) as f64 / 1024.0);
    }
    let read_s = bytes as f64 / (args.size + 2) as f64 / since.elapsed().as_secs_f64();
    drop(host);
    let _ = feeder.join();
    Ok(json!({
        "what": "slow", "peers": peers, "size": args.size,
        "grown_mib_after_each_second": seen, "messages_s_to_a_peer_that_reads": read_s,
    }))
}

/// A running host; dropping it ends it.
struct Host {
    child: Child,
    input: Option<ChildStdin>,
    address: SocketAddr,
    _folder: Folder,
}

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Host {
    fn start(binary: &Path, slow_peer: &str) -> Result<Self> {
        let folder = Folder(std::env::temp_dir().join(format!("tidemill-scale-{}", std::process::id())));
        std::fs::create_dir_all(&folder.0)?;
        let config = format!(
            r#"
            [server]
            port = 0
            max_connections = 100000

            [[pipelines]]
            name = "scale"
            source = {{ type = "stdin" }}
            sinks = [{{ type = "websocket", mode = "server", path = "/", slow_peer = "{slow_peer}" }}]
            "#
        );
        std::fs::write(folder.0.join("tidemill.toml"), config)?;
        let mut command = Command::new(std::fs::canonicalize(binary)?);
        command.arg("run").current_dir(&folder.0).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = on_cpu(HOST_CPU, || command.spawn())??;
        let input = child.stdin.take();
        let mut log = BufReader::new(child.stderr.take().ok_or("standard error is piped")?).lines();
        let mut address = None;
        // Its path is there once the pipeline runs.
        let address = loop {
            let line = log.next().ok_or("the host ends")??;
            if let Some((_, listens)) = line.split_once("websocket listening address=") {
                address = Some(listens.trim().parse()?);
            }
            if line.contains("pipeline running") {
                break address.ok_or("the host does not listen")?;
            }
        };
        std::thread::spawn(move || log.map_while(io::Result::ok).for_each(|line| eprintln!("{line}")));
        Ok(Self { child, input, address, _folder: folder })
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    async fn connect(&self, window: Option<u32>) -> Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = window {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(self.address).await?.into_std()?;
        stream.set_nonblocking(false)?;
        let stream: Blocking = stream;
        handshake::request(&stream, &self.address.to_string())?;
        stream.set_nonblocking(true)?;
        Ok(TcpStream::from_std(stream)?)
    }

    /// Writes messages as fast as they are taken, until the host is gone.
    fn feed(&mut self, size: usize) -> Result<std::thread::JoinHandle<()>> {
        let mut input = self.input.take().ok_or("it is fed once")?;
        let lines = line(size).repeat(64);
        Ok(std::thread::spawn(move || while input.write_all(&lines).is_ok() {}))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A message of a size, and the end of its line.
fn line(size: usize) -> Vec<u8> {
    let mut line = vec![b'x'; size];
    if let [first, .., last] = line.as_mut_slice() {
        (*first, *last) = (b'"', b'"');
    }
    line.push(b'\n');
    line
}

/// Reads what is there, at least something, and throws it away.
async fn read_some(stream: &TcpStream) -> io::Result<usize> {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
    }
    loop {
        stream.readable().await?;
        match BUFFER.with_borrow_mut(|buffer| stream.try_read(buffer)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}
