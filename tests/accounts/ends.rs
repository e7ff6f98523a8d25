//! The other ends of the pipeline's sockets: each does as it is told, and keeps what came and went.

use futures_util::{SinkExt, StreamExt};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

/// What may wait for a connection.
const WAITING: usize = 1 << 14;
/// Small, so that a socket that is reset swallows little.
pub(crate) const RECEIVE_BYTES: u32 = 16 << 10;
/// Between two attempts to dial.
const REDIAL: Duration = Duration::from_millis(5);

/// What is kept of what an end saw.
pub(crate) type Log<T> = Arc<Mutex<T>>;

pub(crate) fn locked<T>(log: &Log<T>) -> std::sync::MutexGuard<'_, T> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first word of a message: its id.
pub(crate) fn id(text: &str) -> String {
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// One connection of the source, and the messages that were written to it.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) ids: Range<u64>,
    /// It was left in order while the pipeline ran: all that was written must arrive.
    pub(crate) is_whole: bool,
}

#[derive(Debug)]
enum Order {
    Send(u64, Message),
    Leave,
    Reset,
}

/// The server that the source dials.
#[derive(Debug)]
pub(crate) struct Producer {
    pub(crate) address: SocketAddr,
    pub(crate) log: Log<Vec<Written>>,
    orders: mpsc::Sender<Order>,
    gate: watch::Sender<bool>,
    /// Orders given and not yet obeyed.
    backlog: Arc<AtomicU64>,
    /// How often the pipeline was asked to stop: what a connection still held then may stay unread.
    stops: Arc<AtomicU64>,
    _task: JoinHandle<()>,
}

impl Producer {
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (orders, waiting) = mpsc::channel(WAITING);
        let (gate, opened) = watch::channel(true);
        let log = Log::default();
        let (backlog, stops) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let served = Served {
            orders: waiting,
            next: VecDeque::new(),
            gate: opened,
            log: log.clone(),
            backlog: backlog.clone(),
            stops: stops.clone(),
        };
        let task = tokio::spawn(served.run(listener));
        Self { address, log, orders, gate, backlog, stops, _task: task }
    }

    pub(crate) fn backlog(&self) -> u64 {
        self.backlog.load(Ordering::Relaxed)
    }

    pub(crate) fn send(&self, (id, message): (u64, Message)) {
        self.order(Order::Send(id, message));
    }

    pub(crate) fn leave(&self) {
        self.order(Order::Leave);
    }

    pub(crate) fn reset(&self) {
        self.order(Order::Reset);
    }

    /// The pipeline is about to stop: what follows waits until [`Producer::go_on`].
    pub(crate) fn hold(&self) {
        self.stops.fetch_add(1, Ordering::SeqCst);
        self.gate.send_replace(false);
    }

    pub(crate) fn go_on(&self) {
        self.gate.send_replace(true);
    }

    fn order(&self, order: Order) {
        self.backlog.fetch_add(1, Ordering::Relaxed);
        self.orders.try_send(order).expect("the schedule looks at the backlog first");
    }
}

struct Served {
    orders: mpsc::Receiver<Order>,
    /// Taken from the channel, and not obeyed yet.
    next: VecDeque<Order>,
    gate: watch::Receiver<bool>,
    log: Log<Vec<Written>>,
    backlog: Arc<AtomicU64>,
    stops: Arc<AtomicU64>,
}

/// How a connection of the producer ended.
enum Left {
    InOrder,
    Reset,
    Lost,
}

impl Served {
    async fn run(mut self, listener: TcpListener) {
        while let Ok((tcp, _)) = listener.accept().await {
            let _ = tcp.set_nodelay(true);
            let stops = self.stops.load(Ordering::SeqCst);
            let Ok(socket) = accept_async(tcp).await else { continue };
            let first = locked(&self.log).last().map_or(0, |written| written.ids.end);
            locked(&self.log).push(Written { ids: first..first, is_whole: false });
            let (mut write, mut read) = socket.split();
            let left = {
                let lost = async {
                    while let Some(Ok(message)) = read.next().await {
                        if message.is_close() {
                            break;
                        }
                    }
                };
                tokio::select! {
                    left = self.obey(&mut write) => left,
                    () = lost => Left::Lost,
                }
            };
            match left {
                Left::InOrder => {
                    // The host may be held back: it answers once it has read all.
                    while let Some(Ok(_)) = read.next().await {}
                    let is_undisturbed = self.stops.load(Ordering::SeqCst) == stops;
                    if let Some(written) = locked(&self.log).last_mut() {
                        written.is_whole = is_undisturbed;
                    }
                }
                Left::Reset => {
                    if let Ok(socket) = write.reunite(read) {
                        reset(socket.get_ref());
                    }
                }
                Left::Lost => {
                    // An answer to the close frame.
                    let _ = write.close().await;
                    while let Some(Ok(_)) = read.next().await {}
                }
            }
        }
    }

