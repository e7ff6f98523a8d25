//! The ends of a pipeline, and what it is told: everything that goes on while a plugin works.
//!
//! Whoever waits for something in a pipeline waits here, so that its sinks are driven, its source is
//! held, and swaps and stops are seen at any moment. When the grace period of a stop runs out, every
//! wait ends with [`GraceOver`].

use super::control::{Control, VersionChange};
use super::dead_letters::Place;
use super::outlets::Outlets;
use super::retries::RetryOrders;
use super::update::Update;
use crate::source::Source;
use crate::telemetry::SecondsCounter;
use crate::websocket::close_code::GOING_AWAY;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

/// How long a timer that is not set is set to.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The grace period of a stop has run out.
#[derive(Debug)]
pub(super) struct GraceOver;

/// What a pipeline has beside its stages.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) source: Source,
    pub(super) source_place: Place,
    pub(super) outlets: Outlets,
    /// Swaps and the like that were asked for, and wait until no plugin works.
    pub(super) changes: VecDeque<VersionChange>,
    /// Dead letters that are to enter again.
    pub(super) retries: RetryOrders,
    /// Another configuration that was asked for, likewise.
    pub(super) updates: VecDeque<Update>,
    /// The pipeline ends: an update that comes is dropped unanswered.
    is_ending: bool,
    /// No plugin is called any more: a swap that comes is dropped unanswered.
    is_past_plugins: bool,
    control: mpsc::Receiver<Control>,
    /// When what is in flight is given up; a stop sets it.
    deadline: Option<Instant>,
    deadline_timer: Timer,
    paused: SecondsCounter,
    paused_since: Option<Instant>,
    is_source_closed: bool,
}

impl Ends {
    pub(super) fn new(
        source: Source,
        source_place: Place,
        paused: SecondsCounter,
        outlets: Outlets,
        control: mpsc::Receiver<Control>,
    ) -> Self {
        Self {
            source,
            source_place,
            outlets,
            changes: VecDeque::new(),
            retries: RetryOrders::default(),
            updates: VecDeque::new(),
            is_ending: false,
            is_past_plugins: false,
            control,
            deadline: None,
            deadline_timer: Timer::new(),
            paused,
            paused_since: None,
            is_source_closed: false,
        }
    }

