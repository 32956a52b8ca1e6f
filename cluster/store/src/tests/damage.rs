//! The rows of the recovery table on real files: rot, loss and misplaced blocks. A node that stops
//! names the file and what to do, and leaves every byte as it was.

use super::disk::TestDisk;
use super::fixture::*;
use crate::format::header::FRAMES_AT;
use crate::format::mark::MARK_SLOTS_AT;
use crate::{Life, Poisoned, ReadError, SavedVote, StreamId};
use fulmar_host::time;
use fulmar_types::{ExitCode, Incarnation, LogIndex, NodeId, Offset, Probe, Term, Uuid};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LEN: usize = 8000;
/// Entries per segment.
const PER: u64 = 15;
const FRAME: usize = 8192;
/// Where the first of them lies.
const FIRST: usize = FRAMES_AT as usize;

fn path(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

/// A log of 50 entries in four segments, each flushed by itself, and a vote. `applied` entries were
/// applied, with snapshots.
fn filled(applied: u64) -> TestDisk {
    run(fill(applied))
}

async fn fill(applied: u64) -> TestDisk {
    let (disk, node) = write(applied).await;
    node.store.close().await.expect("works");
    disk
}

/// The same, not closed: the last group has no mark behind it.
async fn write(applied: u64) -> (TestDisk, Node) {
    let disk = TestDisk::default();
    let node = fresh(&disk).await;
    let vote = SavedVote { term: Term(1), voted_for: NodeId(3), committed: true };
    node.store.save_vote(vote).await.expect("saved");
    node.fill(1, 0..50, LEN).await;
    node.apply(applied, true).await;
    (disk, node)
}

fn flip(disk: &TestDisk, file: &Path, at: usize) {
    disk.rot(file, |bytes| bytes[at] ^= 0x10);
}

fn everything(disk: &TestDisk) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    disk.names().into_iter().map(|name| (name.clone(), disk.bytes(&name))).collect()
}

/// The store must refuse to open, name the file, and change nothing.
fn stops(disk: &TestDisk, file: &Path) -> String {
    let before = everything(disk);
    let (opened, seen) = run(try_open(disk));
    let error = opened.err().expect("it stops");
    assert_eq!(error.exit_code(), ExitCode::Damaged, "{error}");
    let message = error.to_string();
    assert!(message.contains(file.to_str().expect("text")), "{message}");
    assert!(message.contains("docs/RUNBOOK.md, exit code 42"), "{message}");
    assert!(everything(disk) == before, "a node that stops changes nothing");
    let rot = seen.probes().contains(&Probe::RotRefused);
    format!("{message} rot refused: {rot}")
}

#[test]
fn rot_in_the_middle_stops_the_node() {
    for entry in [45, 47] {
        let disk = filled(0);
        flip(&disk, &segment(45), FIRST + (entry - 45) * FRAME + 3000);
        let message = stops(&disk, &segment(45));
        assert!(message.contains(&format!("entry {entry}")), "{message}");
        assert!(message.contains("rot refused: true"), "{message}");
    }
}

#[test]
fn rot_in_the_last_group_after_a_stop_or_a_pause_stops_the_node() {
    let last = FIRST + 4 * FRAME + 3000;
    let disk = filled(0);
    flip(&disk, &segment(45), last);
    assert!(stops(&disk, &segment(45)).contains("entry 49"));
    let disk = run(async {
        let (disk, _node) = write(0).await;
        time::sleep(Duration::from_millis(1_500)).await;
        disk
    });
    flip(&disk, &segment(45), last);
    assert!(stops(&disk, &segment(45)).contains("entry 49"));
}

