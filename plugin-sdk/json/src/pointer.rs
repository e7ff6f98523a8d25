//! JSON pointers (RFC 6901) as names.

use std::collections::BTreeMap;
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

/// What some JSON pointers lead through and to, as a tree of names: for a way through a document of one's own.
///
/// [`Fields`](crate::Fields) and [`Edits`](crate::Edits) find what they name by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointers {
    inside: BTreeMap<String, Pointers>,
    is_meant: bool,
}

impl Pointers {
    /// Adds a pointer.
    ///
    /// # Errors
    /// It is not a JSON pointer.
    pub fn add(&mut self, pointer: &str) -> Result<(), InvalidPointer> {
        let end = names(pointer)?.into_iter().fold(self, |tree, name| tree.inside.entry(name).or_default());
        end.is_meant = true;
        Ok(())
    }

    /// Whether one of them leads to this value.
    #[inline]
    pub fn is_meant(&self) -> bool {
        self.is_meant
    }

    /// Whether some lead further.
    #[inline]
    pub fn is_followed(&self) -> bool {
        !self.inside.is_empty()
    }

    /// Those that lead through the member of this name, or, of an array, through the element of this number.
    #[inline]
    pub fn inside(&self, name: &str) -> Option<&Self> {
        self.inside.get(name)
    }
}

/// The names that a pointer goes through, from the document inwards; none for the document itself.
///
/// # Errors
/// It is not a JSON pointer.
pub fn names(pointer: &str) -> Result<Vec<String>, InvalidPointer> {
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
    fn pointers_are_a_tree_of_names() {
        let mut pointers = Pointers::default();
        for pointer in ["/a/b~1c", "/a", "/d/0"] {
            pointers.add(pointer).unwrap();
        }
        assert!(pointers.add("a").is_err());
        assert!(!pointers.is_meant() && pointers.is_followed());
        let a = pointers.inside("a").unwrap();
        assert!(a.is_meant() && a.inside("b/c").is_some_and(|end| end.is_meant() && !end.is_followed()));
        assert!(pointers.inside("d").is_some_and(|d| !d.is_meant() && d.inside("0").is_some()));
        assert!(pointers.inside("b").is_none());
        let mut whole = Pointers::default();
        whole.add("").unwrap();
        assert!(whole.is_meant());
    }

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
