//! What an epoch takes of what there is to read.
//!
//! With room, an epoch takes of every partition in turn. With less room than the state has already, it takes of
//! none more than of the others, in event time; without any, of those alone that event time waits for.
//!
//! Invariants: what is there and stays unread is noted where it would be silence otherwise; ranges are in the order
//! in which they are logged.

use super::reach::Reached;
use super::{
    EFFORT_MAX, EPOCH_BYTES_MAX, End, Input, Job, PUT_OUT_BYTES_MAX, Place, READ_BYTES, letters,
};
use crate::memory::Room;
use fulmar_broker::machine::state::State;
use fulmar_flow::Horizon;
use fulmar_host::planted;
use fulmar_store::entry::InputRange;
use fulmar_types::{Offset, Plant, Probe};
use std::collections::{BTreeMap, BTreeSet};

/// Of each partition with records an epoch takes about so many bytes at least.
const SHARE_BYTES_MIN: usize = 4 << 10;

/// While there is no memory left, it takes so many at most.
const BEYOND_BYTES_MAX: usize = 64 << 10;

/// An epoch takes no more than such a part of what state may still grow: one byte that is read can make more than
/// one of state, and partitions that are read alike let go of more of it than one that is far ahead.
const ROOM_PARTS: usize = 4;

/// State grows by no more than such a part of it with one epoch, so that something is left for partitions whose turn
/// has not come.
const GROWTH_PARTS: usize = 2;

/// However little that is, by such a part of what state has: it is better to go past the memory by that than to read
/// one record in an epoch.
const BEYOND_PARTS: usize = 16;

/// Of each so many epochs with little memory one reads a little of every partition, those at the horizon too.
const HELD_EPOCHS_MAX: u32 = 32;

/// A partition, and from where and up to where there is something to read.
type Ready = (Input, Offset, Offset);

/// Ranges in the canonical order, as they are logged.
fn in_order(mut ranges: Vec<(Place, InputRange)>) -> Vec<InputRange> {
    ranges.sort_by(|(one, _), (other, _)| one.cmp(other));
    ranges.into_iter().map(|(_, range)| range).collect()
}

/// Of which topics and partitions there is something to read.
fn unread(ready: &[Ready]) -> BTreeSet<(&str, u32)> {
    ready.iter().map(|(input, ..)| (&*input.name, input.partition.0)).collect()
}

impl Job {
    /// Takes what there is to read, about [`EPOCH_BYTES_MAX`] of it and one batch more: something of every
    /// partition, or of those whose turn it is. Dead letters have epochs of their own, in turn with those of
    /// the inputs. If there is little memory left, a little is taken of the partitions that are behind the others, and if
    /// there is none, of those that event time waits for.
    ///
    /// What is there now and stays unread is noted, where it matters: no partition is silent at this age, which is
    /// that of the pipeline now, of which something is there.
    ///
    /// # Errors
    /// [`End`].
    pub async fn take_input(&mut self, room: Room, age_ms: u64) -> Result<Vec<InputRange>, End> {
        let ready = self.ready();
        let mut ranges = match room {
            Room::Free(bytes) => self.take_free(bytes, ready.clone()).await?,
            Room::Beyond(bytes) => self.take_awaited(bytes, (ready.clone(), age_ms)).await?,
            Room::None => Vec::new(),
        };
        self.horizon = None;
        self.note_unread(&mut ranges, (ready, age_ms));
        let ranges = in_order(ranges);
        if ranges.iter().any(|range| range.has_more) {
            self.context.host.probe(Probe::InputLeftUnread);
        }
        self.leave(&ranges);
        Ok(ranges)
    }

    /// Notes what an epoch at this age leaves unread of what was there when it began: of each partition that it
    /// reads in part, and of those that would be idle otherwise.
    fn note_unread(
        &self,
        ranges: &mut Vec<(Place, InputRange)>,
        (ready, age_ms): (Vec<Ready>, u64),
    ) {
        if planted(Plant::UnreadCountsAsSilence) {
            return;
        }
        let silent = self.engine.silent(age_ms);
        // There may be thousands of either.
        let taken = ranges.iter().enumerate();
        let taken: BTreeMap<_, _> =
            taken.map(|(at, (_, range))| ((range.topic, range.partition), at)).collect();
        for (input, _, end) in ready {
            let Input { topic, partition, next, .. } = input;
            if let Some(at) = taken.get(&input.number()) {
                let (_, range) = &mut ranges[*at];
                range.has_more = range.to < end;
            } else if silent.contains(&(&*input.name, partition.0)) {
                let range = InputRange { topic, partition, from: next, to: next, has_more: true };
                ranges.push((input.place(), range));
            }
        }
    }

