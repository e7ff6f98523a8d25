//! What the characters of a chunk of blocks are to the grammar, and whether they may stand where they do.
//!
//! Everything that can be said of a character by those right before it is said here of many at once, by arithmetic on
//! masks: an addition carries over a run of ones, so that what starts a run is known at its end. What needs the blocks
//! in order is done block by block; all the rest is the same for each block, in loops of which the compiler makes
//! vectors. What depends on the array or object that is around is left to the walk over brackets.

use crate::block::{BLOCK, Lanes, Planes, Portable};
use crate::plain;

/// How many blocks are in a chunk.
pub(crate) const CHUNK: usize = 8;

/// So many blocks are checked one by one: to load many masks at once has to wait until all of them are stored, which takes
/// longer than that.
const FEW: usize = 2;

/// A mask for each block of a chunk, behind that of the block before the chunk.
type Masks = [u64; CHUNK + 1];

/// Up to eight blocks, one after the other, outside of strings. A blank is of the class of what is before it.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    planes: [Masks; 4],
    /// The quotes that open strings.
    opening: Masks,
    /// What is part of numbers and literals.
    scalar: Masks,
    blank: Masks,
    /// Separators of which the one before is a colon, and some that are none.
    after_colon: Masks,
    /// Points behind the digits behind a point, and some that are none.
    second_point: Masks,
    /// Zeros with which a number starts.
    leading_zero: Masks,
    /// What is in literals and exponents.
    odd: Masks,
    /// What may stand in an array, and not in an object.
    array_only: Masks,
    in_string: u64,
    escape: u64,
    colon_before: u64,
    fraction: u64,
    /// Whether a blank or an escape was seen so far: where there is none, a name ends right before its colon, and says
    /// what is written.
    pub(crate) is_loose: bool,
}

/// The separators of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Separators {
    pub(crate) comma: u64,
    pub(crate) colon: u64,
    /// Both `[` and `{`.
    pub(crate) open: u64,
    /// Both `]` and `}`.
    pub(crate) close: u64,
    /// Tells braces from brackets, and means nothing elsewhere.
    pub(crate) curly: u64,
    /// What may stand in an array, and not in an object.
    pub(crate) array_only: u64,
}

