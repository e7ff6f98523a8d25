//! A relay of frames written by hand: the least that can be done with each message.
//!
//! Frames are found in one buffer and written to another, without a type for a message, without a check of
//! text, of order or of length. No host can be as fast that promises anything; how far it is from here says what
//! its promises cost.

use super::Result;
use std::io::ErrorKind;
use tidemill_bench::frame::{CLOSE, Header, MAX_HEADER_BYTES, PING, PONG, TEXT, write_header};
use tokio::net::TcpStream;

/// Read at once.
const READ_BYTES: usize = 128 << 10;
/// Binary messages, and parts of messages after the first, are passed on like text.
const DATA_OPCODES: u8 = 0x02;
/// One mask for all: a relay that is measured has nothing to hide.
const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

/// Passes on every data frame, with a mask if `is_client` says that the sink expects one.
pub(super) async fn relay(source: TcpStream, sink: TcpStream, is_client: bool) -> Result {
    let mut input = vec![0; 2 * READ_BYTES];
    let mut filled = 0;
    let mut output = Vec::with_capacity(input.len() + MAX_HEADER_BYTES);
    loop {
        source.readable().await?;
        match source.try_read(&mut input[filled..]) {
            Ok(0) => return Ok(()),
            Ok(length) => filled += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        }
        let mut at = 0;
        while let Some(header) = Header::read(&input[at..filled])
            && header.frame_bytes() <= filled - at
        {
            let payload = &input[at + header.header_bytes..at + header.frame_bytes()];
            match header.kind {
                TEXT.. if header.kind & 0x0f <= DATA_OPCODES => {
                    copy(&mut output, header.kind, payload, is_client);
                }
                CLOSE => {
                    copy(&mut output, CLOSE, payload, is_client);
                    return write_all(&sink, &output).await;
                }
                PING => {
                    let mut pong = Vec::new();
                    copy(&mut pong, PONG, payload, true);
                    write_all(&source, &pong).await?;
                }
                _ => {}
            }
            at += header.frame_bytes();
        }
        input.copy_within(at..filled, 0);
        filled -= at;
        if filled == input.len() {
            input.resize(2 * filled, 0);
        }
        write_all(&sink, &output).await?;
        output.clear();
        // What the sink says is read in vain, so that it can go on saying it.
        while let Ok(1..) = sink.try_read(&mut [0; MAX_HEADER_BYTES]) {}
    }
}

/// Appends a frame.
#[inline]
fn copy(out: &mut Vec<u8>, kind: u8, payload: &[u8], is_masked: bool) {
    write_header(out, kind, payload.len(), is_masked.then_some(MASK));
    let start = out.len();
    out.extend_from_slice(payload);
    if is_masked {
        let (words, rest) = out[start..].as_chunks_mut::<4>();
        for word in words {
            *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(MASK)).to_ne_bytes();
        }
        rest.iter_mut().zip(MASK).for_each(|(byte, mask)| *byte ^= mask);
    }
}

async fn write_all(sink: &TcpStream, mut bytes: &[u8]) -> Result {
    while !bytes.is_empty() {
        sink.writable().await?;
        match sink.try_write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
