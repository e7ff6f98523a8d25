//! Conditions on the fields of JSON messages: the `where` of the plugins that come with Tidemill.
//!
//! A [`Rule`] is what stands in a configuration; [`Conditions`] are rules that were checked, on fields
//! that the host finds together with the plugin's own. A rule whose field the message does not have never
//! holds, but for `exists` with the value `false`.

use crate::json::{Kind, Value};
use crate::{Description, Json, Message, Result};
use regex_lite::Regex;
use serde::Deserialize;
use std::cmp::Ordering;

/// From 2^53 on an `f64` takes neighbouring whole numbers for one.
const MANY_FOR_ONE: u64 = 1 << 53;

/// A condition as it is configured: `{ field = "/data/e", op = "eq", value = "trade" }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The JSON pointer of the field.
    pub field: String,
    /// What is asked of it.
    pub op: Op,
    /// With what it is compared; `exists` needs none.
    pub value: Option<serde_json::Value>,
}

/// What a rule asks of a field.
///
/// Where the value is a number the comparison is one of numbers, and a field that is a decimal string
/// counts as its number. Texts are compared after their escapes were read, and ordered by code point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// Equal to the value.
    Eq,
    /// There, and not equal to the value.
    Ne,
    /// Less than the value, a number or a text.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// Equal to one of a list of values.
    In,
    /// A text that contains the value, or an array that has it as an element.
    Contains,
    /// There (or with the value `false`: not there).
    Exists,
    /// A text in which the value, a regular expression, matches somewhere.
    Matches,
}

/// Whether all rules must hold, or one is enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Match {
    /// All of them; also where there are none.
    #[default]
    All,
    /// At least one.
    Any,
}

/// Rules, ready to be asked.
#[derive(Clone, Debug)]
pub struct Conditions {
    tests: Vec<(Json, Test)>,
    mode: Match,
}

#[derive(Clone, Debug)]
enum Test {
    Equal(Scalar),
    Different(Scalar),
    Ordered(Scalar, fn(Ordering) -> bool),
    OneOf(Vec<Scalar>),
    Contains(Scalar),
    Exists(bool),
    Matches(Regex),
}

/// A value that a field can equal.
#[derive(Clone, Debug)]
enum Scalar {
    Text(String),
    /// The nearest `f64`, and the number itself if it is whole and there are others with that `f64`.
    Number(f64, Option<i64>),
    /// `true`, `false` or `null`.
    Literal(&'static str),
}

impl Conditions {
    /// Checks rules and asks for their fields.
    ///
    /// # Errors
    /// A pointer that is none, or a value that does not go with its `op`; the text names the rule.
    pub fn compile(rules: &[Rule], mode: Match, description: &mut Description) -> Result<Self> {
        let mut tests = Vec::with_capacity(rules.len());
        for (number, rule) in rules.iter().enumerate() {
            let field = description.json(&rule.field);
            let field = field.map_err(|error| format!("`where[{number}].field`: {error}"))?;
            if rule.value.is_none() && rule.op != Op::Exists {
                return Err(format!("missing key `where[{number}].value`: this `op` needs it").into());
            }
            let test = Test::of(rule).map_err(|error| format!("`where[{number}].value`: {error}"))?;
            tests.push((field, test));
        }
        Ok(Self { tests, mode })
    }

    /// Whether they hold for a message.
    #[inline]
    pub fn hold(&self, message: Message<'_>) -> bool {
        let mut results = self.tests.iter().map(|(field, test)| test.holds(message.get(*field)));
        match self.mode {
            Match::All => results.all(|holds| holds),
            Match::Any => results.any(|holds| holds),
        }
    }
}

impl Test {
    fn of(rule: &Rule) -> Result<Self> {
        if rule.op == Op::Exists {
            return match rule.value {
                None | Some(serde_json::Value::Bool(true)) => Ok(Self::Exists(true)),
                Some(serde_json::Value::Bool(false)) => Ok(Self::Exists(false)),
                Some(ref other) => Err(format!("`exists` takes true or false, got {}", shown(other)).into()),
            };
        }
        let value = rule.value.as_ref().unwrap_or(&serde_json::Value::Null);
        Ok(match rule.op {
            Op::Eq => Self::Equal(Scalar::of(value)?),
            Op::Ne => Self::Different(Scalar::of(value)?),
            Op::Lt => Self::Ordered(Scalar::ordered(value)?, Ordering::is_lt),
            Op::Le => Self::Ordered(Scalar::ordered(value)?, Ordering::is_le),
            Op::Gt => Self::Ordered(Scalar::ordered(value)?, Ordering::is_gt),
            Op::Ge => Self::Ordered(Scalar::ordered(value)?, Ordering::is_ge),
            Op::In => {
                let values = value
                    .as_array()
                    .ok_or_else(|| format!("`in` needs a list of values, got {}", shown(value)))?;
                Self::OneOf(values.iter().map(Scalar::of).collect::<Result<_>>()?)
            }
            Op::Matches => {
                let pattern = value.as_str().ok_or_else(|| {
                    format!("`matches` needs a regular expression as a string, got {}", shown(value))
                })?;
                Self::Matches(Regex::new(pattern).map_err(|error| format!("{pattern:?}: {error}"))?)
            }
            Op::Contains => Self::Contains(Scalar::of(value)?),
            Op::Exists => Self::Exists(true),
        })
    }

