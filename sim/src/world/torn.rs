//! What can be read of an LZ4 frame that broke off: all that its bytes say up to there.
//!
//! The layouts are those of the LZ4 frame and block formats, as they are published. Invariant: total; what is said is a
//! beginning of what the whole frame becomes.

/// Bytes of a frame's head without a size: magic, flags, block size, checksum.
const HEAD_BYTES: usize = 7;

/// In the flags: blocks have checksums, the head has the size of all.
const BLOCK_CHECKSUMS: u8 = 1 << 4;
const HAS_SIZE: u8 = 1 << 3;

/// In the size of a block: it is not compressed.
const PLAIN: u32 = 1 << 31;

/// The shortest match.
const MATCH_MIN: usize = 4;

/// The beginning of what a frame becomes, at most so many bytes.
pub(super) fn undone(frame: &[u8], most: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let Some(flags) = frame.get(4).copied() else { return out };
    let head = HEAD_BYTES + if flags & HAS_SIZE == 0 { 0 } else { 8 };
    let mut rest = frame.get(head..).unwrap_or_default();
    while let Some((len, behind)) = rest.split_first_chunk::<4>() {
        let len = u32::from_le_bytes(*len);
        let end = ((len & !PLAIN) as usize).min(behind.len());
        if end == 0 {
            break;
        }
        match len & PLAIN {
            0 if block(&behind[..end], most, &mut out).is_none() => break,
            0 => {}
            _ => out.extend_from_slice(&behind[..end]),
        }
        let checksum = if flags & BLOCK_CHECKSUMS == 0 { 0 } else { 4 };
        rest = behind.get(end + checksum..).unwrap_or_default();
    }
    out
}

/// Undoes a block as far as it goes. `None` if nothing can come behind it.
fn block(bytes: &[u8], most: usize, out: &mut Vec<u8>) -> Option<()> {
    let mut rest = bytes.iter().copied();
    while let Some(token) = rest.next() {
        let literals = length(usize::from(token >> 4), &mut rest)?;
        let before = out.len();
        out.extend(rest.by_ref().take(literals));
        if out.len() - before < literals || out.len() > most {
            return None;
        }
        let Some(low) = rest.next() else { break };
        let back = usize::from(u16::from_le_bytes([low, rest.next()?]));
        let copied = MATCH_MIN + length(usize::from(token & 15), &mut rest)?;
        let from = out.len().checked_sub(back).filter(|_| back > 0)?;
        if out.len() + copied > most {
            return None;
        }
        // It may run into what it writes.
        for at in from..from + copied {
            out.push(out[at]);
        }
    }
    Some(())
}

/// A length of which a token has said the beginning.
fn length(said: usize, rest: &mut impl Iterator<Item = u8>) -> Option<usize> {
    let mut length = said;
    if said == 15 {
        loop {
            let more = rest.next()?;
            length += usize::from(more);
            if more != u8::MAX {
                break;
            }
        }
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulmar_wire::batch::Compression;
    use fulmar_wire::compression::compress;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_frame_that_broke_off_says_a_beginning(
            words in proptest::collection::vec(0u32..40, 0..3_000), cut in 0usize..20_000,
        ) {
            let plain: Vec<u8> =
                words.iter().flat_map(|word| format!("word-{word};").into_bytes()).collect();
            let frame = compress(Compression::Lz4, &plain);
            prop_assert_eq!(undone(&frame, usize::MAX), &plain[..]);
            let torn = undone(&frame[..cut.min(frame.len())], usize::MAX);
            prop_assert!(plain.starts_with(&torn));
        }

        #[test]
        fn any_bytes_become_something(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            undone(&bytes, 10_000);
        }
    }
}
