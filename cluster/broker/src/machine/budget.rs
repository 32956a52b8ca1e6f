//! What happens when a partition has reached its budget, `retention.bytes`, and some other site still
//! lacks what would have to go.
//!
//! | policy | at the budget | what the others lack |
//! |---|---|---|
//! | `keep-newest` | the oldest go, a little later, as in Kafka | is marked as a gap |
//! | `keep-oldest` | what comes is acknowledged and not kept | is marked as a gap |
//! | `block` | what comes is refused, for now | nothing |
//!
//! With `keep-newest` the budget is what is kept at least; with the others it is what is kept at
//! most, and what comes makes room for itself, as far as the oldest records have been delivered:
//! to every site that a link leads to and that the rules let the topic go to, as far as its progress
//! is noted here. A site that never asked lacks everything: it may be one that the line has never
//! reached. Only one that has said that it does not take the topic lacks nothing, once that is in the log. A
//! link or a rule that is removed waits for nobody. A copy of another site's topic waits for nobody either,
//! since its origin has it, and refuses nothing: it takes what its origin has kept, and what a pipeline still has to read again stays above its
//! budget for so long; what goes of one before a site further on was known to have it has a marker. Time is not the budget's: what is older than
//! `retention.ms` goes, under every policy.
//!
//! Invariants: all of that is decided when an entry is applied, by the state alone; under
//! `keep-oldest` and `block` a partition that is no copy never has more than its budget, or one batch if that is
//! larger, but for what it had before they held; nothing that a site lacks goes without a marker.
//!
//! Never: decide by what a connection knows.

use super::batch::BatchFacts;
use super::gaps::{Gap, gaps_max};
use super::outcome::{OperationResult, Refusal};
use super::producers::Verdict;
use super::retention::Retention;
use super::spans::spans_max;
use super::state::{Append, State, Step};
use super::topics::Topic;
use bytes::Bytes;
use fulmar_host::planted;
use fulmar_store::StreamId;
use fulmar_types::gap::{GapReason, Missing};
use fulmar_types::{Offset, Plant, TopicId};

/// The setting with the policy.
pub const BUDGET_POLICY: &str = "fulmar.budget.policy";

/// What goes when the budget is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BudgetPolicy {
    /// The oldest.
    #[default]
    KeepNewest,
    /// What comes.
    KeepOldest,
    /// Nothing: what comes has to wait.
    Block,
}

impl BudgetPolicy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::KeepNewest, Self::KeepOldest, Self::Block];

    /// Its name as a setting.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeepNewest => "keep-newest",
            Self::KeepOldest => "keep-oldest",
            Self::Block => "block",
        }
    }

    /// What the settings of a topic say. A text that is none of them is refused before it is proposed.
    pub fn of(configs: &[(String, String)]) -> Self {
        let given = configs.iter().rev().find(|(name, _)| name == BUDGET_POLICY);
        let named = |value: &str| Self::ALL.into_iter().find(|policy| policy.name() == value);
        given.and_then(|(_, value)| named(value)).unwrap_or_default()
    }
}

/// How much of a topic is kept, and what goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeping {
    /// How much, and how long.
    pub retention: Retention,
    /// What goes when there is too much.
    pub policy: BudgetPolicy,
}

impl Keeping {
    /// What the settings of a topic say.
    pub fn of(configs: &[(String, String)]) -> Self {
        Self { retention: Retention::of(configs), policy: BudgetPolicy::of(configs) }
    }

    /// The bytes that a partition has at most, if there is such a limit.
    pub fn bytes_max(&self) -> Option<u64> {
        self.retention.bytes.filter(|_| self.policy != BudgetPolicy::KeepNewest)
    }
}

/// Up to where a partition has reached the other sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reached {
    /// All that are to have it: nobody waits for what lies before.
    all: Offset,
    /// All that are to have it, or once asked for it: nobody lacks what lies before.
    known: Offset,
}

/// Whether a batch fits into a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// It does.
    Yes,
    /// If the partition begins here.
    From(Offset),
    /// Not before more has been delivered.
    No,
}

/// What a start that moves leaves behind.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    /// Where the partition is to begin.
    start: Offset,
    /// Up to where the records have had their time; the rest is too much.
    aged: Offset,
}

