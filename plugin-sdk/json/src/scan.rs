//! One pass over a document that checks all of it and tells what it comes across, by the best way that the machine has.

use crate::block::{Job, Lanes};
use crate::tree::{Tree, Visitor};
use crate::walk::{self, Elements, Walk};
use crate::{Invalid, block, plain};

/// The ways in which blocks of documents can be looked at.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(test), allow(dead_code, reason = "each kind of machine has one or some of them"))]
pub(crate) enum Machine {
    #[cfg(target_arch = "x86_64")]
    Avx512(block::x86_64::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(block::x86_64::Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon,
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128,
    Portable,
}

impl Default for Machine {
    /// The best that the machine has.
    fn default() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = || block::x86_64::Avx2::detect().map(Self::Avx2);
            block::x86_64::Avx512::detect().map(Self::Avx512).or_else(avx2).unwrap_or(Self::Portable)
        }
        #[cfg(target_arch = "aarch64")]
        return Self::Neon;
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        return Self::Simd128;
        #[cfg(not(any(
            target_arch = "x86_64",
            target_arch = "aarch64",
            all(target_arch = "wasm32", target_feature = "simd128")
        )))]
        return Self::Portable;
    }
}

impl Machine {
    /// Goes over a document that may be nested `max_depth` levels deep, and tells the visitor what is in it.
    #[inline]
    pub(crate) fn scan(
        self,
        document: &[u8],
        tree: &Tree,
        max_depth: u32,
        visitor: &mut impl Visitor,
    ) -> Result<(), Invalid> {
        visitor.start();
        if tree.depth() <= walk::MOST_NAMES {
            let job = Pass { document, tree, max_depth, visitor };
            let is_valid = match self {
                #[cfg(target_arch = "x86_64")]
                Self::Avx512(avx512) => avx512.run(job),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2(avx2) => avx2.run(job),
                #[cfg(target_arch = "aarch64")]
                Self::Neon => job.run(block::Neon),
                #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
                Self::Simd128 => job.run(block::Simd128),
                Self::Portable => job.run(block::Portable),
            };
            if is_valid {
                return Ok(());
            }
            let found = again(document, tree, max_depth, visitor);
            debug_assert!(
                found.is_err(),
                "refused without a reason: {:?}",
                String::from_utf8_lossy(document)
            );
            return found;
        }
        again(document, tree, max_depth, visitor)
    }

    /// Checks a document that may be nested `max_depth` levels deep.
    pub(crate) fn check(self, document: &[u8], max_depth: u32) -> Result<(), Invalid> {
        struct Nobody;
        impl Visitor for Nobody {
            fn start(&mut self) {}
            fn begin(&mut self, _: usize, _: Option<usize>, _: usize) {}
            fn end(&mut self, _: usize, _: usize) {}
        }
        self.scan(document, &Tree::default(), max_depth, &mut Nobody)
    }
}

/// The pass that tells where a mistake is, or that there is none.
#[cold]
fn again(document: &[u8], tree: &Tree, max_depth: u32, visitor: &mut impl Visitor) -> Result<(), Invalid> {
    visitor.start();
    plain::scan(document, tree, max_depth, visitor)
}

struct Pass<'a, V> {
    document: &'a [u8],
    tree: &'a Tree,
    max_depth: u32,
    visitor: &'a mut V,
}

impl<V: Visitor> Job for Pass<'_, V> {
    /// Whether the document is valid.
    type Output = bool;

    #[inline(always)]
    fn run(self, lanes: impl Lanes) -> bool {
        let mut elements = Elements::default();
        Walk::new(self.document, self.tree, self.max_depth, self.visitor, &mut elements).run(lanes)
    }
}
