//! How the instances of a stage share out its messages, and bring what they made of them together again.
//!
//! By key, each message goes to its worker at once, and what a worker gives goes on at once: the order of a key is
//! that of its worker. In order, what waits is cut into as many shares in a row as there are workers; what a worker
//! gives goes on when everything before its share has, and the next shares are cut once all are through.

use super::keys::KeyReader;
use super::worker::Worker;
use super::{Given, NOT_AN_OUTPUT};
use crate::config;
use crate::message::Message;
use crate::reason::Reason;
use crate::telemetry::Account;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What takes less than this is not worth another task: to wake a thread takes a good part of it.
const WORTH_A_TASK: Duration = Duration::from_micros(40);

/// Who gets which message.
#[derive(Debug)]
pub(super) enum Sharing {
    /// There is one worker.
    Alone,
    ByKey(KeyReader),
    InOrder(Shares),
}

/// Messages that are shared out in their order.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// What was not shared out yet.
    pub(super) waiting: VecDeque<Message>,
    /// The workers that have a share or hold back what came of it, in the order of the shares.
    pub(super) turns: VecDeque<usize>,
    /// The worker that is the first of the next shares.
    next: usize,
}

impl Sharing {
    pub(super) fn new(transform: &config::Transform, instances: usize) -> Self {
        match &transform.key {
            _ if instances == 1 => Self::Alone,
            Some(key) => Self::ByKey(KeyReader::new(key)),
            None => Self::InOrder(Shares::default()),
        }
    }

    /// Takes all messages of a batch.
    pub(super) fn take(&mut self, workers: &mut [Box<Worker>], batch: &mut Vec<Message>) {
        let inbox = match self {
            Self::Alone => &mut workers[0].inbox,
            Self::InOrder(shares) => &mut shares.waiting,
            Self::ByKey(_) => return batch.drain(..).for_each(|message| self.give(workers, message)),
        };
        if inbox.is_empty() {
            let spent = std::mem::take(inbox);
            *inbox = std::mem::replace(batch, spent.into()).into();
        } else {
            inbox.extend(batch.drain(..));
        }
    }

    /// Takes one message.
    #[inline]
    pub(super) fn give(&mut self, workers: &mut [Box<Worker>], message: Message) {
        match self {
            Self::Alone => workers[0].inbox.push_back(message),
            Self::InOrder(shares) => shares.waiting.push_back(message),
            Self::ByKey(keys) => {
                let number = keys.part_of(&message, workers.len());
                workers[number].inbox.push_back(message);
            }
        }
    }

    /// Whether the next messages are for any worker: all that had a share are through.
    #[inline]
    pub(super) fn is_for_any(&self) -> bool {
        matches!(self, Self::InOrder(Shares { waiting, turns, .. }) if turns.is_empty() && !waiting.is_empty())
    }

    /// The first of the messages that nobody has a share of.
    pub(super) fn front(&self) -> Option<&Message> {
        match self {
            Self::InOrder(Shares { waiting, .. }) => waiting.front(),
            Self::Alone | Self::ByKey(_) => None,
        }
    }

    /// Cuts the next shares, if it is time. A worker whose plugin fails again and again gets none.
    pub(super) fn share_out(&mut self, workers: &mut [Box<Worker>]) {
        let Self::InOrder(Shares { waiting, turns, next }) = self else { return };
        if !turns.is_empty() {
            return;
        }
        let able = workers.iter().filter(|worker| worker.is_working()).count();
        let first = &workers[*next % workers.len()];
        let is_worth_it = first.time_of(waiting.len()).is_none_or(|time| time >= WORTH_A_TASK);
        let share = if is_worth_it { waiting.len().div_ceil(able.max(1)) } else { waiting.len() };
        for _ in 0..workers.len() {
            if waiting.is_empty() {
                break;
            }
            let number = *next % workers.len();
            *next = number + 1;
            let worker = &mut workers[number];
            if worker.is_working() {
                let messages = worker.room().piece(waiting).min(share);
                worker.inbox.extend(waiting.drain(..messages));
                turns.push_back(number);
            }
        }
    }

    /// Gives on what the workers have given, as far as its turn has come.
    pub(super) fn collect(&mut self, workers: &mut [Box<Worker>], given: &mut Given) {
        let Self::InOrder(Shares { turns, .. }) = self else {
            return workers.iter_mut().for_each(|worker| worker.hand_in(given));
        };
        while let Some(&first) = turns.front() {
            workers[first].hand_in(given);
            if workers[first].has_work() {
                break;
            }
            turns.pop_front();
        }
        // Those that have no share have only what timers and ends give.
        for (number, worker) in workers.iter_mut().enumerate() {
            if !turns.contains(&number) {
                worker.hand_in(given);
            }
        }
    }

    /// Another version runs: what is held back leaves by the outputs of the same names.
    pub(super) fn rename(&self, workers: &mut [Box<Worker>], before: &[Arc<str>], now: &[Arc<str>]) {
        if !matches!(self, Self::InOrder(_)) || before == now {
            return;
        }
        for routed in workers.iter_mut().flat_map(|worker| &mut worker.given.routed) {
            let Some(name) = usize::from(routed.output).checked_sub(1).and_then(|n| before.get(n)) else {
                continue;
            };
            let number = now.iter().position(|known| known == name).and_then(|n| u16::try_from(n + 1).ok());
            routed.output = number.unwrap_or(NOT_AN_OUTPUT);
        }
    }

    /// The pipeline stops. What waits since the plugin cannot decide yet is offered once more at once. Where it fails
    /// again and again, what waits is given up, and in order so is everything behind that. Says how much was.
    pub(super) fn hurry(&mut self, workers: &mut [Box<Worker>], account: &Account) -> u64 {
        let Self::InOrder(Shares { waiting, turns, .. }) = self else {
            let mut given_up = 0;
            for worker in workers {
                if worker.is_working() {
                    worker.hurry();
                } else {
                    given_up += worker.abandon();
                }
            }
            return given_up;
        };
        let stuck = turns.iter().any(|number| !workers[*number].is_working());
        if !stuck && workers.iter().any(|worker| worker.is_working()) {
            workers.iter_mut().for_each(|worker| worker.hurry());
            return 0;
        }
        let mut given_up = waiting.drain(..).len() as u64;
        turns.clear();
        given_up += workers.iter_mut().map(|worker| worker.withdraw()).sum::<u64>();
        account.dropped(Reason::Shutdown, given_up);
        given_up + workers.iter_mut().map(|worker| worker.abandon()).sum::<u64>()
    }
}

/// Whether what these workers have to do next is worth tasks of their own.
pub(super) fn is_worth_tasks<'w>(workers: impl Iterator<Item = &'w Worker>) -> bool {
    let mut time = Duration::ZERO;
    for worker in workers {
        let Some(next) = worker.time_of(worker.inbox.len()) else { return true };
        time += next;
    }
    time >= WORTH_A_TASK
}
