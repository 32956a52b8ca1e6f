//! An owner at work: it takes the pipeline over from the log, and then one epoch follows the other.
//!
//! Invariants: what a job does is one thing after the other, apart from the parts of a delta, which go
//! into the log beside the epochs behind it; a proposal without an answer is looked up in the applied
//! state; when another fence stands, the job has ended.
//!
//! Never: guess what became of a proposal.

use crate::Context;
use crate::facts::Waiting;
use crate::job::{self, End, Job, Produced};
use crate::memory::Room;
use crate::outgoing::{Next, Outgoing, Output, Verdict};
use crate::writing::Writing;
use fulmar_broker::machine::outcome::Refusal;
use fulmar_broker::machine::pipelines::Run;
use fulmar_broker::proposer::Answer;
use fulmar_broker::site::{PipelineWatch, Watch};
use fulmar_host::planted;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_store::entry::{Batch, EpochPlace, Operation, Unit};
use fulmar_types::pipeline::{EPOCHS_LOGGED_MAX, RANGES_LOGGED_MAX};
use fulmar_types::{Plant, Probe};
use std::sync::Arc;

/// How long a proposal may wait for its place in the log.
pub const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause before something is tried again.
pub const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// The same where this node has not applied yet what is in the log.
const APPLIED_AGAIN_AFTER: Duration = Duration::from_millis(2);

/// The same where there was no room.
const ROOM_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// A delta is taken so often, if there was an epoch.
const DELTA_EVERY: Duration = Duration::from_secs(3);

/// Sooner, if whoever takes over would have to read so many bytes again.
const REPLAY_BYTES_MAX: usize = 8 << 20;

/// Or this share of the epochs that the log keeps.
const LOGGED_SHARE: u64 = 4;

/// How often a job looks whether it may go on that has to wait for memory.
const MEMORY_EVERY: Duration = Duration::from_millis(500);

/// How often a job looks which topic is gone.
const GONE_LOOKS: u32 = 50;

/// How often a job looks whether it may go on that takes no input.
const HOLD: Duration = Duration::from_millis(100);

/// Over so long the rate is measured.
const RATE_OVER: Duration = Duration::from_secs(2);

const OUTPUT_GONE: &str = "a topic that it writes is gone";

/// What the log wants of an owner.
struct Wish {
    run: Run,
    paused: bool,
    latency: Duration,
}

/// An owner at work.
struct Owner {
    job: Job,
    control: PipelineWatch,
    /// The delta on its way.
    writing: Option<Writing>,
    /// The last epoch that a delta covers.
    delta_epoch: u64,
    delta_at: Option<Instant>,
    /// Bytes that were read since then, and ranges.
    logged: (usize, u32),
    /// When the last epoch began.
    began: Instant,
    waiting: Waiting,
    told_waiting: Waiting,
    rate: (Instant, u64, u64),
}

/// Runs a pipeline until something ends it.
pub async fn run(context: Arc<Context>, name: String, fence: u64) -> End {
    let control = context.broker.site().watch_pipelines();
    let found = context.broker.site().read(|state| {
        let run = state.run(&name);
        let is_owner = run.is_some_and(|run| run.owner == Some(context.node) && run.fence == fence);
        is_owner.then(|| job::find(state, &name))
    });
    let found = match found {
        None => return End::Superseded,
        Some(Err(why)) => return End::Halted(why),
        Some(Ok(found)) => found,
    };
    let mut job = match Job::new(Arc::clone(&context), (name, fence), &found) {
        Ok(job) => job,
        Err(why) => return End::Halted(why),
    };
    if let Err(end) = job.load(&found.deltas).await {
        return end;
    }
    let (delta_epoch, now) = (found.run.delta_epoch, time::now());
    let mut owner = Owner {
        job,
        control,
        writing: None,
        delta_epoch,
        // What was run again now is not to be run again by the next owner.
        delta_at: None,
        logged: (0, found.run.logged_ranges),
        began: now,
        waiting: Waiting::No,
        told_waiting: Waiting::No,
        rate: (now, 0, 0),
    };
    match owner.take_over(&found).await {
        Ok(()) => owner.work().await,
        Err(end) => end,
    }
}

