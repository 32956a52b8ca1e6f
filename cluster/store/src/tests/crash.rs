//! Crash enumeration: one scripted life of a store, cut at every single point at which the disk is
//! changed, with several seeds each. After every cut the store must come up again with everything
//! that was confirmed, in order and unchanged, and be able to go on.

use super::disk::{Dice, TestDisk};
use super::fixture::*;
use crate::format::header::FRAMES_AT;
use crate::format::mark::MARK_SLOTS_AT;
use crate::{LogEntry, SavedVote, StreamId};
use fulmar_types::limits::SECTOR_BYTES;
use fulmar_types::{LogIndex, LogPosition, NodeId, Offset, Probe, Term};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// What was asked of the store, and what it confirmed.
struct Model {
    initialised: bool,
    /// The log after every change that was asked for.
    logs: Vec<Vec<LogEntry>>,
    /// The newest of them that was confirmed.
    confirmed: usize,
    votes: Vec<SavedVote>,
    votes_confirmed: usize,
    snapshot: Option<LogPosition>,
    floor: Option<LogPosition>,
    applied: u64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            initialised: false,
            // The empty log needs no confirmation.
            logs: vec![Vec::new()],
            confirmed: 1,
            votes: Vec::new(),
            votes_confirmed: 0,
            snapshot: None,
            floor: None,
            applied: 0,
        }
    }
}

impl Model {
    fn log(&self) -> Vec<LogEntry> {
        self.logs.last().cloned().unwrap_or_default()
    }

    /// How many entries must be there: all confirmed ones, but those that a cut which was asked
    /// for later may have taken.
    fn len_min(&self) -> usize {
        let later = self.logs.iter().skip(self.confirmed - 1);
        later.map(Vec::len).min().unwrap_or(0)
    }

    fn check_log(&self, found: &[LogEntry]) {
        assert!(found.len() >= self.len_min(), "{} of {} entries", found.len(), self.len_min());
        let from = self.confirmed - 1;
        let is_prefix = |log: &Vec<LogEntry>| log.get(..found.len()) == Some(found);
        assert!(found.is_empty() || self.logs.iter().skip(from).any(is_prefix), "another log");
    }
}

type Shared = Arc<Mutex<Model>>;

struct Life {
    node: Node,
    model: Shared,
}

/// The store has stopped working: the power is off.
struct Off;

impl Life {
    async fn append(&self, term: u64, lens: &[usize], wait: bool) -> Result<(), Off> {
        let (entries, step) = {
            let mut model = self.model.lock().unwrap();
            let mut log = model.log();
            let from = log.len() as u64;
            let made = lens.iter().enumerate().map(|(at, len)| entry(term, from + at as u64, *len));
            let entries: Vec<LogEntry> = made.collect();
            log.extend(entries.iter().cloned());
            // Every prefix of the group is a log that a torn write may leave.
            model.logs.push(log);
            (entries, model.logs.len())
        };
        let model = self.model.clone();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let callback = Box::new(move |result: std::io::Result<()>| {
            if result.is_ok() {
                let mut model = model.lock().unwrap();
                model.confirmed = model.confirmed.max(step);
            }
            let _ = sender.send(result.is_ok());
        });
        self.node.store.append(entries, callback).await.map_err(|_| Off)?;
        if wait && !receiver.await.unwrap_or(false) {
            return Err(Off);
        }
        Ok(())
    }

    async fn truncate(&self, from: usize) -> Result<(), Off> {
        let step = {
            let mut model = self.model.lock().unwrap();
            let mut log = model.log();
            log.truncate(from);
            model.logs.push(log);
            model.logs.len()
        };
        self.node.store.truncate_from(LogIndex(from as u64)).await.map_err(|_| Off)?;
        let mut model = self.model.lock().unwrap();
        model.confirmed = model.confirmed.max(step);
        Ok(())
    }

    async fn vote(&self, term: u64) -> Result<(), Off> {
        let vote = SavedVote { term: Term(term), voted_for: NodeId(1), committed: false };
        self.model.lock().unwrap().votes.push(vote);
        self.node.store.save_vote(vote).await.map_err(|_| Off)?;
        let mut model = self.model.lock().unwrap();
        model.votes_confirmed = model.votes.len();
        Ok(())
    }

    /// Applies what is flushed, with snapshots at the borders of segments.
    async fn apply(&self, below: u64) -> Result<(), Off> {
        let from = self.model.lock().unwrap().applied;
        for index in from..below {
            self.node.apply(index + 1, true).await;
            if self.node.store.last_applied() != Some(LogIndex(index)) {
                return Err(Off);
            }
            let snapshot = self.node.store.latest_snapshot().await.map(|s| s.last);
            let mut model = self.model.lock().unwrap();
            model.applied = index + 1;
            model.snapshot = model.snapshot.max(snapshot);
        }
        Ok(())
    }

