//! The byte stream under a connection: TCP, or TLS over it.

use super::tcp_progress::TcpProgress;
use rustls::ProtocolVersion;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What the kernel holds at most that was not yet sent to a peer.
#[cfg(target_os = "linux")]
const MAX_UNSENT_BYTES: u32 = 64 << 10;

/// Makes a TCP connection what ours are: small writes go out at once, and what a peer does not read waits
/// with us, where policies know of it and nothing counts as delivered, and not in megabytes of the kernel's.
///
/// # Errors
/// The connection is gone already.
pub(crate) fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    // Without it, a slow peer costs more memory, and gets older messages.
    let _ = socket2::SockRef::from(tcp).set_tcp_notsent_lowat(MAX_UNSENT_BYTES);
    Ok(())
}

/// TCP, or TLS over it. An enum, so that the plain path costs no dynamic call.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Its socket is closed: nothing more comes, and nothing goes out.
    Closed,
}

/// What TLS agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// Such as "TLS 1.3".
    pub version: String,
    /// Whom the server's certificate names, as in `CN=example.com`; "" if it names nobody there.
    pub subject: String,
    /// The end of its validity.
    pub valid_until: Option<SystemTime>,
}

impl Stream {
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Tls(tls) => Some(tls.get_ref().0),
            Self::Closed => None,
        }
    }

    /// The address at the other end.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.tcp()?.peer_addr().ok()
    }

    /// How far the peer has come with what was sent, if the system tells.
    pub(crate) fn progress(&self) -> Option<TcpProgress> {
        TcpProgress::of(self.tcp()?)
    }

    /// What TLS agreed on, if it is used.
    pub(crate) fn tls(&self) -> Option<TlsFacts> {
        let Self::Tls(tls) = self else { return None };
        let (_, session) = tls.get_ref();
        let version = match session.protocol_version()? {
            ProtocolVersion::TLSv1_2 => "TLS 1.2".to_owned(),
            ProtocolVersion::TLSv1_3 => "TLS 1.3".to_owned(),
            other => format!("{other:?}"),
        };
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        let certificate = certificate.and_then(|der| Some(X509Certificate::from_der(der).ok()?.1));
        let valid_until = certificate.as_ref().and_then(|certificate| {
            let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        });
        let subject = certificate.map_or_else(String::new, |certificate| certificate.subject().to_string());
        Some(TlsFacts { version, subject, valid_until })
    }
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self::Tcp(tcp)
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
            Self::Closed => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
            Self::Closed => Poll::Ready(Err(ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::Closed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Closed => Poll::Ready(Ok(())),
        }
    }
}
