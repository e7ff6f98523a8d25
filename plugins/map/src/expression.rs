//! What a member is computed by: `price * qty`, `round(bid / ask, 4)`, `qty > 10`.
//!
//! A text is compiled to steps for a stack, so that neither to evaluate nor to drop it recurs; to compile it recurs as
//! deep as its brackets are nested, which is bounded. Numbers are `f64`, and a comparison gives true or false, which is
//! no number: it can only be the whole of an expression.

use std::fmt::Write as _;
use tidemill_plugin::Result;

/// How deep brackets, signs and calls may be nested.
const MOST_LEVELS: usize = 64;
/// More places than an `f64` has digits.
const MOST_PLACES: f64 = 17.0;
/// From 2^53 on not every whole number is a number of 64 bits, and none has a fraction.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;
const FUNCTIONS: &str = "min, max, abs, round, floor and ceil";

/// A compiled expression.
#[derive(Clone, Debug)]
pub(crate) struct Expression {
    steps: Vec<Step>,
    /// Whether it gives true or false.
    is_truth: bool,
}

/// What an expression comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Computed {
    Number(f64),
    Truth(bool),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Number(f64),
    /// The value of a name, by its place.
    Name(usize),
    Negate,
    /// Of the two uppermost numbers.
    Two(fn(f64, f64) -> f64),
    One(fn(f64) -> f64),
    Compare(fn(&f64, &f64) -> bool),
}

/// Operators that bind equally, the loosest first; those of the first row compare.
const OPERATORS: [&[(&str, Step)]; 3] = [
    &[
        ("<=", Step::Compare(f64::le)),
        (">=", Step::Compare(f64::ge)),
        ("==", Step::Compare(f64::eq)),
        ("!=", Step::Compare(f64::ne)),
        ("<", Step::Compare(f64::lt)),
        (">", Step::Compare(f64::gt)),
    ],
    &[("+", Step::Two(|a, b| a + b)), ("-", Step::Two(|a, b| a - b))],
    &[("*", Step::Two(|a, b| a * b)), ("/", Step::Two(|a, b| a / b)), ("%", Step::Two(|a, b| a % b))],
];

impl Expression {
    /// Compiles a text, in which these names may stand.
    ///
    /// # Errors
    /// It is no expression; the text says where and what is expected.
    pub(crate) fn parse(text: &str, names: &[String]) -> Result<Self> {
        let mut parser = Parser { text, at: 0, names, levels: 0, steps: Vec::new() };
        let is_truth = parser.row(0)?;
        parser.skip_blank();
        if parser.at < text.len() {
            return Err(parser.expected("an operator or the end"));
        }
        Ok(Self { steps: parser.steps, is_truth })
    }

    /// The names that stand in it, by their places.
    pub(crate) fn names(&self) -> impl Iterator<Item = usize> {
        self.steps.iter().filter_map(|step| if let Step::Name(place) = step { Some(*place) } else { None })
    }

    /// What it comes to with these values; none where a value is missing. The stack is the caller's, to be used again.
    pub(crate) fn evaluate(&self, values: &[Option<f64>], stack: &mut Vec<f64>) -> Option<Computed> {
        stack.clear();
        for step in &self.steps {
            let number = match step {
                Step::Number(number) => *number,
                Step::Name(place) => values[*place]?,
                Step::Negate => -stack.pop()?,
                Step::One(function) => function(stack.pop()?),
                Step::Two(function) => {
                    let (b, a) = (stack.pop()?, stack.pop()?);
                    function(a, b)
                }
                Step::Compare(function) => {
                    let (b, a) = (stack.pop()?, stack.pop()?);
                    f64::from(u8::from(function(&a, &b)))
                }
            };
            stack.push(number);
        }
        let number = stack.pop()?;
        Some(if self.is_truth { Computed::Truth(number != 0.0) } else { Computed::Number(number) })
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    names: &'a [String],
    levels: usize,
    steps: Vec<Step>,
}

impl Parser<'_> {
    /// Operands with the operators of a row between them. Says whether that is a truth.
    fn row(&mut self, row: usize) -> Result<bool> {
        let Some(operators) = OPERATORS.get(row) else { return self.operand() };
        let mut is_truth = self.row(row + 1)?;
        loop {
            self.skip_blank();
            let rest = &self.text[self.at..];
            let found = operators.iter().find(|(sign, _)| rest.starts_with(sign));
            let Some((sign, step)) = found else { return Ok(is_truth) };
            let compares = matches!(step, Step::Compare(_));
            if is_truth {
                let why = "compares or computes with numbers, and what stands before it is true or false";
                return Err(self.at_fault(&format!("`{sign}` {why}")));
            }
            self.at += sign.len();
            if self.row(row + 1)? {
                return Err(self.at_fault(&format!(
                    "`{sign}` needs numbers, and what stands behind it is true or false"
                )));
            }
            self.steps.push(*step);
            is_truth = compares;
        }
    }

