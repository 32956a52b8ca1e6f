//! One partition on its way to the other site: whether the two have one history, and what goes.
//!
//! Invariants: only what is applied here is shipped, which is committed; a partition is shipped from
//! a place on only if the other side holds the tag that this site has there, or had there before the
//! records had their time; instead of a batch that is too large for the other side goes a gap.
//!
//! Never: go on from a place that may be one of another history.

use crate::locked;
use crate::message::{Mark, Message, Part};
use crate::policy::Cleared;
use crate::session::{Ended, Parts};
use crate::source::{LOOK_EVERY, Lanes, Progress, Sent, Stuck, is_settled, submit};
use crate::target::{GAP_BYTES, TOO_FAR};
use bytes::Bytes;
use fulmar_broker::machine::gaps::Gap;
use fulmar_broker::machine::partitions::chained;
use fulmar_host::time;
use fulmar_store::entry::{LinkOperation, Tag};
use fulmar_store::{StoredBatch, StreamId};
use fulmar_types::gap::{GapReason, Missing};
use fulmar_types::link::{LINK_OFFSET_MAX, Priority};
use fulmar_types::{Event, Offset, Plant, Probe};
use fulmar_wire::batch::{BatchHeader, Compression};
use std::sync::atomic::{AtomicBool, Ordering};

/// Why nothing more of a partition goes, and who has to decide.
const FORKED: &str = "a fork: the copy at the other site has records that this site does not have, or \
                      has not any more; which of the two is right is to be decided there";

/// Bytes that are read for one partition at a time.
const READ_BYTES: usize = 256 << 10;

/// What a partition is like at one moment.
struct Look {
    stream: StreamId,
    chain_key: [u8; 32],
    log_start: Offset,
    next: Offset,
    /// The chain at `next`.
    chain: Tag,
    /// Where the chain is known at or before the offset in question, and what it is there.
    known: Option<Mark>,
    /// What the other side was known to hold.
    noted: Option<Mark>,
    /// It may hold something else, which is not to be found out where the records are gone.
    may_part: bool,
    /// How urgent it is.
    lane: Priority,
    /// The marker that spans the offset in question, or else the first one behind it.
    gap: Option<Gap>,
}

/// Why a partition is not shipped.
enum Stop {
    /// It is not there any more.
    Gone,
    /// The other side does not hold what this side had there.
    Fork,
    /// The start moved meanwhile.
    Again,
    /// The records cannot be read here.
    Unreadable,
    /// This node does not lead, or not yet.
    Deposed,
    /// It may not go any more.
    Withheld,
    /// The other side cannot take it.
    Stuck,
    /// Its offsets go on where none can be said over a link.
    TooFar,
}

/// One partition on its way.
pub(crate) struct Shipment {
    pub(crate) parts: Parts,
    pub(crate) lanes: Lanes,
    pub(crate) sent: Sent,
    pub(crate) progress: Progress,
    pub(crate) stuck: Stuck,
    pub(crate) part: Part,
    /// Where it begins.
    pub(crate) from: Mark,
    /// Whether it was said that some of it is too large for the other side.
    pub(crate) has_told: AtomicBool,
}

impl Shipment {
    pub(crate) async fn run(self, from: Mark) {
        match self.ship(from).await {
            Stop::Gone | Stop::Again | Stop::Stuck => {}
            Stop::Fork => {
                let host = &self.parts.context.host;
                host.report(Event::LinkForked {
                    topic: self.part.topic,
                    partition: self.part.partition,
                    offset: from.offset,
                });
                host.probe(Probe::ForkRefused);
                self.parts.stopped(self.part.topic, self.part.partition, FORKED);
                self.parts.send(Message::Fork(self.part, from.offset)).await;
                self.note_fork().await;
            }
            Stop::TooFar => self.parts.stopped(self.part.topic, self.part.partition, TOO_FAR),
            Stop::Unreadable => self.parts.end(Ended::Lost),
            Stop::Deposed => self.parts.end(Ended::Deposed),
            Stop::Withheld => {
                self.parts.context.host.probe(Probe::RuleChangedInFlight);
                self.parts.end(Ended::Withheld);
            }
        }
    }

    /// Has the log know it, for when what was compared is gone.
    async fn note_fork(&self) {
        let (link, Part { topic, partition }) = (self.parts.link.number, self.part);
        let is_noted =
            self.look(self.from.offset).is_ok_and(|look| look.may_part && look.noted.is_none());
        let operation = LinkOperation::PeerParted { link, topic, partition };
        while !is_noted && !is_settled(submit(&self.parts, operation.clone()).await).await {
            time::sleep(LOOK_EVERY).await;
        }
    }

