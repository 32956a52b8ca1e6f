//! The state of a pipeline on its way into the log and out of it.
//!
//! A delta is a row of changes, written one after the other and cut into *parts*, each a record batch with
//! one record. A part says which one it is, so one that was proposed twice, since its first answer did not
//! come, is read once:
//!
//! ```text
//! record      key: number of the part u32 | value: the next bytes of the row
//! change      part of the state u32 | key len u32, key | there u8 = 1 | value len u32, value
//!             or part of the state u32 | key len u32, key | there u8 = 0
//! ```
//!
//! All numbers are little-endian. Invariant: whatever the bytes are, reading ends in changes or in an
//! error, and holds no more than one part and one change.

use bytes::Bytes;
use fulmar_flow::{Change, Cursor, Engine};
use fulmar_types::pipeline::DELTAS_MAX;
use fulmar_wire::batch::{Batch, BatchBuilder};

/// What a part has besides its bytes: the header of the batch, that of the record, and its key.
const PART_OVERHEAD_BYTES: usize = 128;

/// Of so many equal parts, a slice has one at least: so state has been written anew after as many deltas. Of a
/// state that hardly changes that is most of what is written: 50 MB each quarter of an hour. Deltas of two rounds,
/// and of owners that have gone, are fewer than half of [`DELTAS_MAX`].
const SLICES_OF_A_ROUND: usize = DELTAS_MAX / 8;

/// A slice has so many bytes at least.
const SLICE_BYTES_MIN: usize = 4 << 10;

/// The bytes of a delta are no delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored state cannot be read")]
pub struct Damaged;

/// Changes on their way into parts.
#[derive(Debug)]
pub struct PartWriter {
    part_bytes_max: usize,
    open: Vec<u8>,
    parts: Vec<Bytes>,
    bytes: usize,
}

impl PartWriter {
    /// Into batches of at most so many bytes.
    pub fn new(part_bytes_max: usize) -> Self {
        let part_bytes_max = part_bytes_max.saturating_sub(PART_OVERHEAD_BYTES).max(1);
        Self { part_bytes_max, open: Vec::new(), parts: Vec::new(), bytes: 0 }
    }

    /// Appends changes.
    pub fn push(&mut self, changes: &[Change]) {
        for change in changes {
            self.bytes += change.bytes();
            self.open.extend(change.part.to_le_bytes());
            put(&change.key, &mut self.open);
            self.open.push(u8::from(change.value.is_some()));
            if let Some(value) = &change.value {
                put(value, &mut self.open);
            }
            while self.open.len() > self.part_bytes_max {
                let rest = self.open.split_off(self.part_bytes_max);
                self.close();
                self.open = rest;
            }
        }
    }

    fn close(&mut self) {
        let key = (self.parts.len() as u32).to_le_bytes();
        let mut batch = BatchBuilder::new();
        batch.push(0, Some(&key), Some(&self.open), &[]).expect("a part is short");
        self.parts.extend(batch.build());
        self.open.clear();
    }

    /// How many bytes of changes there are so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The batches.
    pub fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.close();
        }
        self.parts
    }
}

fn put(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The parts of one delta on their way into changes.
#[derive(Debug, Default)]
pub struct PartReader {
    next: u32,
    open: Vec<u8>,
}

impl PartReader {
    /// The changes that are complete with a stored batch.
    ///
    /// # Errors
    /// The batch is no part, or not the next one.
    pub fn part(&mut self, stored: &Bytes) -> Result<Vec<Change>, Damaged> {
        let batch = Batch::parse(stored.clone()).map_err(|_| Damaged)?;
        for record in batch.records().map_err(|_| Damaged)? {
            let record = record.map_err(|_| Damaged)?;
            let number = record.key.as_deref().and_then(|key| key.try_into().ok());
            let number = u32::from_le_bytes(number.ok_or(Damaged)?);
            if number > self.next {
                return Err(Damaged);
            }
            // A part that was proposed again is there already.
            if number == self.next {
                self.next += 1;
                self.open.extend_from_slice(record.value.as_deref().unwrap_or_default());
            }
        }
        let (mut changes, mut rest) = (Vec::new(), self.open.as_slice());
        while let Some((change, behind)) = change(rest)? {
            changes.push(change);
            rest = behind;
        }
        let used = self.open.len() - rest.len();
        self.open.drain(..used);
        Ok(changes)
    }

    /// Behind the last part.
    ///
    /// # Errors
    /// Something of the last change is missing.
    pub fn finish(self) -> Result<(), Damaged> {
        if self.open.is_empty() { Ok(()) } else { Err(Damaged) }
    }
}

fn word(from: &[u8]) -> Option<(u32, &[u8])> {
    from.split_first_chunk().map(|(word, rest)| (u32::from_le_bytes(*word), rest))
}

fn taken(from: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = word(from)?;
    rest.split_at_checked(len as usize)
}

/// The first change, if it is there in full, and what is behind it.
fn change(from: &[u8]) -> Result<Option<(Change, &[u8])>, Damaged> {
    let Some((part, rest)) = word(from) else { return Ok(None) };
    let Some((key, rest)) = taken(rest) else { return Ok(None) };
    let Some((there, rest)) = rest.split_first() else { return Ok(None) };
    let (value, rest) = match there {
        0 => (None, rest),
        1 => match taken(rest) {
            Some((value, rest)) => (Some(value.to_vec()), rest),
            None => return Ok(None),
        },
        _ => return Err(Damaged),
    };
    Ok(Some((Change { part, key: key.to_vec(), value }, rest)))
}

/// How slices of the state follow one another, and which deltas are needed still.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// Where the last slice ended, if the round goes on.
    cursor: Option<Cursor>,
    /// The epoch of the delta with which the round began.
    begun: Option<u64>,
    /// Deltas before this epoch are not needed.
    keep_from: u64,
    /// The epochs of the deltas that are needed, those of earlier owners included.
    kept: Vec<u64>,
}