impl Chunk {
    /// A chunk before the first block.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        let mut chunk = Self::default();
        // At the start a value may stand, as behind a comma.
        chunk.planes[3][0] = 1 << (BLOCK - 1);
        chunk
    }

    /// The separators of a block.
    #[inline(always)]
    pub(crate) fn separators(&self, at: usize) -> Separators {
        let [first, second, third, fourth] = &self.planes;
        let (first, second, third) = (first[at], second[at], third[at]);
        let fourth = fourth[at] & !self.blank[at];
        let (mark, bracket) = (fourth & !third, fourth & third);
        Separators {
            comma: mark & !first,
            colon: mark & first,
            open: bracket & !second,
            close: bracket & second,
            curly: first,
            array_only: self.array_only[at],
        }
    }

    /// Whether a document may end behind its last block, the one at a place, as far as can be said without its brackets.
    #[inline(always)]
    pub(crate) fn may_end(&self, at: usize, length: u32) -> bool {
        let [.., second, third, fourth] =
            [0, 1, 2, 3].map(|bit| self.planes[bit][at] >> (length - 1) & 1 != 0);
        // In a value, and not with a point or sign; or with a closing bracket.
        let ends = if fourth { third && second } else { !(third && second) };
        self.in_string == 0 && ends
    }

    /// Goes on to the next chunk.
    #[inline(always)]
    pub(crate) fn next(&mut self) {
        for plane in &mut self.planes {
            plane[0] = plane[CHUNK];
        }
        self.scalar[0] = self.scalar[CHUNK];
    }

    /// Leaves out all blocks.
    #[inline(always)]
    pub(crate) fn clear(&mut self) {
        let Self { planes: [first, second, third, fourth], opening, scalar, blank, after_colon, .. } = self;
        for masks in
            [first, second, third, fourth, opening, scalar, blank, after_colon, &mut self.second_point]
        {
            let (_, masks) = masks.split_first_chunk_mut::<1>().expect("there is more than one");
            *masks.first_chunk_mut().expect("there are as many as blocks") = [0; CHUNK];
        }
    }

    /// Reads the block of which the first of `length` bytes is at `base`. False if something in it is not JSON.
    #[inline(always)]
    pub(crate) fn read(
        &mut self,
        lanes: impl Lanes,
        document: &[u8],
        base: usize,
        at: usize,
        planes: Planes,
        length: u32,
    ) -> bool {
        let [first, second, third, fourth] = planes;
        let (simple, mark) = (!(third | fourth), third & !fourth & !second);
        let mut quote = mark & !first;
        let (rare, space) = (simple & !second & first, mark & first);
        let mut control = 0;
        if rare | self.escape != 0 {
            self.is_loose = true;
            let escapes = Escapes::read(document, base, rare, self.escape);
            self.escape = escapes.next;
            quote &= !escapes.escaped;
            control = escapes.control;
            if !escapes.are_valid {
                return false;
            }
        }
        // From each opening quote to before the closing one.
        let inside = lanes.prefix_xor(quote) ^ self.in_string;
        self.in_string = (inside.cast_signed() >> (BLOCK - 1)).cast_unsigned();
        let blank = (space | control) & !inside;
        let (first, second) = (first & !inside, second & !inside);
        let (third, fourth) = (third & !inside, fourth & !inside);
        let scalar = !(inside | quote | fourth | blank) & (u64::MAX >> (BLOCK as u32 - length));
        self.planes[0][at] = first;
        self.planes[1][at] = second;
        self.planes[2][at] = third;
        self.planes[3][at] = fourth;
        self.opening[at] = quote & inside;
        self.scalar[at] = scalar;
        self.blank[at] = blank;

        let colon = fourth & !third & first;
        let (sum, carries) = (!fourth).overflowing_add(colon << 1 | self.colon_before);
        self.colon_before = u64::from(carries) | colon >> (BLOCK - 1);
        self.after_colon[at] = sum;
        let digit = !(third | fourth) & second;
        let point = third & second & !first;
        let (sum, carries) = digit.overflowing_add(point << 1 | self.fraction);
        self.fraction = u64::from(carries) | point >> (BLOCK - 1);
        self.second_point[at] = sum;
        if blank != 0 {
            self.spread(at, blank | !(u64::MAX >> (BLOCK as u32 - length)));
        }
        control & inside == 0
    }

    /// Blanks become of the class of what is before them.
    #[cold]
    fn spread(&mut self, at: usize, blank: u64) {
        self.is_loose = true;
        self.blank[at] = blank;
        for masks in &mut self.planes {
            masks[at] &= !blank;
            let behind = masks[at] << 1 | masks[at - 1] >> (BLOCK - 1);
            masks[at] |= blank & !blank.wrapping_add(behind & blank);
        }
    }

    /// Checks all that does not depend on what is around in the blocks that are there, from the first on. False if
    /// something is not JSON.
    #[inline(always)]
    pub(crate) fn check<L: Lanes>(&mut self, lanes: L, document: &[u8], base: usize, count: usize) -> bool {
        if count <= FEW && L::COUNT > FEW {
            return self.check(Portable, document, base, count);
        }
        let mut all = lanes.load(&[0; CHUNK]);
        let mut odds = all;
        let mut at = 1;
        while at <= count {
            let (wrong, odd) = self.wrong(lanes, at);
            all = all | wrong;
            odds = odds | odd;
            at += L::COUNT;
        }
        !any(lanes, all) && (!any(lanes, odds) || self.tokens_are_valid(document, base, count))
    }

    /// Bits where something is wrong, and where something is odd.
    #[inline(always)]
    fn wrong<L: Lanes>(&mut self, lanes: L, at: usize) -> (L::Masks, L::Masks) {
        let [first, second, third, fourth] = &self.planes;
        let (behind_first, behind_second) = (behind(lanes, first, at), behind(lanes, second, at));
        let (behind_third, behind_fourth) = (behind(lanes, third, at), behind(lanes, fourth, at));
        let (first, second) = (lanes.load(&first[at..]), lanes.load(&second[at..]));
        let (third, fourth) = (lanes.load(&third[at..]), lanes.load(&fourth[at..]));
        let (scalar, behind_scalar) = (lanes.load(&self.scalar[at..]), behind(lanes, &self.scalar, at));
        let start = scalar & !behind_scalar;
        let after_colon = lanes.load(&self.after_colon[at..]);
        let token = fourth & !lanes.load(&self.blank[at..]);
        let (mark, bracket) = (token & !third, token & third);
        let (comma, colon) = (mark & !first, mark & first);
        let (open, close) = (bracket & !second, bracket & second);
        let behind_bracket = behind_fourth & behind_third;
        let (behind_open, behind_close) = (behind_bracket & !behind_second, behind_bracket & behind_second);
        let behind_quote = behind_third & !(behind_fourth | behind_second | behind_first);

        // A value must not stand behind another one, ...
        let mut wrong = (lanes.load(&self.opening[at..]) | start | open) & (behind_close | !behind_fourth);
        // ... and must stand before a comma and a closing bracket, or be what that closes.
        wrong = wrong | (comma | close & !behind_open) & behind_fourth & !behind_close;
        // Before a colon stands a string that is no value of another colon.
        wrong = wrong | colon & (!behind_quote | after_colon);
        // A last member has a colon.
        wrong = wrong | close & first & !(behind_fourth | after_colon);
        let array_only = (open | comma & !behind_fourth) & !after_colon;

        let digit = scalar & second & !(third | fourth);
        let symbol = scalar & third & second;
        let (point, minus) = (symbol & !first, symbol & first);
        let behind_simple = behind_second & !behind_fourth;
        let behind_digit = behind_simple & !behind_third;
        let behind_symbol = behind_simple & behind_third & behind_scalar;
        // A point must follow a digit, and a digit a point and a minus.
        wrong = wrong | point & !behind_digit | behind_symbol & !digit;
        // No second point follows the digits behind a point.
        wrong = wrong | lanes.load(&self.second_point[at..]) & point;
        let odd = scalar & !(digit | point | minus & start);
        let behind_sign = behind_symbol & behind_first & !behind_two(lanes, &self.scalar, at);
        let leading_zero = digit & first & (start | behind_sign);
        lanes.store(array_only, &mut self.array_only[at..]);
        lanes.store(odd, &mut self.odd[at..]);
        lanes.store(leading_zero, &mut self.leading_zero[at..]);
        (wrong, odd | leading_zero)
    }

    /// Checks leading zeros, literals and exponents, of which there are few.
    #[inline(never)]
    fn tokens_are_valid(&self, document: &[u8], base: usize, count: usize) -> bool {
        let mut checked = 0;
        for (block, (&zero, &odd)) in
            self.leading_zero.iter().zip(&self.odd).enumerate().take(count + 1).skip(1)
        {
            let place = |mask: u64| base + (block - 1) * BLOCK + mask.trailing_zeros() as usize;
            let mut zeros = zero;
            while zeros != 0 {
                if document.get(place(zeros) + 1).is_some_and(u8::is_ascii_digit) {
                    return false;
                }
                zeros &= zeros - 1;
            }
            let mut odd = odd;
            while odd != 0 {
                if place(odd) >= checked {
                    let Some(end) = plain::token_around(document, place(odd)) else { return false };
                    checked = end;
                }
                odd &= odd - 1;
            }
        }
        true
    }
}

