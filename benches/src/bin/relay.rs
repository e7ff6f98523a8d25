//! Reference relays: what a good engineer writes in an afternoon, straight on tokio-tungstenite.
//!
//! One task on one thread reads from `--src` and writes to `--snk`. `pump` feeds what is there and
//! flushes when the source has nothing more; `send` flushes each message, as the obvious loop does.
//! The work is that of the `notional` plugin: keep what costs more than 100, and add
//! `"notional": price * quantity`.

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use futures_util::{SinkExt as _, StreamExt as _};
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

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(run(&options))
}

async fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let sink = if options.listen { listen(&options.snk).await? } else { dial(&options.snk).await? };
    let source = dial(&options.src).await?;
    match options.write {
        Write::Pump => pump(source, sink, options.work).await,
        Write::Send => send(source, sink, options.work).await,
    }
}

/// Feeds what can be read without waiting, then flushes.
async fn pump(mut source: Socket, mut sink: Socket, work: Work) -> Result<(), Box<dyn Error>> {
    let mut unflushed = false;
    poll_fn(|cx| -> Poll<Result<(), Box<dyn Error>>> {
        loop {
            ready!(sink.poll_ready_unpin(cx))?;
            match source.poll_next_unpin(cx)? {
                Poll::Ready(Some(message)) => {
                    if let Some(message) = work.on(message)? {
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
    Ok(sink.close(None).await?)
}

async fn send(mut source: Socket, mut sink: Socket, work: Work) -> Result<(), Box<dyn Error>> {
    while let Some(message) = source.next().await {
        if let Some(message) = work.on(message?)? {
            sink.send(message).await?;
        }
    }
    Ok(sink.close(None).await?)
}

/// Handshakes by hand, without blocking anything that matters: nothing flows before both are done.
async fn dial(url: &str) -> Result<Socket, Box<dyn Error>> {
    let stream = std::net::TcpStream::connect(authority(url))?;
    handshake::request(&stream, authority(url))?;
    frames(stream, Role::Client).await
}

async fn listen(url: &str) -> Result<Socket, Box<dyn Error>> {
    let (stream, _) = TcpListener::bind(authority(url))?.accept()?;
    handshake::accept(&stream)?;
    frames(stream, Role::Server).await
}

async fn frames(stream: std::net::TcpStream, role: Role) -> Result<Socket, Box<dyn Error>> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(WebSocketStream::from_raw_socket(TcpStream::from_std(stream)?, role, None).await)
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
