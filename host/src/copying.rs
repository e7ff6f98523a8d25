//! Copies of large blocks, where the C library's own may be many times slower than it should be.

/// What is copied at once: more might be copied by `rep movsb`, which is many times slower where the target lies a little
/// further into its page than the source (seen on AMD Zen 3; glibc's bug 30994).
const AT_ONCE_BYTES: usize = 1 << 10;

/// Copies a block in pieces to a place of the same length.
#[inline]
pub(crate) fn copy_in_pieces(from: &[u8], to: &mut [u8]) {
    for (from, to) in from.chunks(AT_ONCE_BYTES).zip(to.chunks_mut(AT_ONCE_BYTES)) {
        to.copy_from_slice(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_any_length_are_copied_whole() {
        for length in [0, 1, AT_ONCE_BYTES - 1, AT_ONCE_BYTES, AT_ONCE_BYTES + 1, 100_000] {
            let from: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let mut to = vec![0xff; length];
            copy_in_pieces(&from, &mut to);
            assert!(from == to, "a block of {length} bytes");
        }
    }
}
