//! TCP to a target: straight, or through the HTTP proxy that the environment names for it.
//!
//! A proxy is asked for a tunnel with CONNECT (RFC 9110, section 9.3.6), for `ws://` too, since proxies
//! rarely understand upgrades. This machine is always reached straight.

use super::connect_error::ConnectProblem;
use super::request::exchange;
use super::tcp;
use crate::config::{Proxies, Redacted, WebSocketUrl, is_loopback};
use hyper::header::{self, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use tokio::net::TcpStream;

/// # Errors
/// Why there is no connection, to the target or to its proxy.
pub(super) async fn connect_tcp(
    target: &WebSocketUrl,
    proxies: &Proxies,
) -> Result<TcpStream, ConnectProblem> {
    match proxy_of(target, proxies) {
        Some(proxy) => {
            let shown = proxy.uri().to_string();
            let tunnel = tunnel(&proxy, target).await;
            tunnel.map_err(|problem| ConnectProblem::Proxy { proxy: shown, problem: Box::new(problem) })
        }
        None => tcp::connect(&target.host, target.port).await.map_err(ConnectProblem::Tcp),
    }
}

/// The proxy for a target, without its user and password in what it shows.
fn proxy_of(target: &WebSocketUrl, proxies: &Proxies) -> Option<Intercept> {
    let proxy = if target.is_tls { &proxies.wss } else { &proxies.ws };
    let proxy = proxy.as_ref().filter(|_| !is_loopback(&target.host))?;
    let matcher = Matcher::builder().all(Redacted::expose(proxy)).no(proxies.except.as_str()).build();
    let scheme = if target.is_tls { "https" } else { "http" };
    let uri: Uri = format!("{scheme}://{}/", target.authority).parse().ok()?;
    matcher.intercept(&uri)
}

async fn tunnel(proxy: &Intercept, target: &WebSocketUrl) -> Result<TcpStream, ConnectProblem> {
    let unusable = |why: &str| ConnectProblem::Handshake(why.to_owned());
    let uri = proxy.uri();
    if uri.scheme_str() != Some("http") {
        return Err(unusable("only a proxy at http:// can be used"));
    }
    let host = uri.host().ok_or_else(|| unusable("its url has no host"))?;
    let tcp = tcp::connect(host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(80)).await;
    let tcp = tcp.map_err(ConnectProblem::Tcp)?;
    let address = target.address();
    let mut request = Request::connect(&address).header(header::HOST, &address);
    if let Some(credentials) = proxy.basic_auth() {
        let mut credentials: HeaderValue = credentials.clone();
        credentials.set_sensitive(true);
        request = request.header(header::PROXY_AUTHORIZATION, credentials);
    }
    let request = request.body(http_body_util::Empty::new());
    let request = request.map_err(|error| unusable(&error.to_string()))?;
    let exchanged = exchange(tcp, request, StatusCode::OK).await?;
    match exchanged.granted {
        // We speak first: what comes before is not the target's.
        Some((_, rest)) if !rest.is_empty() => Err(unusable("it sent more than an answer")),
        Some((tcp, _)) => Ok(tcp),
        None => Err(ConnectProblem::of_answer(&exchanged.response)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied(url: &str, proxies: &Proxies) -> Option<String> {
        let target = WebSocketUrl::parse(url).expect("valid");
        proxy_of(&target, proxies).map(|proxy| proxy.uri().to_string())
    }

    #[test]
    fn the_scheme_and_the_host_decide_about_the_proxy() {
        let proxies = Proxies {
            ws: Some(Redacted::plain("http://one:3128")),
            wss: Some(Redacted::plain("http://me:secret@two:3128")),
            except: "internal, 10.0.0.0/8".to_owned(),
        };
        assert_eq!(proxied("ws://example.com/x", &proxies).as_deref(), Some("http://one:3128/"));
        assert_eq!(proxied("wss://example.com/x", &proxies).as_deref(), Some("http://two:3128/"));
        for straight in
            ["ws://a.internal/", "wss://10.1.2.3/", "ws://127.0.0.1:9/", "ws://[::1]/", "ws://localhost/"]
        {
            assert_eq!(proxied(straight, &proxies), None, "{straight}");
        }
        assert_eq!(proxied("ws://example.com/", &Proxies::default()), None);
    }
}