impl State {
    /// How much of a topic is kept, and what goes first: what its settings say, and of a copy no more than
    /// its link lets it have here.
    pub fn keeping(&self, topic: &Topic) -> Keeping {
        let link = self.mirrors.get(&topic.id).and_then(|mirror| self.links.get(&mirror.link));
        let most = link.and_then(|link| link.definition.copies.retention_bytes_max);
        let Keeping { retention, policy } = topic.keeping;
        let bytes = match (retention.bytes, most) {
            (Some(bytes), Some(most)) => Some(bytes.min(most)),
            (bytes, most) => bytes.or(most),
        };
        Keeping { retention: Retention { bytes, ..retention }, policy }
    }

    fn reached(&self, topic: &Topic, stream: StreamId) -> Reached {
        let next = self.known(stream).next;
        let mut reached = Reached { all: next, known: next };
        let is_mirror = self.mirrors.get(&topic.id).is_some();
        for link in self.links.iter() {
            // What a site does not take it does not lack either; it has said so, and that is in the log.
            let declines = self.declined(&link.name, topic.id).is_some();
            if declines && !planted(Plant::DeclinesUnheard) {
                continue;
            }
            let is_to_have = self.rule_over(link, topic).is_some();
            let has = self.peers.get(&(link.name.clone(), stream)).map(|peer| peer.offset);
            if is_to_have && !is_mirror {
                reached.all = reached.all.min(has.unwrap_or_default());
            }
            if is_to_have || has.is_some() {
                reached.known = reached.known.min(has.unwrap_or_default());
            }
        }
        if planted(Plant::BudgetDropsUnsent) {
            reached.all = next;
        }
        reached
    }

    /// Up to where nobody waits for the records of a partition: no site, and no pipeline that would have
    /// to read them again.
    pub fn delivered(&self, topic: &Topic, stream: StreamId) -> Offset {
        let reached = self.reached(topic, stream).all;
        self.replayed_from(stream).map_or(reached, |from| reached.min(from))
    }

    /// Bytes of the batches that a partition keeps.
    pub fn bytes(&self, stream: StreamId) -> u64 {
        self.spans(stream).fold(0, |sum, span| sum.saturating_add(span.bytes))
    }

    /// Whether a batch of so many bytes fits into a partition.
    fn fit(&self, topic: &Topic, stream: StreamId, bytes: u64) -> Fit {
        let keeping = self.keeping(topic);
        let Some(most) = keeping.bytes_max() else { return Fit::Yes };
        let grain = keeping.retention.grain(spans_max(self.topics.partition_count()));
        // Once something was not kept, a whole span has to be free before something is kept again:
        // with a gap for each batch that happens to be too large there would be no end of gaps.
        let next = self.known(stream).next;
        let has_gap_at_end = self.gaps.of_stream(stream).next_back().is_some_and(|g| g.end == next);
        let is_copy = self.mirrors.get(&topic.id).is_some();
        let needs_span = has_gap_at_end && keeping.policy == BudgetPolicy::KeepOldest && !is_copy;
        let wanted = if needs_span { bytes.max(grain.bytes) } else { bytes };
        let mut kept = self.bytes(stream);
        let fits = |kept: u64| kept == 0 || kept.saturating_add(wanted) <= most;
        if fits(kept) {
            return Fit::Yes;
        }
        let (delivered, mut start) = (self.delivered(topic, stream), None);
        for span in self.spans(stream).take_while(|span| span.end <= delivered) {
            kept = kept.saturating_sub(span.bytes);
            start = Some(span.end);
            if fits(kept) {
                return Fit::From(span.end);
            }
        }
        // A copy takes what its origin has kept: the policy was heard there. What is too much goes once no
        // pipeline has to read it again.
        if is_copy { start.map_or(Fit::Yes, Fit::From) } else { Fit::No }
    }

    /// Whether a batch would be refused now because its partition has reached its budget. One that
    /// was appended before is answered, whatever room there is.
    pub fn is_blocked(&self, topic: &Topic, stream: StreamId, batch: &Bytes) -> bool {
        if topic.keeping.policy != BudgetPolicy::Block || planted(Plant::BlockAcknowledges) {
            return false;
        }
        let sequenced = BatchFacts::read(batch, 0).and_then(|facts| facts.sequenced);
        let strict_from = self.known(stream).strict_producers_from;
        let is_duplicate = sequenced.is_some_and(|sequenced| {
            let verdict = self.producers.check(stream, &sequenced, strict_from);
            matches!(verdict, Ok(Verdict::Duplicate(_)))
        });
        !is_duplicate && self.fit(topic, stream, batch.len() as u64) == Fit::No
    }

