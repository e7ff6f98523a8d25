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
        let is_near = tree.depth() <= walk::MOST_NAMES;
        if is_near && self.by_masks(document, tree, max_depth, visitor) {
            return Ok(());
        }
        let found = again(document, tree, max_depth, visitor);
        let shown = || String::from_utf8_lossy(document);
        debug_assert!(!is_near || found.is_err(), "it was refused without a reason: {}", shown());
        found
    }

    /// Whether the pass over masks finds it valid. The walk follows no more than [`walk::MOST_NAMES`] names.
    #[inline]
    fn by_masks(self, document: &[u8], tree: &Tree, max_depth: u32, visitor: &mut impl Visitor) -> bool {
        visitor.start();
        let job = Pass { document, tree, max_depth, visitor };
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(avx512) => avx512.run(job),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(avx2) => avx2.run(job),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => job.run(block::Neon),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Self::Simd128 => job.run(block::Simd128),
            Self::Portable => job.run(block::Portable),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_DEPTH;

    /// All that a pass tells.
    #[derive(Debug, Default, PartialEq)]
    struct Told(Vec<(usize, Option<usize>, usize)>);

    impl Visitor for Told {
        fn start(&mut self) {
            self.0.clear();
        }

        fn begin(&mut self, node: usize, member: Option<usize>, start: usize) {
            self.0.push((node, member, start));
        }

        fn end(&mut self, node: usize, end: usize) {
            self.0.push((node, None, end));
        }
    }

    /// A simple generator of numbers (xorshift), so that a failure comes again.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, most: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as usize % most
        }

        fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
            of[self.below(of.len())]
        }

        fn blank(&mut self, out: &mut String, odds: usize) {
            if self.below(odds) == 0 {
                out.push_str(self.one(&[" ", "\n", "\t  ", "\r\n"]));
            }
        }

        fn string(&mut self, out: &mut String, odds: usize) {
            out.push('"');
            for _ in 0..self.below(12) {
                let plain = ["a", "bc", "{", "[", "]", "},{", ",", ":", "é", "true", "1.5", " "];
                out.push_str(if self.below(odds) == 0 {
                    self.one(&["\\\\", "\\\"", "\\n", "\\u00e9", "\\ud83d\\ude00", "\\/"])
                } else {
                    self.one(&plain)
                });
            }
            out.push('"');
        }

        /// A value in which blanks and escapes are as rare as the odds are high.
        fn value(&mut self, out: &mut String, depth: usize, odds: usize) {
            let count = self.below(7);
            match self.below(if depth == 0 { 5 } else { 9 }) {
                0 => out.push_str(self.one(&["true", "false", "null"])),
                1 => out.push_str(self.one(&["0", "-0.50", "1e5", "-1.25E-05", "0.001", "10", "1E+2"])),
                2 => out.push_str(&(self.0 >> self.below(64)).to_string()),
                3 | 4 => self.string(out, odds),
                5 | 6 => {
                    out.push('{');
                    for member in 0..count {
                        self.blank(out, odds);
                        match self.below(3) {
                            0 => self.string(out, odds),
                            _ => out.push_str(self.one(&[
                                "\"a\"",
                                "\"b\"",
                                "\"\"",
                                "\"0\"",
                                "\"a longer name\"",
                            ])),
                        }
                        self.blank(out, odds);
                        out.push(':');
                        self.blank(out, odds);
                        self.value(out, depth - 1, odds);
                        self.blank(out, odds);
                        if member + 1 < count {
                            out.push(',');
                        }
                    }
                    out.push('}');
                }
                _ => {
                    out.push('[');
                    for element in 0..count {
                        self.blank(out, odds);
                        self.value(out, depth - 1, odds);
                        self.blank(out, odds);
                        if element + 1 < count {
                            out.push(',');
                        }
                    }
                    out.push(']');
                }
            }
        }

        fn damage(&mut self, document: &mut Vec<u8>) {
            let at = self.below(document.len());
            let bytes = b"{}[]:,\"\\0123456789.-+eE \n\tfalsenutr\x01\x7f\xc3\xff";
            let byte = bytes[self.below(bytes.len())];
            match self.below(5) {
                0 => document.truncate(at),
                1 => drop(document.remove(at)),
                2 => document.insert(at, byte),
                3 => document[at] = byte,
                _ => document.push(byte),
            }
        }
    }

    fn machines() -> Vec<Machine> {
        let mut machines = vec![Machine::Portable, Machine::default()];
        #[cfg(target_arch = "x86_64")]
        machines.extend(block::x86_64::Avx2::detect().map(Machine::Avx2));
        machines
    }

    /// As many documents as a run of all tests has time for; more by hand.
    fn documents() -> usize {
        std::env::var("DOCUMENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(6_000)
    }

    #[test]
    fn every_machine_says_what_the_pass_byte_by_byte_says() {
        let mut trees = vec![Tree::default()];
        for pointers in [&["/a", "/a/b", "/b"][..], &["/0", "/0/a", "/1/0", ""], &["/a longer name/a", "/"]] {
            let mut tree = Tree::default();
            pointers.iter().for_each(|pointer| assert!(tree.add_field(pointer).is_ok()));
            trees.push(tree);
        }
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let mut valid = 0;
        for round in 0..documents() {
            let mut text = String::new();
            let (depth, odds) = (dice.below(6), [3, 40, 100_000][dice.below(3)]);
            dice.value(&mut text, depth, odds);
            let mut document = text.into_bytes();
            if dice.below(2) == 0 {
                dice.damage(&mut document);
            }
            let tree = &trees[round % trees.len()];
            let mut told = Told::default();
            let is_valid = plain::scan(&document, tree, MAX_DEPTH, &mut told).is_ok();
            valid += usize::from(is_valid);
            for machine in machines() {
                let mut other = Told::default();
                let found = machine.by_masks(&document, tree, MAX_DEPTH, &mut other);
                let shown = String::from_utf8_lossy(&document);
                assert_eq!(found, is_valid, "{machine:?}: {shown}");
                assert!(!found || other == told, "{machine:?}: {shown}: {other:?} and not {told:?}");
            }
        }
        assert!(valid > documents() / 3 && valid < documents(), "the documents are of one kind only");
    }
}
