//! Swaps and reloads under load: how soon a new file of a plugin is live, for how long its pipeline stands still, and
//! whether the host holds more after thousands of them than before.
//!
//! The traffic is that of `load`, which starts the host as its relay and counts every message. This process puts new
//! content into the plugin folder, or changes the configuration file, and asks the host's API what became of it.
//! Prints one JSON object.
#![expect(clippy::print_stdout, reason = "a command for a terminal")]

use clap::Parser;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::error::Error;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidemill_bench::machine::resident_kib;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Between two looks at the API.
const LOOK: Duration = Duration::from_millis(10);
/// A swap that is not decided by then never will be.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the load generator may take to start the host, and to end.
const MARGIN: Duration = Duration::from_secs(30);

#[derive(Parser)]
struct Args {
    /// The host.
    #[arg(long, value_name = "FILE", default_value = "target/release/tidemill")]
    host: PathBuf,
    /// The load generator.
    #[arg(long, value_name = "FILE", default_value = "target/release/load")]
    load: PathBuf,
    /// The plugin whose versions are swapped: as it is, with a number behind it that tells them apart.
    #[arg(long, value_name = "FILE", default_value = "target/plugins/forward.wasm")]
    plugin: PathBuf,
    /// Swaps.
    #[arg(long, default_value_t = 100)]
    swaps: usize,
    /// Versions that take turns; the code of those that were there before is in the cache.
    #[arg(long)]
    versions: Option<usize>,
    /// Reloads after the swaps, each of which changes a key of the transform.
    #[arg(long, default_value_t = 0)]
    reloads: usize,
    /// Messages a second.
    #[arg(long, default_value_t = 200_000)]
    rate: u32,
    /// Bytes of a message.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Seconds that all of it takes at most.
    #[arg(long, default_value_t = 120)]
    secs: u64,
}

fn main() -> Result {
    let args = Args::parse();
    let folder = Folder::make()?;
    let wasm = fs::read(&args.plugin)?;
    folder.put_plugin(&version(&wasm, 0))?;
    let admin = free_address()?;
    folder.configure(admin, 0)?;
    let mut load = Load::start(&args, &folder)?;
    let mut api = Api::connect(admin, &mut load)?;
    let host = host_below(load.child.id())?;

    let (mut live, mut pauses, mut reloads) = (times()?, times()?, times()?);
    let mut before = held(host)?;
    let mut newest = api.newest_swap()?;
    let warm_up = (args.swaps / 10).max(1);
    for number in 1..=args.swaps {
        let distinct = args.versions.unwrap_or(usize::MAX);
        let content = version(&wasm, number % distinct);
        folder.put_plugin(&content)?;
        let (since, put_ms) = (Instant::now(), now_ms()?);
        let swap = loop {
            sleep(LOOK);
            match api.newest_swap()? {
                swap if swap["version"] != newest["version"] => break swap,
                _ if since.elapsed() > PATIENCE => return Err(format!("swap {number} is not decided").into()),
                _ => {}
            }
        };
        // It says itself when it was decided.
        let decided = swap["decided"].as_u64().ok_or("a swap was decided at no time")?;
        live.record(decided.saturating_sub(put_ms) * 1000)?;
        if swap["outcome"] != "swapped" {
            return Err(format!("swap {number}: {swap}").into());
        }
        for each in swap["uses"].as_array().into_iter().flatten() {
            pauses.record(each["swap_us"].as_u64().ok_or("a use was not swapped")?)?;
        }
        newest = swap;
        if number == warm_up {
            before = held(host)?;
        }
    }
    let after_swaps = held(host)?;
    for number in 1..=args.reloads {
        folder.configure(admin, number)?;
        let since = Instant::now();
        let (status, answer) = api.ask("POST", "/api/v1/reload")?;
        reloads.record(since.elapsed().as_micros() as u64)?;
        if status != 200 || answer["pipelines"][0]["class"] != "updated" {
            return Err(format!("reload {number}: {status} {answer}").into());
        }
    }
    let after = held(host)?;
    let traffic = load.report()?;
    println!(
        "{}",
        json!({
            "plugin": args.plugin, "bytes": wasm.len(), "rate": args.rate, "size": args.size,
            "swaps": args.swaps, "live_ms": shown(&live, 1e3), "pause_us": shown(&pauses, 1.0),
            "reloads": args.reloads, "reload_ms": shown(&reloads, 1e3),
            "held_before": before, "held_after_swaps": after_swaps, "held_after": after,
            "traffic": traffic,
        })
    );
    Ok(())
}

/// Since the Unix epoch.
fn now_ms() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

/// A histogram of microseconds.
fn times() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 120_000_000, 3)?)
}

