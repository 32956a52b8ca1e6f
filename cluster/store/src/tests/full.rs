//! What a full disk does: it pushes back, and ends nothing.

use super::disk::TestDisk;
use super::fixture::*;
use crate::paths::Paths;
use crate::space::{Ballast, release, take_ballast};
use crate::{Demand, Life, Section};
use bytes::Bytes;
use fulmar_host::time;
use fulmar_types::limits::ballast_bytes;
use fulmar_types::{Event, LogIndex, LogPosition, Probe, Term};
use std::path::Path;
use std::time::Duration;

const BALLAST: u64 = ballast_bytes(SEGMENT_BYTES);

/// A node that has its spare and its ballast.
pub async fn settled(disk: &TestDisk) -> Node {
    let node = fresh(disk).await;
    wait_until(|| node.store.room().spares == 1 && ballast(disk) == BALLAST).await;
    node
}

pub async fn wait_until(holds: impl Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        time::sleep(Duration::from_millis(10)).await;
    }
    panic!("does not come to hold");
}

fn ballast(disk: &TestDisk) -> u64 {
    disk.len(&Path::new(ROOT).join("ballast")).unwrap_or(0)
}

fn entry_fits(node: &Node, len: usize) -> bool {
    node.store.room().takes_in_order([Demand::of_payload(len).bytes])
}

#[test]
fn room_runs_out_before_the_disk_is_asked_and_comes_back() {
    run(async {
        let disk = TestDisk::default();
        let node = settled(&disk).await;
        disk.leave(Some(0));
        let mut index = 0;
        while entry_fits(&node, 8_000) {
            node.write(vec![entry(1, index, 8_000)]).await;
            index += 1;
        }
        assert!(index >= 25, "a segment and a spare were there: {index}");
        wait_until(|| node.store.room().more == 0).await;
        let low = |event: &Event| matches!(event, Event::SpaceChanged { low: true, .. });
        wait_until(|| node.seen.count(low) == 1).await;
        assert_eq!(node.seen.exit_code(), None);
        assert_eq!(node.all().await.len(), index as usize);
        disk.leave(None);
        wait_until(|| entry_fits(&node, 8_000)).await;
        node.write(vec![entry(1, index, 8_000)]).await;
        let back = |event: &Event| matches!(event, Event::SpaceChanged { low: false, .. });
        wait_until(|| node.seen.count(back) == 1).await;
    });
}

#[test]
fn a_ballast_of_odd_length_is_filled_up_and_keeps_nobody_from_a_spare() {
    let disk = TestDisk::default();
    run(async { drop(settled(&disk).await) });
    // What a power cut leaves of a ballast that is being written.
    disk.rot(&Path::new(ROOT).join("ballast"), |bytes| bytes.truncate(bytes.len() - 773));
    for name in disk.names().iter().filter(|name| name.to_string_lossy().contains("spare")) {
        disk.lose(name);
    }
    run(async {
        let node = open(&disk).await;
        wait_until(|| node.store.room().spares == 1 && ballast(&disk) == BALLAST).await;
    });
}

#[test]
fn the_manifest_of_the_next_segment_costs_ballast() {
    run(async {
        let disk = TestDisk::default();
        let node = settled(&disk).await;
        disk.leave(Some(0));
        node.fill(1, 0..20, 8_000).await;
        // Its length proves nothing: it is taken again as soon as the old manifest is gone.
        let given_up = format!("set_len {ROOT}/ballast");
        assert!(disk.trace().iter().any(|point| point.contains(&given_up)));
        assert_eq!(node.seen.exit_code(), None);
        disk.leave(None);
        wait_until(|| ballast(&disk) == BALLAST).await;
        node.fill(1, 20..60, 8_000).await;
        drop(node);
        assert_eq!(open(&disk).await.all().await.len(), 60);
    });
}

