//! A stand-in for a host: something that listens where one would, and answers as it likes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

/// Listens at a free port, and answers each request with what comes of its first line and its body; gives the address.
/// It lives as long as the process.
///
/// # Panics
/// If there is no free port.
pub fn impostor(answer: impl Fn(&str, &str) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = listener.local_addr().expect("it listens").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("somebody has come"));
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let start = head.len();
                if stream.read_line(&mut head).is_err() || head[start..].trim().is_empty() {
                    break;
                }
                if let Some(bytes) = head[start..].to_ascii_lowercase().strip_prefix("content-length:") {
                    length = bytes.trim().parse().expect("a length");
                }
            }
            let mut body = String::new();
            let _ = (&mut stream).take(length).read_to_string(&mut body);
            let first = head.lines().next().unwrap_or_default();
            // Whoever has left wants no answer.
            let _ = stream.get_mut().write_all(&answer(first, &body));
        }
    });
    address
}

/// An answer of HTTP with this status and body.
pub fn answer(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Some\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
