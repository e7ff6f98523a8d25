//! Letters on their way back into a pipeline: an order of them, and what becomes of each.

use super::kept::KeptLetters;
use super::letter::Letter;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// So much of a pace may be made up for: timers are no more exact.
const CATCH_UP: Duration = Duration::from_millis(10);
/// The longest time from one letter to the next.
const LONGEST_INTERVAL: Duration = Duration::from_hours(24);
/// Why a letter has not entered that waited for its turn.
const ENDED: &str = "its pipeline stopped before the message had its turn";
const CANCELLED: &str = "its pipeline did not take it in time, or the rate did not allow it";

/// Letters that are to enter one pipeline again, in order. Wherever the order is when it goes, what has not entered
/// then is told, and in the list again if it came from there.
#[derive(Debug)]
pub struct RetryOrder {
    pipeline: Arc<str>,
    progress: Arc<Progress>,
    /// The time from one to the next, if a rate was asked for.
    interval: Option<Duration>,
    /// When the next may enter.
    due: Instant,
    kept: KeptLetters,
}

/// What whoever gave an order has of it. Where the letters came with the order, none enters once this is gone.
#[derive(Debug)]
pub struct RetryReport {
    progress: Arc<Progress>,
    is_needed: bool,
}

/// What has become of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    /// So many have entered.
    pub entered: usize,
    /// So many wait for their turn.
    pub waiting: usize,
    /// Those that have not entered and will not, by their numbers, and why.
    pub refused: Vec<(u64, String)>,
}

#[derive(Debug, Default)]
struct Progress {
    state: Mutex<ProgressState>,
    over: Notify,
}

#[derive(Debug, Default)]
struct ProgressState {
    waiting: VecDeque<RetryItem>,
    entered: usize,
    refused: Vec<(u64, String)>,
}

/// A letter of an order.
#[derive(Debug)]
enum RetryItem {
    /// One that is in the list, by its number there.
    Kept(u64),
    /// One that came with the order, and its number in that.
    Given(u64, Box<Letter>),
}

impl RetryOrder {
    /// An order of letters that are kept, so many a second if that is said. From now on they wait, and those that do
    /// so already are refused.
    pub fn of_kept(
        pipeline: &str,
        numbers: Vec<u64>,
        rate: Option<f64>,
        kept: &KeptLetters,
    ) -> (Self, RetryReport) {
        let (mut waiting, mut refused) = (VecDeque::new(), Vec::new());
        for number in numbers {
            match kept.set_aside(number) {
                Ok(()) => waiting.push_back(RetryItem::Kept(number)),
                Err(why) => refused.push((number, why)),
            }
        }
        Self::new(pipeline, ProgressState { waiting, entered: 0, refused }, rate, kept, false)
    }

    /// An order of letters that come with it, each with a number by which whoever gives it knows it.
    pub fn of_given(
        pipeline: &str,
        letters: Vec<(u64, Letter)>,
        rate: Option<f64>,
        kept: &KeptLetters,
    ) -> (Self, RetryReport) {
        let waiting = letters.into_iter().map(|(number, letter)| RetryItem::Given(number, Box::new(letter)));
        let state = ProgressState { waiting: waiting.collect(), ..ProgressState::default() };
        Self::new(pipeline, state, rate, kept, true)
    }

    fn new(
        pipeline: &str,
        state: ProgressState,
        rate: Option<f64>,
        kept: &KeptLetters,
        is_needed: bool,
    ) -> (Self, RetryReport) {
        let progress = Arc::new(Progress { state: Mutex::new(state), over: Notify::new() });
        let interval = rate.map(|rate| {
            let exact = Duration::try_from_secs_f64(1.0 / rate);
            exact.unwrap_or(LONGEST_INTERVAL).min(LONGEST_INTERVAL)
        });
        let report = RetryReport { progress: progress.clone(), is_needed };
        let (pipeline, kept) = (pipeline.into(), kept.clone());
        (Self { pipeline, progress, interval, due: Instant::now(), kept }, report)
    }

    /// Lets none of it enter, for this reason.
    pub fn refuse(self, why: &str) {
        self.let_go(why);
    }

    /// When the next letter may enter; `None` once there is none.
    pub fn due(&self) -> Option<Instant> {
        (!self.progress.lock().waiting.is_empty()).then_some(self.due)
    }

    /// The next letter that is due, and its place. It is out of the list now, and enters. Those without a place are
    /// refused, for this reason.
    pub fn next<T>(&mut self, place: impl Fn(&Letter) -> Result<T, String>) -> Option<(Letter, T)> {
        let now = Instant::now();
        if self.due > now {
            return None;
        }
        // Whoever gave the order sees what has entered in the moment in which it does.
        let mut state = self.progress.lock();
        loop {
            let (number, found) = match state.waiting.pop_front()? {
                RetryItem::Kept(number) => (number, self.kept.take_out(number, &place)),
                RetryItem::Given(number, letter) => (number, place(&letter).map(|place| (*letter, place))),
            };
            match found {
                Ok(found) => {
                    state.entered += 1;
                    if let Some(interval) = self.interval {
                        self.due = self.due.max(now.checked_sub(CATCH_UP).unwrap_or(now)) + interval;
                    }
                    return Some(found);
                }
                Err(why) => state.refused.push((number, why)),
            }
        }
    }

    /// What still waits is refused, and in the list as before if it is from there.
    fn let_go(&self, why: &str) {
        self.progress.refuse(why, |number| self.kept.put_back(number));
    }
}

