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
    /// Frames written by hand: the least that can be done.
    Frames,
    /// `sockudo-ws`, flushed when there is nothing more to read.
    Sockudo,
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
    /// The host with a plugin in JavaScript that does what Node does.
    HostJavaScript,
    /// Another build of the host, without a transform.
    BaseBare,
    /// Another build of the host, with the plugin `forward`.
    BaseForward,
    /// Another build of the host, with the plugin `notional`.
    BaseNotional,
}

impl Relay {
    /// What the tables call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "no relay",
            Self::Raw => "tokio-tungstenite, raw",
            Self::RawSend => "tokio-tungstenite, raw, `send` each",
            Self::Frames => "frames by hand",
            Self::Sockudo => "`sockudo-ws`, raw",
            Self::Typed => "tokio-tungstenite, typed JSON",
            Self::Tree => "tokio-tungstenite, JSON tree",
            Self::Node => "Node `ws`, JSON",
            Self::NodeCorked => "Node `ws`, JSON, corked",
            Self::HostBare => "Tidemill, no plugin",
            Self::HostForward => "Tidemill, `forward`",
            Self::HostNotional => "Tidemill, `notional`",
            Self::HostJavaScript => "Tidemill, plugin in JavaScript",
            Self::BaseBare => "baseline, no plugin",
            Self::BaseForward => "baseline, `forward`",
            Self::BaseNotional => "baseline, `notional`",
        }
    }

    fn adds_notional(self) -> bool {
        use Relay::{BaseNotional, HostJavaScript, HostNotional, Node, NodeCorked, Tree, Typed};
        matches!(self, Typed | Tree | Node | NodeCorked | HostNotional | HostJavaScript | BaseNotional)
    }

    fn is_host(self) -> bool {
        matches!(self, Self::HostBare | Self::HostForward | Self::HostNotional | Self::HostJavaScript)
    }

    fn is_baseline(self) -> bool {
        matches!(self, Self::BaseBare | Self::BaseForward | Self::BaseNotional)
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
    pub(super) fn relay_command(&self, release: &Path, target: &Path, baseline: Option<&Path>) -> String {
        let native = |options| format!("{}/relay --src {{src}} --snk {{snk}} {options}", release.display());
        let node = |options| {
            let script = target.join("bench-node/relay.mjs");
            format!("node {} {{src}} {{snk}} --notional {options}", script.display())
        };
        let run = |binary: &Path, pipeline| format!("{} run -c {pipeline}.toml", binary.display());
        let host = |pipeline| run(&release.join("tidemill"), pipeline);
        let base = |pipeline| run(baseline.expect("its cases are there only with it"), pipeline);
        match self.relay {
            Relay::Direct => "direct".to_owned(),
            Relay::Raw => native(""),
            Relay::RawSend => native("--write send"),
            Relay::Frames => native("--library frames"),
            Relay::Sockudo => native("--library sockudo"),
            Relay::Typed => native("--work typed"),
            Relay::Tree => native("--work value"),
            Relay::Node => node(""),
            Relay::NodeCorked => node("--cork"),
            Relay::HostBare => host("bare"),
            Relay::HostForward => host("forward"),
            Relay::HostNotional => host("notional"),
            Relay::HostJavaScript => host("javascript"),
            Relay::BaseBare => base("bare"),
            Relay::BaseForward => base("forward"),
            Relay::BaseNotional => base("notional"),
        }
    }
}

/// Which relays can take part.
pub(super) struct Matrix {
    pub(super) host: bool,
    pub(super) baseline: bool,
    pub(super) node: bool,
    pub(super) javascript: bool,
    pub(super) quick: bool,
}

impl Matrix {
    /// The cases, in the order in which each repetition runs them: what is compared stands together.
    pub(super) fn cases(&self) -> Vec<Case> {
        use Relay::{
            BaseBare, BaseForward, BaseNotional, HostBare, HostForward, HostJavaScript, HostNotional,
        };
        use Relay::{Direct, Frames, Node, NodeCorked, Raw, RawSend, Sockudo, Tree, Typed};
        let flooded = [
            Raw,
            HostForward,
            BaseForward,
            HostBare,
            BaseBare,
            Frames,
            Sockudo,
            Typed,
            HostNotional,
            BaseNotional,
            HostJavaScript,
            Node,
            NodeCorked,
            Tree,
            RawSend,
        ];
        let floods = SIZES.iter().flat_map(|&size| flooded.map(|relay| (relay, Load::Flood(size))));
        let rated = [Direct, Raw, HostForward, BaseForward, Typed, HostNotional, BaseNotional, Node];
        let alone = [(HostForward, Load::Idle), (HostForward, Load::Start)];
        let all = floods.chain(rated.map(|relay| (relay, Load::Rate))).chain(alone);
        all.filter(|(relay, _)| self.takes_part(*relay))
            .map(|(relay, load)| Case { relay, load, quick: self.quick })
            .collect()
    }

    fn takes_part(&self, relay: Relay) -> bool {
        (self.host || !relay.is_host())
            && (self.baseline || !relay.is_baseline())
            && (self.node || !relay.is_node())
            && (self.javascript || relay != Relay::HostJavaScript)
    }
}

/// The host's configuration files, by name.
pub(super) fn configurations(plugins: &Path, cache: &Path) -> [(&'static str, String); 4] {
    let configuration = |folder: &str, transform: &str| {
        let plugins = plugins.join(folder);
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
    let plugin =
        |name: &str| configuration(name, &format!("\n[[pipelines.transforms]]\nplugin = \"{name}\"\n"));
    [
        ("bare.toml", configuration("forward", "")),
        ("forward.toml", plugin("forward")),
        ("notional.toml", plugin("notional")),
        ("javascript.toml", plugin("javascript")),
    ]
}
