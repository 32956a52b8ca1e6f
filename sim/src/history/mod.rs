//! What the clients saw: every operation with the virtual times of its call and its answer.
//!
//! The history is the evidence of a run. It is written by the workloads, which know nothing of what
//! a node holds; the checks in [`checks`] judge it with nothing else at hand, so that a history out
//! of a failure folder can be judged again.
//!
//! Invariants: an operation that was answered has its answer and the time of it; one that was not
//! may have taken effect or may still do so. A payload is produced by one operation only, because
//! its value names its producer and its number.
//!
//! Never: an outcome that the client cannot know. A request whose connection broke is unknown, not
//! failed.

mod file;
mod model;

pub mod checks;

pub use file::LoadError;
pub use model::{
    Action, Batch, Besides, Budget, ChangeOutcome, ClientId, Kept, Marker, Operation, OperationId,
    PartitionName, Payload, ProduceOutcome, ProducerTag, ReadAnswer, ReadBack, ReadOutcome,
    SeenRecord, Time,
};

use fulmar_types::Offset;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that the clients of a run did and saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    operations: Vec<Operation>,
    read_back: BTreeMap<PartitionName, ReadBack>,
    kept: BTreeMap<PartitionName, Kept>,
    markers: BTreeMap<PartitionName, Vec<Marker>>,
    payloads: BTreeSet<Payload>,
    /// When the copies were made that each site was put back to, and when it was, in order.
    put_back: BTreeMap<String, Vec<(Time, Time)>>,
}

impl History {
    /// Notes that a client called.
    ///
    /// # Panics
    /// If a batch is empty, or a payload has been produced before: the checks could not tell the
    /// two apart.
    pub fn begin(
        &mut self,
        client: ClientId,
        partition: PartitionName,
        invoked: Time,
        action: Action,
    ) -> OperationId {
        let fresh = self.note_payloads(&action);
        assert!(fresh, "empty, or of payloads that were produced before: {action}");
        self.operations.push(Operation { client, partition, invoked, returned: None, action });
        OperationId(self.operations.len() - 1)
    }

    /// Whether an action produces records, if it produces, that nobody has produced before.
    fn note_payloads(&mut self, action: &Action) -> bool {
        let Action::Produce { batch, .. } = action else { return true };
        let fresh = |payload: &Payload| self.payloads.insert(*payload);
        !batch.payloads.is_empty() && batch.payloads.iter().all(fresh)
    }

    fn end(&mut self, id: OperationId, returned: Time, answer: impl FnOnce(&mut Action)) {
        let operation = self.operations.get_mut(id.0).expect("an id names its operation");
        assert!(operation.returned.is_none(), "{operation} ends twice");
        assert!(operation.invoked <= returned, "{operation} ends before it begins, {returned}");
        operation.returned = Some(returned);
        // What was asked before the site was put back to an older copy may have been answered before too.
        let put_back = self.put_back.get(&operation.partition.site).and_then(|all| all.last());
        if put_back.is_none_or(|(_, at)| operation.invoked > *at) {
            answer(&mut operation.action);
        }
    }

    /// Notes that a site was put back to what it was at an earlier moment. What it has answered since does
    /// not hold any more: records that were acknowledged may be gone, and what was read may have been one
    /// of them.
    pub fn put_back(&mut self, site: &str, (copied, now): (Time, Time)) {
        let of_site = self.operations.iter_mut().filter(|of| of.partition.site == site);
        for operation in of_site.filter(|of| of.returned.is_some_and(|at| at > copied)) {
            match &mut operation.action {
                Action::Produce { outcome, .. } => *outcome = ProduceOutcome::Unknown,
                Action::Read { outcome, .. } => *outcome = ReadOutcome::Nothing,
                Action::Latest { end } => *end = None,
                Action::Earliest { start } => *start = None,
                Action::Keep { outcome, .. } => *outcome = ChangeOutcome::Unknown,
            }
        }
        self.put_back.entry(site.to_owned()).or_default().push((copied, now));
    }

    /// Whether a site was put back to an older copy of itself.
    pub fn was_put_back(&self, site: &str) -> bool {
        self.put_back.contains_key(site)
    }

