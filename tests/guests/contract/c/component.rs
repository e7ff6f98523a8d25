//! Makes a component of the C files beside it and of the SDK: a core module with `zig cc`, and the component around it.
//!
//! `guest-contract-c PYTHON OUT.wasm`, where PYTHON has the package `ziglang`. The core module is left beside the
//! component, in the folder `c`.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Of the C stack. Without a bound each instance claims 16 MiB of linear memory at once.
const STACK_BYTES: u32 = 64 << 10;

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [python, out] = arguments.as_slice() else { bail!("usage: guest-contract-c PYTHON OUT.wasm") };
    let folder = out.parent().context("OUT.wasm has no folder")?.join("c");
    fs::create_dir_all(&folder)?;
    let module = compile(python, &folder.join("guest.wasm"))?;
    fs::write(out, tidemill_component::of_module(&module)?)
        .with_context(|| format!("failed to write {}", out.display()))
}

/// The core module, which is also left in a file.
fn compile(python: &Path, module: &Path) -> Result<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sdk = here.join("../../../../plugin-sdk/c");
    let mut zig = Command::new(python);
    zig.args(["-m", "ziglang", "cc", "-target", "wasm32-wasi", "-mexec-model=reactor"])
        .args(["-O2", "-s", "-Wall", "-Wextra", "-Werror"])
        .arg(format!("-Wl,-z,stack-size={STACK_BYTES}"))
        .arg("-I")
        .arg(&sdk)
        .args(["guest.c", "commands.c", "fields.c"].map(|file| here.join(file)))
        .arg(sdk.join("tidemill.c"))
        .arg("-o")
        .arg(module);
    let status = zig.status().with_context(|| format!("failed to run {}", python.display()))?;
    if !status.success() {
        bail!("zig cc ended with {status}");
    }
    Ok(fs::read(module)?)
}
