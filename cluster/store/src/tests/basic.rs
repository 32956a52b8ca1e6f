//! What callers see when nothing goes wrong.

use super::disk::TestDisk;
use super::fixture::*;
use crate::writer::GROUP_BYTES_MAX;
use crate::{Identity, LogEntry, ReadError, SavedVote, Store, StoreSettings, StreamId};
use fulmar_types::{Event, LogIndex, LogPosition, NodeId, Offset, Term};

#[test]
fn entries_are_readable_before_they_are_flushed_and_after_a_restart() {
    run(async {
        let disk = TestDisk::default();
        let node = fresh(&disk).await;
        assert_eq!(node.recovered.identity, None);
        let flushed = node.append(vec![entry(1, 0, 100), entry(1, 1, 0)]).await;
        assert_eq!(node.store.flushed(), None);
        let read = node.store.entries(LogIndex(0)..LogIndex(9), 1 << 20).await.expect("readable");
        assert_eq!(read, [entry(1, 0, 100), entry(1, 1, 0)]);
        flushed.await.expect("called").expect("flushed");
        assert_eq!(node.store.flushed().map(|p| p.index), Some(LogIndex(1)));
        let missing = node.store.entries(LogIndex(2)..LogIndex(3), 1).await;
        assert_eq!(missing, Err(ReadError::Missing(LogIndex(2))));
        drop(node);
        let node = open(&disk).await;
        assert_eq!(node.recovered.identity, Some(identity()));
        assert_eq!(node.recovered.last.map(|p| p.index), Some(LogIndex(1)));
        assert_eq!(node.all().await, [entry(1, 0, 100), entry(1, 1, 0)]);
    });
}

#[test]
fn the_log_itself_says_how_far_it_is_committed() {
    run(async {
        let disk = TestDisk::default();
        let node = fresh(&disk).await;
        let claiming = |term, index, claim| LogEntry { claim, ..entry(term, index, 10) };
        // A new leader may have applied less than the one before it, and none what it proposes.
        let entries = vec![claiming(1, 0, 0), claiming(1, 1, 1), claiming(1, 2, 2)];
        node.append(entries).await.await.expect("called").expect("flushed");
        assert_eq!(node.store.committed_below(), LogIndex(0), "nobody has applied anything here");
        drop(node);
        let node = open(&disk).await;
        assert_eq!(node.store.committed_below(), LogIndex(2));
        let entries = vec![claiming(2, 3, 0), claiming(2, 4, 99)];
        node.append(entries).await.await.expect("called").expect("flushed");
        drop(node);
        assert_eq!(open(&disk).await.store.committed_below(), LogIndex(4));
    });
}

#[test]
fn what_arrives_during_a_flush_shares_the_next_one() {
    run(async {
        let disk = TestDisk::default();
        let node = fresh(&disk).await;
        let before = node.seen.count(|event| matches!(event, Event::Flushed { .. }));
        let mut waiting = Vec::new();
        for index in 0..50 {
            waiting.push(node.append(vec![entry(1, index, 200)]).await);
            if index == 0 {
                // Let the first flush begin.
                fulmar_host::task::yield_now().await;
            }
        }
        for flushed in waiting {
            flushed.await.expect("called").expect("flushed");
        }
        let flushes = node.seen.count(|event| matches!(event, Event::Flushed { .. })) - before;
        assert_eq!(flushes, 2, "one for the first entry, one for all that came meanwhile");
    });
}

#[test]
fn old_entries_are_read_from_the_files() {
    run(async {
        let disk = TestDisk::default();
        let node = fresh(&disk).await;
        // Three and a half segments; the cache holds a few entries only.
        node.fill(1, 0..50, 8000).await;
        let all = node.all().await;
        assert_eq!(all.len(), 50);
        assert!(all.iter().enumerate().all(|(at, e)| *e == entry(1, at as u64, 8000)));
        let some = node.store.entries(LogIndex(3)..LogIndex(40), 20_000).await.expect("reads");
        assert_eq!(some.len(), 3, "stops once it has as many bytes as wanted");
        node.apply(50, true).await;
        node.store.close().await.expect("works");
        assert!(node.store.sealed().len() >= 3);
        assert_eq!(node.all().await, all, "sealed segments read the same");
        drop(node);
        let node = open(&disk).await;
        assert_eq!(node.all().await, all);
    });
}