#[test]
fn rot_in_the_last_group_is_cut_off_and_wiped_if_no_mark_covers_it() {
    run(async {
        let (disk, node) = write(0).await;
        drop(node);
        let at = FIRST + 4 * FRAME;
        flip(&disk, &segment(45), at + 3000);
        let node = open(&disk).await;
        assert_eq!(node.recovered.last.map(|p| p.index), Some(LogIndex(48)));
        assert_eq!(node.recovered.cut_bytes, FRAME as u64);
        assert!(node.seen.probes().contains(&Probe::TornTailCut));
        assert!(node.seen.exit_code().is_none());
        let bytes = disk.bytes(&segment(45)).expect("there");
        assert!(bytes[at..].iter().all(|byte| *byte == 0), "what was cut is wiped");
        node.fill(2, 49..52, LEN).await;
        assert_eq!(node.all().await.len(), 52);
    });
}

/// The power goes while a group is written, and takes the whole block in which it begins: frames of
/// earlier groups, which were acknowledged, lie in it too.
#[test]
fn a_block_torn_by_the_next_group_is_mended_from_the_mark() {
    run(async {
        for entries in 2..12 {
            let disk = TestDisk::default();
            let node = fresh(&disk).await;
            let vote = SavedVote { term: Term(1), voted_for: NodeId(3), committed: true };
            node.store.save_vote(vote).await.expect("saved");
            for index in 0..entries {
                node.fill(1, index..index + 1, 600).await;
            }
            drop(node);
            // The block, and the mark that came with the group which tore it.
            let end = FIRST + (entries as usize - 1) * 1024;
            disk.rot(&segment(0), |bytes| {
                bytes[end - end % 4096..][..4096].fill(0xEE);
                let slot = MARK_SLOTS_AT[(entries % 2) as usize] as usize;
                bytes[slot..][..4096].fill(0xEE);
            });
            let node = open(&disk).await;
            assert_eq!(node.recovered.last.map(|last| last.index.0), Some(entries - 2));
            let is_shared = !end.is_multiple_of(4096);
            assert_eq!(node.seen.probes().contains(&Probe::TornBlockMended), is_shared);
            node.fill(2, entries - 1..entries + 3, 600).await;
            assert_eq!(node.all().await.len() as u64, entries + 3);
            drop(node);
            // It was written back: the next start does without a copy.
            let node = open(&disk).await;
            assert!(!node.seen.probes().contains(&Probe::TornBlockMended));
            assert_eq!(node.all().await.len() as u64, entries + 3);
        }
    });
}

#[test]
fn rot_in_a_completed_segment_stops_the_node() {
    let disk = filled(0);
    // In its last frame, which was in the last group of that segment.
    flip(&disk, &segment(30), FIRST + 14 * FRAME + 100);
    assert!(stops(&disk, &segment(30)).contains("entry 44"));
}

#[test]
fn a_misplaced_block_stops_the_node() {
    let disk = filled(0);
    disk.rot(&segment(45), |bytes| bytes.copy_within(FIRST..FIRST + FRAME, FIRST + FRAME));
    assert!(stops(&disk, &segment(45)).contains(&format!("belongs to position {FIRST}")));
    // The same block of another segment.
    let disk = filled(0);
    let other = disk.bytes(&segment(30)).expect("there");
    disk.rot(&segment(45), |bytes| {
        bytes[FIRST..FIRST + FRAME].copy_from_slice(&other[FIRST..FIRST + FRAME])
    });
    assert!(stops(&disk, &segment(45)).contains("segment at 30"));
    // A whole segment under the name of another.
    let disk = filled(0);
    let other = disk.bytes(&segment(15)).expect("there");
    disk.rot(&segment(30), |bytes| *bytes = other);
    stops(&disk, &segment(30));
}

#[test]
fn a_lost_segment_stops_the_node() {
    for base in [0, 15, 30, 45] {
        for applied in [0, 50] {
            let disk = filled(applied);
            disk.lose(&segment(base));
            stops(&disk, &segment(base));
        }
    }
}

#[test]
fn marks_and_headers() {
    let disk = filled(0);
    disk.rot(&segment(45), |bytes| bytes[MARK_SLOTS_AT[0] as usize] ^= 1);
    assert!(run(open(&disk)).recovered.last.is_some(), "one slot is enough");
    let disk = filled(0);
    disk.rot(&segment(45), |bytes| {
        MARK_SLOTS_AT.iter().for_each(|at| bytes[*at as usize..][..512].fill(7));
    });
    assert!(stops(&disk, &segment(45)).contains("flush mark"));
    for base in [30, 45] {
        let disk = filled(0);
        flip(&disk, &segment(base), 20);
        stops(&disk, &segment(base));
    }
}

