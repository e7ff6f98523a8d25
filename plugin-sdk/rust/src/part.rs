//! How several instances of a plugin share out the keys of their state.

/// The offset basis and the prime of 64-bit FNV-1a.
const BASIS: u64 = 14_695_981_039_346_656_037;
const PRIME: u64 = 1_099_511_628_211;

/// Which of several instances this one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 0.
    pub number: u32,
    /// How many there are; at least one.
    pub of: u32,
}

impl Part {
    /// Whether a key belongs to this instance: a key as the host finds it in messages, which is
    /// [`keyed::shared_by`](crate::keyed::shared_by) of a [`Key`](crate::keyed::Key). To the only one there is, every key does.
    pub fn has(self, key: &str) -> bool {
        hash(key) % u64::from(self.of.max(1)) == u64::from(self.number)
    }

    /// Whether it is the only one.
    pub fn is_whole(self) -> bool {
        self.of <= 1
    }
}

/// The hash of a key by which the host shares out messages: 64-bit FNV-1a of its UTF-8 bytes.
pub fn hash(key: &str) -> u64 {
    key.bytes().fold(BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        for (key, expected) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            assert_eq!(hash(key), expected, "{key}");
        }
    }

    #[test]
    fn each_key_belongs_to_one_part() {
        for key in ["", "BTCUSDT", "ETHUSDT", "ż"] {
            let owners = (0..3).filter(|&number| Part { number, of: 3 }.has(key)).count();
            assert_eq!(owners, 1, "{key}");
            assert!(Part { number: 0, of: 1 }.has(key));
        }
    }
}
