//! What a pipeline says became of the records that it read, compared with the reference.
//!
//! What it says stands in the log, so any node tells it; the bytes are read here from their drawing in
//! `cluster/pipelines/src/facts.rs`, and not by the code that wrote them.
//!
//! Invariant checked here: for each reader and partition the fates add up to what was read, and are those that
//! the reference has for this reader, and no other.

use fulmar_reference::model::{ByReader, Fates};
use std::collections::BTreeMap;

/// The numbers of one reader and partition: read, passed, filtered, late, dead-lettered, dropped, absorbed,
/// held.
type Numbers = [u64; 8];

/// Stands for all partitions of a reader that are not told one by one.
const OTHERS: u64 = u64::MAX;

/// A number of seven bits a byte, the lowest first.
fn number(from: &mut &[u8]) -> Option<u64> {
    let end = from.iter().position(|byte| byte & 0x80 == 0)?;
    let (bytes, rest) = from.split_at(end + 1);
    *from = rest;
    Some(bytes.iter().rev().fold(0, |sum, byte| sum << 7 | u64::from(byte & 0x7f)))
}

fn byte(from: &mut &[u8]) -> Option<u8> {
    let (first, rest) = from.split_first()?;
    *from = rest;
    Some(*first)
}

/// How many bytes its state has, in what a pipeline said.
pub(super) fn state_bytes(facts: &[u8]) -> Option<u64> {
    let from = &mut &*facts;
    let (_version, _waiting, _rate) = (byte(from)?, byte(from)?, number(from)?);
    number(from)
}

/// The fates in what a pipeline said, by reader and partition.
fn told(facts: &[u8]) -> Option<BTreeMap<(u64, u64), Numbers>> {
    let from = &mut &*facts;
    let (version, _waiting) = (byte(from)?, byte(from)?);
    for _ in
        ["rate", "bytes of state", "failed results", "retried", "cut", "none", "others", "lost"]
    {
        number(from)?;
    }
    for _ in 0..number(from)? {
        if byte(from)? == 1 {
            number(from)?;
        }
    }
    let mut all = BTreeMap::new();
    for _ in 0..number(from)? {
        let place = (number(from)?, number(from)?);
        let mut numbers = Numbers::default();
        for of in &mut numbers {
            *of = number(from)?;
        }
        all.insert(place, numbers);
    }
    // What there was no room to tell one by one.
    for _ in 0..number(from)? {
        let (reader, _partitions) = (number(from)?, number(from)?);
        let mut numbers = Numbers::default();
        for of in &mut numbers {
            *of = number(from)?;
        }
        all.insert((reader, OTHERS), numbers);
    }
    (version == 2 && from.is_empty()).then_some(all)
}

fn numbers(fates: &Fates) -> Numbers {
    let Fates { read, passed, filtered, late, dead_lettered, dropped, absorbed, held } = *fates;
    [read, passed, filtered, late, dead_lettered, dropped, absorbed, held]
}

/// Bad records may have been dropped as well as written away: those are one fate then.
fn merged(mut of: Numbers, drops: bool) -> Numbers {
    if drops {
        of[4] += std::mem::take(&mut of[5]);
    }
    of
}

/// What is wrong with what a pipeline says of itself; `readers` are the sources of its readers. With `drops` bad
/// records may have been dropped as well as written away.
pub(super) fn wrong(
    facts: &[u8],
    (readers, expected): (&[&str], &ByReader),
    drops: bool,
) -> Option<String> {
    let Some(told) = told(facts) else {
        return Some("what it says cannot be read".to_owned());
    };
    for ((reader, partition), of) in &told {
        let sum: u64 = of[1..].iter().sum();
        if of[0] != sum {
            return Some(format!(
                "reader {reader} read {} of {partition}, and tells {of:?}",
                of[0]
            ));
        }
    }
    let expected: BTreeMap<(u64, u64), Numbers> = expected
        .iter()
        .map(|((reader, partition), of)| ((u64::from(*reader), (*partition).into()), numbers(of)))
        .collect();
    for place in expected.keys().chain(told.keys()) {
        let of = |all: &BTreeMap<(u64, u64), Numbers>| {
            merged(all.get(place).copied().unwrap_or_default(), drops)
        };
        let (wanted, of) = (of(&expected), of(&told));
        if wanted != of {
            let (reader, partition) = *place;
            let source = readers.get(reader as usize).unwrap_or(&"nothing");
            return Some(format!(
                "reader {reader}, of {source}/{partition}, has to have {wanted:?}, told are {of:?}"
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_that_do_not_add_up_or_are_others_are_found() {
        let expected = |reader, absorbed| {
            let fates =
                Fates { read: 300, late: 1, absorbed, held: 299 - absorbed, ..Fates::default() };
            ByReader::from([((reader, 2), fates)])
        };
        let found = |facts: &[u8], (reader, absorbed)| {
            wrong(facts, (&["s", "w"], &expected(reader, absorbed)), false)
        };
        // 300 is two bytes; one source with a watermark, and one without.
        let mut facts = vec![2, 0, 5, 6, 0, 0, 0, 0, 0, 0, 2, 1, 9, 0, 1];
        facts.extend([0, 2, 0xac, 2, 0, 0, 1, 0, 0, 100, 0xc7, 1, 0]);
        assert_eq!(found(&facts, (0, 100)), None);
        assert!(found(&facts, (0, 99)).is_some_and(|text| text.contains("of s/2")));
        assert!(found(&facts, (1, 100)).is_some_and(|text| text.contains("of w/2")), "another one");
        let nothing = wrong(&facts, (&["s", "w"], &ByReader::new()), false);
        assert!(nothing.is_some_and(|text| text.contains("of s/2")), "nothing was to be read");
        assert!(found(&facts[..26], (0, 100)).is_some(), "cut off");
        let at = facts.len() - 4;
        facts[at] = 101;
        assert!(found(&facts, (0, 100)).is_some_and(|text| text.contains("read 300")));
    }
}
