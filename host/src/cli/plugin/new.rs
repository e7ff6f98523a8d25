//! `tidemill plugin new`: the folder of a plugin that works, with its SDK, its tests and a recorded case.

use crate::cli::{Exit, answer, complain};
use std::path::Path;
use tidemill_authoring::{CreateError, Kind, Language, create};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PluginNew {
    /// The name of the plugin, and of its folder.
    name: String,
    /// The language that it is written in.
    #[arg(long, value_enum, value_name = "LANGUAGE")]
    lang: LanguageArg,
    /// What it is there for: to decide on messages, or on what an endpoint dials.
    #[arg(long, value_enum, default_value = "transform", value_name = "KIND")]
    kind: KindArg,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum LanguageArg {
    Rust,
    #[value(name = "javascript", alias = "js")]
    JavaScript,
    #[value(name = "typescript", alias = "ts")]
    TypeScript,
    Python,
    Go,
    C,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum KindArg {
    Transform,
    Connector,
}

impl PluginNew {
    pub(super) fn execute(self) -> Exit {
        let language = match self.lang {
            LanguageArg::Rust => Language::Rust,
            LanguageArg::JavaScript => Language::JavaScript,
            LanguageArg::TypeScript => Language::TypeScript,
            LanguageArg::Python => Language::Python,
            LanguageArg::Go => Language::Go,
            LanguageArg::C => Language::C,
        };
        let (kind, next) = match self.kind {
            KindArg::Transform => (Kind::Transform, "dev"),
            KindArg::Connector => (Kind::Connector, "plugin test"),
        };
        let name = self.name;
        match create(Path::new(""), &name, language, kind) {
            Ok(_) => answer(
                &format!(
                    "{name}/ is written: {name}/README.md says what is in it; next\n\n    tidemill {next} {name}\n"
                ),
                Exit::Success,
            ),
            Err(error) => {
                let hint = match &error {
                    CreateError::Name { .. } => "\nhint: such as `fee` or `json-only`",
                    CreateError::Exists(_) => "\nhint: choose another name, or remove it first",
                    CreateError::Write { .. } => "",
                };
                let is_asked_wrongly = matches!(error, CreateError::Name { .. });
                complain(format!("{error}{hint}"));
                if is_asked_wrongly { Exit::Usage } else { Exit::Failure }
            }
        }
    }
}