impl Owner {
    /// What the log wants, if this job is still the owner.
    fn wish(&self) -> Result<Wish, End> {
        let job = &self.job;
        job.context.broker.site().read(|state| {
            let known = state.pipeline(&job.name).zip(state.run(&job.name));
            let (pipeline, run) = known.ok_or(End::Superseded)?;
            if run.owner != Some(job.context.node) || run.fence != job.fence {
                return Err(End::Superseded);
            }
            let why = "a topic that it reads is gone, or is another one now";
            state.inputs(&job.name).ok_or_else(|| End::Halted(why.to_owned()))?;
            let latency = Duration::from_millis(pipeline.definition.latency_ms.into());
            Ok(Wish { run: run.clone(), paused: pipeline.definition.paused, latency })
        })
    }

    /// Runs the epochs again that no delta covers, and appends what is missing of the last one.
    async fn take_over(&mut self, found: &job::Found) -> Result<(), End> {
        let mut last = Produced { outputs: Vec::new(), hash: [0; 16] };
        if planted(Plant::TakeoverSkipsReplay) {
            (self.job.epoch, self.job.age_ms) = (found.run.epoch, found.run.age_ms);
            return Ok(());
        }
        for epoch in &found.epochs {
            last = self.job.replay(epoch).await?;
            if self.job.context.is_over(&self.job.name, self.job.fence) {
                return Err(End::Superseded);
            }
        }
        self.logged.0 = self.job.taken.1;
        self.note_weight();
        if found.lacks_output {
            let end = End::Halted(OUTPUT_GONE.to_owned());
            return Err(self.last_words(end).await);
        }
        let run = &found.run;
        if run.appends_missing() > 0 && !found.epochs.is_empty() {
            if last.outputs.len() != run.appends as usize {
                let why = "an output was made anew while an epoch was being written to it";
                return Err(End::Halted(why.to_owned()));
            }
            self.job.context.host.probe(Probe::EpochCompletedByAnother);
            let rest = Outgoing::rest(self.place(run.epoch), run.hash, last.outputs, run.appended);
            self.deliver(rest).await?;
        }
        Ok(())
    }

    fn place(&self, epoch: u64) -> EpochPlace {
        EpochPlace { pipeline: self.job.name.clone(), fence: self.job.fence, epoch }
    }

    /// What may be read with the state as it is.
    fn note_weight(&self) -> Room {
        let weight = self.job.engine.weight();
        let job = &self.job;
        job.context.figures.note(&job.name, |figure| figure.state_bytes = weight as u64);
        job.context.memory.note(&job.name, weight)
    }

    async fn work(&mut self) -> End {
        self.job.tell_as_found();
        let streams: Vec<_> = self.job.inputs.iter().map(|input| input.stream).collect();
        let watch = self.job.context.broker.site().watch(&streams);
        loop {
            if let Err(end) = self.turn(&watch).await {
                return self.last_words(end).await;
            }
        }
    }

    /// A pipeline that cannot go on leaves its state in the log, as of the last epoch: with another file of
    /// the same shape it may be able to.
    async fn last_words(&mut self, end: End) -> End {
        if let End::Halted(_) = end
            && let Err(in_vain) = self.settle().await
        {
            tracing::warn!(pipeline = self.job.name, ?in_vain, "its state could not be stored");
            if in_vain == End::Superseded {
                return in_vain;
            }
        }
        end
    }