    async fn take_free(
        &mut self,
        bytes: usize,
        mut ready: Vec<Ready>,
    ) -> Result<Vec<(Place, InputRange)>, End> {
        let growth = self.growth(bytes);
        self.weight_max = Some(self.engine.weight().saturating_add(growth));
        let most = EPOCH_BYTES_MAX.min(bytes / ROOM_PARTS).max(1);
        let least = if most < EPOCH_BYTES_MAX { 1 } else { SHARE_BYTES_MIN };
        let letters = self.ready_letters();
        self.had_letters = !letters.is_empty() && (ready.is_empty() || !self.had_letters);
        if self.had_letters {
            self.context.host.probe(Probe::LettersRetried);
            let share = (most / letters.len()).max(least);
            return Ok(self.take_of_each(letters, (most, share)).await?.0);
        }
        let has_little = bytes < self.engine.weight();
        if has_little && !planted(Plant::ReadsFarAhead) {
            self.turn = Place::default();
            let horizon = self.engine.horizon(None, &unread(&ready), self.reach.ms());
            // Whatever their times say, none is left unread for good.
            self.held = (self.held + 1) % HELD_EPOCHS_MAX;
            let is_held_up = self.held > 0;
            ready.retain(|(input, ..)| {
                !is_held_up || !self.engine.is_ahead(&horizon, &input.name, input.partition.0)
            });
            return self.take_near((ready, horizon), (most, growth)).await;
        }
        let share = (most / ready.len().max(1)).max(least);
        let begin = ready.partition_point(|(input, ..)| input.place() < self.turn);
        if begin < ready.len() {
            ready.drain(..begin);
        }
        let (ranges, turn) = self.take_of_each(ready, (most, share)).await?;
        self.turn = turn;
        Ok(ranges)
    }

    /// Takes a little of the partitions that event time waits for, until the state has grown by so many bytes.
    async fn take_awaited(
        &mut self,
        bytes: usize,
        (ready, age_ms): (Vec<Ready>, u64),
    ) -> Result<Vec<(Place, InputRange)>, End> {
        self.context.host.probe(Probe::ReadBeyondMemory);
        self.had_letters = false;
        let growth = self.growth(bytes).min(bytes);
        self.weight_max = Some(self.engine.weight().saturating_add(growth));
        let (ready, horizon) = self.awaited(ready, age_ms);
        let most = (bytes / ROOM_PARTS).clamp(1, ready.len().max(1) * BEYOND_BYTES_MAX);
        self.take_near((ready, horizon), (most, growth)).await
    }

    /// By how much the state may grow with one epoch, with so many bytes of room.
    fn growth(&self, bytes: usize) -> usize {
        (bytes / GROWTH_PARTS).max(self.engine.weight() / BEYOND_PARTS).max(1)
    }

    /// Takes of each of these no more than up to the horizon.
    async fn take_near(
        &mut self,
        (ready, horizon): (Vec<Ready>, Horizon),
        (most, growth): (usize, usize),
    ) -> Result<Vec<(Place, InputRange)>, End> {
        self.horizon = Some(horizon);
        let share = (most / ready.len().max(1)).max(1);
        let weight = self.engine.weight();
        let inputs: Vec<Input> = ready.iter().map(|(input, ..)| input.clone()).collect();
        let (ranges, _) = self.take_of_each(ready, (most, share)).await?;
        let is_held = inputs.iter().any(|input| self.is_ahead(input));
        let grown = self.engine.weight().saturating_sub(weight);
        if is_held {
            self.context.host.probe(Probe::HeldAtHorizon);
        }
        self.reach.note(Reached { is_full: self.is_full(), is_held, grown: (grown, growth) });
        Ok(ranges)
    }

    /// Takes so much of all of these together, and of each a share. Where the next epoch is to begin.
    async fn take_of_each(
        &mut self,
        mut ready: Vec<Ready>,
        (most, share): (usize, usize),
    ) -> Result<(Vec<(Place, InputRange)>, Place), End> {
        self.in_planted_order(&mut ready);
        let (mut ranges, before) = (Vec::new(), self.taken.1);
        for (input, from, end) in ready {
            let is_full = !ranges.is_empty() && self.is_full();
            if is_full || self.taken.1 - before >= most {
                return Ok((ranges, input.place()));
            }
            self.take_range(&input, (from, end, share), &mut ranges).await?;
        }
        Ok((ranges, Place::default()))
    }

