//! The memory that the pipelines of a node may take for their state.
//!
//! State is not given up and cannot be written elsewhere; it leaves when windows end. Those pipelines that have
//! more than their share read no more than that takes, once all together have what there is. For windows to
//! end, event time has to go on, and for that records have to be read: so each of them may grow beyond, by a
//! quarter of what it had when the memory was full, and reads nothing more only then.
//!
//! Invariants: a pipeline whose state is within an equal share of the memory is never held up by others; one
//! that has a node for itself never has more than the memory and a quarter of it, but for what one batch adds;
//! what others have, or take meanwhile, does not lessen what one may grow beyond.

use fulmar_host::planted;
use fulmar_types::Plant;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So much of what it has a pipeline may grow beyond.
const BEYOND_SHARE: usize = 4;

/// What a pipeline may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Anything, until its state has grown by so many bytes.
    Free(usize),
    /// What lets event time go on, until its state has grown by so many bytes.
    Beyond(usize),
    /// Nothing.
    None,
}

/// What a pipeline has.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    bytes: usize,
    /// What it had when the memory was full, if it is.
    when_full: Option<usize>,
}

/// Who has how much.
#[derive(Debug)]
pub struct Memory {
    bytes_max: usize,
    of: Mutex<BTreeMap<String, Taken>>,
}

impl Memory {
    /// So much for all of them.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, of: Mutex::default() }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Taken>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pipeline has state of so many bytes now. What it may read.
    pub fn note(&self, pipeline: &str, bytes: usize) -> Room {
        let mut of = self.locked();
        of.entry(pipeline.to_owned()).or_default().bytes = bytes;
        let share = self.bytes_max / of.len();
        let used: usize = of.values().map(|taken| taken.bytes).sum();
        let taken = of.entry(pipeline.to_owned()).or_default();
        let free = self.bytes_max.saturating_sub(used).max(share.saturating_sub(bytes));
        if planted(Plant::MemoryNotAsked) {
            return Room::Free(usize::MAX);
        }
        if free > 0 {
            taken.when_full = None;
            return Room::Free(free);
        }
        // What was loaded may be more than what a pipeline could have come to here.
        let base = (*taken.when_full.get_or_insert(bytes)).clamp(share, self.bytes_max);
        let beyond = (base + base / BEYOND_SHARE).saturating_sub(bytes);
        if planted(Plant::MemoryStandsStill) {
            return Room::None;
        }
        if beyond > 0 { Room::Beyond(beyond) } else { Room::None }
    }

    /// A pipeline does not run here any more.
    pub fn forget(&self, pipeline: &str) {
        self.locked().remove(pipeline);
    }

    /// What all have together, and what there is.
    pub fn used(&self) -> (usize, usize) {
        (self.locked().values().map(|taken| taken.bytes).sum(), self.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_more_than_a_share_is_held_up_when_there_is_no_more() {
        let memory = Memory::new(100);
        assert_eq!(memory.note("large", 90), Room::Free(10));
        assert_eq!(memory.note("small", 9), Room::Free(41));
        assert_eq!(memory.note("large", 90), Room::Free(1));
        assert_eq!(memory.note("large", 91), Room::Beyond(22));
        assert_eq!(memory.note("small", 11), Room::Free(39));
        assert_eq!(memory.note("small", 49), Room::Free(1));
        assert_eq!(memory.note("small", 50), Room::Beyond(12));
        memory.forget("large");
        assert_eq!(memory.note("small", 51), Room::Free(49));
        assert_eq!(memory.used(), (51, 100));
    }

    #[test]
    fn what_one_may_grow_beyond_has_an_end() {
        let memory = Memory::new(100);
        assert_eq!(memory.note("one", 99), Room::Free(1));
        assert_eq!(memory.note("one", 104), Room::Beyond(21));
        assert_eq!(memory.note("one", 124), Room::Beyond(1));
        assert_eq!(memory.note("one", 125), Room::None);
        assert_eq!(memory.note("one", 130), Room::None);
        assert_eq!(memory.note("one", 101), Room::Beyond(24));
        assert_eq!(memory.note("one", 99), Room::Free(1));
    }

    #[test]
    fn each_has_its_own_to_grow_beyond() {
        let memory = Memory::new(100);
        assert_eq!(memory.note("one", 80), Room::Free(20));
        assert_eq!(memory.note("other", 60), Room::Beyond(15));
        assert_eq!(memory.note("one", 80), Room::Beyond(20));
        assert_eq!(memory.note("other", 74), Room::Beyond(1));
        assert_eq!(memory.note("one", 99), Room::Beyond(1));
        assert_eq!(memory.note("one", 100), Room::None);
        assert_eq!(memory.note("other", 75), Room::None);
        // Windows of one have ended.
        assert_eq!(memory.note("one", 20), Room::Free(30));
        assert_eq!(memory.note("other", 75), Room::Free(5));
        assert_eq!(memory.note("other", 80), Room::Beyond(20));
    }

    #[test]
    fn what_comes_from_another_node_may_go_on_as_there() {
        let memory = Memory::new(100);
        memory.note("one", 50);
        assert_eq!(memory.note("large", 120), Room::Beyond(5));
        assert_eq!(memory.note("larger", 125), Room::None);
    }
}
