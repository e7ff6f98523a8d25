//! `tidemill state`: what plugins know, listed, exported and cleared.
//!
//! A running host is asked, since it has the files open and knows what is in memory alone. Where none answers, or a
//! configuration is named, its folder of state is read.

use super::arguments::{CONFIG_FILE, ConfigFile, name};
use super::readable::{since, text};
use super::running_host::{RefusalCause, RunningHost};
use super::shape::AnswerShape;
use super::table::table;
use super::{Exit, answer, block_on, complain, is_terminal, tell};
use crate::admin::{ApiRequest, exported, listed};
use crate::config::units;
use crate::store::StoreFolder;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::path::PathBuf;

/// What a host tells of all that is kept, and of what one pipeline knows.
const LISTED: AnswerShape = AnswerShape::Object(&[("pipelines", AnswerShape::List(&LISTED_PIPELINE))]);
const LISTED_PIPELINE: AnswerShape = AnswerShape::Object(&[
    ("pipeline", AnswerShape::Text),
    (
        "transforms",
        AnswerShape::List(&AnswerShape::Object(&[
            ("transform", AnswerShape::Text),
            ("keys", AnswerShape::Count),
        ])),
    ),
]);
const EXPORTED: AnswerShape =
    AnswerShape::Object(&[("transforms", AnswerShape::Each(&AnswerShape::Object(&[])))]);

#[derive(Debug, clap::Subcommand)]
pub(super) enum StateCommand {
    /// List what is kept of pipelines and of their transforms, how much it is, and when it was written.
    List(StateList),
    /// Print all that is kept of a pipeline, or of one of its transforms, as JSON.
    Export(StateOf),
    /// Forget what is kept of a pipeline, or of one of its transforms. The pipeline must not run.
    Clear(StateOf),
}

#[derive(Debug, clap::Args)]
pub(super) struct StateList {
    /// The pipeline; all of them if none is named.
    #[arg(value_parser = name)]
    pipeline: Option<String>,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: StatePlace,
}

#[derive(Debug, clap::Args)]
pub(super) struct StateOf {
    /// The pipeline.
    #[arg(value_parser = name)]
    pipeline: String,
    /// The label of one of its transforms; all of them if none is named.
    #[arg(value_parser = name)]
    transform: Option<String>,
    #[command(flatten)]
    place: StatePlace,
}

#[derive(Debug, clap::Args)]
struct StatePlace {
    /// Read the folder that this configuration names, and ask no host.
    #[arg(short = 'c', long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    host: RunningHost,
}

impl StateCommand {
    pub(super) fn execute(self) -> Exit {
        block_on(|shutdown| async move {
            let answered = async {
                match &self {
                    Self::List(list) => list.answer().await,
                    Self::Export(of) => of.export().await,
                    Self::Clear(of) => of.clear().await,
                }
            };
            let answered = tokio::select! {
                answered = answered => answered,
                () = shutdown.requested() => return Exit::Interrupted,
            };
            match answered {
                Ok(text) => answer(&text, Exit::Success),
                Err(failed) => failed.told(),
            }
        })
    }
}

impl StateList {
    async fn answer(&self) -> Result<String, StateFailure> {
        let mut all = match self.place.asked("GET", "/api/v1/state", LISTED).await? {
            Asked::Host(all) => all,
            Asked::Folder(folder) => {
                folder.with(|folder| folder.list().map(|on_disk| listed(&on_disk, &[]))).await?
            }
        };
        let pipelines = all.get_mut("pipelines").and_then(Value::as_array_mut);
        if let (Some(name), Some(pipelines)) = (&self.pipeline, pipelines) {
            pipelines.retain(|each| each["pipeline"] == **name);
            if pipelines.is_empty() {
                return Err(StateFailure::Otherwise(format!("nothing is kept of pipeline \"{name}\"")));
            }
        }
        Ok(if self.json { format!("{all:#}\n") } else { as_table(&all) })
    }
}

impl StateOf {
    async fn export(&self) -> Result<String, StateFailure> {
        let exported = match self.place.asked("GET", &self.path(), EXPORTED).await? {
            Asked::Host(exported) => exported,
            Asked::Folder(folder) => {
                let (pipeline, transform) = (self.pipeline.clone(), self.transform.clone());
                let read = move |folder: &mut StoreFolder| {
                    folder.read(&pipeline).map(|kept| exported(kept.iter(), transform.as_deref()))
                };
                folder.with(read).await?.ok_or_else(|| self.nothing())?
            }
        };
        Ok(format!("{exported:#}\n"))
    }

