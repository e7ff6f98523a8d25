//! The Debian package: the binary, a service that runs as a user of its own, and its configuration.
//!
//! The format is an `ar` archive of two compressed tar archives (deb(5)), so that it is made where there is
//! no `dpkg`, too.

use super::{ARCHITECTURE, Contents, PARTS, tar, write};
use crate::tools::{Result, root, run_quietly};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// Files of the package that the checkout has as they are: their names there, and their places.
const FILES: [(&str, &str); 4] = [
    ("tidemill.service", "usr/lib/systemd/system/tidemill.service"),
    ("sysusers.conf", "usr/lib/sysusers.d/tidemill.conf"),
    ("tidemill.toml", CONFIGURATION),
    ("copyright", "usr/share/doc/tidemill/copyright"),
];
/// What the administrator may change, and an upgrade leaves alone.
const CONFIGURATION: &str = "etc/tidemill/tidemill.toml";
/// What dpkg runs before and after it unpacks and removes.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Packs `tidemill_VERSION_ARCHITECTURE.deb`, and gives its name.
pub(super) fn pack(contents: &Contents, work: &Path, out: &Path) -> Result<String> {
    let (data, control) = (work.join("data"), work.join("control"));
    write(&data.join("usr/bin/tidemill"), &fs::read(&contents.binary)?, 0o755)?;
    for (name, place) in FILES {
        write(&data.join(place), &fs::read(root().join(PARTS).join(name))?, 0o644)?;
    }
    write(&data.join("usr/share/doc/tidemill/configuration.md"), contents.reference.as_bytes(), 0o644)?;
    let changes = data.join("usr/share/doc/tidemill/changelog");
    write(&changes, &fs::read(root().join("CHANGELOG.md"))?, 0o644)?;
    gzip(&changes)?;
    for page in fs::read_dir(&contents.man)? {
        let page = page?;
        let file = data.join("usr/share/man/man1").join(page.file_name());
        write(&file, &fs::read(page.path())?, 0o644)?;
        gzip(&file)?;
    }
    for each in &contents.completions {
        write(&data.join(each.installed), &each.script, 0o644)?;
    }
    write(&control.join("control"), description(&contents.version, &data)?.as_bytes(), 0o644)?;
    write(&control.join("conffiles"), format!("/{CONFIGURATION}\n").as_bytes(), 0o644)?;
    write(&control.join("md5sums"), &digests(&data)?, 0o644)?;
    for script in SCRIPTS {
        write(&control.join(script), &fs::read(root().join(PARTS).join(script))?, 0o755)?;
    }
    tar(&control, &["."], &work.join("control.tar.gz"))?;
    tar(&data, &["."], &work.join("data.tar.gz"))?;
    let name = format!("tidemill_{}_{ARCHITECTURE}.deb", contents.version);
    let mut package = File::create(out.join(&name))?;
    package.write_all(b"!<arch>\n")?;
    member(&mut package, "debian-binary", b"2.0\n")?;
    for part in ["control.tar.gz", "data.tar.gz"] {
        member(&mut package, part, &fs::read(work.join(part))?)?;
    }
    Ok(name)
}

/// The file `control`.
fn description(version: &str, data: &Path) -> Result<String> {
    let text = fs::read_to_string(root().join(PARTS).join("control"))?;
    let text = text.replace("@VERSION@", version).replace("@ARCHITECTURE@", ARCHITECTURE);
    Ok(text.replace("@KIB@", &bytes(data)?.div_ceil(1024).to_string()))
}

/// How much the files of a folder take.
fn bytes(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        sum += if entry.file_type()?.is_dir() { bytes(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(sum)
}

/// The digest of each file, as dpkg compares them: `dpkg --verify` knows no other than MD5.
fn digests(data: &Path) -> Result<Vec<u8>> {
    let listing = "find usr -type f -print0 | LC_ALL=C sort --zero-terminated | xargs --null md5sum";
    let output = Command::new("sh").args(["-c", listing]).current_dir(data).output()?;
    if output.status.success() { Ok(output.stdout) } else { Err("md5sum failed".into()) }
}

/// Compresses a file in its place, without the time.
fn gzip(file: &Path) -> Result {
    run_quietly(Command::new("gzip").args(["-9", "-n", "-f"]).arg(file))
}

/// Appends a member to an `ar` archive: a head of 60 bytes, and the content, padded to an even length.
fn member(archive: &mut File, name: &str, content: &[u8]) -> Result {
    let (time, owner, group, mode) = (super::time(), 0, 0, "100644");
    let length = content.len();
    writeln!(archive, "{name:<16}{time:<12}{owner:<6}{group:<6}{mode:<8}{length:<10}`")?;
    archive.write_all(content)?;
    if length % 2 == 1 {
        archive.write_all(b"\n")?;
    }
    Ok(())
}
