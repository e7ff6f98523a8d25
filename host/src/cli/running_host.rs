//! The running host that a command asks through its HTTP API.
//!
//! Whatever answers is a host if its answer has the shape that the command relies on. What a host refuses is told in the
//! words of the command line.

use super::arguments::admin_address;
use super::shape::AnswerShape;
use super::{Exit, answer, block_on, complain};
use crate::admin::{self, ApiRequest, AskError};
use serde_json::Value;
use std::fmt;

/// Where a host listens if nobody says otherwise.
const DEFAULT_ADMIN: &str = "127.0.0.1:10080";
/// Where a host says its address.
const WHERE_HINT: &str = "`--admin`, or TIDEMILL_ADMIN, is the `listen` of its [admin]";
/// Where a host says what it has done.
const LOG_HINT: &str = "whether it did what it was asked is not known; its log says so";
/// The status of an answer without a body.
const NO_CONTENT: u16 = 204;
/// What a host says if it does not do what it is asked.
const REFUSAL: AnswerShape = AnswerShape::Object(&[("error", ERROR)]);
const ERROR: AnswerShape =
    AnswerShape::Object(&[("code", AnswerShape::Text), ("message", AnswerShape::Text)]);
/// Requests that the hints of a host name, and the commands that make them.
const COMMANDS: [(&str, &str); 11] = [
    ("GET /api/v1/pipelines", "tidemill pipelines list"),
    ("POST /api/v1/pipelines/NAME/start", "tidemill pipelines start NAME"),
    ("POST /api/v1/pipelines/NAME/stop", "tidemill pipelines stop NAME"),
    ("POST /api/v1/pipelines", "tidemill pipelines add FILE"),
    ("DELETE /api/v1/pipelines/NAME", "tidemill pipelines remove NAME"),
    ("GET /api/v1/plugins/NAME", "tidemill plugins"),
    ("GET /api/v1/plugins", "tidemill plugins"),
    ("GET /api/v1/state", "tidemill state list"),
    ("GET /api/v1/connections", "tidemill connections"),
    ("GET /api/v1/deadletters", "tidemill deadletter list"),
    ("POST /api/v1/reload", "tidemill reload"),
];

#[derive(Debug, clap::Args)]
pub(super) struct RunningHost {
    /// The address of the HTTP API of a running host.
    #[arg(
        long,
        value_name = "ADDR",
        value_parser = admin_address,
        env = "TIDEMILL_ADMIN",
        default_value = DEFAULT_ADMIN
    )]
    admin: String,
    /// The token of its HTTP API.
    #[arg(long, value_name = "TOKEN", env = "TIDEMILL_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// The host that is asked, and how its answer is told.
#[derive(Debug, clap::Args)]
pub(super) struct HostArgs {
    /// Answer in JSON.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) running: RunningHost,
}

/// Why a host did not do what it was asked.
#[derive(Clone, Debug)]
pub(super) struct HostRefusal {
    pub(super) cause: RefusalCause,
    /// For people, without a hint.
    pub(super) text: String,
    hint: String,
}

#[derive(Clone, Debug)]
pub(super) enum RefusalCause {
    /// The host says so, with this status and body.
    Said(u16, Value),
    /// The host has said nothing, or not all of it.
    Silent,
    /// What listens there is no host.
    Foreign,
    /// Nobody listens there.
    Absent,
}

/// For people, with a hint where there is one.
impl fmt::Display for HostRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "\nhint: {}", self.hint) }
    }
}

/// Asks a host until there is an answer, or a signal comes, and prints what it came to.
pub(super) fn asking<F>(asked: F) -> Exit
where
    F: Future<Output = Result<(String, Exit), HostRefusal>>,
{
    block_on(|shutdown| async move {
        let answered = tokio::select! {
            answered = asked => answered,
            () = shutdown.requested() => return Exit::Interrupted,
        };
        match answered {
            Ok((text, exit)) => answer(&text, exit),
            Err(refusal) => {
                complain(refusal);
                Exit::Failure
            }
        }
    })
}

impl HostArgs {
    /// Asks the host, as [`RunningHost::ask`].
    pub(super) async fn ask(&self, request: ApiRequest, shape: AnswerShape) -> Result<Value, HostRefusal> {
        self.running.ask(request, shape).await
    }

    /// An answer for machines, or for people.
    pub(super) fn shown(&self, answer: &Value, for_people: impl FnOnce(&Value) -> String) -> String {
        if self.json { format!("{answer:#}\n") } else { for_people(answer) }
    }
}

impl RunningHost {
    /// Whether it is the host that is asked if none is named.
    pub(super) fn is_default(&self) -> bool {
        self.admin == DEFAULT_ADMIN
    }