    fn operand(&mut self) -> Result<bool> {
        self.skip_blank();
        let rest = &self.text[self.at..];
        match rest.chars().next() {
            Some('-') => self.nested(1, |parser| {
                if parser.operand()? {
                    return Err(parser.at_fault("`-` needs a number, and this is true or false"));
                }
                parser.steps.push(Step::Negate);
                Ok(false)
            }),
            Some('(') => self.nested(1, |parser| {
                let is_truth = parser.row(0)?;
                parser.take(')')?;
                Ok(is_truth)
            }),
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(rest).map(|()| false),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => self.name_or_call(rest).map(|()| false),
            _ => Err(self.expected("a number, a name or `(`")),
        }
    }

    fn number(&mut self, rest: &str) -> Result {
        let is_digit = |c: char| c.is_ascii_digit() || c == '.';
        let mut end = rest.find(|c| !is_digit(c)).unwrap_or(rest.len());
        if let Some(exponent) = rest[end..].strip_prefix(['e', 'E']) {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            let sign = exponent.len() - digits.len();
            let count = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            end += if count > 0 { 1 + sign + count } else { 0 };
        }
        match rest[..end].parse::<f64>() {
            Ok(number) if number.is_finite() => self.steps.push(Step::Number(number)),
            _ => return Err(self.at_fault(&format!("`{}` is no number", &rest[..end]))),
        }
        self.at += end;
        Ok(())
    }

    fn name_or_call(&mut self, rest: &str) -> Result {
        let end = rest.find(|c: char| !is_of_name(c)).unwrap_or(rest.len());
        let name = &rest[..end];
        if rest[end..].trim_start().starts_with('(') {
            let at = self.at;
            self.at += end;
            self.skip_blank();
            return self.nested(1, |parser| parser.call(name, at));
        }
        match self.names.iter().position(|known| known == name) {
            Some(place) => self.steps.push(Step::Name(place)),
            None if self.names.is_empty() => {
                return Err(self.at_fault(&format!("`let` does not say what `{name}` is: it is empty")));
            }
            None => {
                let known = self.names.join("`, `");
                return Err(self.at_fault(&format!("`let` does not say what `{name}` is, but `{known}`")));
            }
        }
        self.at += end;
        Ok(())
    }

    /// What stands between the brackets of a call, and its closing one.
    fn call(&mut self, name: &str, at: usize) -> Result {
        let mut count = 0;
        loop {
            let before = self.steps.len();
            if self.row(0)? {
                return Err(self.at_fault(&format!("`{name}` needs numbers, and this is true or false")));
            }
            count += 1;
            match (name, count) {
                // What a second number and all that follow are put together with.
                ("min" | "max", 2..) => {
                    self.steps.push(Step::Two(if name == "min" { least } else { largest }));
                }
                ("round", 2) => self.places(before)?,
                _ => {}
            }
            self.skip_blank();
            if !self.text[self.at..].starts_with(',') {
                break;
            }
            self.at += 1;
        }
        let wrong = match (name, count) {
            ("abs", 1) => return self.end_call(Some(f64::abs)),
            ("floor", 1) => return self.end_call(Some(f64::floor)),
            ("ceil", 1) => return self.end_call(Some(f64::ceil)),
            ("round", 1) => return self.end_call(Some(f64::round)),
            ("round", 2) | ("min" | "max", 1..) => return self.end_call(None),
            ("round", _) => "`round` takes a number, and how many places are to be left".to_owned(),
            ("abs" | "floor" | "ceil", _) => format!("`{name}` takes one number"),
            _ => format!("`{name}` is no function: there are {FUNCTIONS}"),
        };
        self.at = at;
        Err(self.at_fault(&wrong))
    }

