//! What is sent and what is not: over a network whose names mean what a test says, and a server that answers
//! what it says.

use super::*;
use crate::config::EndpointText;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A network whose resolver has one answer a question, and which notes where it is to connect to.
#[derive(Clone, Default)]
struct Staged(Arc<Mutex<Stage>>);

#[derive(Default)]
struct Stage {
    answers: VecDeque<Vec<SocketAddr>>,
    asked: Vec<String>,
    connected: Vec<Vec<SocketAddr>>,
}

impl Staged {
    fn answering(answers: &[&[&str]]) -> Self {
        let addresses =
            |texts: &&[&str]| texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 443)).collect();
        let stage = Stage { answers: answers.iter().map(addresses).collect(), ..Stage::default() };
        Self(Arc::new(Mutex::new(stage)))
    }

    fn connected(&self) -> Vec<Vec<SocketAddr>> {
        self.0.lock().unwrap().connected.clone()
    }
}

impl Network for Staged {
    fn resolve<'a>(&'a self, name: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let mut stage = self.0.lock().unwrap();
            stage.asked.push(name.to_owned());
            stage.answers.pop_front().ok_or_else(|| ErrorKind::NotFound.into())
        })
    }

    /// Only this machine is there: what would leave it is refused.
    fn connect(&self, addresses: Vec<SocketAddr>) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(async move {
            let own: Vec<_> =
                addresses.iter().copied().filter(|address| address.ip().is_loopback()).collect();
            self.0.lock().unwrap().connected.push(addresses);
            match own.first() {
                Some(_) => crate::websocket::connect_to(own).await,
                None => Err(ErrorKind::ConnectionRefused.into()),
            }
        })
    }
}

fn client(allow: &[&str], settings: HttpSettings, network: &Staged) -> HttpClient {
    let grants = allow.iter().map(|entry| HttpGrant::parse(entry).expect("an entry")).collect();
    HttpClient::new(grants, settings, Box::new(network.clone()))
}

fn get(url: &str) -> HttpRequest {
    HttpRequest {
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout: None,
        give_up: Instant::now() + Duration::from_secs(60),
    }
}

async fn ask(client: &HttpClient, request: HttpRequest) -> Result<HttpResponse, HttpError> {
    client.send(request, &AnswerRoom::new(8 << 20)).await
}

fn denial(answer: Result<HttpResponse, HttpError>) -> String {
    match answer {
        Err(HttpError::Denied(why)) => why,
        other => panic!("not denied: {other:?}"),
    }
}

fn failure(answer: Result<HttpResponse, HttpError>) -> String {
    match answer {
        Err(HttpError::Failed(why)) => why,
        other => panic!("not failed: {other:?}"),
    }
}

/// A server of this machine. What it is asked for at a path begins says how it answers.
struct Server {
    origin: String,
    /// The heads and bodies of what it was asked for.
    asked: Arc<Mutex<Vec<String>>>,
    /// How many requests it had at once, at most.
    most: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut serving = JoinSet::new();
        serving.spawn({
            let (asked, most) = (asked.clone(), most.clone());
            async move {
                let mut peers = JoinSet::new();
                while let Ok((mut tcp, _)) = listener.accept().await {
                    let (asked, now, most) = (asked.clone(), now.clone(), most.clone());
                    peers.spawn(async move {
                        let request = head(&mut tcp).await;
                        most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                        asked.lock().unwrap().push(request.clone());
                        answer(&mut tcp, &request).await;
                        now.fetch_sub(1, SeqCst);
                    });
                }
            }
        });
        Self { origin, asked, most, _serving: serving }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// A request up to the end of its body.
async fn head(tcp: &mut TcpStream) -> String {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
        if tcp.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return text;
        }
    }
}

