//! The running host that a command asks through its HTTP API.

use crate::admin::{self, AskError};
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// Longest that a host may take to answer.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct RunningHost {
    /// The address of the HTTP API of a running host.
    #[arg(
        long,
        value_name = "ADDR",
        value_parser = super::admin_address,
        env = "TIDEMILL_ADMIN",
        default_value = "127.0.0.1:10080"
    )]
    pub(super) admin: String,
    /// The token of its HTTP API.
    #[arg(long, value_name = "TOKEN", env = "TIDEMILL_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// What came of asking a host.
pub(super) enum HostAnswer {
    /// It did what it was asked, and answers this; nothing is null.
    Done(Value),
    /// It did not, and says why; for people.
    Refused(String),
    /// Nobody listens there, and why.
    Absent(String),
}

impl RunningHost {
    /// Asks for a path, without a body.
    pub(super) async fn ask(&self, method: &str, path: &str) -> HostAnswer {
        let asked = admin::ask(&self.admin, method, path, self.token.as_deref());
        let (status, body) = match timeout(TIMEOUT, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(AskError::Absent(error))) => {
                return HostAnswer::Absent(format!("no host answers at {}: {error}", self.admin));
            }
            Ok(Err(AskError::Broken(error))) => {
                return HostAnswer::Refused(format!("what listens at {} is no host: {error}", self.admin));
            }
            Err(_) => {
                let text = format!("the host at {} does not answer in time", self.admin);
                return HostAnswer::Refused(text);
            }
        };
        let answer = serde_json::from_str(&body).ok().or_else(|| body.is_empty().then_some(Value::Null));
        match answer {
            Some(answer) if (200..300).contains(&status) => HostAnswer::Done(answer),
            Some(answer) if answer["error"]["message"].is_string() => {
                let text = |key: &str| answer["error"][key].as_str().unwrap_or_default().to_owned();
                let hint = match (status, text("hint")) {
                    (401, _) => "`--token`, or TIDEMILL_TOKEN, is the token of its [admin]".to_owned(),
                    (_, hint) => hint,
                };
                let hint = if hint.is_empty() { hint } else { format!("\nhint: {hint}") };
                HostAnswer::Refused(format!("{}{hint}", text("message")))
            }
            _ => HostAnswer::Refused(format!(
                "what listens at {} answers {status}, and not as a host of this version does",
                self.admin
            )),
        }
    }
}