    fn holds(&self, field: Option<Value<'_>>) -> bool {
        let Some(field) = field else { return matches!(self, Self::Exists(false)) };
        match self {
            Self::Equal(value) => value.equals(field),
            Self::Different(value) => !value.equals(field),
            Self::Ordered(value, wanted) => value.order(field).is_some_and(wanted),
            Self::OneOf(values) => values.iter().any(|value| value.equals(field)),
            Self::Contains(value) => match (field.kind(), value) {
                (Kind::Array, _) => field.elements().any(|element| value.equals(element)),
                (_, Scalar::Text(part)) => field.string().is_some_and(|text| text.contains(part.as_str())),
                _ => false,
            },
            Self::Exists(wanted) => *wanted,
            Self::Matches(pattern) => field.string().is_some_and(|text| pattern.is_match(&text)),
        }
    }
}

/// A value of a configuration, for a sentence about it.
fn shown(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Array(_) => "a list".to_owned(),
        serde_json::Value::Object(_) => "a table".to_owned(),
        other => other.to_string(),
    }
}

impl Scalar {
    fn of(value: &serde_json::Value) -> Result<Self> {
        Ok(match value {
            serde_json::Value::String(text) => Self::Text(text.clone()),
            serde_json::Value::Number(number) => {
                let whole = number.as_i64().filter(|whole| whole.unsigned_abs() >= MANY_FOR_ONE);
                Self::Number(number.as_f64().ok_or("the number is too large")?, whole)
            }
            serde_json::Value::Bool(true) => Self::Literal("true"),
            serde_json::Value::Bool(false) => Self::Literal("false"),
            serde_json::Value::Null => Self::Literal("null"),
            other => {
                let got = shown(other);
                return Err(format!("the value must be a string, a number or a boolean, got {got}").into());
            }
        })
    }

    fn ordered(value: &serde_json::Value) -> Result<Self> {
        match Self::of(value)? {
            Self::Literal(literal) => {
                Err(format!("only numbers and strings have an order, got {literal}").into())
            }
            scalar => Ok(scalar),
        }
    }

    fn equals(&self, field: Value<'_>) -> bool {
        match self {
            Self::Text(text) => field.is(text),
            Self::Number(..) => self.order(field) == Some(Ordering::Equal),
            Self::Literal(literal) => field.raw() == literal.as_bytes(),
        }
    }

