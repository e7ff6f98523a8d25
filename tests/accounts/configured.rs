//! The configuration of the pipeline: what a seed chose for the whole run, and what reloads change.

use crate::plan::OnError;
use std::fmt;
use std::net::SocketAddr;

#[derive(Debug)]
pub(crate) struct Configured {
    pub(crate) on_error: OnError,
    slow_peer: &'static str,
    when_full: &'static str,
    /// How a version takes over, of each stage.
    trials: [String; 2],
    server: SocketAddr,
    producer: SocketAddr,
    collector: SocketAddr,
    /// Of each stage.
    pub(crate) instances: [usize; 2],
    /// Of each stage.
    max_batch: [usize; 2],
}

impl Configured {
    pub(crate) fn draw(
        rng: &mut fastrand::Rng,
        server: SocketAddr,
        producer: SocketAddr,
        collector: SocketAddr,
    ) -> Self {
        let on_error = [OnError::DeadLetter, OnError::Drop, OnError::Pass][rng.usize(..3)];
        let slow_peer = ["drop_oldest", "drop_newest", "disconnect", "block"][rng.usize(..4)];
        let when_full = ["block", "block", "drop_oldest", "drop_newest"][rng.usize(..4)];
        // A version on trial: most are rejected in shadow, or put back, since messages trap in every version.
        let trials = [(); 2].map(|()| {
            let shadow = [0, 0, 5, 60][rng.usize(..4)];
            let probation = ["0s", "50ms", "2s"][rng.usize(..3)];
            let max_faults = if probation == "0s" { 0 } else { rng.usize(..4) };
            format!(r#"{{ shadow = {shadow}, probation = "{probation}", max_faults = {max_faults} }}"#)
        });
        let (instances, max_batch) = ([1; 2], [256; 2]);
        let mut drawn = Self {
            on_error,
            slow_peer,
            when_full,
            trials,
            server,
            producer,
            collector,
            instances,
            max_batch,
        };
        drawn.change(rng);
        drawn
    }

    /// Changes what a reload may change while the pipeline runs. The order of all messages is kept whatever it is.
    pub(crate) fn change(&mut self, rng: &mut fastrand::Rng) {
        self.instances = [(); 2].map(|()| rng.usize(1..=3));
        self.max_batch = [(); 2].map(|()| [1, 16, 256][rng.usize(..3)]);
    }

    /// Whether a peer that stalls holds the pipeline.
    pub(crate) fn peers_block(&self) -> bool {
        self.slow_peer == "block"
    }

    /// The file, but for `[admin]`.
    pub(crate) fn text(&self) -> String {
        let Self { on_error, slow_peer, when_full, trials, instances, max_batch, .. } = self;
        format!(
            r#"
            [server]
            port = {}

            [[pipelines]]
            name = "p"
            source = {{ type = "websocket", url = "ws://{}/feed", codec = "text", reconnect = {{ delay = "5ms", max_delay = "20ms" }} }}
            dead_letter = {{ type = "file", path = "dead.jsonl", format = "jsonl" }}

            [[pipelines.transforms]]
            plugin = "steered"
            name = "a"
            config = {{ word = 1 }}
            instances = {}
            max_batch = {}
            swap = {}
            limits = {{ deadline = "50ms", output = "1MiB" }}

            [[pipelines.transforms]]
            plugin = "steered"
            name = "b"
            config = {{ word = 2 }}
            instances = {}
            max_batch = {}
            swap = {}
            on_error = "{}"
            limits = {{ deadline = "50ms", output = "1MiB" }}

            [[pipelines.sinks]]
            type = "websocket"
            name = "dialled"
            url = "ws://{}/collect"
            outputs = ["*"]
            reconnect = {{ delay = "5ms", max_delay = "20ms", max_attempts = 5 }}
            buffer = {{ type = "memory", capacity = 256, when_full = "{when_full}" }}

            [[pipelines.sinks]]
            type = "websocket"
            name = "served"
            mode = "server"
            path = "/out"
            outputs = ["*"]
            peer_buffer = 2048
            slow_peer = "{slow_peer}"

            [[pipelines.sinks]]
            type = "file"
            name = "filed"
            path = "out.jsonl"
            format = "jsonl"
            outputs = ["*"]
            "#,
            self.server.port(),
            self.producer,
            instances[0],
            max_batch[0],
            trials[0],
            instances[1],
            max_batch[1],
            trials[1],
            on_error.as_str(),
            self.collector,
        )
    }
}

impl fmt::Display for Configured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { on_error, slow_peer, when_full, trials, instances, max_batch, .. } = self;
        write!(
            f,
            "instances {instances:?}, max_batch {max_batch:?}, swap {trials:?}, on_error {on_error:?}, slow_peer {slow_peer}, when_full {when_full}"
        )
    }
}
