//! What a pipeline says of itself with each epoch, for people: it stands in the log, so any node can tell
//! it.
//!
//! ```text
//! facts     2 u8 | waiting u8 | records per second | state bytes | failed results
//!           | dead letters: retried, cut, none, of others, without a stream
//!           | sources: count, per source: 0 or 1 and the watermark
//!           | fates: count, per reader and partition: reader, partition, 8 numbers
//!           | others: count, per reader: reader, partitions, 8 numbers
//! ```
//!
//! Numbers are varints (LEB128), watermarks are zigzag. Invariant: facts are never longer than the log
//! takes; if there are too many fates, the last ones of a reader are told together, so that all still add up.

use bytes::Bytes;
use fulmar_flow::{Engine, Fates, Letters};
use fulmar_types::pipeline::PIPELINE_FACTS_BYTES_MAX;
use std::collections::BTreeMap;

const VERSION: u8 = 2;

/// The longest varint.
const COUNT_BYTES_MAX: usize = 10;

/// Room for what is told of several partitions together.
const OTHERS_BYTES: usize = 10 * COUNT_BYTES_MAX;

/// What a pipeline waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Waiting {
    /// Nothing.
    #[default]
    No = 0,
    /// Its state and that of the others of its node have taken all memory that there is for them, and what it
    /// may grow beyond: it reads nothing.
    Memory = 1,
    /// The log, or the budget of an output, has no room.
    Room = 2,
    /// There is no memory left: it reads what lets event time go on, so that windows end.
    Time = 3,
}

impl Waiting {
    /// All that there are.
    pub const ALL: [Self; 4] = [Self::No, Self::Memory, Self::Room, Self::Time];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::No => "nothing",
            Self::Memory => "memory",
            Self::Room => "room",
            Self::Time => "time",
        }
    }
}

/// A reader, a partition, and what became of the records that the one read of the other.
pub type OfPartition = (u32, u32, Fates);

/// A reader, how many partitions, and what became of the records that it read of all of them.
pub type OfOthers = (u32, u64, Fates);

/// What a pipeline says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What it waits for.
    pub waiting: Waiting,
    /// Records that it reads in a second.
    pub records_per_s: u64,
    /// About how many bytes its state has.
    pub state_bytes: u64,
    /// Results of no single record that could not be computed.
    pub failed_results: u64,
    /// What became of dead letters that were to be put through again.
    pub letters: Letters,
    /// The watermark of each source.
    pub watermarks: Vec<Option<i64>>,
    /// The fates, by reader and partition.
    pub fates: Vec<OfPartition>,
    /// By reader: how many more partitions there are, and their fates together.
    pub others: Vec<OfOthers>,
}

fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(from: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0u64, 0);
    loop {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
        shift += 7;
    }
}

fn put_fates((reader, place, mut fates): (u32, u64, Fates), out: &mut Vec<u8>) {
    put(reader.into(), out);
    put(place, out);
    fates.fields().into_iter().for_each(|number| put(*number, out));
}

fn take_fates(from: &mut &[u8]) -> Option<(u32, u64, Fates)> {
    let (reader, place) = (take(from)?, take(from)?);
    let mut fates = Fates::default();
    for number in fates.fields() {
        *number = take(from)?;
    }
    Some((reader.try_into().ok()?, place, fates))
}

fn of_letters(letters: &mut Letters) -> [&mut u64; 5] {
    let Letters { retried, cut, no_letters, of_others, no_stream } = letters;
    [retried, cut, no_letters, of_others, no_stream]
}

