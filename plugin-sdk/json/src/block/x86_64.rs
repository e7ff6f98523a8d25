//! Blocks by the vectors of x86-64, AVX-512 or AVX2, where the machine has them.
//!
//! `unsafe` says here that the machine has the instructions of which a function is made, and that an array of 64
//! bytes may be read.
#![expect(
    unsafe_code,
    reason = "a function made of some instructions may be called only where the machine has them"
)]
#![deny(unsafe_op_in_unsafe_fn)]

use super::{BLOCK, CLASSES, Job, Lanes, Planes, RARE, row};
use std::arch::x86_64::*;
use std::ops::{BitAnd, BitOr, Not};

/// Vectors of 64 bytes and tables of 128, and the instructions on bits that came with AVX2. Whoever has one has asked
/// the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512(());

/// Vectors of 32 bytes, and the instructions on bits that came with them. Whoever has one has asked the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2(());

impl Avx512 {
    /// Whether this machine has it.
    pub(crate) fn detect() -> Option<Self> {
        Avx2::detect()?;
        let has_vectors = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
        (has_vectors && is_x86_feature_detected!("avx512vbmi")).then_some(Self(()))
    }

    /// Does a job by code that is compiled for such a machine.
    #[inline]
    pub(crate) fn run<J: Job>(self, job: J) -> J::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
        fn compiled<J: Job>(avx512: Avx512, job: J) -> J::Output {
            job.run(avx512)
        }
        // SAFETY: `self` is made only where the machine has these features.
        unsafe { compiled(self, job) }
    }
}

impl Avx2 {
    /// Whether this machine has it.
    pub(crate) fn detect() -> Option<Self> {
        let has_vectors = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("pclmulqdq");
        let has_bits = is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        (has_vectors && has_bits).then_some(Self(()))
    }

    /// Does a job by code that is compiled for such a machine.
    #[inline]
    pub(crate) fn run<J: Job>(self, job: J) -> J::Output {
        #[target_feature(enable = "avx2,pclmulqdq,bmi1,bmi2,lzcnt,popcnt")]
        fn compiled<J: Job>(avx2: Avx2, job: J) -> J::Output {
            job.run(avx2)
        }
        // SAFETY: `self` is made only where the machine has these features.
        unsafe { compiled(self, job) }
    }
}

/// Masks of eight blocks. Whoever has some has asked the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Masks512(__m512i);

impl BitAnd for Masks512 {
    type Output = Self;

    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm512_and_si512(self.0, other.0) })
    }
}

impl BitOr for Masks512 {
    type Output = Self;

    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm512_or_si512(self.0, other.0) })
    }
}

impl Not for Masks512 {
    type Output = Self;

    #[inline(always)]
    fn not(self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm512_xor_si512(self.0, _mm512_set1_epi64(-1)) })
    }
}

impl Lanes for Avx512 {
    type Masks = Masks512;

    const COUNT: usize = 8;

    #[inline(always)]
    fn load(self, masks: &[u64]) -> Masks512 {
        let masks: &[u64; 8] = masks.first_chunk().expect("so many masks are there");
        // SAFETY: `self` is made only where the machine has these features, and the masks are there.
        Masks512(unsafe { _mm512_loadu_si512(masks.as_ptr().cast()) })
    }

    #[inline(always)]
    fn store(self, masks: Masks512, to: &mut [u64]) {
        let to: &mut [u64; 8] = to.first_chunk_mut().expect("so many masks are there");
        // SAFETY: as for `load`.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), masks.0) }
    }

    #[inline(always)]
    fn shift_left<const BY: u32>(self, masks: Masks512) -> Masks512 {
        // SAFETY: `self` is made only where the machine has these features.
        Masks512(unsafe { _mm512_sll_epi64(masks.0, _mm_cvtsi32_si128(BY.cast_signed())) })
    }

    #[inline(always)]
    fn shift_right<const BY: u32>(self, masks: Masks512) -> Masks512 {
        // SAFETY: `self` is made only where the machine has these features.
        Masks512(unsafe { _mm512_srl_epi64(masks.0, _mm_cvtsi32_si128(BY.cast_signed())) })
    }

    #[inline(always)]
    fn planes(self, bytes: &[u8; BLOCK]) -> Planes {
        // SAFETY: `self` is made only where the machine has these features.
        unsafe { planes_avx512(bytes) }
    }

    #[inline(always)]
    fn prefix_xor(self, mask: u64) -> u64 {
        // SAFETY: `self` is made only where the machine has PCLMULQDQ.
        unsafe { prefix_xor_pclmulqdq(mask) }
    }
}

/// Masks of four blocks. Whoever has some has asked the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Masks256(__m256i);

impl BitAnd for Masks256 {
    type Output = Self;

    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm256_and_si256(self.0, other.0) })
    }
}

impl BitOr for Masks256 {
    type Output = Self;

    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm256_or_si256(self.0, other.0) })
    }
}

impl Not for Masks256 {
    type Output = Self;

    #[inline(always)]
    fn not(self) -> Self {
        // SAFETY: see the type.
        Self(unsafe { _mm256_xor_si256(self.0, _mm256_set1_epi64x(-1)) })
    }
}

impl Lanes for Avx2 {
    type Masks = Masks256;

    const COUNT: usize = 4;