    /// When what is in flight is given up, if a stop was asked for.
    pub(super) fn stop(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes what the pipeline is told. Whoever polls this is woken when there is more. At a stop the source reads
    /// no more at once, and peers that nobody needs go, whatever a plugin or a sink still does.
    pub(super) fn poll_control(&mut self, cx: &mut Context<'_>) {
        while self.deadline.is_none() {
            match self.control.poll_recv(cx) {
                Poll::Ready(Some(Control::Change(change))) => self.take_change(change),
                Poll::Ready(Some(Control::Retry(order))) => self.retries.take(*order),
                Poll::Ready(Some(Control::Update(update))) => self.take_update(*update),
                Poll::Ready(Some(Control::Stop { deadline })) => self.deadline = Some(deadline),
                Poll::Ready(None) => self.deadline = Some(Instant::now()),
                Poll::Pending => return,
            }
            if self.deadline.is_some() {
                self.source.poll_stop(cx, GOING_AWAY);
            }
        }
        // A swap may still repair what keeps the pipeline from its end; what was to be retried goes back.
        while let Poll::Ready(Some(control)) = self.control.poll_recv(cx) {
            if let Control::Change(change) = control {
                self.take_change(change);
            }
        }
    }

    /// Whether there is a swap, an update or a stop to look at.
    pub(super) fn is_told(&self) -> bool {
        !self.changes.is_empty() || !self.updates.is_empty() || self.deadline.is_some()
    }

    /// The pipeline comes to its end: whoever brings another configuration is told at once that it comes too late.
    pub(super) fn begin_to_end(&mut self) {
        self.is_ending = true;
        self.updates.clear();
    }

    /// Every plugin has finished: whoever offers another version is told at once that it comes too late.
    pub(super) fn pass_plugins(&mut self) {
        self.is_past_plugins = true;
        self.changes.clear();
    }

    fn take_update(&mut self, update: Update) {
        if !self.is_ending {
            self.updates.push_back(update);
        }
    }

    fn take_change(&mut self, change: VersionChange) {
        // At a stop nothing comes that could be compared.
        let is_too_late = self.deadline.is_some() && matches!(change, VersionChange::Shadow(_));
        if !self.is_past_plugins && !is_too_late {
            self.changes.push_back(change);
        }
    }

    /// Waits for the call of a plugin. While it has given its thread back, the ends are driven.
    pub(super) async fn during<F: Future>(&mut self, call: F) -> Result<F::Output, GraceOver> {
        let mut call = pin!(call);
        poll_fn(|cx| {
            if let Poll::Ready(output) = call.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            let _ = self.outlets.poll_drive(cx);
            self.poll_held(cx);
            self.poll_grace(cx).map(Err)
        })
        .await
    }

    /// Waits until `poll` is ready.
    pub(super) async fn until<T>(
        &mut self,
        mut poll: impl FnMut(&mut Self, &mut Context<'_>) -> Poll<T>,
    ) -> Result<T, GraceOver> {
        poll_fn(|cx| match poll(self, cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll_grace(cx).map(Err),
        })
        .await
    }

    /// Nothing is read for now: what was given before goes out, and the source is held. Call after the
    /// outlets were driven.
    pub(super) fn poll_held(&mut self, cx: &mut Context<'_>) {
        let _ = self.outlets.poll_flush(cx);
        self.source.poll_hold(cx);
    }

    /// Sees what the pipeline is told. Ready when the grace period of a stop has run out.
    fn poll_grace(&mut self, cx: &mut Context<'_>) -> Poll<GraceOver> {
        self.poll_control(cx);
        match self.deadline {
            None => Poll::Pending,
            deadline => self.deadline_timer.poll(cx, deadline).map(|()| GraceOver),
        }
    }

    /// Notes whether backpressure holds reading back, and counts for how long it does.
    pub(super) fn count_pause(&mut self, is_paused: bool) {
        if !is_paused && self.paused_since.is_none() {
            return;
        }
        let now = Instant::now();
        if let Some(since) = self.paused_since {
            self.paused.inc_by((now - since).as_secs_f64());
        }
        self.paused_since = is_paused.then_some(now);
    }

    /// Every plugin has finished. Ready once every message has reached its end; whichever end has nothing more to
    /// do is closed with the close code meanwhile.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        if !self.outlets.have_replied() {
            // Replies go out on the source's connection.
            self.source.poll_hold(cx);
        }
        let drained = self.outlets.poll_drain(cx, code);
        if self.outlets.have_replied() {
            self.poll_close_source(cx, code);
        }
        drained
    }

    fn poll_close_source(&mut self, cx: &mut Context<'_>, code: u16) {
        self.is_source_closed = self.is_source_closed || self.source.poll_close(cx, code).is_ready();
    }

    /// Closes source and sinks with the close code. Ready once all are closed.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        self.poll_close_source(cx, code);
        let sinks = self.outlets.poll_close(cx, code);
        if self.is_source_closed && sinks.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A timer that is set anew where it is polled.
#[derive(Debug)]
pub(super) struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// The moment it is set to; `None` is far away.
    due: Option<Instant>,
}

impl Timer {
    pub(super) fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(FAR)), due: None }
    }

    /// Ready once it is `due`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, due: Option<Instant>) -> Poll<()> {
        if self.due != due {
            self.due = due;
            self.sleep.as_mut().reset(due.unwrap_or_else(|| Instant::now() + FAR));
        }
        self.sleep.as_mut().poll(cx)
    }
}
