//! A header that is configured: what may be wrong with it.

use super::EndpointText;
use super::names::is_token;
use super::read::TableReader;
use super::report::Span;

/// Who else sets a header of a name, and what is to be done instead.
pub(super) struct SetBy {
    pub(super) whom: &'static str,
    pub(super) hint: Option<&'static str>,
}

/// Reports what is wrong with a header: its name, its value, or that it is set by somebody else.
pub(super) fn report_faults(
    reader: &mut TableReader<'_, '_>,
    name: &str,
    value: &EndpointText,
    at: &Span,
    set_by: Option<&SetBy>,
) {
    if !is_token(name) {
        reader.report.error(at, format!("\"{name}\" is not the name of a header"));
    } else if let Some(SetBy { whom, hint }) = set_by {
        let message = format!("the header `{name}` is set by {whom} itself");
        match hint {
            Some(hint) => reader.report.error_with_hint(at, message, *hint),
            None => reader.report.error(at, message),
        }
    } else if value.known().expose().contains(|c: char| c.is_control() && c != '\t') {
        let message = format!("the value of the header `{name}` must have no control characters");
        reader.report.error(at, message);
    }
}
