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

    /// How many bytes a number takes that starts here and is only digits, perhaps with a point between
    /// them. None where it goes on behind the chunk or is of another form, which may be no number.
    #[inline(always)]
    pub(super) fn plain_number(self, document: &[u8], at: usize) -> Option<usize> {
        let ends = u32::from(self.0.no_digits());
        let whole = ends.trailing_zeros() as usize;
        let byte = |nth: usize| document.get(at + nth).copied().unwrap_or(0);
        let leads = whole == 1 || whole > 1 && byte(0) != b'0';
        let (length, decimals) = match byte(whole) {
            b'.' => {
                let end = (ends & ends.wrapping_sub(1)).trailing_zeros() as usize;
                (end, end - whole)
            }
            _ => (whole, 2),
        };
        let goes_on = matches!(byte(length), b'e' | b'E');
        (leads && decimals > 1 && length < LENGTH as usize && !goes_on).then_some(length)
    }
}