/// The places behind those of masks.
#[inline(always)]
fn behind<L: Lanes>(lanes: L, masks: &Masks, at: usize) -> L::Masks {
    lanes.shift_left::<1>(lanes.load(&masks[at..])) | lanes.shift_right::<63>(lanes.load(&masks[at - 1..]))
}

/// The places behind those behind those of masks.
#[inline(always)]
fn behind_two<L: Lanes>(lanes: L, masks: &Masks, at: usize) -> L::Masks {
    lanes.shift_left::<2>(lanes.load(&masks[at..])) | lanes.shift_right::<62>(lanes.load(&masks[at - 1..]))
}

#[inline(always)]
fn any<L: Lanes>(lanes: L, masks: L::Masks) -> bool {
    let mut each = [0; CHUNK];
    lanes.store(masks, &mut each);
    each.into_iter().fold(0, |all, mask| all | mask) != 0
}

/// Backslashes and control characters of a block.
struct Escapes {
    /// The characters behind a backslash that escapes them.
    escaped: u64,
    control: u64,
    /// Whether the last character is a backslash that escapes the next.
    next: u64,
    are_valid: bool,
}

impl Escapes {
    #[cold]
    fn read(document: &[u8], base: usize, rare: u64, is_escaped: u64) -> Self {
        const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        let backslash = bits(rare, |bit| document.get(base + bit) == Some(&b'\\'));
        let control = rare & !backslash;
        let escaping = backslash & !is_escaped;
        // Of backslashes in a row, those escape that are first, third and so on. Rows start at even or odd bits, and a
        // subtraction borrows to their end.
        let codes = ((escaping << 1 | ODD).wrapping_sub(escaping)) ^ ODD;
        let escaped = codes ^ (backslash | is_escaped);
        let is_escape = |bit| plain::is_escape(document, base + bit - 1);
        let is_blank = |bit| matches!(document.get(base + bit), Some(b'\n' | b'\r' | b'\t'));
        let are_valid = bits(escaped, is_escape) == escaped && bits(control, is_blank) == control;
        Self { escaped, control, next: (codes & backslash) >> (BLOCK - 1), are_valid }
    }
}

/// Those of the bits that are set for whose places something holds.
#[inline(always)]
fn bits(mask: u64, holds: impl Fn(usize) -> bool) -> u64 {
    let (mut left, mut held) = (mask, 0);
    while left != 0 {
        let bit = left.trailing_zeros();
        left &= left - 1;
        held |= u64::from(holds(bit as usize)) << bit;
    }
    held
}
