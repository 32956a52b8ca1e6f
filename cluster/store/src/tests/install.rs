//! Taking over a snapshot and segments of a peer: what arrives is verified, what agrees is kept,
//! and a crash at any point leaves the old state or the new one.

use super::disk::TestDisk;
use super::fixture::*;
use super::full::{settled, wait_until};
use crate::format::header::FRAMES_AT;
use crate::{IncomingError, LogEntry, Poisoned, ReadError, SealedInfo, Snapshot, StreamId};
use fulmar_types::{Event, ExitCode, LogIndex, Offset, Probe};
use std::collections::BTreeSet;
use std::path::Path;

const LEN: usize = 8000;

/// A peer with 50 entries in four segments, the last snapshot at 44.
async fn peer(disk: &TestDisk) -> Node {
    let node = fresh(disk).await;
    node.fill(1, 0..10, LEN).await;
    node.fill(2, 10..50, LEN).await;
    node.apply(50, true).await;
    node.store.close().await.expect("works");
    node
}

/// The log of the peer.
fn due() -> Vec<LogEntry> {
    (0..50).map(|index| entry(if index < 10 { 1 } else { 2 }, index, LEN)).collect()
}

/// Takes the segments that are not here already. Returns how many came.
async fn ship(from: &Node, to: &Node) -> Result<usize, IncomingError> {
    let mut came = 0;
    for info in from.store.sealed() {
        if to.store.sealed().contains(&info) {
            continue;
        }
        take(from, to, info, 50_000).await?;
        came += 1;
    }
    Ok(came)
}

/// Takes a segment, in chunks of so many bytes.
async fn take(from: &Node, to: &Node, info: SealedInfo, len: usize) -> Result<(), IncomingError> {
    let mut at = to.store.begin_incoming(info).await?;
    while at < info.file_bytes {
        let read = from.store.read_sealed_chunk(info.base, at, len).await;
        let bytes = read.expect("works").expect("there");
        to.store.write_incoming(info.base, at, bytes.clone()).await?;
        at += bytes.len() as u64;
    }
    to.store.finish_incoming(info.base).await
}

async fn newest(node: &Node) -> (Snapshot, Vec<SealedInfo>) {
    (node.store.latest_snapshot().await.expect("there is one"), node.store.sealed())
}

/// Takes everything over, goes on with the log of the peer, and compares.
async fn catch_up(from: &Node, to: &Node) {
    ship(from, to).await.expect("arrives");
    let (snapshot, segments) = newest(from).await;
    to.store.install(snapshot, segments).await.expect("installs");
    go_on(from, to).await;
}

async fn go_on(from: &Node, to: &Node) {
    let next = to.store.last().map_or(0, |last| last.index.0 + 1);
    to.write(due().split_off(next as usize)).await;
    to.apply(50, true).await;
    to.store.close().await.expect("works");
    assert_eq!(to.store.sealed(), from.store.sealed());
    let (mine, theirs) = (to.all().await, from.all().await);
    assert_eq!(mine.last(), theirs.last());
    from.apply(50, false).await;
    for stream in 0..3 {
        let mine = to.read_all(StreamId(stream)).await;
        assert!(mine == from.read_all(StreamId(stream)).await && mine.len() >= 20);
    }
}

#[test]
fn an_empty_node_takes_everything() {
    run(async {
        let (theirs, mine) = (TestDisk::default(), TestDisk::default());
        let (from, to) = (peer(&theirs).await, fresh(&mine).await);
        catch_up(&from, &to).await;
        assert!(to.seen.probes().contains(&Probe::SegmentsInstalled));
        let installed =
            |event: &Event| matches!(event, Event::SnapshotInstalled { segments: 3, .. });
        assert_eq!(to.seen.count(installed), 1);
        assert_eq!(to.store.floor().map(|p| p.index), Some(LogIndex(44)));
        for info in from.store.sealed() {
            let path = segment(info.base.0);
            assert!(theirs.bytes(&path) == mine.bytes(&path), "byte by byte");
        }
        drop(to);
        let to = open(&mine).await;
        assert_eq!(to.recovered.last.map(|p| p.index), Some(LogIndex(49)));
        assert_eq!(to.recovered.snapshot.map(|s| s.last.index), Some(LogIndex(44)));
    });
}

