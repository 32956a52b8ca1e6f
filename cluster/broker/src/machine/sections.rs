//! The parts of the state, listed once: what is in this list is undone with a unit that is refused, hashed,
//! saved and restored, and nothing else is.
//!
//! Invariants: a section's id and the meaning of its version never change; a section that is not in the
//! list does not compile, since the list makes the state.

use super::bonds::Bond;
use super::changes::Change;
use super::codec::{Reader, Writer};
use super::deleted::DeletedName;
use super::gaps::Gap;
use super::letters::Letters;
use super::links::{Declined, Link, PeerProgress, Rule};
use super::meta::{FenceMark, Meta};
use super::mirrors::{Mirror, Progress};
use super::partitions::Partitions;
use super::pipelines::{Delta, Facts, LoggedEpoch, Making, Pipeline, Position, Run, Savepoint};
use super::producers::Producers;
use super::spans::Span;
use super::table::{Element, Table, TableError};
use super::topics::Topics;
use super::{RestoreError, Section};
use bytes::Bytes;
use fulmar_host::planted;
use fulmar_store::StreamId;
use fulmar_types::{Offset, Plant};
use std::collections::BTreeMap;

/// What can be done with a section without knowing which it is.
trait Part: Default {
    fn begin(&mut self);
    fn commit(&mut self);
    fn rollback(&mut self);
    fn hash(&self) -> u128;
    fn snapshot(&self) -> Bytes;
    fn restore(bytes: &[u8]) -> Result<Self, TableError>;
}

impl<E: Element> Part for Table<E> {
    fn begin(&mut self) {
        Table::begin(self);
    }

    fn commit(&mut self) {
        Table::commit(self);
    }

    fn rollback(&mut self) {
        Table::rollback(self, |_, _| ());
    }

    fn hash(&self) -> u128 {
        Table::hash(self)
    }

    fn snapshot(&self) -> Bytes {
        let mut out = Writer::new();
        Table::snapshot(self, &mut out);
        out.finish()
    }

    fn restore(bytes: &[u8]) -> Result<Self, TableError> {
        let mut input = Reader::new(bytes);
        let table = Table::restore(&mut input)?;
        input.end()?;
        Ok(table)
    }
}

/// For what has tables inside, and keeps more in step with them.
macro_rules! part {
    ($name:ident) => {
        impl Part for $name {
            fn begin(&mut self) {
                $name::begin(self);
            }

            fn commit(&mut self) {
                $name::commit(self);
            }

            fn rollback(&mut self) {
                $name::rollback(self);
            }

            fn hash(&self) -> u128 {
                $name::hash(self)
            }

            fn snapshot(&self) -> Bytes {
                $name::snapshot(self)
            }

            fn restore(bytes: &[u8]) -> Result<Self, TableError> {
                $name::restore(bytes)
            }
        }
    };
}
part!(Topics);
part!(Producers);

macro_rules! sections {
    ($($id:ident = $number:literal, version $version:literal, $field:ident: $part:ty;)*) => {
        $(pub(super) const $id: u32 = $number;)*

        /// Everything that the nodes of a site agree on, apart from the log itself.
        #[derive(Clone, Debug)]
        pub struct State {
            $(pub(super) $field: $part,)*
            /// Used only by [`Plant::OffsetFromMemory`].
            pub(super) memory: BTreeMap<StreamId, Offset>,
            /// How often something has become of pipelines on this node, for those who look after them.
            /// It says nothing about the state, and may differ between nodes.
            pub(super) pipeline_turns: u64,
        }

        impl State {
            fn empty() -> Self {
                Self { $($field: Default::default(),)* memory: BTreeMap::new(), pipeline_turns: 0 }
            }

            /// From here on changes can be undone.
            pub(super) fn begin(&mut self) {
                $(Part::begin(&mut self.$field);)*
            }

            /// Keeps the changes since [`State::begin`].
            pub(super) fn commit(&mut self) {
                $(Part::commit(&mut self.$field);)*
            }

            /// Undoes the changes since [`State::begin`].
            pub(super) fn rollback(&mut self) {
                $(Part::rollback(&mut self.$field);)*
            }

            /// The hash of the whole state.
            pub fn hash(&self) -> u128 {
                let each = [$(if is_forgotten($id) { 0 } else { Part::hash(&self.$field) },)*];
                each.into_iter().fold(0, u128::wrapping_add)
            }

            /// All sections, in ascending order of their ids.
            pub fn snapshot(&self) -> Vec<Section> {
                let bytes = |id: u32| match id {
                    $($id if is_forgotten(id) => <$part as Part>::snapshot(&Default::default()),
                    $id => Part::snapshot(&self.$field),)*
                    _ => unreachable!("only sections of the list are asked for"),
                };
                let versions = [$(($id, $version),)*].into_iter();
                versions.map(|(id, version)| Section { id, version, bytes: bytes(id) }).collect()
            }

            fn restore_each(sections: &[Section]) -> Result<Self, RestoreError> {
                let mut state = Self::empty();
                $(state.$field = section(sections, $id)?;)*
                Ok(state)
            }
        }

        /// The version in which a section is written, and the only one that is read.
        const fn version_of(id: u32) -> Option<u32> {
            match id {
                $($id => Some($version),)*
                _ => None,
            }
        }
    };
}

