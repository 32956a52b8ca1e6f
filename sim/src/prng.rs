//! Random numbers out of a seed and a salt.
//!
//! Every subsystem draws from a stream of its own, named by a salt, so that a check or a fault that
//! draws one number more does not shift what the workload does. The generator is xoshiro256**
//! (Blackman, Vigna 2018), its state filled by SplitMix64 (Steele, Lea, Flood 2014) from the seed
//! and an FNV-1a hash of the salt.
//!
//! Invariant: the same seed and salt give the same numbers on every machine and in every build.
//!
//! Never: a stream without a seed, or one seeded by the operating system.

/// A stream of random numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prng {
    state: [u64; 4],
}

/// One step of SplitMix64: advances `state` and returns a well mixed number.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// FNV-1a, 64 bits: the salts are short names, and all that matters is that they differ.
fn fnv_1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Prng {
    /// The stream of `seed` for the purpose that `salt` names.
    pub fn new(seed: u64, salt: &str) -> Self {
        let mut filler = seed;
        let mut mixed = split_mix(&mut filler) ^ fnv_1a(salt);
        // Four outputs of SplitMix64 in a row are never all zero, which xoshiro could not leave.
        Self { state: std::array::from_fn(|_| split_mix(&mut mixed)) }
    }

    /// A stream that is split off under a name. Takes one number from this stream.
    pub fn fork(&mut self, salt: &str) -> Self {
        Self::new(self.next_u64(), salt)
    }

    /// The next number, all 64 bits random.
    pub fn next_u64(&mut self) -> u64 {
        let result = self.state[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = self.state[1] << 17;
        self.state[2] ^= self.state[0];
        self.state[3] ^= self.state[1];
        self.state[1] ^= self.state[2];
        self.state[0] ^= self.state[3];
        self.state[2] ^= shifted;
        self.state[3] = self.state[3].rotate_left(45);
        result
    }

    /// A number below `bound`, every one equally likely (Lemire 2019).
    ///
    /// # Panics
    /// If `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below zero");
        // Of the 2^64 products some `threshold` too many fall on the first results: refused.
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// A number from `low` to `high`, both included.
    ///
    /// # Panics
    /// If `low` is above `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "the range {low}..={high} is empty");
        match (high - low).checked_add(1) {
            Some(width) => low + self.below(width),
            None => self.next_u64(),
        }
    }

    /// True in `share_ppm` of a million cases.
    pub fn chance(&mut self, share_ppm: u32) -> bool {
        self.below(1_000_000) < u64::from(share_ppm)
    }

    /// One item, each equally likely; `None` of an empty slice.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() {
            return None;
        }
        items.get(self.below(items.len() as u64) as usize)
    }

    /// Puts the items into a random order, each order equally likely (Fisher, Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_never_change() {
        // Checked-in seeds of scenarios mean something only as long as these stay what they are.
        let mut stream = Prng::new(1, "net");
        let numbers: Vec<u64> = (0..4).map(|_| stream.next_u64()).collect();
        let again: Vec<u64> = {
            let mut stream = Prng::new(1, "net");
            (0..4).map(|_| stream.next_u64()).collect()
        };
        assert_eq!(numbers, again);
        assert_eq!(numbers, NUMBERS_OF_SEED_1_NET);
    }

    const NUMBERS_OF_SEED_1_NET: [u64; 4] = [
        13_681_307_816_056_183_260,
        8_481_017_328_507_808_760,
        12_747_042_738_476_977_862,
        13_327_197_230_088_100_573,
    ];

    #[test]
    fn xoshiro_gives_the_numbers_of_its_reference() {
        // State 1, 2, 3, 4: the published test vector of xoshiro256**.
        let mut stream = Prng { state: [1, 2, 3, 4] };
        let numbers: Vec<u64> = (0..5).map(|_| stream.next_u64()).collect();
        assert_eq!(
            numbers,
            [11520, 0, 1_509_978_240, 1_215_971_899_390_074_240, 1_216_172_134_540_287_360]
        );
    }

    #[test]
    fn split_mix_gives_the_numbers_of_its_reference() {
        let mut state = 1_234_567;
        assert_eq!(split_mix(&mut state), 6_457_827_717_110_365_317);
        assert_eq!(split_mix(&mut state), 3_203_168_211_198_807_973);
    }

    #[test]
    fn streams_differ_by_seed_and_by_salt() {
        let first = |seed, salt| Prng::new(seed, salt).next_u64();
        assert_ne!(first(1, "net"), first(1, "disk"));
        assert_ne!(first(1, "net"), first(2, "net"));
        let mut parent = Prng::new(1, "net");
        assert_ne!(parent.fork("a"), parent.fork("a"));
    }

    #[test]
    fn every_number_below_the_bound_comes_about_equally_often() {
        let mut stream = Prng::new(7, "test");
        let mut seen = [0u32; 6];
        for _ in 0..60_000 {
            seen[stream.below(6) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (9_500..10_500).contains(count)), "{seen:?}");
        assert!((0..1000).all(|_| (3..=5).contains(&stream.between(3, 5))));
        assert_eq!(stream.between(9, 9), 9);
        let _ = stream.between(0, u64::MAX);
        assert!(!stream.chance(0));
        assert!(stream.chance(1_000_000));
    }

    #[test]
    fn a_shuffle_keeps_the_items() {
        let mut items: Vec<u32> = (0..50).collect();
        Prng::new(3, "test").shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
        assert_eq!(Prng::new(3, "test").pick::<u32>(&[]), None);
    }
}
