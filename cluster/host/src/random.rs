//! Random numbers: from the operating system on a real machine, from the seed in a simulation.

/// Eight random bytes as a number.
///
/// # Panics
/// If the operating system has no randomness to give, which leaves nothing sensible to do.
pub fn random_u64() -> u64 {
    #[cfg(madsim)]
    {
        madsim::rand::random()
    }
    #[cfg(not(madsim))]
    {
        getrandom::u64().expect("the operating system gives random numbers")
    }
}

/// Sixteen random bytes.
pub fn random_16() -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&random_u64().to_le_bytes());
    bytes[8..].copy_from_slice(&random_u64().to_le_bytes());
    bytes
}
