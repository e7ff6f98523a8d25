//! JSON pointers (RFC 6901) as names.

use std::fmt;

/// A text that is not a JSON pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPointer(String);

impl fmt::Display for InvalidPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(pointer) = self;
        write!(f, "{pointer:?} is not a JSON pointer: ")?;
        if pointer.starts_with('/') {
            f.write_str("`~` must be followed by 0 or 1")
        } else {
            write!(f, "it must start with `/`, like \"/{pointer}\"")
        }
    }
}

impl std::error::Error for InvalidPointer {}

/// The names that a pointer goes through, from the document inwards; none for the document itself.
pub(crate) fn names(pointer: &str) -> Result<Vec<String>, InvalidPointer> {
    if pointer.is_empty() {
        return Ok(Vec::new());
    }
    let names = pointer.strip_prefix('/').ok_or_else(|| InvalidPointer(pointer.to_owned()))?;
    let name = |name: &str| {
        if name.replace("~1", "").replace("~0", "").contains('~') {
            return Err(InvalidPointer(pointer.to_owned()));
        }
        Ok(name.replace("~1", "/").replace("~0", "~"))
    };
    names.split('/').map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_names_or_refused() {
        for (pointer, parts) in [
            ("", &[][..]),
            ("/", &[""]),
            ("/a/b", &["a", "b"]),
            ("/a~1b/m~0n", &["a/b", "m~n"]),
            ("/~01", &["~1"]),
            ("/0//é", &["0", "", "é"]),
        ] {
            assert_eq!(names(pointer).unwrap(), parts, "{pointer}");
        }
        for pointer in ["a", "a/b", "/a~", "/~2", "#/a", "/a~/b"] {
            assert!(names(pointer).is_err(), "{pointer}");
        }
    }
}
