//! Fields of JSON messages, found and edited in place.
//!
#![doc = include_str!("../README.md")]

mod document;
mod edit;
mod fields;
mod invalid;
mod number;
mod pointer;
mod scan;
mod string;
mod tree;
mod value;

pub use document::Document;
pub use edit::{Change, EditError, Edits};
pub use fields::{Field, Fields, Found, Span};
pub use invalid::{Invalid, MAX_DEPTH};
pub use pointer::InvalidPointer;
pub use tree::InvalidMember;
pub use value::{Kind, Value};