    async fn settle(&mut self) -> Result<(), End> {
        if let Some(writing) = &mut self.writing {
            writing.finished().await;
            self.reap()?;
        }
        if self.job.epoch == self.delta_epoch {
            return Ok(());
        }
        // Records of the epoch that could not end were given to the engine, so another one is needed.
        let (context, name) = (Arc::clone(&self.job.context), self.job.name.clone());
        let found = context.broker.site().read(|state| job::find(state, &name));
        let found = found.map_err(End::Halted)?;
        let job = Job::new(context, (name, self.job.fence), &found).map_err(End::Halted)?;
        self.job = job;
        self.job.load(&found.deltas).await?;
        for epoch in &found.epochs {
            self.job.replay(epoch).await?;
        }
        self.begin_delta().await;
        if let Some(writing) = &mut self.writing {
            writing.finished().await;
        }
        self.reap()
    }

    /// One thing after the other.
    async fn turn(&mut self, watch: &Watch) -> Result<(), End> {
        let wish = self.wish()?;
        self.reap()?;
        let lacks = self.job.epoch > self.delta_epoch;
        if wish.paused && !lacks && self.writing.is_none() {
            return if wish.run.is_settled() { Err(End::Settled) } else { self.hold().await };
        }
        let is_wanted = wish.run.wants_delta.is_some_and(|epoch| self.delta_epoch < epoch);
        if self.writing.is_none() && lacks && (wish.paused || is_wanted || self.is_delta_due()) {
            self.begin_delta().await;
        }
        if wish.paused || self.is_log_full() {
            return self.hold().await;
        }
        if wish.run.epoch < self.job.epoch {
            // What its last epoch was decided behind is not known here yet: it would be taken for silence.
            time::sleep(APPLIED_AGAIN_AFTER).await;
            return Ok(());
        }
        let room = self.room();
        let has_input = self.job.has_input(room);
        let has_news = self.waiting != self.told_waiting;
        let is_idle = self.is_idle_epoch_due();
        if !has_input && !has_news && !is_idle {
            return self.rest(watch).await;
        }
        if !has_input && is_idle {
            self.job.context.host.probe(Probe::IdleEpoch);
        }
        let next = self.began + wish.latency;
        if time::now() < next {
            time::sleep_until(next).await;
            return Ok(());
        }
        self.began = time::now();
        self.epoch(has_input.then_some(room)).await
    }

    /// What may be read now, and what is said about it.
    fn room(&mut self) -> Room {
        let has_waited = matches!(self.told_waiting, Waiting::Time | Waiting::Memory);
        let mut room = self.note_weight();
        if planted(Plant::MemoryNeverFree) && has_waited {
            room = Room::None;
        }
        self.waiting = match room {
            Room::Free(_) => Waiting::No,
            Room::Beyond(_) => Waiting::Time,
            Room::None => Waiting::Memory,
        };
        if self.waiting != Waiting::No && !has_waited {
            self.job.context.host.probe(Probe::WaitedForRoom);
        }
        room
    }

    /// Waits until something may be different.
    async fn rest(&mut self, watch: &Watch) -> Result<(), End> {
        let now = time::now();
        let mut until = now + DELTA_EVERY;
        if self.job.epoch > self.delta_epoch && self.writing.is_none() {
            until = self.delta_at.map_or(now, |at| at + DELTA_EVERY);
        }
        if self.waiting != Waiting::No {
            until = until.min(now + MEMORY_EVERY);
        }
        if let Some(age_ms) = self.job.engine.next_idle_age(self.job.age_ms) {
            let wait_ms = age_ms.saturating_sub(self.job.context.broker.age_ms());
            until = until.min(now + Duration::from_millis(wait_ms));
        }
        // Never at once: what is due has been looked at.
        let until = until.max(now + Duration::from_millis(1));
        let takes_input = self.waiting != Waiting::Memory;
        tokio::select! {
            biased;
            () = self.control.changed() => {}
            () = written(&mut self.writing) => {}
            () = watch.changed(), if takes_input => {}
            () = time::sleep_until(until) => {}
        }
        Ok(())
    }

