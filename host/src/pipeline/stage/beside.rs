//! An instance of a version in shadow, beside the one that a worker runs.
//!
//! It gets the messages of each call of that one once the call has returned, and is told the same of time, chance and
//! over HTTP. So both see the same messages in the same order, those that were put off and offered again included, and
//! where the running version begins anew after a fault, this one does. It never changes what becomes of a message.

use super::comparison::{Made, request_difference};
use crate::message::Message;
use crate::message::metadata::Metadata;
use crate::pipeline::control::ShadowCounts;
use crate::pipeline::merge::MessageDecisions;
use crate::plugin::{CallNotes, Emissions, Fault, Instance, Outcome, Plugin, Setup, StatePart};
use crate::verdict::ShadowDifference;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// An instance of a version in shadow.
#[derive(Debug)]
pub(super) struct Beside {
    /// None after a fault.
    instance: Option<Instance>,
    plugin: Plugin,
    setup: Setup,
    /// The messages that all instances of the version are still to see.
    left: Arc<AtomicU64>,
    counts: ShadowCounts,
    first: Option<ShadowDifference>,
    fault: Option<Fault>,
    /// What it made of the message at the front, which the running version has put off.
    ahead: Option<Made>,
    /// The running version has begun anew with this snapshot.
    anew: Option<Option<Bytes>>,
}

/// A call of the running version, as the one beside is to make it too.
pub(super) struct SeenCall<'a> {
    /// The names of the outputs of the running version.
    pub(super) outputs: &'a [Arc<str>],
    /// What it was told.
    pub(super) notes: Option<CallNotes>,
    pub(super) time_us: Option<u64>,
}

impl Beside {
    /// An instance made with this setup, which has the state of the running one.
    pub(super) fn new(instance: Instance, setup: Setup, left: Arc<AtomicU64>) -> Self {
        Self {
            plugin: instance.plugin().clone(),
            instance: Some(instance),
            setup,
            left,
            counts: ShadowCounts::default(),
            first: None,
            fault: None,
            ahead: None,
            anew: None,
        }
    }

    /// What was compared since this was last asked.
    pub(super) fn take_counts(&mut self) -> ShadowCounts {
        std::mem::take(&mut self.counts)
    }

    pub(super) fn take_first(&mut self) -> Option<ShadowDifference> {
        self.first.take()
    }

    pub(super) fn take_fault(&mut self) -> Option<Fault> {
        self.fault.take()
    }

    pub(super) fn into_instance(self) -> Option<Instance> {
        self.instance
    }

    /// The running version begins anew, with this snapshot.
    pub(super) fn begin_anew(&mut self, snapshot: Option<Bytes>) {
        self.ahead = None;
        self.anew = Some(snapshot);
    }

    /// The running version has decided on a batch, or on its beginning.
    pub(super) async fn see(&mut self, batch: &[Message], outcome: &Outcome, call: SeenCall<'_>) {
        let SeenCall { outputs, notes, time_us } = call;
        let decided = outcome.retry.as_ref().map_or(batch.len(), |retry| retry.message as usize);
        let counted = self.count_down(decided);
        // It too is offered the message that was put off.
        let seen = if counted == decided { batch.len().min(decided + 1) } else { counted };
        let mut old = MessageDecisions::new(outcome);
        let mut old = |message: &Message| Made::of(old.next(message), message, &outcome.emissions, outputs);
        let mut next = 0;
        if self.ahead.is_some() {
            if counted == 0 {
                return;
            }
            if let Some(ahead) = self.ahead.take() {
                self.compare(Some(&batch[0]), &old(&batch[0]), &ahead);
            }
            next = 1;
        }
        let mut notes = notes;
        while next < seen {
            let before = (self.counts, self.first.is_some());
            let Some(new) = self.process(&batch[next..seen], notes.take(), time_us).await else { return };
            let put_off =
                new.retry.as_ref().map(|retry| (next + retry.message as usize, retry.reason.clone()));
            let new_decided = put_off.as_ref().map_or(seen, |(message, _)| *message);
            if next == 0
                && counted == batch.len()
                && new_decided == counted
                && outcome.forwards_all_as_they_are()
                && new.forwards_all_as_they_are()
            {
                self.counts.same += counted as u64;
                self.look_at_requests(before);
                return;
            }
            let names = self.outputs();
            let mut decisions = MessageDecisions::new(&new);
            let mut made =
                |message: &Message| Made::of(decisions.next(message), message, &new.emissions, &names);
            for message in &batch[next..new_decided.min(counted)] {
                self.compare(Some(message), &old(message), &made(message));
            }
            if new_decided > counted {
                // The running version has put it off.
                self.ahead = Some(made(&batch[counted]));
            }
            next = seen;
            if let Some((message, reason)) = put_off.filter(|(message, _)| *message < counted) {
                // The running version has not, and goes on behind it.
                self.compare(Some(&batch[message]), &old(&batch[message]), &Made::PutOff(reason));
                next = message + 1;
            }
            self.look_at_requests(before);
        }
    }

