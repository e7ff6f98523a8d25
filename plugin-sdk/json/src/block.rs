//! Sixty-four bytes of a document, looked at together: what they are to the grammar of JSON.
//!
//! Each byte is of one of sixteen classes, and so a block is four masks of 64 bits, one for each bit of the class, the
//! lowest bit for the first byte. Each kind of machine has its own way of making them.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm32;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86_64;

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::Neon;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) use wasm32::Simd128;

use std::ops::{BitAnd, BitOr, Not};

/// How many bytes there are in a block.
pub(crate) const BLOCK: usize = 64;

/// The classes of a block's bytes, bit by bit.
pub(crate) type Planes = [u64; 4];

/// Letters, and all that has no meaning outside of strings.
const OTHER: u8 = 0b0000;
/// What is rare: a backslash, or a control character, some of which are blank.
const RARE: u8 = 0b0001;
const DIGIT: u8 = 0b0010;
const ZERO: u8 = 0b0011;
const QUOTE: u8 = 0b0100;
const SPACE: u8 = 0b0101;
const POINT: u8 = 0b0110;
const MINUS: u8 = 0b0111;
const COMMA: u8 = 0b1000;
const COLON: u8 = 0b1001;
const OPEN_BRACKET: u8 = 0b1100;
const OPEN_BRACE: u8 = 0b1101;
const CLOSE_BRACKET: u8 = 0b1110;
const CLOSE_BRACE: u8 = 0b1111;

/// The classes of the 128 bytes of ASCII; all others are [`OTHER`].
const CLASSES: [u8; 128] = {
    let mut classes = [OTHER; 128];
    let mut control = 0;
    while control < b' ' {
        classes[control as usize] = RARE;
        control += 1;
    }
    let mut digit = b'1';
    while digit <= b'9' {
        classes[digit as usize] = DIGIT;
        digit += 1;
    }
    classes[b'\\' as usize] = RARE;
    classes[b'0' as usize] = ZERO;
    classes[b'"' as usize] = QUOTE;
    classes[b' ' as usize] = SPACE;
    classes[b'.' as usize] = POINT;
    classes[b'-' as usize] = MINUS;
    classes[b',' as usize] = COMMA;
    classes[b':' as usize] = COLON;
    classes[b'[' as usize] = OPEN_BRACKET;
    classes[b'{' as usize] = OPEN_BRACE;
    classes[b']' as usize] = CLOSE_BRACKET;
    classes[b'}' as usize] = CLOSE_BRACE;
    classes
};

/// The classes of the sixteen bytes from here on, for machines that look up as many.
#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
const fn row(first: usize) -> [u8; 16] {
    let mut row = [OTHER; 16];
    let mut at = 0;
    while at < 16 {
        row[at] = CLASSES[first + at];
        at += 1;
    }
    row
}

/// A way of looking at a block, and at masks of several blocks, which the machine is known to have.
pub(crate) trait Lanes: Copy {
    /// Masks of as many blocks as the machine takes at once.
    type Masks: Copy + BitAnd<Output = Self::Masks> + BitOr<Output = Self::Masks> + Not<Output = Self::Masks>;

    /// How many that are; a divisor of eight.
    const COUNT: usize;

    fn planes(self, bytes: &[u8; BLOCK]) -> Planes;

    /// The first masks of a slice.
    fn load(self, masks: &[u64]) -> Self::Masks;

    /// Makes them the first of a slice.
    fn store(self, masks: Self::Masks, to: &mut [u64]);

    fn shift_left<const BY: u32>(self, masks: Self::Masks) -> Self::Masks;

    fn shift_right<const BY: u32>(self, masks: Self::Masks) -> Self::Masks;

    /// Each bit becomes the parity of itself and all below it: what is between an opening quote and its closing one
    /// becomes ones.
    #[inline(always)]
    fn prefix_xor(self, mask: u64) -> u64 {
        [1, 2, 4, 8, 16, 32].into_iter().fold(mask, |mask, by| mask ^ mask << by)
    }
}

/// What is to be done with blocks. `run` must be inlined always, since only then it is compiled for the machine.
pub(crate) trait Job {
    type Output;

    fn run(self, lanes: impl Lanes) -> Self::Output;
}

/// The way that every machine has: a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

impl Lanes for Portable {
    type Masks = u64;

    const COUNT: usize = 1;

    #[inline(always)]
    fn load(self, masks: &[u64]) -> u64 {
        masks[0]
    }

    #[inline(always)]
    fn store(self, masks: u64, to: &mut [u64]) {
        to[0] = masks;
    }

    #[inline(always)]
    fn shift_left<const BY: u32>(self, masks: u64) -> u64 {
        masks << BY
    }

    #[inline(always)]
    fn shift_right<const BY: u32>(self, masks: u64) -> u64 {
        masks >> BY
    }

    #[inline(always)]
    fn planes(self, bytes: &[u8; BLOCK]) -> Planes {
        /// The lowest bit of each of eight bytes, multiplied by this, becomes one of eight bits at the top.
        const GATHER: u64 = 0x0102_0408_1020_4080;
        let mut planes = [0; 4];
        let (groups, _) = bytes.as_chunks::<8>();
        for group in groups.iter().rev() {
            let classes = group.map(|byte| CLASSES.get(usize::from(byte)).copied().unwrap_or(OTHER));
            let classes = u64::from_le_bytes(classes);
            for (bit, plane) in planes.iter_mut().enumerate() {
                let gathered = ((classes >> bit) & 0x0101_0101_0101_0101).wrapping_mul(GATHER) >> 56;
                *plane = *plane << 8 | gathered;
            }
        }
        planes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<L: Lanes>(lanes: L) {
        for start in 0..=255_u8 {
            let bytes = std::array::from_fn(|at| start.wrapping_add(at as u8 * 3));
            let class = |at: usize| CLASSES.get(usize::from(bytes[at])).copied().unwrap_or(OTHER);
            let plane = |bit: u8| -> u64 { (0..BLOCK).map(|at| u64::from(class(at) >> bit & 1) << at).sum() };
            assert_eq!(lanes.planes(&bytes), [plane(0), plane(1), plane(2), plane(3)]);
        }
        let masks: [u64; 8] = std::array::from_fn(|at| 0x8765_4321_0fed_cba9 << at);
        let (all, mut stored) = (lanes.load(&masks), [0; 8]);
        let mixed = lanes.shift_left::<2>(all) & !all | lanes.shift_right::<63>(all);
        lanes.store(mixed, &mut stored);
        for (stored, mask) in stored.into_iter().zip(masks).take(L::COUNT) {
            assert_eq!(stored, mask << 2 & !mask | mask >> 63);
        }
        for mask in [0, 1, 1 << 63, 0x8000_0001_0010_4001, u64::MAX, 0x1234_5678_9abc_def0] {
            let parities = (0..64).map(|bit| u64::from((mask << (63 - bit)).count_ones() % 2) << bit);
            assert_eq!(lanes.prefix_xor(mask), parities.sum::<u64>());
        }
    }

    #[test]
    fn every_way_of_looking_at_a_block_sees_the_same() {
        check(Portable);
        #[cfg(target_arch = "x86_64")]
        {
            if let Some(avx2) = x86_64::Avx2::detect() {
                check(avx2);
            }
            if let Some(avx512) = x86_64::Avx512::detect() {
                check(avx512);
            }
        }
        #[cfg(target_arch = "aarch64")]
        check(Neon);
    }
}
