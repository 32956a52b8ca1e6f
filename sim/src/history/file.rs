//! A history as a file: JSON, one operation a line, so that it can be searched and cut with the
//! tools that everybody has.

use super::{History, Kept, Marker, Operation, PartitionName, ReadBack, SeenRecord, Time};
use fulmar_types::Offset;
use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Operation(Operation),
    ReadBack {
        partition: PartitionName,
        #[serde(default)]
        start: Offset,
        #[serde(default)]
        at: Time,
        records: Vec<SeenRecord>,
        #[serde(default)]
        told_end: Offset,
    },
    Kept {
        partition: PartitionName,
        kept: Kept,
    },
    Marked {
        partition: PartitionName,
        markers: Vec<Marker>,
    },
}

/// Why a history could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A line is not what it should be.
    #[error("line {line}: {error}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// A batch has no record, or one that an earlier operation produced.
    #[error("line {line}: the batch is empty, or a payload of it was produced before")]
    Batch {
        /// Its number, from 1.
        line: usize,
    },
}

impl History {
    /// The history as JSON lines: how long records are kept, the operations in the order of
    /// their calls, then what was read back and what was said to be missing.
    pub fn to_json_lines(&self) -> String {
        let operations = self.operations.iter().cloned().map(Line::Operation);
        let kept = self
            .kept
            .iter()
            .map(|(partition, kept)| Line::Kept { partition: partition.clone(), kept: *kept });
        let read_back = self.read_back.iter().map(|(partition, read)| Line::ReadBack {
            partition: partition.clone(),
            start: read.start,
            at: read.at,
            records: read.records.clone(),
            told_end: read.told_end,
        });
        let marked = self.markers.iter().map(|(partition, markers)| Line::Marked {
            partition: partition.clone(),
            markers: markers.clone(),
        });
        let mut text = String::new();
        for line in kept.chain(operations).chain(read_back).chain(marked) {
            text.push_str(&serde_json::to_string(&line).expect("plain data has a JSON form"));
            text.push('\n');
        }
        text
    }

    /// Loads what [`Self::to_json_lines`] gave. Empty lines are skipped.
    ///
    /// # Errors
    /// If a line is no operation, or a batch is empty or produces a payload again.
    pub fn from_json_lines(text: &str) -> Result<Self, LoadError> {
        let mut history = Self::default();
        let lines = text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty());
        for (at, text) in lines {
            let line = at + 1;
            match serde_json::from_str(text).map_err(|error| LoadError::Line { line, error })? {
                Line::Operation(operation) => {
                    if !history.note_payloads(&operation.action) {
                        return Err(LoadError::Batch { line });
                    }
                    history.operations.push(operation);
                }
                Line::ReadBack { partition, start, at, records, told_end } => {
                    history.read_back(
                        partition,
                        ReadBack { start, at, records, told_end, ..ReadBack::default() },
                    );
                }
                Line::Marked { partition, markers } => history.mark(partition, markers),
                Line::Kept { partition, kept } => history.keep(partition, kept),
            }
        }
        Ok(history)
    }
}
