//! What the answers of a host look like, as far as commands rely on it: whatever answers otherwise is no host of ours.

use serde_json::{Map, Value};

/// What an answer has to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum AnswerShape {
    /// No answer but that it is done.
    Nothing,
    Text,
    /// A whole number from 0.
    Count,
    Flag,
    /// A list whose elements are all so.
    List(&'static AnswerShape),
    /// An object that has these members, and any others.
    Object(&'static [(&'static str, AnswerShape)]),
    /// An object whose members are all so, whatever their names.
    Each(&'static AnswerShape),
}

impl AnswerShape {
    /// Whether an answer, null where there is none, is of this shape.
    pub(super) fn fits(self, answer: &Value) -> bool {
        match self {
            Self::Nothing => answer.is_null(),
            Self::Text => answer.is_string(),
            Self::Count => answer.is_u64(),
            Self::Flag => answer.is_boolean(),
            Self::List(element) => {
                answer.as_array().is_some_and(|elements| elements.iter().all(|each| element.fits(each)))
            }
            Self::Object(members) => answer.as_object().is_some_and(|object| {
                let has = |name: &str, shape: Self| object.get(name).is_some_and(|value| shape.fits(value));
                members.iter().all(|(name, shape)| has(name, *shape))
            }),
            Self::Each(member) => {
                answer.as_object().is_some_and(|object| Map::values(object).all(|each| member.fits(each)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_answer_fits_if_all_that_is_relied_on_is_there() {
        const NAMED: AnswerShape = AnswerShape::Object(&[("name", AnswerShape::Text)]);
        const ALL: AnswerShape =
            AnswerShape::Object(&[("all", AnswerShape::List(&NAMED)), ("total", AnswerShape::Count)]);
        assert!(ALL.fits(&json!({ "all": [], "total": 0, "more": null })));
        assert!(ALL.fits(&json!({ "all": [{ "name": "a", "b": 1 }], "total": 7 })));
        for other in [
            json!(null),
            json!("ok"),
            json!([]),
            json!({ "all": [] }),
            json!({ "all": {}, "total": 0 }),
            json!({ "all": [7], "total": 0 }),
            json!({ "all": [{ "name": null }], "total": 0 }),
            json!({ "all": [], "total": -1 }),
        ] {
            assert!(!ALL.fits(&other), "{other}");
        }
        assert!(AnswerShape::Nothing.fits(&Value::Null) && !AnswerShape::Nothing.fits(&json!({})));
        assert!(AnswerShape::Flag.fits(&json!(false)) && !AnswerShape::Flag.fits(&json!(0)));
        assert!(AnswerShape::Each(&NAMED).fits(&json!({ "x": { "name": "a" } })));
        assert!(!AnswerShape::Each(&NAMED).fits(&json!({ "x": {} })));
    }
}
