//! `tidemill health`: whether a running host is well, for health checks where there is no `curl`.

use super::Exit;
use super::arguments::duration;
use super::running_host::{RunningHost, asking};
use super::shape::AnswerShape;
use crate::admin::ApiRequest;
use std::time::Duration;

/// Longest that an answer may take, unless `--timeout` says otherwise.
const TIMEOUT: &str = "5s";
/// What a host says of itself, and of its pipelines.
const HEALTH: AnswerShape = AnswerShape::Object(&[("status", AnswerShape::Text)]);
const READINESS: AnswerShape = AnswerShape::Object(&[("ready", AnswerShape::Flag)]);

#[derive(Debug, clap::Args)]
pub(super) struct Health {
    /// Ask whether all its pipelines are ready, too.
    #[arg(long)]
    ready: bool,
    /// The longest time that the answer may take.
    #[arg(long, value_parser = duration, value_name = "DURATION", default_value = TIMEOUT)]
    timeout: Duration,
    #[command(flatten)]
    host: RunningHost,
}

impl Health {
    pub(super) fn execute(self) -> Exit {
        asking(async move {
            let (path, shape) = if self.ready { ("/readyz", READINESS) } else { ("/healthz", HEALTH) };
            let request = ApiRequest::new("GET", path).within(self.timeout);
            let (status, answer) = self.host.ask_either(request, shape, [200, 503]).await?;
            let exit = if status == 200 { Exit::Success } else { Exit::Failure };
            Ok((format!("{answer}\n"), exit))
        })
    }
}
