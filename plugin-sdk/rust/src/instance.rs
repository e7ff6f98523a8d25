//! What `export!` puts between the host's calls and a plugin.

use crate::bindings::exports::tidemill::plugin::transformer::Guest;
use crate::bindings::tidemill::plugin::types;
use crate::emissions::Room;
use crate::panics::log_panics;
use crate::{Batch, Description, Emissions, Error, Outcome, Part, Plugin, configuration};
use std::cell::RefCell;
use std::thread::LocalKey;

/// A plugin, and what the calls into it need.
pub struct Instance<P> {
    plugin: P,
    description: Description,
    room: Room,
    /// With more emissions than that a call puts the rest of its batch off.
    full_beyond: u64,
}

impl<P: Plugin> Instance<P> {
    /// `init`: makes the plugin out of its configuration.
    pub fn init(config: &str, facts: Vec<(String, String)>) -> Result<Self, String> {
        let mut description = Description::with_facts(facts);
        let plugin = P::new(configuration::read(config)?, &mut description).map_err(text)?;
        description.check().map_err(text)?;
        Ok(Self::of(plugin, description))
    }

    /// A plugin that was made otherwise.
    pub(crate) fn of(plugin: P, description: Description) -> Self {
        let full_beyond = full_beyond(&description);
        Self { plugin, description, room: Room::default(), full_beyond }
    }

    /// What the plugin asked for.
    pub fn description(&self) -> types::Description {
        self.description.to_wit()
    }

    /// `process`
    pub fn process(&mut self, batch: types::Batch) -> Result<types::Outcome, String> {
        let batch = Batch::try_from_wit(batch, self.description.reads()).map_err(text)?;
        let outcome = Outcome::new(self.description.writes(), self.description.edits(), self.room);
        let mut outcome = outcome.full_beyond(self.full_beyond);
        self.plugin.process_batch(&batch, &mut outcome).map_err(text)?;
        self.room = outcome.room();
        Ok(outcome.into_wit(batch.len()))
    }

    /// `tick`
    pub fn tick(&mut self, now_us: u64) -> Result<Option<types::Emissions>, String> {
        let mut emissions = self.emissions();
        self.plugin.tick(now_us, &mut emissions).map_err(text)?;
        Ok(emissions.into_wit())
    }

    /// `finish`
    pub fn finish(&mut self) -> Result<Option<types::Emissions>, String> {
        let mut emissions = self.emissions();
        self.plugin.finish(&mut emissions).map_err(text)?;
        Ok(emissions.into_wit())
    }

    /// No emissions yet, of a call without messages.
    fn emissions(&self) -> Emissions {
        Emissions::new(self.description.writes(), Room::default()).bounded(most_bytes(&self.description))
    }

    /// `snapshot`
    pub fn snapshot(&self) -> Result<Option<Vec<u8>>, String> {
        self.plugin.snapshot().map_err(text)
    }

    /// `restore`
    pub fn restore(&mut self, snapshots: &[Vec<u8>], part: Part) -> Result<(), String> {
        self.plugin.restore_part(snapshots, part).map_err(text)
    }
}

/// How much one call may send.
fn most_bytes(description: &Description) -> u64 {
    // A row of bytes that grows is there twice for a moment, beside all that the plugin knows.
    description.output_bytes().min(description.memory_bytes() / 4)
}

/// With how much a call is full: one more message may emit as much again. Without `retries` a message that is put off
/// would count as rejected, so that none is.
fn full_beyond(description: &Description) -> u64 {
    let retries = description.fact("retries").and_then(|retries| retries.parse().ok()).unwrap_or(0u64);
    if retries > 0 { most_bytes(description) / 2 } else { u64::MAX }
}

/// Where a component keeps its one instance. `export!` implements it, and that makes it the component.
pub trait Component {
    /// The plugin that is exported.
    type Plugin: Plugin;

    /// Its place, empty until `init`.
    fn place() -> &'static LocalKey<RefCell<Option<Instance<Self::Plugin>>>>;

    /// Calls the instance.
    fn with<R>(call: impl FnOnce(&mut Instance<Self::Plugin>) -> R) -> R {
        Self::place().with_borrow_mut(|place| call(place.as_mut().expect("the host calls init first")))
    }
}

impl<C: Component> Guest for C {
    fn init(config: String, facts: Vec<(String, String)>) -> Result<types::Description, String> {
        log_panics();
        let instance = Instance::init(&config, facts)?;
        let description = instance.description();
        Self::place().set(Some(instance));
        Ok(description)
    }

    fn process(batch: types::Batch) -> Result<types::Outcome, String> {
        Self::with(|instance| instance.process(batch))
    }

    fn tick(now_us: u64) -> Result<Option<types::Emissions>, String> {
        Self::with(|instance| instance.tick(now_us))
    }

    fn finish() -> Result<Option<types::Emissions>, String> {
        Self::with(Instance::finish)
    }

    fn snapshot() -> Result<Option<Vec<u8>>, String> {
        Self::with(|instance| instance.snapshot())
    }

    fn restore(snapshots: Vec<Vec<u8>>, part: u32, parts: u32) -> Result<(), String> {
        Self::with(|instance| instance.restore(&snapshots, Part { number: part, of: parts }))
    }
}

/// The text of an error, as it crosses.
fn text(error: impl Into<Error>) -> String {
    error.into().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Message, NoConfig, Out};

    /// Emits 872 bytes of each message, for which the host counts 1,000.
    struct Talkative;

    impl Plugin for Talkative {
        type Config = NoConfig;

        fn new(_: NoConfig, _: &mut Description) -> crate::Result<Self> {
            Ok(Self)
        }

        fn process(&mut self, _: Message<'_>, out: &mut Out<'_>) -> crate::Result {
            out.emit().text(&"x".repeat(872));
            Ok(())
        }
    }

    /// How many of ten messages a call decides on.
    fn decided(facts: &[(&str, &str)]) -> u32 {
        let facts = facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut instance = Instance::<Talkative>::init("{}", facts.collect()).unwrap();
        let ten = types::Packed { data: vec![b'x'; 10], ends: (1..=10).collect(), binary: None };
        let payloads = Some(types::Payloads::Packed(ten));
        let outcome =
            instance.process(types::Batch { count: 10, payloads, times: None, columns: None }).unwrap();
        let decided = outcome.retry.map_or(10, |retry| {
            assert_eq!((retry.after_ms, retry.reason.as_str()), (0, "this call has sent as much as it may"));
            retry.message
        });
        assert_eq!(outcome.emissions.unwrap().origins, Vec::from_iter(0..decided));
        decided
    }

    #[test]
    fn what_comes_when_half_is_sent_is_put_off_where_the_host_offers_it_again() {
        let output = ("output_bytes", "8000");
        assert_eq!(decided(&[output, ("retries", "1")]), 5);
        assert_eq!(decided(&[output, ("retries", "1"), ("memory_bytes", "16000")]), 3);
        // The first is decided on, however much it emits.
        assert_eq!(decided(&[("output_bytes", "1"), ("retries", "5")]), 1);
        for facts in [&[output] as &[_], &[output, ("retries", "0")], &[("retries", "1")]] {
            assert_eq!(decided(facts), 10);
        }
    }
}
