//! The state of a pipeline, out of one engine and into another.
//!
//! Entries lie in parts, in the order of their keys. A *delta* is what changed since the last one; a
//! *slice* is some of all entries, from where the last slice ended on. Whoever stores a delta and a slice
//! at the end of the same epoch, time and again, has stored everything anew when the slices have come
//! around, and can do without what was stored before. Both are taken out a piece at a time, so that state
//! is never in memory twice.
//!
//! Invariant: between the pieces of one delta, and between it and its slice, no record is given to the
//! engine.

use super::engine::{Engine, State};
use super::kept::{Change, Part, Taking};
use crate::value::codec::Malformed;

/// Parts of the state: those of the pipeline, then two for each node, then two for each source.
const PART_FATES: u32 = 0;
const PART_WATERMARKS: u32 = 1;
const PART_FAILED: u32 = 2;
const PART_LETTERS: u32 = 3;
const PART_NODES: u32 = 16;
const PART_SOURCES: u32 = 1 << 16;

/// Where a slice ended: the last entry that is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    part: u32,
    key: Vec<u8>,
}

impl State {
    fn parts(&self) -> Vec<&dyn Part> {
        match self {
            Self::None => Vec::new(),
            Self::Groups(groups) => groups.parts(),
            Self::TableJoin(join) => join.parts(),
            Self::WindowJoin(join) => join.parts(),
        }
    }

    fn parts_mut(&mut self) -> Vec<&mut dyn Part> {
        match self {
            Self::None => Vec::new(),
            Self::Groups(groups) => groups.parts_mut(),
            Self::TableJoin(join) => join.parts_mut(),
            Self::WindowJoin(join) => join.parts_mut(),
        }
    }
}

/// The numbers of the parts of the node or source with this number.
fn numbers(first: u32, at: usize) -> impl Iterator<Item = u32> {
    (first + 2 * at as u32)..
}

impl Engine {
    /// All parts, in their order.
    fn parts(&self) -> Vec<(u32, &dyn Part)> {
        let mut parts: Vec<(u32, &dyn Part)> = vec![
            (PART_FATES, &self.fates.0),
            (PART_WATERMARKS, &self.watermarks),
            (PART_FAILED, &self.failed_results),
            (PART_LETTERS, &self.letters),
        ];
        for (at, state) in self.states.iter().enumerate() {
            parts.extend(numbers(PART_NODES, at).zip(state.parts()));
        }
        for (at, time) in self.times.iter().enumerate() {
            let of_source = time.iter().flat_map(|time| time.parts());
            parts.extend(numbers(PART_SOURCES, at).zip(of_source));
        }
        parts
    }

    fn parts_mut(&mut self) -> Vec<(u32, &mut dyn Part)> {
        let mut parts: Vec<(u32, &mut dyn Part)> = vec![
            (PART_FATES, &mut self.fates.0),
            (PART_WATERMARKS, &mut self.watermarks),
            (PART_FAILED, &mut self.failed_results),
            (PART_LETTERS, &mut self.letters),
        ];
        for (at, state) in self.states.iter_mut().enumerate() {
            parts.extend(numbers(PART_NODES, at).zip(state.parts_mut()));
        }
        for (at, time) in self.times.iter_mut().enumerate() {
            let of_source = time.iter_mut().flat_map(|time| time.parts_mut());
            parts.extend(numbers(PART_SOURCES, at).zip(of_source));
        }
        parts
    }

    /// What changed in the state since the last time, as much as about so many bytes hold. Nothing if
    /// nothing is left.
    pub fn delta(&mut self, bytes_max: usize) -> Vec<Change> {
        let mut out = Taking::new(bytes_max);
        for (number, part) in self.parts_mut() {
            part.delta(number, &mut out);
        }
        out.changes
    }

    /// Entries of the state from behind a slice on, as much as about so many bytes hold, and where it ended;
    /// nowhere if it came to the end of the state.
    ///
    /// # Panics
    /// If the cursor is of another plan.
    pub fn slice(&self, after: Option<&Cursor>, bytes_max: usize) -> (Vec<Change>, Option<Cursor>) {
        let mut out = Taking::new(bytes_max);
        for (number, part) in self.parts() {
            let key = match after {
                Some(cursor) if number < cursor.part => continue,
                Some(cursor) if number == cursor.part => Some(cursor.key.as_slice()),
                _ => None,
            };
            part.slice(number, key, &mut out).expect("a cursor is of the plan that made it");
        }
        let last = out.changes.last().filter(|_| !out.has_room());
        let cursor = last.map(|last| Cursor { part: last.part, key: last.key.clone() });
        (out.changes, cursor)
    }

    /// The whole state.
    pub fn snapshot(&self) -> Vec<Change> {
        self.slice(None, usize::MAX).0
    }

    /// About how many bytes the state takes in memory.
    pub fn weight(&self) -> usize {
        self.parts().iter().map(|(_, part)| part.weight()).sum()
    }

    /// Takes in what was taken out, between two epochs: a snapshot or slices, and deltas. [`Self::loaded`]
    /// comes at the end.
    ///
    /// # Errors
    /// If the bytes are not of this plan.
    pub fn load<'a>(
        &mut self,
        changes: impl IntoIterator<Item = &'a Change>,
    ) -> Result<(), Malformed> {
        for change in changes {
            let part: Option<&mut dyn Part> = match change.part {
                PART_FATES => Some(&mut self.fates.0),
                PART_WATERMARKS => Some(&mut self.watermarks),
                PART_FAILED => Some(&mut self.failed_results),
                PART_LETTERS => Some(&mut self.letters),
                number if number >= PART_SOURCES => {
                    let at = (number - PART_SOURCES) as usize;
                    let time = self.times.get_mut(at / 2).and_then(Option::as_mut);
                    time.and_then(|time| time.parts_mut().into_iter().nth(at % 2))
                }
                number => {
                    let at = number.checked_sub(PART_NODES).ok_or(Malformed)? as usize;
                    let state = self.states.get_mut(at / 2);
                    state.and_then(|state| state.parts_mut().into_iter().nth(at % 2))
                }
            };
            part.ok_or(Malformed)?.load(change)?;
        }
        Ok(())
    }

    /// After everything was taken in.
    pub fn loaded(&mut self) {
        for state in &mut self.states {
            match state {
                State::Groups(groups) => groups.loaded(),
                State::TableJoin(join) => join.loaded(),
                State::None | State::WindowJoin(_) => {}
            }
        }
    }
}