    /// Makes room for a batch, if that is allowed. Says whether it is kept.
    pub(super) fn make_room(
        &mut self,
        step: &mut Step,
        append: &Append<'_>,
    ) -> Result<bool, Refusal> {
        let topic = self.topics.get(append.topic).expect("its partition was found");
        let policy = topic.keeping.policy;
        match self.fit(topic, append.stream, u64::from(append.batch.len())) {
            Fit::Yes => Ok(true),
            Fit::From(start) => {
                let leaving = Leaving { start, aged: Offset(0) };
                self.leave(step, (append.topic, append.stream), leaving);
                Ok(true)
            }
            Fit::No if policy == BudgetPolicy::Block => Err(Refusal::BudgetReached),
            Fit::No => Ok(false),
        }
    }

    /// Up to where records of a partition may go in a site of this age. `None` if nothing has to, or what
    /// has to go is still to be read again.
    fn leaving(&self, topic: &Topic, stream: StreamId, age_ms: u64) -> Option<Leaving> {
        let leaving = self.due(topic, stream, age_ms)?;
        let Some(from) = self.replayed_from(stream) else { return Some(leaving) };
        // A leader that proposed what cannot go would do so again and again.
        let start = self.floor(stream, leaving.start.min(from));
        let is_something = start > self.known(stream).log_start;
        is_something.then(|| Leaving { start, aged: leaving.aged.min(start) })
    }

    /// Up to where the records of a partition have had their time.
    fn due(&self, topic: &Topic, stream: StreamId, age_ms: u64) -> Option<Leaving> {
        let Keeping { retention, policy } = self.keeping(topic);
        let spans = || self.spans(stream);
        if policy == BudgetPolicy::KeepNewest {
            let start = retention.start(spans, age_ms)?;
            let aged = retention.aged(spans(), age_ms);
            return Some(Leaving { start, aged: aged.min(start) });
        }
        let aged = retention.aged(spans(), age_ms);
        let mut kept = self.bytes(stream);
        let most = retention.bytes.unwrap_or(u64::MAX);
        let delivered = if kept > most { self.delivered(topic, stream) } else { Offset(0) };
        let mut start = None;
        for span in spans() {
            if span.end > aged && (kept <= most || span.end > delivered) {
                break;
            }
            kept = kept.saturating_sub(span.bytes);
            start = Some(span.end);
        }
        start.map(|start| Leaving { start, aged: aged.min(start) })
    }

    /// The offset at which a partition may begin in a site of this age, if something has to go.
    pub fn due_start(&self, topic: &Topic, stream: StreamId, age_ms: u64) -> Option<Offset> {
        self.leaving(topic, stream, age_ms).map(|leaving| leaving.start)
    }

    /// Lets the oldest records of a partition go, up to an offset. Whoever proposed it may not have
    /// known the settings that hold here, if they were changed by an entry shortly before this one.
    pub(super) fn advance_start(
        &mut self,
        step: &mut Step,
        (topic, stream): (TopicId, StreamId),
        offset: Offset,
    ) -> Result<OperationResult, Refusal> {
        let partition = self.known(stream);
        let (next, log_start) = (partition.next, partition.log_start);
        if offset > next {
            return Err(Refusal::OffsetOutOfRange { next });
        }
        let known = self.topics.get(topic).expect("its partition was found");
        let allowed = self.leaving(known, stream, step.age_ms());
        let (start, aged) =
            allowed.map(|leaving| (leaving.start, leaving.aged)).unwrap_or_default();
        let is_unchecked = planted(Plant::AdvanceUnchecked);
        let start = if is_unchecked { offset } else { self.floor(stream, offset.min(start)) };
        if start <= log_start {
            return Ok(OperationResult::StartMoved { log_start, missing: 0 });
        }
        let missing = self.leave(step, (topic, stream), Leaving { start, aged });
        Ok(OperationResult::StartMoved { log_start: start, missing })
    }

