//! Two components on the same messages, outside of any host: what each made of a message is compared.
//!
//! Each message is a call of its own, so that a fault is that of its message. The second is told the same of time and
//! chance as the first, and is answered what that was, as a version in shadow is. Timers go by the times of the
//! messages, as in a replay. One that has failed begins anew with its last good snapshot.

use super::comparison::{Made, request_difference};
use super::ticking::Ticking;
use crate::config::Transform;
use crate::message::Message;
use crate::message::metadata::Metadata;
use crate::pipeline::merge::MessageDecisions;
use crate::pipeline::recovery::LastGood;
use crate::plugin::{CallNotes, Emissions, Fault, Instance, Plugin, Setup, StatePart};
use crate::verdict::ShadowDifference;
use std::time::Duration;
use tokio::time::Instant;

/// Two components that get the same.
#[derive(Debug)]
pub struct SideBySide {
    first: Side,
    second: Side,
    ticking: Ticking,
    /// How often a message is offered again that the first cannot decide on.
    retries: usize,
    last_us: u64,
}

/// What was compared, in the order in which it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// What both got.
    pub input: ComparedInput,
    /// What differs, if anything does.
    pub difference: Option<ShadowDifference>,
}

/// What both got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparedInput {
    /// A message.
    Message,
    /// A call of the timer, at so many microseconds since the Unix epoch.
    Tick(u64),
    /// That no message will follow.
    End,
}

/// One of the two.
#[derive(Debug)]
struct Side {
    plugin: Plugin,
    setup: Setup,
    /// None after a fault.
    instance: Option<Instance>,
    last_good: LastGood,
    /// What it was told in its last call.
    notes: Option<CallNotes>,
}

/// What a side is called with.
#[derive(Clone, Copy)]
enum SideCall<'a> {
    Message(&'a Message),
    Tick(u64),
    End(u64),
}

/// Where what a side is told of the world comes from.
enum Hearing {
    /// The world; and it is noted.
    First,
    /// What the other was told, if that was called.
    Second(Option<CallNotes>),
}

/// What a side made of a call, and how long it wants to wait if it cannot decide yet.
type SideAnswer = (Made, Duration);

impl SideBySide {
    /// Two instances: the first made with this setup, the second with [`Setup::beside`] of it.
    pub fn new(transform: &Transform, (setup, first): (Setup, Instance), second: (Setup, Instance)) -> Self {
        let mut ticking = Ticking::new(transform.tick, true);
        ticking.ask(first.description().tick);
        let (first, second) = (Side::new(setup, first), Side::new(second.0, second.1));
        Self { first, second, ticking, retries: transform.retries, last_us: 0 }
    }

    /// Gives both a message, and their timers what is due before it.
    ///
    /// # Cancel safety
    /// Nothing is to be asked any more if the future is dropped.
    pub async fn see(&mut self, message: &Message) -> Vec<Compared> {
        let received_us = message.metadata.received_us();
        let mut compared = Vec::new();
        if let Some(at_us) = self.ticking.missed(received_us) {
            self.ticking.ticked(Some(at_us));
            compared.push(self.compare(SideCall::Tick(at_us)).await);
        }
        self.ticking.see(received_us);
        self.last_us = received_us;
        compared.push(self.compare(SideCall::Message(message)).await);
        compared
    }

    /// Tells both that no message will follow.
    ///
    /// # Cancel safety
    /// As [`SideBySide::see`].
    pub async fn finish(&mut self) -> Compared {
        self.compare(SideCall::End(self.last_us)).await
    }

    async fn compare(&mut self, call: SideCall<'_>) -> Compared {
        // What the second has decided on while the first could not.
        let mut ahead = None;
        let mut offers = 0;
        let (old, new) = loop {
            let (old, wait) = self.first.call(call, Hearing::First).await;
            let notes = self.first.notes.take();
            let (new, other_wait) = match ahead.take() {
                Some(ahead) => (ahead, Duration::ZERO),
                None => self.second.call(call, Hearing::Second(notes)).await,
            };
            if !matches!(old, Made::PutOff(_)) || offers == self.retries {
                break (old, new);
            }
            offers += 1;
            tokio::time::sleep(wait.max(other_wait)).await;
            ahead = Some(new).filter(|new| !matches!(new, Made::PutOff(_)));
        };
        let (input, origin) = match call {
            SideCall::Message(message) => (ComparedInput::Message, Some(message)),
            SideCall::Tick(at_us) => (ComparedInput::Tick(at_us), None),
            SideCall::End(_) => (ComparedInput::End, None),
        };
        let told = |text: &str| self.first.setup.config.told(text);
        let stranger = self.second.instance.as_mut().and_then(Instance::take_stranger);
        let difference = match stranger {
            _ if !old.is_same_as(&new) => Some(old.difference(&new, origin, told)),
            Some(request) => Some(request_difference(&request, told)),
            None => None,
        };
        Compared { input, difference }
    }
}