    /// Whether a partition has been read up to the horizon, if there is one.
    fn is_ahead(&self, input: &Input) -> bool {
        let horizon = self.horizon.as_ref();
        horizon.is_some_and(|horizon| {
            self.engine.is_ahead(horizon, &input.name, input.partition.0)
                && !planted(Plant::ReadsFarAhead)
        })
    }

    /// Whether this epoch takes no more of a partition.
    pub(super) fn is_enough(&self, input: &Input) -> bool {
        self.is_full() || self.is_ahead(input)
    }

    /// Whether the state must not grow any more with this epoch, enough has come out, or it has taken long.
    pub(super) fn is_full(&self) -> bool {
        let engine = &self.engine;
        let has_room = |most: usize| {
            engine.weight() < most
                && engine.put_out() < PUT_OUT_BYTES_MAX
                && engine.effort() < EFFORT_MAX
        };
        !self.weight_max.is_none_or(has_room)
    }

    async fn take_range(
        &mut self,
        input: &Input,
        (from, end, share): (Offset, Offset, usize),
        ranges: &mut Vec<(Place, InputRange)>,
    ) -> Result<(), End> {
        let to = self.take_partition(input, (from, end), share).await?;
        if to > from {
            let Input { topic, partition, .. } = *input;
            let range = InputRange { topic, partition, from, to, has_more: false };
            ranges.push((input.place(), range));
        }
        Ok(())
    }

    /// Those with something to read that event time waits for, and up to where.
    fn awaited(&self, mut ready: Vec<Ready>, age_ms: u64) -> (Vec<Ready>, Horizon) {
        if planted(Plant::BeyondReadsAll) {
            return (ready, Horizon::default());
        }
        let horizon = self.engine.horizon(Some(age_ms), &unread(&ready), self.reach.ms());
        let engine = &self.engine;
        ready.retain(|(input, ..)| {
            engine.keeps_nothing(&input.name)
                || engine.is_behind(&horizon, &input.name, input.partition.0)
        });
        (ready, horizon)
    }

    /// How old the pipeline is now.
    pub fn age_now_ms(&self) -> u64 {
        self.context.broker.age_ms().max(self.age_ms)
    }

    /// The partitions with something to read: from where, and up to where.
    pub fn ready(&self) -> Vec<Ready> {
        self.context.broker.site().read(|state| {
            let ready = self.inputs.iter().filter_map(|input| {
                let (from, end) = input.unread(state)?;
                Some((input.clone(), from, end))
            });
            ready.collect()
        })
    }

    /// The same, of dead letters that somebody wants to be put through again.
    pub fn ready_letters(&self) -> Vec<Ready> {
        self.context.broker.site().read(|state| {
            let all = letters(state, &self.name).into_iter();
            let ready = all.filter_map(|(input, until)| {
                let known = state.partition(input.stream)?;
                let retried = self.retried.get(&input.stream).copied().unwrap_or_default();
                let from = input.next.max(known.log_start).max(retried);
                (from < until).then_some((input, from, until))
            });
            ready.collect()
        })
    }

    /// Whether there is anything to read that may be.
    pub fn has_input(&self, room: Room) -> bool {
        match room {
            Room::Free(_) => {}
            Room::Beyond(_) => return !self.awaited(self.ready(), self.age_now_ms()).0.is_empty(),
            Room::None => return false,
        }
        let site = self.context.broker.site();
        let is_any = |state: &State| self.inputs.iter().any(|input| input.unread(state).is_some());
        site.read(is_any) || !self.ready_letters().is_empty()
    }

    /// Takes about so many bytes of a partition. Up to where.
    async fn take_partition(
        &mut self,
        input: &Input,
        (begin, end): (Offset, Offset),
        share: usize,
    ) -> Result<Offset, End> {
        let (mut from, mut used) = (begin, 0);
        let stream = input.stream;
        while from < end && used < share && (from == begin || !self.is_enough(input)) {
            let records = self.context.broker.records();
            let most = READ_BYTES.min(share - used);
            let batches = records.read(stream, from..end, most).await;
            let batches = batches.map_err(|_| End::Reload)?;
            if batches.first().is_none_or(|first| first.base_offset > from) {
                match self.hole(stream, from) {
                    Some(behind) => from = behind.min(end),
                    // Gone meanwhile.
                    None if self.is_gone(stream, from) => return Ok(from),
                    None => return Err(End::Reload),
                }
            }
            for batch in &batches {
                let is_enough = from > begin && self.is_enough(input);
                if used >= share || batch.base_offset > from || is_enough {
                    break;
                }
                let (bytes, next) = self.feed(input, (from, end), batch).await?;
                (used, from) = (used + bytes, next);
            }
        }
        Ok(from)
    }
}