    /// Looks at the partition, with an eye on an offset.
    fn look(&self, at: Offset) -> Result<Look, Stop> {
        let Part { topic, partition } = self.part;
        let link = &self.parts.link.name;
        self.parts.context.broker.site().read(|state| {
            let topic = state.topics().get(topic).ok_or(Stop::Gone)?;
            let stream = topic.stream(partition).ok_or(Stop::Gone)?;
            let known = state.partition(stream).ok_or(Stop::Gone)?;
            let spans = state.spans(stream).rev().find(|span| span.first <= at);
            let noted = state.peer_progress(link, stream);
            let lane = match fulmar_host::planted(Plant::PriorityStarved) {
                true => Priority::Normal,
                false => topic.priority(),
            };
            let gap = state.gaps(stream).find(|gap| gap.end > at);
            Ok(Look {
                lane,
                stream,
                chain_key: topic.chain_key,
                log_start: known.log_start,
                next: known.next,
                chain: known.chain,
                known: spans.map(|span| Mark { offset: span.first, tag: span.chain }),
                may_part: !fulmar_host::planted(Plant::PartedForgotten)
                    && state.bond(&self.parts.link.definition.site).parted,
                noted: noted.map(|peer| Mark { offset: peer.offset, tag: peer.tag }),
                gap: gap.copied(),
            })
        })
    }

    async fn read(
        &self,
        stream: StreamId,
        from: Offset,
        to: Offset,
    ) -> Result<Vec<StoredBatch>, Stop> {
        let records = self.parts.context.broker.records();
        records.read(stream, from..to, READ_BYTES).await.map_err(|_| Stop::Unreadable)
    }

    /// As [`Self::verify`], a few at a time.
    async fn verified(&self, mark: Mark) -> Result<(), Stop> {
        let lane = self.look(mark.offset)?.lane;
        let _slot = self.lanes[lane.rank()].reading.acquire().await;
        self.verify(mark).await
    }

    /// Whether this side had the tag at the offset, as far as it can still be known.
    async fn verify(&self, mark: Mark) -> Result<(), Stop> {
        let look = self.look(mark.offset)?;
        if fulmar_host::planted(Plant::VerifyNothing) {
            return if mark.offset > look.next { Err(Stop::Again) } else { Ok(()) };
        }
        if mark.offset > look.next {
            return Err(Stop::Fork);
        }
        if mark.offset < look.log_start {
            return match look.noted {
                // What it was is gone; but how far the other side had come was noted.
                Some(noted) if noted.offset == mark.offset && noted.tag != mark.tag => {
                    Err(Stop::Fork)
                }
                // Whatever was noted since the two have parted was compared.
                None if look.may_part && mark.offset > Offset(0) => Err(Stop::Fork),
                _ => Ok(()),
            };
        }
        let chain =
            if mark.offset == look.next { look.chain } else { self.roll(&look, mark).await? };
        if chain == mark.tag { Ok(()) } else { Err(Stop::Fork) }
    }

    /// The chain at the offset of a mark, computed from the last place before it where it is known.
    async fn roll(&self, look: &Look, to: Mark) -> Result<Tag, Stop> {
        let mut at =
            look.known.filter(|known| known.offset >= look.log_start).ok_or(Stop::Again)?;
        while at.offset < to.offset {
            let batches = self.read(look.stream, at.offset, to.offset).await?;
            let found = batches.first().map(|batch| batch.base_offset);
            if found != Some(at.offset) {
                let now = self.look(at.offset)?;
                if now.log_start > at.offset {
                    // They expired meanwhile.
                    return Err(Stop::Again);
                }
                // What was not kept is not in the chain.
                let Some(end) = hole(&now, at.offset, found.unwrap_or(to.offset)) else {
                    // No batch ends there, so the other side has it from somebody else.
                    return Err(Stop::Fork);
                };
                at.offset = end;
                continue;
            }
            for batch in batches {
                at = behind(&look.chain_key, at.tag, &batch);
            }
        }
        Ok(at.tag)
    }

    async fn ship(&self, from: Mark) -> Stop {
        // What an earlier leader had committed, and the other side may have, may not be applied here
        // yet: the other side would seem to be ahead.
        if self.parts.context.broker.group().read_barrier().await.is_err() {
            return Stop::Deposed;
        }
        while let Err(stop) = self.verified(from).await {
            match stop {
                Stop::Again => time::sleep(LOOK_EVERY).await,
                stop => return stop,
            }
        }
        self.parts.said(self.part, from.offset);
        // Whoever was never told, or was told of a copy that was removed since, waits for no more than
        // what is lacking.
        let noted = self.look(from.offset).map(|look| look.noted);
        if noted.is_ok_and(|noted| noted.map(|noted| noted.offset) != Some(from.offset)) {
            locked(&self.progress).insert(self.part, from);
        }
        if from.offset > Offset(0) {
            self.parts.context.host.probe(Probe::LinkResumed);
        }
        let mut at = from;
        let mut lane = match self.look(at.offset) {
            Ok(look) => look.lane,
            Err(stop) => return stop,
        };
        loop {
            if locked(&self.stuck).contains(&self.part) {
                return Stop::Stuck;
            }
            match self.ship_some(&mut lane, at).await {
                Ok(next) => at = next,
                Err(Stop::Again) => time::sleep(LOOK_EVERY).await,
                Err(stop) => return stop,
            }
        }
    }