async fn answer(tcp: &mut TcpStream, request: &str) {
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let answer = match path {
        "/to" => format!("HTTP/1.1 302 Found\r\nlocation: {query}\r\ncontent-length: 0\r\n\r\n"),
        "/307" => format!("HTTP/1.1 307 Temporary\r\nlocation: {query}\r\ncontent-length: 0\r\n\r\n"),
        "/huge" => "HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".to_owned(),
        "/cut" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_owned(),
        "/cut-head" => "HTTP/1.1 200 OK\r\ncontent-le".to_owned(),
        "/ssh" => "SSH-2.0-OpenSSH_9.9\r\n".to_owned(),
        "/lies" => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nlies".to_owned(),
        "/upgrade" => {
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_owned()
        }
        "/many" => format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(1000)),
        "/packed" => "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f.".to_owned(),
        "/latin" | "/slow" | "/endless" | "/endless-head" => String::new(),
        _ => format!(
            "HTTP/1.1 200 OK\r\nX-Back: {}\r\ncontent-length: {}\r\n\r\n{request}",
            query,
            request.len()
        ),
    };
    let _ = tcp.write_all(answer.as_bytes()).await;
    match path {
        "/latin" => drop(tcp.write_all(b"HTTP/1.1 200 OK\r\nx: \xe9\r\ncontent-length: 0\r\n\r\n").await),
        "/slow" | "/huge" => std::future::pending().await,
        "/endless" => {
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            while tcp.write_all(b"5\r\nbytes\r\n").await.is_ok() {}
        }
        "/endless-head" => while tcp.write_all(b"x: yyyyyyyyyyyyyyyyyyyyyyyyy\r\n").await.is_ok() {},
        _ => {}
    }
}

#[tokio::test]
async fn a_name_that_leads_to_no_public_address_is_refused_by_name_and_nobody_is_asked() {
    for (address, kind) in [
        ("127.0.0.1", "a loopback address"),
        ("::1", "a loopback address"),
        ("10.1.2.3", "a private address"),
        ("172.16.0.1", "a private address"),
        ("192.168.1.1", "a private address"),
        ("169.254.169.254", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("fd00::1", "a unique local address"),
        ("0.0.0.0", "an address of this network (0.0.0.0/8)"),
        ("100.64.0.1", "an address of a carrier's own network (100.64.0.0/10)"),
        ("198.18.0.1", "an address for benchmarks (198.18.0.0/15)"),
        ("224.0.0.1", "a multicast address"),
        ("255.255.255.255", "a reserved address (240.0.0.0/4)"),
        ("::ffff:127.0.0.1", "an IPv4 address within IPv6 (::ffff:0:0/96)"),
        ("::127.0.0.1", "an IPv4 address within IPv6 (::/96)"),
        ("64:ff9b::a9fe:a9fe", "an IPv4 address within IPv6 (NAT64)"),
        ("2002:7f00:1::", "an IPv4 address within IPv6 (6to4)"),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "an IPv4 address within IPv6 (Teredo)"),
    ] {
        let network = Staged::answering(&[&[address, "10.0.0.1"]]);
        let client = client(&["https://*.example.com"], HttpSettings::default(), &network);
        let why = denial(ask(&client, get("https://api.example.com/")).await);
        let shown: std::net::IpAddr = address.parse().unwrap();
        assert_eq!(why, format!("https://api.example.com is at {shown}, {kind}"));
        assert_eq!(network.connected(), [[]; 0], "{address}");
    }
}

#[tokio::test]
async fn what_is_not_granted_is_refused_before_its_name_is_resolved() {
    let network = Staged::answering(&[&["1.1.1.1"]]);
    let client =
        client(&["https://api.example.com/v1/*", "http://127.0.0.1:9"], HttpSettings::default(), &network);
    for (url, why) in [
        ("https://api.example.com:8443/v1/x", "https://api.example.com:8443 is not granted"),
        ("http://api.example.com/v1/x", "http://api.example.com is not granted"),
        ("https://evil.example/v1/x", "https://evil.example is not granted"),
        ("https://api.example.com.evil.example/v1/", "https://api.example.com.evil.example is not granted"),
        ("https://127.0.0.1:9/", "https://127.0.0.1:9 is not granted"),
        ("http://127.0.0.1:10/", "http://127.0.0.1:10 is not granted"),
        ("http://[::1]:9/", "http://[::1]:9 is not granted"),
        ("http://[::ffff:127.0.0.1]:9/", "http://[::ffff:7f00:1]:9 is not granted"),
        ("http://localhost:9/", "http://localhost:9 is not granted"),
        ("https://api.example.com/v2/x", "this path of https://api.example.com is not granted"),
        ("https://api.example.com/v1/../v2", "this path of https://api.example.com is not granted"),
        ("https://api.example.com/v1/%2e%2e/v2", "this path of https://api.example.com is not granted"),
    ] {
        let denied = denial(ask(&client, get(url)).await);
        // As std and the url standard write it.
        let why = why.replace("[::ffff:7f00:1]", "[::ffff:127.0.0.1]");
        assert_eq!(denied, why, "{url}");
    }
    let stage = network.0.lock().unwrap();
    assert!(stage.asked.is_empty() && stage.connected.is_empty());
}