#[test]
fn a_life_costs_ballast_and_what_can_wait_waits_for_space() {
    run(async {
        let disk = TestDisk::default();
        let node = settled(&disk).await;
        disk.leave(Some(0));
        node.store.save_life(&Life { lease_ms: 3_000, ..life() }).await.expect("saves");
        let path = Path::new(ROOT).join("ballast");
        disk.rot(&path, Vec::clear);
        disk.leave(Some(0));
        let longer = Life { lease_ms: 4_000, ..life() };
        assert_eq!(node.store.note_life(&longer).await, Ok(false));
        assert_eq!(node.seen.exit_code(), None);
        let read = node.store.life().await.expect("reads").expect("there");
        assert_eq!(read.lease_ms, 3_000);
        disk.leave(None);
        assert_eq!(node.store.note_life(&longer).await, Ok(true));
        assert_eq!(node.store.life().await, Ok(Some(longer)));
    });
}

#[test]
fn a_snapshot_without_space_is_left_out_and_the_next_one_is_taken() {
    run(async {
        let disk = TestDisk::default();
        let node = settled(&disk).await;
        node.fill(1, 0..40, 8_000).await;
        node.apply(40, false).await;
        let mut ends = (1..40).map(LogIndex).filter(|index| node.store.is_segment_first(*index));
        let mut next = || ends.next().expect("three segments").get() - 1;
        let of = |last: u64, len: usize| {
            let last = LogPosition { term: Term(1), index: LogIndex(last) };
            let bytes = Bytes::from(vec![7; len]);
            let sections = vec![Section { id: 1, version: 1, bytes }];
            crate::Snapshot { sections, ..snapshot(last) }
        };
        wait_until(|| ballast(&disk) == BALLAST).await;
        disk.leave(Some(0));
        let large = of(next(), BALLAST as usize);
        assert!(!node.store.save_snapshot(large).await.expect("alive"));
        assert_eq!(node.seen.probes().iter().filter(|p| **p == Probe::SnapshotLeftOut).count(), 1);
        assert!(ballast(&disk) >= BALLAST / 2, "the rest is for manifests");
        let small = of(next(), 1_000);
        assert!(node.store.save_snapshot(small.clone()).await.expect("alive"));
        assert_eq!(node.store.latest_snapshot().await, Some(small));
        assert_eq!(node.seen.exit_code(), None);
    });
}

#[test]
fn an_installation_is_not_begun_without_space() {
    run(async {
        let disk = TestDisk::default();
        let node = settled(&disk).await;
        let small = snapshot(LogPosition { term: Term(1), index: LogIndex(9) });
        let section = Section { id: 1, version: 1, bytes: vec![7; BALLAST as usize].into() };
        let large = crate::Snapshot { sections: vec![section], ..small.clone() };
        let asked = async |snapshot: &crate::Snapshot| {
            node.store.has_space_to_install(snapshot, 3).await.expect("a disk that works")
        };
        assert!(asked(&large).await);
        disk.leave(Some(0));
        assert!(asked(&small).await, "the ballast is enough for it");
        assert!(!asked(&large).await);
    });
}

/// Where a file was written, and what it was cut to, in order.
fn changes(disk: &TestDisk, path: &Path) -> Vec<(u64, u64)> {
    let (write, cut) =
        (format!(": write {} [(", path.display()), format!(": set_len {} ", path.display()));
    let number = |text: &str| -> u64 {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().expect("a number")
    };
    let change = |line: &String| {
        if let Some((_, len)) = line.split_once(&cut) {
            return Some((number(len), 0));
        }
        let (_, place) = line.split_once(&write)?;
        let (at, len) = place.split_once(", ")?;
        Some((number(at), number(len)))
    };
    disk.trace().iter().filter_map(change).collect()
}

#[test]
fn ballast_that_is_taken_and_given_up_at_once_has_no_hole() {
    for later in 0..10 {
        run(async {
            let disk = TestDisk::default();
            let paths = Paths::new(Path::new(ROOT));
            let kept = Ballast::new(&paths);
            take_ballast(&disk, &kept, BALLAST / 2).await.expect("works");
            disk.be_slow();
            let take = take_ballast(&disk, &kept, BALLAST);
            let given_up = release(&disk, &kept, (8_192, 0));
            assert!(by_turns((take, None), (given_up, later, 1)).await.expect("works"));
            let mut end = 0;
            for (at, len) in changes(&disk, &paths.ballast()) {
                assert!(at == end || len == 0, "later {later}: {at} is behind the end {end}");
                end = at + len;
            }
            assert_eq!(end, ballast(&disk));
        });
    }
}
