//! Blocks by the vectors of WebAssembly.

use super::{BLOCK, Lanes, Planes, RARE, row};
use std::arch::wasm32::*;
use std::ops::{BitAnd, BitOr, Not};

/// Vectors of 16 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Simd128;

/// Masks of two blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Masks(v128);

impl BitAnd for Masks {
    type Output = Self;

    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        Self(v128_and(self.0, other.0))
    }
}

impl BitOr for Masks {
    type Output = Self;

    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        Self(v128_or(self.0, other.0))
    }
}

impl Not for Masks {
    type Output = Self;

    #[inline(always)]
    fn not(self) -> Self {
        Self(v128_not(self.0))
    }
}

impl Lanes for Simd128 {
    type Masks = Masks;

    const COUNT: usize = 2;

    #[inline(always)]
    fn load(self, masks: &[u64]) -> Masks {
        Masks(u64x2(masks[0], masks[1]))
    }

    #[inline(always)]
    fn store(self, masks: Masks, to: &mut [u64]) {
        to[0] = u64x2_extract_lane::<0>(masks.0);
        to[1] = u64x2_extract_lane::<1>(masks.0);
    }

    #[inline(always)]
    fn shift_left<const BY: u32>(self, masks: Masks) -> Masks {
        Masks(u64x2_shl(masks.0, BY))
    }

    #[inline(always)]
    fn shift_right<const BY: u32>(self, masks: Masks) -> Masks {
        Masks(u64x2_shr(masks.0, BY))
    }

    #[inline(always)]
    fn planes(self, bytes: &[u8; BLOCK]) -> Planes {
        let (halves, _) = bytes.as_chunks::<8>();
        let half = |at: usize| u64::from_le_bytes(halves[at]);
        let vectors: [v128; 4] = std::array::from_fn(|at| classes(u64x2(half(2 * at), half(2 * at + 1))));
        std::array::from_fn(|bit| {
            let bits = |vector: v128| u64::from(u8x16_bitmask(u8x16_shl(vector, 7 - bit as u32)));
            bits(vectors[0]) | bits(vectors[1]) << 16 | bits(vectors[2]) << 32 | bits(vectors[3]) << 48
        })
    }
}

#[inline(always)]
fn classes(bytes: v128) -> v128 {
    // A table gives nothing for what is not in its row.
    let row = |first: usize| {
        let [low, high] = *row(first).as_chunks::<8>().0 else {
            unreachable!("sixteen bytes are two times eight")
        };
        let table = u64x2(u64::from_le_bytes(low), u64::from_le_bytes(high));
        u8x16_swizzle(table, v128_xor(bytes, u8x16_splat(first as u8)))
    };
    let control = v128_and(u8x16_lt(bytes, u8x16_splat(b' ')), u8x16_splat(RARE));
    v128_or(control, v128_or(v128_or(row(0x20), row(0x30)), v128_or(row(0x50), row(0x70))))
}