    async fn purge(&self, index: u64) -> Result<(), Off> {
        let position = self.model.lock().unwrap().log()[index as usize].position;
        self.node.store.purge_to(position).await.map_err(|_| Off)?;
        self.model.lock().unwrap().floor = Some(position);
        for stream in 0..3 {
            self.node.store.advance_start(StreamId(stream), Offset(index / 3 * 2));
        }
        self.node.store.collect_garbage().await.map_err(|_| Off)?;
        Ok(())
    }

    /// A life: about five segments of entries, a conflict within a segment and one across
    /// segments, snapshots, and recycled files.
    async fn live(&self) -> Result<(), Off> {
        const L: usize = 27_000;
        self.node.store.save_life(&life()).await.map_err(|_| Off)?;
        self.node.store.initialise(identity()).await.map_err(|_| Off)?;
        self.model.lock().unwrap().initialised = true;
        self.vote(1).await?;
        self.append(1, &[0], true).await?;
        self.append(1, &[700, 3000, 40], false).await?;
        self.append(1, &[9000], false).await?;
        self.append(1, &[600; 6], true).await?;
        for _ in 0..3 {
            self.append(1, &[1500], true).await?;
        }
        self.truncate(11).await?;
        self.append(1, &[L, L, L, L, L], false).await?;
        self.append(1, &[L], true).await?;
        self.truncate(16).await?;
        self.vote(2).await?;
        self.append(2, &[300, 300], false).await?;
        self.append(2, &[L, 5, L], true).await?;
        self.apply(8).await?;
        self.append(2, &[L, L, L, L], false).await?;
        self.append(2, &[L, L, L, L], true).await?;
        self.apply(18).await?;
        self.truncate(20).await?;
        self.vote(3).await?;
        self.append(3, &[500, L, L, L, L, L, 900], true).await?;
        self.apply(25).await?;
        self.purge(15).await?;
        self.append(3, &[L, L, 800, 800, L, L], false).await?;
        self.append(3, &[100; 9], true).await?;
        self.apply(36).await?;
        self.node.store.close().await.map_err(|_| Off)
    }
}

async fn live(disk: &TestDisk) -> (Shared, bool) {
    let model = Shared::default();
    let (opened, seen) = try_open(disk).await;
    let Ok((store, recovered)) = opened else { return (model, false) };
    let life = Life { node: Node { store, recovered, seen }, model: model.clone() };
    let finished = life.live().await.is_ok();
    (model, finished)
}

/// Opens the store after a cut and checks it against the model; then goes on with it.
async fn check(disk: &TestDisk, model: &Model) -> Vec<Probe> {
    let node = open(disk).await;
    let probes = node.seen.probes();
    let Some(_) = node.recovered.identity else {
        assert!(!model.initialised, "the identity was confirmed");
        return probes;
    };
    let vote = node.recovered.vote;
    let least = model.votes_confirmed.checked_sub(1).map(|at| model.votes[at]);
    assert!(vote.map(|v| v.term) >= least.map(|v| v.term), "{vote:?} behind {least:?}");
    assert!(vote.is_none_or(|vote| model.votes.contains(&vote)));
    let snapshot = node.recovered.snapshot.as_ref().map(|s| s.last);
    assert!(snapshot >= model.snapshot, "{snapshot:?} behind {:?}", model.snapshot);
    assert!(node.store.floor() >= model.floor);
    let first = node.store.floor().map_or(0, |floor| floor.index.0 as usize + 1);
    let below = model.logs.iter().rev().find_map(|log| log.get(..first));
    let mut found = below.unwrap_or_default().to_vec();
    found.extend(node.all().await);
    assert_eq!(node.recovered.last, found.last().map(|e| e.position));
    model.check_log(&found);

    // It goes on: what was applied is applied again, and new entries follow.
    node.apply(model.applied, true).await;
    assert!(node.seen.exit_code().is_none(), "{}", node.seen.exit_message());
    let next = found.len() as u64;
    let more: Vec<LogEntry> = (next..next + 8).map(|index| entry(9, index, 20_000)).collect();
    node.write(more.clone()).await;
    node.apply(next + 8, true).await;
    found.extend(more);
    node.store.close().await.expect("works");
    let sealed = node.store.sealed();
    drop(node);
    let has_unreadable = disk.has_unreadable();
    let node = open(disk).await;
    // What an earlier cut left unreadable in a recycled file is wiped when it is met.
    let is_whole = node.recovered.cut_bytes == 0 || has_unreadable;
    assert!(is_whole, "nothing is torn after a clean end");
    assert_eq!(node.store.sealed(), sealed);
    let first = node.store.floor().map_or(0, |floor| floor.index.0 as usize + 1);
    assert!(node.all().await == found[first..], "the same log after a clean restart");
    probes
}

