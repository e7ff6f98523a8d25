//! Which windows there are, and what they are called.

use super::WindowKind;
use crate::{Result, duration};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Most pieces that the open windows of a key may have where nothing is out of the ordinary: each takes memory, and is
/// looked at when a window closes.
const MOST_PANES: i64 = 10_000;

/// The kind of windows, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Shape {
    /// Tumbling windows slide by their size. Panes are what the windows that overlap have in common.
    Aligned {
        size_ms: i64,
        slide_ms: i64,
        pane_ms: i64,
    },
    Session {
        gap_ms: i64,
    },
}

impl Shape {
    /// # Errors
    /// There can be no such windows; the text names the key of the configuration.
    pub(super) fn try_of(kind: WindowKind, lateness_ms: i64) -> Result<Self> {
        let not_zero = |key: &str, duration: Duration| match duration.is_zero() {
            true => Err(format!("`{key}` must be longer than 0").into()),
            false => duration::milliseconds(key, duration),
        };
        let held_open = |piece_ms: i64| -> Result {
            match lateness_ms / piece_ms {
                open if open > MOST_PANES => Err(format!(
                    "`allowed_lateness` holds {open} windows open, and {MOST_PANES} are the most: let it be shorter"
                )
                .into()),
                _ => Ok(()),
            }
        };
        let (size_ms, slide_ms) = match kind {
            WindowKind::Session { gap } => {
                let gap_ms = not_zero("gap", gap)?;
                held_open(gap_ms)?;
                return Ok(Self::Session { gap_ms });
            }
            WindowKind::Tumbling { size } => (not_zero("size", size)?, not_zero("size", size)?),
            WindowKind::Sliding { size, slide } => (not_zero("size", size)?, not_zero("slide", slide)?),
        };
        if slide_ms > size_ms {
            return Err("`slide` must not be longer than `size`: there would be messages in no window".into());
        }
        let pane_ms = greatest_common_divisor(size_ms, slide_ms);
        if size_ms / pane_ms > MOST_PANES {
            return Err(format!(
                "`slide` cuts windows into {} pieces of {pane_ms} ms, and {MOST_PANES} are the most: let `size` be \
                 a multiple of a longer `slide`",
                size_ms / pane_ms
            )
            .into());
        }
        held_open(pane_ms)?;
        Ok(Self::Aligned { size_ms, slide_ms, pane_ms })
    }

    /// How many pieces the open windows of a key have at most where nothing is out of the ordinary.
    pub(super) fn most_open(self, lateness_ms: i64) -> u64 {
        let (of_one, piece_ms) = match self {
            Self::Aligned { size_ms, pane_ms, .. } => (size_ms / pane_ms, pane_ms),
            Self::Session { gap_ms } => (1, gap_ms),
        };
        (of_one + lateness_ms / piece_ms + i64::from(lateness_ms % piece_ms > 0)).unsigned_abs()
    }

    /// How many windows of a key one message can close at least, where those before it were as many as there may be.
    pub(super) fn most_closed(self, lateness_ms: i64) -> u64 {
        let (length_ms, step_ms) = match self {
            Self::Aligned { size_ms, slide_ms, .. } => (size_ms, slide_ms),
            Self::Session { gap_ms } => (gap_ms, gap_ms),
        };
        (length_ms.saturating_add(lateness_ms) / step_ms).unsigned_abs()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let duration = |ms: i64| Duration::from_millis(ms.unsigned_abs());
        match *self {
            Self::Aligned { size_ms, slide_ms, .. } if size_ms == slide_ms => {
                write!(f, "tumbling windows with `size` {:?}", duration(size_ms))
            }
            Self::Aligned { size_ms, slide_ms, .. } => {
                let (size, slide) = (duration(size_ms), duration(slide_ms));
                write!(f, "sliding windows with `size` {size:?} and `slide` {slide:?}")
            }
            Self::Session { gap_ms } => write!(f, "sessions with `gap` {:?}", duration(gap_ms)),
        }
    }
}

/// The multiple of a step at this time or before.
#[inline]
pub(super) fn aligned(time_ms: i64, step_ms: i64) -> i64 {
    time_ms.div_euclid(step_ms).saturating_mul(step_ms)
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