    /// Asks a host for what it tells in an answer of this shape.
    ///
    /// # Errors
    /// It does not do what it is asked, or no host answers.
    pub(super) async fn ask(&self, request: ApiRequest, shape: AnswerShape) -> Result<Value, HostRefusal> {
        let (status, answer) = self.exchange(request).await?;
        if (200..300).contains(&status) && shape.fits(&answer) {
            Ok(answer)
        } else {
            Err(self.refused(status, answer))
        }
    }

    /// Asks a host for something that it tells with one of these statuses, whether that is good or bad.
    ///
    /// # Errors
    /// It tells something else, or no host answers.
    pub(super) async fn ask_either(
        &self,
        request: ApiRequest,
        shape: AnswerShape,
        statuses: [u16; 2],
    ) -> Result<(u16, Value), HostRefusal> {
        let (status, answer) = self.exchange(request).await?;
        if statuses.contains(&status) && shape.fits(&answer) {
            Ok((status, answer))
        } else {
            Err(self.refused(status, answer))
        }
    }

    /// The status and the body of what is answered, null where there is none.
    async fn exchange(&self, request: ApiRequest) -> Result<(u16, Value), HostRefusal> {
        let admin = &self.admin;
        let hint = if request.is_order() { LOG_HINT } else { "" };
        let silent = |text| HostRefusal { cause: RefusalCause::Silent, text, hint: hint.to_owned() };
        let (status, body) = match admin::ask(admin, self.token.as_deref(), request).await {
            Ok(answered) => answered,
            Err(AskError::Absent(error)) => {
                let text = format!("no host answers at {admin}: {error}");
                return Err(HostRefusal { cause: RefusalCause::Absent, text, hint: WHERE_HINT.to_owned() });
            }
            Err(AskError::Foreign(error)) => return Err(self.foreign(&error.to_string())),
            Err(AskError::Broken(error)) => {
                let text =
                    format!("the connection to the host at {admin} broke before it had answered: {error}");
                return Err(silent(text));
            }
            Err(error @ AskError::TimedOut(_)) => {
                let text = format!("the host at {admin} does not answer in time: {error}");
                return Err(silent(text));
            }
        };
        if body.is_empty() && status == NO_CONTENT {
            return Ok((status, Value::Null));
        }
        match serde_json::from_str(&body) {
            Ok(answer) if answer != Value::Null => Ok((status, answer)),
            Ok(_) | Err(_) => Err(self.foreign(&format!("it answers {status}, and no JSON of one"))),
        }
    }

    /// What an answer says that is not what was asked for.
    fn refused(&self, status: u16, answer: Value) -> HostRefusal {
        if status < 400 || !REFUSAL.fits(&answer) {
            return self.foreign(&format!("it answers {status}, and not as one would"));
        }
        let said = |key: &str| answer["error"][key].as_str().unwrap_or_default().to_owned();
        let hint = match status {
            401 => "`--token`, or TIDEMILL_TOKEN, is the token of its [admin]".to_owned(),
            _ => in_commands(&said("hint")),
        };
        HostRefusal { text: said("message"), hint, cause: RefusalCause::Said(status, answer) }
    }

    fn foreign(&self, why: &str) -> HostRefusal {
        let text = format!("{} does not answer as a Tidemill host: {why}", self.admin);
        HostRefusal { cause: RefusalCause::Foreign, text, hint: WHERE_HINT.to_owned() }
    }
}

/// A hint of the API with commands in the place of requests.
fn in_commands(hint: &str) -> String {
    let mut hint = hint.to_owned();
    // What begins with another goes first.
    let mut commands = COMMANDS;
    commands.sort_by_key(|(request, _)| std::cmp::Reverse(request.len()));
    for (request, command) in commands {
        hint = hint.replace(request, &format!("`{command}`"));
    }
    hint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_that_a_hint_names_is_told_as_a_command() {
        let sources = [
            include_str!("../admin/api_error.rs"),
            include_str!("../admin/connections.rs"),
            include_str!("../admin/dead_letters.rs"),
            include_str!("../admin/pipelines.rs"),
            include_str!("../admin/plugins.rs"),
        ];
        let texts = sources.into_iter().flat_map(|source| source.split('"'));
        let named: Vec<_> = texts.filter(|text| text.contains(" /api/v1/")).collect();
        assert!(named.len() > 5, "{named:?}");
        for text in named {
            assert!(!in_commands(text).contains("/api/"), "{text}");
        }
        assert_eq!(in_commands("GET /api/v1/pipelines lists them"), "`tidemill pipelines list` lists them");
    }
}
