//! A connector under test: its calls go the way that the host's would.

use super::Host;
use crate::bindings::connector::exports::tidemill::plugin::dialler as wit;
use crate::connector::{Attempt, Connector, Dial, Instance};
use std::time::Duration;

/// An instance of a connector, called natively.
pub struct ConnectorHarness<C> {
    instance: Instance<C>,
    /// What the connector is told of the next dial: at first that it is the first.
    pub attempt: Attempt,
    /// The host that the connector sees.
    pub host: Host,
}

impl<C: Connector> ConnectorHarness<C> {
    /// Makes the connector out of its configuration, a JSON object.
    ///
    /// # Errors
    /// The text with which the configuration is refused.
    pub fn try_new(config: &str) -> Result<Self, String> {
        let mut host = Host::default();
        let facts = [("pipeline", "test"), ("endpoint", "test")];
        let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let instance = host.during(|| Instance::init(config, facts))?;
        Ok(Self { instance, attempt: Attempt { number: 1, ..Attempt::default() }, host })
    }

    /// Asks what is to be dialled, where the configuration says `dial`.
    ///
    /// # Errors
    /// Nothing is to be dialled: why, and when to try again.
    pub fn before_connect(&mut self, dial: Dial) -> Result<Dial, (String, Option<Duration>)> {
        let Attempt { number, last, facts } = self.attempt.clone();
        let attempt = wit::Attempt { dial, number, last, facts };
        let answer = self.host.during(|| self.instance.before_connect(attempt));
        answer.map_err(|refusal| {
            let after = refusal.retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
            (refusal.reason, after)
        })
    }

    /// Calls the timer. The host's clock is set to `now_us`.
    ///
    /// # Errors
    /// The text that would go to the log.
    pub fn tick(&mut self, now_us: u64) -> Result<(), String> {
        self.host.now_us = now_us;
        self.host.during(|| self.instance.tick(now_us))
    }

    /// How often the connector wants its timer called, in milliseconds; 0 is never.
    pub fn tick_ms(&self) -> u32 {
        self.instance.description().tick_ms
    }
}
