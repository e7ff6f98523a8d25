//! Sixteen bytes of a document, looked at together.
//!
//! With WebAssembly's vectors a look is three or four instructions; without them, as in native tests, a
//! loop says the same.

/// How many bytes there are in a chunk.
const LENGTH: u32 = 16;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod bytes {
    use std::arch::wasm32::*;

    #[derive(Clone, Copy)]
    pub(super) struct Bytes(v128);

    impl Bytes {
        #[inline(always)]
        pub(super) fn new(bytes: [u8; 16]) -> Self {
            let bytes = u128::from_le_bytes(bytes);
            Self(u64x2(bytes as u64, (bytes >> 64) as u64))
        }

        #[inline(always)]
        pub(super) fn special(self) -> u16 {
            let quotes = u8x16_eq(self.0, u8x16_splat(b'"'));
            let backslashes = u8x16_eq(self.0, u8x16_splat(b'\\'));
            let controls = u8x16_lt(self.0, u8x16_splat(b' '));
            u8x16_bitmask(v128_or(v128_or(quotes, backslashes), controls))
        }

        #[inline(always)]
        pub(super) fn no_digits(self) -> u16 {
            u8x16_bitmask(u8x16_gt(u8x16_sub(self.0, u8x16_splat(b'0')), u8x16_splat(9)))
        }
    }
}

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod bytes {
    #[derive(Clone, Copy)]
    pub(super) struct Bytes([u8; 16]);

    impl Bytes {
        #[inline(always)]
        pub(super) fn new(bytes: [u8; 16]) -> Self {
            Self(bytes)
        }

        #[inline(always)]
        pub(super) fn special(self) -> u16 {
            self.mask(|byte| byte == b'"' || byte == b'\\' || byte < b' ')
        }

        #[inline(always)]
        pub(super) fn no_digits(self) -> u16 {
            self.mask(|byte| byte.wrapping_sub(b'0') > 9)
        }

        #[inline(always)]
        fn mask(self, wanted: impl Fn(u8) -> bool) -> u16 {
            let bits = self.0.iter().zip(0..).map(|(&byte, bit)| u16::from(wanted(byte)) << bit);
            bits.fold(0, |mask, bit| mask | bit)
        }
    }
}

/// Sixteen bytes.
#[derive(Clone, Copy)]
pub(super) struct Chunk(bytes::Bytes);

impl Chunk {
    /// The bytes at a place; none where fewer are left.
    #[inline(always)]
    pub(super) fn at(document: &[u8], at: usize) -> Option<Self> {
        let bytes = document.get(at..)?.first_chunk::<{ LENGTH as usize }>()?;
        Some(Self(bytes::Bytes::new(*bytes)))
    }

    /// How many bytes of a string there are before the first quote, backslash or control character.
    #[inline(always)]
    pub(super) fn plain(self) -> usize {
        (u32::from(self.0.special()) | 1 << LENGTH).trailing_zeros() as usize
    }
}

/// A chunk and four bytes behind it, so that what follows a scalar in the chunk can be looked at as well
/// without asking each time whether the document goes so far.
#[derive(Clone, Copy)]
pub(super) struct Window<'a>(&'a [u8; LENGTH as usize + 4]);

impl<'a> Window<'a> {
    /// The window at a place; none where fewer bytes are left.
    #[inline(always)]
    pub(super) fn at(document: &'a [u8], at: usize) -> Option<Self> {
        document.get(at..)?.first_chunk().map(Self)
    }

    /// How many bytes the scalar takes that starts here: a string without escapes, or a number of digits,
    /// perhaps with a point between them. None where it is of another form, which may be none at all, or
    /// goes on behind the chunk.
    #[inline(always)]
    pub(super) fn plain_scalar(self) -> Option<usize> {
        if self.0[0] == b'"' { self.plain_string() } else { self.plain_number() }
    }

    /// Four bytes behind the first `length`, of which there are at most sixteen.
    #[inline(always)]
    pub(super) fn behind(self, length: usize) -> [u8; 4] {
        let at = length.min(LENGTH as usize);
        [self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]]
    }

    /// How many bytes the string takes that starts with the quote here.
    #[inline(always)]
    pub(super) fn plain_string(self) -> Option<usize> {
        let last = (u32::from(self.chunk().special()) & !1 | 1 << LENGTH).trailing_zeros() as usize;
        (last < LENGTH as usize && self.0[last] == b'"').then_some(last + 1)
    }

    #[inline(always)]
    fn plain_number(self) -> Option<usize> {
        let ends = u32::from(self.chunk().no_digits()) | 1 << LENGTH;
        let whole = ends.trailing_zeros() as usize;
        let leads = whole == 1 || self.0[0] != b'0';
        let (length, has_decimals) = match self.0[whole] {
            b'.' => {
                let end = ((ends & (ends - 1)) | 1 << LENGTH).trailing_zeros() as usize;
                (end, end > whole + 1)
            }
            _ => (whole, true),
        };
        // The byte behind the chunk has not been looked at.
        let goes_on = matches!(self.0[length], b'e' | b'E' | b'0'..=b'9');
        (whole > 0 && leads && has_decimals && !goes_on).then_some(length)
    }

    #[inline(always)]
    fn chunk(self) -> bytes::Bytes {
        bytes::Bytes::new(*self.0.first_chunk().expect("a window is larger than a chunk"))
    }
}
