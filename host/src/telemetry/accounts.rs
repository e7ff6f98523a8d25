//! Where every message of a pipeline is: one account for its source, each transform and each sink.
//!
//! A message enters an account, and leaves it by exactly one of the ways that have a counter. What is in
//! flight is never noted: it is what entered and has not left, so no place where a message may wait can
//! be forgotten. What moves from one account to the next does so under one lock, which a scrape takes
//! too, so the rule "in = out + failed + in flight" holds at every moment. The lock is taken once for a
//! batch, by the pipeline's own task.

use super::labels::{Labels, labels};
use crate::config::{DEAD_LETTER, SOURCE};
use crate::reason::Reason;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, MutexGuard};

/// What a place in a pipeline does with messages; it decides which counters are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Source,
    Transform,
    Sink,
    /// The sink of dead letters. Its letters stand for messages that are in flight where they failed, so
    /// that what it loses is not counted a second time.
    DeadLetter,
}

/// Messages by the reason of their loss.
type ByReason = [u64; Reason::ALL.len()];

/// What has entered one place, and how it left.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Book {
    place: Arc<str>,
    role: Role,
    entered: u64,
    /// Of those that entered, dead letters that were given to it again.
    retried: u64,
    settled: Settled,
    delivered: u64,
    /// Dead letters that were not written, of the sink of dead letters.
    lost_letters: u64,
    dropped: ByReason,
    dead_lettered: ByReason,
    /// The place is gone: the book is shown no more, and takes only what was still on its way.
    is_retired: bool,
}

/// What became of messages that a source or a transform has finished with, and what it gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Messages in that gave one or more outputs.
    pub passed: u64,
    /// Messages in that gave none.
    pub filtered: u64,
    /// The number of messages that left unchanged.
    pub forwarded: u64,
    /// The number of messages that left and are new.
    pub emitted: u64,
    /// Messages out whose output nothing takes.
    pub untaken: u64,
}

impl AddAssign for Settled {
    #[inline]
    fn add_assign(&mut self, more: Self) {
        self.passed += more.passed;
        self.filtered += more.filtered;
        self.forwarded += more.forwarded;
        self.emitted += more.emitted;
        self.untaken += more.untaken;
    }
}

/// The counts of one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that came in.
    pub entered: u64,
    /// What became of those that are done with, and what was given.
    pub settled: Settled,
    /// Messages delivered, of a sink.
    pub delivered: u64,
    /// Dead letters among those that came in.
    pub retried: u64,
    /// Messages that came in and whose end is not known yet.
    pub in_flight: u64,
}

/// The messages that were lost at a place for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossCounts {
    /// The number of messages that were dropped.
    pub dropped: u64,
    /// Messages written to the dead letters.
    pub dead_lettered: u64,
}

impl Book {
    fn new(place: Arc<str>, role: Role) -> Self {
        Self {
            place,
            role,
            entered: 0,
            retried: 0,
            settled: Settled::default(),
            delivered: 0,
            lost_letters: 0,
            dropped: [0; Reason::ALL.len()],
            dead_lettered: [0; Reason::ALL.len()],
            is_retired: false,
        }
    }

    /// What came in and did not leave. What nobody takes has passed, so its drops are no way out.
    fn in_flight(&self) -> u64 {
        let dropped: u64 = self.dropped.iter().sum();
        let failed = dropped - self.settled.untaken;
        let dead_lettered: u64 = self.dead_lettered.iter().sum();
        let ended = self.settled.passed + self.settled.filtered + self.delivered + self.lost_letters;
        self.entered.saturating_sub(ended + failed + dead_lettered)
    }

    fn counts(&self) -> Counts {
        Counts {
            entered: self.entered,
            settled: self.settled,
            delivered: self.delivered,
            retried: self.retried,
            in_flight: self.in_flight(),
        }
    }
}

/// The accounts of one pipeline. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    books: Arc<Mutex<Vec<Book>>>,
}

