//! TLS of server endpoints: certificates of ours and of peers, and files that change.

use crate::drive::{Metrics, Seen, fill_until, server_endpoint, server_source, soon};
use futures_util::{SinkExt, StreamExt};
use rcgen::string::Ia5String;
use rcgen::{DnType, SanType};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tidemill::config::{
    ClientCertificates, Endpoint, FilePath, FromHandshake, Identity, Mode, Pem, ServerTls,
};
use tidemill::message::metadata::SOURCE;
use tidemill::source::Source;
use tidemill::websocket::Listeners;
use tidemill_tests::authority::{Authority, Certified};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

fn text(text: &str) -> Ia5String {
    text.try_into().expect("ASCII")
}

/// A server's authority, and a folder with its certificate.
struct Server {
    authority: Authority,
    dir: TempDir,
}

impl Server {
    fn new() -> Self {
        let server = Self { authority: Authority::default(), dir: TempDir::new().expect("a folder") };
        server.renew("first");
        server
    }

    fn renew(&self, common_name: &str) {
        let renewed = self.issue(common_name);
        self.write("server.pem", &renewed.certificate);
        self.write("server.key", &renewed.key);
    }

    fn issue(&self, common_name: &str) -> Certified {
        self.authority.certify("127.0.0.1", |params| {
            params.distinguished_name.push(DnType::CommonName, common_name);
        })
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).expect("the folder can be written");
    }

    fn pem(&self, name: &str) -> Pem {
        Pem::File(FilePath::plain(self.dir.path().join(name)))
    }

    fn endpoint(&self, clients: Option<(&Authority, bool)>) -> Endpoint {
        let mut endpoint = server_endpoint("/in");
        let identity = Identity { cert: self.pem("server.pem"), key: self.pem("server.key") };
        let clients = clients.map(|(authority, are_required)| {
            self.write("clients.pem", &authority.certificate);
            ClientCertificates { ca: self.pem("clients.pem"), are_required }
        });
        let Mode::Server(listen) = &mut endpoint.mode else { panic!("a server endpoint") };
        listen.tls = Some(ServerTls { identity, clients });
        let from = [
            ("cn", FromHandshake::CommonName),
            ("san", FromHandshake::AlternativeNames),
            ("fingerprint", FromHandshake::Fingerprint),
        ];
        listen.metadata = from.map(|(key, from)| (key.to_owned(), from)).into();
        endpoint
    }
}

type Peer = WebSocketStream<TlsStream<TcpStream>>;

async fn dial(server: &Server, address: SocketAddr, own: Option<&Certified>) -> Result<Peer, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(server.authority.certificate.as_bytes()).expect("PEM");
    roots.add(root).expect("a root");
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match own {
        Some(Certified { certificate, key }) => {
            let cert = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
            config.with_client_auth_cert(vec![cert], key).expect("they go together")
        }
        None => config.with_no_client_auth(),
    };
    let tcp = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let name = ServerName::from(address.ip());
    let tls = soon(TlsConnector::from(Arc::new(config)).connect(name, tcp));
    let tls = tls.await.map_err(|error| error.to_string())?;
    let (peer, _) = soon(Box::pin(client_async(format!("wss://{address}/in"), tls)))
        .await
        .map_err(|error| error.to_string())?;
    Ok(peer)
}

/// The common name of the certificate that a server has shown.
fn shown(peer: &Peer) -> String {
    let chain = peer.get_ref().get_ref().1.peer_certificates().expect("it has one");
    let der = chain[0].as_ref();
    let names = ["first", "second", "third"];
    let is_in = |name: &&&str| der.windows(name.len()).any(|window| window == name.as_bytes());
    (*names.iter().find(is_in).expect("a known name")).to_owned()
}

async fn received(source: &mut Source, peer: &mut Peer) -> tidemill::message::metadata::Metadata {
    soon(peer.send(Message::text("hello"))).await.expect("it is read");
    let mut seen = Seen::default();
    fill_until(source, &mut seen, |seen| !seen.messages.is_empty()).await;
    seen.messages.remove(0).metadata
}

