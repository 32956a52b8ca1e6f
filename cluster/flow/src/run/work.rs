//! What a subtask does when it works: it reads something, or lets rows out that are due, if there is room behind
//! it.
//!
//! Barriers are aligned here. An input whose barrier has come is not read any further until the barriers of all
//! inputs have; then what is due comes out, and the barrier goes on.
//!
//! Nobody waits for ever. Sources send the barrier of an epoch to all readers before any record of the next one.
//! Take the oldest epoch under way and a subtask in it that cannot go on. If it has no room behind it, the reader
//! there has not got the barrier from it, so it does not hold that input back, and the same is asked of it;
//! sinks always go on. If it has nothing to read, the same is asked of who feeds it, up to the sources, which
//! are done with that epoch. An exchange needs rows of all its inputs, but what feeds it lets rows out only
//! when it has got the barrier, and then all of them have.

use super::channel::{Barrier, Item, Rank, Rows};
use super::engine::Engine;
use super::epoch::{Epoch, OUT};
use super::record::Row;
use super::tasks::{Input, Kind};
use crate::plan::Operator;
use fulmar_host::planted;
use fulmar_types::Plant;

impl Engine {
    /// An epoch under way.
    pub(super) fn epoch(&mut self, number: u64) -> &mut Epoch {
        &mut self.epochs[(number - self.over) as usize]
    }

    /// One step of a subtask, over about so many rows: how many it was. None if it has to wait.
    pub(super) fn step(&mut self, subtask: usize, most: usize) -> Option<usize> {
        match self.tasks.subtasks[subtask].kind {
            Kind::Intake => self.take_in(most),
            Kind::Sink => self.step_sink(subtask),
            Kind::Exchange => self.step_exchange(subtask, most),
            Kind::Keeping { number } => match self.tasks.subtasks[subtask].firing {
                Some(barrier) => self.fire(subtask, number, barrier, most),
                None => self.step_keeping(subtask, number),
            },
        }
    }

    /// Takes out what comes next in a channel; who feeds it has room again.
    fn pull(&mut self, channel: usize) -> Option<Item> {
        let item = self.tasks.channels[channel].pop()?;
        let writer = self.tasks.channels[channel].from;
        self.tasks.wake(writer);
        Some(item)
    }

    fn step_sink(&mut self, subtask: usize) -> Option<usize> {
        let (node, epoch) = (self.tasks.subtasks[subtask].node, self.tasks.subtasks[subtask].epoch);
        match self.pull(self.tasks.subtasks[subtask].inputs[0].channel)? {
            Item::Rows(rows) => {
                let count = rows.len();
                if self.epoch(epoch).halt.is_none() {
                    self.write(epoch, node, rows.rows);
                }
                Some(count)
            }
            Item::Barrier(_) => {
                self.epoch(epoch).sinks_passed += 1;
                self.tasks.subtasks[subtask].epoch += 1;
                Some(1)
            }
            Item::Table(_) => panic!("no table is written"),
        }
    }

    /// Whether an input has something to read: behind a barrier that has come it has nothing.
    fn is_open(&self, subtask: usize, input: usize) -> bool {
        let of = &self.tasks.subtasks[subtask].inputs[input];
        of.arrived.is_none() && self.tasks.channels[of.channel].front().is_some()
    }

    /// The barrier of an input has come.
    fn came(&mut self, subtask: usize, input: usize, barrier: Barrier) {
        let inputs = &mut self.tasks.subtasks[subtask].inputs;
        if inputs[input].owed > 0 {
            inputs[input].owed -= 1;
            return;
        }
        inputs[input].arrived = Some(barrier);
        if planted(Plant::BarrierNotAligned) {
            // The first one counts for all, and theirs are for nothing when they come.
            for other in inputs.iter_mut().filter(|other| other.arrived.is_none()) {
                other.arrived = Some(barrier);
                other.owed += 1;
            }
        }
    }