/// One place of a pipeline. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Account {
    ledger: Ledger,
    index: usize,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Vec<Book>> {
        self.books.lock().expect("nothing panics while it is held")
    }

    fn account(&self, place: &str, role: Role) -> Account {
        let mut books = self.lock();
        let is_it = |book: &Book| !book.is_retired && book.role == role && *book.place == *place;
        let known = books.iter().position(is_it);
        let index = known.unwrap_or_else(|| {
            let new = Book::new(place.into(), role);
            // Of what is gone and has nothing on its way, nobody will write in the book again.
            match books.iter().position(|book| book.is_retired && book.in_flight() == 0) {
                Some(index) => {
                    books[index] = new;
                    index
                }
                None => {
                    books.push(new);
                    books.len() - 1
                }
            }
        });
        Account { ledger: self.clone(), index }
    }

    /// How many messages were dropped anywhere for the reason `shutdown` so far.
    pub fn dropped_at_shutdown(&self) -> u64 {
        self.lock().iter().map(|book| book.dropped[Reason::Shutdown as usize]).sum()
    }

    /// Drops whatever is in flight anywhere, for the reason `shutdown`, and says how much that was: of a
    /// pipeline that has ended.
    pub fn give_up(&self) -> u64 {
        let mut given_up = 0;
        for book in self.lock().iter_mut() {
            let lost = book.in_flight();
            if book.role == Role::DeadLetter {
                book.lost_letters += lost;
            } else {
                book.dropped[Reason::Shutdown as usize] += lost;
                given_up += lost;
            }
        }
        given_up
    }
}

impl Account {
    /// Messages came in from outside.
    pub fn entered(&self, messages: u64) {
        self.post(messages, Settled::default(), std::iter::empty());
    }

    /// Dead letters came in again, beside what comes from the place before.
    pub fn retried(&self, messages: u64) {
        let book = &mut self.ledger.lock()[self.index];
        book.entered += messages;
        book.retried += messages;
    }

    /// Messages have been dealt with here, and what they gave enters the accounts of `onward`, each with
    /// its number of messages.
    pub fn hand_on<'a>(&self, settled: Settled, onward: impl IntoIterator<Item = (&'a Account, u64)>) {
        self.post(0, settled, onward);
    }

    /// Messages came in from outside, and some of them have been dealt with already; see
    /// [`Account::hand_on`].
    pub fn received<'a>(
        &self,
        messages: u64,
        settled: Settled,
        onward: impl IntoIterator<Item = (&'a Account, u64)>,
    ) {
        self.post(messages, settled, onward);
    }

    fn post<'a>(&self, entered: u64, settled: Settled, onward: impl IntoIterator<Item = (&'a Account, u64)>) {
        let mut books = self.ledger.lock();
        let book = &mut books[self.index];
        book.entered += entered;
        book.settled += settled;
        book.dropped[Reason::NoOutput as usize] += settled.untaken;
        for (next, messages) in onward {
            debug_assert!(Arc::ptr_eq(&next.ledger.books, &self.ledger.books), "one pipeline, one ledger");
            books[next.index].entered += messages;
        }
    }

    /// Messages have reached their end.
    pub fn delivered(&self, messages: u64) {
        if messages > 0 {
            self.ledger.lock()[self.index].delivered += messages;
        }
    }

    /// Messages are lost here.
    pub fn dropped(&self, reason: Reason, messages: u64) {
        if messages > 0 {
            let book = &mut self.ledger.lock()[self.index];
            match book.role {
                Role::DeadLetter => book.lost_letters += messages,
                Role::Source | Role::Transform | Role::Sink => book.dropped[reason as usize] += messages,
            }
        }
    }

    /// Messages that failed here are written to the dead letters.
    pub fn dead_lettered(&self, reason: Reason, messages: u64) {
        if messages > 0 {
            self.ledger.lock()[self.index].dead_lettered[reason as usize] += messages;
        }
    }

    /// The place is there no more: what it has counted is shown no longer, and another of its name begins anew.
    pub fn retire(&self) {
        self.ledger.lock()[self.index].is_retired = true;
    }

    /// The counts of this place.
    pub fn counts(&self) -> Counts {
        self.ledger.lock()[self.index].counts()
    }
}

/// The accounts of all pipelines of a host, as metrics.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounts {
    pipelines: Arc<Mutex<BTreeMap<String, Ledger>>>,
}

impl Accounts {
    pub(super) fn ledger(&self, pipeline: &str) -> Ledger {
        let mut pipelines = self.lock();
        pipelines.entry(pipeline.to_owned()).or_default().clone()
    }

    pub(super) fn source(&self, pipeline: &str) -> Account {
        self.ledger(pipeline).account(SOURCE, Role::Source)
    }