    /// The last place up to an offset where a span of a partition ends: what goes goes in spans, so that
    /// the chain is known where the rest begins.
    fn floor(&self, stream: StreamId, offset: Offset) -> Offset {
        let ends = self.spans(stream).map(|span| span.end).take_while(|end| *end <= offset);
        ends.last().unwrap_or_default()
    }

    /// Lets the oldest records of a partition go, and notes what some site lacks of them. Returns how
    /// many that are.
    fn leave(
        &mut self,
        step: &mut Step,
        (topic, stream): (TopicId, StreamId),
        leaving: Leaving,
    ) -> u64 {
        let topic = self.topics.get(topic).expect("its partition was found");
        let lacked_from = self.reached(topic, stream).known;
        let missing = self.note_leaving(step, (stream, lacked_from), leaving);
        let moved = self.partitions.modify(&stream, |partition| {
            (partition.advance_start(leaving.start), partition.log_start)
        });
        let (moved, log_start) = moved.expect("the partition was there a moment ago");
        if moved {
            self.spans.advance_start(stream, log_start);
            step.start_moved(stream, log_start);
        }
        missing
    }

    fn note_leaving(
        &mut self,
        step: &Step,
        (stream, lacked_from): (StreamId, Offset),
        leaving: Leaving,
    ) -> u64 {
        let from = self.known(stream).log_start.max(lacked_from);
        let aged = leaving.aged.min(leaving.start);
        let parts =
            [(from, aged, GapReason::Expired), (from.max(aged), leaving.start, GapReason::Budget)];
        let mut count = 0;
        for (from, to, reason) in parts.into_iter().filter(|(from, to, _)| from < to) {
            let spanned = Missing { count: 0, ..self.missing(stream, (from, to), reason) };
            count += self.gaps.count_spanned(stream, (from, to), spanned);
            for (first, end) in self.gaps.unmarked(stream, from, to) {
                let missing = self.missing(stream, (first, end), reason);
                let (tag, age_ms) = (self.chain_at(stream, end), step.age_ms());
                count += missing.count;
                self.gaps.add(Gap { stream, first, end, missing, tag, age_ms });
            }
        }
        self.gaps.bound(stream, gaps_max(self.topics.partition_count()));
        count
    }

    /// All records of a range, of which each offset has one, with the times of their spans.
    fn missing(
        &self,
        stream: StreamId,
        (first, end): (Offset, Offset),
        reason: GapReason,
    ) -> Missing {
        let overlaps = |span: &&super::spans::Span| span.end > first && span.first < end;
        let none = Missing::untimed(reason, end.0 - first.0);
        let times = self.spans(stream).filter(overlaps);
        times.fold(none, |missing, span| {
            let (first_ms, last_ms) = (span.first_ms, span.last_ms);
            missing.with(&Missing { reason, count: 0, first_ms, last_ms })
        })
    }

    /// The chain of a partition where a span or a gap begins, or at its end.
    fn chain_at(&self, stream: StreamId, offset: Offset) -> [u8; 16] {
        let partition = self.known(stream);
        let span = self.spans(stream).find(|span| span.first == offset);
        // What was not kept is not in the chain, so that it is the same on both sides of the gap.
        let gap = self.gaps.behind(stream, offset).filter(|gap| gap.first == offset);
        let known = span.map(|span| span.chain).or_else(|| gap.map(|gap| gap.tag));
        known.unwrap_or(partition.chain)
    }

    /// Takes note of a batch that is acknowledged and not kept: its offsets are a gap.
    pub(super) fn not_keep(&mut self, step: &mut Step, append: &Append<'_>) -> OperationResult {
        let (stream, records) = (append.stream, append.facts.records);
        let partition = self.known(stream);
        let (base_offset, tag) = (partition.next, partition.chain);
        assert!(partition.log_start < base_offset, "an empty partition takes one batch");
        let end = base_offset.plus(u64::from(records));
        self.partitions.modify(&stream, |partition| partition.skip_to(end));
        self.spans.skip_to(stream, end);
        let at_ms = step.entry_ms();
        let (reason, count) = (GapReason::Budget, u64::from(records));
        let missing = Missing { reason, count, first_ms: at_ms, last_ms: at_ms };
        let gap = Gap { stream, first: base_offset, end, missing, tag, age_ms: step.age_ms() };
        self.gaps.note(gap, gaps_max(self.topics.partition_count()));
        step.passed(stream);
        OperationResult::NotKept { base_offset }
    }
}