    /// The number of places of `round` is one that stands there: a scale can be made of it beforehand.
    fn places(&mut self, before: usize) -> Result {
        let [Step::Number(places)] = self.steps[before..] else {
            return Err(
                self.at_fault("`round` takes the number of places as it is, such as `round(price, 2)`")
            );
        };
        if places.fract() != 0.0 || places > MOST_PLACES {
            return Err(self.at_fault(&format!("`round` leaves 0 to {MOST_PLACES} places, and not {places}")));
        }
        self.steps[before] = Step::Number(10f64.powi(places as i32));
        self.steps.push(Step::Two(|number, scale| {
            let scaled = number * scale;
            // What is that large has no places.
            if scaled.abs() < MOST_EXACT { scaled.round() / scale } else { number }
        }));
        Ok(())
    }

    fn end_call(&mut self, function: Option<fn(f64) -> f64>) -> Result {
        self.steps.extend(function.map(Step::One));
        self.take(')')
    }

    /// Goes over so much, and reads what follows one level further down.
    fn nested<T>(&mut self, length: usize, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.levels == MOST_LEVELS {
            return Err(self.at_fault(&format!("it is nested more than {MOST_LEVELS} levels deep")));
        }
        self.levels += 1;
        self.at += length;
        let read = read(self);
        self.levels -= 1;
        read
    }

    fn take(&mut self, sign: char) -> Result {
        self.skip_blank();
        if !self.text[self.at..].starts_with(sign) {
            return Err(self.expected(&format!("an operator or `{sign}`")));
        }
        self.at += sign.len_utf8();
        Ok(())
    }

