//! What a pipeline says became of the records that it read, compared with the reference.
//!
//! What it says stands in the log, so any node tells it; the bytes are read here from their drawing in
//! `cluster/pipelines/src/facts.rs`, and not by the code that wrote them.
//!
//! Invariant checked here: for each reader and partition the fates add up to what was read, and every
//! partition of every source has a reader whose fates are those of the reference.

use fulmar_reference::model::Fates;
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

/// What is wrong with what a pipeline says of itself. With `drops` bad records may have been dropped as well
/// as written away.
pub(super) fn wrong(
    facts: &[u8],
    expected: &BTreeMap<(String, u32), Fates>,
    drops: bool,
) -> Option<String> {
    let Some(mut told) = told(facts) else {
        return Some("what it says cannot be read".to_owned());
    };
    for of in told.values_mut().filter(|_| drops) {
        let [_, _, _, _, dead, dropped, _, _] = of;
        *dead += std::mem::take(dropped);
    }
    for ((reader, partition), of) in &told {
        let sum: u64 = of[1..].iter().sum();
        if of[0] != sum {
            return Some(format!(
                "reader {reader} read {} of {partition}, and tells {of:?}",
                of[0]
            ));
        }
    }
    for ((source, partition), fates) in expected {
        let mut wanted = numbers(fates);
        if drops {
            wanted[4] += std::mem::take(&mut wanted[5]);
        }
        let mut of_partition = told.iter().filter(|((_, at), _)| *at == u64::from(*partition));
        if wanted[0] > 0 && !of_partition.any(|(_, of)| *of == wanted) {
            let all: Vec<_> =
                told.iter().filter(|((_, at), _)| *at == u64::from(*partition)).collect();
            return Some(format!("{source}/{partition} has to have {wanted:?}, told are {all:?}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_that_do_not_add_up_or_are_others_are_found() {
        let expected = |absorbed| {
            let fates =
                Fates { read: 300, late: 1, absorbed, held: 299 - absorbed, ..Fates::default() };
            BTreeMap::from([(("s".to_owned(), 2), fates)])
        };
        // 300 is two bytes; one source with a watermark, and one without.
        let mut facts = vec![2, 0, 5, 6, 0, 0, 0, 0, 0, 0, 2, 1, 9, 0, 1];
        facts.extend([0, 2, 0xac, 2, 0, 0, 1, 0, 0, 100, 0xc7, 1, 0]);
        assert_eq!(wrong(&facts, &expected(100), false), None);
        assert!(wrong(&facts, &expected(99), false).is_some_and(|text| text.contains("s/2")));
        assert!(wrong(&facts[..26], &expected(100), false).is_some(), "cut off");
        let at = facts.len() - 4;
        facts[at] = 101;
        assert!(wrong(&facts, &expected(100), false).is_some_and(|text| text.contains("read 300")));
    }
}
