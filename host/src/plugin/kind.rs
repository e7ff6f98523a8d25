//! The kinds of plugins.

/// What a plugin is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginKind {
    /// It decides on the messages of a pipeline.
    Transform,
    /// It decides on the connections that an endpoint dials.
    Connector,
}

impl PluginKind {
    /// The kind in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transform => "transform",
            Self::Connector => "connector",
        }
    }
}
