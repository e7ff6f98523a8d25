//! The other ends of a host's sockets: a feed to read from, and a collector to write to.
//!
//! They speak WebSocket by a library of their own choice of features, and read as fast as they can.

use crate::host::{LOOK_INTERVAL, PATIENCE};
use futures_util::{SinkExt, StreamExt};
use std::net::SocketAddr;
use std::time::Instant;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, accept_async, connect_async};

/// Messages that may wait for a test to look at them.
const WAITING: usize = 1 << 16;

/// A connection that was dialled.
pub type Dialled = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A WebSocket server whose clients get what is pushed: all of it goes to one client at a time, and
/// the next client gets what follows.
#[derive(Debug)]
pub struct Feed {
    /// Where it listens.
    pub address: SocketAddr,
    messages: mpsc::Sender<Message>,
    task: JoinHandle<()>,
}

impl Feed {
    /// Listens on a free port.
    ///
    /// # Panics
    /// If there is none.
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        Self::on(listener)
    }

    /// Listens where it is told to.
    ///
    /// # Panics
    /// If the listener has no address.
    pub fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("it listens");
        let (messages, mut waiting) = mpsc::channel::<Message>(WAITING);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let Ok(mut socket) = accept_async(stream).await else { continue };
                if !serve(&mut socket, &mut waiting).await {
                    return;
                }
            }
        });
        Self { address, messages, task }
    }

    /// Its url.
    pub fn url(&self) -> String {
        format!("ws://{}/feed", self.address)
    }

    /// Sends a text message, or waits while the client reads slowly.
    ///
    /// # Panics
    /// If the feed has ended.
    pub async fn text(&self, text: impl Into<String>) {
        self.messages.send(Message::text(text.into())).await.expect("the feed is open");
    }

    /// Sends a message.
    ///
    /// # Panics
    /// If the feed has ended.
    pub async fn send(&self, message: Message) {
        self.messages.send(message).await.expect("the feed is open");
    }

    /// Ends at once: the listener and its connection go away as those of a killed process do.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Sends until the client goes away (true) or nothing will follow (false).
async fn serve(socket: &mut WebSocketStream<TcpStream>, waiting: &mut mpsc::Receiver<Message>) -> bool {
    loop {
        tokio::select! {
            received = socket.next() => match received {
                Some(Ok(message)) if !message.is_close() => {}
                _ => return true,
            },
            next = waiting.recv() => {
                let Some(message) = next else {
                    let _ = socket.close(None).await;
                    return false;
                };
                if socket.feed(message).await.is_err() {
                    return true;
                }
                while let Ok(message) = waiting.try_recv() {
                    if socket.feed(message).await.is_err() {
                        return true;
                    }
                }
                if socket.flush().await.is_err() {
                    return true;
                }
            }
        }
    }
}

/// A WebSocket server that keeps what its clients send.
#[derive(Debug)]
pub struct Collector {
    /// Where it listens.
    pub address: SocketAddr,
    /// What came, in order; of a close frame its code.
    pub received: mpsc::Receiver<Received>,
    _task: JoinHandle<()>,
}

/// What a collector keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// The connection ended, with this close code if there was one.
    Closed(Option<u16>),
}

impl Collector {
    /// Listens on a free port.
    ///
    /// # Panics
    /// If there is none.
    pub async fn open() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("there is a free port"))
    }

    /// Listens where it is told to.
    ///
    /// # Panics
    /// If the listener has no address.
    pub fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("it listens");
        let (sender, received) = mpsc::channel(WAITING);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut socket) = accept_async(stream).await else { continue };
                let closed = collect(&mut socket, &sender).await;
                if sender.send(Received::Closed(closed)).await.is_err() {
                    return;
                }
            }
        });
        Self { address, received, _task: task }
    }

    /// Its url.
    pub fn url(&self) -> String {
        format!("ws://{}/collect", self.address)
    }

    /// The next text message.
    ///
    /// # Panics
    /// If something else comes.
    pub async fn text(&mut self) -> String {
        match tokio::time::timeout(PATIENCE, self.received.recv()).await {
            Ok(Some(Received::Text(text))) => text,
            other => panic!("not a text message: {other:?}"),
        }
    }
}

async fn collect(socket: &mut WebSocketStream<TcpStream>, sender: &mpsc::Sender<Received>) -> Option<u16> {
    while let Some(Ok(message)) = socket.next().await {
        let received = match message {
            Message::Text(text) => Received::Text(text.to_string()),
            Message::Binary(bytes) => Received::Binary(bytes.to_vec()),
            Message::Close(frame) => {
                // The answer to the close frame is sent by reading on.
                let _ = socket.next().await;
                return frame.map(|frame| frame.code.into());
            }
            _ => continue,
        };
        if sender.send(received).await.is_err() {
            return None;
        }
    }
    None
}

/// Dials a path of a host's listener, again until it listens there.
///
/// # Panics
/// If it does not in time.
pub async fn dial(address: SocketAddr, path: &str) -> Dialled {
    let url = format!("ws://{address}{path}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        match connect_async(&url).await {
            Ok((socket, _)) => return socket,
            // It listens, and this path is not open yet, or not known.
            Err(Error::Http(answer))
                if [404, 503].contains(&answer.status().as_u16()) && Instant::now() < deadline =>
            {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
            Err(error) => panic!("{url} cannot be dialled: {error}"),
        }
    }
}

/// The socket of a connection without TLS.
///
/// # Panics
/// If it has TLS.
pub fn plain(stream: &MaybeTlsStream<TcpStream>) -> &TcpStream {
    match stream {
        MaybeTlsStream::Plain(tcp) => tcp,
        _ => panic!("it has TLS"),
    }
}
