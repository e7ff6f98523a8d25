//! `cargo xtask dist`: what is published of a version, in `target/dist`.
//!
//! One static binary for Linux is built, and packed as an archive, as a Debian package and beside a
//! Containerfile; each has manual pages, completions and the documents of this checkout. `SHA256SUMS`
//! names what is there. Everything is packed with fixed times and owners, so that the same binary gives
//! the same files.

mod archive;
mod debian;

use crate::builtin;
use crate::tools::{self, Result, Tools, cargo, root, run, run_quietly, say, target};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

/// What the binary is built for: with musl, it needs no library of the system.
const TARGET: &str = "x86_64-unknown-linux-musl";
/// The same in Debian's words.
const ARCHITECTURE: &str = "amd64";
/// Of a path in a package, where its parts come from.
const PARTS: &str = "xtask/package";

/// What is to be packed, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to pack; all, if nothing is said.
    #[arg(value_enum)]
    packages: Vec<Package>,
    /// The folder that the packages are put in.
    #[arg(short, long, value_name = "DIR", default_value = "target/dist")]
    out: PathBuf,
    /// Pack this binary, instead of building one: it runs where its libraries are.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// What can be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Package {
    /// `tidemill-VERSION-TARGET.tar.gz`, for any Linux.
    Archive,
    /// `tidemill_VERSION_ARCHITECTURE.deb`.
    Debian,
    /// A folder to build an image of a container from.
    Container,
}

/// What every package is made of.
struct Contents {
    version: String,
    binary: PathBuf,
    /// A folder with a page for each command.
    man: PathBuf,
    /// A script for each shell.
    completions: Vec<Completions>,
    /// The Markdown reference of the configuration, as the binary prints it.
    reference: String,
}

/// A script that completes commands.
struct Completions {
    /// Its name where the archive has it.
    name: &'static str,
    /// Where the Debian package has it.
    installed: &'static str,
    script: Vec<u8>,
}

/// The shells that have a place for completions in a system, the scripts' names, and those places.
const SHELLS: [(&str, &str, &str); 3] = [
    ("bash", "tidemill.bash", "usr/share/bash-completion/completions/tidemill"),
    ("zsh", "_tidemill", "usr/share/zsh/vendor-completions/_tidemill"),
    ("fish", "tidemill.fish", "usr/share/fish/vendor_completions.d/tidemill.fish"),
];

/// Builds the binary, unless one is given, and packs it.
///
/// # Errors
/// A tool is missing, something does not build, or a file cannot be written.
pub(crate) fn run_dist(args: &Args) -> Result {
    let binary = match &args.binary {
        Some(binary) => binary.canonicalize().map_err(|error| format!("{}: {error}", binary.display()))?,
        None => build()?,
    };
    fs::create_dir_all(&args.out)?;
    let out = args.out.canonicalize()?;
    let work = out.join(".work");
    remove(&work)?;
    let contents = Contents::of(binary, &work)?;
    let mut made = Vec::new();
    for package in [Package::Archive, Package::Debian, Package::Container] {
        if !args.packages.is_empty() && !args.packages.contains(&package) {
            continue;
        }
        made.push(match package {
            Package::Archive => archive::pack(&contents, &work, &out)?,
            Package::Debian => debian::pack(&contents, &work, &out)?,
            Package::Container => container(&contents, &out)?,
        });
    }
    remove(&work)?;
    let sums = Command::new("sha256sum").current_dir(&out).args(&made).output()?;
    if !sums.status.success() {
        return Err("sha256sum failed".into());
    }
    fs::write(out.join("SHA256SUMS"), &sums.stdout)?;
    for name in &made {
        let bytes = fs::metadata(out.join(name))?.len();
        say(&format!("{:>7} KiB  {}", bytes.div_ceil(1024), out.join(name).display()));
    }
    Ok(())
}

