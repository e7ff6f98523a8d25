//! The dead letters of a host: what one is, those that are kept, and how they are retried.
//!
//! Pipelines make letters of messages that fail, and the newest are kept here, whatever becomes of their
//! pipelines. Whoever retries some marks them, and their pipeline takes each out of the list in the moment in
//! which it enters again; so a letter is in the list or on its way, and never in both or in neither.

mod kept;
mod letter;
mod retry;

pub use kept::{KeptLetters, LetterFilter, ShownLetter};
pub use letter::Letter;
pub use retry::{Retried, RetryOrder, RetryReport};