#[tokio::test]
async fn the_connection_is_made_to_the_address_that_was_looked_at() {
    // The second answer is what a rebinding name would give to whoever asks again.
    let network = Staged::answering(&[&["93.184.216.34"], &["127.0.0.1"]]);
    let client = client(&["https://api.example.com"], HttpSettings::default(), &network);
    assert_eq!(
        failure(ask(&client, get("https://api.example.com/")).await),
        "https://api.example.com: connection refused"
    );
    let stage = network.0.lock().unwrap();
    assert_eq!(stage.asked, ["api.example.com"], "it is resolved once");
    assert_eq!(stage.connected, [["93.184.216.34:443".parse().unwrap()]]);
}

#[tokio::test]
async fn of_a_name_with_several_addresses_only_public_ones_are_tried() {
    let network = Staged::answering(&[&["127.0.0.1", "1.1.1.1", "::1", "2a00:1450::1", "10.0.0.1"]]);
    let client = client(&["https://api.example.com"], HttpSettings::default(), &network);
    failure(ask(&client, get("https://api.example.com/")).await);
    let expected = ["1.1.1.1:443", "[2a00:1450::1]:443"].map(|address| address.parse().unwrap());
    assert_eq!(network.connected(), [expected]);
}

#[tokio::test]
async fn a_redirect_is_checked_like_a_request() {
    let server = Server::start().await;
    let network = Staged::answering(&[&["192.168.0.1"], &["127.0.0.1"]]);
    let allow = [&*server.origin, "https://api.example.com/v1/*"];
    let client = client(&allow, HttpSettings::default(), &network);
    for (location, why) in [
        ("https://evil.example/", "https://evil.example is not granted"),
        ("http://127.0.0.1:9/", "http://127.0.0.1:9 is not granted"),
        ("http://169.254.169.254/latest/", "http://169.254.169.254 is not granted"),
        ("//localhost/", "http://localhost is not granted"),
        ("https://api.example.com/v2", "this path of https://api.example.com is not granted"),
        ("https://api.example.com/v1/x", "https://api.example.com is at 192.168.0.1, a private address"),
        ("https://api.example.com/v1/x", "https://api.example.com is at 127.0.0.1, a loopback address"),
    ] {
        let answered = ask(&client, get(&server.url(&format!("/to?{location}")))).await;
        assert_eq!(denial(answered), why, "{location}");
    }
    for (location, why) in [
        ("file:///etc/passwd", "must start with https:// or http://"),
        ("https://me:pw@api.example.com/", "must have no user and no password"),
    ] {
        let answered = ask(&client, get(&server.url(&format!("/to?{location}")))).await;
        assert_eq!(failure(answered), format!("{} redirects to a url that {why}", server.origin));
    }
    assert_eq!(server.asked().len(), 9, "nobody else was asked");
}

#[tokio::test]
async fn redirects_are_followed_five_times() {
    let server = Server::start().await;
    let client = client(&[&server.origin], HttpSettings::default(), &Staged::default());
    let through = |times: usize| format!("{}/end", "/to?".repeat(times));
    let answered = ask(&client, get(&server.url(&through(5)))).await.expect("five are few");
    assert!(answered.status == 200 && answered.body.starts_with(b"GET /end HTTP/1.1\r\n"));
    let why = failure(ask(&client, get(&server.url(&through(6)))).await);
    assert_eq!(why, "it was redirected more than 5 times");
    assert_eq!(server.asked().len(), 6 + 6);
}

#[tokio::test]
async fn a_redirected_request_keeps_its_body_only_where_it_is_the_same_request() {
    let server = Server::start().await;
    let client = client(&[&server.origin], HttpSettings::default(), &Staged::default());
    for (path, is_kept) in [("/to?/end", false), ("/307?/end", true)] {
        let headers = vec![("Content-Type".to_owned(), "text/plain".to_owned())];
        let post = HttpRequest {
            method: "POST".to_owned(),
            headers,
            body: b"body".to_vec(),
            ..get(&server.url(path))
        };
        let body = String::from_utf8(ask(&client, post).await.expect("an answer").body).unwrap();
        assert_eq!(body.starts_with("POST /end "), is_kept, "{body}");
        assert_eq!(
            body.contains("content-type: text/plain") && body.ends_with("\r\n\r\nbody"),
            is_kept,
            "{body}"
        );
    }
}