    fn skip_blank(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn expected(&self, what: &str) -> tidemill_plugin::Error {
        let mut message = format!("{what} is expected, and there is ");
        match self.text[self.at..].chars().next() {
            Some(c) => write!(message, "`{c}`").expect("a text takes what is written"),
            None => message.push_str("the end"),
        }
        self.at_fault(&message)
    }

    fn at_fault(&self, message: &str) -> tidemill_plugin::Error {
        let character = self.text[..self.at].chars().count() + 1;
        format!("{:?}, at character {character}: {message}", self.text).into()
    }
}

/// Whether a name can have this character behind its first, which is no digit.
pub(crate) fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The lesser of two numbers; none if one of them is none, as with all that is computed.
fn least(one: f64, other: f64) -> f64 {
    if one.is_nan() {
        one
    } else if other.is_nan() {
        other
    } else {
        one.min(other)
    }
}

/// The larger of two numbers; none if one of them is none.
fn largest(one: f64, other: f64) -> f64 {
    -least(-one, -other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> Vec<String> {
        vec!["p".into(), "q".into(), "none".into()]
    }

    fn computed(text: &str) -> Option<Computed> {
        let expression = Expression::parse(text, &names()).unwrap_or_else(|error| panic!("{error}"));
        expression.evaluate(&[Some(2.5), Some(4.0), None], &mut vec![1.0])
    }

    #[test]
    fn operators_bind_as_everywhere() {
        for (text, number) in [
            ("p * q", 10.0),
            ("1 + 2 * 3 - 4 / 2", 5.0),
            ("(1 + 2) * 3", 9.0),
            ("10 - 3 - 2", 5.0),
            ("7 % 4 * 2", 6.0),
            ("-7 % 4", -3.0),
            ("--p", 2.5),
            ("2 * -q", -8.0),
            ("1.5e3 + .5", 1500.5),
            ("min(3, p, q) + max(1, q)", 6.5),
            ("abs(-p)", 2.5),
            ("round(2.5) + round(-2.5)", 0.0),
            ("round(p / 3, 2)", 0.83),
            ("round(1e300, 17)", 1e300),
            ("round(123456.789, 17)", 123456.789),
            ("floor(p) + ceil(p)", 5.0),
        ] {
            assert_eq!(computed(text), Some(Computed::Number(number)), "{text}");
        }
        for (text, truth) in [
            ("p < q", true),
            ("p >= q", false),
            ("(p + 1.5 == q)", true),
            ("p != p", false),
            ("1 <= 1", true),
        ] {
            assert_eq!(computed(text), Some(Computed::Truth(truth)), "{text}");
        }
    }

    #[test]
    fn what_is_missing_leaves_nothing_to_compute() {
        assert_eq!(computed("p + none"), None);
        assert_eq!(computed("none < 1"), None);
        assert_eq!(computed("1 / 0"), Some(Computed::Number(f64::INFINITY)));
    }

    #[test]
    fn what_is_no_expression_is_refused_with_its_place() {
        let deep = format!("{}1{}", "(".repeat(65), ")".repeat(65));
        for (text, error) in [
            ("", "at character 1: a number, a name or `(` is expected, and there is the end"),
            ("p ** q", "at character 4: a number, a name or `(` is expected, and there is `*`"),
            ("p q", "at character 3: an operator or the end is expected, and there is `q`"),
            ("(p", "at character 3: an operator or `)` is expected, and there is the end"),
            ("price", "at character 1: `let` does not say what `price` is, but `p`, `q`, `none`"),
            (
                "sqrt(p)",
                "at character 1: `sqrt` is no function: there are min, max, abs, round, floor and ceil",
            ),
            ("abs(p, q)", "at character 1: `abs` takes one number"),
            (
                "round(p, q)",
                "at character 11: `round` takes the number of places as it is, such as `round(price, 2)`",
            ),
            ("round(p, 18)", "at character 12: `round` leaves 0 to 17 places, and not 18"),
            ("round(p, 1, 2)", "at character 1: `round` takes a number, and how many places are to be left"),
            ("1.2.3", "at character 1: `1.2.3` is no number"),
            ("1e999", "at character 1: `1e999` is no number"),
            (
                "p < q < 3",
                "at character 7: `<` compares or computes with numbers, and what stands before it is true or false",
            ),
            ("1 + (p < q)", "at character 12: `+` needs numbers, and what stands behind it is true or false"),
            ("-(p < q)", "at character 9: `-` needs a number, and this is true or false"),
            (&deep, "at character 65: it is nested more than 64 levels deep"),
        ] {
            let refused = Expression::parse(text, &names()).unwrap_err().to_string();
            assert_eq!(refused, format!("{text:?}, {error}"));
        }
    }

    /// A text, and the number that it is: computed beside, as it is made.
    fn arithmetic() -> impl Strategy<Value = (String, f64)> {
        let leaf = prop_oneof![
            (0..1000u32).prop_map(|n| (n.to_string(), f64::from(n))),
            Just(("p".to_owned(), 2.5)),
            Just(("q".to_owned(), 4.0)),
        ];
        leaf.prop_recursive(5, 40, 2, |inner| {
            (inner.clone(), inner, 0..7u8).prop_map(|((a, x), (b, y), how)| match how {
                0 => (format!("({a} + {b})"), x + y),
                1 => (format!("({a}-{b})"), x - y),
                2 => (format!("({a})*({b})"), x * y),
                3 => (format!("(({a})/({b}))"), x / y),
                4 => (format!("(({a})%({b}))"), x % y),
                5 => (format!("min({a}, {b})"), if x.is_nan() || y.is_nan() { f64::NAN } else { x.min(y) }),
                _ => (format!("-({a})"), -x),
            })
        })
    }

    proptest! {
        #[test]
        fn arithmetic_is_that_of_the_machine((text, number) in arithmetic()) {
            let same = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan();
            prop_assert!(
                matches!(computed(&text), Some(Computed::Number(got)) if same(got, number)),
                "{} is {:?}, not {}", text, computed(&text), number
            );
        }

        #[test]
        fn no_text_makes_it_panic(text in "[pq0-9.e+*/%<=>(), a-z\\-]{0,30}|.{0,10}") {
            if let Ok(expression) = Expression::parse(&text, &names()) {
                let _ = expression.evaluate(&[Some(1.0), None, Some(0.0)], &mut Vec::new());
            }
        }
    }
}
