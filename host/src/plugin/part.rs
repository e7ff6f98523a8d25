//! How the instances of one stage share out messages, and the state of their plugin, between them.

/// The offset basis and the prime of 64-bit FNV-1a, the hash that the contract names.
const BASIS: u64 = 14_695_981_039_346_656_037;
const PRIME: u64 = 1_099_511_628_211;

/// Which of several instances an instance is: they share out messages, and the keys of their state, between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatePart {
    /// Its number, from 0.
    pub number: u32,
    /// How many there are.
    pub of: u32,
}

impl StatePart {
    /// The only one there is.
    pub const WHOLE: Self = Self { number: 0, of: 1 };

    /// Which of `parts` parts a key belongs to: plugins find it in the same way.
    #[inline]
    pub fn of_key(key: &[u8], parts: usize) -> usize {
        let hash = key.iter().fold(BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
        usize::try_from(hash % parts.max(1) as u64).expect("it is less than a number of parts")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_belong_to_the_parts_that_the_contract_says() {
        for (key, hash) in [
            ("", 0xcbf2_9ce4_8422_2325_u64),
            ("a", 0xaf63_dc4c_8601_ec8c),
            ("BTCUSDT", 0x3e64_0dbf_f523_962c),
            ("foobar", 0x8594_4171_f739_67e8),
        ] {
            for parts in [1, 2, 3, 256] {
                let expected = usize::try_from(hash % parts as u64).unwrap();
                assert_eq!(StatePart::of_key(key.as_bytes(), parts), expected, "{key} of {parts}");
            }
        }
    }
}
