//! TLS of what we dial, against servers with certificates of our own making.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use crate::drive::{client_of, listener, soon};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{DnType, date_time_ymd};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use std::sync::Arc;
use tidemill::config::{Endpoint, FilePath, Identity, Pem, Redacted};
use tidemill::telemetry::ConnectOutcome;
use tidemill::websocket::{ConnectError, Dial, connect};
use tidemill_tests::authority::{Authority, Certified};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::accept_async;

pub(crate) fn ca(authority: &Authority) -> Pem {
    base64(&authority.certificate)
}

fn base64(pem: &str) -> Pem {
    Pem::Base64(BASE64_STANDARD.encode(pem).as_str().into())
}

/// The provider's default is nobody's to choose here: two are linked into some builds.
pub(crate) fn server_config(certified: &Certified, clients: Option<&Authority>) -> Arc<rustls::ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
        None => builder.with_no_client_auth(),
    };
    let chain = vec![CertificateDer::from_pem_slice(certified.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(certified.key.as_bytes()).unwrap();
    Arc::new(builder.with_single_cert(chain, key).unwrap())
}

/// Dials a server with this configuration, once; what the client came to.
async fn dialled(
    server: Arc<rustls::ServerConfig>,
    change: impl FnOnce(&mut Endpoint),
) -> Result<(), ConnectError> {
    let (listener, url) = listener().await;
    let mut endpoint = Endpoint::client(url.replace("ws://127.0.0.1", "wss://localhost"));
    change(&mut endpoint);
    let serve = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        // Where the client refuses the certificate, or we its, there is no connection.
        if let Ok(tls) = TlsAcceptor::from(server).accept(tcp).await {
            let _ = accept_async(tls).await;
        }
    });
    let client = client_of(&mut endpoint);
    let url = client.urls[0].clone();
    let dial = Dial {
        url: &url,
        headers: &client.headers,
        client,
        subprotocols: &[],
        max_message_size_bytes: 1 << 20,
    };
    let dialled = soon(connect(dial)).await.map(drop);
    soon(serve).await.unwrap();
    dialled
}

async fn trusting(
    server: Arc<rustls::ServerConfig>,
    authority: &Authority,
    change: impl FnOnce(&mut Endpoint),
) -> Result<(), ConnectError> {
    dialled(server, |endpoint| {
        client_of(endpoint).tls.ca = Some(ca(authority));
        change(endpoint);
    })
    .await
}

#[tokio::test]
async fn a_ca_is_trusted_as_a_file_and_in_base64() {
    let authority = Authority::default();
    let server = server_config(&authority.certify("localhost", |_| {}), None);
    trusting(server.clone(), &authority, |_| {}).await.expect("it is trusted");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, &authority.certificate).unwrap();
    let with_file =
        |endpoint: &mut Endpoint| client_of(endpoint).tls.ca = Some(Pem::File(FilePath::plain(&file)));
    dialled(server.clone(), with_file).await.expect("it is trusted");
    std::fs::remove_file(&file).unwrap();
    let (listener, url) = listener().await;
    let mut endpoint = Endpoint::client(url.replace("ws://", "wss://"));
    with_file(&mut endpoint);
    let client = client_of(&mut endpoint);
    let dial = Dial {
        url: &client.urls[0],
        headers: &client.headers,
        client,
        subprotocols: &[],
        max_message_size_bytes: 1 << 20,
    };
    let (error, _) = tokio::join!(connect(dial), listener.accept());
    let error = error.err().expect("there is no root").to_string();
    let text = format!("no usable certificate in {}: No such file or directory (os error 2)", file.display());
    assert!(error.ends_with(&text), "{error}");
}

