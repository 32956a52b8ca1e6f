//! A store under test, and entries for it.

use super::disk::TestDisk;
use crate::error::OpenError;
use crate::{
    EntryKind, Identity, Life, LogEntry, Recovered, Row, Snapshot, Store, StoreSettings,
    StoredBatch, StreamId,
};
use bytes::Bytes;
use fulmar_host::clock::Clock;
use fulmar_host::net::{Connection, Listener, Network};
use fulmar_host::process::Process;
use fulmar_host::{BoxFuture, Host, NoLinks, Observer};
use fulmar_types::{
    Event, ExitCode, Incarnation, LogIndex, LogPosition, NodeId, Offset, Probe, SiteId, Term, Uuid,
};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use tokio::sync::oneshot;

pub const ROOT: &str = "/node";
pub const SEGMENT_BYTES: u64 = 136 << 10;

/// What a node would have shown to the outside.
#[derive(Default)]
pub struct Seen {
    pub events: Mutex<Vec<Event>>,
    pub exit: Mutex<Option<(ExitCode, String)>>,
}

impl Observer for Seen {
    fn observe(&self, event: &Event) {
        self.events.lock().unwrap().push(event.clone());
    }
}

impl Process for Seen {
    fn exit(&self, code: ExitCode, message: &str) {
        self.exit.lock().unwrap().get_or_insert((code, message.to_owned()));
    }
}

impl Clock for Seen {
    fn wall_ms(&self) -> u64 {
        0
    }
}

impl Network for Seen {
    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        unreachable!("a store has no network")
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        unreachable!("a store has no network")
    }
}

impl Seen {
    pub fn probes(&self) -> Vec<Probe> {
        let events = self.events.lock().unwrap();
        let probe = |event: &Event| match event {
            Event::Probe(probe) => Some(*probe),
            _ => None,
        };
        events.iter().filter_map(probe).collect()
    }

    pub fn exit_code(&self) -> Option<ExitCode> {
        self.exit.lock().unwrap().as_ref().map(|(code, _)| *code)
    }

    pub fn exit_message(&self) -> String {
        self.exit.lock().unwrap().as_ref().map(|(_, message)| message.clone()).unwrap_or_default()
    }

    pub fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.lock().unwrap().iter().filter(|event| wanted(event)).count()
    }
}

pub fn host(disk: &TestDisk) -> (Host, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let host = Host {
        network: seen.clone(),
        http: seen.clone(),
        peers: seen.clone(),
        links: Arc::new(NoLinks),
        disk: Arc::new(disk.clone()),
        clock: seen.clone(),
        process: seen.clone(),
        observer: seen.clone(),
    };
    (host, seen)
}

pub fn settings() -> StoreSettings {
    StoreSettings {
        directory: PathBuf::from(ROOT),
        node: NodeId(1),
        segment_bytes: SEGMENT_BYTES,
        spare_segments: 1,
        reserve_bytes: 16 << 10,
        entry_cache_bytes: 64 << 10,
    }
}

pub fn identity() -> Identity {
    Identity {
        site: SiteId(Uuid([7; 16])),
        node: NodeId(1),
        incarnation: Incarnation(Uuid([8; 16])),
        segment_bytes: SEGMENT_BYTES,
    }
}

pub fn life() -> Life {
    Life { site: Some(identity().site), ..Life::new(identity().incarnation) }
}

pub fn segment(base: u64) -> PathBuf {
    Path::new(ROOT).join(format!("log/{base:020}.seg"))
}

/// An opened store and its witnesses.
pub struct Node {
    pub store: Arc<Store>,
    pub recovered: Recovered,
    pub seen: Arc<Seen>,
}

pub async fn try_open(disk: &TestDisk) -> (Result<(Arc<Store>, Recovered), OpenError>, Arc<Seen>) {
    let (host, seen) = host(disk);
    (Store::open(host, settings()).await, seen)
}

pub async fn open(disk: &TestDisk) -> Node {
    let (opened, seen) = try_open(disk).await;
    match opened {
        Ok((store, recovered)) => Node { store, recovered, seen },
        Err(error) => panic!("{error}\n{}", disk.trace().join("\n")),
    }
}

pub async fn fresh(disk: &TestDisk) -> Node {
    let node = open(disk).await;
    node.store.save_life(&life()).await.expect("saves");
    node.store.initialise(identity()).await.expect("initialises");
    node
}

pub fn entry(term: u64, index: u64, len: usize) -> LogEntry {
    let mut payload = vec![(index as u8) ^ (term as u8).rotate_left(4); len];
    for (at, byte) in index.to_le_bytes().iter().chain(&term.to_le_bytes()).enumerate() {
        if at < len {
            payload[at] = *byte;
        }
    }
    LogEntry {
        position: LogPosition { term: Term(term), index: LogIndex(index) },
        kind: EntryKind::Normal,
        claim: 0,
        payload: Bytes::from(payload),
    }
}

