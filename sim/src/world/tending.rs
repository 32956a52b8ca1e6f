//! Whoever looks after a pipeline while it runs: pauses it, changes its file, mends it, puts it back.
//!
//! What is done goes into the log of the site, so the epochs say under which file they were made, and where
//! the pipeline went back. What cannot be done at once (it has to be paused and settled, the site has no
//! leader) is tried again until it is.
//!
//! Invariants checked with what is noted here: a pipeline goes back only where it was told to
//! (`pipeline_back`); one that stops names a record that is bad (`halt_named`); one whose state has the
//! memory and all that it may grow beyond reads nothing, and none comes to more than one batch above that
//! (`memory_kept`).

use super::fates;
use super::pausing::{STEP, pause};
use crate::epochs::EpochLog;
use crate::prng::Prng;
use crate::scenario::workload::Tend;
use fulmar_client::{Cluster, PipelineSettings};
use fulmar_types::pipeline::Start;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one attempt at anything may take.
const LIMIT: Duration = Duration::from_secs(3);

/// How long a pipeline may take to meet a bad record.
const STEPS_TO_FAIL: u32 = 60;

/// A pipeline that has failed before it could settle is begun again with every so many attempts.
const BEGIN_AGAIN: u32 = 8;

/// What one batch of the clients of a pipeline adds to its state, at most.
const BATCH_STATE_BYTES_MAX: u64 = 32 << 10;

/// What becomes of bad records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnError {
    DeadLetter,
    Drop,
    Fail,
}

impl OnError {
    const ALL: [Self; 3] = [Self::DeadLetter, Self::Drop, Self::Fail];

    /// The file in which that is said.
    fn file(self, sql: &str, dead: &str) -> String {
        let letter = format!("ON ERROR DEAD LETTER \"{dead}\"");
        match self {
            Self::DeadLetter => sql.to_owned(),
            Self::Drop => sql.replace(&letter, "ON ERROR DROP"),
            Self::Fail => sql.replace(&letter, "ON ERROR FAIL"),
        }
    }
}

/// What was done to a pipeline, and what it said.
#[derive(Default)]
pub(super) struct Tended {
    /// What its file said, from the entry with this number on.
    files: Vec<(u64, OnError)>,
    /// Behind which epochs it was told to go on, one after the other.
    put_back: Vec<u64>,
    /// Which number it had, when it was last to become something.
    asked: Option<u64>,
    /// Why it stopped.
    halted: BTreeSet<String>,
    /// How often its state was looked at, and had all of the memory.
    full: u64,
    /// With which epochs, of which owner, it had all that it may grow beyond as well.
    over: BTreeSet<(u64, u64)>,
    /// What it had too much of, with which epoch.
    burst: Option<(u64, u64)>,
}

impl Tended {
    /// What became of bad records in the epochs of an owner.
    pub(super) fn on_error(&self, fence: u64) -> OnError {
        let before = self.files.iter().rev().find(|(number, _)| *number <= fence);
        before.map_or(OnError::DeadLetter, |(_, is)| *is)
    }

    /// Whether bad records were dropped at any time.
    pub(super) fn has_dropped(&self) -> bool {
        self.files.iter().any(|(_, is)| *is == OnError::Drop)
    }

    /// How often it was looked at with a full memory.
    pub(super) fn full(&self) -> u64 {
        self.full
    }

    /// What is wrong with what the pipeline did: the check, and why.
    pub(super) fn wrong(
        &self,
        log: &EpochLog,
        bad: &BTreeSet<String>,
    ) -> Option<(&'static str, String)> {
        let mut told = self.put_back.iter();
        let untold = log.left().iter().find(|left| !told.any(|epoch| *epoch == left.kept));
        if let Some(left) = untold {
            let text = format!("it went back to epoch {}, told {:?}", left.kept, self.put_back);
            return Some(("pipeline_back", text));
        }
        let is_named = |text: &&String| bad.iter().any(|record| text.starts_with(record.as_str()));
        if let Some(text) = self.halted.iter().find(|text| !is_named(text)) {
            return Some(("halt_named", format!("it stopped, for no bad record: {text}")));
        }
        let left = log.left().iter().flat_map(|left| &left.epochs);
        if let Some((epoch, bytes)) = self.burst {
            let text = format!("its state had {bytes} bytes with epoch {epoch}");
            return Some(("memory_kept", text));
        }
        let greedy = log.epochs().chain(left).find(|epoch| {
            let has_read = epoch.ranges.iter().any(|range| range.from < range.to);
            has_read && self.over.contains(&(epoch.fence, epoch.epoch - 1))
        })?;
        let text = format!("epoch {} has read, and there was no memory left", greedy.epoch);
        Some(("memory_kept", text))
    }
}