#[tokio::test]
async fn a_server_with_a_certificate_is_dialled_with_wss() {
    let (server, metrics) = (Server::new(), Metrics::default());
    let (mut source, address) = server_source(&Listeners::default(), server.endpoint(None), &metrics).await;
    let mut peer = dial(&server, address, None).await.expect("it is trusted");
    let metadata = received(&mut source, &mut peer).await;
    assert_eq!(metadata.get(SOURCE), format!("wss://127.0.0.1:{}/in", address.port()));
    assert_eq!((&*metadata.get("cn"), &*metadata.get("fingerprint")), ("", ""));
    let plain = TcpStream::connect(address).await.expect("it listens");
    assert!(soon(client_async(format!("ws://{address}/in"), plain)).await.is_err());
}

#[tokio::test]
async fn what_a_client_certificate_says_is_metadata() {
    let (server, clients) = (Server::new(), Authority::default());
    let endpoint = server.endpoint(Some((&clients, true)));
    let (mut source, address) = server_source(&Listeners::default(), endpoint, &Metrics::default()).await;
    let names = vec![
        SanType::DnsName(text("device.example")),
        SanType::URI(text("spiffe://example/device")),
        SanType::IpAddress([10, 0, 0, 7].into()),
    ];
    let own = clients.certify("device-7", |params| params.subject_alt_names = names);
    let mut peer = dial(&server, address, Some(&own)).await.expect("its certificate is trusted");
    let metadata = received(&mut source, &mut peer).await;
    assert_eq!(metadata.get("cn"), "device-7");
    assert_eq!(metadata.get("san"), "device.example,spiffe://example/device,10.0.0.7");
    let der = CertificateDer::from_pem_slice(own.certificate.as_bytes()).expect("PEM");
    let digest = ring_digest(&der);
    assert_eq!(metadata.get("fingerprint"), digest);
}

