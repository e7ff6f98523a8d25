//! What windows that overlap have seen, out of their pieces.

use super::{Aggregation, Window};
use std::ops::Range;

/// What some pieces have seen, which are one at least.
pub(super) fn sum<C: Clone>(pieces: &[Window<C>], aggregation: &impl Aggregation<Contents = C>) -> C {
    let mut sum = pieces[0].contents.clone();
    pieces[1..].iter().for_each(|piece| aggregation.merge(&mut sum, &piece.contents));
    sum
}

/// What one window after the other has seen, each of which begins and ends with later pieces than the one before.
///
/// Where each window merged all its pieces, a thousand windows of a thousand pieces would take a million steps. So sums
/// are kept: a piece is merged twice, and a window out of two sums, however many pieces it has.
#[derive(Debug)]
pub(super) struct Sums<C> {
    /// Of the pieces before `turn`: the sum from each of them to the last of them, that of the most at the end.
    earlier: Vec<C>,
    turn: usize,
    /// The sum of the pieces from `turn` to `behind`, if there are any.
    later: Option<C>,
    behind: usize,
}

impl<C: Clone> Sums<C> {
    pub(super) fn new() -> Self {
        Self { earlier: Vec::new(), turn: 0, later: None, behind: 0 }
    }

    /// What the next window has seen, which has these of the pieces, one at least.
    pub(super) fn sum(
        &mut self,
        pieces: &[Window<C>],
        own: Range<usize>,
        aggregation: &impl Aggregation<Contents = C>,
    ) -> C {
        if own.start >= self.turn {
            self.begin(&pieces[own.clone()], aggregation);
            (self.turn, self.behind) = (own.end, own.end);
        }
        self.earlier.truncate(self.turn - own.start);
        for piece in &pieces[self.behind..own.end] {
            match &mut self.later {
                Some(later) => aggregation.merge(later, &piece.contents),
                none => *none = Some(piece.contents.clone()),
            }
        }
        self.behind = own.end;
        let mut sum = self.earlier.last().cloned().expect("the first piece is before the turn");
        if let Some(later) = &self.later {
            aggregation.merge(&mut sum, later);
        }
        sum
    }

    /// Sums these pieces up, and no others.
    fn begin(&mut self, pieces: &[Window<C>], aggregation: &impl Aggregation<Contents = C>) {
        self.later = None;
        self.earlier.clear();
        for piece in pieces.iter().rev() {
            let mut sum = piece.contents.clone();
            if let Some(later) = self.earlier.last() {
                aggregation.merge(&mut sum, later);
            }
            self.earlier.push(sum);
        }
    }
}