    #[inline(always)]
    fn load(self, masks: &[u64]) -> Masks256 {
        let masks: &[u64; 4] = masks.first_chunk().expect("so many masks are there");
        // SAFETY: `self` is made only where the machine has these features, and the masks are there.
        Masks256(unsafe { _mm256_loadu_si256(masks.as_ptr().cast()) })
    }

    #[inline(always)]
    fn store(self, masks: Masks256, to: &mut [u64]) {
        let to: &mut [u64; 4] = to.first_chunk_mut().expect("so many masks are there");
        // SAFETY: as for `load`.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), masks.0) }
    }

    #[inline(always)]
    fn shift_left<const BY: u32>(self, masks: Masks256) -> Masks256 {
        // SAFETY: `self` is made only where the machine has these features.
        Masks256(unsafe { _mm256_sll_epi64(masks.0, _mm_cvtsi32_si128(BY.cast_signed())) })
    }

    #[inline(always)]
    fn shift_right<const BY: u32>(self, masks: Masks256) -> Masks256 {
        // SAFETY: `self` is made only where the machine has these features.
        Masks256(unsafe { _mm256_srl_epi64(masks.0, _mm_cvtsi32_si128(BY.cast_signed())) })
    }

    #[inline(always)]
    fn planes(self, bytes: &[u8; BLOCK]) -> Planes {
        // SAFETY: `self` is made only where the machine has AVX2.
        unsafe { planes_avx2(bytes) }
    }

    #[inline(always)]
    fn prefix_xor(self, mask: u64) -> u64 {
        // SAFETY: `self` is made only where the machine has PCLMULQDQ.
        unsafe { prefix_xor_pclmulqdq(mask) }
    }
}

/// A product without carries by all ones adds up, at each bit, what is at and below it.
#[inline]
#[target_feature(enable = "pclmulqdq")]
fn prefix_xor_pclmulqdq(mask: u64) -> u64 {
    let product = _mm_clmulepi64_si128::<0>(_mm_set_epi64x(0, mask.cast_signed()), _mm_set1_epi8(-1));
    _mm_cvtsi128_si64(product).cast_unsigned()
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn planes_avx512(bytes: &[u8; BLOCK]) -> Planes {
    let (tables, _) = CLASSES.as_chunks::<BLOCK>();
    // SAFETY: they are 64 bytes each.
    let (low, high, bytes) = unsafe {
        (
            _mm512_loadu_si512(tables[0].as_ptr().cast()),
            _mm512_loadu_si512(tables[1].as_ptr().cast()),
            _mm512_loadu_si512(bytes.as_ptr().cast()),
        )
    };
    // What is not ASCII is of no class; the table would take it without its highest bit.
    let ascii = !_mm512_movepi8_mask(bytes);
    let classes = _mm512_maskz_permutex2var_epi8(ascii, low, bytes, high);
    [
        _mm512_test_epi8_mask(classes, _mm512_set1_epi8(1)),
        _mm512_test_epi8_mask(classes, _mm512_set1_epi8(2)),
        _mm512_test_epi8_mask(classes, _mm512_set1_epi8(4)),
        _mm512_test_epi8_mask(classes, _mm512_set1_epi8(8)),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn planes_avx2(bytes: &[u8; BLOCK]) -> Planes {
    // SAFETY: they are 64 bytes.
    let (low, high) = unsafe {
        let vectors = bytes.as_ptr().cast::<__m256i>();
        (_mm256_loadu_si256(vectors), _mm256_loadu_si256(vectors.add(1)))
    };
    let (low, high) = (classes_avx2(low), classes_avx2(high));
    let bits = |low: __m256i, high: __m256i| {
        u64::from(_mm256_movemask_epi8(low).cast_unsigned())
            | u64::from(_mm256_movemask_epi8(high).cast_unsigned()) << 32
    };
    // The bit of a plane becomes the highest of its byte.
    [
        bits(_mm256_slli_epi16::<7>(low), _mm256_slli_epi16::<7>(high)),
        bits(_mm256_slli_epi16::<6>(low), _mm256_slli_epi16::<6>(high)),
        bits(_mm256_slli_epi16::<5>(low), _mm256_slli_epi16::<5>(high)),
        bits(_mm256_slli_epi16::<4>(low), _mm256_slli_epi16::<4>(high)),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn classes_avx2(bytes: __m256i) -> __m256i {
    const fn table(first: usize) -> __m128i {
        // SAFETY: any bytes are a vector.
        unsafe { std::mem::transmute::<[u8; 16], __m128i>(row(first)) }
    }
    let row = |first: u8, table: __m128i| {
        // Only what is in the row stays below 128, and the table gives nothing for the rest.
        let places = _mm256_xor_si256(bytes, _mm256_set1_epi8(first.cast_signed()));
        let places = _mm256_adds_epu8(places, _mm256_set1_epi8(0x70));
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), places)
    };
    let control = _mm256_cmpeq_epi8(_mm256_min_epu8(bytes, _mm256_set1_epi8(0x1f)), bytes);
    let control = _mm256_and_si256(control, _mm256_set1_epi8(RARE.cast_signed()));
    let (marks, digits) = (row(0x20, const { table(0x20) }), row(0x30, const { table(0x30) }));
    let (brackets, braces) = (row(0x50, const { table(0x50) }), row(0x70, const { table(0x70) }));
    _mm256_or_si256(
        control,
        _mm256_or_si256(_mm256_or_si256(marks, digits), _mm256_or_si256(brackets, braces)),
    )
}
