//! Histories that are right by construction: a log in one place is asked, in the order of points
//! that lie between calls and answers. And mutations that may make them wrong.

use fulmar_sim::history::{
    Action, Batch, ClientId, Operation, PartitionName, Payload, ProduceOutcome, ProducerTag,
    ReadAnswer, ReadOutcome, SeenRecord, Time,
};
use fulmar_sim::prng::Prng;
use fulmar_types::{Offset, PartitionIndex};

/// What a history looks like.
pub struct Shape {
    pub operations: usize,
    /// How far apart the points of two operations are, at most.
    pub step: u64,
    /// How long before and after its point an operation is called and answered, at most.
    pub slack: u64,
    pub batch_records_max: u64,
    /// Whether a reader sees the whole log at the end.
    pub read_back: bool,
}

impl Shape {
    pub fn large(operations: usize) -> Self {
        Self { operations, step: 20, slack: 100, batch_records_max: 5, read_back: true }
    }

    /// A handful of operations; times are coarse, so that many coincide.
    pub fn small(seed: u64) -> Self {
        let mut prng = Prng::new(seed, "shape");
        Self {
            operations: prng.between(2, 7) as usize,
            step: prng.between(1, 4),
            slack: prng.between(1, 6),
            batch_records_max: prng.between(1, 3),
            read_back: false,
        }
    }
}

pub fn partition() -> PartitionName {
    PartitionName { site: "north".into(), topic: "orders".into(), partition: PartitionIndex(0) }
}

fn seen(log: &[Payload], from: u64, count: u64) -> Vec<SeenRecord> {
    let records = log.iter().enumerate().skip(from as usize).take(count as usize);
    records
        .map(|(at, payload)| SeenRecord { offset: Offset(at as u64), payload: *payload })
        .collect()
}

/// A linearizable history.
pub fn history(seed: u64, shape: &Shape) -> Vec<Operation> {
    let mut prng = Prng::new(seed, "history");
    let mut log: Vec<Payload> = Vec::new();
    let mut operations = Vec::new();
    let mut point = 0;
    for at in 0..shape.operations {
        point += prng.between(0, shape.step);
        let invoked = Time(point.saturating_sub(prng.between(0, shape.slack)));
        let returned = Some(Time(point + prng.between(0, shape.slack)));
        let client = ClientId(prng.below(8) as u32);
        let action = match prng.below(10) {
            0..=4 => produce(at as u64, &mut log, shape, &mut prng),
            5 | 6 => Action::Latest { end: Some(Offset(log.len() as u64)) },
            7 if prng.below(3) == 0 => {
                let from = Offset(log.len() as u64 + prng.between(1, 3));
                Action::Read { from, outcome: ReadOutcome::OutOfRange }
            }
            _ => read(&log, &mut prng),
        };
        operations.push(Operation { client, partition: partition(), invoked, returned, action });
    }
    if shape.read_back {
        let time = Time(point + 2 * shape.slack + 1);
        let answer = ReadAnswer {
            records: seen(&log, 0, u64::MAX),
            high_watermark: Offset(log.len() as u64),
            log_start: Offset(0),
        };
        operations.push(Operation {
            client: ClientId(99),
            partition: partition(),
            invoked: time,
            returned: Some(time),
            action: Action::Read { from: Offset(0), outcome: ReadOutcome::Answer(answer) },
        });
    }
    operations
}

fn produce(number: u64, log: &mut Vec<Payload>, shape: &Shape, prng: &mut Prng) -> Action {
    let count = prng.between(1, shape.batch_records_max);
    let payloads: Vec<Payload> = (0..count).map(|at| Payload(number * 1_000 + at)).collect();
    let base = Offset(log.len() as u64);
    let outcome = match prng.below(10) {
        0 => ProduceOutcome::Failed,
        1..=3 => ProduceOutcome::Unknown,
        _ => ProduceOutcome::Acked(base),
    };
    let happens = match outcome {
        ProduceOutcome::Acked(_) => true,
        ProduceOutcome::Unknown => prng.below(2) == 0,
        ProduceOutcome::Failed => false,
    };
    if happens {
        log.extend(&payloads);
    }
    let batch = Batch {
        producer: ProducerTag(1),
        sequence: number,
        payloads,
        idempotent: true,
        bytes_max: 0,
    };
    Action::Produce { batch, outcome }
}

fn read(log: &[Payload], prng: &mut Prng) -> Action {
    let end = log.len() as u64;
    let from = end - prng.between(0, end.min(10));
    let records = seen(log, from, prng.between(0, 12));
    let answer = ReadAnswer { records, high_watermark: Offset(end), log_start: Offset(0) };
    Action::Read { from: Offset(from), outcome: ReadOutcome::Answer(answer) }
}

fn nearby(value: u64, prng: &mut Prng) -> u64 {
    (value + prng.between(0, 2)).saturating_sub(1)
}

/// Changes one thing about one operation.
pub fn mutate(operations: &mut [Operation], prng: &mut Prng) {
    let payloads: Vec<Payload> = operations
        .iter()
        .filter_map(|operation| match &operation.action {
            Action::Produce { batch, .. } => Some(batch.payloads.clone()),
            _ => None,
        })
        .flatten()
        .collect();
    let at = prng.below(operations.len() as u64) as usize;
    let operation = &mut operations[at];
    if prng.below(3) == 0 {
        operation.invoked = Time(prng.below(12));
        operation.returned = Some(Time(operation.invoked.0 + prng.below(6)));
        return;
    }
    match &mut operation.action {
        Action::Produce { outcome, .. } => {
            *outcome = match *outcome {
                ProduceOutcome::Acked(base) if prng.below(2) == 0 => {
                    ProduceOutcome::Acked(Offset(nearby(base.get(), prng)))
                }
                _ => match prng.below(3) {
                    0 => ProduceOutcome::Unknown,
                    1 => ProduceOutcome::Failed,
                    _ => ProduceOutcome::Acked(Offset(prng.below(6))),
                },
            };
        }
        Action::Latest { end: Some(end) } => *end = Offset(nearby(end.get(), prng)),
        Action::Read { from, outcome: ReadOutcome::OutOfRange } => {
            *from = Offset(nearby(from.get(), prng));
        }
        Action::Read { outcome: ReadOutcome::Answer(answer), .. } => {
            let records = answer.records.len() as u64;
            if records == 0 || prng.below(3) == 0 {
                answer.high_watermark = Offset(nearby(answer.high_watermark.get(), prng));
                return;
            }
            let record = &mut answer.records[prng.below(records) as usize];
            match prng.pick(&payloads) {
                Some(payload) => record.payload = *payload,
                None => record.payload = Payload(77),
            }
        }
        Action::Read { .. }
        | Action::Latest { end: None }
        | Action::Earliest { .. }
        | Action::Keep { .. } => {}
    }
}