    /// Where the field stands as seen from the value; none if they cannot be compared.
    fn order(&self, field: Value<'_>) -> Option<Ordering> {
        match self {
            Self::Text(text) => field.string().map(|field| field.as_ref().cmp(text.as_str())),
            Self::Number(value, whole) => {
                if let Some((whole, field)) = whole.zip(field.integer()) {
                    return Some(field.cmp(&whole));
                }
                field.number()?.partial_cmp(value)
            }
            Self::Literal(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Harness;
    use crate::{Out, Plugin};
    use serde_json::json;

    /// Forwards that for which all rules hold; what only one holds for, to an output.
    struct Holding {
        all: Conditions,
        any: Conditions,
        some: crate::Output,
    }

    impl Plugin for Holding {
        type Config = Vec<Rule>;

        fn new(rules: Vec<Rule>, description: &mut Description) -> Result<Self> {
            let all = Conditions::compile(&rules, Match::All, description)?;
            let any = Conditions::compile(&rules, Match::Any, description)?;
            Ok(Self { all, any, some: description.output("some") })
        }

        fn process(&mut self, message: Message<'_>, out: &mut Out<'_>) -> Result {
            match (self.all.hold(message), self.any.hold(message)) {
                (true, _) => out.forward(),
                (false, true) => out.forward_to(self.some),
                (false, false) => {}
            }
            Ok(())
        }
    }

    fn plugin(op: &str, value: &serde_json::Value) -> Result<Harness<Holding>, String> {
        Harness::try_new(&json!([{ "field": "/f", "op": op, "value": value }]).to_string())
    }

    fn holds(op: &str, value: &serde_json::Value, message: &str) -> bool {
        plugin(op, value).unwrap().process([message]).forwarded_all
    }

    #[test]
    fn every_op_does_what_it_says() {
        for (op, value, yes, no) in [
            ("eq", json!("a/b"), r#"{"f":"a\/b"}"#, r#"{"f":"a\\/b"}"#),
            ("eq", json!(1.5), r#"{"f":"1.50"}"#, r#"{"f":1.6}"#),
            ("eq", json!(true), r#"{"f":true}"#, r#"{"f":"true"}"#),
            ("eq", json!("5"), r#"{"f":"5"}"#, r#"{"f":5}"#),
            ("eq", json!(9007199254740993i64), r#"{"f":9007199254740993}"#, r#"{"f":9007199254740992}"#),
            ("eq", json!(9007199254740993i64), r#"{"f":"9007199254740993.0"}"#, r#"{"f":9007199254740994}"#),
            ("lt", json!(9007199254740992i64), r#"{"f":9007199254740991}"#, r#"{"f":9007199254740993}"#),
            ("gt", json!(9007199254740991i64), r#"{"f":9007199254740993}"#, r#"{"f":9007199254740991}"#),
            ("ne", json!("a"), r#"{"f":"b"}"#, r#"{"f":"a"}"#),
            ("ne", json!("a"), r#"{"f":null}"#, r#"{}"#),
            ("lt", json!(10), r#"{"f":9.5}"#, r#"{"f":10}"#),
            ("le", json!(10), r#"{"f":"10"}"#, r#"{"f":"10.1"}"#),
            ("gt", json!(10), r#"{"f":1e2}"#, r#"{"f":"ten"}"#),
            ("ge", json!("b"), r#"{"f":"b"}"#, r#"{"f":"a"}"#),
            ("in", json!(["x", 7]), r#"{"f":"7.0"}"#, r#"{"f":"y"}"#),
            ("contains", json!("SDT"), r#"{"f":"BTCUSDT"}"#, r#"{"f":"BTCEUR"}"#),
            ("contains", json!(3), r#"{"f":[1,[3],"3"]}"#, r#"{"f":[1,[3]]}"#),
            ("exists", json!(true), r#"{"f":null}"#, r#"{"g":1}"#),
            ("exists", json!(false), r#"{"g":1}"#, r#"{"f":null}"#),
            ("matches", json!("^btc.*@trade$"), r#"{"f":"btcusdt@trade"}"#, r#"{"f":"btcusdt@depth"}"#),
        ] {
            assert!(holds(op, &value, yes), "{op} {value} {yes}");
            assert!(!holds(op, &value, no), "{op} {value} {no}");
        }
    }

    #[test]
    fn all_rules_must_hold_or_any() {
        let rules = r#"[{"field":"/a","op":"exists"},{"field":"/b","op":"gt","value":1}]"#;
        let mut plugin = Harness::<Holding>::try_new(rules).unwrap();
        let (both, one, none) = (r#"{"a":1,"b":2}"#, r#"{"b":2}"#, "[]");
        assert_eq!(plugin.process([both, one, none]).routed(), [("default", both), ("some", one)]);
    }

    #[test]
    fn a_value_that_does_not_go_with_its_op_is_refused_by_name() {
        for (op, value, error) in [
            ("in", json!("x"), "`where[0].value`: `in` needs a list of values, got \"x\""),
            (
                "in",
                json!([[1]]),
                "`where[0].value`: the value must be a string, a number or a boolean, got a list",
            ),
            ("lt", json!(true), "`where[0].value`: only numbers and strings have an order, got true"),
            (
                "eq",
                json!({}),
                "`where[0].value`: the value must be a string, a number or a boolean, got a table",
            ),
            ("exists", json!(1), "`where[0].value`: `exists` takes true or false, got 1"),
            (
                "matches",
                json!(1),
                "`where[0].value`: `matches` needs a regular expression as a string, got 1",
            ),
        ] {
            assert_eq!(plugin(op, &value).err().as_deref(), Some(error));
        }
        let unknown = plugin("like", &json!("x")).err().unwrap();
        assert!(unknown.starts_with("`[0].op` must be one of \"eq\", \"ne\""), "{unknown}");
    }
}
