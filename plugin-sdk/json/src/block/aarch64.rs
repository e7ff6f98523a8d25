//! Blocks by the vectors of AArch64, which every such machine has.
//!
//! `unsafe` says here that the machine has the instructions of which a function is made.
#![expect(
    unsafe_code,
    reason = "a function made of some instructions may be called only where the machine has them"
)]
#![deny(unsafe_op_in_unsafe_fn)]

use super::{BLOCK, Lanes, Planes, RARE, row};
use std::arch::aarch64::*;
use std::ops::{BitAnd, BitOr, Not};

/// Vectors of 16 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon;

/// Masks of two blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Masks(uint64x2_t);

impl BitAnd for Masks {
    type Output = Self;

    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        // SAFETY: every AArch64 that has an operating system we build for has NEON.
        Self(unsafe { vandq_u64(self.0, other.0) })
    }
}

impl BitOr for Masks {
    type Output = Self;

    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        // SAFETY: as above.
        Self(unsafe { vorrq_u64(self.0, other.0) })
    }
}

impl Not for Masks {
    type Output = Self;

    #[inline(always)]
    fn not(self) -> Self {
        // SAFETY: as above.
        Self(unsafe { veorq_u64(self.0, vdupq_n_u64(u64::MAX)) })
    }
}

impl Lanes for Neon {
    type Masks = Masks;

    const COUNT: usize = 2;

    #[inline(always)]
    fn load(self, masks: &[u64]) -> Masks {
        // SAFETY: as above.
        Masks(unsafe { vcombine_u64(vcreate_u64(masks[0]), vcreate_u64(masks[1])) })
    }

    #[inline(always)]
    fn store(self, masks: Masks, to: &mut [u64]) {
        // SAFETY: as above.
        unsafe {
            to[0] = vgetq_lane_u64::<0>(masks.0);
            to[1] = vgetq_lane_u64::<1>(masks.0);
        }
    }

    #[inline(always)]
    fn shift_left<const BY: u32>(self, masks: Masks) -> Masks {
        // SAFETY: as above.
        Masks(unsafe { vshlq_u64(masks.0, vdupq_n_s64(i64::from(BY))) })
    }

    #[inline(always)]
    fn shift_right<const BY: u32>(self, masks: Masks) -> Masks {
        // SAFETY: as above.
        Masks(unsafe { vshlq_u64(masks.0, vdupq_n_s64(-i64::from(BY))) })
    }

    #[inline(always)]
    fn planes(self, bytes: &[u8; BLOCK]) -> Planes {
        // SAFETY: every AArch64 that has an operating system we build for has NEON.
        unsafe { planes_neon(bytes) }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn vector(bytes: &[u8; 16]) -> uint8x16_t {
    let bytes = u128::from_le_bytes(*bytes);
    vcombine_u8(vcreate_u8(bytes as u64), vcreate_u8((bytes >> 64) as u64))
}

#[inline]
#[target_feature(enable = "neon")]
fn planes_neon(bytes: &[u8; BLOCK]) -> Planes {
    let (quarters, _) = bytes.as_chunks::<16>();
    let [first, second, third, fourth] = [0, 1, 2, 3].map(|at| classes(vector(&quarters[at])));
    // One bit of each byte, so that three sums of neighbours have a bit for each of 64.
    let places = vector(&[1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128]);
    let plane = |bit: u8| {
        let bits = |vector: uint8x16_t| vandq_u8(vtstq_u8(vector, vdupq_n_u8(1 << bit)), places);
        let sums = vpaddq_u8(vpaddq_u8(bits(first), bits(second)), vpaddq_u8(bits(third), bits(fourth)));
        vgetq_lane_u64::<0>(vreinterpretq_u64_u8(vpaddq_u8(sums, sums)))
    };
    [plane(0), plane(1), plane(2), plane(3)]
}

#[inline]
#[target_feature(enable = "neon")]
fn classes(bytes: uint8x16_t) -> uint8x16_t {
    // A table gives nothing for what is not in its row.
    let row = |first: usize| vqtbl1q_u8(vector(&row(first)), veorq_u8(bytes, vdupq_n_u8(first as u8)));
    let control = vandq_u8(vcltq_u8(bytes, vdupq_n_u8(b' ')), vdupq_n_u8(RARE));
    vorrq_u8(control, vorrq_u8(vorrq_u8(row(0x20), row(0x30)), vorrq_u8(row(0x50), row(0x70))))
}
