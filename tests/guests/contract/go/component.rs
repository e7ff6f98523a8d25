//! Makes a component of a guest in Go: a core module with `go build`, and the component around it.
//!
//! `guest-contract-go GO SOURCE OUT.wasm`, where SOURCE is the folder of a package main. The core module is
//! left beside the component, in the folder `go`. It needs no network.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [go, source, out] = arguments.as_slice() else {
        bail!("usage: guest-contract-go GO SOURCE OUT.wasm")
    };
    let folder = out.parent().context("OUT.wasm has no folder")?.join("go");
    fs::create_dir_all(&folder)?;
    let name = out.with_extension("wasm");
    let module = compile(go, source, &folder.join(name.file_name().context("OUT.wasm has no name")?))?;
    let component = tidemill_component::of_go(&module)?;
    fs::write(out, component).with_context(|| format!("failed to write {}", out.display()))
}

/// The core module, which is also left in a file.
fn compile(go: &Path, source: &Path, module: &Path) -> Result<Vec<u8>> {
    let mut build = Command::new(go);
    build.current_dir(source).env("GOOS", "wasip1").env("GOARCH", "wasm");
    // Nothing is downloaded, neither modules nor another Go.
    build.env("GOPROXY", "off").env("GOTOOLCHAIN", "local").env("GOFLAGS", "").env("GOWORK", "off");
    build.args(["build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o"]).arg(module).arg(".");
    let status = build.status().with_context(|| format!("failed to run {}", go.display()))?;
    if !status.success() {
        bail!("go build ended with {status}");
    }
    Ok(fs::read(module)?)
}
