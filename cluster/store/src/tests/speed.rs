//! Figures on the disk of this machine, not run by default:
//! `cargo test --release -p fulmar-store --lib -- --ignored --nocapture speed`

use super::fixture::*;
use crate::{LogEntry, Row, Snapshot, Store, StoreSettings, StreamId};
use bytes::Bytes;
use fulmar_host::disk::Disk;
use fulmar_host::{Host, time};
use fulmar_types::{LogIndex, LogPosition, NodeId, Offset, Term};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::oneshot;

const MIB: f64 = 1048576.0;

fn settings(directory: &Path) -> StoreSettings {
    StoreSettings {
        directory: directory.to_owned(),
        node: NodeId(1),
        segment_bytes: 64 << 20,
        spare_segments: 1,
        entry_cache_bytes: 16 << 20,
    }
}

async fn open(directory: &Path) -> (Arc<Store>, Option<Snapshot>) {
    let host = Host::real(Arc::new(Seen::default())).expect("a real host");
    let (store, recovered) = Store::open(host, settings(directory)).await.expect("opens");
    (store, recovered.snapshot)
}

async fn clean(disk: &dyn Disk, directory: &Path) {
    for sub in ["", "log", "snap", "incoming"] {
        let directory = directory.join(sub);
        for file in disk.list(&directory).await.unwrap_or_default() {
            if !file.is_dir {
                disk.remove(&directory.join(file.name)).await.expect("removes");
            }
        }
    }
}

fn row(entry: &LogEntry) -> Row {
    Row {
        stream: StreamId(0),
        base_offset: Offset(entry.position.index.0),
        records: 1,
        max_timestamp_ms: 0,
        index: entry.position.index,
        term: entry.position.term,
        at: 0,
        len: entry.payload.len() as u32,
        crc: crc32c::crc32c(&entry.payload),
    }
}

/// Appends with so many entries in flight, each its own append.
async fn write(store: &Store, range: std::ops::Range<u64>, in_flight: usize, len: usize) {
    let mut waiting = std::collections::VecDeque::new();
    for index in range {
        if waiting.len() >= in_flight {
            let flushed: oneshot::Receiver<()> = waiting.pop_front().expect("some wait");
            flushed.await.expect("flushed");
        }
        let (sender, receiver) = oneshot::channel();
        let callback = Box::new(move |result: std::io::Result<()>| {
            result.expect("flushed");
            let _ = sender.send(());
        });
        store.append(vec![entry(1, index, len)], callback).await.expect("works");
        waiting.push_back(receiver);
    }
    for flushed in waiting {
        flushed.await.expect("flushed");
    }
}

async fn apply(store: &Store, from: u64, below: u64, len: usize) {
    let mut index = LogIndex(from);
    while index.0 < below {
        for read in store.entries(index..LogIndex(below), 4 << 20).await.expect("reads") {
            assert_eq!(read.payload.len(), len);
            if index.0 > 0 && store.is_segment_first(index) {
                let last = LogPosition { term: Term(1), index: LogIndex(index.0 - 1) };
                store.save_snapshot(snapshot(last)).await.expect("saved");
            }
            store.applied(index, &Bytes::from_static(b"ok"), &[row(&read)]);
            index = index.next();
        }
    }
}

#[test]
#[ignore = "measures the disk of this machine"]
fn speed() {
    let directory: PathBuf = std::env::temp_dir().join("fulmar-store-speed");
    run(async {
        let host = Host::real(Arc::new(Seen::default())).expect("a real host");
        clean(host.disk.as_ref(), &directory).await;
        let (store, _) = open(&directory).await;
        let identity = crate::Identity { segment_bytes: 64 << 20, ..identity() };
        store.initialise(identity).await.expect("initialises");

        let len = 1100;
        for (in_flight, count) in [(1, 2_000u64), (64, 30_000)] {
            let from = store.last().map_or(0, |last| last.index.0 + 1);
            let start = time::now();
            write(&store, from..from + count, in_flight, len).await;
            let seconds = start.elapsed().as_secs_f64();
            let rate = count as f64 / seconds;
            println!(
                "{in_flight} in flight: {rate:.0} entries/s, {:.2} ms each",
                1e3 / rate * in_flight as f64
            );
        }
        let from = store.last().map_or(0, |last| last.index.0 + 1);
        let total = (1u64 << 30) / 1024;
        let start = time::now();
        write(&store, from..total, 4096, len).await;
        let seconds = start.elapsed().as_secs_f64();
        println!("4096 in flight: {:.0} MiB/s", (total - from) as f64 * len as f64 / MIB / seconds);
        drop(store);
        let start = time::now();
        let (store, _) = open(&directory).await;
        println!("restart with nothing sealed: {:.2} s", start.elapsed().as_secs_f64());
        let start = time::now();
        apply(&store, 0, total, len).await;
        println!("apply and seal: {:.2} s", start.elapsed().as_secs_f64());
        store.close().await.expect("works");
        drop(store);

        for _ in 0..2 {
            let start = time::now();
            let (store, snapshot) = open(&directory).await;
            let opened = start.elapsed().as_secs_f64();
            let from = snapshot.map_or(0, |snapshot| snapshot.last.index.0 + 1);
            apply(&store, from, total, len).await;
            let ready = start.elapsed().as_secs_f64();
            println!(
                "restart: opened in {opened:.2} s, {} entries applied, ready in {ready:.2} s",
                total - from
            );
            let start = time::now();
            let mut offset = Offset(0);
            let mut bytes = 0;
            while let Some(last) = {
                let read = store.read_stream(StreamId(0), offset..Offset(u64::MAX), 1 << 20).await;
                let read = read.expect("reads");
                bytes += read.iter().map(|batch| batch.bytes.len()).sum::<usize>();
                read.last().map(|batch| batch.base_offset)
            } {
                offset = last.plus(1);
            }
            let seconds = start.elapsed().as_secs_f64();
            println!("read a stream: {:.0} MiB/s", bytes as f64 / MIB / seconds);
            assert_eq!(offset, Offset(total));
        }
        clean(host.disk.as_ref(), &directory).await;
    });
}