    /// Ships what there is behind a place, or waits until there is something. Returns how far it came.
    async fn ship_some(&self, lane: &mut Priority, at: Mark) -> Result<Mark, Stop> {
        let look = self.look(at.offset)?;
        // Nothing that the other side could not read is sent: that would end the session, and with it all
        // the others. No copy is so long but one that an earlier build has taken.
        if look.next.0 > LINK_OFFSET_MAX {
            return Err(Stop::TooFar);
        }
        if look.lane != *lane {
            // What is on its way as another priority must not be overtaken, nor overtake.
            if !self.has_arrived(at) {
                time::sleep(LOOK_EVERY).await;
                return Ok(at);
            }
            *lane = look.lane;
        }
        let lane = *lane;
        if at.offset < look.log_start {
            return self.skip_expired(lane, at.offset, look.log_start).await;
        }
        let watch = self.parts.context.broker.site().watch(&[look.stream]);
        let look = self.look(at.offset)?;
        if at.offset == look.next && !fulmar_host::planted(Plant::ShipUncommitted) {
            watch.changed().await;
            return Ok(at);
        }
        // What is read waits here for room.
        let _slot = self.lanes[lane.rank()].reading.acquire().await;
        let batches = if fulmar_host::planted(Plant::ShipUncommitted) && at.offset >= look.next {
            time::sleep(LOOK_EVERY / 100).await;
            let broker = &self.parts.context.broker;
            let mut batches =
                broker.unapplied(look.stream, broker.group().applied(), look.next).await;
            batches.retain(|batch| batch.base_offset >= at.offset);
            batches
        } else {
            self.read(look.stream, at.offset, look.next).await?
        };
        if let Some(found) = batches.first().map(|batch| batch.base_offset)
            && found > at.offset
        {
            return self.skip_hole(lane, at, found).await;
        }
        if batches.is_empty() {
            // A log in which nothing begins where the state says so gives nothing at once, however
            // often it is asked.
            return self.skip_hole(lane, at, look.next).await;
        }
        let mut at = at;
        for batch in batches {
            if batch.base_offset != at.offset {
                break;
            }
            at = self.send(lane, &look.chain_key, at, batch).await?;
        }
        Ok(at)
    }

    /// Sends what takes so many bytes of room, once there are as many, and notes the place behind it.
    async fn post(&self, lane: Priority, message: Message, bytes: u32, behind: Mark) {
        // The session ends, and this with it, before the room is closed.
        if let Ok(room) = self.lanes[lane.rank()].room.acquire_many(bytes).await {
            room.forget();
        }
        if !locked(&self.sent).sent(self.part, behind) {
            return self.parts.end(Ended::Protocol("protocol: it does not say what it has"));
        }
        self.parts.ship(lane, message).await;
    }

    /// Whether the other side has everything that was sent before a place.
    fn has_arrived(&self, at: Mark) -> bool {
        locked(&self.sent).first(self.part).is_none_or(|first| *first == at)
    }

    /// Says that something is missing from a place on.
    async fn say_missing(
        &self,
        lane: Priority,
        from: Offset,
        behind: Mark,
        missing: Missing,
    ) -> Mark {
        let wrong = fulmar_host::planted(Plant::MarkerCountWrong) && missing.count > 1;
        let missing = Missing { count: missing.count - u64::from(wrong), ..missing };
        let (part, mark) = (self.part, Mark { offset: from, tag: behind.tag });
        let gap = Message::Gap { part, mark, to: behind.offset, missing };
        self.post(lane, gap, GAP_BYTES, behind).await;
        behind
    }

    /// Goes on behind offsets that were not kept here, up to where the next batch begins.
    async fn skip_hole(&self, lane: Priority, at: Mark, to: Offset) -> Result<Mark, Stop> {
        let look = self.look(at.offset)?;
        if at.offset < look.log_start {
            return Err(Stop::Again);
        }
        let end = hole(&look, at.offset, to).ok_or(Stop::Again)?;
        let gap = look.gap.ok_or(Stop::Again)?;
        let missing = Missing { count: end.0 - at.offset.0, ..gap.missing };
        // What was not kept is not in the chain.
        Ok(self.say_missing(lane, at.offset, Mark { offset: end, tag: at.tag }, missing).await)
    }

