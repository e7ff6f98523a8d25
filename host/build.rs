//! Puts what `TIDEMILL_BUILTIN_DIR` has into the program: shipped plugins, the recording of the demo, and
//! the reference of the configuration.
//!
//! `cargo xtask install` and `cargo xtask dist` fill such a folder and name it. Where nothing is named, the
//! program is complete but for those. The files are taken as they are: five plugins are 1.3 MB beside
//! 25 MB of code, and an archive packs both.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The folder to take files from.
const VARIABLE: &str = "TIDEMILL_BUILTIN_DIR";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let folder = env::var_os(VARIABLE).map(PathBuf::from);
    let mut plugins = String::new();
    for file in components(folder.as_deref())? {
        let name = file.file_stem().and_then(|name| name.to_str()).ok_or("a plugin's name is not UTF-8")?;
        writeln!(plugins, "    ({name:?}, include_bytes!({:?})),", taken(&file)?)?;
    }
    let recording = whole(folder.as_deref(), "recording.jsonl.gz")?;
    let reference = whole(folder.as_deref(), "configuration.md")?;
    let table = format!(
        "static PLUGINS: &[(&str, &[u8])] = &[\n{plugins}];\n\
         static RECORDING: Option<&[u8]> = {recording};\n\
         static REFERENCE: Option<&[u8]> = {reference};\n"
    );
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo says where to write")?);
    Ok(fs::write(out.join("builtin.rs"), table)?)
}

/// The plugins of the folder, in the order of their names.
fn components(folder: Option<&Path>) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let Some(folder) = folder else { return Ok(Vec::new()) };
    let folder = folder.join("plugins");
    println!("cargo::rerun-if-changed={}", folder.display());
    let listed =
        fs::read_dir(&folder).map_err(|error| format!("{VARIABLE}: {}: {error}", folder.display()))?;
    let mut files: Vec<_> = listed.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.retain(|file| file.extension().is_some_and(|is| is == "wasm"));
    files.sort();
    Ok(files)
}

/// One file of the folder, as an expression.
fn whole(folder: Option<&Path>, name: &str) -> Result<String, Box<dyn Error>> {
    let Some(folder) = folder else { return Ok("None".to_owned()) };
    Ok(format!("Some(include_bytes!({:?}))", taken(&folder.join(name))?))
}

/// The absolute path of a file that is taken; the build follows its changes.
fn taken(file: &Path) -> Result<PathBuf, Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", file.display());
    Ok(file.canonicalize().map_err(|error| format!("{VARIABLE}: {}: {error}", file.display()))?)
}
