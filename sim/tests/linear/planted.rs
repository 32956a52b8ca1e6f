//! One violation of every kind, planted into long histories, must be found.

use super::generate::{self, Shape};
use super::verdict;
use fulmar_sim::history::{
    Action, Operation, Payload, ProduceOutcome, ReadAnswer, ReadOutcome, SeenRecord, Time,
};
use fulmar_sim::linear::Rule;
use fulmar_sim::prng::Prng;
use fulmar_types::Offset;

/// Plants into histories of many seeds; those that have no place for it are skipped.
fn caught(name: &str, plant: impl Fn(&mut Vec<Operation>, &mut Prng) -> Option<()>) {
    let mut planted = 0;
    for seed in 0..200 {
        let mut operations = generate::history(seed, &Shape::large(150));
        if plant(&mut operations, &mut Prng::new(seed, name)).is_none() {
            continue;
        }
        planted += 1;
        assert!(verdict(&operations).is_err(), "{name} of seed {seed} was not found");
    }
    assert!(planted > 100, "{name} was planted only {planted} times");
}

fn acked(operation: &Operation) -> Option<(Offset, u64)> {
    operation.acked().map(|(batch, base)| (base, batch.count()))
}

/// Any operation that passes.
fn any(
    operations: &[Operation],
    prng: &mut Prng,
    wanted: impl Fn(&Operation) -> bool,
) -> Option<usize> {
    let found: Vec<usize> =
        operations.iter().enumerate().filter(|(_, op)| wanted(op)).map(|(at, _)| at).collect();
    prng.pick(&found).copied()
}

fn answer(operation: &mut Operation) -> Option<&mut ReadAnswer> {
    match &mut operation.action {
        Action::Read { outcome: ReadOutcome::Answer(answer), .. } => Some(answer),
        _ => None,
    }
}

#[test]
fn a_stale_read_is_found() {
    caught("stale read", |operations, prng| {
        let append = any(operations, prng, |op| acked(op).is_some())?;
        let (base, _) = acked(&operations[append])?;
        let over = operations[append].returned?;
        let late = any(operations, prng, |op| {
            op.invoked > over && matches!(op.action, Action::Latest { .. })
        })?;
        operations[late].action = Action::Latest { end: Some(base) };
        Some(())
    });
}

#[test]
fn a_lost_append_is_found() {
    caught("lost append", |operations, prng| {
        // An acknowledged append of which the reader of the whole log sees nothing.
        let append = any(operations, prng, |op| acked(op).is_some())?;
        let (base, count) = acked(&operations[append])?;
        let last = operations.len() - 1;
        let answer = answer(&mut operations[last])?;
        answer.records.drain(base.get() as usize..(base.get() + count) as usize);
        for (at, record) in answer.records.iter_mut().enumerate() {
            record.offset = Offset(at as u64);
        }
        answer.high_watermark = Offset(answer.high_watermark.get() - count);
        Some(())
    });
}

#[test]
fn reordered_appends_are_found() {
    caught("reordered appends", |operations, prng| {
        // Two appends, the second called after the first was answered, change places, and every
        // reader agrees on that.
        let first = any(operations, prng, |op| acked(op).is_some())?;
        let (base, count) = acked(&operations[first])?;
        let over = operations[first].returned?;
        let second = any(operations, prng, |op| {
            op.invoked > over && acked(op).is_some_and(|(_, other)| other == count)
        })?;
        let (other_base, _) = acked(&operations[second])?;
        let moved = |offset: Offset| match offset.get() {
            at if (base.get()..base.get() + count).contains(&at) => {
                Offset(at - base.get() + other_base.get())
            }
            at if (other_base.get()..other_base.get() + count).contains(&at) => {
                Offset(at - other_base.get() + base.get())
            }
            at => Offset(at),
        };
        operations.retain(|operation| {
            matches!(operation.action, Action::Produce { .. }) || operation.client.0 == 99
        });
        for operation in operations.iter_mut() {
            if let Action::Produce { outcome: ProduceOutcome::Acked(base), .. } =
                &mut operation.action
            {
                *base = moved(*base);
            }
        }
        let last = operations.len() - 1;
        let answer = answer(&mut operations[last])?;
        for record in &mut answer.records {
            record.offset = moved(record.offset);
        }
        answer.records.sort_by_key(|record| record.offset);
        Some(())
    });
}

#[test]
fn a_duplicate_is_found() {
    caught("duplicate", |operations, prng| {
        let append = any(operations, prng, |op| acked(op).is_some())?;
        let (base, count) = acked(&operations[append])?;
        let last = operations.len() - 1;
        let answer = answer(&mut operations[last])?;
        for at in 0..count {
            let payload = answer.records[(base.get() + at) as usize].payload;
            answer.records.push(SeenRecord { offset: answer.high_watermark, payload });
            answer.high_watermark = answer.high_watermark.plus(1);
        }
        Some(())
    });
}

