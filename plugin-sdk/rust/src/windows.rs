//! Windows in event time: tumbling, sliding, or sessions, a series of them for each key.
//!
//! Windows are half-open, aligned to the epoch where they have a size, and exist from their first message on. A window
//! is closed for good when a message of its key has a time at its end or later, the allowed lateness added; or when no
//! message of the key was received for long enough, which the next one sees as well as the timer, so that what a
//! recording gives does not depend on how fast it is read. What is older than the end of the newest closed window of its
//! key is late. What a window has seen is the plugin's own type; nothing here knows messages or JSON.

mod allowance;
mod shape;
mod sums;

use crate::emissions::EMISSION_BYTES;
use crate::keyed::Keyed;
use crate::{Description, Emission, Emissions, Error, Part, Result, binary, duration, log, metrics};
use allowance::{Allowance, Size};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shape::{Shape, aligned};
use std::rc::Rc;
use std::time::Duration;
use sums::{Sums, sum};

/// Windows of silent keys, or of keys that make room, that one call closes, so that it sends no more than one call may.
const MOST_CLOSED_AT_ONCE: usize = 8_192;
/// Places that a list of pieces keeps.
const FEW_PLACES: usize = 8;
/// The counter of open windows that were not sent at the end.
const UNSENT: &str = "windows_unsent";
/// The form of snapshots. The one before did not say which windows it had.
const FORM: u8 = 2;

/// Which windows a message belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// One of a row without gaps.
    Tumbling {
        /// How long each is.
        size: Duration,
    },
    /// All that there are of this size; one begins at each multiple of `slide`.
    Sliding {
        /// How long each is.
        size: Duration,
        /// From the beginning of one to that of the next.
        slide: Duration,
    },
    /// The one that goes on as long as no gap between its messages is as long as this: from the first message to the
    /// last and the gap.
    Session {
        /// A pause that ends it.
        gap: Duration,
    },
}

/// When windows are closed, and how many keys have some.
#[derive(Clone, Copy, Debug)]
pub struct WindowRules {
    /// Which windows there are.
    pub kind: WindowKind,
    /// So much later than its end a window is closed.
    pub allowed_lateness: Duration,
    /// Without a message of its key for so long, a window is closed as well; 0 is never.
    pub idle_close: Duration,
    /// Of so many keys at most windows are known; those that were silent longest make room. They must fit into the
    /// plugin's memory with all the windows that they may have; `None` is as many as there is room for.
    pub max_keys: Option<usize>,
}

/// What becomes of the messages of a window.
pub trait Aggregation {
    /// What a window has seen.
    type Contents: Clone;
    /// What is read of a message.
    type Reading;

    /// What a window has seen that has seen nothing.
    fn empty(&self) -> Self::Contents;

    /// Takes in a message.
    fn add(&self, contents: &mut Self::Contents, reading: &Self::Reading);

    /// Takes in what a later piece of the same window has seen.
    fn merge(&self, contents: &mut Self::Contents, later: &Self::Contents);

    /// What the contents of a window have on the heap, in bytes, if that is anything: it counts where windows are held
    /// to the plugin's memory.
    fn heap_bytes(&self) -> usize {
        0
    }

    /// The least that is written of a window when it is emitted, in bytes: windows that are open together may all be closed
    /// by one message, and are refused where one call could not even send so much.
    fn emitted_bytes(&self) -> usize {
        0
    }
}

/// A window with what it has seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window<C> {
    /// Where it begins, in milliseconds since the epoch.
    pub start_ms: i64,
    /// The first moment behind it.
    pub end_ms: i64,
    /// What it has seen.
    pub contents: C,
}

/// The windows of all keys.
#[derive(Clone, Debug)]
pub struct Windows<A: Aggregation> {
    shape: Shape,
    lateness_ms: i64,
    idle_close_us: Option<u64>,
    aggregation: A,
    series: Keyed<Series<A::Contents>>,
    allowance: Allowance,
    /// What all series take.
    size: Size,
}

/// The windows of one key.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Series<C> {
    /// The panes of open windows, or open sessions, in the order of their time.
    open: Vec<Window<C>>,
    /// The end of the newest closed window.
    closed_until_ms: Option<i64>,
    /// When the last message was received.
    received_us: u64,
}