    /// Takes no input until something else has changed.
    async fn hold(&mut self) -> Result<(), End> {
        tokio::select! {
            biased;
            () = self.control.changed() => {}
            () = written(&mut self.writing) => {}
            () = time::sleep(HOLD) => {}
        }
        Ok(())
    }

    fn is_idle_epoch_due(&self) -> bool {
        let due = self.job.engine.next_idle_age(self.job.age_ms);
        due.is_some_and(|age_ms| age_ms <= self.job.context.broker.age_ms())
            && !planted(Plant::IdleEpochLeftOut)
    }

    fn is_delta_due(&self) -> bool {
        let epochs = self.job.epoch - self.delta_epoch;
        self.delta_at.is_none_or(|at| at.elapsed() >= DELTA_EVERY)
            || self.logged.0 >= REPLAY_BYTES_MAX
            || epochs >= EPOCHS_LOGGED_MAX as u64 / LOGGED_SHARE
            || u64::from(self.logged.1) >= u64::from(RANGES_LOGGED_MAX) / LOGGED_SHARE
    }

    /// Whether the log may take no more epochs before there is a delta.
    fn is_log_full(&self) -> bool {
        let epochs = self.job.epoch - self.delta_epoch;
        let ranges = self.logged.1 as usize + self.job.inputs.len();
        epochs + 1 >= EPOCHS_LOGGED_MAX as u64
            || (epochs > 0 && ranges >= RANGES_LOGGED_MAX as usize)
            || (self.writing.is_some() && self.logged.0 >= 4 * REPLAY_BYTES_MAX)
    }