#[test]
fn entries_that_contradict_the_snapshot_go_and_those_that_agree_stay() {
    run(async {
        let theirs = TestDisk::default();
        let from = peer(&theirs).await;
        // Never heard of term 2.
        let mine = TestDisk::default();
        let to = fresh(&mine).await;
        to.fill(1, 0..60, LEN).await;
        catch_up(&from, &to).await;

        // Has all of it and some more, and was asked to take the snapshot all the same: what lies
        // behind may have been acknowledged.
        let mine = TestDisk::default();
        let to = fresh(&mine).await;
        to.write(due()).await;
        let ahead = to.store.last();
        to.apply(20, true).await;
        ship(&from, &to).await.expect("arrives");
        let (snapshot, segments) = newest(&from).await;
        to.store.install(snapshot, segments).await.expect("installs");
        assert_eq!(to.store.last(), ahead, "nothing behind the snapshot is lost");
        assert_eq!(to.store.flushed(), ahead);
        assert_eq!(to.all().await, due()[45..]);
        drop(to);
        let to = open(&mine).await;
        assert_eq!(to.recovered.last, ahead);
        go_on(&from, &to).await;
    });
}

#[test]
fn segments_that_are_here_already_do_not_travel_again() {
    run(async {
        let (theirs, mine) = (TestDisk::default(), TestDisk::default());
        let (from, to) = (peer(&theirs).await, fresh(&mine).await);
        to.write(due()[..35].to_vec()).await;
        to.apply(35, true).await;
        to.store.close().await.expect("works");
        assert_eq!(to.store.sealed().len(), 2);
        assert_eq!(ship(&from, &to).await, Ok(1));
        let (snapshot, segments) = newest(&from).await;
        to.store.install(snapshot, segments).await.expect("installs");
        go_on(&from, &to).await;
    });
}

#[test]
fn a_peer_that_removed_segments_leaves_a_gap() {
    run(async {
        let (theirs, mine) = (TestDisk::default(), TestDisk::default());
        let (from, to) = (peer(&theirs).await, fresh(&mine).await);
        let floor = from.store.entries(LogIndex(20)..LogIndex(21), 1).await.expect("reads");
        from.store.purge_to(floor[0].position).await.expect("moved");
        (0..3).for_each(|stream| from.store.advance_start(StreamId(stream), Offset(10)));
        assert_eq!(from.store.collect_garbage().await, Ok(1));
        catch_up(&from, &to).await;
        drop(to);
        let to = open(&mine).await;
        assert_eq!(to.store.sealed().len(), 2);
    });
}

#[test]
fn what_is_damaged_or_does_not_belong_together_is_refused() {
    run(async {
        let (theirs, mine) = (TestDisk::default(), TestDisk::default());
        let (from, to) = (peer(&theirs).await, fresh(&mine).await);
        let (snapshot, segments) = newest(&from).await;
        let incomplete = |result| matches!(result, Err(IncomingError::Incomplete(_)));
        assert!(incomplete(to.store.install(snapshot.clone(), segments.clone()).await));
        let info = segments[1];
        let bytes = theirs.bytes(&segment(info.base.0)).expect("there");
        let late = to.store.finish_incoming(info.base).await;
        assert_eq!(late, Err(IncomingError::NotBegun(info.base)));
        for at in [30, 700, FRAMES_AT as usize + 3000, bytes.len() - 900, bytes.len() - 500] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 4;
            assert_eq!(to.store.begin_incoming(info).await, Ok(0));
            to.store.write_incoming(info.base, 0, bytes.into()).await.expect("takes it");
            let finished = to.store.finish_incoming(info.base).await;
            assert!(matches!(finished, Err(IncomingError::Refused { .. })), "byte {at}");
            let left = Path::new(ROOT).join(format!("incoming/{:020}.seg", info.base.0));
            assert_eq!(mine.bytes(&left), None, "nobody may offer it again");
        }
        assert_eq!(to.store.begin_incoming(info).await, Ok(0));
        let chunk = bytes::Bytes::from(bytes[..1000].to_vec());
        let skipped = to.store.write_incoming(info.base, 5, chunk.clone()).await;
        assert!(matches!(skipped, Err(IncomingError::OutOfOrder { expected: 0, .. })));
        to.store.write_incoming(info.base, 0, chunk).await.expect("takes it");
        let early = to.store.finish_incoming(info.base).await;
        assert!(matches!(early, Err(IncomingError::OutOfOrder { expected: 1000, .. })));
        // Another peer offers the same segment: it goes on where the first one stopped.
        assert_eq!(to.store.begin_incoming(info).await, Ok(1000));

        ship(&from, &to).await.expect("arrives");
        let without_last = segments[..2].to_vec();
        assert!(incomplete(to.store.install(snapshot.clone(), without_last).await));
        assert!(to.seen.exit_code().is_none(), "a bad peer does not end this node");
        to.store.install(snapshot, segments).await.expect("installs");
    });
}

