//! What the tests here share: a pipeline from one socket to another, what the metrics say, and the rule that every message is accounted for.

use tidemill_tests::host::{Counted, Host};
pub(crate) use tidemill_tests::sockets::{accept, closed, nobody, received, server, soon, text};

/// Dial again at once.
pub(crate) const QUICK: &str = "reconnect = { delay = \"5ms\", max_delay = \"20ms\" }";

/// A pipeline without transforms; the keys of its source and of its sink, but for their type.
pub(crate) fn pipeline(source: &str, sink: &str) -> String {
    format!(
        "[[pipelines]]\nname = \"p\"\nsource = {{ type = \"websocket\", {source} }}\n\
         sinks = [{{ type = \"websocket\", name = \"out\", {sink} }}]\n"
    )
}

/// How often an endpoint tried to connect, with this outcome.
pub(crate) fn connects(now: &Counted, endpoint: &str, outcome: &str) -> u64 {
    let (endpoint, outcome) = (format!("endpoint=\"{endpoint}\""), format!("outcome=\"{outcome}\""));
    now.count("tidemill_connects_total", &[&endpoint, &outcome])
}

/// Whether an endpoint is in a state.
pub(crate) fn is_in(now: &Counted, endpoint: &str, state: &str) -> bool {
    let (endpoint, state) = (format!("endpoint=\"{endpoint}\""), format!("state=\"{state}\""));
    now.count("tidemill_connections", &[&endpoint, &state]) == 1
}

/// Waits until so many messages were received and every one of them has come to a named end.
pub(crate) fn accounted_for(host: &Host, received: u64) -> Counted {
    host.wait_until(&format!("{received} messages are accounted for"), |now| {
        let dead_lettered = now.count("tidemill_messages_dead_lettered_total", &[]);
        // The sink of the dead letters delivers, and does not deliver a message of the source.
        let of_dead_letters = now.count("tidemill_messages_delivered_total", &["sink=\"dead_letter\""]);
        let delivered = now.count("tidemill_messages_delivered_total", &[]) - of_dead_letters;
        let ended = delivered + dead_lettered + now.count("tidemill_messages_dropped_total", &[]);
        now.count("tidemill_messages_received_total", &[]) == received
            && now.count("tidemill_messages_in_flight", &[]) == 0
            && ended == received
    })
}
