//! The memory that the pipelines of a node may take for their state.
//!
//! State is not given up and cannot be written elsewhere, so the only thing that helps is to take no more
//! input. Those stop that have more than their share, once all together have more than there is.
//!
//! Invariant: a pipeline whose state is within an equal share of the memory is never held up by others.

use fulmar_host::planted;
use fulmar_types::Plant;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Who has how much.
#[derive(Debug)]
pub struct Memory {
    bytes_max: usize,
    of: Mutex<BTreeMap<String, usize>>,
}

impl Memory {
    /// So much for all of them.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, of: Mutex::default() }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pipeline has state of so many bytes now. Whether it may take more input.
    pub fn note(&self, pipeline: &str, bytes: usize) -> bool {
        let mut of = self.locked();
        of.insert(pipeline.to_owned(), bytes);
        let share = self.bytes_max / of.len();
        let is_within = of.values().sum::<usize>() <= self.bytes_max || bytes <= share;
        is_within || planted(Plant::MemoryNotAsked)
    }

    /// A pipeline does not run here any more.
    pub fn forget(&self, pipeline: &str) {
        self.locked().remove(pipeline);
    }

    /// What all have together, and what there is.
    pub fn used(&self) -> (usize, usize) {
        (self.locked().values().sum(), self.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_more_than_a_share_waits_when_there_is_no_more() {
        let memory = Memory::new(100);
        assert!(memory.note("large", 90));
        assert!(memory.note("small", 10));
        assert!(!memory.note("large", 91));
        assert!(memory.note("small", 11));
        assert!(memory.note("small", 50));
        assert!(!memory.note("small", 51));
        memory.forget("large");
        assert!(memory.note("small", 51));
        assert_eq!(memory.used(), (51, 100));
    }
}
