//! Seeded damage for the tests of the decoders.

/// Overwrites, cuts, grows or swaps a few bytes: what a rotten or hostile payload may look like.
pub(crate) fn mutate(bytes: &mut Vec<u8>, random: &mut impl FnMut() -> u64) {
    for _ in 0..=random() % 3 {
        if bytes.is_empty() {
            return;
        }
        let at = (random() % bytes.len() as u64) as usize;
        match random() % 6 {
            0 => bytes[at] = random() as u8,
            1 => bytes[at] ^= 1 << (random() % 8),
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random() as u8),
            4 => {
                bytes.remove(at);
            }
            _ => bytes[at..].iter_mut().take(4).for_each(|byte| *byte = 0xff),
        }
    }
}

/// A generator with a seed (xorshift64*, Vigna 2016): the runs are the same on every machine.
pub(crate) fn random(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}