impl Rounds {
    /// With the deltas that there are.
    pub fn of(deltas: impl Iterator<Item = u64>) -> Self {
        Self { kept: deltas.collect(), ..Self::default() }
    }

    /// How many bytes the slice has that goes with a delta of so many. Everything, if there are many deltas:
    /// owners that come and go would else add deltas, and none would ever come around.
    pub fn slice_bytes(&self, engine: &Engine, delta_bytes: usize) -> usize {
        if self.kept.len() >= DELTAS_MAX / 2 {
            return usize::MAX;
        }
        delta_bytes.max(engine.weight() / SLICES_OF_A_ROUND).max(SLICE_BYTES_MIN)
    }

    /// A delta was taken, with its slice.
    pub fn taken(&mut self, epoch: u64) {
        self.kept.push(epoch);
        self.kept.retain(|epoch| *epoch >= self.keep_from);
    }

    /// Where the next slice begins.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// A piece of the slice of a delta ended here; nowhere, if it came to the end of the state.
    pub fn sliced(&mut self, epoch: u64, cursor: Option<Cursor>) {
        let begun = *self.begun.get_or_insert(epoch);
        if cursor.is_none() {
            (self.keep_from, self.begun) = (begun, None);
        }
        self.cursor = cursor;
    }

    /// Deltas of epochs before this one are not needed.
    pub fn keep_from(&self) -> u64 {
        self.keep_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
        let change = (any::<u32>(), bytes(20), prop::option::of(bytes(300)));
        let change = change.prop_map(|(part, key, value)| Change { part, key, value });
        prop::collection::vec(change, 0..40)
    }

    proptest! {
        #[test]
        fn changes_come_back_whatever_was_proposed_twice(
            changes in changes(),
            part_bytes_max in 130usize..600,
            again in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let mut writer = PartWriter::new(part_bytes_max);
            for piece in changes.chunks(3) {
                writer.push(piece);
            }
            let mut parts = writer.finish();
            for part in &parts {
                prop_assert!(part.len() <= part_bytes_max);
            }
            if !parts.is_empty() {
                // A proposal without an answer may take effect any time later.
                for again in again {
                    let at = again.index(parts.len());
                    let part = parts[at].clone();
                    let to = at + 1 + again.index(parts.len() - at);
                    parts.insert(to, part);
                }
            }
            let mut reader = PartReader::default();
            let mut came = Vec::new();
            for part in &parts {
                came.extend(reader.part(part).expect("a part"));
            }
            reader.finish().expect("complete");
            prop_assert_eq!(came, changes);
        }

        #[test]
        fn any_bytes_are_changes_or_an_error(value in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut batch = BatchBuilder::new();
            batch.push(0, Some(&0u32.to_le_bytes()), Some(&value), &[]).expect("short");
            let stored = batch.build().expect("a record");
            let _ = PartReader::default().part(&stored);
        }
    }

    #[test]
    fn a_delta_without_a_part_in_the_middle_is_not_read() {
        let mut writer = PartWriter::new(140);
        writer.push(&[Change { part: 1, key: vec![0; 40], value: None }]);
        let parts = writer.finish();
        assert!(parts.len() > 2);
        let mut reader = PartReader::default();
        reader.part(&parts[0]).expect("the first one");
        assert_eq!(reader.part(&parts[2]), Err(Damaged));
    }

    #[test]
    fn what_is_before_a_whole_round_can_go() {
        let mut rounds = Rounds::default();
        rounds.sliced(4, None);
        assert_eq!(rounds.keep_from(), 4);
        rounds.sliced(9, None);
        assert_eq!(rounds.keep_from(), 9);
        let mut rounds = Rounds::of(1..=5);
        rounds.sliced(6, None);
        rounds.taken(6);
        assert_eq!(rounds.kept, [6]);
    }
}