    /// Counts the inputs whose barriers have come, and which are left alone since those of others have not.
    fn waits(&mut self, subtask: usize) {
        for input in &mut self.tasks.subtasks[subtask].inputs {
            if input.arrived.is_some() && !input.is_held {
                input.is_held = true;
                self.held_back += 1;
            }
        }
    }

    /// An operator reads one of its inputs.
    fn step_keeping(&mut self, subtask: usize, number: usize) -> Option<usize> {
        let inputs = self.tasks.subtasks[subtask].inputs.len();
        let first = self.tasks.draw(inputs);
        let mut sides = (0..inputs).map(|side| (side + first) % inputs);
        let Some(side) = sides.find(|side| self.is_open(subtask, *side)) else {
            self.waits(subtask);
            return None;
        };
        let (node, epoch) = (self.tasks.subtasks[subtask].node, self.tasks.subtasks[subtask].epoch);
        let item = self.pull(self.tasks.subtasks[subtask].inputs[side].channel)?;
        if let Item::Barrier(barrier) = item {
            self.came(subtask, side, barrier);
            if self.tasks.subtasks[subtask].is_aligned() {
                let watermark = self.aligned(subtask, number);
                let firing = Barrier { watermark, is_idle: false };
                self.tasks.subtasks[subtask].firing = Some(firing);
            }
            return Some(1);
        }
        self.waits(subtask);
        if self.epoch(epoch).halt.is_some() {
            return Some(1);
        }
        let is_joined = self.behind.joins[node];
        let (state, mut context) = self.state(epoch, (node, number), side as u8);
        match item {
            Item::Rows(rows) => {
                let count = rows.len();
                let before = if is_joined { state.weight() } else { 0 };
                state.rows(side, rows, &mut context);
                if is_joined {
                    context.put(state.weight().saturating_sub(before));
                }
                Some(count)
            }
            Item::Table(told) => {
                let count = told.len();
                state.told(told, &mut context);
                Some(count)
            }
            Item::Barrier(_) => None,
        }
    }

    /// The watermark of an operator whose barriers have come. Never after that of an input: a row that its source
    /// lets in is not behind any node on its way. So a stream that is idle as a whole holds up what it is
    /// joined with; a table that is idle does not.
    fn aligned(&mut self, subtask: usize, number: usize) -> Option<i64> {
        let at = &mut self.tasks.subtasks[subtask];
        for input in &mut at.inputs {
            input.is_held = false;
        }
        let barriers: Vec<Barrier> =
            at.inputs.iter_mut().filter_map(|input| input.arrived.take()).collect();
        let (node, epoch, before) = (at.node, at.epoch, at.promised);
        let Operator::TableJoin { table, .. } = self.plan.nodes[node].operator else {
            let watermarks: Option<Vec<i64>> = barriers.iter().map(|one| one.watermark).collect();
            return match watermarks {
                Some(watermarks) if planted(Plant::OneSideDecides) => watermarks.into_iter().max(),
                watermarks => watermarks.and_then(|watermarks| watermarks.into_iter().min()),
            };
        };
        let (stream, of_table) = (barriers[0].watermark, barriers[1]);
        if self.plan.sources[table].watermark.is_none() {
            return stream;
        }
        let next = if of_table.is_idle { stream } else { stream.min(of_table.watermark) };
        // A table that wakes up may be behind; the promise that was given stands.
        if let Some(next) = next
            && before.is_none_or(|before| before < next)
        {
            self.tasks.subtasks[subtask].promised = Some(next);
            if number == 0 {
                self.epoch(epoch).watermarks.insert(node as u32, next);
            }
            return Some(next);
        }
        before
    }