#[test]
fn the_vote() {
    let expected = SavedVote { term: Term(1), voted_for: NodeId(3), committed: true };
    for slot in [0, 4096] {
        let disk = filled(0);
        flip(&disk, &path("vote"), slot + 30);
        assert_eq!(run(open(&disk)).recovered.vote, Some(expected));
        // It was repaired: the other slot may rot now.
        flip(&disk, &path("vote"), 4096 - slot + 30);
        assert_eq!(run(open(&disk)).recovered.vote, Some(expected));
    }
    let disk = filled(0);
    flip(&disk, &path("vote"), 30);
    flip(&disk, &path("vote"), 4096 + 30);
    stops(&disk, &path("vote"));
    let disk = filled(0);
    disk.lose(&path("vote"));
    stops(&disk, &path("vote"));
    let disk = filled(0);
    disk.rot(&path("vote"), Vec::clear);
    stops(&disk, &path("vote"));
}

#[test]
fn a_damaged_seal_stops_the_node() {
    let sealed = |disk: &TestDisk| disk.bytes(&segment(15)).expect("sealed").len();
    let frames_end = FIRST + PER as usize * FRAME;
    for at in [20, frames_end + 10, frames_end + 70] {
        let disk = filled(50);
        flip(&disk, &segment(15), at);
        stops(&disk, &segment(15));
    }
    let disk = filled(50);
    let len = sealed(&disk);
    flip(&disk, &segment(15), len - 512 + 40);
    assert!(stops(&disk, &segment(15)).contains("trailer"));
    let disk = filled(50);
    disk.rot(&segment(15), |bytes| bytes.truncate(len - 512));
    assert!(stops(&disk, &segment(15)).contains("bytes long"));
}

#[test]
fn identity_manifest_and_life() {
    for name in ["identity", "manifest", "life"] {
        let disk = filled(50);
        flip(&disk, &path(name), 20);
        stops(&disk, &path(name));
        let disk = filled(50);
        disk.lose(&path(name));
        stops(&disk, &path(name));
    }
}

#[test]
fn the_life_of_another_directory_stops_the_node() {
    let disk = filled(50);
    let other = Life { incarnation: Incarnation(Uuid([9; 16])), ..life() };
    disk.rot(&path("life"), |bytes| *bytes = other.encode());
    let before = everything(&disk);
    let error = run(try_open(&disk)).0.err().expect("it stops");
    assert_eq!(error.exit_code(), ExitCode::Identity, "{error}");
    assert!(everything(&disk) == before, "a node that stops changes nothing");
}

#[test]
fn damaged_snapshots() {
    run(async {
        let disk = fill(50).await;
        let newest = path("snap/00000000000000000044.snap");
        flip(&disk, &newest, 30);
        let node = open(&disk).await;
        let snapshot = node.recovered.snapshot.as_ref().map(|s| s.last.index);
        assert_eq!(snapshot, Some(LogIndex(29)), "the older one");
        // Everything behind it is applied again, and the damaged one is replaced.
        node.apply(50, true).await;
        drop(node);
        let snapshot = open(&disk).await.recovered.snapshot.map(|s| s.last.index);
        assert_eq!(snapshot, Some(LogIndex(44)));

        flip(&disk, &newest, 30);
        flip(&disk, &path("snap/00000000000000000029.snap"), 30);
        let node = open(&disk).await;
        assert!(node.recovered.snapshot.is_none(), "the log reaches back to its beginning");
        assert_eq!(node.recovered.first_index, LogIndex(0));
        node.apply(50, false).await;
    });
}