#[test]
fn streams_read_their_batches_from_memory_files_and_sealed_segments() {
    run(async {
        let disk = TestDisk::default();
        let node = fresh(&disk).await;
        node.fill(1, 0..50, 8000).await;
        node.apply(50, false).await;
        let check = async |node: &Node| {
            for stream in 0..3u64 {
                let read = node.read_all(StreamId(stream as u32)).await;
                let expected: Vec<_> = (0..50).filter(|index| index % 3 == stream).collect();
                assert_eq!(read.len(), expected.len() * 2);
                for (at, batch) in read.iter().enumerate() {
                    let entry = entry(1, expected[at / 2], 8000);
                    assert_eq!(batch.base_offset, Offset(at as u64));
                    assert_eq!(
                        batch.bytes,
                        entry.payload.slice(at % 2 * 4000..at % 2 * 4000 + 4000)
                    );
                }
            }
            let row = node.store.row_by_timestamp(StreamId(1), 95).await.expect("asks");
            assert_eq!(row.map(|row| row.index), Some(LogIndex(10)));
        };
        check(&node).await;
        node.store.close().await.expect("works");
        drop(node);
        let node = open(&disk).await;
        // Without a snapshot the state begins anew, and everything is applied again.
        node.apply(50, true).await;
        check(&node).await;
    });
}

#[test]
fn votes_are_saved_and_found_again() {
    run(async {
        let disk = TestDisk::default();
        let node = fresh(&disk).await;
        for term in 1..4 {
            let vote = SavedVote { term: Term(term), voted_for: NodeId(2), committed: term == 3 };
            node.store.save_vote(vote).await.expect("saved");
            assert_eq!(node.store.vote(), Some(vote));
        }
        drop(node);
        let vote = SavedVote { term: Term(3), voted_for: NodeId(2), committed: true };
        assert_eq!(open(&disk).await.recovered.vote, Some(vote));
    });
}

#[test]
fn truncation_goes_back_across_segments_and_what_follows_is_new() {
    run(async {
        let disk = TestDisk::default();
        let node = fresh(&disk).await;
        node.fill(1, 0..50, 8000).await;
        node.store.truncate_from(LogIndex(10)).await.expect("cut");
        assert_eq!(node.store.last().map(|p| p.index), Some(LogIndex(9)));
        assert_eq!(node.store.flushed(), node.store.last());
        node.fill(2, 10..60, 7000).await;
        let check = async |node: &Node| {
            let all = node.all().await;
            assert_eq!(all.len(), 60);
            for (at, found) in all.iter().enumerate() {
                let at = at as u64;
                let due = if at < 10 { entry(1, at, 8000) } else { entry(2, at, 7000) };
                assert_eq!(*found, due);
            }
        };
        check(&node).await;
        drop(node);
        check(&open(&disk).await).await;
    });
}

#[test]
fn purging_moves_the_floor_and_garbage_goes_when_nothing_is_left_in_it() {
    run(async {
        let disk = TestDisk::default();
        let node = fresh(&disk).await;
        node.fill(1, 0..50, 8000).await;
        node.apply(50, true).await;
        let floor = LogPosition { term: Term(1), index: LogIndex(30) };
        node.store.purge_to(floor).await.expect("moved");
        assert_eq!(node.store.floor(), Some(floor));
        let purged = node.store.entries(LogIndex(30)..LogIndex(31), 1).await;
        assert_eq!(purged, Err(ReadError::Purged { floor }));
        assert_eq!(node.store.collect_garbage().await, Ok(0), "every batch is live");
        let before = node.store.sealed().len();
        for stream in 0..3 {
            node.store.advance_start(StreamId(stream), Offset(18));
        }
        let removed = node.store.collect_garbage().await.expect("works");
        assert_eq!(removed, 1, "the second segment holds live batches");
        assert_eq!(node.store.sealed().len(), before - removed);
        node.store.close().await.expect("works");
        drop(node);
        let node = open(&disk).await;
        assert_eq!(node.store.sealed().len(), before - removed);
        assert_eq!(node.recovered.first_index, LogIndex(31));
        assert_eq!(node.all().await.len(), 19);
    });
}

