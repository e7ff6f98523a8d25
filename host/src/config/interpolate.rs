//! `${NAME}` and `${NAME:-default}` in a string, taken from the environment; `${file:PATH}`, which an
//! endpoint reads when it connects; `$${` is a literal `${`.
//!
//! As in a shell, the default stands for a variable that is unset and for one that is empty. What comes from
//! `${}` is kept apart from how it is shown, which is `***`.

use super::{EndpointText, Environment, FilePath, Redacted};
use std::path::Path;

/// A string with its variables filled in.
#[derive(Debug, PartialEq)]
pub(super) struct Interpolated {
    /// The string.
    pub(super) text: EndpointText,
    /// Whether it was one `${}` and nothing else, which may stand for a number or a boolean.
    pub(super) is_one_variable: bool,
}

/// What a `${file:PATH}` in a string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Files {
    /// Nothing that may stand there.
    Refused,
    /// A secret, which is never shown.
    Secret,
    /// Data, which is shown by its path.
    Data,
}

/// Why a string cannot be filled in.
#[derive(Debug, PartialEq)]
pub(super) enum InterpolationError<'a> {
    /// No variable of this name, and no default.
    Unset(&'a str),
    /// `${` without its `}`.
    Unclosed,
    /// Between the braces is no name of a variable.
    Name(&'a str),
    /// `${file:}` without a path.
    NoPath,
    /// `${` within the braces of another.
    Nested,
}

/// Fills the variables of `text` in; paths in it are relative to `folder`.
pub(super) fn fill<'a>(
    text: &'a str,
    files: Files,
    environment: &'a Environment,
    folder: &Path,
) -> Result<Interpolated, Vec<InterpolationError<'a>>> {
    let mut filled = EndpointText::plain("");
    let mut problems = Vec::new();
    let mut variables = 0;
    let mut literal = false;
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            literal = true;
            filled.push(before);
            filled.push("${");
            rest = &from[2..];
            continue;
        }
        literal |= !before.is_empty();
        filled.push(before);
        let Some(end) = from.find('}') else {
            problems.push(InterpolationError::Unclosed);
            return Err(problems);
        };
        variables += 1;
        let inner = &from[2..end];
        match inner.strip_prefix("file:") {
            _ if inner.contains("${") => problems.push(InterpolationError::Nested),
            Some(path) if path.trim().is_empty() => problems.push(InterpolationError::NoPath),
            Some(path) => {
                let path = FilePath::relative_to(folder, &Redacted::plain(path.trim()));
                match files {
                    Files::Data => filled.push_data(path, &from[..=end]),
                    Files::Secret | Files::Refused => filled.push_file(path, false),
                }
            }
            None => match variable(inner, environment) {
                Ok(found) => filled.push_hidden(found),
                Err(problem) => problems.push(problem),
            },
        }
        rest = &from[end + 1..];
    }
    filled.push(rest);
    let is_one_variable = variables == 1 && !literal && rest.is_empty();
    if problems.is_empty() { Ok(Interpolated { text: filled, is_one_variable }) } else { Err(problems) }
}

/// The value of what stands between the braces.
fn variable<'a>(inner: &'a str, environment: &'a Environment) -> Result<&'a str, InterpolationError<'a>> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let is_name = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        return Err(InterpolationError::Name(inner));
    }
    match (environment.get(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default),
        (None, None) => Err(InterpolationError::Unset(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn environment() -> Environment {
        [("A", "one"), ("B", "two"), ("EMPTY", "")].map(|(k, v)| (k.into(), v.into())).into()
    }

    #[test]
    fn variables_are_filled_in_and_hidden() {
        let cases = [
            ("plain", "plain", "plain", false),
            ("${A}", "one", "***", true),
            ("x${A}-${B}y", "xone-twoy", "x***-***y", false),
            ("${A}${B}", "onetwo", "******", false),
            ("${NONE:-d:-e}", "d:-e", "***", true),
            ("${EMPTY:-d}", "d", "***", true),
            ("${EMPTY}", "", "***", true),
            ("$${A}", "${A}", "${A}", false),
            ("$$${A}", "$${A}", "$${A}", false),
            ("$A $$ {A} $", "$A $$ {A} $", "$A $$ {A} $", false),
            ("$${${A}}", "${one}", "${***}", false),
        ];
        let environment = environment();
        for (text, value, shown, is_one_variable) in cases {
            let filled = fill(text, Files::Secret, &environment, Path::new(""));
            let expected = Redacted::new(value, shown).into();
            assert_eq!(filled, Ok(Interpolated { text: expected, is_one_variable }), "{text:?}");
        }
    }

    #[test]
    fn every_problem_of_a_string_is_found() {
        let environment = environment();
        assert_eq!(
            fill("${NO} ${A} ${1} ${file: } ${", Files::Secret, &environment, Path::new("")),
            Err(vec![
                InterpolationError::Unset("NO"),
                InterpolationError::Name("1"),
                InterpolationError::NoPath,
                InterpolationError::Unclosed
            ])
        );
        assert_eq!(
            fill("${}", Files::Secret, &environment, Path::new("")),
            Err(vec![InterpolationError::Name("")])
        );
        for nested in ["${NO:-${A}}", "${A:-${B:-c}}", "${file:${A}}", "${NO:-$${A}"] {
            assert_eq!(
                fill(nested, Files::Data, &environment, Path::new("")),
                Err(vec![InterpolationError::Nested])
            );
        }
    }

    proptest! {
        #[test]
        fn a_secret_is_never_shown(before in "[a-z$ {}]{0,9}", after in "[a-z$ {}]{0,9}") {
            let environment = Environment::from([("S".to_owned(), "0123456789".to_owned())]);
            if let Ok(filled) = fill(&format!("{before}${{S}}{after}"), Files::Secret, &environment, Path::new("")) {
                prop_assert!(!filled.text.shown().contains("0123456789"));
                let said = format!("{:?} {}", filled.text, filled.text);
                prop_assert!(!said.contains("0123456789"), "{said}");
            }
        }
    }
}