/// The files that the Containerfile asks for. Gives the binary's name.
fn container(contents: &Contents, out: &Path) -> Result<String> {
    let name = "tidemill";
    fs::copy(&contents.binary, out.join(name))?;
    for part in ["Containerfile", "container.toml"] {
        fs::copy(root().join(PARTS).join(part), out.join(part))?;
    }
    // The folder of its state, empty and of its user.
    fs::create_dir_all(out.join("state"))?;
    Ok(name.to_owned())
}

/// The static binary, with everything built in.
fn build() -> Result<PathBuf> {
    let folder = builtin::stage()?;
    tools::add_target(TARGET, "which needs no library of the system")?;
    let path = match tools::packaging()? {
        Tools::In(folder) => folder,
        Tools::Missing(why) => return Err(format!("the static binary cannot be built: {why}").into()),
    };
    say("building the static binary; the first time this compiles wasmtime, which takes some minutes");
    let others = env::var_os("PATH").unwrap_or_default();
    let search = env::join_paths(std::iter::once(path).chain(env::split_paths(&others)))?;
    let mut build = cargo();
    // Debug information is a multiple of the code.
    build.env("PATH", search).env(builtin::VARIABLE, folder).env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    build.args(["zigbuild", "--release", "--locked", "--package", "tidemill", "--bin", "tidemill"]);
    run(build.args(["--target", TARGET]))?;
    Ok(target().join(TARGET).join("release/tidemill"))
}

impl Contents {
    /// What a binary says of itself.
    fn of(binary: PathBuf, work: &Path) -> Result<Self> {
        let said = |arguments: &[&str]| -> Result<Vec<u8>> {
            let output = Command::new(&binary).args(arguments).stdin(Stdio::null()).output();
            let output = output.map_err(|error| format!("failed to run {}: {error}", binary.display()))?;
            let is_well = output.status.success();
            if is_well { Ok(output.stdout) } else { Err(format!("tidemill {}", arguments.join(" ")).into()) }
        };
        let version = String::from_utf8(said(&["--version"])?)?;
        let version = version.lines().next().and_then(|line| line.strip_prefix("tidemill "));
        let version = version.ok_or("the binary does not say its version")?.to_owned();
        let man = work.join("man");
        fs::create_dir_all(work)?;
        run_quietly(Command::new(&binary).args(["man", "-o"]).arg(&man))?;
        let scripts = SHELLS.iter().map(|&(shell, name, installed)| {
            Ok(Completions { name, installed, script: said(&["completions", shell])? })
        });
        let completions = scripts.collect::<Result<Vec<_>>>()?;
        let reference = String::from_utf8(said(&["schema", "--markdown"])?)?;
        Ok(Self { version, binary, man, completions, reference })
    }
}

/// Writes a file with its folders; `mode` is that of the file.
fn write(file: &Path, content: &[u8], mode: u32) -> Result {
    use std::os::unix::fs::PermissionsExt as _;
    fs::create_dir_all(file.parent().ok_or("a file is in a folder")?)?;
    fs::write(file, content)?;
    Ok(fs::set_permissions(file, fs::Permissions::from_mode(mode))?)
}

/// Packs a folder: its entries in order, of nobody in particular, as old as the checkout's last commit.
fn tar(folder: &Path, members: &[&str], to: &Path) -> Result {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    tar.arg("--mode=u=rwX,go=rX")
        .arg(format!("--mtime=@{}", time()))
        .args(["--use-compress-program=gzip -n", "--file"])
        .arg(to);
    run_quietly(tar.arg("--directory").arg(folder).args(members))
}

/// When the last commit was made, or `SOURCE_DATE_EPOCH`, in seconds; without either, the epoch.
fn time() -> String {
    if let Ok(time) = env::var("SOURCE_DATE_EPOCH") {
        return time;
    }
    let commit = Command::new("git").current_dir(root()).args(["log", "-1", "--format=%ct"]).output();
    let time = commit.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    time.map(|time| time.trim().to_owned()).filter(|time| !time.is_empty()).unwrap_or_else(|| "0".to_owned())
}

fn remove(folder: &Path) -> Result {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
