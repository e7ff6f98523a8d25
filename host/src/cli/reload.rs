//! `tidemill reload`: a running host reads its configuration file again.

use super::readable::text;
use super::running_host::{HostArgs, HostRefusal, RefusalCause};
use super::shape::AnswerShape;
use super::table::table;
use super::{Exit, answer, block_on, complain, tell};
use crate::admin::ApiRequest;
use serde_json::Value;
use std::time::Duration;

/// Longest that a reload may take: pipelines that are replaced or removed drain, and plugins are compiled.
const TIMEOUT: Duration = Duration::from_mins(15);

/// What a host tells of a reload.
const REPORT: AnswerShape = AnswerShape::Object(&[
    (
        "pipelines",
        AnswerShape::List(&AnswerShape::Object(&[
            ("pipeline", AnswerShape::Text),
            ("class", AnswerShape::Text),
        ])),
    ),
    ("restart_required", AnswerShape::List(&AnswerShape::Text)),
]);

#[derive(Debug, clap::Args)]
pub(super) struct ReloadArgs {
    /// Say what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    host: HostArgs,
}

impl ReloadArgs {
    pub(super) fn execute(self) -> Exit {
        block_on(|shutdown| async move {
            let path = if self.dry_run { "/api/v1/reload?dry_run=true" } else { "/api/v1/reload" };
            let asked = self.host.ask(ApiRequest::new("POST", path).within(TIMEOUT), REPORT);
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
        if self.host.json {
            return answer(&format!("{report}\n"), exit);
        }
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
        let exit = match &refusal.cause {
            RefusalCause::Said(422, _) => Exit::Configuration,
            _ => Exit::Failure,
        };
        if let (true, RefusalCause::Said(_, said)) = (self.host.json, &refusal.cause) {
            return answer(&format!("{said}\n"), exit);
        }
        complain(refusal);
        exit
    }
}
