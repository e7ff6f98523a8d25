//! `tidemill health`: whether a running host is well, for health checks where there is no `curl`.

use super::{Exit, answer, block_on, complain};
use crate::admin;
use std::time::Duration;

/// Longest that an answer may take, unless `--timeout` says otherwise.
const TIMEOUT: &str = "5s";

#[derive(Debug, clap::Args)]
pub(super) struct Health {
    /// The address of its HTTP API.
    #[arg(
        long,
        value_name = "ADDR",
        value_parser = super::admin_address,
        env = "TIDEMILL_ADMIN",
        default_value = "127.0.0.1:10080"
    )]
    admin: String,
    /// Ask whether all its pipelines are ready, too.
    #[arg(long)]
    ready: bool,
    /// The longest time that the answer may take.
    #[arg(long, value_parser = super::duration, value_name = "DURATION", default_value = TIMEOUT)]
    timeout: Duration,
}

impl Health {
    pub(super) fn execute(self) -> Exit {
        block_on(|shutdown| async move {
            let path = if self.ready { "/readyz" } else { "/healthz" };
            let asked = tokio::time::timeout(self.timeout, admin::ask(&self.admin, "GET", path, None));
            let answered = tokio::select! {
                answered = asked => answered,
                () = shutdown.requested() => return Exit::Failure,
            };
            match answered {
                Ok(Ok((status, body))) => {
                    let exit = if status == 200 { Exit::Success } else { Exit::Failure };
                    answer(&format!("{}\n", body.trim_end()), exit)
                }
                Ok(Err(error)) => {
                    complain(format!(
                        "no host answers at {}: {error}\nhint: `listen` under [admin] says where one does",
                        self.admin
                    ));
                    Exit::Failure
                }
                Err(_) => {
                    complain(format!("the host at {} does not answer in time", self.admin));
                    Exit::Failure
                }
            }
        })
    }
}