    /// Lets rows out of an operator that are due, and then the barrier.
    fn fire(
        &mut self,
        subtask: usize,
        number: usize,
        barrier: Barrier,
        most: usize,
    ) -> Option<usize> {
        let at = &self.tasks.subtasks[subtask];
        let (node, epoch) = (at.node, at.epoch);
        let outlet = at.outlet.expect("what keeps something feeds something");
        let copies = self.tasks.outlets[outlet].copies;
        let room = self.tasks.room(outlet).min((most / copies).max(1));
        if room == 0 {
            return None;
        }
        let (mut rows, mut is_done) = (Rows::default(), true);
        if let Some(watermark) = barrier.watermark
            && self.epoch(epoch).halt.is_none()
        {
            let (state, mut context) = self.state(epoch, (node, number), OUT);
            (rows, is_done) = state.watermark(watermark, room, &mut context);
        }
        // One that is not done has looked at as much as it may, whatever came out.
        let count = copies * if is_done { rows.len() } else { rows.len().max(room) };
        self.send(epoch, outlet, rows);
        if is_done {
            self.tasks.subtasks[subtask].firing = None;
            self.tasks.subtasks[subtask].epoch += 1;
            self.pass(outlet, barrier);
        }
        Some(count)
    }

    /// Reads rows of several subtasks in the order of their ranks: the next one is known when each input has one,
    /// or its barrier.
    fn step_exchange(&mut self, subtask: usize, most: usize) -> Option<usize> {
        let at = &self.tasks.subtasks[subtask];
        let (epoch, inputs) = (at.epoch, at.inputs.len());
        let outlet = at.outlet.expect("an exchange feeds something");
        let copies = self.tasks.outlets[outlet].copies;
        let room = self.tasks.room(outlet).min((most / copies).max(1));
        if room == 0 {
            return None;
        }
        let (mut rows, mut has_read) = (Vec::new(), false);
        while rows.len() < room {
            let mut is_complete = true;
            for input in 0..inputs {
                if self.tasks.subtasks[subtask].inputs[input].ready.is_empty() {
                    has_read |= self.refill(subtask, input);
                    let of = &self.tasks.subtasks[subtask].inputs[input];
                    is_complete &= of.arrived.is_some() || !of.ready.is_empty();
                }
            }
            let next = is_complete.then(|| self.next_in_order(subtask)).flatten();
            let Some(row) = next else { break };
            rows.push(row);
        }
        let count = copies * rows.len();
        self.send(epoch, outlet, rows.into());
        if !self.tasks.subtasks[subtask].is_aligned() {
            self.waits(subtask);
            return (count > 0 || has_read).then_some(count);
        }
        let mut watermark = None;
        for input in &mut self.tasks.subtasks[subtask].inputs {
            input.is_held = false;
            let barrier = input.arrived.take();
            watermark = barrier.and_then(|barrier| barrier.watermark);
        }
        self.tasks.subtasks[subtask].epoch += 1;
        self.pass(outlet, Barrier { watermark, is_idle: false });
        Some(count)
    }

    /// Reads an input of an exchange. Whether there was something.
    fn refill(&mut self, subtask: usize, input: usize) -> bool {
        if !self.is_open(subtask, input) {
            return false;
        }
        let channel = self.tasks.subtasks[subtask].inputs[input].channel;
        let item = self.pull(channel);
        let of = &mut self.tasks.subtasks[subtask].inputs[input];
        match item {
            Some(Item::Rows(rows)) => of.ready.extend(rows.ranked().map(|(row, rank)| (rank, row))),
            Some(Item::Barrier(barrier)) => self.came(subtask, input, barrier),
            Some(Item::Table(_)) | None => return false,
        }
        true
    }

    fn next_in_order(&mut self, subtask: usize) -> Option<Row> {
        fn first(input: &Input) -> Option<&Rank> {
            input.ready.front().map(|(rank, _)| rank)
        }
        let inputs = &mut self.tasks.subtasks[subtask].inputs;
        let filled = (0..inputs.len()).filter(|at| first(&inputs[*at]).is_some());
        let least =
            filled.min_by(|one, other| first(&inputs[*one]).cmp(&first(&inputs[*other])))?;
        inputs[least].ready.pop_front().map(|(_, row)| row)
    }
}
