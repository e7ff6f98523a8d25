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
}

impl<P: Plugin> Instance<P> {
    /// `init`: makes the plugin out of its configuration.
    pub fn init(config: &str, facts: Vec<(String, String)>) -> Result<Self, String> {
        let mut description = Description::with_facts(facts);
        let plugin = P::new(configuration::read(config)?, &mut description).map_err(text)?;
        description.check().map_err(text)?;
        Ok(Self { plugin, description, room: Room::default() })
    }

    /// A plugin that was made otherwise.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn of(plugin: P, description: Description) -> Self {
        Self { plugin, description, room: Room::default() }
    }

    /// What the plugin asked for.
    pub fn description(&self) -> types::Description {
        self.description.to_wit()
    }

    /// `process`
    pub fn process(&mut self, batch: types::Batch) -> Result<types::Outcome, String> {
        let batch = Batch::try_from_wit(batch, self.description.reads()).map_err(text)?;
        let mut outcome = Outcome::new(self.description.writes(), self.description.edits(), self.room);
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
        // A row of bytes that grows is there twice for a moment, beside all that the plugin knows.
        let most_bytes = self.description.output_bytes().min(self.description.memory_bytes() / 4);
        Emissions::new(self.description.writes(), Room::default()).bounded(most_bytes)
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
