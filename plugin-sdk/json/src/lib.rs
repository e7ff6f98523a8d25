//! Fields of JSON messages, found and edited in place.
//!
#![doc = include_str!("../README.md")]

mod block;
mod document;
mod edit;
mod fields;
mod grammar;
mod invalid;
mod number;
mod plain;
mod pointer;
mod scan;
mod sites;
mod string;
mod tree;
mod value;
mod walk;

pub use document::Document;
pub use edit::{Change, EditError, Edits};
pub use fields::{Field, Fields, Found, Span};
pub use invalid::{Invalid, MAX_DEPTH};
pub use pointer::{InvalidPointer, Pointers, names};
pub use sites::Sites;
pub use tree::InvalidMember;
pub use value::{Kind, Value};
