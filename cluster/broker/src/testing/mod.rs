//! A group of one node in memory, for the tests of this crate: it applies what is proposed, at
//! once or when a test lets it, and can lose its leadership or its lease at any moment.

mod host;

use crate::broker::Broker;
use crate::group::{
    Answerer, AskError, GroupHandle, Leadership, NodeSeen, ProposeError, Proposed, ReadError,
    ReadPoint, Records, RecordsError,
};
use crate::machine::outcome::{OperationResult, UnitResult};
use crate::proposer::Answer;
use crate::settings::{BrokerSettings, Endpoint};
use crate::site::Site;
use bytes::Bytes;
use fulmar_consensus::Machine;
use fulmar_host::time::{self, Instant};
use fulmar_host::{BoxFuture, Observer};
use fulmar_store::entry::{Operation, Unit};
use fulmar_store::{Row, StoredBatch, StreamId};
use fulmar_types::{Event, LogIndex, LogPosition, NodeId, Offset, Probe, Term, Uuid};
use fulmar_wire::batch::BatchBuilder;
pub(crate) use host::Pipes;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;

struct Inner {
    term: Term,
    leader: Option<NodeId>,
    lease: bool,
    /// Proposals are kept until this is false.
    hold: bool,
    flushing: bool,
    /// Whether the disks have no room for records.
    full: bool,
    behind: bool,
    /// The group of the node that is asked as the leader.
    others: Option<FakeGroup>,
    log: Vec<(LogPosition, Bytes)>,
    applied: usize,
    outcomes: Vec<Bytes>,
    rows: Vec<Row>,
}

/// The group.
#[derive(Clone)]
pub(crate) struct FakeGroup {
    node: NodeId,
    site: Site,
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Notify>,
    answerer: Arc<OnceLock<Arc<dyn Answerer>>>,
}

impl FakeGroup {
    /// A group whose leader is node 1, seen from a node.
    pub(crate) fn new(node: NodeId, site: Site) -> Self {
        let inner = Inner {
            term: Term(1),
            leader: Some(NodeId(1)),
            lease: true,
            hold: false,
            flushing: false,
            full: false,
            behind: false,
            others: None,
            log: Vec::new(),
            applied: 0,
            outcomes: Vec::new(),
            rows: Vec::new(),
        };
        let inner = Arc::new(Mutex::new(inner));
        Self { node, site, inner, changed: Arc::new(Notify::new()), answerer: Arc::default() }
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no test panics in here")
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.locked());
        self.apply();
        self.changed.notify_waiters();
    }

    /// Begins a term.
    pub(crate) fn elect(&self, leader: Option<NodeId>) {
        self.change(|inner| {
            inner.term = Term(inner.term.0 + 1);
            inner.leader = leader;
        });
    }

    /// Takes away or gives back the proof that this node leads.
    pub(crate) fn set_lease(&self, lease: bool) {
        self.change(|inner| inner.lease = lease);
    }

    /// Keeps proposals uncommitted, or lets them go.
    pub(crate) fn hold(&self, hold: bool) {
        self.change(|inner| inner.hold = hold);
    }

    /// Makes the leader's flush take until it is told otherwise.
    pub(crate) fn set_flushing(&self, flushing: bool) {
        self.change(|inner| inner.flushing = flushing);
    }

    /// Lets the node be one that has just started, or one that has caught up.
    pub(crate) fn set_behind(&self, behind: bool) {
        self.change(|inner| inner.behind = behind);
    }

    /// Fills the disks, or makes room on them.
    pub(crate) fn set_full(&self, full: bool) {
        self.change(|inner| inner.full = full);
    }

    /// Lets this node ask another one as its leader.
    pub(crate) fn ask(&self, leader: &Self) {
        self.change(|inner| inner.others = Some(leader.clone()));
    }

    /// How many entries the log has.
    pub(crate) fn entries(&self) -> usize {
        self.locked().log.len()
    }

    fn apply(&self) {
        loop {
            let (position, payload) = {
                let inner = self.locked();
                if inner.hold || inner.applied == inner.log.len() {
                    return;
                }
                inner.log[inner.applied].clone()
            };
            let machine = self.site.machine();
            let applied = machine.lock().expect("no test panics in here").apply(position, &payload);
            let applied = applied.expect("the proposer writes entries");
            let mut inner = self.locked();
            inner.applied += 1;
            inner.outcomes.push(applied.outcome);
            inner.rows.extend(applied.rows);
        }
    }

    async fn wait_until<T>(&self, look: impl Fn(&Inner) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = look(&self.locked()) {
                return found;
            }
            changed.await;
        }
    }
}