impl<A: Aggregation> Windows<A> {
    /// No windows yet. With `idle_close`, the description asks for the times of receipt and for the
    /// timer that [`close_idle`](Self::close_idle) needs.
    ///
    /// # Errors
    /// The rules cannot be kept; the text names the key of the configuration.
    pub fn try_new(rules: &WindowRules, aggregation: A, description: &mut Description) -> Result<Self> {
        let lateness_ms = duration::milliseconds("allowed_lateness", rules.allowed_lateness)?;
        let shape = Shape::try_of(rules.kind, lateness_ms)?;
        if rules.max_keys == Some(0) {
            return Err("`max_keys` must be more than 0".into());
        }
        let allowance = Allowance::of::<Window<A::Contents>>(description, aggregation.heap_bytes());
        allowance.check("max_keys", rules.max_keys, shape.most_open(lateness_ms))?;
        let emitted_bytes = aggregation.emitted_bytes() as u64 + EMISSION_BYTES;
        allowance::check_output(description, shape.most_closed(lateness_ms), emitted_bytes)?;
        let idle_close_ms = duration::milliseconds("idle_close", rules.idle_close)?;
        let idle_close_us = idle_close_ms.unsigned_abs().saturating_mul(1000);
        if idle_close_us > 0 {
            description.times();
            // A window is closed by a tenth of the time too late at most, and an idle host stays idle.
            let interval = rules.idle_close / 10;
            description.tick_every(interval.clamp(Duration::from_millis(10), Duration::from_secs(1)));
        }
        let idle_close_us = (idle_close_us > 0).then_some(idle_close_us);
        let series = Keyed::new(rules.max_keys.unwrap_or(usize::MAX));
        Ok(Self { shape, lateness_ms, idle_close_us, aggregation, series, allowance, size: Size::default() })
    }

    /// Takes in what was read of a message of a key, and gives the windows that it closes to `close`. Says whether it was late,
    /// and was not counted.
    ///
    /// # Errors
    /// What `close` returned.
    pub fn add(
        &mut self,
        key: &str,
        time_ms: i64,
        received_us: u64,
        reading: &A::Reading,
        mut close: impl FnMut(&Window<A::Contents>) -> Result,
    ) -> Result<bool> {
        let Self { shape, aggregation, series, size, .. } = self;
        let mut is_new = false;
        let series = series.get_or_insert_with(key, || {
            is_new = true;
            Series::new()
        });
        let before = if is_new { Size::default() } else { series.size(key) };
        let idle_us = received_us.saturating_sub(std::mem::replace(&mut series.received_us, received_us));
        let is_idle = self.idle_close_us.is_some_and(|idle_close_us| idle_us >= idle_close_us);
        let closed = match is_idle {
            true => series.close_all(*shape, aggregation, &mut close),
            false => Ok(()),
        };
        let is_late = closed.and_then(|()| {
            if series.closed_until_ms.is_some_and(|end_ms| time_ms < end_ms) {
                return Ok(true);
            }
            series.close_until(time_ms.saturating_sub(self.lateness_ms), *shape, aggregation, &mut close)?;
            let place = series.place(time_ms, *shape, aggregation);
            aggregation.add(&mut series.open[place].contents, reading);
            Ok(false)
        });
        size.take(before);
        size.add(series.size(key));
        is_late
    }

    /// Forgets keys that were silent longest where there are too many, or no room for the windows of all, as is to be done
    /// after each [`add`](Self::add), and gives their open windows to `close`. Says how many keys that were.
    ///
    /// # Errors
    /// What `close` returned.
    pub fn push_out(&mut self, mut close: impl FnMut(&str, &Window<A::Contents>) -> Result) -> Result<usize> {
        let Self { shape, aggregation, series, allowance, size, .. } = self;
        let mut keys = 0;
        let mut closed = 0;
        let mut push_out = |(key, mut gone): (Rc<str>, Series<A::Contents>), size: &mut Size| {
            keys += 1;
            size.take(gone.size(&key));
            gone.close_all(*shape, aggregation, &mut |window| {
                closed += 1;
                close(&key, window)
            })?;
            Ok::<_, Error>(closed < MOST_CLOSED_AT_ONCE)
        };
        for surplus in series.take_surplus() {
            push_out(surplus, size)?;
        }
        // What memory has no room for are few, but where state comes from an instance that had more of it.
        while !allowance.covers(size)
            && let Some(oldest) = series.take_oldest()
            && push_out(oldest, size)?
        {}
        Ok(keys)
    }

    /// Closes the windows of keys of which no message was received for long enough: some thousands in one call, which
    /// sends as much as one may, and what is left in the next.
    ///
    /// # Errors
    /// What `close` returned.
    pub fn close_idle(
        &mut self,
        now_us: u64,
        mut close: impl FnMut(&str, &Window<A::Contents>) -> Result,
    ) -> Result {
        let Some(idle_close_us) = self.idle_close_us else { return Ok(()) };
        let Self { shape, aggregation, series, size, .. } = self;
        let mut closed = 0;
        // Those that were silent longest come first.
        series.for_each_while(|key, series| {
            let is_idle = now_us.saturating_sub(series.received_us) >= idle_close_us;
            if !is_idle || closed >= MOST_CLOSED_AT_ONCE {
                return Ok(false);
            }
            size.take(series.size(key));
            let all = series.close_all(*shape, aggregation, &mut |window| {
                closed += 1;
                close(key, window)
            });
            size.add(series.size(key));
            all.map(|()| true)
        })
    }

