//! A TCP proxy that misbehaves on command: between a host and its peer it delays, stalls, cuts, resets,
//! or swallows what is sent, while both sides believe that they are connected.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Read at once. Small, so that a delay for each piece makes a slow line.
const PIECE_BYTES: usize = 16 << 10;

/// What the proxy does to its connections, those that are there and those that come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: all goes through.
    None,
    /// Each piece of 16 KiB waits so long.
    Delay(Duration),
    /// Nothing is read any more: bytes wait, and so do their senders.
    Stall,
    /// Half-open: everything is read and thrown away, ends too. A connection that it has happened to
    /// does not recover.
    Swallow,
    /// Connections are closed, without a close frame.
    Cut,
    /// Connections are reset.
    Reset,
    /// Each connection is reset once so many bytes have come from the target.
    ResetAfter(usize),
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    fault: watch::Sender<Fault>,
    _task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port, and passes connections on to `target`.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn open(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it listens");
        let (fault, seen) = watch::channel(Fault::None);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((client, _)) = accepted else { return };
                        connections.spawn(relay(client, target, seen.clone()));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Self { address, fault, _task: task }
    }

    /// From now on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

/// Why a connection ends before its sides end it.
enum Broken {
    Cut,
    Reset,
}

async fn relay(mut client: TcpStream, target: SocketAddr, fault: watch::Receiver<Fault>) {
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let broken = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let down = pump(from_server, to_client, fault.clone(), true);
        let up = pump(from_client, to_server, fault, false);
        tokio::try_join!(down, up).err()
    };
    if matches!(broken, Some(Broken::Reset)) {
        for stream in [&client, &server] {
            let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
        }
    }
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut fault: watch::Receiver<Fault>,
    is_from_target: bool,
) -> Result<(), Broken> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut passed_bytes = 0;
    let mut swallows = false;
    loop {
        let now = *fault.borrow_and_update();
        match now {
            Fault::Cut => return Err(Broken::Cut),
            Fault::Reset => return Err(Broken::Reset),
            Fault::ResetAfter(bytes) if is_from_target && passed_bytes >= bytes => return Err(Broken::Reset),
            Fault::Swallow => swallows = true,
            _ => {}
        }
        let read = tokio::select! {
            biased;
            Ok(()) = fault.changed() => continue,
            read = from.read(&mut piece), if now != Fault::Stall => read,
            else => return Err(Broken::Cut),
        };
        let length = match read {
            Ok(0) | Err(_) if swallows => {
                // Nobody hears of this end, until the proxy breaks the other one.
                fault.changed().await.map_err(|_| Broken::Cut)?;
                continue;
            }
            Ok(0) => return to.shutdown().await.map_err(|_| Broken::Cut),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(Broken::Reset),
            Err(_) => return Err(Broken::Cut),
            Ok(_) if swallows => continue,
            Ok(length) => length,
        };
        let length = match now {
            Fault::ResetAfter(bytes) if is_from_target => length.min(bytes - passed_bytes),
            _ => length,
        };
        if let Fault::Delay(delay) = now {
            tokio::time::sleep(delay).await;
        }
        let mut rest = &piece[..length];
        while !rest.is_empty() {
            tokio::select! {
                biased;
                Ok(()) = fault.changed() => match *fault.borrow_and_update() {
                    Fault::Cut => return Err(Broken::Cut),
                    Fault::Reset => return Err(Broken::Reset),
                    _ => {}
                },
                written = to.write(rest) => rest = &rest[written.map_err(|_| Broken::Cut)?..],
            }
        }
        passed_bytes += length;
    }
}
