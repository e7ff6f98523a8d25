//! A part of a configuration that is sent to a running host: what is wrong with it is told where it stands in its file.

use super::readable::text;
use super::running_host::{HostArgs, RefusalCause, asking};
use super::shape::AnswerShape;
use super::{Exit, complain, is_terminal, tell};
use crate::admin::ApiRequest;
use crate::config::{ConfigErrors, Mistake, PartFile};
use serde_json::Value;

/// The status of the answer to a configuration that cannot be.
const WRONG: u16 = 422;

/// Sends what is in a file with a request, and tells what the answer comes to, for people, and how the command ends
/// then.
pub(super) fn sending(
    file: Result<PartFile, ConfigErrors>,
    request: ApiRequest,
    shape: AnswerShape,
    host: &HostArgs,
    comes_to: impl FnOnce(&Value) -> (String, Exit),
) -> Exit {
    let file = match file {
        Ok(file) => file,
        Err(errors) => return wrong(&errors),
    };
    asking(async {
        let refusal = match host.ask(request.json(file.json().to_owned()), shape).await {
            Ok(answer) => {
                let (text, exit) = comes_to(&answer);
                return Ok((host.shown(&answer, |_| text), exit));
            }
            Err(refusal) => refusal,
        };
        let RefusalCause::Said(WRONG, said) = &refusal.cause else { return Err(refusal) };
        let mistakes = mistakes(said);
        let exit = if mistakes.is_empty() {
            complain(refusal);
            Exit::Configuration
        } else {
            wrong(&file.errors(mistakes))
        };
        Ok((String::new(), exit))
    })
}

fn wrong(errors: &ConfigErrors) -> Exit {
    tell(errors.render(is_terminal()));
    Exit::Configuration
}

/// What a host found wrong, by the places in what it was given.
fn mistakes(said: &Value) -> Vec<Mistake> {
    let all = said["error"]["errors"].as_array().into_iter().flatten();
    let mistake = |each: &Value| Mistake {
        pointer: text(&each["path"]),
        message: text(&each["message"]),
        hint: each["hint"].as_str().filter(|hint| !hint.is_empty()).map(str::to_owned),
    };
    all.map(mistake).collect()
}
