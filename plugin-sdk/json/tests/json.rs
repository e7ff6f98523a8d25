//! The crate against `serde_json`: what is valid, what stands at a pointer, and what edits make of it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "json/documents.rs"]
mod documents;
#[path = "json/edits.rs"]
mod edits;
#[path = "json/fields.rs"]
mod fields;