#[test]
fn two_transfers_of_one_segment_leave_what_was_verified() {
    let theirs = TestDisk::default();
    run(async { drop(peer(&theirs).await) });
    for (later, turns) in (0..12).flat_map(|later| [(later, None), (later, Some(later + 3))]) {
        for (chunk, every) in [(50_000, 1), (200_000, 1), (50_000, 20), (200_000, 20)] {
            let mine = TestDisk::default();
            run(async {
                let (from, to) = (open(&theirs.copy()).await, fresh(&mine).await);
                let (snapshot, segments) = newest(&from).await;
                let info = segments[1];
                mine.be_slow();
                // The first is of a leader that has given up; its task is still at it, or is
                // stopped in the middle.
                let first = take(&from, &to, info, chunk);
                let second = take(&from, &to, info, chunk);
                let second = by_turns((first, turns), (second, later, every)).await;
                let crossed = matches!(second, Err(IncomingError::OutOfOrder { .. }));
                assert!(second.is_ok() || crossed, "later {later}, {turns:?}: {second:?}");
                ship(&from, &to).await.expect("arrives");
                to.store.install(snapshot, segments).await.expect("installs");
                drop(to);
                mine.cut_now(later as u64);
                mine.restore_power();
                go_on(&from, &open(&mine).await).await;
            });
        }
    }
}

#[test]
fn a_staged_segment_that_is_another_one_by_now_is_fetched_again() {
    run(async {
        let (theirs, mine) = (TestDisk::default(), TestDisk::default());
        let (from, to) = (peer(&theirs).await, fresh(&mine).await);
        let (snapshot, segments) = newest(&from).await;
        let path = Path::new(ROOT).join(format!("incoming/{:020}.seg", segments[1].base.0));
        for lost in [false, true] {
            ship(&from, &to).await.expect("arrives");
            if lost {
                mine.lose(&path);
            } else {
                mine.rot(&path, |bytes| bytes.truncate(10_000));
            }
            let refused = to.store.prepare_install(snapshot.last, &segments).await;
            assert!(matches!(refused, Err(IncomingError::Refused { .. })), "{refused:?}");
            assert_eq!(to.seen.exit_code(), None, "it is a copy, and nothing counts on it");
            assert!(!to.store.has_segment(&segments[1]) && to.store.has_segment(&segments[0]));
        }
        assert_eq!(to.store.begin_incoming(segments[1]).await, Ok(0));
        catch_up(&from, &to).await;
    });
}

#[test]
fn a_staged_segment_that_rots_while_an_installation_counts_on_it_ends_the_node() {
    for again in [false, true] {
        run(async {
            let (theirs, mine) = (TestDisk::default(), TestDisk::default());
            let (from, to) = (peer(&theirs).await, fresh(&mine).await);
            let (snapshot, segments) = newest(&from).await;
            ship(&from, &to).await.expect("arrives");
            let prepared = to.store.prepare_install(snapshot.last, &segments).await;
            let path = Path::new(ROOT).join(format!("incoming/{:020}.seg", segments[1].base.0));
            mine.rot(&path, |bytes| bytes.truncate(10_000));
            let ended = if again {
                to.store.prepare_install(snapshot.last, &segments).await.map(drop)
            } else {
                to.store.install(snapshot, segments).await
            };
            assert_eq!(ended, Err(Poisoned.into()));
            assert_eq!(to.seen.exit_code(), Some(ExitCode::Damaged));
            drop(prepared);
        });
    }
}

#[test]
fn a_read_during_an_installation_does_not_take_it_for_damage() {
    for later in 0..60 {
        run(async {
            let (theirs, mine) = (TestDisk::default(), TestDisk::default());
            let (from, to) = (peer(&theirs).await, fresh(&mine).await);
            to.write(due()[..35].to_vec()).await;
            to.apply(35, true).await;
            to.store.close().await.expect("works");
            // The first segment is here, and goes.
            let floor = from.store.entries(LogIndex(20)..LogIndex(21), 1).await.expect("reads");
            from.store.purge_to(floor[0].position).await.expect("moved");
            (0..3).for_each(|stream| from.store.advance_start(StreamId(stream), Offset(10)));
            assert_eq!(from.store.collect_garbage().await, Ok(1));
            ship(&from, &to).await.expect("arrives");
            let (snapshot, segments) = newest(&from).await;
            let install = to.store.install(snapshot, segments);
            let read = async {
                loop {
                    match to.store.entries(LogIndex(0)..LogIndex(3), usize::MAX).await {
                        Ok(read) => assert!(read == due()[..3], "what was there"),
                        Err(error) => return error,
                    }
                    // The handle is opened anew each time that it was forgotten.
                    fulmar_host::task::yield_now().await;
                }
            };
            let ended = by_turns((install, None), (read, later, 1)).await;
            assert!(!matches!(ended, ReadError::Poisoned(_)), "{}", to.seen.exit_message());
            assert_eq!(to.seen.exit_code(), None);
            go_on(&from, &to).await;
        });
    }
}