/// Who looks after one pipeline.
pub(super) struct Tending {
    pub(super) name: String,
    pub(super) sql: String,
    /// The topic for bad records.
    pub(super) dead: String,
    pub(super) latency_ms: u32,
    pub(super) cluster: Cluster,
    pub(super) tended: Arc<Mutex<Tended>>,
}

/// What the site says that a pipeline is.
struct Known {
    number: u64,
    is: OnError,
    paused: bool,
}

impl Tending {
    fn note(&self, change: impl FnOnce(&mut Tended)) {
        change(&mut self.tended.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Looks until it is told to stop; then the pipeline runs with the file that it began with.
    pub(super) async fn run(
        self,
        (tend, every): (Tend, Duration),
        mut prng: Prng,
        stopped: impl Fn() -> bool,
    ) {
        let mut history = 0;
        while !stopped() {
            pause(every, &stopped).await;
            match tend {
                Tend::Pause => {
                    let is = self.known().await.is;
                    self.set(is, true, Start::Keep).await;
                    pause(every / 2, &stopped).await;
                    self.change(is).await;
                }
                Tend::File => {
                    let is_first = self.known().await.is == OnError::DeadLetter;
                    let next = if is_first { OnError::Drop } else { OnError::DeadLetter };
                    self.change(next).await;
                }
                Tend::Fail => self.fail(&stopped).await,
                Tend::Restore => self.restore(&mut history, &mut prng).await,
            }
        }
        self.change(OnError::DeadLetter).await;
    }

    /// What the site says that the pipeline is.
    async fn known(&self) -> Known {
        loop {
            let all = self.cluster.pipelines(LIMIT).await;
            let of = all.ok().and_then(|mut all| all.remove(&self.name));
            let found = of.and_then(|of| {
                let said = |is: &OnError| is.file(&self.sql, &self.dead) == of.is.file;
                let is = OnError::ALL.into_iter().find(said)?;
                Some(Known { number: of.number, is, paused: of.is.paused })
            });
            let Some(Known { number, is, .. }) = found else {
                madsim::time::sleep(STEP).await;
                continue;
            };
            self.note(|tended| {
                if tended.files.last().is_none_or(|(last, _)| *last < number) {
                    tended.files.push((number, is));
                }
            });
            return found.expect("it was just there");
        }
    }

    /// Makes the pipeline what it is to be, if that can be done now. Whether it was.
    async fn set(&self, is: OnError, paused: bool, start: Start) -> bool {
        let number = self.known().await.number;
        let settings = PipelineSettings {
            file: is.file(&self.sql, &self.dead),
            paused,
            latency_ms: Some(self.latency_ms),
            start,
        };
        self.note(|tended| tended.asked = Some(number));
        let set = self.cluster.set_pipeline(&self.name, Some(number), &settings, LIMIT).await;
        self.known().await;
        set.is_ok()
    }

    /// Lets the pipeline run with this file.
    async fn change(&self, to: OnError) {
        let mut tries = 0;
        loop {
            let Known { number, is, paused } = self.known().await;
            let is_so = is == to && !paused;
            if (is_so && !self.is_asked(number)) || self.set(to, false, Start::Keep).await {
                return;
            }
            // Its state has to be in the log before another file may go on with it.
            tries += 1;
            let begins_again = tries % BEGIN_AGAIN == 0;
            if begins_again || !(paused || is_so) {
                self.set(is, !begins_again, Start::Keep).await;
            }
            madsim::time::sleep(STEP).await;
        }
    }

    /// Whether the pipeline of this number is to become something: that may be done already, since a node may tell
    /// what was before, or may be done yet, since not everything is answered.
    fn is_asked(&self, number: u64) -> bool {
        let tended = self.tended.lock().unwrap_or_else(PoisonError::into_inner);
        tended.asked == Some(number)
    }

    /// Has it stop at a bad record, and mends it.
    async fn fail(&self, stopped: &impl Fn() -> bool) {
        self.change(OnError::Fail).await;
        for _ in 0..STEPS_TO_FAIL {
            let status = self.cluster.pipeline_status(&self.name, LIMIT).await;
            if let Some(why) = status.ok().flatten().and_then(|status| status.failed) {
                self.note(|tended| {
                    tended.halted.insert(why);
                });
                break;
            }
            if stopped() {
                break;
            }
            madsim::time::sleep(STEP).await;
        }
        self.change(OnError::DeadLetter).await;
    }

    /// Takes a savepoint, or has the pipeline go on from it, or begin anew, with the file that it has or with
    /// another one for a while.
    async fn restore(&self, history: &mut u64, prng: &mut Prng) {
        // What was saved before it began anew is of another history than what comes then. Whoever is asked
        // for that may do it later, so each history has a name of its own.
        let savepoint = format!("{}.saved.{history}", self.name);
        let is = *prng.pick(&[OnError::DeadLetter, OnError::Drop]).expect("two");
        match prng.below(5) {
            0 | 1 => {
                let name = Some(self.name.as_str());
                let _again = self.cluster.set_savepoint(&savepoint, None, name, LIMIT).await;
            }
            2 | 3 => self.go_back(is, &savepoint).await,
            _ => {
                *history += 1;
                self.note(|tended| tended.put_back.push(0));
                self.begin(is, Start::Fresh).await;
                let _again = self.cluster.set_savepoint(&savepoint, None, None, LIMIT).await;
            }
        }
        self.change(OnError::DeadLetter).await;
    }

    /// Has the pipeline go on from a savepoint, if there is one.
    async fn go_back(&self, is: OnError, savepoint: &str) {
        // Two looks: what was asked before and not answered may be done in between.
        if self.note_saved(savepoint).await {
            self.begin(is, Start::Savepoint(savepoint.to_owned())).await;
            self.note_saved(savepoint).await;
        }
    }

    /// Has the pipeline begin with this, and does not leave before that is done or cannot be any more.
    async fn begin(&self, is: OnError, start: Start) {
        let Known { number, is: before, .. } = self.known().await;
        self.set(is, false, start).await;
        while self.known().await.number == number {
            // What was asked and not answered cannot be done once anything else is.
            madsim::time::sleep(STEP).await;
            self.set(before, false, Start::Keep).await;
        }
    }

    /// Notes where the pipeline goes on if it is put back now. Whether it can be.
    async fn note_saved(&self, savepoint: &str) -> bool {
        let all = self.cluster.savepoints(LIMIT).await;
        let saved = all.ok().and_then(|mut all| all.remove(savepoint));
        if let Some(saved) = &saved {
            self.note(|tended| tended.put_back.push(saved.is.epoch));
        }
        saved.is_some()
    }

    /// Notes with which epochs the state has as many bytes as it may, of a memory of so many, until it is told to stop.
    pub(super) async fn weigh(self, memory_bytes: u64, stopped: impl Fn() -> bool) {
        let bytes_max = memory_bytes + memory_bytes / 4;
        while !stopped() {
            madsim::time::sleep(STEP).await;
            let status = self.cluster.pipeline_status(&self.name, LIMIT).await;
            let Some(status) = status.ok().flatten() else { continue };
            let Some(bytes) = fates::state_bytes(&status.facts) else { continue };
            self.note(|tended| {
                tended.full += u64::from(bytes >= memory_bytes);
                if bytes >= bytes_max {
                    tended.over.insert((status.fence, status.epoch));
                }
                if bytes > bytes_max + BATCH_STATE_BYTES_MAX {
                    tended.burst.get_or_insert((status.epoch, bytes));
                }
            });
        }
    }
}
