//! The paths of server endpoints: exact, or with `{name}` for one segment.
//!
//! Both what is configured and what is asked for are compared segment by segment and percent-decoded,
//! so that `/caf%C3%A9` and `/café` are one path, and a `%2F` separates nothing.
//! Why not matchit: precedence, equality after decoding, and that two patterns overlap are not in it.

use super::Redacted;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// Which paths lead to an endpoint. Of several that a path matches, the least leads there: the one
/// that is exact for longest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathPattern {
    segments: Vec<Segment>,
}

// The order of the variants is that of precedence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Exact(Vec<u8>),
    Named(String),
}

/// An error in a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathError {
    /// What is wrong with the path, as a text that stands alone.
    pub message: String,
    /// What to do about the error, where that is known.
    pub hint: Option<String>,
}

impl PathPattern {
    /// Reads `/rooms/{room}/log` and the like.
    ///
    /// # Errors
    /// If it is no path, or a brace stands where no name can.
    pub fn parse(path: &Redacted) -> Result<Self, PathError> {
        let text = path.expose();
        let wrong = |message: &str| Err(PathError { message: message.to_owned(), hint: None });
        let Some(rest) = text.strip_prefix('/') else {
            let message = "`path` must start with `/`".to_owned();
            return Err(PathError { message, hint: Some(format!("write \"/{path}\"")) });
        };
        if text.contains(['?', '#']) || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return wrong("`path` must have no query, no fragment and no spaces");
        }
        let mut segments: Vec<Segment> = Vec::new();
        for segment in rest.split('/') {
            let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let Some(name) = name else {
                if segment.contains(['{', '}']) {
                    let hint =
                        Some("write \"/rooms/{room}\", and a literal brace as `%7B` or `%7D`".to_owned());
                    let message = "`{name}` in `path` must be a whole segment".to_owned();
                    return Err(PathError { message, hint });
                }
                segments.push(Segment::Exact(percent_decode_str(segment).collect()));
                continue;
            };
            let is_name =
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
            if !is_name {
                return wrong("a name in `path` is of letters, digits, `_` and `-`, as in `{room}`");
            }
            let segment = Segment::Named(name.to_owned());
            if segments.contains(&segment) {
                return Err(PathError {
                    message: format!("`path` has two segments `{{{name}}}`"),
                    hint: None,
                });
            }
            segments.push(segment);
        }
        Ok(Self { segments })
    }

    /// The names of its segments.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Named(name) => Some(name.as_str()),
            Segment::Exact(_) => None,
        })
    }

    /// Whether a path leads here, as it was asked for. An empty segment has no name.
    pub fn matches(&self, path: &str) -> bool {
        let asked = path.strip_prefix('/').unwrap_or(path).split('/');
        asked.clone().count() == self.segments.len()
            && self.segments.iter().zip(asked).all(|(segment, asked)| match segment {
                Segment::Exact(bytes) => percent_decode_str(asked).eq(bytes.iter().copied()),
                Segment::Named(_) => !asked.is_empty() && percent_decode_str(asked).decode_utf8().is_ok(),
            })
    }

    /// The segment that stands for a name in a path that matches.
    pub fn value<'a>(&self, name: &str, path: &'a str) -> Option<Cow<'a, str>> {
        let asked = path.strip_prefix('/').unwrap_or(path).split('/');
        let (_, value) = self.segments.iter().zip(asked).find(|(segment, _)| match segment {
            Segment::Named(named) => named == name,
            Segment::Exact(_) => false,
        })?;
        percent_decode_str(value).decode_utf8().ok()
    }

    /// Whether the same paths lead to both, whatever their names are.
    pub fn is_same_but_for_names(&self, other: &Self) -> bool {
        self.without_names() == other.without_names()
    }

    /// The same with nothing for each name: equal for patterns that the same paths lead to.
    pub(super) fn without_names(&self) -> Self {
        let without_name = |segment: &Segment| match segment {
            Segment::Exact(bytes) => Segment::Exact(bytes.clone()),
            Segment::Named(_) => Segment::Named(String::new()),
        };
        Self { segments: self.segments.iter().map(without_name).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(path: &str) -> PathPattern {
        PathPattern::parse(&Redacted::plain(path)).expect("a path")
    }

    fn error(path: &str) -> String {
        PathPattern::parse(&Redacted::plain(path)).expect_err("no path").message
    }

    #[test]
    fn names_stand_for_one_segment_that_is_not_empty() {
        let rooms = pattern("/rooms/{room}/{part}");
        assert!(rooms.matches("/rooms/7/log"));
        assert_eq!(rooms.value("room", "/rooms/a%20b%2Fc/log").as_deref(), Some("a b/c"));
        assert_eq!(rooms.value("part", "/rooms/7/caf%C3%A9").as_deref(), Some("café"));
        assert_eq!(rooms.names().collect::<Vec<_>>(), ["room", "part"]);
        for other in ["/rooms//log", "/rooms/7", "/rooms/7/log/", "/Rooms/7/log", "/", "/rooms/%ff/log"] {
            assert!(!rooms.matches(other), "{other}");
        }
        assert!(pattern("/").matches("/") && !pattern("/").matches("/a"));
    }

    #[test]
    fn exact_segments_compare_decoded() {
        assert!(pattern("/café").matches("/caf%C3%A9"));
        assert!(pattern("/a%20b").matches("/a%20b"));
        assert!(!pattern("/a/b").matches("/a%2Fb"));
    }

    #[test]
    fn the_one_that_is_exact_for_longest_comes_first() {
        let mut patterns = ["/{a}/x", "/x/{b}", "/x/x", "/{a}/{b}"].map(pattern);
        patterns.sort();
        assert_eq!(patterns, ["/x/x", "/x/{b}", "/{a}/x", "/{a}/{b}"].map(pattern));
        assert!(pattern("/r/{a}").is_same_but_for_names(&pattern("/r/{b}")));
        assert!(!pattern("/r/{a}").is_same_but_for_names(&pattern("/r/a")));
    }

    #[test]
    fn what_is_no_path_is_told() {
        assert_eq!(error("in"), "`path` must start with `/`");
        assert_eq!(error("/a{b}"), "`{name}` in `path` must be a whole segment");
        assert_eq!(error("/{}"), "a name in `path` is of letters, digits, `_` and `-`, as in `{room}`");
        assert_eq!(error("/{a}/{a}"), "`path` has two segments `{a}`");
        assert_eq!(error("/a?b"), "`path` must have no query, no fragment and no spaces");
    }
}
