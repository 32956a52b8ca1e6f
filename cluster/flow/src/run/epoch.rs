//! What an epoch has done and put out so far, while its barrier is under way.
//!
//! Several epochs can be under way: the sources go on with the next one while operators behind them are still at
//! the last. Each operator counts and writes for the epoch that it is in, so what becomes of the records of one
//! is known when its barrier has passed all sinks, whatever the others have done by then.

use super::Halt;
use super::channel::Rank;
use super::fates::Tally;
use super::output;
use super::record::Written;
use std::collections::BTreeMap;
use std::collections::btree_map::IntoValues;
use std::iter::{Chain, FlatMap, Flatten};

/// A bad row on its way to its topic.
#[derive(Debug)]
pub struct Beside {
    /// The place of the row.
    pub rank: Rank,
    /// Whether it stands for a record: the copies of it in several windows come one after the other, and fail
    /// alike.
    pub is_record: bool,
    /// What is written.
    pub written: Written,
}

/// Where a row was when it could not be computed: the node, and there on its way in, by side, or on its way out.
pub type Where = (usize, u8);

/// Stands for a source that the file does not have.
pub const NO_SOURCE: usize = usize::MAX;

/// The rows that could not be computed at a node when they came out of it.
pub const OUT: u8 = 2;

/// An epoch under way.
#[derive(Debug, Default)]
pub struct Epoch {
    /// What became of records.
    pub tally: Tally,
    /// How many results of no single record could not be computed.
    pub failed_results: u64,
    /// What became of dead letters, see `letters.rs`.
    pub letters: BTreeMap<u32, u64>,
    /// What joins of streams have put out, in bytes.
    pub joined: usize,
    /// What was written, in bytes, about, without what could not be read.
    pub put_out: usize,
    /// Why the pipeline has to stop in this epoch.
    pub halt: Option<Halt>,
    /// What sinks wrote, by node.
    pub sinks: BTreeMap<usize, Vec<Written>>,
    /// Bad records, by source; and dead letters for which the file has no source, behind all of them.
    pub dead: BTreeMap<usize, Vec<Written>>,
    /// Late records, by source.
    pub late: BTreeMap<usize, Vec<Written>>,
    /// Bad rows.
    pub failed: BTreeMap<Where, Vec<Beside>>,
    /// What nodes with several inputs have promised, by node.
    pub watermarks: BTreeMap<u32, i64>,
    /// How many sinks the barrier has passed.
    pub sinks_passed: usize,
}

/// Records, list by list.
type Lists = Flatten<IntoValues<usize, Vec<Written>>>;

/// Bad rows, place by place; those of one are put in order when it is their turn.
type Failed = FlatMap<IntoValues<Where, Vec<Beside>>, Vec<Written>, InOrder>;

/// See [`in_order`].
type InOrder = fn(Vec<Beside>) -> Vec<Written>;

/// What came out of an epoch, in an order that depends on nothing but what went in: one record after the other,
/// since to put hundreds of thousands into one list takes long.
#[derive(Debug)]
pub struct CameOut {
    sinks: Lists,
    beside: Chain<Lists, Lists>,
    failed: Failed,
    record_bytes_max: usize,
}

impl Iterator for CameOut {
    type Item = Written;

    fn next(&mut self) -> Option<Written> {
        self.sinks.next().or_else(|| {
            let beside = self.beside.next().or_else(|| self.failed.next())?;
            Some(output::fitting(beside, self.record_bytes_max))
        })
    }
}

impl Epoch {
    /// All that came out.
    pub fn written(self, record_bytes_max: usize) -> CameOut {
        CameOut {
            sinks: self.sinks.into_values().flatten(),
            beside: self.dead.into_values().flatten().chain(self.late.into_values().flatten()),
            failed: self.failed.into_values().flat_map(in_order),
            record_bytes_max,
        }
    }
}

/// Bad rows of one place, out of whichever subtasks.
fn in_order(mut failed: Vec<Beside>) -> Vec<Written> {
    // Those of one rank are of one subtask, and in order.
    failed.sort_by(|one, other| one.rank.cmp(&other.rank));
    failed.dedup_by(|next, one| next.is_record && one.is_record && next.written == one.written);
    failed.into_iter().map(|beside| beside.written).collect()
}
