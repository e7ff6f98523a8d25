//! The archive of the static binary, for any Linux.

use super::{Contents, TARGET, tar, write};
use crate::tools::{Result, root};
use std::fs;
use std::path::Path;

/// The documents that the archive has as the checkout has them.
const DOCUMENTS: [&str; 3] = ["README.md", "LICENSE", "CHANGELOG.md"];

/// Packs `tidemill-VERSION-TARGET.tar.gz`, and gives its name.
pub(super) fn pack(contents: &Contents, work: &Path, out: &Path) -> Result<String> {
    let name = format!("tidemill-{}-{TARGET}", contents.version);
    let folder = work.join(&name);
    write(&folder.join("tidemill"), &fs::read(&contents.binary)?, 0o755)?;
    for document in DOCUMENTS {
        write(&folder.join(document), &fs::read(root().join(document))?, 0o644)?;
    }
    write(&folder.join("docs/configuration.md"), contents.reference.as_bytes(), 0o644)?;
    for page in fs::read_dir(&contents.man)? {
        let page = page?;
        write(&folder.join("man").join(page.file_name()), &fs::read(page.path())?, 0o644)?;
    }
    for each in &contents.completions {
        write(&folder.join("completions").join(each.name), &each.script, 0o644)?;
    }
    let archive = format!("{name}.tar.gz");
    tar(work, &[&name], &out.join(&archive))?;
    Ok(archive)
}
