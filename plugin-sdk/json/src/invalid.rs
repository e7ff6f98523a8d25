//! Why a document is not JSON.

use std::fmt;

/// How deep arrays and objects may be nested: as deep as `serde_json` reads them into a tree.
pub const MAX_DEPTH: u32 = 127;

/// Why a document is not JSON that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// It breaks the grammar at this byte, or ends there too early.
    Syntax(usize),
    /// It is nested more than [`MAX_DEPTH`] levels deep.
    TooDeep,
    /// It is not UTF-8.
    NotUtf8,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(at) => write!(f, "not JSON (at byte {at})"),
            Self::TooDeep => write!(f, "JSON nested more than {MAX_DEPTH} levels deep"),
            Self::NotUtf8 => f.write_str("not JSON (not UTF-8)"),
        }
    }
}

impl std::error::Error for Invalid {}
