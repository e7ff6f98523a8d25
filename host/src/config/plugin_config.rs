//! The configuration of a transform's plugin: a table as JSON, in which the texts of files may stand.
//!
//! A `${file:PATH}` in it is data: its text is shown by its path, for it may be long, and is no secret. It is read with
//! the configuration, and again whenever the plugin is loaded anew.

use super::text::SecretError;
use super::{EndpointText, Redacted};

/// What a plugin gets as its configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct PluginConfig {
    written: EndpointText,
    json: Redacted,
}

impl PluginConfig {
    /// A configuration without files.
    pub fn plain(json: impl Into<Redacted>) -> Self {
        let json = json.into();
        Self { written: json.clone().into(), json }
    }

    /// What is written, with the files read that belong into it.
    ///
    /// # Errors
    /// The first of the files that cannot be read.
    pub(super) fn read(written: EndpointText) -> Result<Self, SecretError> {
        Ok(Self { json: written.with_data()?, written })
    }

    /// Whether texts of files belong into it.
    pub fn has_files(&self) -> bool {
        self.written.has_files()
    }

    /// The JSON, with the texts that the files had when they were read last.
    pub fn json(&self) -> &Redacted {
        &self.json
    }

    /// The JSON with the texts that the files have now. Blocks for as long as it takes to read them.
    ///
    /// # Errors
    /// The first of the files that cannot be read.
    pub fn read_again(&self) -> Result<Redacted, SecretError> {
        if self.has_files() { self.written.with_data() } else { Ok(self.json.clone()) }
    }

    /// The same with the texts that an instance was given which runs.
    #[must_use]
    pub fn as_given(&self, json: &Redacted) -> Self {
        if self.has_files() { Self { json: json.clone(), ..self.clone() } } else { self.clone() }
    }

    /// Whether what has changed since is no more than the texts of files.
    pub(super) fn only_files_differ(&self, before: &Self) -> bool {
        self.written == before.written && self.json != before.json
    }
}

impl std::fmt::Debug for PluginConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.json, f)
    }
}

impl std::fmt::Display for PluginConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.json.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FilePath;

    #[test]
    fn files_are_data_that_is_shown_by_its_path_and_read_again_when_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("table.csv");
        let write = |text: &str| std::fs::write(&path, text).expect("it is ours");
        let mut file = EndpointText::plain("");
        file.push_data(FilePath::plain(&path), "${file:table.csv}");
        file.push_hidden("word");
        let mut written = EndpointText::plain("{\"table\":");
        written.push_quoted(&file);
        written.push("}");
        assert!(PluginConfig::read(written.clone()).is_err());
        write("a,\"b\"\n");
        let config = PluginConfig::read(written.clone()).expect("it is there");
        assert_eq!(config.json().expose(), r#"{"table":"a,\"b\"\nword"}"#);
        assert_eq!(config.json().shown(), r#"{"table":"${file:table.csv}***"}"#);
        // Data may be told, and what came from a variable may not.
        assert_eq!(config.json().conceal(r#"what is a,\"b\" to word?"#), r#"what is a,\"b\" to ***?"#);
        write("c");
        assert_eq!(config.read_again().expect("it is there").expose(), r#"{"table":"cword"}"#);
        let again = PluginConfig::read(written).expect("it is there");
        assert!(again.only_files_differ(&config) && again != config);
        assert_eq!(again, config.as_given(again.json()));
        let plain = PluginConfig::plain("{}");
        assert_eq!((plain.has_files(), plain.read_again().expect("no file").expose()), (false, "{}"));
    }
}