#[tokio::test]
async fn credentials_stay_with_the_origin_that_they_are_for() {
    let (own, other) = (Server::start().await, Server::start().await);
    let settings = HttpSettings {
        headers: vec![("X-Key".to_owned(), EndpointText::from("h0st-s3cr3t"))],
        ..HttpSettings::default()
    };
    let client = client(&[&own.origin, &other.origin], settings, &Staged::default());
    let request = |url: &str| HttpRequest {
        headers: [
            ("Authorization", "Bearer gu3st"),
            ("Cookie", "a=gu3st"),
            ("X-Kept", "yes"),
            ("x-key", "forged"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec(),
        ..get(url)
    };
    ask(&client, request(&own.url("/to?/end"))).await.expect("an answer");
    for asked in own.asked() {
        for header in ["authorization: Bearer gu3st", "cookie: a=gu3st", "x-kept: yes", "x-key: h0st-s3cr3t"]
        {
            assert!(asked.contains(header) && !asked.contains("forged"), "{asked}");
        }
    }
    // Over another origin and back again.
    let over = format!("/to?{}", other.url(&format!("/to?{}", own.url("/back"))));
    ask(&client, request(&own.url(&over))).await.expect("an answer");
    let (led, back) = (other.asked().concat(), own.asked().pop().expect("it was led back"));
    for asked in [led, back] {
        assert!(asked.contains("x-kept: yes"), "{asked}");
        assert!(!asked.contains("gu3st") && !asked.contains("s3cr3t") && !asked.contains("x-key"), "{asked}");
    }
}

#[tokio::test]
async fn what_a_server_says_back_of_the_hosts_headers_is_hidden() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "t0ken-of-file\n").unwrap();
    let settings = HttpSettings {
        headers: vec![
            (
                "Authorization".to_owned(),
                EndpointText::from(crate::config::Redacted::new("Bearer s3cr3t-t0ken", "***")),
            ),
            ("X-File".to_owned(), EndpointText::file(&file)),
        ],
        ..HttpSettings::default()
    };
    let client = client(&[&server.origin], settings, &Staged::default());
    let answered = ask(&client, get(&server.url("/x?s3cr3t-t0ken"))).await.expect("an answer");
    let text = format!("{answered:?} {}", String::from_utf8_lossy(&answered.body));
    assert!(!text.contains("t0ken"), "{text}");
    assert!(text.contains("authorization: ***") && text.contains("x-file: ***"), "{text}");
    assert!(server.asked().concat().contains("x-file: t0ken-of-file\r\n"), "it was sent");

    std::fs::write(&file, "renewed-t0ken").unwrap();
    ask(&client, get(&server.url("/x"))).await.expect("an answer");
    assert!(server.asked().concat().contains("x-file: renewed-t0ken\r\n"), "a renewed file counts at once");
    std::fs::remove_file(&file).unwrap();
    let why = failure(ask(&client, get(&server.url("/x"))).await);
    assert_eq!(why, "a header that the host adds cannot be had");
    let why = failure(ask(&client, get(&server.url("/to?ftp://s3cr3t-t0ken/"))).await);
    assert!(!why.contains("t0ken"), "{why}");
}

#[tokio::test]
async fn what_is_no_request_is_told_by_name() {
    let network = Staged::default();
    let client = client(&["http://127.0.0.1:9"], HttpSettings::default(), &network);
    let request = |method: &str, name: &str, value: &str| HttpRequest {
        method: method.to_owned(),
        headers: vec![(name.to_owned(), value.to_owned())],
        ..get("http://127.0.0.1:9/")
    };
    for (request, says) in [
        (request("", "a", "b"), "\"\" is not a method"),
        (request("GET /x", "a", "b"), "\"GET /x\" is not a method"),
        (request("CONNECT", "a", "b"), "the method CONNECT is not for plugins"),
        (request("trace", "a", "b"), "the method trace is not for plugins"),
        (request("GET", "Host", "evil"), "the header Host is set by the host alone"),
        (
            request("GET", "Transfer-Encoding", "chunked"),
            "the header Transfer-Encoding is set by the host alone",
        ),
        (request("GET", "content-length", "1"), "the header content-length is set by the host alone"),
        (request("GET", "Connection", "x"), "the header Connection is set by the host alone"),
        (
            request("GET", "Proxy-Authorization", "x"),
            "the header Proxy-Authorization is set by the host alone",
        ),
        (request("GET", "Upgrade", "websocket"), "the header Upgrade is set by the host alone"),
        (request("GET", "a b", "x"), "\"a b\" is not the name of a header"),
        (request("GET", "a\r\nb", "x"), "\"a\\r\\nb\" is not the name of a header"),
        (request("GET", "a", "x\r\nHost: evil"), "the value of the header a is not one line of text"),
        (get("https://me:pw@127.0.0.1:9/"), "the url must have no user and no password"),
        (get("/x"), "the url must start with https:// or http://"),
    ] {
        assert_eq!(ask(&client, request).await, Err(HttpError::Invalid(says.to_owned())));
    }
    let many =
        HttpRequest { headers: vec![("a".to_owned(), "b".to_owned()); 101], ..get("http://127.0.0.1:9/") };
    let large = request("GET", "a", &"x".repeat(33 << 10));
    for request in [many, large] {
        let why = "there are more than 100 headers, or more than 32 KiB of them".to_owned();
        assert_eq!(ask(&client, request).await, Err(HttpError::Invalid(why)));
    }
    assert_eq!(network.connected(), [[]; 0]);
}

