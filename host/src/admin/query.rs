//! What stands behind the `?` of a request: names that are known, each at most once.

use super::api_error::ApiError;
use axum::http::StatusCode;
use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use url::form_urlencoded;

/// The pairs of a query.
#[derive(Debug)]
pub(super) struct Query<'q>(Vec<(Cow<'q, str>, Cow<'q, str>)>);

impl<'q> Query<'q> {
    /// Reads a query that may have these names.
    ///
    /// # Errors
    /// It has another, or one of them twice.
    pub(super) fn parse(query: Option<&'q str>, known: &[&str]) -> Result<Self, ApiError> {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let mut read: Vec<(Cow<'q, str>, Cow<'q, str>)> = Vec::new();
        for (name, value) in pairs {
            if !known.contains(&&*name) {
                let hint = format!("it takes {}", known.join(", "));
                return Err(wrong(format!("`{name}` is no parameter of this path")).hint(hint));
            }
            if read.iter().any(|(other, _)| *other == name) {
                return Err(wrong(format!("`{name}` is there twice")));
            }
            read.push((name, value));
        }
        Ok(Self(read))
    }

    /// The value of a name, if it is there.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// The value of a name as a number of this range, if it is there.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn number<T>(&self, name: &str, range: RangeInclusive<T>) -> Result<Option<T>, ApiError>
    where
        T: FromStr + PartialOrd + Display,
    {
        let number = self.text(name).map(|text| {
            text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
                let (least, most) = (range.start(), range.end());
                wrong(format!("`{name}={text}` cannot be: it is a number from {least} to {most}"))
            })
        });
        number.transpose()
    }

    /// Whether a name is there and its value is true.
    ///
    /// # Errors
    /// It is neither true nor false.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(text) => Err(wrong(format!("`{name}={text}` cannot be: it is true or false"))),
        }
    }
}

fn wrong(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "bad_request", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_and_has_known_names_once() {
        let query = Query::parse(Some("pipeline=the%20first+one&limit=5"), &["pipeline", "limit"]);
        let query = query.expect("it is right");
        assert_eq!(query.text("pipeline"), Some("the first one"));
        assert_eq!(query.number("limit", 1..=5).expect("a number"), Some(5));
        assert_eq!(query.number("before", 1..=5).expect("absent"), None);
        assert!(query.number("pipeline", 1..=5).is_err());
        assert!(query.number("limit", 6..=9).is_err() && query.number("limit", 1..=4).is_err());
        assert!(!query.flag("dry_run").expect("absent") && query.flag("limit").is_err());
        assert!(Query::parse(None, &[]).is_ok());
        for wrong in ["a=1", "limit=1&limit=2", "limit=1&LIMIT=2"] {
            assert!(Query::parse(Some(wrong), &["limit"]).is_err(), "{wrong}");
        }
    }
}