fn guarded(what: String, disk: &TestDisk, test: impl FnOnce()) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
    if let Err(panic) = result {
        let trace = disk.trace();
        let from = trace.len().saturating_sub(60);
        eprintln!("{what}\n{}", trace[from..].join("\n"));
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn the_power_goes_at_every_point_of_a_life() {
    cut_everywhere();
}

/// Panics where the store breaks a promise.
pub fn cut_everywhere() {
    let disk = TestDisk::default();
    let (model, finished) = run(live(&disk));
    assert!(finished, "the script runs to its end: {}", disk.trace().join("\n"));
    run(check(&disk, &model.lock().unwrap()));
    let whole = TestDisk::default();
    run(live(&whole));
    let points = whole.points();
    assert!(points > 150, "{points} points");
    let mut again = 0;
    let mut probes = BTreeSet::new();
    for point in 1..=points {
        for seed in 0..6 {
            let disk = TestDisk::default();
            disk.cut_at(point, seed * 1_000 + point);
            let (model, finished) = run(live(&disk));
            assert!(!finished && disk.is_dead(), "point {point}");
            disk.restore_power();
            guarded(format!("point {point}, seed {seed}"), &disk, || {
                // Half of the time the power goes again during recovery.
                if seed % 2 == 1 {
                    let next = Dice(seed + point).below(9) + 1;
                    disk.cut_at(disk.points() + next, point);
                    let (opened, _) = run(try_open(&disk));
                    again += usize::from(opened.is_err());
                    drop(opened);
                    disk.cut_now(seed);
                    disk.restore_power();
                }
                let model = model.lock().unwrap();
                probes.extend(run(check(&disk, &model)));
            });
        }
    }
    assert!(again > 100, "{again} recoveries were interrupted");
    assert!(probes.contains(&Probe::TornTailCut));
    assert!(probes.contains(&Probe::TornBlockMended));
    assert!(probes.contains(&Probe::StaleFrameRefused));
}

#[test]
fn the_process_dies_at_every_point_and_then_the_power_goes() {
    let whole = TestDisk::default();
    run(live(&whole));
    for point in 1..=whole.points() {
        // Zero: after the restart. Otherwise at that point of the recovery.
        for during in 0..8 {
            let disk = TestDisk::default();
            disk.kill_at(point);
            let (model, _) = run(live(&disk));
            disk.restore_power();
            guarded(format!("point {point}, {during}"), &disk, || {
                if during > 0 {
                    disk.cut_at(disk.points() + during, point * 8 + during);
                }
                // What a node has said after its restart must survive the next cut, although it
                // may have found it in the page cache only.
                let said = run(async {
                    let (opened, _) = try_open(&disk).await;
                    let (_, recovered) = opened.ok()?;
                    Some((recovered.last, recovered.vote, recovered.identity))
                });
                assert!(said.is_some() || during > 0);
                disk.cut_now(point);
                disk.restore_power();
                run(async {
                    let node = open(&disk).await;
                    let found = (node.recovered.last, node.recovered.vote, node.recovered.identity);
                    assert!(said.is_none_or(|said| said == found));
                });
                run(check(&disk, &model.lock().unwrap()));
            });
        }
    }
}

/// The first entry of the second segment is committed without this node, so the first one is being
/// sealed, its marks are gone, and the power goes before that entry is flushed. Recovery takes the
/// empty segment back. The power goes again, at every point of that.
#[test]
fn the_power_goes_while_an_empty_segment_is_taken_back() {
    const LEN: usize = 8_000;
    const PER: u64 = 15;
    let disk = TestDisk::default();
    run(async {
        let node = fresh(&disk).await;
        let vote = SavedVote { term: Term(1), voted_for: NodeId(1), committed: true };
        node.store.save_vote(vote).await.expect("saved");
        node.fill(1, 0..PER + 1, LEN).await;
    });
    disk.rot(&segment(0), |bytes| {
        for at in MARK_SLOTS_AT {
            bytes[at as usize..][..SECTOR_BYTES].fill(0);
        }
        // Footer and trailer are there already, and the file has its length.
        let end = FRAMES_AT as usize + PER as usize * 8192;
        bytes[end..][..1024].fill(7);
        bytes.truncate(end + 1024);
    });
    disk.rot(&segment(PER), |bytes| bytes[FRAMES_AT as usize..].fill(0));
    let whole = disk.copy();
    run(open(&whole));
    let points = whole.points();
    assert!(points > 5, "{points} points");
    for point in 1..=points {
        for seed in 0..8 {
            let disk = disk.copy();
            disk.cut_at(point, seed);
            let (opened, _) = run(try_open(&disk));
            drop(opened);
            disk.cut_now(seed);
            disk.restore_power();
            guarded(format!("point {point}, seed {seed}"), &disk, || {
                let node = run(open(&disk));
                let last = node.recovered.last.map(|last| last.index);
                assert_eq!(last, Some(LogIndex(PER - 1)), "no flushed entry is lost");
                let len = disk.len(&segment(0)).expect("it is there");
                assert!(len >= SEGMENT_BYTES, "whoever has a segment has the space for it: {len}");
            });
        }
    }
}