impl Drop for RetryOrder {
    fn drop(&mut self) {
        self.let_go(ENDED);
        let state = self.progress.lock();
        let (entered, refused) = (state.entered, state.refused.len());
        drop(state);
        tracing::info!(pipeline = %self.pipeline, entered, refused, "dead letters retried");
    }
}

impl RetryReport {
    /// What has become of the order once nothing waits any more, or after so long.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn over(&self, patience: Duration) -> Retried {
        let over = async {
            while !self.progress.lock().waiting.is_empty() {
                self.progress.over.notified().await;
            }
        };
        let _ = timeout(patience, over).await;
        let state = self.progress.lock();
        let refused = state.refused.clone();
        Retried { entered: state.entered, waiting: state.waiting.len(), refused }
    }

    /// Refuses what waits still, of an order that its letters came with.
    pub fn cancel(&self) {
        if self.is_needed {
            self.progress.refuse(CANCELLED, |_| ());
        }
    }
}

impl Drop for RetryReport {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl Progress {
    /// Nothing that waits is to enter any more, for this reason.
    fn refuse(&self, why: &str, put_back: impl Fn(u64)) {
        let mut guard = self.lock();
        let state = &mut *guard;
        for item in state.waiting.drain(..) {
            let number = match item {
                RetryItem::Kept(number) => {
                    put_back(number);
                    number
                }
                RetryItem::Given(number, _) => number,
            };
            state.refused.push((number, why.to_owned()));
        }
        drop(guard);
        self.over.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, ProgressState> {
        // Each change is complete in itself, so a panic elsewhere leaves it sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::LetterFilter;
    use crate::message::metadata::Metadata;
    use crate::message::{Failed, Message, Payload};
    use crate::reason::Reason;

    const SECOND: Duration = Duration::from_secs(1);

    fn letter(text: &str) -> Letter {
        let message = Message { payload: Payload::text(text), metadata: Metadata::without_origin(0) };
        let failed = Failed { message, reason: Reason::Trap, detail: String::new() };
        Letter::new("p".into(), "s".into(), None, failed, 0)
    }

    fn listed(kept: &KeptLetters) -> Vec<(u64, bool)> {
        let (all, _) = kept.newest(&LetterFilter::default(), None, 100);
        all.iter().rev().map(|shown| (shown.number, shown.is_waiting)).collect()
    }

    fn anywhere(_: &Letter) -> Result<(), String> {
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_letter_is_in_the_list_until_it_enters_and_again_where_it_does_not() {
        let kept = KeptLetters::default();
        kept.keep(["1", "2", "3", "4"].map(letter).into());
        let (mut order, report) = RetryOrder::of_kept("p", vec![1, 2, 3, 9], None, &kept);
        assert_eq!(listed(&kept), [(1, true), (2, true), (3, true), (4, false)]);
        let (again, second) = RetryOrder::of_kept("p", vec![1], None, &kept);
        assert!(again.due().is_none());
        assert_eq!(second.over(SECOND).await.refused.len(), 1, "it waits already");
        let one = |letter: &Letter| {
            if letter.message.payload.as_text() == Some("1") { Err("no".to_owned()) } else { Ok(()) }
        };
        let (entered, ()) = order.next(one).expect("one is there");
        assert_eq!(entered.message.payload.as_text(), Some("2"));
        assert_eq!(listed(&kept), [(1, false), (3, true), (4, false)]);
        let so_far = report.over(SECOND).await;
        assert_eq!((so_far.entered, so_far.waiting, so_far.refused.len()), (1, 1, 2));
        drop(order);
        assert_eq!(listed(&kept), [(1, false), (3, false), (4, false)]);
        let at_last = report.over(SECOND).await;
        assert_eq!((at_last.entered, at_last.waiting), (1, 0));
        assert_eq!(at_last.refused.last(), Some(&(3, ENDED.to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_keeps_its_pace_and_makes_up_for_no_hold() {
        let kept = KeptLetters::default();
        let given = (0..10).map(|n| (n, letter("x"))).collect();
        let (mut order, report) = RetryOrder::of_given("p", given, Some(4.0), &kept);
        let quarter = SECOND / 4;
        assert!(order.next(anywhere).is_some() && order.next(anywhere).is_none());
        assert_eq!(order.due(), Some(Instant::now() + quarter));
        tokio::time::advance(quarter).await;
        assert!(order.next(anywhere).is_some() && order.next(anywhere).is_none());
        tokio::time::advance(3 * SECOND).await;
        assert!(order.next(anywhere).is_some() && order.next(anywhere).is_none());
        report.cancel();
        tokio::time::advance(SECOND).await;
        assert!(order.next(anywhere).is_none() && order.due().is_none());
        let over = report.over(SECOND).await;
        assert_eq!((over.entered, over.waiting, over.refused.len()), (3, 0, 7));
        drop(order);
        assert_eq!(report.over(SECOND).await, over);
    }

    #[tokio::test(start_paused = true)]
    async fn letters_that_came_with_an_order_wait_no_longer_than_whoever_gave_it() {
        let kept = KeptLetters::default();
        let (order, report) = RetryOrder::of_given("p", vec![(0, letter("x"))], None, &kept);
        assert_eq!(report.over(SECOND).await.waiting, 1);
        drop(report);
        assert!(order.due().is_none());
        kept.keep(vec![letter("x")]);
        let (order, report) = RetryOrder::of_kept("p", vec![1], None, &kept);
        drop(report);
        assert!(order.due().is_some(), "what is kept needs nobody");
    }
}
