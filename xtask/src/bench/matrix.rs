//! What is measured: relays, loads, and the combinations of them that say something.

use std::path::Path;

/// Sizes of messages, in bytes.
pub(super) const SIZES: [usize; 2] = [100, 1000];
/// Messages a second at which latency is measured.
pub(super) const RATE: usize = 20_000;

/// What stands between source and sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relay {
    /// Nothing: what the load generator itself takes.
    Direct,
    /// tokio-tungstenite, flushed when there is nothing more to read.
    Raw,
    /// tokio-tungstenite, each message sent alone.
    RawSend,
    /// As `Raw`, with serde_json into a struct of all fields.
    Typed,
    /// As `Raw`, with serde_json into a tree.
    Tree,
    /// Node and `ws`.
    Node,
    /// Node and `ws`, writes gathered a turn.
    NodeCorked,
    /// The host without a transform.
    HostBare,
    /// The host with the plugin `forward`.
    HostForward,
    /// The host with the plugin `notional`.
    HostNotional,
}

impl Relay {
    /// What the tables call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "no relay",
            Self::Raw => "tokio-tungstenite, raw",
            Self::RawSend => "tokio-tungstenite, raw, `send` each",
            Self::Typed => "tokio-tungstenite, typed JSON",
            Self::Tree => "tokio-tungstenite, JSON tree",
            Self::Node => "Node `ws`, JSON",
            Self::NodeCorked => "Node `ws`, JSON, corked",
            Self::HostBare => "Tidemill, no plugin",
            Self::HostForward => "Tidemill, `forward`",
            Self::HostNotional => "Tidemill, `notional`",
        }
    }

    fn adds_notional(self) -> bool {
        matches!(self, Self::Typed | Self::Tree | Self::Node | Self::NodeCorked | Self::HostNotional)
    }

    fn is_host(self) -> bool {
        matches!(self, Self::HostBare | Self::HostForward | Self::HostNotional)
    }

    fn is_node(self) -> bool {
        matches!(self, Self::Node | Self::NodeCorked)
    }
}

/// What is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// As many messages of so many bytes as it takes.
    Flood(usize),
    /// Messages of 100 bytes at [`RATE`].
    Rate,
    /// Nothing.
    Idle,
    /// A first message.
    Start,
}

/// One combination.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) relay: Relay,
    pub(super) load: Load,
    quick: bool,
}

impl Case {
    /// For logs and `--only`.
    pub(super) fn name(&self) -> String {
        let relay = format!("{:?}", self.relay).to_lowercase();
        match self.load {
            Load::Flood(size) => format!("{relay} flood {size}"),
            Load::Rate => format!("{relay} rate {RATE}"),
            Load::Idle => format!("{relay} idle"),
            Load::Start => format!("{relay} start"),
        }
    }

    /// The load generator's arguments, but for the relay itself.
    pub(super) fn load_arguments(&self) -> Vec<String> {
        let (secs, warm) = if self.quick { (1.0, 0.3) } else { (3.0, 1.0) };
        let options = match self.load {
            Load::Flood(size) => format!("--size {size} --secs {secs} --warm {warm}"),
            Load::Rate => format!("--rate {RATE} --secs {} --warm {warm}", secs * 2.0),
            Load::Idle => "--idle --secs 5 --warm 2".to_owned(),
            Load::Start => "--rate 1000 --secs 0.2 --warm 0".to_owned(),
        };
        let need = self.relay.adds_notional().then_some("--need \"notional\":");
        options
            .split_whitespace()
            .chain(need.into_iter().flat_map(str::split_whitespace))
            .map(str::to_owned)
            .collect()
    }

    /// The relay's command line, run in the folder of [`configurations`].
    pub(super) fn relay_command(&self, release: &Path, target: &Path) -> String {
        let native = |options| format!("{}/relay --src {{src}} --snk {{snk}} {options}", release.display());
        let node = |options| {
            let script = target.join("bench-node/relay.mjs");
            format!("node {} {{src}} {{snk}} --notional {options}", script.display())
        };
        let host = |pipeline| format!("{}/tidemill run -c {pipeline}.toml", release.display());
        match self.relay {
            Relay::Direct => "direct".to_owned(),
            Relay::Raw => native(""),
            Relay::RawSend => native("--write send"),
            Relay::Typed => native("--work typed"),
            Relay::Tree => native("--work value"),
            Relay::Node => node(""),
            Relay::NodeCorked => node("--cork"),
            Relay::HostBare => host("bare"),
            Relay::HostForward => host("forward"),
            Relay::HostNotional => host("notional"),
        }
    }
}

/// Which relays can take part.
pub(super) struct Matrix {
    pub(super) host: bool,
    pub(super) node: bool,
    pub(super) quick: bool,
}

impl Matrix {
    /// The cases, in the order in which each repetition runs them: what is compared stands together.
    pub(super) fn cases(&self) -> Vec<Case> {
        use Relay::{
            Direct, HostBare, HostForward, HostNotional, Node, NodeCorked, Raw, RawSend, Tree, Typed,
        };
        let flooded = [Raw, HostForward, HostBare, Typed, HostNotional, Node, NodeCorked, Tree, RawSend];
        let floods = SIZES.iter().flat_map(|&size| flooded.map(|relay| (relay, Load::Flood(size))));
        let rated = [Direct, Raw, HostForward, Typed, HostNotional, Node];
        let alone = [(HostForward, Load::Idle), (HostForward, Load::Start)];
        let all = floods.chain(rated.map(|relay| (relay, Load::Rate))).chain(alone);
        all.filter(|(relay, _)| self.takes_part(*relay))
            .map(|(relay, load)| Case { relay, load, quick: self.quick })
            .collect()
    }

    fn takes_part(&self, relay: Relay) -> bool {
        (self.host || !relay.is_host()) && (self.node || !relay.is_node())
    }
}

/// The host's configuration files, by name.
pub(super) fn configurations(plugins: &Path, cache: &Path) -> [(&'static str, String); 3] {
    let configuration = |transform: &str| {
        format!(
            r#"[plugins]
dir = {plugins:?}
cache = {cache:?}
watch = false

[[pipelines]]
name = "bench"

[pipelines.source]
type = "websocket"
url = "${{SRC}}"
{transform}
[[pipelines.sinks]]
type = "websocket"
url = "${{SNK}}"
"#
        )
    };
    let plugin = |name: &str| configuration(&format!("\n[[pipelines.transforms]]\nplugin = \"{name}\"\n"));
    [
        ("bare.toml", configuration("")),
        ("forward.toml", plugin("forward")),
        ("notional.toml", plugin("notional")),
    ]
}