impl Side {
    fn new(setup: Setup, instance: Instance) -> Self {
        let (plugin, last_good) = (instance.plugin().clone(), LastGood::new(None, Instant::now()));
        Self { plugin, setup, instance: Some(instance), last_good, notes: None }
    }

    async fn call(&mut self, call: SideCall<'_>, hearing: Hearing) -> SideAnswer {
        match self.try_call(call, hearing).await {
            Ok(answer) => answer,
            Err(fault) => {
                self.instance = None;
                self.last_good.lost();
                (Made::failed(&fault), Duration::ZERO)
            }
        }
    }

    async fn try_call(&mut self, call: SideCall<'_>, hearing: Hearing) -> Result<SideAnswer, Fault> {
        let now_us = match call {
            SideCall::Message(message) => message.metadata.received_us(),
            SideCall::Tick(at_us) | SideCall::End(at_us) => at_us,
        };
        let is_replay = self.setup.is_replay;
        let instance = self.ready().await?;
        instance.set_time(is_replay.then_some(now_us));
        match hearing {
            Hearing::First => instance.note(),
            Hearing::Second(notes) => notes.into_iter().for_each(|notes| instance.follow(notes)),
        }
        let called = match call {
            SideCall::Message(message) => decided(instance, message).await,
            SideCall::Tick(_) => without_origin(instance.tick(now_us).await, instance, now_us),
            SideCall::End(_) => without_origin(instance.finish().await, instance, now_us),
        };
        self.notes = instance.take_notes();
        let answer = called?;
        self.last_good.change();
        self.save_if_due().await;
        Ok(answer)
    }

    /// The instance, or a new one after a fault.
    async fn ready(&mut self) -> Result<&mut Instance, Fault> {
        let instance = match self.instance.take() {
            Some(instance) => instance,
            None => {
                let mut instance = self.plugin.instantiate(&self.setup).await?;
                if let Some(snapshot) = self.last_good.snapshot()
                    && let Err(fault) =
                        instance.restore(std::slice::from_ref(snapshot), StatePart::WHOLE).await
                {
                    // The next one begins without.
                    self.last_good.forget();
                    return Err(fault);
                }
                instance
            }
        };
        Ok(self.instance.insert(instance))
    }

    /// Takes a snapshot when one is due. One that fails costs the instance, unless it was refused.
    async fn save_if_due(&mut self) {
        let now = Instant::now();
        let Some(instance) = &mut self.instance else { return };
        if self.last_good.due().is_none_or(|due| due > now) {
            return;
        }
        match instance.snapshot().await {
            Ok(snapshot) => self.last_good.saved(snapshot, now),
            Err(fault) => {
                self.last_good.failed(now);
                if !fault.is_refusal {
                    self.instance = None;
                    self.last_good.lost();
                }
            }
        }
    }
}

async fn decided(instance: &mut Instance, message: &Message) -> Result<SideAnswer, Fault> {
    let outcome = instance.process(std::slice::from_ref(message)).await?;
    if let Some(retry) = outcome.retry {
        return Ok((Made::PutOff(retry.reason), retry.after));
    }
    let decision = MessageDecisions::new(&outcome).next(message);
    let made = Made::of(decision, message, &outcome.emissions, &instance.description().outputs);
    Ok((made, Duration::ZERO))
}

fn without_origin(
    emitted: Result<Emissions, Fault>,
    instance: &Instance,
    now_us: u64,
) -> Result<SideAnswer, Fault> {
    let (base, outputs) = (Metadata::without_origin(now_us), &instance.description().outputs);
    emitted.map(|emissions| (Made::without_origin(&emissions, &base, outputs), Duration::ZERO))
}
