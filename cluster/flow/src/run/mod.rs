//! Running a plan over records that are given to it, epoch by epoch, in memory.
//!
//! | module | what |
//! |---|---|
//! | [`engine`] | a pipeline that runs |
//! | [`tasks`] | its tasks, with their subtasks and the channels between them |
//! | [`work`] | what a subtask does when it works; barriers |
//! | [`channel`], [`exchange`] | what lies between subtasks, and which one gets which row |
//! | [`epoch`] | what an epoch under way has done |
//! | [`input`] | from records to the operators |
//! | [`steps`] | what nodes do that keep nothing |
//! | [`taken`] | its state, out and in |
//! | [`record`] | records and rows |
//! | [`source`] | from records to rows, event time |
//! | [`awaited`] | which partitions event time waits for |
//! | [`operator`] | the operators that keep state: [`group`], [`table_join`], [`window_join`] |
//! | [`fold`] | aggregates |
//! | [`stored`], [`output`] | from batches to records, and from records to batches |
//! | [`fates`] | what became of every record |
//! | [`kept`] | state by key, its snapshots and deltas |
//! | [`copies`] | rows in windows |
//! | [`context`] | bad rows |
//! | [`letters`] | dead letters that are put through again |
//!
//! An epoch is some records and an age. Its records come in the order of the topics, the partitions and
//! the offsets, cut into batches anywhere; behind the last one comes a barrier, which flows with the rows. Where it
//! passes, watermarks move and windows fire; when it has passed all sinks, what came out is handed over.
//!
//! Invariants: the same epochs give the same bytes, whatever the batches, the number of subtasks, the size of the
//! channels and the order of work are; the fates add up at the end of every epoch; after a [`Halt`] nothing of
//! its epoch is taken any more.

pub mod awaited;
pub mod channel;
pub mod context;
pub mod copies;
pub mod engine;
pub mod epoch;
pub mod exchange;
pub mod fates;
pub mod fold;
pub mod group;
pub mod input;
pub mod kept;
pub mod letters;
pub mod operator;
pub mod output;
pub mod record;
pub mod source;
pub mod steps;
pub mod stored;
pub mod table_join;
pub mod taken;
pub mod tasks;
pub mod window_join;
pub mod work;

use crate::eval::Failure;
use record::Record;
use std::fmt;
use std::sync::Arc;

/// Why a pipeline stopped: a bad record, and the file says `ON ERROR FAIL`; or too many pairs at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    /// What was wrong with it.
    pub failure: Failure,
    /// Its topic.
    pub topic: String,
    /// The record, if it was one.
    pub record: Option<Arc<Record>>,
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.record {
            Some(record) => {
                let (partition, offset) = (record.partition, record.offset);
                write!(f, "record {offset} of {}/{partition}: {}", self.topic, self.failure)
            }
            None => write!(f, "a result of topic {}: {}", self.topic, self.failure),
        }
    }
}