#[test]
fn sealed_segments_are_byte_identical_on_nodes_that_flushed_differently() {
    run(async {
        let (one, two) = (TestDisk::default(), TestDisk::default());
        let (a, b) = (fresh(&one).await, fresh(&two).await);
        a.fill(1, 0..40, 8000).await;
        // The other one took other entries first, in one group, and gave them up.
        b.write((0..35).map(|index| entry(1, index, 8000)).collect()).await;
        b.write((35..38).map(|index| entry(1, index, 100)).collect()).await;
        b.store.truncate_from(LogIndex(35)).await.expect("cut");
        b.write((35..40).map(|index| entry(1, index, 8000)).collect()).await;
        a.apply(40, true).await;
        b.apply(40, true).await;
        let sealed = a.store.sealed();
        assert!(sealed.len() >= 2);
        assert_eq!(sealed, b.store.sealed());
        for info in sealed {
            let path = segment(info.base.0);
            assert!(one.bytes(&path) == two.bytes(&path), "{}", path.display());
            assert_eq!(one.bytes(&path).map(|b| b.len() as u64), Some(info.file_bytes));
        }
    });
}

#[test]
fn a_directory_is_locked_and_belongs_to_one_node() {
    run(async {
        let disk = TestDisk::default();
        let node = fresh(&disk).await;
        let (again, _) = try_open(&disk).await;
        assert_eq!(again.err().map(|e| e.exit_code()), Some(fulmar_types::ExitCode::Locked));
        drop(node);
        let (host, _) = host(&disk);
        let mut other = settings();
        other.node = NodeId(2);
        let error = crate::Store::open(host.clone(), other).await.err().expect("another node");
        assert_eq!(error.exit_code(), fulmar_types::ExitCode::Identity);
        let mut other = settings();
        other.segment_bytes *= 2;
        let error = crate::Store::open(host, other).await.err().expect("another size");
        assert!(error.to_string().contains("log.segment_bytes"), "{error}");
    });
}

#[test]
fn a_large_append_goes_in_bounded_groups() {
    run(async {
        let disk = TestDisk::default();
        let (host, seen) = host(&disk);
        let large = StoreSettings { segment_bytes: 16 << 20, ..settings() };
        let (store, recovered) = Store::open(host.clone(), large.clone()).await.expect("opens");
        let node = Node { store, recovered, seen };
        let identity = Identity { segment_bytes: 16 << 20, ..identity() };
        node.store.save_life(&life()).await.expect("saves");
        node.store.initialise(identity).await.expect("initialises");
        let entries: Vec<_> = (0..300).map(|index| entry(1, index, 100_000)).collect();
        node.write(entries.clone()).await;
        let bound = GROUP_BYTES_MAX + 512;
        let events = node.seen.events.lock().unwrap().clone();
        let sizes = events.iter().filter_map(|event| match event {
            Event::Flushed { bytes, .. } => Some(*bytes),
            _ => None,
        });
        let sizes: Vec<u64> = sizes.collect();
        assert!(sizes.len() >= 6 && sizes.iter().all(|bytes| *bytes <= bound), "{sizes:?}");
        assert!(node.all().await == entries);
        drop(node);
        let (store, recovered) = Store::open(host, large).await.expect("opens");
        let node = Node { store, recovered, seen: std::sync::Arc::default() };
        assert!(node.all().await == entries);
    });
}
