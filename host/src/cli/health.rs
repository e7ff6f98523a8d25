//! `tidemill health`: whether a running host is well, for health checks where there is no `curl`.

use super::running_host::RunningHost;
use super::{Exit, answer, block_on, complain};
use crate::admin::{ApiRequest, AskError};
use std::time::Duration;

/// Longest that an answer may take, unless `--timeout` says otherwise.
const TIMEOUT: &str = "5s";

#[derive(Debug, clap::Args)]
pub(super) struct Health {
    /// Ask whether all its pipelines are ready, too.
    #[arg(long)]
    ready: bool,
    /// The longest time that the answer may take.
    #[arg(long, value_parser = super::duration, value_name = "DURATION", default_value = TIMEOUT)]
    timeout: Duration,
    #[command(flatten)]
    host: RunningHost,
}

impl Health {
    pub(super) fn execute(self) -> Exit {
        block_on(|shutdown| async move {
            let path = if self.ready { "/readyz" } else { "/healthz" };
            let asked = self.host.exchange(ApiRequest::new("GET", path).within(self.timeout));
            let answered = tokio::select! {
                answered = asked => answered,
                () = shutdown.requested() => return Exit::Failure,
            };
            let error = match answered {
                Ok((status, body)) => {
                    let exit = if status == 200 { Exit::Success } else { Exit::Failure };
                    return answer(&format!("{}\n", body.trim_end()), exit);
                }
                Err(error) => error,
            };
            let hint = match error {
                AskError::TimedOut(_) => "",
                _ => "\nhint: `listen` under [admin] says where one does",
            };
            complain(format!("{}{hint}", self.host.silence(&error)));
            Exit::Failure
        })
    }
}