    /// Takes note of a delta that is in the log.
    fn reap(&mut self) -> Result<(), End> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        let Some(ended) = writing.ended() else { return Ok(()) };
        let epoch = writing.epoch();
        self.writing = None;
        ended?;
        self.delta_epoch = epoch;
        self.job.context.host.probe(Probe::DeltaTaken);
        Ok(())
    }

    async fn begin_delta(&mut self) {
        let (parts, keep_from) = self.job.take_delta().await;
        let place = self.place(self.job.epoch);
        let (context, internal) = (Arc::clone(&self.job.context), self.job.internal);
        self.writing = Some(Writing::begin(context, internal, place, (parts, keep_from)));
        (self.delta_at, self.logged) = (Some(time::now()), (0, 0));
    }

    fn rate(&mut self) -> u64 {
        let (since, before, rate) = self.rate;
        if since.elapsed() >= RATE_OVER {
            let ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
            let records = self.job.taken.0 - before;
            self.rate = (time::now(), self.job.taken.0, records.saturating_mul(1_000) / ms);
            return self.rate.2;
        }
        rate
    }

    /// One epoch: input, outputs, commit.
    async fn epoch(&mut self, input: Option<Room>) -> Result<(), End> {
        let before = self.job.taken;
        // Before it looks what is there: a record that comes later does not come too late for that.
        let age_ms = self.job.age_now_ms();
        let ranges = self.job.take_input(input.unwrap_or(Room::None), age_ms).await?;
        let number = self.job.epoch + 1;
        let produced = self.job.end_epoch(age_ms, number).await;
        let produced = produced.map_err(|halt| End::Halted(halt.to_string()))?;
        let said = (self.waiting, self.rate());
        let decision = self.job.decision(age_ms, ranges.clone(), produced.hash, said);
        let outputs = self.outputs(produced.outputs).await;
        let batches = outputs.len();
        let outgoing = Outgoing::new(self.place(number), decision, outputs);
        self.deliver(outgoing).await?;
        self.told_waiting = self.waiting;
        self.job.committed(number, age_ms, &ranges);
        self.logged.0 += self.job.taken.1 - before.1;
        self.logged.1 += ranges.len() as u32;
        self.note_epoch(before, batches);
        Ok(())
    }

    fn note_epoch(&self, before: (u64, usize), batches: usize) {
        let (job, began) = (&self.job, self.began);
        let (records, bytes) = (job.taken.0 - before.0, job.taken.1 - before.1);
        job.context.figures.note(&job.name, |figure| {
            figure.epochs += 1;
            figure.records += records;
            figure.bytes += bytes as u64;
            figure.batches += batches as u64;
            figure.epoch_time += began.elapsed();
            figure.waiting = self.waiting;
        });
    }

    /// The planted bug appends the outputs first, and commits an epoch without any.
    async fn outputs(&self, outputs: Vec<Output>) -> Vec<Output> {
        if !planted(Plant::OutputsBeforeCommit) {
            return outputs;
        }
        for Output { topic, partition, batch } in outputs {
            let batch = Batch::new(batch);
            let unit = Unit::of(Operation::Append { topic, partition, batch });
            self.job.context.propose(unit).await;
        }
        Vec::new()
    }

    /// Sees to it that an epoch and its outputs come into the log.
    async fn deliver(&mut self, mut outgoing: Outgoing) -> Result<(), End> {
        let unit_bytes_max = self.job.context.broker.unit_bytes_max();
        let mut units = 0;
        loop {
            let Next::Send(unit) = outgoing.next(unit_bytes_max) else { break };
            let was_decided = outgoing.is_decided();
            let answer = self.job.context.propose(unit).await;
            let mut verdict = outgoing.answer(&answer);
            if verdict == Verdict::Look {
                time::sleep(AGAIN_AFTER).await;
                verdict =
                    self.job.context.broker.site().read(|state| {
                        outgoing.look(state.run(&self.job.name), self.job.context.node)
                    });
                if !was_decided && outgoing.is_decided() {
                    self.job.context.host.probe(Probe::EpochFoundLogged);
                }
            }
            match verdict {
                Verdict::Go => units += u32::from(matches!(answer, Answer::Done { .. })),
                Verdict::Look | Verdict::Pause => {
                    time::sleep(AGAIN_AFTER).await;
                    self.wish()?;
                }
                Verdict::NoRoom => self.wait_for_room(&outgoing).await?,
                Verdict::Superseded => {
                    self.job.context.host.probe(Probe::StaleCommitRefused);
                    return Err(End::Superseded);
                }
                Verdict::Reload => return Err(End::Reload),
                Verdict::Impossible(Refusal::UnknownTopic) => return Err(self.gone().await),
                Verdict::Impossible(refusal) => return Err(End::Halted(refusal.to_string())),
            }
        }
        if units > 1 {
            self.job.context.host.probe(Probe::LargeEpoch);
        }
        Ok(())
    }

    /// A topic is gone, as the log says: one that it reads, or one that it writes.
    async fn gone(&self) -> End {
        // This node may be about to apply that.
        for _ in 0..GONE_LOOKS {
            if let Err(end) = self.wish() {
                return end;
            }
            if self.job.lacks_output() {
                break;
            }
            time::sleep(AGAIN_AFTER).await;
        }
        End::Halted(OUTPUT_GONE.to_owned())
    }

    /// The log or an output has no room.
    async fn wait_for_room(&mut self, outgoing: &Outgoing) -> Result<(), End> {
        if self.waiting != Waiting::Room {
            self.waiting = Waiting::Room;
            self.job.context.host.probe(Probe::WaitedForRoom);
            let job = &self.job;
            job.context.figures.note(&job.name, |figure| figure.waiting = Waiting::Room);
        }
        let wish = self.wish()?;
        // What is not decided can be made again later.
        let is_asked = wish.paused || wish.run.wants_delta.is_some();
        if is_asked && !outgoing.is_decided() {
            return Err(End::Reload);
        }
        time::sleep(ROOM_AGAIN_AFTER).await;
        Ok(())
    }
}

/// Waits for the delta that is on its way; for ever, if there is none.
async fn written(writing: &mut Option<Writing>) {
    match writing {
        Some(writing) => writing.finished().await,
        None => std::future::pending().await,
    }
}
