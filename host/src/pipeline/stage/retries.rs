//! How often, and when, a message is offered again that a plugin cannot decide on yet.

use std::time::Duration;
use tokio::time::Instant;

/// The longest time that a plugin may put a message off for.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// The message at the front of a stage's inbox, if the plugin has put it off.
#[derive(Debug)]
pub(super) struct Retries {
    most: usize,
    /// So often the message was put off.
    count: usize,
    until: Option<Instant>,
    /// The pipeline stops, and what waited then was offered at once.
    is_hurried: bool,
}

impl Retries {
    /// Each message is offered again at most so often.
    pub(super) fn new(most: usize) -> Self {
        Self { most, count: 0, until: None, is_hurried: false }
    }

    /// The plugin has put the message at the front off, which is the one it put off before unless something
    /// was decided. Says whether it may be offered again.
    pub(super) fn put_off(&mut self, now: Instant, after: Duration) -> bool {
        let may_retry = self.count < self.most;
        self.count += 1;
        self.until = Some(now + after.min(LONGEST_WAIT));
        may_retry
    }

    /// Another instance gets the message at the front, and may be able to decide at once. How often it was put off
    /// counts on: whoever has new instances made again and again does not keep the others waiting for ever.
    pub(super) fn offer_now(&mut self) {
        self.until = None;
    }

    /// The message at the front is the one that was at the front there, for another instance.
    pub(super) fn go_on(&mut self, before: &Self) {
        self.count = before.count;
    }

    /// The message at the front is another one.
    #[inline]
    pub(super) fn forget(&mut self) {
        self.count = 0;
        self.until = None;
    }

    /// The pipeline stops: what waits is offered at once, and from then on as the plugin wants it again.
    pub(super) fn hurry(&mut self) {
        if !std::mem::replace(&mut self.is_hurried, true) {
            self.until = None;
        }
    }

    /// Until when the message waits, if it still does.
    #[inline]
    pub(super) fn until(&self) -> Option<Instant> {
        self.until.filter(|until| Instant::now() < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_message_waits_as_long_as_the_plugin_says_and_no_longer_than_a_minute() {
        let mut retries = Retries::new(2);
        let second = Duration::from_secs(1);
        assert!(retries.put_off(Instant::now(), second));
        assert_eq!(retries.until(), Some(Instant::now() + second));
        tokio::time::advance(second).await;
        assert_eq!(retries.until(), None);
        assert!(retries.put_off(Instant::now(), Duration::MAX));
        assert_eq!(retries.until(), Some(Instant::now() + LONGEST_WAIT));
        assert!(!retries.put_off(Instant::now(), second), "it was offered again twice");
        retries.forget();
        assert_eq!(retries.until(), None);
        assert!(retries.put_off(Instant::now(), second), "another one has its own count");
        let mut next = Retries::new(2);
        next.go_on(&retries);
        assert!(next.put_off(Instant::now(), second));
        next.offer_now();
        assert_eq!(next.until(), None);
        assert!(!next.put_off(Instant::now(), second), "what it was offered to others counts");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_one_wait_and_no_more() {
        let mut retries = Retries::new(5);
        let second = Duration::from_secs(1);
        retries.put_off(Instant::now(), second);
        retries.hurry();
        assert_eq!(retries.until(), None);
        retries.put_off(Instant::now(), second);
        retries.hurry();
        assert_eq!(retries.until(), Some(Instant::now() + second));
    }
}
