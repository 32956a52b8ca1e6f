//! A history as a file: JSON, one operation a line, so that it can be searched and cut with the
//! tools that everybody has.

use super::{History, Operation, PartitionName, SeenRecord};
use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Operation(Operation),
    ReadBack { partition: PartitionName, records: Vec<SeenRecord> },
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
    /// The history as JSON lines: the operations in the order of their calls, then what was read
    /// back.
    pub fn to_json_lines(&self) -> String {
        let operations = self.operations.iter().cloned().map(Line::Operation);
        let read_back = self.read_back.iter().map(|(partition, records)| Line::ReadBack {
            partition: partition.clone(),
            records: records.clone(),
        });
        let mut text = String::new();
        for line in operations.chain(read_back) {
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
                Line::ReadBack { partition, records } => history.read_back(partition, records),
            }
        }
        Ok(history)
    }
}
