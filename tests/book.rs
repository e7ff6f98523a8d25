//! The book in `docs/` is true: its pages of reference say what the program says, its recipes run, and its commands can be
//! typed one after the other.
//!
//! `GOLDEN=write cargo test --workspace --test book` writes the pages of reference anew. The tutorials are the tests of
//! `authoring.rs`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "book/recipes.rs"]
mod recipes;
#[path = "book/reference.rs"]
mod reference;
#[path = "book/walk.rs"]
mod walk;