impl GroupHandle for FakeGroup {
    fn propose(&self, payload: Bytes) -> BoxFuture<'static, Result<Proposed, ProposeError>> {
        let this = self.clone();
        Box::pin(async move {
            let position = {
                let mut inner = this.locked();
                if inner.leader != Some(this.node) {
                    return Err(ProposeError::NotLeader);
                }
                let index = LogIndex(inner.log.len() as u64);
                let position = LogPosition { term: inner.term, index };
                inner.log.push((position, payload));
                position
            };
            this.change(|_| ());
            let index = position.index.get() as usize;
            this.wait_until(|inner| match inner.outcomes.get(index) {
                Some(outcome) => Some(Ok(Proposed { position, outcome: outcome.clone() })),
                None if inner.term != position.term => Some(Err(ProposeError::Unknown)),
                None => None,
            })
            .await
        })
    }

    fn lease_until(&self) -> Option<Instant> {
        let leads = self.locked().leader == Some(self.node);
        leads.then(|| time::now() + Duration::from_secs(1))
    }

    fn takes_records(&self) -> bool {
        !self.locked().full
    }

    fn room_for(&self, _: usize, has_records: bool) -> BoxFuture<'static, bool> {
        let full = self.locked().full;
        Box::pin(std::future::ready(!(full && has_records)))
    }

    fn log_end(&self) -> LogIndex {
        LogIndex(self.locked().log.len() as u64)
    }

    fn wait_flushed(&self, _: LogIndex) -> BoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move { this.wait_until(|inner| (!inner.flushing).then_some(())).await })
    }

    fn leadership(&self) -> Leadership {
        let inner = self.locked();
        let is_me = inner.leader == Some(self.node);
        Leadership { term: inner.term, leader: inner.leader, is_me }
    }

    fn wait_leadership_change(&self, seen: Leadership) -> BoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            let changed = |inner: &Inner| (inner.term, inner.leader) != (seen.term, seen.leader);
            this.wait_until(|inner| changed(inner).then_some(())).await;
        })
    }

    fn read_barrier(&self) -> BoxFuture<'static, Result<ReadPoint, ReadError>> {
        let leads = self.leadership().is_me && self.locked().lease;
        let term = self.leadership().term;
        let applied = self.applied().unwrap_or(LogPosition { term, index: LogIndex(0) });
        let point = if leads { Ok(ReadPoint { term, applied }) } else { Err(ReadError::NotLeader) };
        Box::pin(std::future::ready(point))
    }

    fn alive(&self) -> Vec<NodeSeen> {
        Vec::new()
    }

    fn ask_leader(
        &self,
        question: Bytes,
        patience: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>, AskError>> {
        let Some(leader) = self.locked().others.clone() else {
            return Box::pin(std::future::ready(Err(AskError::NotDone)));
        };
        let answer = leader.answerer.get().map(|leader| leader.answer(question, patience));
        Box::pin(async move {
            let answer = answer.ok_or(AskError::NotDone)?;
            let answer = fulmar_host::time::timeout(patience, answer).await;
            answer.map_err(|_| AskError::Unknown)?.ok_or(AskError::NotDone)
        })
    }

    fn answer_with(&self, answerer: Arc<dyn Answerer>) {
        assert!(self.answerer.set(answerer).is_ok(), "one broker for one group");
    }

    fn applied(&self) -> Option<LogPosition> {
        let inner = self.locked();
        inner.applied.checked_sub(1).map(|last| inner.log[last].0)
    }

    fn has_caught_up(&self) -> bool {
        !self.locked().behind
    }
}

impl Records for FakeGroup {
    fn read(
        &self,
        stream: StreamId,
        range: std::ops::Range<Offset>,
        max_bytes: usize,
    ) -> BoxFuture<'static, Result<Vec<StoredBatch>, RecordsError>> {
        let inner = self.locked();
        let mut bytes = 0;
        let mut batches = Vec::new();
        for row in inner.rows.iter().filter(|row| row.stream == stream) {
            if row.end_offset() <= range.start || row.base_offset >= range.end {
                continue;
            }
            bytes += row.len as usize;
            if !batches.is_empty() && bytes > max_bytes {
                break;
            }
            let payload = &inner.log[row.index.get() as usize].1;
            let at = row.at as usize;
            let bytes = payload.slice(at..at + row.len as usize);
            let Row { base_offset, term, records, .. } = *row;
            batches.push(StoredBatch { base_offset, term, records, bytes });
        }
        Box::pin(std::future::ready(Ok(batches)))
    }

    fn by_timestamp(
        &self,
        stream: StreamId,
        timestamp_ms: i64,
    ) -> BoxFuture<'static, Result<Option<Row>, RecordsError>> {
        let inner = self.locked();
        let mut rows = inner.rows.iter().filter(|row| row.stream == stream);
        let found = rows.find(|row| row.max_timestamp_ms >= timestamp_ms).copied();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn unapplied(&self, applied: Option<LogPosition>) -> BoxFuture<'static, Vec<Bytes>> {
        let inner = self.locked();
        let from = applied.map_or(0, |applied| applied.index.get() as usize + 1);
        let payloads = inner.log[from..].iter().map(|(_, payload)| payload.clone()).collect();
        Box::pin(std::future::ready(payloads))
    }
}

