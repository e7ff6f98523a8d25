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

/// The time of a message where a plugin can do without a field of it.
#[derive(Clone, Copy, Debug)]
pub enum MessageTime {
    /// What a field says.
    Event(EventTime),
    /// When the message was received.
    Receipt,
}

impl MessageTime {
    /// Asks for the field that a configuration has as `time`; where it has none, for the times of receipt.
    ///
    /// # Errors
    /// It is not a JSON pointer.
    pub fn compile(time: Option<&str>, description: &mut Description) -> Result<Self> {
        let Some(pointer) = time else {
            description.times();
            return Ok(Self::Receipt);
        };
        let time = EventTime::compile(pointer, description);
        Ok(Self::Event(time.map_err(|error| format!("`time`: {error}"))?))
    }

    /// The time of a message, in microseconds since the Unix epoch.
    ///
    /// # Errors
    /// The field is not there, or no time.
    #[inline]
    pub fn of(self, message: Message<'_>) -> Result<i64> {
        match self {
            Self::Event(time) => Ok(time.of(message)?.ok_or("the message has no time")?.saturating_mul(1000)),
            Self::Receipt => Ok(message
                .received_us()
                .map_or(0, |received_us| i64::try_from(received_us).unwrap_or(i64::MAX))),
        }
    }
}