sections! {
    TOPICS = 1, version 1, topics: Topics;
    PARTITIONS = 2, version 1, partitions: Partitions;
    // With the age of the site, and by it.
    PRODUCERS = 3, version 2, producers: Producers;
    META = 4, version 3, meta: Table<Meta>;
    FENCES = 5, version 1, fences: Table<FenceMark>;
    DELETED = 6, version 1, deleted: Table<DeletedName>;
    // With the chain, and times.
    SPANS = 7, version 3, spans: Table<Span>;
    // With who changed them, and when.
    LINKS = 8, version 2, links: Table<Link>;
    RULES = 9, version 2, rules: Table<Rule>;
    // With the sites that they came through, and the settings of their origins.
    MIRRORS = 10, version 2, mirrors: Table<Mirror>;
    PROGRESS = 11, version 1, progress: Table<Progress>;
    // With counts and times.
    GAPS = 12, version 2, gaps: Table<Gap>;
    PEERS = 13, version 1, peers: Table<PeerProgress>;
    CHANGES = 14, version 2, changes: Table<Change>;
    PIPELINES = 15, version 1, pipelines: Table<Pipeline>;
    RUNS = 16, version 1, runs: Table<Run>;
    FACTS = 17, version 1, facts: Table<Facts>;
    POSITIONS = 18, version 1, positions: Table<Position>;
    EPOCHS = 19, version 1, epochs: Table<LoggedEpoch>;
    DELTAS = 20, version 1, deltas: Table<Delta>;
    SAVEPOINTS = 21, version 1, savepoints: Table<Savepoint>;
    MAKINGS = 22, version 1, makings: Table<Making>;
    DECLINED = 23, version 1, declined: Table<Declined>;
    LETTERS = 24, version 1, letters: Table<Letters>;
    BONDS = 25, version 1, bonds: Table<Bond>;
}

impl Default for State {
    fn default() -> Self {
        let mut state = Self::empty();
        state.meta.put(Meta::default());
        state
    }
}

/// A section that somebody forgot to list is missing from the hash as well as from the snapshot.
fn is_forgotten(id: u32) -> bool {
    match id {
        PRODUCERS => planted(Plant::ForgetProducers),
        GAPS => planted(Plant::MarkerLostAtLeaderChange),
        _ => false,
    }
}

impl State {
    /// The state that was saved.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn restore(sections: &[Section]) -> Result<Self, RestoreError> {
        for section in sections {
            let (id, version) = (section.id, section.version);
            if version_of(id) != Some(version) {
                return Err(RestoreError::Unknown { id, version });
            }
        }
        let state = Self::restore_each(sections)?;
        state.check_consistent().map_err(RestoreError::Inconsistent)?;
        Ok(state)
    }
}

fn section<P: Part>(sections: &[Section], id: u32) -> Result<P, RestoreError> {
    let mut found = sections.iter().filter(|section| section.id == id);
    let Some(section) = found.next() else {
        // A build that did not know it yet knew none of the later ones.
        let is_older = !sections.is_empty() && sections.iter().all(|section| section.id < id);
        return if is_older { Ok(P::default()) } else { Err(RestoreError::Missing { id }) };
    };
    if found.next().is_some() {
        return Err(RestoreError::Damaged { id, error: TableError::Twice });
    }
    P::restore(&section.bytes).map_err(|error| RestoreError::Damaged { id, error })
}