    /// The running version has failed on a message.
    pub(super) async fn see_fault(&mut self, message: &Message, fault: &Fault, call: SeenCall<'_>) {
        if self.count_down(1) == 0 {
            return;
        }
        let old = Made::failed(fault);
        let new = match self.ahead.take() {
            Some(ahead) => ahead,
            None => {
                let batch = std::slice::from_ref(message);
                let Some(new) = self.process(batch, call.notes, call.time_us).await else { return };
                match &new.retry {
                    Some(retry) => Made::PutOff(retry.reason.clone()),
                    None => Made::of(
                        MessageDecisions::new(&new).next(message),
                        message,
                        &new.emissions,
                        &self.outputs(),
                    ),
                }
            }
        };
        self.compare(Some(message), &old, &new);
    }

    /// The running version has put a message off too often, which is rejected for that.
    pub(super) fn see_given_up(&mut self, message: &Message, reason: &str) {
        if self.count_down(1) == 0 {
            return;
        }
        match self.ahead.take() {
            Some(ahead) => self.compare(Some(message), &Made::Rejected(reason.to_owned()), &ahead),
            None => self.counts.same += 1,
        }
    }

    /// The timer of the running version was called. One that differs counts as one message.
    pub(super) async fn see_tick(
        &mut self,
        now_us: u64,
        result: &Result<Emissions, Fault>,
        call: SeenCall<'_>,
    ) {
        if self.left.load(Relaxed) == 0 || !self.is_ready().await {
            return;
        }
        let Some(instance) = &mut self.instance else { return };
        instance.set_time(call.time_us);
        call.notes.into_iter().for_each(|notes| instance.follow(notes));
        let ticked = instance.tick(now_us).await;
        let names = self.outputs();
        let base = Metadata::without_origin(now_us);
        let old = match result {
            Ok(emissions) => Made::without_origin(emissions, &base, call.outputs),
            Err(fault) => Made::failed(fault),
        };
        match ticked {
            Ok(emissions) => {
                let new = Made::without_origin(&emissions, &base, &names);
                let before = (self.counts, self.first.is_some());
                if !old.is_same_as(&new) {
                    self.differ(None, &old, &new);
                }
                self.look_at_requests(before);
            }
            Err(fault) => self.faulted(fault),
        }
    }

    /// How many of so many messages are to be compared.
    fn count_down(&mut self, messages: usize) -> usize {
        let messages = messages as u64;
        let take = |left: u64| Some(left.saturating_sub(messages));
        let before = self.left.fetch_update(Relaxed, Relaxed, take).expect("there is always a number");
        usize::try_from(before.min(messages)).expect("it is part of a number of messages")
    }

    /// Gives it messages. None after a fault.
    async fn process(
        &mut self,
        batch: &[Message],
        notes: Option<CallNotes>,
        time_us: Option<u64>,
    ) -> Option<Outcome> {
        if !self.is_ready().await {
            return None;
        }
        let instance = self.instance.as_mut()?;
        instance.set_time(time_us);
        notes.into_iter().for_each(|notes| instance.follow(notes));
        match instance.process(batch).await {
            Ok(outcome) => Some(outcome),
            Err(fault) => {
                self.faulted(fault);
                None
            }
        }
    }

    /// Whether it can be called: it begins anew where the running version has.
    async fn is_ready(&mut self) -> bool {
        if let Some(snapshot) = self.anew.take()
            && let Err(fault) = self.restart(snapshot).await
        {
            self.faulted(fault);
        }
        self.instance.is_some()
    }

    async fn restart(&mut self, snapshot: Option<Bytes>) -> Result<(), Fault> {
        self.instance = None;
        let mut instance = self.plugin.instantiate(&self.setup).await?;
        if let Some(snapshot) = snapshot {
            instance.restore(&[snapshot], StatePart::WHOLE).await?;
        }
        self.instance = Some(instance);
        Ok(())
    }

    fn faulted(&mut self, fault: Fault) {
        self.counts.faulted += 1;
        self.instance = None;
        self.fault.get_or_insert(fault);
    }

    fn outputs(&self) -> Vec<Arc<str>> {
        self.instance.as_ref().map(|instance| instance.description().outputs.clone()).unwrap_or_default()
    }

    fn compare(&mut self, message: Option<&Message>, old: &Made, new: &Made) {
        if old.is_same_as(new) {
            self.counts.same += 1;
        } else {
            self.differ(message, old, new);
        }
    }

    fn differ(&mut self, message: Option<&Message>, old: &Made, new: &Made) {
        self.counts.different += 1;
        if self.first.is_none() {
            self.first = Some(old.difference(new, message, |text| self.setup.config.told(text)));
        }
    }

    /// A request that the running version has not sent is a difference, and the first where nothing differed before
    /// the call.
    fn look_at_requests(&mut self, (before, had_first): (ShadowCounts, bool)) {
        let Some(request) = self.instance.as_mut().and_then(Instance::take_stranger) else { return };
        if self.counts.different == before.different {
            self.counts.different += 1;
            self.counts.same -= u64::from(self.counts.same > before.same);
        }
        if !had_first {
            self.first = Some(request_difference(&request, |text| self.setup.config.told(text)));
        }
    }
}