#[test]
fn no_snapshot_for_a_log_that_was_cleaned_stops_the_node() {
    let disk = filled(50);
    run(async {
        let node = open(&disk).await;
        let floor = node.store.entries(LogIndex(20)..LogIndex(21), 1).await.expect("reads");
        node.store.purge_to(floor[0].position).await.expect("moved");
        (0..3).for_each(|stream| node.store.advance_start(StreamId(stream), Offset(10)));
        assert_eq!(node.store.collect_garbage().await, Ok(1));
    });
    flip(&disk, &path("snap/00000000000000000044.snap"), 30);
    // The older one still covers what was removed, and the floor goes back to it.
    let one = disk.copy();
    assert!(run(open(&one)).recovered.snapshot.is_some());
    flip(&disk, &path("snap/00000000000000000029.snap"), 30);
    assert!(stops(&disk, &path("snap")).contains("no snapshot is readable"));
}

#[test]
fn a_floor_above_the_snapshot_that_is_left_goes_back() {
    run(async {
        let disk = fill(50).await;
        let node = open(&disk).await;
        let floor = node.store.entries(LogIndex(40)..LogIndex(41), 1).await.expect("reads");
        node.store.purge_to(floor[0].position).await.expect("moved");
        drop(node);
        assert_eq!(open(&disk).await.recovered.first_index, LogIndex(41));
        flip(&disk, &path("snap/00000000000000000044.snap"), 30);
        assert_eq!(open(&disk).await.recovered.first_index, LogIndex(30));
    });
}

#[test]
fn damage_met_at_run_time_is_never_served() {
    run(async {
        // A frame of an open segment, one of a sealed segment, and a batch.
        for (applied, base, index) in [(0, 0, 3), (50, 15, 17)] {
            let disk = fill(applied).await;
            let node = open(&disk).await;
            flip(&disk, &segment(base), FIRST + (index - base) as usize * FRAME + 3000);
            let range = LogIndex(index)..LogIndex(index + 1);
            let read = node.store.entries(range, 1 << 20).await;
            assert_eq!(read, Err(ReadError::Poisoned(Poisoned)));
            assert_eq!(node.seen.exit_code(), Some(ExitCode::Damaged));
            let message = node.seen.exit_message();
            assert!(message.contains(segment(base).to_str().expect("text")), "{message}");
            // Once and for all.
            assert_eq!(node.store.close().await, Err(Poisoned));
            let vote = SavedVote { term: Term(9), voted_for: NodeId(1), committed: false };
            assert_eq!(node.store.save_vote(vote).await, Err(Poisoned));
            assert!(node.append(vec![entry(1, 50, 10)]).await.await.expect("called").is_err());
        }
        let disk = fill(50).await;
        let node = open(&disk).await;
        flip(&disk, &segment(15), FIRST + 2 * FRAME + 64 + 5000);
        let offsets = Offset(10)..Offset(14);
        let read = node.store.read_stream(StreamId(2), offsets, 1 << 20).await;
        assert_eq!(read, Err(Poisoned));
        assert_eq!(node.seen.exit_code(), Some(ExitCode::Damaged));
    });
}

#[test]
fn a_footer_that_rots_at_run_time_closes_the_store() {
    run(async {
        let disk = fill(50).await;
        let node = open(&disk).await;
        let frames_end = FIRST + PER as usize * FRAME;
        // Behind header and summary, which were read when the store was opened.
        disk.rot(&segment(0), |bytes| {
            let end = bytes.len() - 512;
            bytes[frames_end + 150..end].iter_mut().for_each(|byte| *byte ^= 1);
        });
        let read = node.store.read_stream(StreamId(0), Offset(0)..Offset(4), 1 << 20).await;
        assert_eq!(read, Err(Poisoned));
        assert_eq!(node.seen.exit_code(), Some(ExitCode::Damaged));
    });
}

