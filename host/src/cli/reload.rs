//! `tidemill reload`: a running host reads its configuration file again.

use super::running_host::{HostRefusal, RunningHost};
use super::table::table;
use super::{Exit, answer, block_on, complain, tell};
use crate::admin::ApiRequest;
use serde_json::Value;
use std::time::Duration;

/// Longest that a reload may take: pipelines that are replaced or removed drain, and plugins are compiled.
const TIMEOUT: Duration = Duration::from_mins(15);

#[derive(Debug, clap::Args)]
pub(super) struct ReloadArgs {
    /// Say what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: RunningHost,
}

impl ReloadArgs {
    pub(super) fn execute(self) -> Exit {
        block_on(|shutdown| async move {
            let path = if self.dry_run { "/api/v1/reload?dry_run=true" } else { "/api/v1/reload" };
            let asked = self.host.demand(ApiRequest::new("POST", path).within(TIMEOUT));
            let answered = tokio::select! {
                biased;
                () = shutdown.requested() => return Exit::Interrupted,
                answered = asked => answered,
            };
            match answered {
                Ok(report) => self.tell(&report),
                Err(refusal) => self.refused(&refusal),
            }
        })
    }

    /// Tells what was done, or would be. A pipeline that goes on as it was, though it was to change, is a failure.
    fn tell(&self, report: &Value) -> Exit {
        let pipelines = report["pipelines"].as_array().map_or(&[][..], Vec::as_slice);
        let failed = pipelines.iter().filter_map(|told| Some((told, told["error"].as_str()?)));
        let failed: Vec<_> = failed.collect();
        let exit = if failed.is_empty() { Exit::Success } else { Exit::Failure };
        if self.json {
            return answer(&format!("{report}\n"), exit);
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| {
            let all = value.as_array().into_iter().flatten().map(text);
            all.collect::<Vec<_>>().join("; ")
        };
        let rows = pipelines
            .iter()
            .map(|told| [text(&told["pipeline"]), text(&told["class"]), list(&told["reasons"])]);
        let shown = table(["PIPELINE", "CLASS", "REASONS"], rows);
        for told in pipelines {
            let warnings = told["warnings"].as_array().into_iter().flatten();
            warnings.for_each(|warning| {
                tell(format!("warning: {}: {}\n", text(&told["pipeline"]), text(warning)));
            });
        }
        let later = list(&report["restart_required"]);
        if !later.is_empty() {
            tell(format!(
                "warning: what has changed here counts from the next start of the host on: {later}\n"
            ));
        }
        for (told, error) in failed {
            tell(format!("error: pipeline {} goes on as it was: {error}\n", text(&told["pipeline"])));
        }
        answer(&shown, exit)
    }

    /// Says why nothing was done. A configuration that is wrong is told apart.
    fn refused(&self, refusal: &HostRefusal) -> Exit {
        let exit = match &refusal.answer {
            Some((422, _)) => Exit::Configuration,
            _ => Exit::Failure,
        };
        if let (true, Some((_, said))) = (self.json, &refusal.answer) {
            return answer(&format!("{said}\n"), exit);
        }
        complain(refusal);
        exit
    }
}