#[test]
fn data_that_nobody_produced_is_found() {
    caught("invented", |operations, prng| {
        let last = operations.len() - 1;
        let answer = answer(&mut operations[last])?;
        let at = prng.below(answer.records.len() as u64) as usize;
        answer.records[at].payload = Payload(u64::MAX);
        Some(())
    });
}

#[test]
fn data_read_before_it_was_produced_is_found() {
    caught("from the future", |operations, prng| {
        let append = any(operations, prng, |op| acked(op).is_some())?;
        let (base, count) = acked(&operations[append])?;
        let called = operations[append].invoked;
        let early = any(operations, prng, |op| {
            op.returned.is_some_and(|over| over < called)
                && matches!(op.action, Action::Latest { .. })
        })?;
        operations[early].action = Action::Latest { end: Some(base.plus(count)) };
        Some(())
    });
}

#[test]
fn an_append_that_is_acknowledged_elsewhere_is_found() {
    caught("acknowledged elsewhere", |operations, prng| {
        let append = any(operations, prng, |op| acked(op).is_some())?;
        let Action::Produce { outcome: ProduceOutcome::Acked(base), .. } =
            &mut operations[append].action
        else {
            return None;
        };
        *base = Offset(if prng.below(2) == 0 { base.get() + 1 } else { base.get() + 1_000 });
        Some(())
    });
}

#[test]
fn a_failed_append_that_is_read_is_found() {
    caught("failed and read", |operations, prng| {
        let append = any(operations, prng, |op| acked(op).is_some())?;
        let Action::Produce { outcome, .. } = &mut operations[append].action else { return None };
        *outcome = ProduceOutcome::Failed;
        Some(())
    });
}

#[test]
fn a_torn_batch_is_found() {
    caught("torn batch", |operations, prng| {
        let append = any(operations, prng, |op| acked(op).is_some_and(|(_, count)| count > 1))?;
        let (base, count) = acked(&operations[append])?;
        let latest = any(operations, prng, |op| matches!(op.action, Action::Latest { .. }))?;
        let end = Some(Offset(base.get() + prng.between(1, count - 1)));
        operations[latest].action = Action::Latest { end };
        operations[latest].invoked = Time(0);
        Some(())
    });
}

fn rule_of(text: &[Operation]) -> Rule {
    verdict(text).expect_err("a violation").rule()
}

#[test]
fn explanations_name_the_operations_that_contradict_one_another() {
    use fulmar_sim::history::{Batch, ClientId, ProducerTag};
    let operation = |client, invoked: u64, returned: u64, action| Operation {
        client: ClientId(client),
        partition: generate::partition(),
        invoked: Time(invoked * 1_000_000),
        returned: Some(Time(returned * 1_000_000)),
        action,
    };
    let produce = |sequence, payloads: &[u64], outcome| Action::Produce {
        batch: Batch {
            producer: ProducerTag(1),
            sequence,
            payloads: payloads.iter().map(|hash| Payload(*hash)).collect(),
            idempotent: true,
            bytes_max: 0,
        },
        outcome,
    };
    let first = operation(1, 0, 5, produce(0, &[10, 11], ProduceOutcome::Acked(Offset(0))));
    let second = operation(1, 6, 9, produce(2, &[12], ProduceOutcome::Acked(Offset(2))));
    let stale = operation(2, 10, 12, Action::Latest { end: Some(Offset(2)) });
    let unknown = operation(3, 1, 30, produce(7, &[20, 21], ProduceOutcome::Unknown));
    let beyond = operation(2, 10, 12, Action::Latest { end: Some(Offset(4)) });
    let explain = |operations: &[&Operation]| {
        fulmar_sim::linear::check(operations).expect_err("a violation").to_string()
    };
    let mut text = String::new();
    for operations in [vec![&first, &second, &stale], vec![&first, &second, &unknown, &beyond]] {
        text.push_str(&explain(&operations));
        text.push_str("\n\n");
    }
    let read = Action::Read {
        from: Offset(1),
        outcome: ReadOutcome::Answer(ReadAnswer {
            records: vec![SeenRecord { offset: Offset(1), payload: Payload(20) }],
            high_watermark: Offset(2),
            log_start: Offset(0),
        }),
    };
    let wrong = operation(4, 20, 21, read);
    for operations in [vec![&first, &wrong], vec![&unknown, &wrong], vec![&first, &unknown, &wrong]]
    {
        text.push_str(&explain(&operations));
        text.push_str("\n\n");
    }
    insta::assert_snapshot!("explanations", text);
    assert!(matches!(rule_of(&[first, second, stale]), Rule::TooLate { .. }));
    assert!(matches!(rule_of(&[wrong, unknown]), Rule::Hole { .. } | Rule::TornBatch { .. }));
}
