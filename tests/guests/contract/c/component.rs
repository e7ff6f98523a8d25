//! Makes a component of the C files beside it: C bindings out of `wit/`, a core module with `zig cc`, and the
//! component around it.
//!
//! `guest-contract-c PYTHON OUT.wasm`, where PYTHON has the package `ziglang`. The bindings and the
//! core module are left beside the component, in the folder `c`.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};
use wit_bindgen_core::{Files, wit_parser::Resolve};

const WORLD: &str = "transform";
/// Of the C stack. Without a bound each instance claims 16 MiB of linear memory at once.
const STACK_BYTES: u32 = 64 << 10;

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [python, out] = arguments.as_slice() else { bail!("usage: guest-contract-c PYTHON OUT.wasm") };
    let folder = out.parent().context("OUT.wasm has no folder")?.join("c");
    fs::create_dir_all(&folder)?;
    bindings(&folder)?;
    let module = compile(python, &folder)?;
    fs::write(out, tidemill_component::of_module(&module)?)
        .with_context(|| format!("failed to write {}", out.display()))
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Writes the header, the source and the object that carries the world's type.
fn bindings(folder: &Path) -> Result<()> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(here().join("../../../../wit"))?;
    let world = resolve.select_world(&[package], Some(WORLD))?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default().build().generate(&mut resolve, world, &mut files)?;
    for (name, contents) in files.iter() {
        fs::write(folder.join(name), contents)?;
    }
    Ok(())
}

/// The core module.
fn compile(python: &Path, folder: &Path) -> Result<Vec<u8>> {
    let module = folder.join("guest.wasm");
    let mut zig = Command::new(python);
    zig.args(["-m", "ziglang", "cc", "-target", "wasm32-wasi", "-mexec-model=reactor"])
        .args(["-O2", "-s", "-Wall", "-Wextra", "-Werror"])
        .arg(format!("-Wl,-z,stack-size={STACK_BYTES}"))
        .arg("-I")
        .arg(folder)
        .arg("-I")
        .arg(here())
        .args(["guest.c", "commands.c", "fields.c"].map(|file| here().join(file)))
        .args([folder.join("transform.c"), folder.join("transform_component_type.o")])
        .arg("-o")
        .arg(&module);
    let status = zig.status().with_context(|| format!("failed to run {}", python.display()))?;
    if !status.success() {
        bail!("zig cc ended with {status}");
    }
    Ok(fs::read(&module)?)
}