    pub(super) fn transform(&self, pipeline: &str, transform: &str) -> Account {
        self.ledger(pipeline).account(transform, Role::Transform)
    }

    pub(super) fn sink(&self, pipeline: &str, sink: &str) -> Account {
        let role = if sink == DEAD_LETTER { Role::DeadLetter } else { Role::Sink };
        self.ledger(pipeline).account(sink, role)
    }

    /// What a transform or a sink has counted; nothing where there is none of that name.
    pub(super) fn counts(&self, pipeline: &str, place: &str) -> Counts {
        self.read(pipeline, place, Book::counts)
    }

    pub(super) fn losses(&self, pipeline: &str, place: &str, reason: Reason) -> LossCounts {
        self.read(pipeline, place, |book| LossCounts {
            dropped: book.dropped[reason as usize],
            dead_lettered: book.dead_lettered[reason as usize],
        })
    }

    /// The names of all places of a pipeline, those included that are gone.
    pub(super) fn places(&self, pipeline: &str) -> BTreeSet<Arc<str>> {
        let Some(ledger) = self.lock().get(pipeline).cloned() else { return BTreeSet::new() };
        let books = ledger.lock();
        books.iter().filter(|book| book.role != Role::Source).map(|book| book.place.clone()).collect()
    }

    /// Retires every other transform and sink of a pipeline, but for those that had to give up messages: these go
    /// with the pipeline.
    pub(super) fn keep_only(&self, pipeline: &str, transforms: &BTreeSet<&str>, sinks: &BTreeSet<&str>) {
        let Some(ledger) = self.lock().get(pipeline).cloned() else { return };
        for book in ledger.lock().iter_mut() {
            let is_there = match book.role {
                Role::Source => true,
                Role::Transform => transforms.contains(&*book.place),
                Role::Sink | Role::DeadLetter => sinks.contains(&*book.place),
            };
            book.is_retired |= !is_there && book.dropped[Reason::Shutdown as usize] == 0;
        }
    }

    /// Takes the accounts of a pipeline out.
    pub(super) fn forget(&self, pipeline: &str) {
        self.lock().remove(pipeline);
    }

    fn read<T: Default>(&self, pipeline: &str, place: &str, of: impl FnOnce(&Book) -> T) -> T {
        let Some(ledger) = self.lock().get(pipeline).cloned() else { return T::default() };
        let books = ledger.lock();
        let is_it = |book: &&Book| !book.is_retired && *book.place == *place;
        books.iter().find(is_it).map(of).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Ledger>> {
        self.pipelines.lock().expect("nothing panics while it is held")
    }
}

/// A number of a book that is a metric.
struct Shown {
    name: &'static str,
    help: &'static str,
    role: Role,
    of: fn(&Book) -> u64,
}

const SHOWN: [Shown; 7] = [
    Shown {
        name: "messages_received",
        help: "Messages a source received",
        role: Role::Source,
        of: |b| b.entered,
    },
    Shown {
        name: "stage_messages_in",
        help: "Messages given to a transform",
        role: Role::Transform,
        of: |b| b.entered,
    },
    Shown {
        name: "messages_forwarded",
        help: "Messages a transform passed on unchanged",
        role: Role::Transform,
        of: |b| b.settled.forwarded,
    },
    Shown {
        name: "messages_emitted",
        help: "New messages a transform sent out",
        role: Role::Transform,
        of: |b| b.settled.emitted,
    },
    Shown {
        name: "messages_passed",
        help: "Messages that gave one or more outputs",
        role: Role::Transform,
        of: |b| b.settled.passed,
    },
    Shown {
        name: "messages_filtered",
        help: "Messages that gave no output",
        role: Role::Transform,
        of: |b| b.settled.filtered,
    },
    Shown {
        name: "messages_delivered",
        help: "Messages a sink delivered",
        role: Role::Sink,
        of: |b| b.delivered,
    },
];

impl Role {
    /// Whether a place of this role has the counters of another.
    fn counts_as(self, role: Self) -> bool {
        self == role || (self == Self::DeadLetter && role == Self::Sink)
    }

    /// Whether dead letters are given to such a place again.
    fn takes_retries(self) -> bool {
        matches!(self, Self::Transform | Self::Sink)
    }