    /// Closes all windows, in the order of their keys, and has `write` write each. Those for which the call has no room any
    /// more are not sent, which the log says, and the metric `windows_unsent` counts.
    ///
    /// # Errors
    /// What `write` returned.
    pub fn close_all(
        &mut self,
        out: &mut Emissions,
        mut write: impl FnMut(Emission<'_>, &str, &Window<A::Contents>) -> Result,
    ) -> Result {
        let mut keys = Vec::with_capacity(self.series.len());
        while let Some(entry) = self.series.take_oldest() {
            keys.push(entry);
        }
        self.size = Size::default();
        keys.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut unsent = 0;
        for (key, mut series) in keys {
            series.close_all(self.shape, &self.aggregation, &mut |window| {
                if unsent == 0 {
                    write(out.emit(), &key, window)?;
                }
                unsent += u64::from(unsent > 0 || !out.keep_what_fits());
                Ok(())
            })?;
        }
        if unsent > 0 {
            metrics::add(UNSENT, unsent as f64);
            log::warn(format!(
                "{unsent} open windows are not sent, for which one call has no room: let `limits.output` be larger, and \
                 `limits.memory` four times as large as that at least"
            ));
        }
        Ok(())
    }
}

impl<A: Aggregation<Contents: Serialize + DeserializeOwned>> Windows<A> {
    /// What is known, for a snapshot. `meaning` says how the contents and the keys are to be read.
    ///
    /// # Errors
    /// The contents cannot be written.
    pub fn snapshot(&self, meaning: &str) -> Result<Vec<u8>> {
        binary::encode(FORM, &(meaning, self.shape, &self.series))
    }

    /// Goes on from the snapshots of the instances before, as far as their keys are those of this part.
    ///
    /// # Errors
    /// They are of other windows, or have another meaning: the text says what has changed.
    pub fn restore(&mut self, snapshots: &[Vec<u8>], part: Part, meaning: &str) -> Result {
        for snapshot in snapshots {
            let (theirs, shape, series): (String, Shape, Keyed<Series<A::Contents>>) =
                binary::decode(FORM, snapshot)?;
            if shape != self.shape {
                return Err(binary::other_meaning(shape, self.shape));
            }
            if theirs != meaning {
                return Err(binary::other_meaning(format_args!("windows of {theirs}"), meaning));
            }
            self.series.restore([series], part);
        }
        self.size = Size::default();
        self.series.iter().for_each(|(key, series)| self.size.add(series.size(key)));
        Ok(())
    }
}

impl<C: Clone> Series<C> {
    fn new() -> Self {
        Self { open: Vec::new(), closed_until_ms: None, received_us: 0 }
    }

    /// What the series takes.
    #[inline]
    fn size(&self, key: &str) -> Size {
        Size {
            keys: 1,
            key_bytes: key.len() as u64,
            pieces: self.open.len() as u64,
            places: self.open.capacity() as u64,
        }
    }

    fn close_all(
        &mut self,
        shape: Shape,
        aggregation: &impl Aggregation<Contents = C>,
        close: &mut impl FnMut(&Window<C>) -> Result,
    ) -> Result {
        self.close_until(i64::MAX, shape, aggregation, close)
    }

    /// Closes the windows that end at this time or before, the oldest first.
    #[inline]
    fn close_until(
        &mut self,
        time_ms: i64,
        shape: Shape,
        aggregation: &impl Aggregation<Contents = C>,
        close: &mut impl FnMut(&Window<C>) -> Result,
    ) -> Result {
        match shape {
            Shape::Aligned { size_ms, slide_ms, .. } => {
                let is_over = |first: &Window<C>| self.next_end_ms(first, size_ms, slide_ms) <= time_ms;
                if self.open.first().is_some_and(is_over) {
                    let mut over = 0;
                    let closed =
                        self.close_aligned(time_ms, size_ms, slide_ms, aggregation, close, &mut over);
                    self.open.drain(..over);
                    closed?;
                }
            }
            Shape::Session { .. } => {
                while self.open.first().is_some_and(|session| session.end_ms <= time_ms) {
                    let session = self.open.remove(0);
                    self.closed_until_ms = self.closed_until_ms.max(Some(session.end_ms));
                    close(&session)?;
                }
            }
        }
        self.give_back_places();
        Ok(())
    }

