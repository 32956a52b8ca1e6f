//! The replicated state machine of a site: what the entries of its log mean.
//!
//! The list that they come from is `sections.rs`.
//!
//! | section | id | file |
//! |---|---|---|
//! | topics | 1 | `topics.rs` |
//! | partitions | 2 | `partitions.rs` |
//! | producers | 3 | `producers.rs` |
//! | numbers and entry time | 4 | `meta.rs` |
//! | fences | 5 | `meta.rs` |
//! | names of deleted topics | 6 | `deleted.rs` |
//! | spans of records | 7 | `spans.rs` |
//! | links | 8 | `links.rs` |
//! | rules: where topics may go | 9 | `links.rs` |
//! | mirrors | 10 | `mirrors.rs` |
//! | progress of mirrors | 11 | `mirrors.rs` |
//! | gap markers | 12 | `gaps.rs` |
//! | progress of peers | 13 | `links.rs` |
//! | changes of links, rules and pipelines | 14 | `changes.rs` |
//! | pipelines | 15 | `pipelines.rs` |
//! | who runs them, and how far they have come | 16 | `pipelines.rs` |
//! | what they say of themselves | 17 | `pipelines.rs` |
//! | positions in their inputs | 18 | `pipelines.rs` |
//! | epochs that no delta covers | 19 | `pipelines.rs` |
//! | deltas | 20 | `pipelines.rs` |
//! | savepoints | 21 | `pipelines.rs` |
//! | what topics are made of | 22 | `pipelines.rs` |
//! | what peers do not take | 23 | `links.rs` |
//! | dead letters that are put through again | 24 | `letters.rs` |
//!
//! Invariants: apply is a function of the state and the entry; two nodes that applied the same
//! entries have equal section bytes and equal hashes, whether they applied them one by one or
//! began with a snapshot; a section's id and the meaning of its version never change.
//!
//! Never: let anything local (a clock, configuration, addresses of memory) into a section.

pub mod batch;
pub mod bonds;
pub mod budget;
pub mod changes;
mod circles;
pub mod codec;
pub mod deleted;
mod deploying;
pub mod gaps;
pub mod letters;
pub mod links;
pub mod meta;
pub mod mirroring;
pub mod mirrors;
pub mod outcome;
pub mod partitions;
pub mod pipelines;
pub mod piping;
pub mod producers;
pub mod retention;
mod sections;
pub mod spans;
pub mod state;
pub mod table;
pub mod topics;

#[cfg(test)]
mod tests;

use fulmar_types::ExitCode;
use gaps::Gap;
use pipelines::Run;
use state::State;
use table::TableError;

pub use fulmar_store::snapshot::Section;

pub use fulmar_consensus::Applied;

/// Why sections could not be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A section or a version that this build does not know.
    #[error("section {id} version {version} is not known to this build")]
    Unknown {
        /// The section.
        id: u32,
        /// Its version.
        version: u32,
    },
    /// A section is not there.
    #[error("section {id} is missing")]
    Missing {
        /// The section.
        id: u32,
    },
    /// A section's bytes are not what was saved.
    #[error("section {id}: {error}")]
    Damaged {
        /// The section.
        id: u32,
        /// What is wrong.
        error: TableError,
    },
    /// The sections are of different states.
    #[error("the sections do not belong together: {0}")]
    Inconsistent(&'static str),
}

impl RestoreError {
    /// The code with which the node ends.
    pub const fn exit_code(&self) -> ExitCode {
        match self {
            Self::Unknown { .. } => ExitCode::UnknownEntry,
            Self::Missing { .. } | Self::Damaged { .. } | Self::Inconsistent(_) => {
                ExitCode::Damaged
            }
        }
    }
}