fn shown(times: &Histogram<u64>, unit: f64) -> Value {
    if times.is_empty() {
        return Value::Null;
    }
    let at = |quantile| times.value_at_quantile(quantile) as f64 / unit;
    json!({ "p50": at(0.5), "p99": at(0.99), "max": times.max() as f64 / unit })
}

/// The same component with a number in a section that means nothing.
fn version(wasm: &[u8], number: usize) -> Vec<u8> {
    let mut wasm = wasm.to_vec();
    // The id of a custom section, its length, a name of one byte, and the number.
    wasm.extend([0, 10, 1, b'n']);
    wasm.extend((number as u64).to_le_bytes());
    wasm
}

/// What a process holds.
fn held(process: u32) -> Result<Value> {
    let count =
        |what: &str| Ok::<_, std::io::Error>(fs::read_dir(format!("/proc/{process}/{what}"))?.count());
    Ok(json!({
        "descriptors": count("fd")?, "threads": count("task")?,
        "resident_mib": resident_kib(process)? as f64 / 1024.0,
    }))
}

/// The process that the load generator has started.
fn host_below(parent: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    let first = children.split_whitespace().next().ok_or("the load generator has started no host")?;
    Ok(first.parse()?)
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A connection to the host's API, for one request after another.
struct Api(BufReader<TcpStream>);

impl Api {
    /// Waits until the host is ready.
    fn connect(address: SocketAddr, load: &mut Load) -> Result<Self> {
        let since = Instant::now();
        loop {
            let ready = TcpStream::connect(address).map_err(Into::into).and_then(|stream| {
                let mut api = Self(BufReader::new(stream));
                Ok((api.ask("GET", "/readyz")?.0 == 200, api))
            });
            match ready {
                Ok((true, api)) => return Ok(api),
                Ok(_) | Err(_) if since.elapsed() < MARGIN && load.child.try_wait()?.is_none() => sleep(LOOK),
                Ok(_) => return Err("the host is not ready".into()),
                Err(error) => return Err(error),
            }
        }
    }

    /// What it answers to a request without a body.
    fn ask(&mut self, method: &str, path: &str) -> Result<(u16, Value)> {
        let address = self.0.get_ref().peer_addr()?;
        write!(self.0.get_mut(), "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\n\r\n")?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head)? == 0 {
                return Err(format!("the host has hung up on {method} {path}").into());
            }
        }
        let status = head.split(' ').nth(1).ok_or("the answer has no status")?.parse()?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.ok_or("the answer has no length")?.parse()?];
        self.0.read_exact(&mut body)?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    /// The newest swap that was decided; null before the first.
    fn newest_swap(&mut self) -> Result<Value> {
        Ok(self.ask("GET", "/api/v1/swaps")?.1["swaps"].get_mut(0).map(Value::take).unwrap_or_default())
    }
}

/// The traffic; dropping it ends it, and the host with it.
struct Load {
    child: Child,
}

impl Load {
    fn start(args: &Args, folder: &Folder) -> Result<Self> {
        let config = folder.0.join("tidemill.toml");
        let host = fs::canonicalize(&args.host)?;
        let relay = format!("{} run -c {}", host.display(), config.display());
        let mut command = Command::new(fs::canonicalize(&args.load)?);
        command.args(["--relay", &relay, "--name", "swaps", "--warm", "0"]);
        command.args(["--secs", &args.secs.to_string(), "--size", &args.size.to_string()]);
        command.args(["--rate", &args.rate.to_string()]);
        Ok(Self { child: command.stdout(Stdio::piped()).spawn()? })
    }

    /// What it has counted, once its time is over.
    fn report(&mut self) -> Result<Value> {
        let mut report = String::new();
        self.child.stdout.take().ok_or("it is read once")?.read_to_string(&mut report)?;
        Ok(serde_json::from_str(&report)?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self> {
        let folder = Self(std::env::temp_dir().join(format!("tidemill-swaps-{}", std::process::id())));
        fs::create_dir_all(folder.0.join("plugins"))?;
        Ok(folder)
    }

    /// Puts a version into the plugin folder.
    fn put_plugin(&self, content: &[u8]) -> Result {
        let (beside, file) = (self.0.join("new"), self.0.join("plugins/subject.wasm"));
        fs::write(&beside, content)?;
        Ok(fs::rename(beside, file)?)
    }

    fn configure(&self, admin: SocketAddr, number: usize) -> Result {
        let config = format!(
            r#"
            [admin]
            listen = "{admin}"

            [[pipelines]]
            name = "swaps"
            source = {{ type = "websocket", url = "${{SRC}}" }}
            transforms = [{{ plugin = "subject", retries = {number} }}]
            sinks = [{{ type = "websocket", url = "${{SNK}}" }}]
            "#
        );
        let (beside, file): (_, &Path) = (self.0.join("new.toml"), &self.0.join("tidemill.toml"));
        fs::write(&beside, config)?;
        Ok(fs::rename(beside, file)?)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
