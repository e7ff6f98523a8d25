//! Whether a peer goes on reading what it was sent, as far as TCP can tell.
//!
//! A peer answers a ping once it has read all that was sent before it, and the kernels of both sides may
//! hold megabytes of that. Until then its own kernel shows that it reads: it takes what we still had to
//! send, or has more room than before. One that only acknowledges what comes shows nothing.

use tokio::net::TcpStream;

/// Room may change by a little without anybody reading.
const LEAST_ROOM_BYTES: u32 = 4 << 10;

/// What Linux calls a connection that has ended (`tcp_states.h`), and one whose peer has hung up.
#[cfg(target_os = "linux")]
const CLOSE: u8 = 7;
#[cfg(target_os = "linux")]
const CLOSE_WAIT: u8 = 8;

/// How far a connection was at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TcpProgress {
    /// Sent, and taken by the peer's kernel.
    taken_bytes: u64,
    /// Written by us, and not yet sent.
    unsent_bytes: u32,
    /// What the peer's kernel would take now.
    room_bytes: u32,
    /// Whether the peer has hung up, though what it had sent may still be there.
    pub(crate) is_hung_up: bool,
}

impl TcpProgress {
    /// `None` where the system does not tell.
    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "there is no safe way to ask for TCP_INFO")]
    pub(crate) fn of(tcp: &TcpStream) -> Option<Self> {
        use std::os::fd::AsRawFd;
        // SAFETY: it is made of numbers, which may all be zero.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = libc::socklen_t::try_from(size_of_val(&info)).ok()?;
        // SAFETY: no more than `length` bytes are written, and any are numbers.
        let result = unsafe {
            let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
            libc::getsockopt(tcp.as_raw_fd(), level, name, (&raw mut info).cast(), &raw mut length)
        };
        // An older kernel knows less, and writes less. Of what is read here, this field comes last.
        let needed = std::mem::offset_of!(libc::tcp_info, tcpi_snd_wnd) + size_of_val(&info.tcpi_snd_wnd);
        (result == 0 && length as usize >= needed).then_some(Self {
            taken_bytes: info.tcpi_bytes_acked,
            unsent_bytes: info.tcpi_notsent_bytes,
            room_bytes: info.tcpi_snd_wnd,
            is_hung_up: matches!(info.tcpi_state, CLOSE | CLOSE_WAIT),
        })
    }

    /// `None`: this system does not tell.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn of(_: &TcpStream) -> Option<Self> {
        None
    }

    /// Whether the peer must have read something since.
    pub(crate) fn is_beyond(&self, before: &Self) -> bool {
        let takes_what_waits = self.unsent_bytes > 0 && self.taken_bytes > before.taken_bytes;
        takes_what_waits || self.room_bytes >= before.room_bytes.saturating_add(LEAST_ROOM_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_reads_that_makes_room_or_takes_what_waits() {
        let of = |taken_bytes, unsent_bytes, room_bytes| TcpProgress {
            taken_bytes,
            unsent_bytes,
            room_bytes,
            is_hung_up: false,
        };
        for (before, now, reads) in [
            (of(0, 9000, 0), of(9000, 9000, 0), true),
            (of(0, 0, 0), of(0, 0, 9000), true),
            // It takes what comes, and has nothing to catch up on.
            (of(0, 0, 9000), of(9000, 0, 9000), false),
            (of(0, 0, 9000), of(9000, 0, 0), false),
            // What waits is not taken.
            (of(0, 9000, 0), of(0, 18_000, 0), false),
            (of(0, 0, 9000), of(6, 0, 9100), false),
        ] {
            assert_eq!(now.is_beyond(&before), reads, "{before:?} {now:?}");
        }
    }
}
