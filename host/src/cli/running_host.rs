//! The running host that a command asks through its HTTP API.

use super::{Exit, answer, block_on, complain};
use crate::admin::{self, ApiRequest, AskError};
use serde_json::Value;
use std::fmt;

/// Where a host listens if nobody says otherwise.
const DEFAULT_ADMIN: &str = "127.0.0.1:10080";
/// Where a host says its address.
const WHERE_HINT: &str = "\nhint: `--admin`, or TIDEMILL_ADMIN, is the `listen` of its [admin]";

#[derive(Debug, clap::Args)]
pub(super) struct RunningHost {
    /// The address of the HTTP API of a running host.
    #[arg(
        long,
        value_name = "ADDR",
        value_parser = super::admin_address,
        env = "TIDEMILL_ADMIN",
        default_value = DEFAULT_ADMIN
    )]
    admin: String,
    /// The token of its HTTP API.
    #[arg(long, value_name = "TOKEN", env = "TIDEMILL_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// What came of asking a host.
pub(super) enum HostAnswer {
    /// It did what it was asked, and answers this; nothing is null.
    Done(Value),
    /// It did not, and says why.
    Refused(HostRefusal),
    /// Nobody listens there, and why.
    Absent(String),
}

/// Why a host did not do what it was asked.
#[derive(Clone, Debug)]
pub(super) struct HostRefusal {
    /// The status and the body of its answer, if it gave one as a host does.
    pub(super) answer: Option<(u16, Value)>,
    text: String,
}

impl HostRefusal {
    fn silent(text: String) -> Self {
        Self { answer: None, text }
    }
}

/// For people, with a hint where there is one.
impl fmt::Display for HostRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
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

impl RunningHost {
    /// The status and the body of what a host answers, whatever it is.
    ///
    /// # Errors
    /// Nobody answers there.
    pub(super) async fn exchange(&self, request: ApiRequest) -> Result<(u16, String), AskError> {
        admin::ask(&self.admin, self.token.as_deref(), request).await
    }

    /// Asks a host, and takes what it answers for what a host of this version does.
    pub(super) async fn ask(&self, request: ApiRequest) -> HostAnswer {
        match self.exchange(request).await {
            Ok((status, body)) => self.taken(status, &body),
            Err(error @ AskError::Absent(_)) => HostAnswer::Absent(self.silence(&error)),
            Err(error) => HostAnswer::Refused(HostRefusal::silent(self.silence(&error))),
        }
    }

    /// Whether it is the host that is asked if none is named.
    pub(super) fn is_default(&self) -> bool {
        self.admin == DEFAULT_ADMIN
    }

    /// Asks a host that has to be there for another version of a plugin, and gives the verdict: of one that does not
    /// run as well, which a host answers as a conflict.
    ///
    /// # Errors
    /// Nothing was tried, or nobody answers.
    pub(super) async fn verdict(&self, request: ApiRequest) -> Result<Value, HostRefusal> {
        let (status, body) = match self.exchange(request).await {
            Ok(answer) => answer,
            Err(error) => {
                let hint = if matches!(error, AskError::Absent(_)) { WHERE_HINT } else { "" };
                return Err(HostRefusal::silent(format!("{}{hint}", self.silence(&error))));
            }
        };
        let verdict =
            serde_json::from_str::<Value>(&body).ok().filter(|answer| answer["outcome"].is_string());
        if let (200 | 409, Some(verdict)) = (status, verdict) {
            return Ok(verdict);
        }
        match self.taken(status, &body) {
            HostAnswer::Refused(refusal) => Err(refusal),
            HostAnswer::Done(_) | HostAnswer::Absent(_) => Err(self.strange(status)),
        }
    }

    /// What an answer means.
    fn taken(&self, status: u16, body: &str) -> HostAnswer {
        let answer = serde_json::from_str(body).ok().or_else(|| body.is_empty().then_some(Value::Null));
        match answer {
            Some(answer) if (200..300).contains(&status) => HostAnswer::Done(answer),
            Some(answer) if answer["error"]["message"].is_string() => {
                let text = |key: &str| answer["error"][key].as_str().unwrap_or_default().to_owned();
                let hint = match (status, text("hint")) {
                    (401, _) => "`--token`, or TIDEMILL_TOKEN, is the token of its [admin]".to_owned(),
                    (_, hint) => hint,
                };
                let hint = if hint.is_empty() { hint } else { format!("\nhint: {hint}") };
                let text = format!("{}{hint}", text("message"));
                HostAnswer::Refused(HostRefusal { answer: Some((status, answer)), text })
            }
            _ => HostAnswer::Refused(self.strange(status)),
        }
    }

    fn strange(&self, status: u16) -> HostRefusal {
        let admin = &self.admin;
        HostRefusal::silent(format!(
            "what listens at {admin} answers {status}, and not as a host of this version does"
        ))
    }

    /// Asks a host that has to be there.
    ///
    /// # Errors
    /// It does not do what it is asked, or nobody answers.
    pub(super) async fn demand(&self, request: ApiRequest) -> Result<Value, HostRefusal> {
        match self.ask(request).await {
            HostAnswer::Done(answer) => Ok(answer),
            HostAnswer::Refused(refusal) => Err(refusal),
            HostAnswer::Absent(why) => Err(HostRefusal::silent(format!("{why}{WHERE_HINT}"))),
        }
    }

    /// In a sentence that nobody answers, or not as a host does.
    pub(super) fn silence(&self, error: &AskError) -> String {
        match error {
            AskError::Absent(error) => format!("no host answers at {}: {error}", self.admin),
            AskError::Broken(error) => format!("what listens at {} is no host: {error}", self.admin),
            AskError::TimedOut(_) => format!("the host at {} does not answer in time", self.admin),
        }
    }
}