/// Keeps the events of a node.
#[derive(Default)]
pub(crate) struct Events(Mutex<Vec<Event>>);

impl Observer for Events {
    fn observe(&self, event: &Event) {
        self.0.lock().expect("no test panics in here").push(event.clone());
    }
}

impl Events {
    pub(crate) fn probes(&self, probe: Probe) -> usize {
        let events = self.0.lock().expect("no test panics in here");
        events.iter().filter(|event| **event == Event::Probe(probe)).count()
    }

    /// The terms in which reads were refused for want of a lease.
    pub(crate) fn refused_reads(&self) -> Vec<u64> {
        let events = self.0.lock().expect("no test panics in here");
        let term = |event: &Event| match event {
            Event::ReadRefused { term } => Some(term.get()),
            _ => None,
        };
        events.iter().filter_map(term).collect()
    }
}

/// A broker over a fake group.
pub(crate) struct Fixture {
    pub(crate) broker: Arc<Broker>,
    pub(crate) group: FakeGroup,
    pub(crate) events: Arc<Events>,
}

pub(crate) fn settings(node: u64) -> BrokerSettings {
    let endpoint = |id: u64| Endpoint {
        node: NodeId(id),
        host: format!("node-{id}.example"),
        port: 9092,
        internal: ([127, 0, 0, 1], 1).into(),
    };
    BrokerSettings {
        node: NodeId(node),
        site_name: "site".to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        nodes: (1..=3).map(endpoint).collect(),
        cluster_id: "site".to_owned(),
        segment_bytes: 64 << 20,
        auto_create_topics: true,
        default_partitions: 2,
        producer_expiry: Duration::from_secs(3600),
        request_timeout_max: Duration::from_secs(10),
    }
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(settings(1))
    }

    pub(crate) fn with(settings: BrokerSettings) -> Self {
        Self::on(Pipes::default(), settings)
    }

    /// A new producer id.
    pub(crate) async fn producer(&self) -> i64 {
        let unit = Unit::of(Operation::InitProducer { request: Uuid::NIL });
        let Answer::Done { result: UnitResult::Done(results), .. } =
            self.broker.proposer.propose(unit).await
        else {
            panic!("an answer")
        };
        let OperationResult::ProducerAssigned { producer } = results[0] else { panic!("an id") };
        producer.0
    }

    /// A broker that shares a network with others.
    pub(crate) fn on(network: Pipes, settings: BrokerSettings) -> Self {
        let site = Site::new();
        let group = FakeGroup::new(settings.node, site.clone());
        let events = Arc::new(Events::default());
        let host = host::host(network, events.clone());
        let (handle, records) = (Arc::new(group.clone()), Arc::new(group.clone()));
        let broker = Broker::start(host, handle, records, site, settings);
        Self { broker, group, events }
    }
}

/// Runs a test on a runtime like a node's.
pub(crate) fn run<F: Future>(test: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let patience = Duration::from_secs(20);
        fulmar_host::time::timeout(patience, test).await.expect("the test ends in time")
    })
}

/// The same on a clock that jumps to the next timer whenever everybody waits.
pub(crate) fn run_paused<F: Future>(test: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().expect("a runtime").block_on(test)
}

/// Lets the other tasks run until they wait.
pub(crate) async fn settle() {
    for _ in 0..50 {
        fulmar_host::task::yield_now().await;
    }
}

/// A batch of records with the values "0", "1", ... and timestamps that count up from `ms`.
pub(crate) fn batch(producer: Option<(i64, i16, i32)>, records: usize, ms: i64) -> Bytes {
    let mut builder = BatchBuilder::new();
    if let Some((id, epoch, sequence)) = producer {
        builder = builder.producer(id, epoch, sequence);
    }
    for n in 0..records {
        let value = n.to_string();
        builder.push(ms + n as i64, None, Some(value.as_bytes()), &[]).expect("fits");
    }
    builder.build().expect("has records")
}