impl Facts {
    /// What an engine says.
    pub fn of(engine: &Engine, sources: usize) -> Self {
        Self {
            state_bytes: engine.weight() as u64,
            failed_results: engine.failed_results(),
            letters: engine.letters(),
            watermarks: (0..sources).map(|source| engine.watermark(source)).collect(),
            fates: engine.fates().collect(),
            ..Self::default()
        }
    }

    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION, self.waiting as u8];
        put(self.records_per_s, &mut out);
        put(self.state_bytes, &mut out);
        put(self.failed_results, &mut out);
        let mut letters = self.letters;
        of_letters(&mut letters).into_iter().for_each(|number| put(*number, &mut out));
        put(self.watermarks.len() as u64, &mut out);
        for watermark in &self.watermarks {
            out.push(u8::from(watermark.is_some()));
            watermark.iter().for_each(|ms| put(((ms << 1) ^ (ms >> 63)).cast_unsigned(), &mut out));
        }
        let readers = self.fates.chunk_by(|(one, ..), (other, ..)| one == other).count();
        let others_bytes = (readers + self.others.len()) * OTHERS_BYTES + COUNT_BYTES_MAX;
        let room = PIPELINE_FACTS_BYTES_MAX.saturating_sub(out.len() + COUNT_BYTES_MAX);
        let room = room.saturating_sub(others_bytes);
        let (mut told, mut so_many) = (Vec::new(), 0);
        for (reader, partition, fates) in &self.fates {
            let before = told.len();
            put_fates((*reader, (*partition).into(), *fates), &mut told);
            if told.len() > room {
                told.truncate(before);
                break;
            }
            so_many += 1;
        }
        put(so_many as u64, &mut out);
        out.extend(told);
        let others = self.told_up_to(so_many).1;
        put(others.len() as u64, &mut out);
        for others in others {
            put_fates(others, &mut out);
        }
        out.into()
    }

    /// The first so many fates, and those of the other partitions of each reader together.
    pub fn told_up_to(&self, most: usize) -> (&[OfPartition], Vec<OfOthers>) {
        let (told, rest) = self.fates.split_at(most.min(self.fates.len()));
        let mut others: BTreeMap<u32, (u64, Fates)> = BTreeMap::new();
        let known = self.others.iter().copied();
        for (reader, count, fates) in known.chain(rest.iter().map(|(r, _, fates)| (*r, 1, *fates)))
        {
            let (partitions, sum) = others.entry(reader).or_default();
            *partitions += count;
            sum.add(&fates);
        }
        (told, others.into_iter().map(|(reader, (count, fates))| (reader, count, fates)).collect())
    }

    /// What was said; `None` if the bytes are of another version, or none at all.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let from = &mut &*bytes;
        let (version, rest) = from.split_first()?;
        let (waiting, rest) = rest.split_first()?;
        *from = rest;
        let waiting = Waiting::ALL.into_iter().find(|known| *known as u8 == *waiting)?;
        let mut facts = Self { waiting, ..Self::default() };
        facts.records_per_s = take(from)?;
        facts.state_bytes = take(from)?;
        facts.failed_results = take(from)?;
        for number in of_letters(&mut facts.letters) {
            *number = take(from)?;
        }
        for _ in 0..take(from)? {
            let (there, rest) = from.split_first()?;
            *from = rest;
            facts.watermarks.push(match there {
                0 => None,
                _ => {
                    let zigzag = take(from)?;
                    Some((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
                }
            });
        }
        for _ in 0..take(from)? {
            let (reader, partition, fates) = take_fates(from)?;
            facts.fates.push((reader, partition.try_into().ok()?, fates));
        }
        for _ in 0..take(from)? {
            facts.others.push(take_fates(from)?);
        }
        (*version == VERSION && from.is_empty()).then_some(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fates() -> impl Strategy<Value = (u32, u32, Fates)> {
        let counts = prop::array::uniform8(prop_oneof![0..300u64, any::<u64>()]);
        (any::<u32>(), any::<u32>(), counts).prop_map(|(reader, partition, counts)| {
            let mut fates = Fates::default();
            for (number, count) in fates.fields().into_iter().zip(counts) {
                *number = count;
            }
            (reader, partition, fates)
        })
    }

    proptest! {
        #[test]
        fn facts_come_back(
            (rate, bytes, failed) in any::<(u64, u64, u64)>(),
            watermarks in prop::collection::vec(any::<Option<i64>>(), 0..5),
            fates in prop::collection::vec(fates(), 0..40),
            letters in any::<[u64; 5]>(),
        ) {
            let mut of = Letters::default();
            of_letters(&mut of).into_iter().zip(letters).for_each(|(to, count)| *to = count);
            let facts = Facts {
                letters: of,
                waiting: Waiting::Room,
                records_per_s: rate,
                state_bytes: bytes,
                failed_results: failed,
                watermarks,
                fates,
                others: vec![(7, 8, Fates { read: 9, held: 9, ..Fates::default() })],
            };
            prop_assert_eq!(Facts::decode(&facts.encode()), Some(facts));
        }

        #[test]
        fn any_bytes_are_facts_or_none(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Facts::decode(&bytes);
        }

        #[test]
        fn facts_are_never_too_long_and_add_up(
            fates in prop::array::uniform8(0..u64::MAX >> 20),
            count in 0u32..9_000,
        ) {
            let mut each = Fates::default();
            each.fields().into_iter().zip(fates).for_each(|(number, fate)| *number = fate);
            let fates = (0..count).map(|at| (at / 4_096, at % 4_096, each)).collect();
            let facts = Facts { fates, ..Facts::default() };
            let encoded = facts.encode();
            prop_assert!(encoded.len() <= PIPELINE_FACTS_BYTES_MAX);
            let told = Facts::decode(&encoded).expect("it was encoded");
            let (mut one, mut other, mut partitions) = (Fates::default(), Fates::default(), 0);
            facts.fates.iter().for_each(|(_, _, fates)| one.add(fates));
            told.fates.iter().for_each(|(_, _, fates)| other.add(fates));
            for (_, more, fates) in &told.others {
                partitions += more;
                other.add(fates);
            }
            prop_assert_eq!(one, other);
            prop_assert_eq!(told.fates.len() as u64 + partitions, u64::from(count));
        }
    }
}
