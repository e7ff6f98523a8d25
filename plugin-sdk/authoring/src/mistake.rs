//! Where a compiler says that a mistake is: the first place in the plugin's own source among what it says.

use std::fmt;
use std::path::Path;

/// A mistake in the source of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file, the line and, where it is known, the column: `plugin.js:3:5`.
    pub place: Option<String>,
    /// What is wrong there, in the first words of the compiler.
    pub message: String,
    /// All that the compiler said.
    pub said: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl Mistake {
    /// Reads what a compiler said of sources in a folder.
    pub(crate) fn read(said: &str, folder: &Path) -> Self {
        let found = traced(said, folder).or_else(|| said.lines().find_map(|line| placed(line, folder)));
        let (place, message) = match found {
            Some((place, message)) => (Some(place), message),
            None => (None, first_words(said)),
        };
        Self { place, message, said: said.trim_end().to_owned() }
    }
}

/// `plugin.c:3:5: error: message`, `./plugin.go:3:5: message` and `plugin.ts(3,5): error TS1: message`.
fn placed(line: &str, folder: &Path) -> Option<(String, String)> {
    let line = line.trim_start().trim_start_matches("error: ");
    let (file, rest) = match (line.find(':'), line.find('(')) {
        (colon, Some(bracket)) if colon.is_none_or(|colon| bracket < colon) => {
            let (file, rest) = line.split_at(bracket);
            let (numbers, rest) = rest[1..].split_once("):")?;
            (file, format!("{}:{rest}", numbers.replace(',', ":")))
        }
        (Some(colon), _) => (&line[..colon], line[colon + 1..].to_owned()),
        (None, _) => return None,
    };
    let file = file.trim_start_matches("./");
    if file.is_empty() || !folder.join(file).is_file() {
        return None;
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = rest.splitn(3, ':');
    let number = parts.next().filter(|text| digits(text))?;
    let (column, message) = match (parts.next()?, parts.next()) {
        (column, Some(message)) if digits(column) => (Some(column), message.to_owned()),
        (start, rest) => (None, rest.map_or(start.to_owned(), |rest| format!("{start}:{rest}"))),
    };
    let message = message.trim();
    let message =
        ["error:", "fatal error:"].iter().find_map(|word| message.strip_prefix(word)).unwrap_or(message);
    let file = relative(file, folder);
    let place = column.map_or(format!("{file}:{number}"), |column| format!("{file}:{number}:{column}"));
    Some((place, message.trim().to_owned()))
}

/// The innermost frame of a traceback of Python in the folder, and its last line.
fn traced(said: &str, folder: &Path) -> Option<(String, String)> {
    let mut frames = said.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix("File \"")?;
        let (file, rest) = rest.split_once("\", line ")?;
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let is_own = Path::new(file).strip_prefix(folder).is_ok_and(|file| !file.starts_with("sdk"));
        is_own.then(|| format!("{}:{number}", relative(file, folder)))
    });
    let place = frames.next_back()?;
    let message = said.lines().rev().find(|line| !line.trim().is_empty() && !line.starts_with(' '))?;
    Some((place, message.trim().to_owned()))
}

fn relative(file: &str, folder: &Path) -> String {
    Path::new(file).strip_prefix(folder).map_or_else(|_| file.to_owned(), |file| file.display().to_string())
}

fn first_words(said: &str) -> String {
    let first = said.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let first = first.unwrap_or("the compiler says nothing of why");
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(said: &str, place: Option<&str>, message: &str) {
        let folder = tempfile::tempdir().expect("there is room");
        for file in ["plugin.go", "plugin.c", "plugin.ts", "plugin.py"] {
            std::fs::write(folder.path().join(file), "").expect("it can be written");
        }
        let said = said.replace("FOLDER", &folder.path().display().to_string());
        let mistake = Mistake::read(&said, folder.path());
        assert_eq!((mistake.place.as_deref(), &*mistake.message), (place, message));
        assert_eq!(mistake.said, said.trim_end());
    }

    #[test]
    fn the_place_is_that_of_the_first_mistake_in_the_plugins_own_files() {
        reads(
            "# example.com/fee\n./plugin.go:3:5: undefined: x\n./plugin.go:9:1: more",
            Some("plugin.go:3:5"),
            "undefined: x",
        );
        reads(
            "plugin.c:7:3: error: use of undeclared identifier 'x'\n  7 | x",
            Some("plugin.c:7:3"),
            "use of undeclared identifier 'x'",
        );
        reads(
            "plugin.ts(3,5): error TS2304: Cannot find name 'x'.",
            Some("plugin.ts:3:5"),
            "error TS2304: Cannot find name 'x'.",
        );
        reads("error: plugin.py:12: it has no end", Some("plugin.py:12"), "it has no end");
        reads("error: the linker failed: 3:5: x", None, "the linker failed: 3:5: x");
        reads("", None, "the compiler says nothing of why");
    }

    #[test]
    fn a_traceback_is_told_by_its_innermost_frame_in_the_plugin() {
        reads(
            "error: plugin.py cannot be imported\nTraceback (most recent call last):\n  File \"<string>\", line 3, in <module>\n  \
             File \"FOLDER/plugin.py\", line 7, in <module>\n    x\n  File \"FOLDER/sdk/src/a.py\", line 9, in f\n    y\n\
             NameError: name 'x' is not defined\n",
            Some("plugin.py:7"),
            "NameError: name 'x' is not defined",
        );
    }
}
