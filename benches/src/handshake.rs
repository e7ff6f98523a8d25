//! Both sides of the opening handshake, blocking: no extensions, no subprotocols.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};
use std::io::{self, Read, Write};
use std::net::TcpStream;

/// What every WebSocket server adds to the client's key before it hashes it.
const PROTOCOL_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Any 16 bytes in base64; a load generator needs no fresh ones.
const CLIENT_KEY: &str = "dGlkZW1pbGwtYmVuY2ghIQ==";
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Answers a client on an accepted connection.
///
/// # Errors
/// Those of the socket, and a request without a key.
pub fn accept(mut stream: &TcpStream) -> io::Result<()> {
    let head = read_head(stream)?;
    let key = header(&head, "sec-websocket-key").ok_or_else(|| invalid("the request has no key"))?;
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        accept_key(key)
    )
}

/// Asks a server for an upgrade on a connection to `authority`.
///
/// # Errors
/// Those of the socket, and any answer but the right one.
pub fn request(mut stream: &TcpStream, authority: &str) -> io::Result<()> {
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {CLIENT_KEY}\r\n\r\n"
    )?;
    let head = read_head(stream)?;
    let accepted = header(&head, "sec-websocket-accept") == Some(&accept_key(CLIENT_KEY));
    match head.starts_with("HTTP/1.1 101 ") && accepted {
        true => Ok(()),
        false => Err(invalid(head.lines().next().unwrap_or("the answer is empty"))),
    }
}

fn accept_key(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(PROTOCOL_GUID).finalize())
}

/// Reads up to the empty line byte by byte, so that no frame after it is taken along.
fn read_head(mut stream: &TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
        if head.len() > MAX_HEAD_BYTES {
            return Err(invalid("the head is too long"));
        }
    }
    String::from_utf8(head).map_err(|_| invalid("the head is not text"))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields
        .map(|(key, value)| (key, value.trim()))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|f| f.1)
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn accept_key_is_that_of_the_specification() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn both_sides_agree() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound listener");
        let server = std::thread::spawn(move || accept(&listener.accept()?.0));
        let client = TcpStream::connect(address).expect("the listener is there");
        request(&client, &address.to_string()).expect("the server accepts");
        server.join().expect("no panic").expect("the client asks properly");
    }
}