/// A certificate that nobody else has signed.
fn self_signed(is_ca: rcgen::IsCa) -> Certified {
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.is_ca = is_ca;
    let key = rcgen::KeyPair::generate().unwrap();
    Certified { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

#[tokio::test]
async fn the_certificate_that_openssl_makes_by_default_is_refused_with_the_command_for_a_right_one() {
    for (is_ca, is_right) in [
        (rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained), false),
        // What the command of the hint makes.
        (rcgen::IsCa::ExplicitNoCa, true),
    ] {
        let certified = self_signed(is_ca);
        let trust = |endpoint: &mut Endpoint| {
            client_of(endpoint).tls.ca = Some(base64(&certified.certificate));
        };
        let result = dialled(server_config(&certified, None), trust).await;
        let Err(error) = result else {
            assert!(is_right);
            continue;
        };
        let text = error.to_string();
        let why = "certificate verify failed: it is that of an authority (CA:TRUE), which no server may show";
        assert!(!is_right && text.ends_with(why), "{text}");
        let hint = error.hint().unwrap();
        assert!(
            hint.contains("openssl req -x509") && hint.contains("CA:FALSE") && !hint.contains("  "),
            "{hint}"
        );
    }
}

#[tokio::test]
async fn an_authority_that_is_not_trusted_is_refused_with_the_hint_where_to_say_so() {
    let server = server_config(&Authority::default().certify("localhost", |_| {}), None);
    let error = trusting(server, &Authority::default(), |_| {}).await.expect_err("nobody knows it");
    let text = error.to_string();
    assert!(text.starts_with("failed to connect to WebSocket wss://localhost:"), "{text}");
    assert!(text.ends_with(": certificate verify failed: its issuer is not trusted"), "{text}");
    assert_eq!(error.outcome(), ConnectOutcome::Tls);
    assert!(error.hint().is_some_and(|hint| hint.contains("`tls.ca`")));
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_refused() {
    let authority = Authority::default();
    let expired = authority.certify("localhost", |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    });
    let error = trusting(server_config(&expired, None), &authority, |_| {}).await.expect_err("it is old");
    assert!(error.to_string().contains(": certificate verify failed: certificate expired: "), "{error}");
}

#[tokio::test]
async fn a_certificate_of_another_name_is_refused_unless_that_name_is_expected() {
    let authority = Authority::default();
    let server = server_config(&authority.certify("feed.internal", |_| {}), None);
    let error = trusting(server.clone(), &authority, |_| {}).await.expect_err("it is another's");
    assert!(error.to_string().contains(": certificate verify failed: "), "{error}");
    assert!(error.to_string().contains("feed.internal"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("`tls.server_name`")));
    let expect = |endpoint: &mut Endpoint| {
        client_of(endpoint).tls.server_name = Some(Redacted::plain("feed.internal"));
    };
    trusting(server, &authority, expect).await.expect("it is the name asked for");
}

#[tokio::test]
async fn insecure_skip_verify_takes_any_certificate() {
    let server = server_config(&Authority::default().certify("feed.internal", |_| {}), None);
    let skip = |endpoint: &mut Endpoint| client_of(endpoint).tls.insecure_skip_verify = true;
    dialled(server, skip).await.expect("nothing is checked");
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_ours_or_is_told_of() {
    let (authority, clients) = (Authority::default(), Authority::default());
    let server = server_config(&authority.certify("localhost", |_| {}), Some(&clients));
    let ours = clients.certify("client", |_| {});
    let identity = Identity { cert: base64(&ours.certificate), key: base64(&ours.key) };
    let show = |endpoint: &mut Endpoint| client_of(endpoint).tls.identity = Some(identity);
    trusting(server.clone(), &authority, show).await.expect("it is known there");
    let error = trusting(server.clone(), &authority, |_| {}).await.expect_err("it wants one");
    assert!(error.to_string().ends_with(": the server asks for a client certificate"), "{error}");
    assert_eq!(error.hint(), Some("give one as `tls.cert` and `tls.key`"));
    assert_eq!(error.outcome(), ConnectOutcome::Tls);
    let stranger = Authority::default().certify("client", |_| {});
    let identity = Identity { cert: base64(&stranger.certificate), key: base64(&stranger.key) };
    let show = |endpoint: &mut Endpoint| client_of(endpoint).tls.identity = Some(identity);
    let error = trusting(server, &authority, show).await.expect_err("nobody knows it there");
    assert!(error.to_string().contains(": TLS refused by the peer: "), "{error}");
}

#[tokio::test]
async fn a_key_of_another_certificate_is_refused_before_it_is_shown() {
    let authority = Authority::default();
    let (one, other) = (authority.certify("one", |_| {}), authority.certify("other", |_| {}));
    let identity = Identity { cert: base64(&one.certificate), key: base64(&other.key) };
    let server = server_config(&authority.certify("localhost", |_| {}), None);
    let show = |endpoint: &mut Endpoint| client_of(endpoint).tls.identity = Some(identity);
    let error = trusting(server, &authority, show).await.expect_err("they do not match");
    assert!(error.to_string().contains(": `tls.cert` and `tls.key` do not go together: "), "{error}");
}

#[tokio::test]
async fn a_probe_tells_the_version_and_whom_the_certificate_is_for() {
    let authority = Authority::default();
    let server = server_config(
        &authority.certify("localhost", |params| {
            params.distinguished_name.push(DnType::CommonName, "feed");
            params.not_after = date_time_ymd(2101, 1, 1);
        }),
        None,
    );
    let (listener, url) = listener().await;
    let mut endpoint = Endpoint::client(url.replace("ws://127.0.0.1", "wss://localhost"));
    client_of(&mut endpoint).tls.ca = Some(ca(&authority));
    let serve = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let tls = TlsAcceptor::from(server).accept(tcp).await.unwrap();
        let mut peer = accept_async(tls).await.unwrap();
        futures_util::StreamExt::next(&mut peer).await.unwrap().unwrap()
    });
    let tls = soon(endpoint.probe()).await.expect("it is trusted").tls.expect("TLS");
    assert_eq!((&*tls.version, &*tls.subject), ("TLS 1.3", "CN=feed"));
    let until = tls.valid_until.unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(until.as_secs(), 4_133_980_800, "the first of January 2101");
    assert!(soon(serve).await.unwrap().is_close());
}