#[tokio::test]
async fn an_answer_that_is_none_costs_its_request_alone() {
    let server = Server::start().await;
    let client = client(&[&server.origin], HttpSettings::default(), &Staged::default());
    for path in ["/cut", "/cut-head", "/ssh", "/lies", "/upgrade", "/many", "/endless-head"] {
        let why = failure(ask(&client, get(&server.url(path))).await);
        assert!(why.starts_with(&format!("{}: ", server.origin)), "{path}: {why}");
    }
    let why = failure(ask(&client, get(&server.url("/cut"))).await);
    assert_eq!(why, format!("{}: the connection ended before the answer did", server.origin));
    let packed = ask(&client, get(&server.url("/packed"))).await.expect("an answer");
    assert_eq!(packed.body, b"\x1f.", "nothing is unpacked");
    let latin = ask(&client, get(&server.url("/latin"))).await.expect("an answer");
    assert!(latin.headers.contains(&("x".to_owned(), "\u{fffd}".to_owned())), "{latin:?}");
}

#[tokio::test]
async fn an_answer_has_its_bound() {
    let server = Server::start().await;
    let settings = HttpSettings { max_response_bytes: 1000, ..HttpSettings::default() };
    let client = client(&[&server.origin], settings, &Staged::default());
    for path in ["/huge", "/endless"] {
        assert_eq!(ask(&client, get(&server.url(path))).await, Err(HttpError::TooLarge(1000)), "{path}");
    }
    ask(&client, get(&server.url("/x"))).await.expect("this one is small");
    let room = AnswerRoom::new(200);
    client.send(get(&server.url("/x")), &room).await.expect("there is room for one");
    let second = client.send(get(&server.url("/x")), &room).await;
    assert_eq!(second, Err(HttpError::TooLarge(1000)), "and not for two");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let server = Server::start().await;
    let short = Duration::from_millis(50);
    let settings = HttpSettings { timeout: short, concurrency: 1, ..HttpSettings::default() };
    let client = client(&[&server.origin], settings, &Staged::default());
    assert_eq!(ask(&client, get(&server.url("/slow"))).await, Err(HttpError::Timeout));
    let patient = HttpRequest { timeout: Some(Duration::from_secs(3600)), ..get(&server.url("/slow")) };
    assert_eq!(ask(&client, patient).await, Err(HttpError::Timeout), "a guest cannot have more time");
    // While one has its turn, another waits for no longer than its call may.
    let waiting = HttpRequest { give_up: Instant::now() + short / 2, ..get(&server.url("/x")) };
    let (slow, waiting) = tokio::join!(ask(&client, get(&server.url("/slow"))), ask(&client, waiting));
    assert_eq!((slow, waiting), (Err(HttpError::Timeout), Err(HttpError::Timeout)));
    ask(&client, get(&server.url("/x"))).await.expect("the turns were given back");
}

#[tokio::test]
async fn only_so_many_requests_are_under_way_at_once() {
    let server = Server::start().await;
    let settings = HttpSettings { concurrency: 3, ..HttpSettings::default() };
    let client = client(&[&server.origin], settings, &Staged::default());
    let url = server.url("/x");
    let answers = futures_util::future::join_all((0..32).map(|_| ask(&client, get(&url)))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(server.most.load(SeqCst) <= 3, "{:?}", server.most);
}
