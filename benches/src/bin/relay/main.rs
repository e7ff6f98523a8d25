//! Reference relays: what a good engineer writes in an afternoon, straight on tokio-tungstenite; and, for
//! what can be had of the machine, on the fastest library that we know, and on frames written by hand.
//!
//! One task on one thread reads from `--src` and writes to `--snk`. `pump` feeds what is there and
//! flushes when the source has nothing more; `send` flushes each message, as the obvious loop does.
//! The work is that of the `notional` plugin: keep what costs more than 100, and add
//! `"notional": price * quantity`.

mod frames;

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::future::poll_fn;
use std::net::TcpListener;
use std::task::{Poll, ready};
use tidemill_bench::handshake;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

type Socket = WebSocketStream<TcpStream>;
type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

/// Relays WebSocket messages without Tidemill.
#[derive(Debug, Parser)]
struct Options {
    /// The url to read from.
    #[arg(long)]
    src: String,
    /// The url to write to.
    #[arg(long)]
    snk: String,
    /// What is done with a message.
    #[arg(long, default_value = "none")]
    work: Work,
    /// When messages are written.
    #[arg(long, default_value = "pump")]
    write: Write,
    /// Listen at `--snk` for one peer instead of dialling it.
    #[arg(long)]
    listen: bool,
    /// What speaks WebSocket. Only tungstenite does work, or sends one by one.
    #[arg(long, default_value = "tungstenite")]
    library: Library,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Library {
    /// `tokio-tungstenite`.
    Tungstenite,
    /// `sockudo-ws`.
    Sockudo,
    /// None: frames are found and written in place.
    Frames,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Work {
    /// Pass it on.
    None,
    /// Parse it into a struct that knows every field, and write that.
    Typed,
    /// Parse it into a tree, and write that.
    Value,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Write {
    /// When the source has nothing more to read.
    Pump,
    /// One by one.
    Send,
}

fn main() -> Result {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(&options))
}

async fn run(options: &Options) -> Result {
    let (sink, sink_role) = if options.listen {
        (listen(&options.snk)?, Role::Server)
    } else {
        (dial(&options.snk)?, Role::Client)
    };
    let source = dial(&options.src)?;
    match (options.library, options.write) {
        (Library::Tungstenite, write) => {
            let sink = WebSocketStream::from_raw_socket(sink, sink_role, None).await;
            let source = WebSocketStream::from_raw_socket(source, Role::Client, None).await;
            match write {
                Write::Pump => pump(source, sink, |message| Ok(options.work.on(message)?)).await,
                Write::Send => send(source, sink, options.work).await,
            }
        }
        (Library::Sockudo, _) => {
            let role = match sink_role {
                Role::Client => sockudo_ws::Role::Client,
                Role::Server => sockudo_ws::Role::Server,
            };
            let sink = sockudo_ws::WebSocketStream::from_raw(sink, role, sockudo_ws::Config::default());
            let source = sockudo_ws::WebSocketStream::client(source, sockudo_ws::Config::default());
            pump(source, sink, |message| Ok(Some(message))).await
        }
        (Library::Frames, _) => frames::relay(source, sink, sink_role == Role::Client).await,
    }
}

/// Feeds what can be read without waiting, then flushes.
async fn pump<S, M, E>(mut source: S, mut sink: S, work: impl Fn(M) -> Result<Option<M>>) -> Result
where
    S: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Unpin,
    E: Error + 'static,
{
    let mut unflushed = false;
    poll_fn(|cx| -> Poll<Result> {
        loop {
            ready!(sink.poll_ready_unpin(cx))?;
            match source.poll_next_unpin(cx)? {
                Poll::Ready(Some(message)) => {
                    if let Some(message) = work(message)? {
                        sink.start_send_unpin(message)?;
                        unflushed = true;
                    }
                }
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    if unflushed {
                        ready!(sink.poll_flush_unpin(cx))?;
                        unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    })
    .await?;
    Ok(sink.close().await?)
}

async fn send(mut source: Socket, mut sink: Socket, work: Work) -> Result {
    while let Some(message) = source.next().await {
        if let Some(message) = work.on(message?)? {
            sink.send(message).await?;
        }
    }
    Ok(sink.close(None).await?)
}

/// Handshakes by hand, without blocking anything that matters: nothing flows before both are done.
fn dial(url: &str) -> Result<TcpStream> {
    let stream = std::net::TcpStream::connect(authority(url))?;
    handshake::request(&stream, authority(url))?;
    polled(stream)
}

fn listen(url: &str) -> Result<TcpStream> {
    let (stream, _) = TcpListener::bind(authority(url))?.accept()?;
    handshake::accept(&stream)?;
    polled(stream)
}

fn polled(stream: std::net::TcpStream) -> Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream)?)
}

fn authority(url: &str) -> &str {
    url.trim_start_matches("ws://").trim_end_matches('/')
}

const ABOVE: f64 = 100.0;

impl Work {
    /// The message to pass on, if any.
    #[inline]
    fn on(self, message: Message) -> Result<Option<Message>, serde_json::Error> {
        let Message::Text(text) = &message else {
            return Ok(message.is_binary().then_some(message));
        };
        let json = match self {
            Self::None => return Ok(Some(message)),
            Self::Typed => typed(text)?,
            Self::Value => tree(text)?,
        };
        Ok(json.map(text_frame))
    }
}

/// Serialised JSON is UTF-8: as a frame it is not checked a second time.
fn text_frame(json: Vec<u8>) -> Message {
    Message::Frame(Frame::message(Bytes::from(json), OpCode::Data(Data::Text), true))
}

/// The document of the load generator, every field known.
#[derive(Deserialize, Serialize)]
struct Trade<'a> {
    ts: u64,
    seq: u64,
    sym: &'a str,
    price: f64,
    qty: f64,
    side: &'a str,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bids: Vec<(f64, f64)>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    asks: Vec<(&'a str, &'a str)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p: Option<&'a str>,
    #[serde(skip_deserializing)]
    notional: f64,
}

fn typed(text: &str) -> Result<Option<Vec<u8>>, serde_json::Error> {
    let mut trade: Trade<'_> = serde_json::from_str(text)?;
    if trade.price <= ABOVE {
        return Ok(None);
    }
    trade.notional = trade.price * trade.qty;
    written(&trade, text.len())
}

fn tree(text: &str) -> Result<Option<Vec<u8>>, serde_json::Error> {
    let mut document: serde_json::Value = serde_json::from_str(text)?;
    let (Some(price), Some(quantity)) = (document["price"].as_f64(), document["qty"].as_f64()) else {
        return Ok(None);
    };
    if price <= ABOVE {
        return Ok(None);
    }
    document["notional"] = (price * quantity).into();
    written(&document, text.len())
}

/// JSON that is a little longer than what it was made of.
fn written(value: &impl Serialize, length: usize) -> Result<Option<Vec<u8>>, serde_json::Error> {
    let mut json = Vec::with_capacity(length + 64);
    serde_json::to_writer(&mut json, value)?;
    Ok(Some(json))
}