/// SHA-256 by another library than the host's.
fn ring_digest(bytes: &[u8]) -> String {
    let hash = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let suite = hash.tls13().expect("a suite of TLS 1.3");
    let digest = suite.common.hash_provider.hash(bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// TLS 1.3 lets a client go on before the server has looked at its certificate: it hears of a refusal
/// at its first read.
async fn is_refused(server: &Server, address: SocketAddr, own: Option<&Certified>) -> bool {
    match dial(server, address, own).await {
        Err(_) => true,
        Ok(mut peer) => !matches!(soon(peer.next()).await, Some(Ok(_))),
    }
}

#[tokio::test]
async fn a_required_certificate_must_be_there_and_lead_to_the_root() {
    let (server, clients) = (Server::new(), Authority::default());
    let endpoint = server.endpoint(Some((&clients, true)));
    let (_source, address) = server_source(&Listeners::default(), endpoint, &Metrics::default()).await;
    assert!(is_refused(&server, address, None).await);
    let foreign = Authority::default().certify("device-7", |_| {});
    assert!(is_refused(&server, address, Some(&foreign)).await);
    let own = clients.certify("device-7", |_| {});
    dial(&server, address, Some(&own)).await.expect("its certificate is trusted");
}

#[tokio::test]
async fn an_optional_certificate_may_be_missing_but_not_foreign() {
    let (server, clients) = (Server::new(), Authority::default());
    let endpoint = server.endpoint(Some((&clients, false)));
    let (mut source, address) = server_source(&Listeners::default(), endpoint, &Metrics::default()).await;
    let mut without = dial(&server, address, None).await.expect("it needs none");
    assert_eq!(received(&mut source, &mut without).await.get("cn"), "");
    let own = clients.certify("device-7", |_| {});
    let mut with = dial(&server, address, Some(&own)).await.expect("its certificate is trusted");
    assert_eq!(received(&mut source, &mut with).await.get("cn"), "device-7");
    let foreign = Authority::default().certify("device-7", |_| {});
    assert!(is_refused(&server, address, Some(&foreign)).await);
}

/// Dials until the certificate with this name is shown.
async fn until_shown(server: &Server, address: SocketAddr, name: &str) -> Peer {
    soon(async {
        loop {
            let peer = dial(server, address, None).await.expect("it is trusted");
            if shown(&peer) == name {
                return peer;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_renewed_certificate_counts_from_the_next_connection_on_and_closes_none() {
    let (server, metrics) = (Server::new(), Metrics::default());
    let (mut source, address) = server_source(&Listeners::default(), server.endpoint(None), &metrics).await;
    let mut old = dial(&server, address, None).await.expect("it is trusted");
    assert_eq!(shown(&old), "first");
    server.renew("second");
    let mut new = until_shown(&server, address, "second").await;
    for peer in [&mut old, &mut new] {
        received(&mut source, peer).await;
    }
    // A certificate without its key, and one that is none: the one before stays.
    let third = server.issue("third");
    server.write("server.pem", &third.certificate);
    let looked = std::time::Instant::now() + std::time::Duration::from_millis(2200);
    while std::time::Instant::now() < looked {
        assert_eq!(shown(&dial(&server, address, None).await.expect("it is trusted")), "second");
    }
    server.write("server.key", &third.key);
    until_shown(&server, address, "third").await;
}

#[tokio::test]
async fn a_renewed_certificate_that_could_not_be_read_once_is_tried_again() {
    let (server, metrics) = (Server::new(), Metrics::default());
    let (_source, address) = server_source(&Listeners::default(), server.endpoint(None), &metrics).await;
    let third = server.issue("third");
    server.write("server.key", &third.key);
    // Each look reads the certificate twice. What is read of it first is as it should be; then it is not.
    let pem = server.dir.path().join("server.pem");
    std::fs::remove_file(&pem).expect("it is there");
    let made = std::process::Command::new("mkfifo").arg(&pem).status().expect("it can be run");
    assert!(made.success());
    let writer = tokio::spawn({
        let (pem, certificate) = (pem.clone(), third.certificate.clone());
        async move {
            for text in [&*certificate, "damaged", &*certificate, &*certificate] {
                // Whoever opens it waits until the other side does.
                let mut writer = tokio::fs::OpenOptions::new();
                let mut writer = writer.write(true).open(&pem).await.expect("it is read");
                writer.write_all(text.as_bytes()).await.expect("it is read");
                writer.flush().await.expect("it is read");
                drop(writer);
                // The reader sees the end, and opens it again for the next look.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    });
    let dials = async {
        while !writer.is_finished() {
            let _ = dial(&server, address, None).await;
        }
    };
    soon(dials).await;
    server.write("server.pem.new", &third.certificate);
    std::fs::rename(server.dir.path().join("server.pem.new"), &pem).expect("in one folder");
    until_shown(&server, address, "third").await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_an_error_that_names_its_file() {
    let server = Server::new();
    let open = async |endpoint: Endpoint| {
        let listen = endpoint.listen().expect("a server endpoint");
        let metrics = Metrics::default().endpoint("p", "source");
        let opened = Listeners::default().open_source(&endpoint, listen, false, metrics).await;
        opened.map(|_| ()).expect_err("it cannot be used").to_string()
    };
    let file = |name: &str| -> String { Path::display(&server.dir.path().join(name)).to_string() };
    server.write("server.key", &server.issue("other").key);
    let error = open(server.endpoint(None)).await;
    let (cert, key) = (file("server.pem"), file("server.key"));
    assert!(error.contains(&format!("{cert} and {key} do not go together: ")), "{error}");
    server.write("server.key", "nonsense");
    let error = open(server.endpoint(None)).await;
    assert!(error.contains(&format!("no usable private key in {key}: ")), "{error}");
    std::fs::remove_file(&cert).expect("it is there");
    let error = open(server.endpoint(None)).await;
    assert!(error.contains(&format!("no usable certificate in {cert}: ")), "{error}");
}

#[tokio::test]
async fn endpoints_on_one_address_have_one_tls() {
    let (server, metrics, listeners) = (Server::new(), Metrics::default(), Listeners::default());
    let (_source, _) = server_source(&listeners, server.endpoint(None), &metrics).await;
    let open = async |endpoint: Endpoint| {
        let listen = endpoint.listen().expect("a server endpoint");
        let metrics = Metrics::default().endpoint("p", "source");
        listeners
            .open_source(&endpoint, listen, false, metrics)
            .await
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(open(server_endpoint("/other")).await, Ok(()), "it takes that of its address");
    let error = open(server.endpoint(Some((&server.authority, true)))).await.expect_err("it differs");
    assert!(
        error.ends_with("`tls` differs from the source of pipeline p, which has the same address"),
        "{error}"
    );
}
