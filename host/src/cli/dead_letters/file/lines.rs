//! The lines of a dead-letter file, as far as it goes at the beginning.

use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;

/// The longest line that is kept: no host takes a letter of this size.
const MOST_BYTES: usize = 1 << 30;

/// A line that is not empty.
pub(super) struct FileLine {
    /// Its number, from 1.
    pub(super) number: usize,
    /// What it says; or why it can be no letter.
    pub(super) text: Result<String, &'static str>,
}

/// Gives the lines of a file, unpacked if its name says that it is packed, as long as they are taken. No line begins
/// behind what the file has now. Says whether the file is whole: one that is packed may end before its text does.
///
/// # Errors
/// It cannot be opened, or not be read to its end.
pub(super) fn lines(path: &Path, mut give: impl FnMut(FileLine) -> bool) -> io::Result<bool> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    // Of what is no file, a pipe say, all is read.
    let length = if metadata.is_file() { metadata.len() } else { u64::MAX };
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz")) {
        let unpacked = BufReader::new(MultiGzDecoder::new(file.take(length)));
        match read(unpacked, u64::MAX, &mut give) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            read => read.map(|()| true),
        }
    } else {
        read(BufReader::new(file), length, &mut give).map(|()| true)
    }
}

fn read(mut input: impl BufRead, mut left: u64, give: &mut impl FnMut(FileLine) -> bool) -> io::Result<()> {
    for number in 1.. {
        if left == 0 {
            break;
        }
        let mut line = Vec::new();
        let most = MOST_BYTES as u64 + 1;
        let read = input.by_ref().take(most).read_until(b'\n', &mut line);
        let is_too_long = line.len() > MOST_BYTES && !line.ends_with(b"\n");
        let text = if is_too_long {
            line = Vec::new();
            left = left.saturating_sub(most + input.skip_until(b'\n')? as u64);
            Err("it is longer than any letter")
        } else {
            left = left.saturating_sub(line.len() as u64);
            String::from_utf8(line).map_err(|_| "it is not UTF-8")
        };
        let is_blank = text.as_ref().is_ok_and(|text| text.trim().is_empty());
        // What stands before the place where it breaks off is a line, too.
        if !is_blank && !give(FileLine { number, text }) {
            break;
        }
        if read? == 0 {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::fs::OpenOptions;
    use std::io::Write as _;
    use std::path::PathBuf;

    fn file(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("it is written");
        (folder, path)
    }

    /// What is read while each line that is taken is answered with another one in the file.
    fn read_while_written(path: &Path, more: &[u8]) -> (Vec<(usize, String)>, bool) {
        let mut all = Vec::new();
        let is_whole = lines(path, |FileLine { number, text }| {
            all.push((number, text.unwrap_or_else(str::to_owned)));
            let mut file = OpenOptions::new().append(true).open(path).expect("it is there");
            file.write_all(more).expect("it is written");
            all.len() < 100
        });
        (all, is_whole.expect("it can be read"))
    }

    #[test]
    fn what_is_written_behind_a_file_while_it_is_read_is_not_read() {
        let (_folder, path) = file("dead.jsonl", b"one\n\ntwo\n");
        let lines = [(1, "one\n".to_owned()), (3, "two\n".to_owned())];
        assert_eq!(read_while_written(&path, b"more\n"), (lines.to_vec(), true));
        // A line that was written in part is read to its end.
        let (_folder, path) = file("dead.jsonl", b"one\ntw");
        let lines = [(1, "one\n".to_owned()), (2, "twofold\n".to_owned())];
        let (all, _) = read_while_written(&path, b"ofold\nmore\n");
        assert_eq!(all, lines);
    }

    #[test]
    fn a_packed_file_that_is_written_still_gives_what_it_has() {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(b"one\ntwo\n").expect("memory takes it");
        packed.flush().expect("memory takes it");
        let so_far = packed.get_ref().clone();
        let whole = packed.finish().expect("memory takes it");
        let lines = [(1, "one\n".to_owned()), (2, "two\n".to_owned())];
        let (_folder, path) = file("dead.jsonl.GZ", &so_far);
        assert_eq!(read_while_written(&path, b""), (lines.to_vec(), false));
        let (_folder, path) = file("dead.jsonl.gz", &whole);
        assert_eq!(read_while_written(&path, &whole), (lines.to_vec(), true));
    }

    #[test]
    fn what_is_no_text_is_told_with_its_number() {
        let (_folder, path) = file("dead.jsonl", b"a\n\xff\nb");
        let all = read_while_written(&path, b"").0;
        assert_eq!(all.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(all[1].1, "it is not UTF-8");
    }
}
