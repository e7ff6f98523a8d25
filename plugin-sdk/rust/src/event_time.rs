//! When something happened, by a field of its message: milliseconds since the Unix epoch.

use crate::json::InvalidPointer;
use crate::{Description, Json, Message, Result};

/// Times lie this close to the epoch, in milliseconds: exact as an `f64`, and 285,000 years.
const MAX_TIME_MS: f64 = 9_007_199_254_740_992.0;

/// The field in which a message has its time.
#[derive(Clone, Copy, Debug)]
pub struct EventTime(Json);

impl EventTime {
    /// Asks for the field: a number, or a decimal string.
    ///
    /// # Errors
    /// It is not a JSON pointer.
    pub fn compile(pointer: &str, description: &mut Description) -> Result<Self, InvalidPointer> {
        description.json(pointer).map(Self)
    }

    /// The time of a message, in whole milliseconds; `None` if it has none.
    ///
    /// # Errors
    /// What is there is no time, and the message is to be rejected.
    #[inline]
    pub fn of(self, message: Message<'_>) -> Result<Option<i64>> {
        let Some(time) = message.get(self.0) else { return Ok(None) };
        let time_ms = time.number().ok_or("the time is no number")?;
        if time_ms.abs() > MAX_TIME_MS {
            return Err("the time is out of range".into());
        }
        Ok(Some(time_ms.floor() as i64))
    }
}