    /// When the copies were made that a site was put back to, and when it was, in order.
    pub fn put_backs(&self, site: &str) -> &[(Time, Time)] {
        self.put_back.get(site).map_or(&[], Vec::as_slice)
    }

    /// Notes that a produce request ended.
    ///
    /// # Panics
    /// If the operation is another one, or has ended before.
    pub fn produced(&mut self, id: OperationId, returned: Time, result: ProduceOutcome) {
        self.end(id, returned, |action| match action {
            Action::Produce { outcome, .. } => *outcome = result,
            other => panic!("{other} does not produce"),
        });
    }

    /// Notes that a read ended with an answer about the log.
    ///
    /// # Panics
    /// If the operation is another one, or has ended before.
    pub fn read(&mut self, id: OperationId, returned: Time, result: ReadOutcome) {
        self.end(id, returned, |action| match action {
            Action::Read { outcome, .. } => *outcome = result,
            other => panic!("{other} does not read"),
        });
    }

    /// Notes that the end of a partition was told; `None` if the call failed.
    ///
    /// # Panics
    /// If the operation is another one, or has ended before.
    pub fn latest(&mut self, id: OperationId, returned: Time, result: Option<Offset>) {
        self.end(id, returned, |action| match action {
            Action::Latest { end } => *end = result,
            other => panic!("{other} does not ask for the end"),
        });
    }

    /// Notes that the start of a partition was told; `None` if the call failed.
    ///
    /// # Panics
    /// If the operation is another one, or has ended before.
    pub fn earliest(&mut self, id: OperationId, returned: Time, result: Option<Offset>) {
        self.end(id, returned, |action| match action {
            Action::Earliest { start } => *start = result,
            other => panic!("{other} does not ask for the start"),
        });
    }

    /// Notes that a change of how long records are kept ended.
    ///
    /// # Panics
    /// If the operation is another one, or has ended before.
    pub fn changed(&mut self, id: OperationId, returned: Time, result: ChangeOutcome) {
        self.end(id, returned, |action| match action {
            Action::Keep { outcome, .. } => *outcome = result,
            other => panic!("{other} changes nothing"),
        });
    }

    /// Notes what a client read from the first to the last offset of a partition, after the site
    /// had healed and nobody produced any more.
    pub fn read_back(&mut self, partition: PartitionName, read_back: ReadBack) {
        self.read_back.insert(partition, read_back);
    }

    /// Notes that the records of a partition may go at some time, and how long they are kept at
    /// least as long as nobody changes it ([`Action::Keep`]).
    pub fn keep(&mut self, partition: PartitionName, kept: Kept) {
        self.kept.insert(partition, kept);
    }

    /// Notes what a site said in the end of the records that are missing in a partition.
    pub fn mark(&mut self, partition: PartitionName, markers: Vec<Marker>) {
        self.markers.insert(partition, markers);
    }

    /// What is said to be missing, by partition.
    pub fn markers(&self) -> &BTreeMap<PartitionName, Vec<Marker>> {
        &self.markers
    }

    /// The operations in the order of their calls.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// What was read back, by partition.
    pub fn read_backs(&self) -> &BTreeMap<PartitionName, ReadBack> {
        &self.read_back
    }

    /// The partitions whose records may go at some time, with what their topic was created with.
    pub fn kept(&self) -> &BTreeMap<PartitionName, Kept> {
        &self.kept
    }

    /// The operations of each partition, in the order of their calls.
    pub fn by_partition(&self) -> BTreeMap<&PartitionName, Vec<&Operation>> {
        let mut partitions: BTreeMap<&PartitionName, Vec<&Operation>> = BTreeMap::new();
        for operation in &self.operations {
            partitions.entry(&operation.partition).or_default().push(operation);
        }
        partitions
    }

    /// How many records were acknowledged.
    pub fn acked_records(&self) -> u64 {
        let acked = self.operations.iter().filter_map(Operation::acked);
        acked.map(|(batch, _)| batch.payloads.len() as u64).sum()
    }

    /// How many produce requests ended without their outcome being known.
    pub fn unknown_outcomes(&self) -> u64 {
        let unknown = self.operations.iter().filter(|operation| {
            matches!(&operation.action, Action::Produce { outcome: ProduceOutcome::Unknown, .. })
        });
        unknown.count() as u64
    }
}
