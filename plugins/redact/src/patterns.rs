//! What must not go on of a text, found by regular expressions.

use regex_lite::{NoExpand, Regex};
use std::borrow::Cow;
use tidemill_plugin::Result;

/// Regular expressions, and what stands in the place of what they find.
pub(crate) struct Patterns {
    patterns: Vec<Regex>,
    replace: String,
    /// The same as a JSON string.
    replace_json: Vec<u8>,
}

impl Patterns {
    /// Checks patterns: nothing may be left for them to find where they have found something.
    pub(crate) fn new(patterns: &[String], replace: String) -> Result<Self> {
        let compile = |(nth, pattern): (usize, &String)| {
            let regex = Regex::new(pattern).map_err(|error| {
                format!("`patterns[{nth}]`: {pattern:?} is no regular expression: {error}")
            })?;
            if regex.is_match("") {
                return Err(format!(
                    "`patterns[{nth}]`: {pattern:?} finds something in an empty text: let it need a character, as \
                     with + for *"
                ));
            }
            if regex.is_match(&replace) {
                return Err(format!(
                    "`patterns[{nth}]`: {pattern:?} finds something in {replace:?}, which is put in the place of \
                     what it finds: choose another `replace`"
                ));
            }
            Ok(regex)
        };
        let patterns = patterns.iter().enumerate().map(compile).collect::<Result<_, _>>()?;
        let replace_json = serde_json::to_vec(&replace)?;
        Ok(Self { patterns, replace, replace_json })
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The JSON string that stands in the place of a whole value.
    pub(crate) fn replace_json(&self) -> &[u8] {
        &self.replace_json
    }

    /// The text without what the patterns find; none if they find nothing. Where they would find something in what
    /// is left, nothing of it is.
    pub(crate) fn redact(&self, text: &str) -> Option<String> {
        let mut left = Cow::Borrowed(text);
        for pattern in &self.patterns {
            if let Cow::Owned(less) = pattern.replace_all(&left, NoExpand(&self.replace)) {
                left = less.into();
            }
        }
        let Cow::Owned(left) = left else { return None };
        let finds_more = self.patterns.iter().any(|pattern| pattern.is_match(&left));
        Some(if finds_more { self.replace.clone() } else { left })
    }
}
