//! A stage that is configured anew while its pipeline runs.
//!
//! What only the host acts on is changed in the workers as they are. For the rest the stage is made anew: its new
//! instances go on with what the old ones know, and the messages that wait for the old go to the new, in their order,
//! however many there are of each.

use super::parallel::in_parallel;
use super::sharing::Sharing;
use super::worker::Worker;
use super::{Given, Stage};
use crate::config;
use crate::message::Message;
use crate::plugin::{Fault, Instance, Setup};
use crate::reason::Reason;
use crate::verdict::CarriedState;
use bytes::Bytes;
use futures_util::future::try_join_all;
use std::collections::VecDeque;

/// What became of the state on its way into new instances.
#[derive(Debug)]
pub(in crate::pipeline) struct Carried {
    /// How it fared.
    pub(in crate::pipeline) state: CarriedState,
    /// Why a plugin that was to share it out begins without.
    pub(in crate::pipeline) refusal: Option<Fault>,
    /// What is to be kept of each new instance.
    pub(in crate::pipeline) snapshots: Vec<Option<Bytes>>,
}

/// Shares out what other instances knew between these: all snapshots go to each, which keeps what belongs to its part
/// and gives its own snapshot back.
///
/// # Errors
/// One does not take them.
pub async fn share_out(
    instances: &mut [Instance],
    setup: &Setup,
    snapshots: &[Bytes],
) -> Result<Vec<Option<Bytes>>, Fault> {
    let shares = instances.iter_mut().zip(setup.of_each()).map(async |(instance, setup): (_, Setup)| {
        instance.restore(snapshots, setup.part).await?;
        instance.snapshot().await
    });
    try_join_all(shares).await
}

impl Stage {
    /// Changes the keys that the host alone acts on.
    pub(in crate::pipeline) fn adjust(&mut self, transform: &config::Transform) {
        self.workers.iter_mut().for_each(|worker| worker.adjust(transform));
        self.ticking.configure(transform.tick);
    }

    /// Whether what some instances gave waits until others, which were given earlier messages, have done theirs:
    /// then nothing can be shared out anew.
    pub(in crate::pipeline) fn holds_results_back(&self) -> bool {
        self.workers.iter().any(|worker| !worker.given.is_empty())
    }

    /// Brings what its instances know into those of `next`, which were made with `setup`. Gives these back, or others
    /// in their place.
    ///
    /// # Cancel safety
    /// As [`Stage::work`].
    pub(in crate::pipeline) async fn carry_into(
        &mut self,
        setup: &Setup,
        next: Vec<Instance>,
        shares_out: bool,
    ) -> (Vec<Instance>, Result<Carried, Fault>) {
        if !shares_out && next.len() == self.workers.len() {
            let (next, carried) = self.carry_each(next, false, false).await;
            let carried = carried.map(|state| {
                let snapshots = self.workers.iter().map(|worker| worker.last_good.snapshot().cloned());
                Carried { state, refusal: None, snapshots: snapshots.collect() }
            });
            return (next, carried);
        }
        self.share_into(setup, next).await
    }

    async fn share_into(
        &mut self,
        setup: &Setup,
        mut next: Vec<Instance>,
    ) -> (Vec<Instance>, Result<Carried, Fault>) {
        let jobs = std::mem::take(&mut self.workers).into_iter().map(|mut worker| async move {
            let told = worker.tell().await;
            (worker, told)
        });
        let (workers, told): (Vec<_>, Vec<_>) = in_parallel(jobs.collect()).await.into_iter().unzip();
        self.workers = workers;
        let state = match told.into_iter().collect::<Result<Vec<_>, _>>() {
            Ok(states) => states.into_iter().max().unwrap_or(CarriedState::None),
            Err(fault) => return (next, Err(fault)),
        };
        let known: Vec<Bytes> =
            self.workers.iter().filter_map(|worker| worker.last_good.snapshot().cloned()).collect();
        let fresh = vec![None; next.len()];
        if known.is_empty() {
            return (next, Ok(Carried { state, refusal: None, snapshots: fresh }));
        }
        let fault = match share_out(&mut next, setup, &known).await {
            Ok(snapshots) => return (next, Ok(Carried { state, refusal: None, snapshots })),
            Err(fault) => fault,
        };
        // What they have made of it is not what `init` makes.
        let plugin = next[0].plugin().clone();
        let setups: Vec<Setup> = setup.of_each().collect();
        match try_join_all(setups.iter().map(|setup| plugin.instantiate(setup))).await {
            Ok(anew) => {
                next.extend(anew);
                let carried = Carried { state: CarriedState::Fresh, refusal: Some(fault), snapshots: fresh };
                (next, Ok(carried))
            }
            Err(fault) => (next, Err(fault)),
        }
    }

    /// Whether what waits here, and what is held back, goes to a stage of so many instances as it is: each to one.
    pub(in crate::pipeline) fn is_shared_like(&self, transform: &config::Transform) -> bool {
        matches!(self.sharing, Sharing::InOrder(_))
            && transform.key.is_none()
            && transform.instances == self.workers.len()
    }