    async fn clear(&self) -> Result<String, StateFailure> {
        if let Asked::Folder(folder) = self.place.asked("DELETE", &self.path(), AnswerShape::Nothing).await? {
            let (pipeline, transform) = (self.pipeline.clone(), self.transform.clone());
            let clear = move |folder: &mut StoreFolder| folder.clear(&pipeline, transform.as_deref());
            if !folder.with(clear).await? {
                return Err(self.nothing());
            }
        }
        Ok(format!("cleared: {}\n", self.shown()))
    }

    fn path(&self) -> String {
        let parts = std::iter::once(&self.pipeline).chain(&self.transform);
        let encoded = parts.map(|part| format!("/{}", utf8_percent_encode(part, NON_ALPHANUMERIC)));
        format!("/api/v1/state{}", encoded.collect::<String>())
    }

    fn shown(&self) -> String {
        match &self.transform {
            None => format!("pipeline \"{}\"", self.pipeline),
            Some(transform) => format!("transform \"{transform}\" of pipeline \"{}\"", self.pipeline),
        }
    }

    fn nothing(&self) -> StateFailure {
        StateFailure::Otherwise(format!(
            "nothing is kept of {}\nhint: `tidemill state list` shows what is",
            self.shown()
        ))
    }
}

/// Why a command does not do what it was asked.
enum StateFailure {
    /// The configuration is wrong; this says where.
    Configuration(String),
    /// Anything else.
    Otherwise(String),
}

impl StateFailure {
    fn told(self) -> Exit {
        match self {
            Self::Configuration(errors) => {
                tell(errors);
                Exit::Configuration
            }
            Self::Otherwise(error) => {
                complain(error);
                Exit::Failure
            }
        }
    }
}

/// Who has answered, or is to be read.
enum Asked {
    Host(Value),
    Folder(StateFolderOf),
}

/// The folder of state of a configuration.
struct StateFolderOf(StoreFolder);

impl StatePlace {
    /// Asks the host, and falls back on the folder.
    async fn asked(
        &self,
        method: &'static str,
        path: &str,
        shape: AnswerShape,
    ) -> Result<Asked, StateFailure> {
        let file = match &self.config {
            Some(file) => file.clone(),
            None => match self.host.ask(ApiRequest::new(method, path), shape).await {
                Ok(answer) => return Ok(Asked::Host(answer)),
                Err(refusal) if matches!(refusal.cause, RefusalCause::Absent) => {
                    tell(format!("note: {}; the folder of state is read\n", refusal.text));
                    CONFIG_FILE.into()
                }
                Err(refusal) => return Err(StateFailure::Otherwise(refusal.to_string())),
            },
        };
        let config = ConfigFile { file }.load_or_default();
        let config = config.map_err(|errors| StateFailure::Configuration(errors.render(is_terminal())))?;
        let folder = StoreFolder::new(&config.state.dir, config.state.max_size_bytes);
        Ok(Asked::Folder(StateFolderOf(folder)))
    }
}

impl StateFolderOf {
    /// Does something that waits for the disk.
    async fn with<T: Send + 'static>(
        self,
        body: impl FnOnce(&mut StoreFolder) -> Result<T, crate::store::StoreError> + Send + 'static,
    ) -> Result<T, StateFailure> {
        let mut folder = self.0;
        let done = tokio::task::spawn_blocking(move || body(&mut folder)).await;
        let done = done.map_err(|error| StateFailure::Otherwise(error.to_string()))?;
        done.map_err(|error| StateFailure::Otherwise(error.to_string()))
    }
}

fn as_table(all: &Value) -> String {
    let pipelines = all["pipelines"].as_array().into_iter().flatten();
    let rows = pipelines.flat_map(|pipeline| {
        let name = text(&pipeline["pipeline"]);
        let written = match (pipeline["error"].as_str(), pipeline["written"].as_u64()) {
            (Some(error), _) => error.to_owned(),
            (None, Some(ms)) => since(ms),
            (None, None) => String::new(),
        };
        let mut rows: Vec<_> = pipeline["transforms"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|transform| {
                let is_durable = transform["durable"] == true;
                let size = |key: &str| units::show_size(transform[key].as_u64().unwrap_or(0));
                [
                    name.clone(),
                    text(&transform["transform"]),
                    if is_durable { "durable" } else { "memory" }.to_owned(),
                    transform["keys"].to_string(),
                    size("state_bytes"),
                    size("snapshot_bytes"),
                    if is_durable { written.clone() } else { String::new() },
                ]
            })
            .collect();
        if rows.is_empty() {
            let nothing = || "-".to_owned();
            rows.push([name, nothing(), nothing(), nothing(), nothing(), nothing(), written]);
        }
        rows
    });
    table(["PIPELINE", "TRANSFORM", "STATE", "KEYS", "VALUES", "SNAPSHOTS", "WRITTEN"], rows)
}
