//! TCP to a host by its name: every address of it, one after the other with a head start for each
//! (RFC 8305), so that one that is dead costs a moment and not the whole `connect_timeout`.

use crate::websocket::connection::prepare;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// What an attempt has before the next address is tried beside it: the Connection Attempt Delay that
/// section 8 recommends.
const HEAD_START: Duration = Duration::from_millis(250);

/// The first connection that one of the host's addresses grants.
///
/// # Errors
/// The name has no address, or each was refused.
///
/// # Cancel safety
/// Dropping the future drops all attempts.
pub(super) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    connect_to(tokio::net::lookup_host((host, port)).await?.collect()).await
}

/// The first connection that one of these addresses grants.
///
/// # Errors
/// There is no address, or each was refused.
///
/// # Cancel safety
/// Dropping the future drops all attempts.
pub(crate) async fn connect_to(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let tcp = first_of(in_turns(addresses)).await?;
    prepare(&tcp)?;
    Ok(tcp)
}

/// The families of addresses take turns, beginning with the one that the system prefers (section 4).
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let count = addresses.len();
    let prefers_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == prefers_v6);
    let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
    let mut turns = Vec::with_capacity(count);
    while turns.len() < count {
        turns.extend(preferred.next());
        turns.extend(other.next());
    }
    turns
}

async fn first_of(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut problem = None;
    loop {
        attempts.extend(waiting.next().map(TcpStream::connect));
        tokio::select! {
            biased;
            attempt = attempts.next() => match attempt {
                Some(Ok(tcp)) => return Ok(tcp),
                // That nobody listens says more than that there is no way to some other address.
                Some(Err(error)) if problem.is_none() || error.kind() == ErrorKind::ConnectionRefused => {
                    problem = Some(error);
                }
                Some(Err(_)) => {}
                None => return Err(problem.unwrap_or_else(|| ErrorKind::AddrNotAvailable.into())),
            },
            () = tokio::time::sleep(HEAD_START), if waiting.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpSocket};

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn families_take_turns_and_each_keeps_its_order() {
        let found = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"].map(address).to_vec();
        let wanted = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"].map(address);
        assert_eq!(in_turns(found), wanted);
        assert_eq!(in_turns(vec![address("1.1.1.1:1")]), [address("1.1.1.1:1")]);
        assert_eq!(in_turns(Vec::new()), []);
    }

    /// An address that answers nothing: whoever listens has a full queue. It does while the sockets live.
    async fn silent() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(address("127.0.0.2:0")).expect("a free port");
        let listener = socket.listen(1).expect("it is bound");
        let address = listener.local_addr().expect("bound");
        let mut queued = Vec::new();
        while let Ok(tcp) = tokio::time::timeout(HEAD_START, TcpStream::connect(address)).await {
            queued.push(tcp.expect("there is room still"));
        }
        (address, queued, listener)
    }

    #[tokio::test]
    async fn an_address_that_is_dead_or_refuses_keeps_nobody_from_the_next() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let live = listener.local_addr().expect("bound");
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let refusing = closed.local_addr().expect("bound");
        drop(closed);
        let (silent, _queued, _listener) = silent().await;
        let tcp = first_of(vec![silent, silent, refusing, live]).await.expect("one is alive");
        assert_eq!(tcp.peer_addr().expect("connected"), live);
        let error = first_of(vec![refusing, refusing]).await.expect_err("none is");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert!(first_of(Vec::new()).await.is_err());
    }
}