    /// Closes windows of a size. So many panes are `over` then, in no open window any more: they are to be removed all at
    /// once, and after an error too.
    fn close_aligned(
        &mut self,
        time_ms: i64,
        size_ms: i64,
        slide_ms: i64,
        aggregation: &impl Aggregation<Contents = C>,
        close: &mut impl FnMut(&Window<C>) -> Result,
        over: &mut usize,
    ) -> Result {
        let mut sums = Sums::new();
        let mut is_first = true;
        while let Some(first) = self.open.get(*over) {
            let end_ms = self.next_end_ms(first, size_ms, slide_ms);
            if end_ms > time_ms {
                break;
            }
            let start_ms = self.next_start_ms(first.start_ms, size_ms, slide_ms);
            let behind = *over + 1 + self.open[*over + 1..].partition_point(|pane| pane.start_ms < end_ms);
            let contents = match std::mem::take(&mut is_first) {
                // Most calls close one.
                true => sum(&self.open[*over..behind], aggregation),
                false => sums.sum(&self.open, *over..behind, aggregation),
            };
            *over += self.open[*over..].partition_point(|pane| aligned(pane.start_ms, slide_ms) <= start_ms);
            self.closed_until_ms = Some(end_ms);
            close(&Window { start_ms, end_ms, contents })?;
        }
        Ok(())
    }

    /// A list that had many pieces and has few does not keep all its places.
    #[inline]
    fn give_back_places(&mut self) {
        if self.open.capacity() > FEW_PLACES && self.open.len() < self.open.capacity() / 4 {
            self.open.shrink_to((self.open.len() * 2).max(FEW_PLACES));
        }
    }

    /// The beginning of the oldest window with this pane that was not closed.
    fn next_start_ms(&self, pane_ms: i64, size_ms: i64, slide_ms: i64) -> i64 {
        let first_ms = aligned(pane_ms.saturating_sub(size_ms), slide_ms).saturating_add(slide_ms);
        match self.closed_until_ms {
            // The next one ends one slide later.
            Some(end_ms) => first_ms.max(aligned(end_ms.saturating_sub(size_ms), slide_ms) + slide_ms),
            None => first_ms,
        }
    }

    /// The first moment behind it.
    #[inline]
    fn next_end_ms(&self, first: &Window<C>, size_ms: i64, slide_ms: i64) -> i64 {
        self.next_start_ms(first.start_ms, size_ms, slide_ms).saturating_add(size_ms)
    }

    /// Where a message of this time is counted.
    #[inline]
    fn place(&mut self, time_ms: i64, shape: Shape, aggregation: &impl Aggregation<Contents = C>) -> usize {
        match shape {
            Shape::Aligned { pane_ms, .. } => self.pane(time_ms, pane_ms, aggregation),
            Shape::Session { gap_ms } => self.session(time_ms, gap_ms, aggregation),
        }
    }

    #[inline]
    fn pane(&mut self, time_ms: i64, pane_ms: i64, aggregation: &impl Aggregation<Contents = C>) -> usize {
        let start_ms = aligned(time_ms, pane_ms);
        let place = match self.open.last() {
            Some(last) if last.start_ms == start_ms => return self.open.len() - 1,
            _ => self.open.partition_point(|pane| pane.start_ms < start_ms),
        };
        if self.open.get(place).is_none_or(|pane| pane.start_ms != start_ms) {
            if self.open.is_empty() {
                // Most series have one pane at most times, and there may be many series.
                self.open.reserve_exact(1);
            }
            let end_ms = start_ms.saturating_add(pane_ms);
            self.open.insert(place, Window { start_ms, end_ms, contents: aggregation.empty() });
        }
        place
    }

    /// A message between two sessions may make one of them.
    fn session(&mut self, time_ms: i64, gap_ms: i64, aggregation: &impl Aggregation<Contents = C>) -> usize {
        let end_ms = time_ms.saturating_add(gap_ms);
        let first = self.open.partition_point(|session| session.end_ms <= time_ms);
        let behind = self.open.partition_point(|session| session.start_ms < end_ms);
        if first == behind {
            self.open.insert(first, Window { start_ms: time_ms, end_ms, contents: aggregation.empty() });
            return first;
        }
        for _ in first + 1..behind {
            let later = self.open.remove(first + 1);
            let session = &mut self.open[first];
            aggregation.merge(&mut session.contents, &later.contents);
            session.end_ms = later.end_ms;
        }
        let session = &mut self.open[first];
        session.start_ms = session.start_ms.min(time_ms);
        session.end_ms = session.end_ms.max(end_ms);
        first
    }
}

#[cfg(test)]
mod tests;
