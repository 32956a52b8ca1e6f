//! The state of a pipeline, out of one engine and into another.
//!
//! Entries lie in parts, in the order of their keys, however many subtasks share them. A *delta* is what changed since the last one; a
//! *slice* is some of all entries, from where the last slice ended on. Whoever stores a delta and a slice
//! at the end of the same epoch, time and again, has stored everything anew when the slices have come
//! around, and can do without what was stored before. Both are taken out a piece at a time, so that state
//! is never in memory twice.
//!
//! Invariant: between the pieces of one delta, and between it and its slice, no record is given to the
//! engine.

use super::engine::Engine;
use super::kept::{Change, Part, Taking};
use super::operator::State;
use super::tasks::Kind;
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

/// The numbers of the parts of the node or source with this number.
fn numbers(first: u32, at: usize) -> impl Iterator<Item = u32> {
    (first + 2 * at as u32)..
}

/// Entries of a part behind a key, in the order of the keys, whoever has them.
fn slice(
    number: u32,
    shares: &[&dyn Part],
    after: Option<&[u8]>,
    out: &mut Taking,
) -> Result<(), Malformed> {
    let [first, _, ..] = shares else {
        return shares.iter().try_for_each(|share| share.slice(number, after, out));
    };
    let mut all = Vec::new();
    for share in shares {
        let mut of_share = Taking::new(out.left());
        share.slice(number, after, &mut of_share)?;
        all.append(&mut of_share.changes);
    }
    for change in first.in_order(all)? {
        if !out.has_room() {
            break;
        }
        out.push(change);
    }
    Ok(())
}

impl Engine {
    /// All parts, in their order, each with the shares that subtasks have of it.
    fn parts(&self) -> Vec<(u32, Vec<&dyn Part>)> {
        let mut parts: Vec<(u32, Vec<&dyn Part>)> = vec![
            (PART_FATES, vec![&self.fates.0]),
            (PART_WATERMARKS, vec![&self.watermarks]),
            (PART_FAILED, vec![&self.failed_results]),
            (PART_LETTERS, vec![&self.letters]),
        ];
        for (at, states) in self.states.iter().enumerate() {
            let mut shares: Vec<Vec<&dyn Part>> = Vec::new();
            for state in states {
                for (part, share) in state.parts().into_iter().enumerate() {
                    shares.resize_with(shares.len().max(part + 1), Vec::new);
                    shares[part].push(share);
                }
            }
            parts.extend(numbers(PART_NODES, at).zip(shares));
        }
        for (at, time) in self.times.iter().enumerate() {
            let of_source = time.iter().flat_map(|time| time.parts());
            parts.extend(numbers(PART_SOURCES, at).zip(of_source.map(|part| vec![part])));
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
        for (at, states) in self.states.iter_mut().enumerate() {
            for state in states {
                parts.extend(numbers(PART_NODES, at).zip(state.parts_mut()));
            }
        }
        for (at, time) in self.times.iter_mut().enumerate() {
            let of_source = time.iter_mut().flat_map(|time| time.parts_mut());
            parts.extend(numbers(PART_SOURCES, at).zip(of_source));
        }
        parts
    }

    /// State is what it is at the end of an epoch only if nothing was given since.
    fn assert_at_rest(&self) {
        let is_at_rest = self.epochs.len() == 1 && !self.has_taken();
        assert!(is_at_rest, "state is taken out between two epochs");
    }

    /// What changed in the state since the last time, as much as about so many bytes hold. Nothing if
    /// nothing is left.
    ///
    /// # Panics
    /// If something was given for the next epoch already.
    pub fn delta(&mut self, bytes_max: usize) -> Vec<Change> {
        self.assert_at_rest();
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
    /// If the cursor is of another plan, or something was given for the next epoch already.
    pub fn slice(&self, after: Option<&Cursor>, bytes_max: usize) -> (Vec<Change>, Option<Cursor>) {
        self.assert_at_rest();
        let mut out = Taking::new(bytes_max);
        for (number, shares) in self.parts() {
            let key = match after {
                Some(cursor) if number < cursor.part => continue,
                Some(cursor) if number == cursor.part => Some(cursor.key.as_slice()),
                _ => None,
            };
            let taken = slice(number, &shares, key, &mut out);
            taken.expect("a cursor is of the plan that made it");
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
        self.parts().iter().flat_map(|(_, shares)| shares).map(|part| part.weight()).sum()
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
                    self.load_state(at, change)?;
                    continue;
                }
            };
            part.ok_or(Malformed)?.load(change)?;
        }
        Ok(())
    }

    /// An entry of a node goes to the subtask of its key; that an entry is gone goes to all if it does not say
    /// whose it was.
    fn load_state(&mut self, at: usize, change: &Change) -> Result<(), Malformed> {
        let states = self.states.get_mut(at / 2).ok_or(Malformed)?;
        let (count, first) = (states.len(), states.first().ok_or(Malformed)?);
        let subtask = match count {
            1 => Some(0),
            _ => first.subtask_of(at % 2, change, count)?,
        };
        let all = subtask.map_or(0..count, |subtask| subtask..subtask + 1);
        for state in &mut states[all] {
            let part = state.parts_mut().into_iter().nth(at % 2);
            part.ok_or(Malformed)?.load(change)?;
        }
        Ok(())
    }

    /// After everything was taken in.
    pub fn loaded(&mut self) {
        for state in self.states.iter_mut().flatten() {
            state.loaded();
        }
        for subtask in &mut self.tasks.subtasks {
            if let Kind::Keeping { .. } = subtask.kind {
                subtask.promised = self.watermarks.get(&(subtask.node as u32)).copied();
            }
        }
        for outlet in &mut self.tasks.outlets {
            // An outlet that leads to other subtasks of its own node leads to an exchange.
            if outlet.is_gathered || outlet.side > 0 || outlet.channels.len() < 2 {
                continue;
            }
            for state in &self.states[outlet.to] {
                if let State::TableJoin(join) = state {
                    join.waiting().for_each(|(time, number)| outlet.waits(time, number));
                }
            }
        }
    }
}
