//! Asks over HTTP what each message says, and emits what it was answered.
//!
//! A message has a request a line: a method, a url, headers as `name:value` and, after ` # `, a body. Several lines
//! are sent side by side; one that begins with `beside` only where the plugin is in shadow. `again N` as the first line asks for the one that follows N times, one after the other.
//! Each answer is a line: the status and the body, or why there is none.

use tidemill_plugin::http::{Error, Request, Response, send_all};
use tidemill_plugin::{Description, Message, Out, Plugin, Result, export};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Asked in `init`; what is answered comes out after the first message.
    init: Option<String>,
    /// Asked in `snapshot`; what is answered is the snapshot.
    snapshot: Option<String>,
    /// How long each request may take.
    #[serde(default)]
    timeout_ms: u32,
}

struct Asking {
    first: Option<String>,
    snapshot: Option<String>,
    timeout_ms: u32,
    is_shadow: bool,
}

export!(Asking);

impl Plugin for Asking {
    type Config = Config;

    fn new(config: Config, description: &mut Description) -> Result<Self> {
        let first = config.init.map(|url| told(&Request::get(url).send()));
        let is_shadow = description.fact("shadow") == Some("true");
        Ok(Self { first, snapshot: config.snapshot, timeout_ms: config.timeout_ms, is_shadow })
    }

    fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
        let text = message.as_text().ok_or("not a text")?;
        let mut lines: Vec<String> = self.first.take().into_iter().collect();
        match text.strip_prefix("again ").and_then(|text| text.split_once('\n')) {
            Some((times, line)) => {
                let request = self.request(line)?;
                for _ in 0..times.parse::<u32>()? {
                    lines.push(told(&request.send()));
                }
            }
            None => {
                let meant = text.lines().filter_map(|line| match line.strip_prefix("beside ") {
                    Some(line) => self.is_shadow.then_some(line),
                    None => Some(line),
                });
                let requests: Result<Vec<_>> = meant.map(|line| self.request(line)).collect();
                lines.extend(match &requests?[..] {
                    [request] => vec![told(&request.send())],
                    requests => send_all(requests).iter().map(told).collect(),
                });
            }
        }
        out.emit().text(&lines.join("\n"));
        Ok(())
    }

    fn snapshot(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.snapshot.as_ref().map(|url| told(&Request::get(url).send()).into_bytes()))
    }
}

impl Asking {
    fn request(&self, line: &str) -> Result<Request> {
        let (head, body) = line.split_once(" # ").unwrap_or((line, ""));
        let mut words = head.split(' ');
        let (method, url) = words.next().zip(words.next()).ok_or("a request has a method and a url")?;
        let mut request = Request::new(method, url).body(body);
        for header in words {
            let (name, value) = header.split_once(':').ok_or("a header has a value")?;
            request = request.header(name, value);
        }
        Ok(Request { timeout_ms: self.timeout_ms, ..request })
    }
}

fn told(answer: &Result<Response, Error>) -> String {
    match answer {
        Ok(answer) => format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)),
        Err(error) => error.to_string(),
    }
}