/// The files that are staged.
fn staged(disk: &TestDisk) -> usize {
    let incoming = Path::new(ROOT).join("incoming");
    disk.names().iter().filter(|name| name.parent() == Some(&incoming)).count()
}

#[test]
fn what_is_not_offered_any_more_or_was_not_needed_leaves_no_file() {
    run(async {
        let (theirs, mine) = (TestDisk::default(), TestDisk::default());
        let (from, to) = (peer(&theirs).await, fresh(&mine).await);
        let (snapshot, segments) = newest(&from).await;
        for info in &segments {
            assert_eq!(to.store.begin_incoming(*info).await, Ok(0));
        }
        assert_eq!(staged(&mine), 0, "an offer alone opens no file");
        ship(&from, &to).await.expect("arrives");
        assert_eq!(staged(&mine), segments.len());
        let all_but_first = segments[1..].iter().map(|info| info.base).collect();
        to.store.keep_incoming(&all_but_first).await.expect("works");
        assert_eq!(staged(&mine), segments.len() - 1);
        assert!(!to.store.has_segment(&segments[0]) && to.store.has_segment(&segments[1]));
        let refused = to.store.prepare_install(snapshot.last, &segments).await;
        assert!(matches!(refused, Err(IncomingError::Incomplete(_))), "and the node lives");
        assert_eq!(to.seen.exit_code(), None);

        ship(&from, &to).await.expect("arrives");
        let mut stranger = segments[0];
        stranger.base = LogIndex(500);
        assert_eq!(to.store.begin_incoming(stranger).await, Ok(0));
        to.store.write_incoming(stranger.base, 0, vec![0; 512].into()).await.expect("takes it");
        to.store.install(snapshot, segments).await.expect("installs");
        assert_eq!(staged(&mine), 0);
    });
}

#[test]
fn a_prepared_installation_finds_everything_however_long_it_waits() {
    run(async {
        let (theirs, mine) = (TestDisk::default(), TestDisk::default());
        let (from, to) = (peer(&theirs).await, fresh(&mine).await);
        // Half of it is here already, and is garbage by now.
        to.write(due()[..35].to_vec()).await;
        to.apply(35, true).await;
        to.store.close().await.expect("works");
        ship(&from, &to).await.expect("arrives");
        let (snapshot, segments) = newest(&from).await;
        let prepared = to.store.prepare_install(snapshot.last, &segments).await.expect("all here");
        let floor = to.store.entries(LogIndex(14)..LogIndex(15), 1).await.expect("reads");
        to.store.purge_to(floor[0].position).await.expect("moved");
        (0..3).for_each(|stream| to.store.advance_start(StreamId(stream), Offset(10)));
        assert_eq!(to.store.collect_garbage().await, Ok(0), "it is counted on");
        to.store.keep_incoming(&BTreeSet::new()).await.expect("works");
        let mut other = *segments.last().expect("there are some");
        other.hash ^= 1;
        let begun = to.store.begin_incoming(other).await;
        assert!(matches!(begun, Err(IncomingError::Refused { .. })), "{begun:?}");
        to.store.install(snapshot, segments).await.expect("installs");
        drop(prepared);
        go_on(&from, &to).await;
    });
}

#[test]
fn the_segment_that_ends_at_the_only_snapshot_is_never_garbage() {
    run(async {
        let (theirs, mine) = (TestDisk::default(), TestDisk::default());
        let (from, to) = (peer(&theirs).await, fresh(&mine).await);
        catch_up(&from, &to).await;
        (0..3).for_each(|stream| to.store.drop_stream(StreamId(stream)));
        assert_eq!(to.store.collect_garbage().await, Ok(2), "all but one");
        let ends: Vec<_> = to.store.sealed().iter().map(|info| info.last.index).collect();
        assert_eq!(ends.last(), Some(&LogIndex(44)), "another node needs it with the snapshot");
        let disk = TestDisk::default();
        let third = fresh(&disk).await;
        let (snapshot, segments) = newest(&to).await;
        ship(&to, &third).await.expect("arrives");
        third.store.install(snapshot, segments).await.expect("installs");
    });
}

