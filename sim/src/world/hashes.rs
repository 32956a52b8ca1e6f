//! Hashes at other sites, which go in place of what a rule withholds.
//!
//! Checked here (`hashes_keyed`): nobody can compute them who has no key, or takes zeros for one; what is equal has
//! equal hashes, wherever it stands, and what differs has different ones.
//!
//! A hash is the first 128 bits of BLAKE3 in hexadecimal digits.

use super::ruled::Hashed;
use std::collections::BTreeMap;

/// A key that whoever forgot to draw one has.
const NO_KEY: [u8; 32] = [0; 32];

/// The hashes of one site that were seen.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    hashes: BTreeMap<String, String>,
    hashed: BTreeMap<String, String>,
    /// How many were looked at.
    pub(super) seen: u64,
    /// How many of them were of what had been seen before.
    pub(super) again: u64,
}

impl Hashes {
    /// Takes note of a hash. What is wrong with it, if anything.
    pub(super) fn see(&mut self, Hashed { of, hash }: Hashed) -> Option<String> {
        self.seen += 1;
        let bytes = of.as_bytes();
        let without_key = [blake3::hash(bytes), blake3::keyed_hash(&NO_KEY, bytes)];
        if without_key.iter().any(|known| known.to_hex().starts_with(&*hash)) {
            return Some(format!("{hash} is what anybody can compute of {of}"));
        }
        if let Some(before) = self.hashes.get(&of) {
            self.again += 1;
            return (*before != hash).then(|| format!("{of} is {hash}, and was {before}"));
        }
        if let Some(other) = self.hashed.get(&hash) {
            return Some(format!("{hash} is of {of}, and of {other}"));
        }
        self.hashes.insert(of.clone(), hash.clone());
        self.hashed.insert(hash, of);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hashes_with_a_key_are_good_and_one_for_each_value() {
        let of = |of: &str, hash: &str| Hashed { of: of.to_owned(), hash: hash.to_owned() };
        let key = [7; 32];
        let hash = |text: &str| blake3::keyed_hash(&key, text.as_bytes()).to_hex()[..32].to_owned();
        let mut hashes = Hashes::default();
        for text in ["a", "b", "a"] {
            assert_eq!(hashes.see(of(text, &hash(text))), None);
        }
        assert_eq!((hashes.seen, hashes.again), (3, 1));
        let mut wrong = |text: &str, hash: &str| hashes.see(of(text, hash)).expect("it is wrong");
        assert!(wrong("a", &hash("c")).contains("and was"));
        assert!(wrong("c", &hash("a")).contains("and of a"));
        let unkeyed = blake3::hash(b"c").to_hex()[..32].to_owned();
        assert!(wrong("c", &unkeyed).contains("anybody can compute"));
        let zeros = blake3::keyed_hash(&[0; 32], b"c").to_hex()[..32].to_owned();
        assert!(wrong("c", &zeros).contains("anybody can compute"));
    }
}
