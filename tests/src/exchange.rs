//! A stand-in for an exchange: one door where tokens are given, and one where connections are made. Each request
//! waits for the test to answer it, refuse it, or go away.

use crate::sockets::soon;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// A door of the exchange.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Somebody at a door, and what they ask for.
#[derive(Debug)]
pub struct Caller {
    stream: TcpStream,
    /// The head of the request.
    pub head: String,
}

impl Door {
    /// A door at a free port.
    ///
    /// # Panics
    /// If there is none.
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it listens");
        Self { listener, address }
    }

    /// The next one who comes and asks for something.
    ///
    /// # Panics
    /// If nobody does in time.
    pub async fn caller(&self) -> Caller {
        loop {
            let (mut stream, _) = soon(self.listener.accept()).await.expect("a connection");
            stream.set_nodelay(true).expect("TCP has this option");
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\n")
                && soon(stream.read_buf(&mut read)).await.is_ok_and(|bytes| bytes > 0)
            {}
            if read.ends_with(b"\r\n\r\n") {
                return Caller { stream, head: String::from_utf8(read).expect("requests are text") };
            }
        }
    }
}

impl Caller {
    /// The target of the request: path and query.
    ///
    /// # Panics
    /// If the request has none.
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).expect("a request has a target")
    }

    /// The value of a header, if there is one of this name; "" where there is none.
    pub fn header(&self, name: &str) -> &str {
        let headers = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let mut found = headers.filter(|(header, _)| header.eq_ignore_ascii_case(name));
        found.next().map_or("", |(_, value)| value)
    }

    /// Answers with this text.
    pub async fn answer(self, text: &str) {
        self.respond("200 OK", &[], text).await;
    }

    /// Answers with this status and these headers.
    pub async fn respond(mut self, status: &str, headers: &[(&str, &str)], body: &str) {
        let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        // Whoever asked may have gone.
        let _ = self.stream.write_all(format!("{head}\r\n{body}").as_bytes()).await;
        let _ = self.stream.shutdown().await;
    }

    /// Makes the connection that was asked for, with the first of the subprotocols that were offered.
    ///
    /// # Panics
    /// If the other side has gone.
    pub async fn accept(mut self) -> WebSocketStream<TcpStream> {
        let key = derive_accept_key(self.header("sec-websocket-key").as_bytes());
        let mut head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {key}\r\n"
        );
        let offered = self.header("sec-websocket-protocol").split(", ").next().unwrap_or_default();
        if !offered.is_empty() {
            head.push_str(&format!("Sec-WebSocket-Protocol: {offered}\r\n"));
        }
        let head = format!("{head}\r\n");
        self.stream.write_all(head.as_bytes()).await.expect("the other side is there");
        WebSocketStream::from_raw_socket(self.stream, Role::Server, None).await
    }

    /// Waits until the other side gives up.
    pub async fn left(mut self) {
        let _ = soon(self.stream.read_u8()).await;
    }
}
