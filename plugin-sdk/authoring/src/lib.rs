//! The folder of a plugin: made from a template, built by the toolchain of its language, and tested.
//!
//! It is the only door to those toolchains. What is to be said meanwhile goes to a [`Progress`]; nothing is printed here.
//!
#![doc = include_str!("../README.md")]

mod c;
mod command;
mod create;
mod embedded;
mod error;
mod go;
mod javascript;
mod language;
mod manifest;
mod mistake;
mod project;
mod python;
mod rust;
mod tools;

pub use command::stop_programs;
pub use create::{CreateError, check_name, create};
pub use error::BuildError;
pub use language::{Kind, Language};
pub use mistake::Mistake;
pub use project::{Effort, Project, ProjectError};
pub use tools::Tools;

/// Whoever is told in a line what is being done now.
pub type Progress<'a> = &'a dyn Fn(&str);
