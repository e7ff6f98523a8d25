//! What stands behind the `?` of a request: names that are known, each at most once.

use super::api_error::ApiError;
use axum::http::StatusCode;
use std::borrow::Cow;
use std::fmt::Display;
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

    /// The value of a name as something else, if it is there.
    ///
    /// # Errors
    /// It is nothing of that kind.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let parsed = self
            .text(name)
            .map(|text| text.parse().map_err(|error| wrong(format!("`{name}={text}` cannot be: {error}"))));
        parsed.transpose()
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
        assert_eq!(query.parsed::<usize>("limit").expect("a number"), Some(5));
        assert_eq!(query.parsed::<usize>("before").expect("absent"), None);
        assert!(query.parsed::<usize>("pipeline").is_err());
        assert!(Query::parse(None, &[]).is_ok());
        for wrong in ["a=1", "limit=1&limit=2", "limit=1&LIMIT=2"] {
            assert!(Query::parse(Some(wrong), &["limit"]).is_err(), "{wrong}");
        }
    }
}