    /// Takes over what waits for the stage in whose place this one comes, in the order of each key, or of all messages where
    /// they have one order; and with as many instances what some of them gave that waits for others.
    pub(in crate::pipeline) fn take_over(&mut self, before: &mut Self) {
        let is_alike = self.workers.len() == before.workers.len();
        if is_alike {
            for (worker, old) in self.workers.iter_mut().zip(&before.workers) {
                worker.go_on_offering(old);
            }
        }
        match (&mut self.sharing, &mut before.sharing) {
            (Sharing::InOrder(shares), Sharing::InOrder(old)) if is_alike => {
                *shares = std::mem::take(old);
                for (worker, old) in self.workers.iter_mut().zip(&mut before.workers) {
                    worker.inbox = old.yield_messages();
                    worker.given = std::mem::take(&mut old.given);
                }
                self.sharing.rename(&mut self.workers, &before.version.outputs, &self.version.outputs);
            }
            _ => self.take(&mut before.yield_messages().into()),
        }
    }

    /// Gives away all that waits here, in the order of each key, or of all messages where they have one order.
    fn yield_messages(&mut self) -> VecDeque<Message> {
        let mut inboxes: Vec<VecDeque<Message>> =
            self.workers.iter_mut().map(|worker| worker.yield_messages()).collect();
        match &mut self.sharing {
            Sharing::Alone => inboxes.remove(0),
            Sharing::InOrder(shares) => {
                let mut waiting = VecDeque::new();
                for number in std::mem::take(&mut shares.turns) {
                    waiting.append(&mut inboxes[number]);
                }
                waiting.append(&mut shares.waiting);
                waiting
            }
            Sharing::ByKey(_) => in_order_of_receipt(inboxes),
        }
    }

    /// Gives up all that waits here, counted. Says how much that was.
    pub(in crate::pipeline) fn give_up(&mut self) -> u64 {
        let held_back: u64 = self.workers.iter_mut().map(|worker| worker.withdraw()).sum();
        let given_up = held_back + self.yield_messages().len() as u64;
        self.metrics.account.dropped(Reason::Shutdown, given_up);
        given_up
    }

    /// It has another number from now on: the version before, which would be put back by that, is not kept any more.
    /// Says whether it was.
    pub(in crate::pipeline) fn moved(&mut self) -> bool {
        let was_on_probation = self.is_on_probation();
        self.end_probation();
        was_on_probation
    }

    /// Whether it runs this plugin.
    pub(in crate::pipeline) fn is_of(&self, plugin: &config::Redacted) -> bool {
        **self.version.plugin.name() == *plugin.expose()
    }

    /// How many instances it has, those included that start again.
    pub(in crate::pipeline) fn instances(&self) -> usize {
        self.workers.len()
    }

    /// Its instances, which are not needed any more.
    pub(in crate::pipeline) fn into_instances(self) -> impl Iterator<Item = Instance> {
        self.workers.into_iter().filter_map(|mut worker| worker.instance.take())
    }
}

/// Merges messages that were shared out by key: by the time of their receipt, and those of one inbox as they are.
fn in_order_of_receipt(mut inboxes: Vec<VecDeque<Message>>) -> VecDeque<Message> {
    let mut merged = VecDeque::with_capacity(inboxes.iter().map(VecDeque::len).sum());
    while let Some(first) = inboxes
        .iter_mut()
        .filter(|inbox| !inbox.is_empty())
        .min_by_key(|inbox| inbox.front().map(|message| message.metadata.received_us()))
    {
        merged.extend(first.pop_front());
    }
    merged
}

impl Worker {
    /// Brings out what the version that runs knows: afterwards it is the last good snapshot.
    ///
    /// # Errors
    /// It refuses to give its state.
    pub(super) async fn tell(&mut self) -> Result<CarriedState, Fault> {
        if self.instance.is_none() {
            return Ok(self.older());
        }
        match self.take_snapshot().await {
            Ok(()) if self.last_good.snapshot().is_some() => Ok(CarriedState::Carried),
            Ok(()) => Ok(CarriedState::None),
            Err(fault) if fault.is_refusal => Err(Fault {
                detail: format!("the instance that runs does not give its state: {}", fault.detail),
                ..fault
            }),
            Err(_) => Ok(match self.older() {
                CarriedState::None => CarriedState::Fresh,
                older => older,
            }),
        }
    }
}

impl Given {
    fn is_empty(&self) -> bool {
        self.settled == Default::default() && self.routed.is_empty() && self.failed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Payload;
    use crate::message::metadata::Metadata;

    #[test]
    fn messages_of_several_instances_come_by_their_times_and_those_of_one_as_they_were() {
        let message = |(text, time): &(&str, u64)| Message {
            payload: Payload::text(*text),
            metadata: Metadata::without_origin(*time),
        };
        let inbox = |messages: &[(&str, u64)]| messages.iter().map(message).collect::<VecDeque<_>>();
        let inboxes =
            vec![inbox(&[("a", 1), ("b", 4), ("c", 2)]), inbox(&[]), inbox(&[("d", 1), ("e", 3), ("f", 9)])];
        let merged = in_order_of_receipt(inboxes);
        let texts: Vec<_> = merged.iter().map(|message| message.payload.as_text().unwrap_or("")).collect();
        assert_eq!(texts.concat(), "adebcf");
    }
}
