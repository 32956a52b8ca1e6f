//! Whether the order of the log agrees with the clock: steps 2 to 4 of the argument in [`super`].
//!
//! One pass goes up the log. Its state is the earliest possible point of the last operation, and
//! which operation forces it. Where unknown appends have to fill unread offsets there is one state
//! for each set of them that may have been chosen.

use super::place::{Append, Free, Placed, deadline};
use super::violation::{Rule, Spot, Violation};
use crate::history::{Operation, Time};
use fulmar_types::Offset;
use std::collections::BTreeMap;

/// How many free appends of each size have been used, in the order of `Walk::sizes`.
type Used = Vec<usize>;

/// The earliest point of the log so far.
#[derive(Clone, Copy)]
struct Now<'a> {
    time: Time,
    /// The operation whose call forces it, and where that stands; none at the very start.
    forced_by: Option<(&'a Operation, Spot)>,
}

impl<'a> Now<'a> {
    /// The earliest point after which this operation can stand.
    fn after_call(self, operation: &'a Operation, spot: Spot) -> Self {
        if operation.invoked <= self.time {
            return self;
        }
        Self { time: operation.invoked, forced_by: Some((operation, spot)) }
    }

    /// Refuses an operation that was over before this point.
    fn before_answer(self, operation: &'a Operation, spot: Spot) -> Result<(), Violation> {
        match self.forced_by {
            Some((forced_by, before)) if self.time > deadline(operation) => {
                Err(Violation::new(Rule::TooLate { before, after: spot }, &[forced_by, operation]))
            }
            _ => Ok(()),
        }
    }
}

struct Walk<'p, 'a> {
    placed: &'p Placed<'a>,
    /// The free appends by size, each size ordered by the time of the call.
    sizes: Vec<(u64, Vec<Free<'a>>)>,
    /// The log so far ends here.
    end: Offset,
    /// Every way to get here. Never empty.
    states: BTreeMap<Used, Now<'a>>,
}

/// Finds a point for every operation.
pub(super) fn order(placed: &Placed<'_>) -> Result<(), Violation> {
    let mut by_size: BTreeMap<u64, Vec<Free<'_>>> = BTreeMap::new();
    for free in &placed.free {
        by_size.entry(free.count).or_default().push(*free);
    }
    let mut sizes: Vec<(u64, Vec<Free<'_>>)> = by_size.into_iter().collect();
    for (_, same_size) in &mut sizes {
        same_size.sort_by_key(|free| free.operation.invoked);
    }
    let start = (vec![0; sizes.len()], Now { time: Time(0), forced_by: None });
    let states = BTreeMap::from([start]);
    let mut walk = Walk { placed, sizes, end: Offset(0), states };
    let mut ends = placed.ends.chunk_by(|(a, _), (b, _)| a == b).peekable();
    let mut appends = placed.appends.iter().peekable();
    loop {
        let next_end = ends.peek().and_then(|same| same.first()).map(|(end, _)| *end);
        let next_base = appends.peek().map(|append| append.base);
        match (next_end, next_base) {
            (None, None) => return Ok(()),
            // What saw this end stands before the append that begins at it.
            (Some(end), base) if base.is_none_or(|base| end <= base) => {
                let seen_by = ends.next().unwrap_or_default();
                walk.fill_to(end, seen_by.first().map(|(_, operation)| *operation))?;
                walk.observe(end, seen_by)?;
            }
            _ => {
                let Some(append) = appends.next() else { return Ok(()) };
                walk.fill_to(append.base, Some(append.shown_by))?;
                walk.append(append)?;
            }
        }
    }
}

impl<'a> Walk<'_, 'a> {
    /// Takes every state one step on and keeps those that are possible; if none is, the reason of
    /// the one that was earliest.
    fn step(
        &mut self,
        step: impl Fn(Now<'a>) -> Result<Now<'a>, Violation>,
    ) -> Result<(), Violation> {
        let mut next = BTreeMap::new();
        let mut refused: Option<(Time, Violation)> = None;
        for (used, now) in std::mem::take(&mut self.states) {
            match step(now) {
                Ok(now) => {
                    next.insert(used, now);
                }
                Err(violation) => {
                    if refused.as_ref().is_none_or(|(time, _)| now.time < *time) {
                        refused = Some((now.time, violation));
                    }
                }
            }
        }
        self.states = next;
        match refused {
            Some((_, violation)) if self.states.is_empty() => Err(violation),
            _ => Ok(()),
        }
    }

    /// Operations that saw the log end here. Among themselves they commute.
    fn observe(
        &mut self,
        end: Offset,
        seen_by: &[(Offset, &'a Operation)],
    ) -> Result<(), Violation> {
        let spot = Spot::SawEnd(end);
        self.step(|now| {
            for (_, operation) in seen_by {
                now.before_answer(operation, spot)?;
            }
            Ok(seen_by.iter().fold(now, |later, (_, operation)| later.after_call(operation, spot)))
        })
    }

    fn append(&mut self, append: &Append<'a>) -> Result<(), Violation> {
        let spot = Spot::Holds(append.base, append.end);
        let placed = self.placed;
        self.step(|now| {
            let now = seen_too_short(placed, now, append.base, append.end);
            now.before_answer(append.operation, spot)?;
            Ok(now.after_call(append.operation, spot))
        })?;
        self.end = append.end;
        Ok(())
    }

    /// Fills the offsets up to here with free appends, in every way that may matter.
    fn fill_to(&mut self, to: Offset, shown_by: Option<&'a Operation>) -> Result<(), Violation> {
        let from = self.end;
        if to <= from {
            return Ok(());
        }
        // The lowest offset first: every append leads upwards, so what is taken out is complete.
        let mut open: BTreeMap<(Offset, Used), Now<'a>> = BTreeMap::new();
        for (used, now) in std::mem::take(&mut self.states) {
            open.insert((from, used), now);
        }
        while let Some(((at, used), now)) = open.pop_first() {
            if at == to {
                self.states.insert(used, now);
                continue;
            }
            for (size, (count, same_size)) in self.sizes.iter().enumerate() {
                let end = at.plus(*count);
                let Some(free) = same_size.get(used[size]).filter(|_| end <= to) else { continue };
                let now = seen_too_short(self.placed, now, at, end)
                    .after_call(free.operation, Spot::Fills(at, end));
                let mut used = used.clone();
                used[size] += 1;
                // The same appends in another order give the same time, the latest of their calls:
                // none of them has an answer that it could come too late for.
                open.entry((end, used)).or_insert(now);
            }
        }
        self.end = to;
        if self.states.is_empty() {
            let shown_by: Vec<&Operation> = shown_by.into_iter().collect();
            return Err(Violation::new(Rule::Hole { from, to }, &shown_by));
        }
        Ok(())
    }
}

/// Operations that saw the log end before an offset stand before the append that reaches it.
fn seen_too_short<'a>(placed: &Placed<'a>, now: Now<'a>, from: Offset, to: Offset) -> Now<'a> {
    let first = placed.too_short.partition_point(|(offset, _)| *offset <= from);
    let reached = placed.too_short.iter().skip(first).take_while(|(offset, _)| *offset <= to);
    reached
        .fold(now, |later, (offset, operation)| later.after_call(operation, Spot::SawNo(*offset)))
}