    /// The labels of this role's own counters.
    fn labels(self, pipeline: &str, place: &str) -> Labels {
        match self {
            Self::Source => labels([("pipeline", pipeline)]),
            Self::Transform => labels([("pipeline", pipeline), ("transform", place)]),
            Self::Sink | Self::DeadLetter => labels([("pipeline", pipeline), ("sink", place)]),
        }
    }
}

impl Collector for Accounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let ledgers: Vec<_> =
            self.lock().iter().map(|(name, ledger)| (name.clone(), ledger.clone())).collect();
        // Each pipeline's books are copied at one moment, so that its counters fit together.
        let pipelines: Vec<(String, Vec<Book>)> =
            ledgers.into_iter().map(|(name, ledger)| (name, ledger.lock().clone())).collect();
        let books = || {
            let all = pipelines.iter().flat_map(|(name, books)| books.iter().map(move |book| (name, book)));
            all.filter(|(_, book)| !book.is_retired)
        };
        for Shown { name, help, role, of } in SHOWN {
            let mut metric =
                encoder.encode_descriptor(name, help, None, ConstCounter::new(0u64).metric_type())?;
            for (pipeline, book) in books().filter(|(_, book)| book.role.counts_as(role)) {
                let labels = role.labels(pipeline, &book.place);
                ConstCounter::new(of(book)).encode(metric.encode_family(&labels)?)?;
            }
        }
        type Lost = fn(&Book) -> &ByReason;
        let losses: [(_, _, Lost); 2] = [
            ("messages_dropped", "Messages lost, and why", |book| &book.dropped),
            ("messages_dead_lettered", "Messages written to the dead letters, and why", |book| {
                &book.dead_lettered
            }),
        ];
        for (name, help, of) in losses {
            let mut metric =
                encoder.encode_descriptor(name, help, None, ConstCounter::new(0u64).metric_type())?;
            for (pipeline, book) in books() {
                let counted = Reason::ALL.into_iter().map(|reason| (reason, of(book)[reason as usize]));
                for (reason, count) in counted.filter(|(_, count)| *count > 0) {
                    let labels =
                        labels([("pipeline", pipeline), ("stage", &book.place), ("reason", reason.as_str())]);
                    ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
                }
            }
        }
        let mut metric = encoder.encode_descriptor(
            "messages_retried",
            "Dead letters given to a stage again, which are among what it has got",
            None,
            ConstCounter::new(0u64).metric_type(),
        )?;
        for (pipeline, book) in books().filter(|(_, book)| book.role.takes_retries()) {
            let labels = labels([("pipeline", pipeline), ("stage", &book.place)]);
            ConstCounter::new(book.retried).encode(metric.encode_family(&labels)?)?;
        }
        let help = "Messages in whose end is not known yet";
        let mut metric = encoder.encode_descriptor(
            "messages_in_flight",
            help,
            None,
            ConstGauge::new(0i64).metric_type(),
        )?;
        for (pipeline, book) in books() {
            let labels = labels([("pipeline", pipeline), ("stage", &book.place)]);
            let in_flight = i64::try_from(book.in_flight()).unwrap_or(i64::MAX);
            ConstGauge::new(in_flight).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One move of messages in a pipeline of a source, two transforms and two sinks.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Receive(u64),
        HandOn { place: usize, messages: u64, gives: u64, taken_by: u64, untaken: u64 },
        Fail { place: usize, messages: u64, is_written: bool },
        Deliver { sink: usize, messages: u64 },
        Retry { place: usize, messages: u64 },
        Stop,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..300u64).prop_map(Step::Receive),
            (0..3usize, 0..300u64, 0..5u64, 0..4u64, 0..3u64).prop_map(
                |(place, messages, gives, taken_by, untaken)| {
                    Step::HandOn { place, messages, gives, taken_by, untaken }
                }
            ),
            (0..5usize, 0..300u64, any::<bool>()).prop_map(|(place, messages, is_written)| Step::Fail {
                place,
                messages,
                is_written
            }),
            (3..5usize, 0..300u64).prop_map(|(sink, messages)| Step::Deliver { sink, messages }),
            (1..5usize, 0..300u64).prop_map(|(place, messages)| Step::Retry { place, messages }),
            Just(Step::Stop),
        ]
    }

    proptest! {
        #[test]
        fn the_rule_holds_after_every_move_whatever_they_are(steps in prop::collection::vec(step(), 1..60)) {
            let accounts = Accounts::default();
            let places = [
                accounts.source("p"), accounts.transform("p", "a"), accounts.transform("p", "b"),
                accounts.sink("p", "x"), accounts.sink("p", "y"),
            ];
            let mut waiting = [0u64; 5];
            let mut retried = 0;
            for step in steps {
                match step {
                    Step::Receive(messages) => {
                        places[0].entered(messages);
                        waiting[0] += messages;
                    }
                    Step::HandOn { place, messages, gives, taken_by, untaken } => {
                        let messages = messages.min(waiting[place]);
                        let given = if messages == 0 { 0 } else { messages * gives };
                        let settled = if given + untaken > 0 {
                            Settled { passed: messages, emitted: given + untaken, untaken, ..Settled::default() }
                        } else {
                            Settled { filtered: messages, ..Settled::default() }
                        };
                        waiting[place] -= messages;
                        if place < 2 {
                            places[place].hand_on(settled, [(&places[place + 1], given)]);
                            waiting[place + 1] += given;
                        } else {
                            let takes = |sink: usize| if taken_by & (1 << sink) == 0 { 0 } else { given };
                            places[2].hand_on(settled, [(&places[3], takes(0)), (&places[4], takes(1))]);
                            waiting[3] += takes(0);
                            waiting[4] += takes(1);
                        }
                    }
                    Step::Fail { place, messages, is_written } => {
                        let messages = messages.min(waiting[place]);
                        waiting[place] -= messages;
                        if is_written {
                            places[place].dead_lettered(Reason::Trap, messages);
                        } else {
                            places[place].dropped(Reason::Decode, messages);
                        }
                    }
                    Step::Deliver { sink, messages } => {
                        let messages = messages.min(waiting[sink]);
                        waiting[sink] -= messages;
                        places[sink].delivered(messages);
                    }
                    Step::Retry { place, messages } => {
                        places[place].retried(messages);
                        waiting[place] += messages;
                        retried += if place == 2 { messages } else { 0 };
                    }
                    Step::Stop => {
                        let given_up = accounts.ledger("p").give_up();
                        prop_assert_eq!(given_up, waiting.iter().sum::<u64>());
                        waiting = [0; 5];
                    }
                }
                for (account, waiting) in places.iter().zip(waiting) {
                    prop_assert_eq!(account.counts().in_flight, waiting);
                }
                let out = |place: usize| places[place].counts().settled;
                let given = |place: usize| out(place).forwarded + out(place).emitted - out(place).untaken;
                prop_assert_eq!(given(1) + retried, places[2].counts().entered);
            }
        }
    }

    #[test]
    fn what_a_sink_drops_for_want_of_an_output_has_left_it_and_what_a_stage_gives_nobody_had_left_before() {
        let accounts = Accounts::default();
        let (stage, sink) = (accounts.transform("p", "a"), accounts.sink("p", "reply"));
        stage.entered(2);
        stage.hand_on(Settled { passed: 2, forwarded: 2, untaken: 1, ..Settled::default() }, [(&sink, 1)]);
        // A message of a timer has no connection to answer on.
        sink.dropped(Reason::NoOutput, 1);
        assert_eq!((stage.counts().in_flight, sink.counts().in_flight), (0, 0));
        assert_eq!(accounts.ledger("p").give_up(), 0);
    }

    #[test]
    fn a_place_that_is_gone_is_not_shown_and_another_of_its_name_begins_anew() {
        let accounts = Accounts::default();
        let old = accounts.transform("p", "a");
        old.entered(3);
        old.retire();
        let new = accounts.transform("p", "a");
        new.entered(1);
        assert_eq!(accounts.counts("p", "a").entered, 1);
        old.dropped(Reason::Trap, 3);
        assert_eq!((old.counts().in_flight, new.counts().in_flight), (0, 1));
        let books = accounts.ledger("p").lock().len();
        accounts.transform("p", "b").entered(1);
        assert_eq!(accounts.ledger("p").lock().len(), books, "books of what is gone are used again");
        assert_eq!(accounts.ledger("p").give_up(), 2);
    }

    #[test]
    fn one_name_in_two_roles_is_two_accounts() {
        let accounts = Accounts::default();
        accounts.transform("p", "same").entered(3);
        accounts.sink("p", "same").entered(4);
        assert_eq!(accounts.transform("p", "same").counts().in_flight, 3);
        assert_eq!(accounts.sink("p", "same").counts().in_flight, 4);
    }
}