impl State {
    pub(super) fn check_consistent(&self) -> Result<(), &'static str> {
        let meta = self.meta.get(&()).ok_or("a site without its numbers")?;
        if self.partitions.len() != self.topics.partition_count() {
            return Err("partitions without a topic");
        }
        for topic in self.topics.iter() {
            if topic.partitions == 0
                || topic.first_stream.0.saturating_add(topic.partitions) > meta.next_stream
            {
                return Err("a topic with streams that were never handed out");
            }
            if topic.streams().any(|stream| self.partitions.get(&stream).is_none()) {
                return Err("a topic without its partitions");
            }
        }
        if !self.producers.streams().all(|stream| self.partitions.get(&stream).is_some()) {
            return Err("a producer of a partition that is not there");
        }
        self.check_mirrors()?;
        self.check_gaps()?;
        self.check_spans()?;
        self.check_pipelines()
    }

    /// A mirror is a topic, and its partitions have their progress; nothing else has.
    fn check_mirrors(&self) -> Result<(), &'static str> {
        let mut streams = 0;
        for mirror in self.mirrors.iter() {
            let topic = self.topics.get(mirror.topic).ok_or("a mirror without its topic")?;
            if topic.streams().any(|stream| self.progress.get(&stream).is_none()) {
                return Err("a mirror without its progress");
            }
            streams += topic.partitions as usize;
        }
        if self.progress.len() != streams {
            return Err("progress of a partition that is no mirror");
        }
        let is_there = |stream| self.partitions.get(stream).is_some();
        if !self.peers.iter().all(|peer| is_there(&peer.stream)) {
            return Err("a peer has a partition that is not there");
        }
        Ok(())
    }

    /// The markers of a partition follow one another, and end where it does at the latest.
    fn check_gaps(&self) -> Result<(), &'static str> {
        let mut before: Option<&Gap> = None;
        for gap in self.gaps.iter() {
            let partition = self.partitions.get(&gap.stream);
            let partition = partition.ok_or("a gap of a partition that is not there")?;
            if gap.end > partition.next {
                return Err("a gap behind the end of its partition");
            }
            let earlier = before.replace(gap).filter(|before| before.stream == gap.stream);
            if earlier.is_some_and(|earlier| earlier.end > gap.first) {
                return Err("gaps that overlap");
            }
        }
        Ok(())
    }

    /// The spans of a partition follow one another, and end where it ends.
    fn check_spans(&self) -> Result<(), &'static str> {
        let mut spans = self.spans.iter().peekable();
        for partition in self.partitions.iter() {
            let mut end = None;
            while let Some(span) = spans.next_if(|span| span.stream == partition.stream) {
                if end.is_some_and(|end| span.first < end) {
                    return Err("spans that overlap");
                }
                end = Some(span.end);
            }
            if partition.log_start < partition.next && end != Some(partition.next) {
                return Err("a partition without the spans of its records");
            }
        }
        if spans.next().is_some() {
            return Err("a span of a partition that is not there");
        }
        Ok(())
    }

    /// A pipeline has how far it has come, a topic for its state, and nothing belongs to one that is not
    /// there.
    fn check_pipelines(&self) -> Result<(), &'static str> {
        let is_there = |name: &String| self.runs.get(name).is_some();
        if self.runs.len() != self.pipelines.len() {
            return Err("a run without its pipeline");
        }
        for pipeline in self.pipelines.iter() {
            let topic = self.topics.get(pipeline.topic);
            let run = self.runs.get(&pipeline.name).ok_or("a pipeline without its run")?;
            let next = topic.and_then(|topic| self.partitions.get(&topic.first_stream));
            let next = next.ok_or("a pipeline without a topic for its state")?.next;
            if self.deltas(&pipeline.name).any(|delta| delta.end > next) {
                return Err("a delta behind the end of its topic");
            }
            let logged = self.logged_epochs(&pipeline.name);
            let ranges: usize = logged.map(|epoch| epoch.ranges.len()).sum();
            if ranges != run.logged_ranges as usize {
                return Err("a pipeline without the epochs that no delta covers");
            }
        }
        for position in self.positions.iter() {
            let stream = self.partitions.get(&position.stream);
            if stream.is_none() || !is_there(&position.pipeline) {
                return Err("a position of a pipeline or a partition that is not there");
            }
        }
        for letters in self.letters.iter() {
            let stream = self.partitions.get(&letters.stream);
            if stream.is_none() || !is_there(&letters.pipeline) {
                return Err("dead letters of a pipeline or a partition that is not there");
            }
        }
        for epoch in self.epochs.iter() {
            let run = self.runs.get(&epoch.pipeline);
            let is_open = |run: &Run| epoch.epoch > run.delta_epoch && epoch.epoch <= run.epoch;
            if !run.is_some_and(is_open) {
                return Err("an epoch that a delta covers, or of no pipeline");
            }
        }
        let has_pipeline = self.deltas.iter().all(|delta| is_there(&delta.pipeline))
            && self.savepoints.iter().all(|savepoint| is_there(&savepoint.pipeline))
            && self.facts.iter().all(|facts| is_there(&facts.pipeline));
        if !has_pipeline {
            return Err("something of a pipeline that is not there");
        }
        if self.makings.iter().any(|making| self.topics.get(making.topic).is_none()) {
            return Err("what a topic is made of that is not there");
        }
        Ok(())
    }
}