/// The rows of an entry: two batches for stream `index % 3`, one record each.
pub fn rows(entry: &LogEntry) -> Vec<Row> {
    let index = entry.position.index;
    let half = entry.payload.len() / 2;
    let stream = StreamId((index.0 % 3) as u32);
    let row = |number: u64, from: usize, to: usize| Row {
        stream,
        base_offset: Offset(index.0 / 3 * 2 + number),
        records: 1,
        max_timestamp_ms: index.0 as i64 * 10,
        index,
        term: entry.position.term,
        at: from as u32,
        len: (to - from) as u32,
        crc: crc32c::crc32c(&entry.payload[from..to]),
    };
    vec![row(0, 0, half), row(1, half, entry.payload.len())]
}

pub fn outcome(index: LogIndex) -> Bytes {
    Bytes::from(format!("done {index}"))
}

pub fn snapshot(last: LogPosition) -> Snapshot {
    Snapshot {
        last,
        membership: Bytes::from_static(b"members"),
        wall_ms: last.index.0,
        state: u128::from(last.index.0) << 64 | u128::from(last.term.0),
        sections: Vec::new(),
    }
}

impl Node {
    /// Appends and does not wait.
    pub async fn append(&self, entries: Vec<LogEntry>) -> oneshot::Receiver<io::Result<()>> {
        let (sender, receiver) = oneshot::channel();
        let callback = Box::new(move |result| {
            let _ = sender.send(result);
        });
        let _ = self.store.append(entries, callback).await;
        receiver
    }

    /// Appends and waits for the flush.
    pub async fn write(&self, entries: Vec<LogEntry>) {
        self.append(entries).await.await.expect("called").expect("flushed");
    }

    /// Appends entries of one size.
    pub async fn fill(&self, term: u64, indexes: std::ops::Range<u64>, len: usize) {
        for index in indexes {
            self.write(vec![entry(term, index, len)]).await;
        }
    }

    /// Everything that can be read.
    pub async fn all(&self) -> Vec<LogEntry> {
        let first = self.store.floor().map_or(LogIndex(0), |floor| floor.index.next());
        let Some(last) = self.store.last().filter(|last| last.index >= first) else {
            return Vec::new();
        };
        self.store.entries(first..last.index.next(), usize::MAX).await.expect("reads")
    }

    /// Every batch of a stream.
    pub async fn read_all(&self, stream: StreamId) -> Vec<StoredBatch> {
        let (mut all, mut from): (Vec<StoredBatch>, _) = (Vec::new(), Offset(0));
        loop {
            let offsets = from..Offset(u64::MAX);
            let read = self.store.read_stream(stream, offsets, 20_000).await.expect("reads");
            let Some(last) = read.last() else { return all };
            from = last.base_offset.plus(u64::from(last.records));
            all.extend(read);
        }
    }

    /// Applies entries up to `below`, with a snapshot at the first entry of a segment if wanted.
    pub async fn apply(&self, below: u64, snapshots: bool) {
        let next = self.store.last_applied().map(LogIndex::next);
        let covered = self.store.latest_snapshot().await.map(|s| s.last.index.next());
        let from = next.or(covered).unwrap_or(LogIndex(0));
        for index in from.0..below {
            let index = LogIndex(index);
            let read = self.store.entries(index..index.next(), 1).await;
            let Ok(read) = read else { return };
            if snapshots && index.0 > 0 && self.store.is_segment_first(index) {
                let before = LogIndex(index.0 - 1);
                let last = self.store.entries(before..index, 1).await;
                if let Ok(last) = last
                    && self.store.save_snapshot(snapshot(last[0].position)).await.is_err()
                {
                    return;
                }
            }
            self.store.applied(index, &outcome(index), &rows(&read[0]));
        }
    }
}

/// Goes on with both by turns. The second begins so many turns later, and then has one turn out of so
/// many. The first is given up after its turns, if it has a number of them.
pub async fn by_turns<A: Future, B: Future>(
    (first, turns): (A, Option<usize>),
    (second, later, every): (B, usize, usize),
) -> B::Output {
    let (mut first, mut second) = (Box::pin(first), std::pin::pin!(second));
    let (mut turn, mut ended) = (0, false);
    let together = std::future::poll_fn(|context| {
        turn += 1;
        if turn > turns.unwrap_or(usize::MAX) {
            return Poll::Ready(None);
        }
        ended = ended || first.as_mut().poll(context).is_ready();
        if turn <= later || (turn - later - 1) % every != 0 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        second.as_mut().poll(context).map(Some)
    });
    match together.await {
        Some(output) => {
            if !ended {
                first.await;
            }
            output
        }
        None => {
            drop(first);
            second.await
        }
    }
}

pub fn run<T>(future: impl Future<Output = T>) -> T {
    fulmar_host::task::block_on(future)
}
