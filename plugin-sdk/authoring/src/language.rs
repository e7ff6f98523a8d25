//! The languages that plugins are written in, and the kinds of plugins.

/// A language of plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Rust, by cargo.
    Rust,
    /// JavaScript, by esbuild and componentize-qjs.
    JavaScript,
    /// TypeScript, by the same; its types are checked by tsc.
    TypeScript,
    /// Python, by componentize-py.
    Python,
    /// Go, by Go itself.
    Go,
    /// C, by zig cc.
    C,
}

/// What a plugin is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It decides on messages.
    Transform,
    /// It has the last word on what an endpoint dials.
    Connector,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Rust, Self::JavaScript, Self::TypeScript, Self::Python, Self::Go, Self::C];

    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::JavaScript => "javascript",
            Self::TypeScript => "typescript",
            Self::Python => "python",
            Self::Go => "go",
            Self::C => "c",
        }
    }

    /// As it is called.
    pub fn title(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::JavaScript => "JavaScript",
            Self::TypeScript => "TypeScript",
            Self::Python => "Python",
            Self::Go => "Go",
            Self::C => "C",
        }
    }

    /// The file by which a folder of this language is known.
    pub(crate) fn mark(self) -> &'static str {
        match self {
            Self::Rust => "Cargo.toml",
            Self::Go => "go.mod",
            Self::JavaScript | Self::TypeScript | Self::Python | Self::C => self.main(),
        }
    }

    /// The file that has the plugin.
    pub(crate) fn main(self) -> &'static str {
        match self {
            Self::Rust => "src/lib.rs",
            Self::JavaScript => "plugin.js",
            Self::TypeScript => "plugin.ts",
            Self::Python => "plugin.py",
            Self::Go => "plugin.go",
            Self::C => "plugin.c",
        }
    }

    /// The file that has its tests.
    pub(crate) fn tests(self) -> &'static str {
        match self {
            Self::Rust => "src/lib.rs",
            Self::JavaScript => "plugin.test.js",
            Self::TypeScript => "plugin.test.ts",
            Self::Python => "test_plugin.py",
            Self::Go => "plugin_test.go",
            Self::C => "plugin_test.c",
        }
    }

    /// Whether a file of this name is what a component is made of, by its ending: of the language, or what a build reads
    /// beside it. Tests are not, and neither is what a build writes for itself.
    pub(crate) fn is_source(self, name: &str) -> bool {
        let endings: &[&str] = match self {
            Self::Rust => &["rs", "toml"],
            Self::JavaScript | Self::TypeScript => {
                &["js", "mjs", "cjs", "jsx", "ts", "mts", "cts", "tsx", "json"]
            }
            Self::Python => &["py", "toml"],
            Self::Go => &["go", "mod"],
            Self::C => &["c", "h"],
        };
        let Some((stem, ending)) = name.rsplit_once('.') else { return false };
        let is_test = match self {
            Self::Rust => false,
            Self::JavaScript | Self::TypeScript => stem.ends_with(".test"),
            Self::Python => stem.starts_with("test"),
            Self::Go | Self::C => stem.ends_with("_test"),
        };
        // Temporary files of editors begin with these.
        let is_temporary = name.starts_with(['#', '.']);
        endings.contains(&ending) && !is_test && !is_temporary && name != "package-lock.json"
    }

    /// What runs those tests alone.
    pub(crate) fn native(self) -> &'static str {
        match self {
            Self::Rust => "cargo test",
            Self::JavaScript => "npm install && npm test",
            Self::TypeScript => "tidemill plugin test",
            Self::Python => "PYTHONPATH=sdk/src python3 -m unittest",
            Self::Go => "go test",
            Self::C => "cc plugin_test.c -lm -o plugin_test && ./plugin_test",
        }
    }

    /// Where the SDK says what it has, in the folder of the SDK.
    pub(crate) fn readme(self) -> &'static str {
        if self == Self::Rust { "rust/README.md" } else { "README.md" }
    }
}