#[test]
fn a_segment_that_rotted_is_not_sealed() {
    run(async {
        let disk = fill(0).await;
        let node = open(&disk).await;
        flip(&disk, &segment(15), FIRST + 3000);
        for index in 0..50 {
            let entry = entry(1, index, LEN);
            node.store.applied(LogIndex(index), &outcome(LogIndex(index)), &rows(&entry));
        }
        let progress = node.store.last();
        assert_eq!(node.store.flush_progress(progress).await, Err(Poisoned));
        assert_eq!(node.seen.exit_code(), Some(ExitCode::Damaged));
        assert!(node.seen.exit_message().contains(segment(15).to_str().expect("text")));
    });
}

#[test]
fn an_error_of_the_disk_closes_the_store_and_is_not_retried() {
    run(async {
        let disk = fill(0).await;
        let node = open(&disk).await;
        // The write of the frames, or its flush.
        for _ in 0..3 {
            fulmar_host::task::yield_now().await;
        }
        node.store.close().await.expect("works");
        disk.fail_at(disk.points() + 2);
        let flushed = node.append(vec![entry(1, 50, 10)]).await.await.expect("called");
        assert!(flushed.is_err());
        assert_eq!(node.seen.exit_code(), Some(ExitCode::DiskWrite));
        assert_eq!(node.store.truncate_from(LogIndex(50)).await, Err(Poisoned));

        let disk = fill(0).await;
        let node = open(&disk).await;
        disk.fail_reads(u32::MAX);
        let read = node.store.entries(LogIndex(0)..LogIndex(1), 1).await;
        assert_eq!(read, Err(ReadError::Poisoned(Poisoned)));
        assert_eq!(node.seen.exit_code(), Some(ExitCode::DiskRead));
    });
}

#[test]
fn a_read_that_fails_while_a_node_runs_is_not_called_damage() {
    run(async {
        for failed in 2..5 {
            let disk = fill(0).await;
            let node = open(&disk).await;
            disk.fail_reads(failed);
            let read = node.store.entries(LogIndex(0)..LogIndex(1), 1).await;
            assert_eq!(read, Err(ReadError::Poisoned(Poisoned)));
            assert_eq!(node.seen.exit_code(), Some(ExitCode::DiskRead));

            let disk = fill(0).await;
            let node = open(&disk).await;
            for index in 0..50 {
                let entry = entry(1, index, LEN);
                node.store.applied(LogIndex(index), &outcome(LogIndex(index)), &rows(&entry));
            }
            // Before a segment is sealed it is read.
            disk.fail_reads(failed);
            let progress = node.store.last();
            assert_eq!(node.store.flush_progress(progress).await, Err(Poisoned));
            assert_eq!(node.seen.exit_code(), Some(ExitCode::DiskRead));
        }
    });
}

#[test]
fn files_that_nobody_knows_are_left_alone() {
    let disk = filled(50);
    disk.put(&path("log/notes.txt"), b"mine");
    disk.put(&path("log/12.seg"), b"mine too");
    let node = run(open(&disk));
    drop(node);
    assert_eq!(disk.bytes(&path("log/notes.txt")).as_deref(), Some(&b"mine"[..]));
    assert_eq!(disk.bytes(&path("log/12.seg")).as_deref(), Some(&b"mine too"[..]));
}

#[test]
fn a_sealed_segment_that_a_peer_refuses_is_verified_and_rot_in_it_ends_the_node() {
    let disk = filled(50);
    run(async {
        let node = open(&disk).await;
        let sealed = node.store.sealed();
        for info in &sealed {
            assert_eq!(node.store.verify_sealed(info.base).await, Ok(()));
        }
        assert_eq!(node.store.verify_sealed(LogIndex(500)).await, Ok(()), "it is not there");
        let rotten = segment(sealed[1].base.0);
        flip(&disk, &rotten, FIRST + 3 * FRAME + 3000);
        assert_eq!(node.store.verify_sealed(sealed[0].base).await, Ok(()));
        assert_eq!(node.seen.exit_code(), None);
        assert_eq!(node.store.verify_sealed(sealed[1].base).await, Err(Poisoned));
        assert_eq!(node.seen.exit_code(), Some(ExitCode::Damaged));
        assert!(node.seen.exit_message().contains(rotten.to_str().expect("text")));
    });
}
