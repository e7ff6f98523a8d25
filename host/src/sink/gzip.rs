//! Text packed into a file as gzip members, so that little is lost whenever the process is killed.
//!
//! Each piece of text ends at a byte boundary and is unpacked without what follows it; after so much
//! text a member ends, and is whole for every reader. [`mend`] makes a file whole again that ends in the
//! middle of a member, so that more can be appended.

mod mend;

pub(super) use mend::mend;

use flate2::{Compress, Compression, Crc, FlushCompress};

/// Text after which a member ends: a reader that takes whole members alone misses at most so much, and
/// the packing loses nothing that can be measured.
const MEMBER_BYTES: u32 = 1 << 20;
/// Room that is made at once for what packing gives.
const LEAST_ROOM: usize = 4 << 10;

/// How our members begin: deflated, with one extra field, no time, unknown system; the field is named
/// "TM" and empty. It tells our members from others, and where they begin from what is in them.
const HEAD: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 4, 0, b'T', b'M', 0, 0];

/// The end of a member: an empty last block, and the sums of its text.
type Tail = [u8; 10];

/// Packs text.
#[derive(Debug)]
pub(super) struct GzipPacker {
    deflate: Compress,
    crc: Crc,
    out: Vec<u8>,
    /// The end of the member that the file is in the middle of.
    open: Option<Tail>,
    /// Whether that member is not gone on with.
    is_cut: bool,
    /// Whether the file is there, and nothing in it.
    is_empty: bool,
}

/// A piece of text, packed.
#[derive(Clone, Copy, Debug)]
pub(super) struct GzipPiece {
    /// The end of its member, unless it has ended.
    open: Option<Tail>,
}

impl GzipPacker {
    /// A packer for a file; an empty one must not stay so, since no text at all is no gzip.
    pub(super) fn new(is_empty: bool) -> Self {
        Self {
            deflate: Compress::new(Compression::default(), false),
            crc: Crc::new(),
            out: Vec::new(),
            open: None,
            is_cut: false,
            is_empty,
        }
    }

    /// Packs a piece of text, which goes to the file as a whole or not at all: [`GzipPacker::written`] or
    /// [`GzipPacker::cut`] says which.
    pub(super) fn pack(&mut self, text: &[u8]) -> (&[u8], GzipPiece) {
        self.out.clear();
        if self.is_cut {
            self.out.extend(self.open.iter().flatten());
        }
        if self.is_cut || self.open.is_none() {
            self.deflate.reset();
            self.crc.reset();
            self.out.extend(HEAD);
        }
        self.crc.update(text);
        let before = self.deflate.total_in();
        loop {
            let packed = usize::try_from(self.deflate.total_in() - before).unwrap_or(usize::MAX);
            let rest = &text[packed..];
            self.out.reserve((rest.len() / 2).max(LEAST_ROOM));
            let packed = self.deflate.compress_vec(rest, &mut self.out, FlushCompress::Sync);
            packed.expect("deflate packs whatever it has room for");
            let is_all = self.deflate.total_in() - before == text.len() as u64;
            if is_all && self.out.len() < self.out.capacity() {
                break;
            }
        }
        let end = tail(&self.crc);
        let has_ended = self.crc.amount() >= MEMBER_BYTES;
        if has_ended {
            self.out.extend(end);
        }
        (&self.out, GzipPiece { open: (!has_ended).then_some(end) })
    }

    /// A piece is in the file.
    pub(super) fn written(&mut self, piece: GzipPiece) {
        self.open = piece.open;
        self.is_cut = false;
        self.is_empty = false;
    }

    /// The last piece is not in the file, and nothing of it. What follows cannot refer to it, so the
    /// member is not gone on with.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
    }

    /// What the file still lacks to be whole: the end of a member, or an empty one.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let end = self.open.take().map(Vec::from);
        let is_empty = std::mem::take(&mut self.is_empty);
        end.unwrap_or_else(|| if is_empty { [&HEAD[..], &tail(&Crc::new())].concat() } else { Vec::new() })
    }
}

fn tail(text: &Crc) -> Tail {
    let mut tail = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    tail[2..6].copy_from_slice(&text.sum().to_le_bytes());
    tail[6..].copy_from_slice(&text.amount().to_le_bytes());
    tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::MultiGzDecoder;
    use proptest::prelude::*;
    use std::io::Read as _;

    fn unpacked(bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        MultiGzDecoder::new(bytes).read_to_end(&mut text).expect("it is whole");
        text
    }

    proptest! {
        #[test]
        fn the_text_is_what_was_written_and_nothing_of_what_was_not(
            pieces in prop::collection::vec((any::<bool>(), any::<u8>(), 0..600_000usize), 0..8),
        ) {
            let mut packer = GzipPacker::new(true);
            let (mut file, mut text) = (Vec::new(), Vec::new());
            for (is_written, byte, length) in pieces {
                let added = vec![byte; length];
                let (packed, piece) = packer.pack(&added);
                if is_written {
                    file.extend_from_slice(packed);
                    text.extend(added);
                    packer.written(piece);
                } else {
                    packer.cut();
                }
            }
            file.extend(packer.finish());
            prop_assert_eq!(unpacked(&file), text);
        }
    }

    #[test]
    fn members_are_ended_so_that_a_killed_process_leaves_little_undone() {
        let mut packer = GzipPacker::new(true);
        let mut file = Vec::new();
        for _ in 0..10 {
            let (packed, piece) = packer.pack(&vec![b'x'; 300 << 10]);
            file.extend_from_slice(packed);
            packer.written(piece);
        }
        // Two members of four pieces, and half of one.
        assert_eq!(memchr::memmem::find_iter(&file, &HEAD).count(), 3);
    }
}