/// A spare that was a segment is shorter than a segment by up to a frame. The only full one may be the
/// file of the active segment, which a segment of the peer takes the place of.
#[test]
fn on_a_full_disk_the_ballast_fills_a_short_spare_up() {
    // Five fit into a segment, which is left with a fifth of one.
    const LEN: usize = 22_000;
    run(async {
        let (theirs, mine) = (TestDisk::default(), TestDisk::default());
        let (from, to) = (fresh(&theirs).await, settled(&mine).await);
        from.fill(1, 0..27, LEN).await;
        from.apply(27, true).await;
        from.store.purge_to(entry(1, 14, LEN).position).await.expect("moved");
        (0..3).for_each(|stream| from.store.drop_stream(StreamId(stream)));
        assert_eq!(from.store.collect_garbage().await, Ok(3));
        assert_eq!(ship(&from, &to).await, Ok(2));
        to.fill(1, 0..12, LEN).await;
        wait_until(|| to.store.room().spares == 1).await;
        mine.leave(Some(0));
        to.fill(1, 12..18, LEN).await;
        to.apply(18, true).await;
        assert_eq!(to.store.room().spares, 0);
        mine.leave(Some(0));
        let (snapshot, segments) = newest(&from).await;
        assert!(segments.iter().any(|info| info.base == LogIndex(15)), "it goes");
        let has_space = to.store.has_space_to_install(&snapshot, segments.len()).await;
        assert!(has_space.expect("a disk that works"), "with the ballast");
        to.store.install(snapshot, segments).await.expect("installs");
        assert_eq!(to.seen.exit_code(), None);
        mine.leave(None);
        to.fill(1, 25..27, LEN).await;
        drop(to);
        let mine = open(&mine).await.all().await;
        assert!(mine.len() == 2 && from.all().await.ends_with(&mine));
    });
}

/// The three kinds of nodes that take a snapshot.
async fn taker(disk: &TestDisk, kind: u64) -> Node {
    let node = fresh(disk).await;
    match kind {
        0 => {}
        1 => node.fill(1, 0..60, LEN).await,
        _ => {
            node.write(due()).await;
            node.apply(20, true).await;
        }
    }
    node.store.close().await.expect("works");
    node
}

#[test]
fn the_power_goes_at_every_point_of_an_installation() {
    let theirs = TestDisk::default();
    // Pristine bytes; each run opens a copy, because a peer's files do not change here.
    run(async { drop(peer(&theirs).await) });
    let (mut old, mut new) = (0, 0);
    for kind in 0..3 {
        for (point, seed) in (1..200).flat_map(|point| (0..3).map(move |seed| (point, seed))) {
            let mine = TestDisk::default();
            let reached_end = run(async {
                let from = open(&theirs.copy()).await;
                let to = taker(&mine, kind).await;
                let before = to.all().await;
                ship(&from, &to).await.expect("arrives");
                let (snapshot, segments) = newest(&from).await;
                mine.cut_at(mine.points() + point, point * 10 + seed);
                let installed = to.store.install(snapshot.clone(), segments).await;
                drop(to);
                let was_confirmed = installed.is_ok();
                if was_confirmed {
                    mine.cut_now(seed);
                }
                mine.restore_power();
                if seed == 1 {
                    // The power goes again during the restart.
                    mine.cut_at(mine.points() + 1 + point % 25, seed);
                    drop(try_open(&mine).await);
                    mine.cut_now(seed);
                    mine.restore_power();
                }
                let to = open(&mine).await;
                let has_new = to.recovered.snapshot.as_ref() == Some(&snapshot);
                assert!(has_new || !was_confirmed, "point {point}: it was confirmed");
                if has_new {
                    new += 1;
                    assert_eq!(to.store.sealed(), from.store.sealed());
                } else {
                    old += 1;
                    assert!(to.all().await == before, "the old state is whole");
                    ship(&from, &to).await.expect("arrives");
                    let (snapshot, segments) = newest(&from).await;
                    to.store.install(snapshot, segments).await.expect("installs");
                }
                if kind == 2 {
                    assert_eq!(to.store.last().map(|p| p.index), Some(LogIndex(49)));
                }
                go_on(&from, &to).await;
                was_confirmed
            });
            if reached_end {
                break;
            }
        }
    }
    assert!(old > 30 && new > 30, "{old} old, {new} new");
}
