//! Dead letters that a running pipeline is to take in again.
//!
//! They wait where they come from until the pipeline has room and their time has come; so nothing is here that
//! could be lost.

use crate::dead_letters::{Letter, RetryOrder};
use std::collections::VecDeque;
use tokio::time::Instant;

/// Orders that may wait at one pipeline.
const MOST_ORDERS: usize = 64;

/// The orders that a pipeline has not finished with.
#[derive(Debug, Default)]
pub(super) struct RetryOrders {
    orders: VecDeque<RetryOrder>,
    /// The pipeline comes to its end, and takes no more.
    is_over: bool,
}

impl RetryOrders {
    /// Takes an order, or lets it go.
    pub(super) fn take(&mut self, order: RetryOrder) {
        if self.orders.len() >= MOST_ORDERS {
            order.refuse("too many retries wait at its pipeline; try again");
        } else if !self.is_over {
            self.orders.push_back(order);
        }
    }

    /// When the next letter may enter.
    pub(super) fn due(&self) -> Option<Instant> {
        self.orders.iter().filter_map(RetryOrder::due).min()
    }

    /// Letters that are due, at most so many, each with its place. Orders have their turns.
    pub(super) fn next<T>(
        &mut self,
        most: usize,
        place: impl Fn(&Letter) -> Result<T, String>,
    ) -> Vec<(Letter, T)> {
        let mut letters = Vec::new();
        for _ in 0..self.orders.len() {
            let Some(mut order) = self.orders.pop_front() else { break };
            while letters.len() < most
                && let Some(next) = order.next(&place)
            {
                letters.push(next);
            }
            if order.due().is_some() {
                self.orders.push_back(order);
            }
        }
        letters
    }

    /// The pipeline comes to its end: what has not entered does not.
    pub(super) fn close(&mut self) {
        self.is_over = true;
        self.orders.clear();
    }
}