    /// Goes on behind records that are gone: up to the end of the next marker, or to the start. Below the
    /// start nothing is left, whatever a marker counts.
    async fn skip_expired(
        &self,
        lane: Priority,
        from: Offset,
        start: Offset,
    ) -> Result<Mark, Stop> {
        let look = self.look(start)?;
        if look.log_start != start {
            return Err(Stop::Again);
        }
        let end = Mark { offset: look.next, tag: look.chain };
        let untimed = |to: Offset| Missing::untimed(GapReason::Gone, to.0 - from.0);
        if fulmar_host::planted(Plant::GapTooWide) {
            return Ok(self.say_missing(lane, from, end, untimed(end.offset)).await);
        }
        let behind = match look.known {
            Some(known) if known.offset == start => known,
            _ if start == look.next => end,
            // The start is always that of a span; it has moved since.
            _ => return Err(Stop::Again),
        };
        let gap = self.look(from)?.gap.filter(|gap| gap.first < start);
        let (behind, missing) = match gap {
            Some(gap) if gap.first <= from && gap.end <= start => {
                let behind = Mark { offset: gap.end, tag: gap.tag };
                (behind, Missing { count: gap.end.0 - from.0, ..gap.missing })
            }
            // Nobody was known to lack what lies before it.
            Some(gap) if gap.end <= start => {
                let behind = Mark { offset: gap.end, tag: gap.tag };
                let missing = untimed(gap.end).with(&Missing { count: 0, ..gap.missing });
                (behind, missing)
            }
            Some(_) | None => (behind, untimed(behind.offset)),
        };
        Ok(self.say_missing(lane, from, behind, missing).await)
    }

    async fn send(
        &self,
        lane: Priority,
        chain_key: &[u8; 32],
        at: Mark,
        batch: StoredBatch,
    ) -> Result<Mark, Stop> {
        let behind = behind(chain_key, at.tag, &batch);
        let mark = Mark { offset: batch.base_offset, tag: behind.tag };
        let is_raw = fulmar_host::planted(Plant::RuleSkippedOnRetry) && at == self.from
            || fulmar_host::planted(Plant::CompressedGoesRaw) && is_compressed(&batch.bytes);
        let cleared = match is_raw {
            true => Some(Cleared::Goes(batch.bytes.clone())),
            false => {
                let of = (self.part.topic, lane);
                self.parts.border.clear(&self.parts, of, &batch.bytes).await
            }
        };
        let host = &self.parts.context.host;
        match cleared {
            Some(Cleared::Goes(bytes)) if self.is_too_large(&bytes) => {
                host.probe(Probe::BatchTooLarge);
                self.say_too_large(batch.base_offset, bytes.len());
                let missing = Missing::untimed(GapReason::TooLarge, u64::from(batch.records));
                self.say_missing(lane, batch.base_offset, behind, missing).await;
            }
            Some(Cleared::Goes(bytes)) => {
                if bytes.len() != batch.bytes.len() {
                    host.probe(Probe::FieldWithheld);
                }
                let room = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                self.post(lane, Message::Batch(self.part, mark, bytes), room, behind).await;
            }
            Some(Cleared::Withheld) => {
                host.probe(Probe::BatchWithheld);
                let missing = Missing::untimed(GapReason::Withheld, u64::from(batch.records));
                self.say_missing(lane, batch.base_offset, behind, missing).await;
            }
            None => return Err(Stop::Withheld),
        }
        Ok(behind)
    }

    fn is_too_large(&self, bytes: &Bytes) -> bool {
        bytes.len() > self.parts.batch_bytes_there && !fulmar_host::planted(Plant::TooLargeGoes)
    }

    /// Says, once in a session, that records do not go since the other side does not take batches as large.
    fn say_too_large(&self, offset: Offset, bytes: usize) {
        if self.has_told.swap(true, Ordering::Relaxed) {
            return;
        }
        let (link, most) = (&self.parts.link.name, self.parts.batch_bytes_there);
        tracing::warn!(%link, part = ?self.part, %offset, bytes, most, "too large for the other site: a gap");
    }
}

fn is_compressed(batch: &[u8]) -> bool {
    let header = BatchHeader::read(batch).map(|header| header.attributes.compression());
    !matches!(header, Ok(Ok(Compression::None)))
}

/// Up to where nothing was kept from an offset on, if a marker says so and no batch begins before.
fn hole(look: &Look, from: Offset, to: Offset) -> Option<Offset> {
    let gap = look.gap.filter(|gap| gap.first <= from)?;
    let end = gap.end.min(to);
    (end > from).then_some(end)
}

/// The place behind a batch.
fn behind(chain_key: &[u8; 32], tag: Tag, batch: &StoredBatch) -> Mark {
    Mark {
        offset: batch.base_offset.plus(u64::from(batch.records)),
        tag: chained(chain_key, &tag, batch.base_offset, &batch.bytes),
    }
}