    async fn obey<W>(&mut self, write: &mut W) -> Left
    where
        W: futures_util::Sink<Message> + Unpin,
    {
        loop {
            if self.gate.wait_for(|is_open| *is_open).await.is_err() {
                return Left::Lost;
            }
            if self.next.is_empty() {
                match self.orders.try_recv() {
                    Ok(order) => self.next.push_back(order),
                    Err(_) => {
                        if write.flush().await.is_err() {
                            return Left::Lost;
                        }
                        let Some(order) = self.orders.recv().await else { return Left::Lost };
                        self.next.push_back(order);
                        // The gate may have been closed meanwhile.
                        continue;
                    }
                }
            }
            let Some(order) = self.next.pop_front() else { continue };
            self.backlog.fetch_sub(1, Ordering::Relaxed);
            match order {
                Order::Send(id, message) => {
                    if let Some(written) = locked(&self.log).last_mut() {
                        written.ids.end = id + 1;
                    }
                    if write.feed(message).await.is_err() {
                        return Left::Lost;
                    }
                }
                Order::Leave => {
                    let frame = CloseFrame { code: 1001.into(), reason: "".into() };
                    let closed = write.send(Message::Close(Some(frame))).await;
                    return if closed.is_ok() { Left::InOrder } else { Left::Lost };
                }
                Order::Reset => return Left::Reset,
            }
        }
    }
}

/// What an end does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It is connected and reads.
    Reads,
    /// It is connected and does not read.
    Stalls,
    /// It closes in order, and comes back at once.
    Leaves,
    /// It resets its connection, and comes back at once.
    Resets,
    /// It is not there; what it had, it resets.
    Away,
}

/// What the dialled sink's server kept.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) ids: Vec<String>,
    pub(crate) connections: u64,
}

/// The server that a sink dials.
#[derive(Debug)]
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    pub(crate) log: Log<Collected>,
    mood: watch::Sender<Mood>,
    _task: JoinHandle<()>,
}

impl Collector {
    pub(crate) async fn open() -> Self {
        let listener = listen("127.0.0.1:0".parse().unwrap());
        let address = listener.local_addr().unwrap();
        let (mood, mut felt) = watch::channel(Mood::Reads);
        let log = Log::<Collected>::default();
        let task = tokio::spawn({
            let log = log.clone();
            async move {
                let mut listener = Some(listener);
                loop {
                    if *felt.borrow_and_update() == Mood::Away {
                        listener = None;
                        if felt.changed().await.is_err() {
                            return;
                        }
                        continue;
                    }
                    let open = listener.get_or_insert_with(|| listen(address));
                    let accepted = tokio::select! {
                        changed = felt.changed() => match changed {
                            Ok(()) => continue,
                            Err(_) => return,
                        },
                        accepted = open.accept() => accepted,
                    };
                    let Ok((tcp, _)) = accepted else { continue };
                    let Ok(socket) = accept_async(tcp).await else { continue };
                    locked(&log).connections += 1;
                    serve(socket, &mut felt, |text| locked(&log).ids.push(id(text))).await;
                }
            }
        });
        Self { address, log, mood, _task: task }
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.set_recv_buffer_size(RECEIVE_BYTES).unwrap();
    socket.bind(address).unwrap();
    socket.listen(64).unwrap()
}

/// A peer of the server sink.
#[derive(Debug)]
pub(crate) struct Peer {
    /// What came, by connection.
    pub(crate) log: Log<Vec<Vec<String>>>,
    /// The address of the connection that it has.
    pub(crate) address: Log<Option<SocketAddr>>,
    mood: watch::Sender<Mood>,
    _task: JoinHandle<()>,
}

impl Peer {
    pub(crate) fn dial(server: SocketAddr, mood: Mood) -> Self {
        let (mood, mut felt) = watch::channel(mood);
        let (log, address) = (Log::<Vec<Vec<String>>>::default(), Log::default());
        let task = tokio::spawn({
            let (log, address) = (log.clone(), address.clone());
            async move {
                loop {
                    if felt.wait_for(|mood| *mood != Mood::Away).await.is_err() {
                        return;
                    }
                    felt.mark_unchanged();
                    let Some(socket) = dialled(server).await else {
                        tokio::time::sleep(REDIAL).await;
                        continue;
                    };
                    locked(&log).push(Vec::new());
                    *locked(&address) = socket.get_ref().local_addr().ok();
                    serve(socket, &mut felt, |text| {
                        if let Some(last) = locked(&log).last_mut() {
                            last.push(id(text));
                        }
                    })
                    .await;
                    *locked(&address) = None;
                }
            }
        });
        Self { log, address, mood, _task: task }
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }
}

async fn dialled(server: SocketAddr) -> Option<WebSocketStream<TcpStream>> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_recv_buffer_size(RECEIVE_BYTES).ok()?;
    let tcp = socket.connect(server).await.ok()?;
    Some(client_async(format!("ws://{server}/out"), tcp).await.ok()?.0)
}

/// Does with a connection as the mood says, until it has ended.
async fn serve(
    mut socket: WebSocketStream<TcpStream>,
    mood: &mut watch::Receiver<Mood>,
    mut keep: impl FnMut(&str),
) {
    // What was meant for the connection before does not end this one.
    let mut now = match *mood.borrow_and_update() {
        Mood::Leaves | Mood::Resets => Mood::Reads,
        now => now,
    };
    loop {
        match now {
            Mood::Reads | Mood::Stalls => {}
            Mood::Leaves => {
                let _ = socket.close(None).await;
                while let Some(Ok(message)) = socket.next().await {
                    if let Message::Text(text) = message {
                        keep(&text);
                    }
                }
                return;
            }
            Mood::Resets | Mood::Away => return reset(socket.get_ref()),
        }
        tokio::select! {
            changed = mood.changed() => match changed {
                Ok(()) => now = *mood.borrow_and_update(),
                Err(_) => return,
            },
            next = socket.next(), if now == Mood::Reads => match next {
                Some(Ok(Message::Text(text))) => keep(&text),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
}

/// The connection is reset when it is dropped.
fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}
