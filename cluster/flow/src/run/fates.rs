//! What became of every record.
//!
//! Each reader of the pipeline gives each record exactly one fate, so for every reader and partition
//! the fates add up to the records that it read. Every epoch ends with that check.

use super::kept::Kept;
use super::record::Origin;
use crate::value::codec::{Codec, Malformed};
use fulmar_host::planted;
use fulmar_types::Plant;
use std::collections::BTreeMap;
use std::fmt;

/// What became of the records that one reader read from one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// How many it read.
    pub read: u64,
    /// Written to an output.
    pub passed: u64,
    /// Left out by a condition, or without a partner in a join.
    pub filtered: u64,
    /// Too late for the event time.
    pub late: u64,
    /// Sent to the topic for bad records.
    pub dead_lettered: u64,
    /// Bad, and dropped as the file says.
    pub dropped: u64,
    /// Part of a window that is closed, or a row of a table that was replaced.
    pub absorbed: u64,
    /// Part of what is kept: of an open window, of a table, or waiting for its time.
    pub held: u64,
}

/// What may become of a record for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// See [`Fates::passed`].
    Passed,
    /// See [`Fates::filtered`].
    Filtered,
    /// See [`Fates::late`].
    Late,
    /// See [`Fates::dead_lettered`].
    DeadLettered,
    /// See [`Fates::dropped`].
    Dropped,
}

/// The names of the fields, in their order.
const NAMES: [&str; 8] =
    ["read", "passed", "filtered", "late", "dead-lettered", "dropped", "absorbed", "held"];

impl Fates {
    /// The sum of the fates; it is what was read.
    pub fn sum(&self) -> u64 {
        self.passed
            + self.filtered
            + self.late
            + self.dead_lettered
            + self.dropped
            + self.absorbed
            + self.held
    }

    /// Adds those of another reader or partition.
    pub fn add(&mut self, other: &Self) {
        let mut other = *other;
        for (field, more) in self.fields().into_iter().zip(other.fields()) {
            *field += *more;
        }
    }

    /// They with their names.
    pub fn named(mut self) -> [(&'static str, u64); 8] {
        let mut names = NAMES.into_iter();
        self.fields().map(|field| (names.next().unwrap_or_default(), *field))
    }

    /// All of them, in their order.
    pub fn fields(&mut self) -> [&mut u64; 8] {
        [
            &mut self.read,
            &mut self.passed,
            &mut self.filtered,
            &mut self.late,
            &mut self.dead_lettered,
            &mut self.dropped,
            &mut self.absorbed,
            &mut self.held,
        ]
    }
}

impl fmt::Display for Fates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} read = {} passed + {} filtered + {} late + {} dead-lettered + {} dropped + {} \
             absorbed + {} held",
            self.read,
            self.passed,
            self.filtered,
            self.late,
            self.dead_lettered,
            self.dropped,
            self.absorbed,
            self.held
        )
    }
}

/// All numbers as u64, in their order.
impl Codec for Fates {
    fn put(&self, out: &mut Vec<u8>) {
        let mut fates = *self;
        fates.fields().iter().for_each(|field| field.put(out));
    }

    fn read(from: &mut &[u8]) -> Result<Self, Malformed> {
        let mut fates = Self::default();
        for field in fates.fields() {
            *field = u64::read(from)?;
        }
        Ok(fates)
    }

    fn weight(&self) -> usize {
        size_of::<Self>()
    }
}

/// By how much the fates of a partition differ.
#[derive(Clone, Copy, Debug, Default)]
struct Difference {
    /// All but what is held.
    more: Fates,
    held: i64,
}

/// What an epoch does to the fates, by reader and partition.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<(u32, u32), Difference>);

impl Tally {
    fn of(&mut self, place: (u32, u32)) -> &mut Difference {
        self.0.entry(place).or_default()
    }

    /// A record came in.
    pub fn read(&mut self, place: (u32, u32)) {
        self.of(place).more.read += 1;
    }

    /// Something became of a record for good.
    pub fn settle(&mut self, place: (u32, u32), fate: Fate) {
        let fates = &mut self.of(place).more;
        match fate {
            Fate::Passed => fates.passed += 1,
            Fate::Filtered => fates.filtered += u64::from(!planted(Plant::FateNotCounted)),
            Fate::Late => fates.late += 1,
            Fate::DeadLettered => fates.dead_lettered += 1,
            Fate::Dropped => fates.dropped += 1,
        }
    }

    /// Of a row, if it stands for a record.
    pub fn settle_row(&mut self, origin: Option<&Origin>, fate: Fate) {
        if let Some(place) = place(origin) {
            self.settle(place, fate);
        }
    }

    /// A row is kept.
    pub fn hold(&mut self, place: Option<(u32, u32)>) {
        if let Some(place) = place {
            self.of(place).held += 1;
        }
    }

    /// A row is no longer kept, and goes on.
    pub fn release(&mut self, place: Option<(u32, u32)>) {
        if let Some(place) = place {
            self.of(place).held -= 1;
        }
    }

    /// Rows are no longer kept, and were all that was needed.
    pub fn absorb(&mut self, place: (u32, u32), count: u64) {
        let difference = self.of(place);
        difference.held -= count.cast_signed();
        difference.more.absorbed += count;
    }
}

/// The fates of all readers at the end of an epoch, by reader and partition.
#[derive(Debug, Default)]
pub struct Ledger(pub Kept<(u32, u32), Fates>);

impl Ledger {
    /// Takes in what an epoch did.
    ///
    /// # Panics
    /// If not every record has one fate.
    pub fn take(&mut self, tally: Tally) {
        for (place, Difference { more, held }) in tally.0 {
            self.0.change(&place, |fates| {
                fates.add(&more);
                let held = fates.held.checked_add_signed(held);
                fates.held = held.unwrap_or_else(|| {
                    panic!("reader {} releases records that it does not hold", place.0)
                });
            });
        }
        for (place, fates) in self.0.entries() {
            // Planted bugs let an epoch end while records of it are still on their way, or leave a fate out.
            let is_planted = planted(Plant::BarrierNotAligned) || planted(Plant::FateNotCounted);
            let is_settled = fates.sum() == fates.read || is_planted;
            assert!(is_settled, "reader and partition {place:?}: {fates}");
        }
    }
}

/// Reader and partition of a row that stands for a record.
pub fn place(origin: Option<&Origin>) -> Option<(u32, u32)> {
    let origin = origin.filter(|origin| origin.counts)?;
    Some((origin.reader, origin.record.account()))
}
